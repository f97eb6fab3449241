"""Read masks that other programs have written, and write them as PNGs that track.py --mask takes.

Each reader yields Shapes. `notices` is a list that gets (file, sentence) for what it leaves out, or has guessed. What
the readers have in common, which object gets which id, is decided in `import_masks`.
"""

import base64
import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from exporting.run_lengths import decode_coco, expand_runs
from util.errors import InputError, name_a_few, pixels
from util.files import lock_folder, read_text, write_json
from util.frames import number_name
from util.image_io import find_numbers, is_image, mask_files, natural, open_mask, read_grey, read_mask, write_mask
from util.notices import list_notices, tell
from util.progress import progress_bar
from util.video import open_frames

DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OSError, SyntaxError)
"""What reading a file raises that is not as its format says."""

DRAWN = ("mask", "polygon")
"""Shapes of CVAT that say which pixels an object has."""

MANIFEST = ".imports.json"
"""The file that says which masks an import has written into a folder."""


class Shape(NamedTuple):
    """What one file says of one object in one frame."""

    frame: str | int
    """The frame's name, or its number from 0 where the format has no names."""

    key: object
    """What is the same for all shapes of one object: an id, or a text; None if the format does not say it."""

    kind: str
    """What the object is; "" if that is not known."""

    mask: np.ndarray
    """uint8 H×W, 1 for the object."""


def read_coco(path, notices):
    """COCO: instances with polygons or run lengths; `track_id` says which object it is."""
    content = json.loads(read_text(path))
    images = {image["id"]: image for image in content["images"]}
    kinds = {kind["id"]: kind["name"] for kind in content.get("categories", [])}
    # Boxes alone are left out, whatever video they are of.
    numbers = dict.fromkeys(annotation["image_id"] for annotation in content["annotations"]
                            if any(annotation.get("segmentation") or ()))
    annotated = [images[number] for number in numbers]
    videos = list(dict.fromkeys(str(image["video_id"]) for image in annotated if "video_id" in image))
    if len(videos) > 1:
        raise InputError(f"{path}: holds masks of {len(videos)} videos (video_id {name_a_few(videos)}), those of one "
                         "were expected; write a file for each video")
    _refuse_same_stems(path, [image["file_name"] for image in annotated])
    for annotation in content["annotations"]:
        image, segmentation = images[annotation["image_id"]], annotation.get("segmentation")
        shape = (image["height"], image["width"])
        if not any(segmentation or ()):
            notices.append((path, "a box without an outline is left out; polygons and run lengths can be read"))
            continue
        if isinstance(segmentation, dict):
            mask = decode_coco(segmentation)
            if mask.shape != shape:
                raise ValueError(f"run lengths of {pixels(mask.shape[::-1])} pixels, of which its image has "
                                 f"{pixels(shape[::-1])}")
        else:
            mask = np.zeros(shape, np.uint8)
            for polygon in segmentation:
                mask |= fill_polygon(np.reshape(polygon, (-1, 2)), shape)
        key = annotation.get("track_id", (annotation.get("attributes") or {}).get("track_id"))
        yield Shape(_stem(image["file_name"]), key, kinds.get(annotation.get("category_id"), ""), mask)


def read_sa_v(path, notices):
    """SA-V: masklet[frame][object]. Where not every frame is annotated, they are evenly spread."""
    content = json.loads(read_text(path))
    masklet = content["masklet"]
    step = max(1, round(float(content.get("video_frame_count") or len(masklet)) / max(1, len(masklet))))
    for number, codes in enumerate(masklet):
        for object_id, code in zip(content["masklet_id"], codes, strict=True):
            # SA-V counts objects from 0.
            key = object_id + (min(content["masklet_id"]) == 0)
            yield Shape(number * step, key, "", decode_coco(code))


def read_labelme(path, notices):
    """LabelMe: one file, or all in a folder; masks, polygons and rectangles. `group_id` says which object it is."""
    for file in [path] if path.is_file() else sorted(path.glob("*.json"), key=lambda file: natural(file.name)):
        content = json.loads(read_text(file))
        if "shapes" not in content:
            continue
        size = (content["imageHeight"], content["imageWidth"])
        for shape in content["shapes"]:
            points, mask = np.array(shape["points"], float), np.zeros(size, np.uint8)
            if shape["shape_type"] == "mask":
                (left, top), (right, bottom) = points.round().astype(int)
                with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as picture:
                    mask[top:bottom + 1, left:right + 1] = np.asarray(picture) > 0
            elif shape["shape_type"] == "rectangle":
                (left, top), (right, bottom) = points.min(0), points.max(0)
                mask = fill_polygon(np.array([[left, top], [right, top], [right, bottom], [left, bottom]]), size)
            elif shape["shape_type"] == "polygon":
                mask = fill_polygon(points, size)
            else:
                notices.append((file, f"a shape of the type {shape['shape_type']} is left out; masks, polygons and "
                                      "rectangles can be read"))
                continue
            yield Shape(file.stem, shape.get("group_id"), shape.get("label") or "", mask)


def read_cvat(path, notices):
    """CVAT 1.1, for video and for images; masks and polygons. A track is an object, or else a group."""
    root = ElementTree.parse(path).getroot()
    # What is no mask is left out, whatever task it is of.
    tasks = list(dict.fromkeys(track.get("task_id") for track in root.iter("track") if _holds_drawn(track)))
    if len(tasks) > 1:
        raise InputError(f"{path}: holds masks of {len(tasks)} videos (task_id {name_a_few(list(map(str, tasks)))}), "
                         "those of one were expected; write a file for each task")
    size = root.find(".//original_size")
    size = size is not None and (int(size.findtext("height")), int(size.findtext("width")))
    for track in root.iter("track"):
        key = track.get("group_id", "0")
        key = int(key) if key not in ("", "0") else f"track {track.get('id')}"
        for shape in track:
            if shape.get("keyframe") == "1" and shape.get("outside") != "1" and _is_drawn(shape, path, notices):
                yield Shape(int(shape.get("frame")), key, track.get("label", ""), _draw_cvat(shape, size, path))
    _refuse_same_stems(path, [image.get("name") for image in root.iter("image") if _holds_drawn(image)])
    for image in root.iter("image"):
        for shape in image:
            if _is_drawn(shape, path, notices):
                group = shape.get("group_id", "0")
                yield Shape(_stem(image.get("name")), None if group in ("", "0") else int(group),
                            shape.get("label", ""),
                            _draw_cvat(shape, (int(image.get("height")), int(image.get("width"))), path))


def _refuse_same_stems(path, names):
    """Raise InputError if two images would be the same frame. names: those of all images that have shapes."""
    frames = {}
    for name in names:
        stem = _stem(name)
        if stem in frames:
            raise InputError(f"{path}: {frames[stem]} and {name} would both be frame {stem}, the images of one video "
                             "were expected; write a file for each video")
        frames[stem] = name


def _stem(name):
    """The name of an image file without its suffix and folders, also those of Windows."""
    return Path(name.replace("\\", "/")).stem


def _is_drawn(shape, path, notices):
    """Whether an element of CVAT's XML says which pixels an object has."""
    if shape.tag not in DRAWN:
        notices.append((path, f"a shape of the type {shape.tag} is left out; masks and polygons can be read"))
    return shape.tag in DRAWN


def _holds_drawn(element):
    """Whether a track or an image of CVAT's XML has a mask."""
    return any(shape.tag in DRAWN for shape in element)


def _draw_cvat(shape, size, path):
    """uint8 H×W of a <mask> or <polygon>. size: (height, width), or False if the file does not say it."""
    if not size:
        raise InputError(f"{path}: does not say how large the frames are (original_size)")
    if shape.tag == "polygon":
        return fill_polygon(np.array([point.split(",") for point in shape.get("points").split(";")], float), size)
    left, top, width, height = (int(shape.get(name)) for name in ("left", "top", "width", "height"))
    mask = np.zeros(size, np.uint8)
    runs = [int(run) for run in shape.get("rle").split(",")]
    mask[top:top + height, left:left + width] = expand_runs(runs, width * height).reshape(height, width)
    return mask


def read_pictures(path, notices):
    """A folder of mask pictures, in which each colour is an object; indexed and grey ones as well."""
    colours = {}
    for name, file in mask_files(path).items():
        mask = open_mask(file, colours=colours)
        notices += [(file, notice) for notice in mask.notices]
        ids = mask.ids
        for object_id in np.unique(ids[ids > 0]).tolist():
            yield Shape(name, object_id, "", (ids == object_id).view(np.uint8))


def read_mattes(path, notices):
    """A folder of folders, OBJECT/NAME.png: mattes, and SA-V's form with one PNG for each object and frame."""
    folders = sorted((folder for folder in path.iterdir() if folder.name.isdecimal()), key=lambda folder: folder.name)
    # SA-V counts objects from 0.
    first = int(int(folders[0].name) == 0)
    for folder in folders:
        for name, file in mask_files(folder).items():
            mask = (read_grey(file) > 127).view(np.uint8)
            if mask.any():
                yield Shape(name, int(folder.name) + first, "", mask)


def find_reader(path):
    """The reader for what is at `path`. Raises InputError if there is none."""
    if path.is_dir():
        if any(file.name != "names.json" for file in path.glob("*.json")):
            return read_labelme
        if not any(map(is_image, path.iterdir())) and any(folder.name.isdecimal() for folder in path.iterdir()):
            return read_mattes
        return read_pictures
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() == ".xml":
        return read_cvat
    if path.suffix.lower() == ".json":
        content = json.loads(read_text(path))
        for name, reader in (("masklet", read_sa_v), ("annotations", read_coco), ("shapes", read_labelme)):
            if isinstance(content, dict) and name in content:
                return reader
    raise InputError(f"{path}: COCO or SA-V (.json), LabelMe (.json, or a folder of them), CVAT (.xml, unpacked), a "
                     "folder of mask PNGs or one of OBJECT/NAME.png was expected")


def fill_polygon(points, shape):
    """uint8 H×W of the pixels whose middle is in a polygon. points: float N×2, (x, y). shape: (height, width)."""
    height, width = shape
    toggles = np.zeros((height, width + 1), np.uint8)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        low, high = sorted((y0, y1))
        # The rows whose middle lies between the ends, the upper one included.
        rows = np.arange(max(0, int(np.ceil(low - 0.5))), min(height, int(np.ceil(high - 0.5))))
        if len(rows):
            crossings = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            toggles[rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(int)] ^= 1
    return np.bitwise_xor.accumulate(toggles, 1)[:, :width]


def import_masks(path, output, video=None, overwrite=False):
    """Read the masks at `path` and write them as indexed PNGs, named after their frames, into the folder `output`.

    video: the video or the folder of frames that they belong to; it tells the frames' names. overwrite: replace what an
    earlier import has written. Prints what was written. Raises InputError if a file cannot be read, it is not clear
    which object is which, or masks do not belong to the video; nothing is written then.
    """
    path, output = Path(path), Path(output)
    frames = open_frames([video]) if video else None
    with lock_folder(output):
        earlier = _read_manifest(output)
        others = [file.name for file in output.iterdir() if not file.name.startswith(".") and file.name not in earlier]
        if others:
            raise InputError(f"{output}: holds files that no import has written ({name_a_few(sorted(others))}); choose "
                             "another --output")
        if earlier and not overwrite:
            raise InputError(f"{output}: holds an earlier import; choose another --output, or replace it with "
                             "--overwrite")
        temporary = output / ".imports.part"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            names, notices = _write(path, frames, temporary)
            files = sorted(temporary.iterdir(), key=lambda file: natural(file.name))
            written = [file.name for file in files]
            write_json(output / MANIFEST, sorted({*earlier, *written}))
            for name in set(earlier) - set(written):
                (output / name).unlink(missing_ok=True)
            for file in files:
                file.replace(output / file.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    masks = [name for name in written if name.endswith(".png")]
    shown = ", ".join(f"{object_id}={names[object_id]}".rstrip("=") for object_id in sorted(names))
    print(f"wrote {len(masks)} masks of frames {Path(masks[0]).stem} to {Path(masks[-1]).stem} to {output} (objects: "
          f"{shown}); give them to track.py with --mask {output}")
    tell(list_notices(notices))


def _write(path, frames, folder):
    """Write the masks at `path`, and names.json; return ({object id: its kind}, what to tell)."""
    try:
        reader, names, notices = find_reader(path), {}, []
        number_object = _ObjectIds(reader(path, notices), path)
        bar = progress_bar(None, f"importing {path.name}")
        try:
            for shape in reader(path, []):
                file = folder / f"{_find_frame(shape.frame, path, frames)}.png"
                object_id = number_object(shape)
                names[object_id] = shape.kind or names.get(object_id, "")
                size = shape.mask.shape[1::-1]
                if frames and size != tuple(frames.size):
                    raise InputError(f"{path}: the mask of frame {file.stem} has {pixels(size)} pixels, the video "
                                     f"{pixels(frames.size)}")
                ids = read_mask(file, size) if file.exists() else np.zeros(size[::-1], np.uint8)
                here = shape.mask > 0
                if (ids[here] > 0).any() and (ids[here][ids[here] > 0] != object_id).any():
                    notices.append((path, "objects lie partly over others; the later one is seen"))
                ids[here] = object_id
                write_mask(file, ids)
                bar.increment()
        finally:
            bar.finish(dirty=True)
    except InputError:
        raise
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            # Of a full disk, say, no file of the import is to blame.
            raise
        raise InputError(f"{path}: damaged, or not as its format says ({type(error).__name__}: {error})") from error
    if not names:
        raise InputError(f"{path}: no mask of an object in it{f'; {notices[0][1]}' if notices else ''}")
    kinds = {str(object_id): kind for object_id, kind in sorted(names.items()) if kind}
    if kinds:
        write_json(folder / "names.json", kinds)
    return names, notices


class _ObjectIds:
    """Says which id the object of a Shape has: that of the file, or else the next that is free. It sees all first."""

    def __init__(self, shapes, path):
        self._path = path
        counts, kinds = Counter(), {}
        for shape in shapes:
            counts[shape.frame, self._own_key(shape)] += 1
            if shape.key is not None and shape.kind and kinds.setdefault(shape.key, shape.kind) != shape.kind:
                raise InputError(f"{path}: object {shape.key} is {kinds[shape.key]!r} and {shape.kind!r}; give each "
                                 "object a number of its own (track_id, group_id, group)")
        self._several_frames = len({frame for frame, _ in counts}) > 1
        self._twice = {key for (_, key), count in counts.items() if count > 1}
        given = [key for _, key in counts if isinstance(key, int) and 1 <= key <= 255]
        self._ids = {key: key for key in given}
        self._shapes = 0

    @staticmethod
    def _own_key(shape):
        return ("kind", shape.kind) if shape.key is None else shape.key

    def __call__(self, shape):
        key = self._own_key(shape)
        if shape.key is None and key in self._twice:
            if self._several_frames:
                raise InputError(f"{self._path}: frame {shape.frame} has several objects {shape.kind!r}, and nothing "
                                 "says which is which in other frames; number them (track_id, group_id, group)")
            self._shapes += 1
            key = ("shape", self._shapes)
        if key not in self._ids:
            free = next((number for number in range(1, 256) if number not in self._ids.values()), None)
            if free is None:
                raise InputError(f"{self._path}: more than 255 objects")
            self._ids[key] = free
        return self._ids[key]


def _find_frame(key, path, frames):
    """The name of the frame that a reader's frame means. frames: as `open_frames` gives them, or None."""
    if frames is None:
        return number_name(key, None if key > 99999 else 1) if isinstance(key, int) else key
    if frames.names:
        if isinstance(key, int):
            if key >= len(frames.names):
                raise InputError(f"{path}: frame {key}, the video has {len(frames.names)} frames from 0 on")
            return frames.names[key]
        return frames.find(key, path, counts=False)[0]
    numbers = find_numbers(str(key))
    if len(numbers) != 1 or not frames.holds(numbers[0]):
        raise InputError(f"{path}: frame {key} is not in the video; its frames are numbered from 0")
    return frames.name(numbers[0])


def _read_manifest(output):
    """The names of the files that an import has written into a folder."""
    try:
        return [name for name in json.loads((output / MANIFEST).read_text()) if (output / name).exists()]
    except (OSError, ValueError, TypeError):
        return []
