"""Find a video's masks, and its frames as far as they are wanted, and go through both."""

import glob
import json
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from unicodedata import category

import numpy as np

from exporting.shapes import Hold, ObjectMask, shape_mask, soften, split_ids
from util.decoding import is_stream
from util.errors import InputError, name_a_few
from util.files import is_hidden, read_json, read_text
from util.image_frames import IMAGE_RATE
from util.image_io import find_numbers, is_image, mask_files, mask_size, natural, read_mask
from util.video import VideoFrames, open_frames
from util.video_writer import Look

RGB, BT_709 = 0, 1
"""FFmpeg's numbers of colours that are no YUV, and of those that pictures and most videos have."""

OBJECT = "object"
"""What an object is called that nobody has named."""

MANIFEST = ".exports.json"
"""The file that says which files and folders of an output folder are exports."""

PROJECT = "project.json"
"""The file of a project of annotate.py that names the video; the masks are in the folder masks beside it."""

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
"""Which files of a folder of videos are looked for."""


@dataclass(frozen=True)
class Source:
    """Where one video's masks and frames are."""

    name: str

    masks: Path
    """The folder of the masks, PNGs named after their frames."""

    video: tuple = ()
    """What `open_frames` takes for its frames; empty if they are not at hand."""

    missing: str = ""
    """Without frames: why, and what to do."""

    start: str | None = None
    end: str | None = None

    summary: Path | None = None
    """The summary.json of track.py."""

    scores: Path | None = None
    """The folder of the probabilities."""

    home: Path | None = None
    """The folder that was given."""


def find_sources(folder, video=None):
    """Return the Sources in a folder that track.py, track_many.py, annotate.py or an evaluation has written, or in any
    tree of masks.

    video: where the frames are, in place of what the folder says; for a tree of several videos, the folder that holds
    theirs. Raises InputError if there are no masks, or tracking them has not ended.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder" if not folder.exists() else
                         f"{folder}: a file, the folder of the masks was expected")
    if (folder / "summary.json").is_file():
        return [_find_tracked(folder, video)]
    if (folder / PROJECT).is_file():
        return [_find_project(folder, video)]
    if video is not None and not is_stream(video) and not Path(video).exists():
        raise InputError(f"{video}: no such video or folder of frames")
    if _holds_masks(folder):
        found = [video] if video else _find_frames(folder)
        return [_source(folder, folder, found, "give its video or the folder of its frames with --video")]
    # Other programs write files of this name, too.
    tracked = sorted((file.parent for file in folder.glob("*/summary.json") if not is_hidden(file.parent.name)
                      and read_header(file).get("written_by") == "track.py"), key=lambda path: natural(path.name))
    if tracked:
        return [_find_tracked(path, video and _find_named(Path(video), path.name),
                              f"say with --video which folder holds {path.name}") for path in tracked]
    masks = [folder / name for name in ("Annotations", "masks") if (folder / name).is_dir()] or [folder]
    places = sorted(_list_mask_folders(masks[0]), key=lambda path: natural(str(path)))
    if not places:
        raise InputError(f"{folder}: no masks here: the folder of a track.py run, an evaluation's output, or a folder "
                         "of PNGs was expected")
    same = {place.name for place in places}
    if len(same) < len(places):
        raise InputError(f"{folder}: holds several masks of the same video ({name_a_few(sorted(same))}); give one of "
                         f"its folders, such as {places[0].parent}")
    return [_source(folder, place, [found] if (found := video and _find_named(Path(video), place.name)) else
                    _find_frames(place), "give the folder that holds the videos with --video") for place in places]


def _source(home, masks, video, cure):
    place = masks.resolve()
    name = place.parent.name if place.name in ("masks", "Annotations") else place.name
    return Source(name, masks, tuple(map(str, video)), home=home,
                  missing="" if video else f"the frames of {masks} are not known: {cure}")


def _list_mask_folders(folder):
    """Yield the folders below this one that hold masks; exports are none."""
    for path in folder.iterdir():
        if path.is_dir() and not is_hidden(path.name) and not (path / MANIFEST).exists():
            if _holds_masks(path):
                yield path
            yield from _list_mask_folders(path)


def _holds_masks(folder):
    return any(path.suffix.lower() == ".png" and is_image(path) for path in folder.iterdir())


def _find_frames(masks):
    """[the folder of the frames that belong to a folder of masks] in a tree like DAVIS's, or []."""
    parts = masks.absolute().parts
    for index in reversed([index for index, part in enumerate(parts) if part == "Annotations"]):
        frames = Path(*parts[:index], "JPEGImages", *parts[index + 1:])
        if frames.is_dir():
            return [frames]
    return []


def _find_named(folder, name):
    """The path, a text, of the video of this name in a folder of videos; None if there is none."""
    candidates = [folder / name, *(folder / f"{name}{suffix}" for suffix in VIDEO_SUFFIXES)]
    return next((str(path) for path in candidates if path.exists()), None)


def _find_tracked(folder, video, cure="say with --video where it is"):
    """The Source of a folder that track.py has written. cure: what to do if its video is not at hand."""
    summary = folder / "summary.json"
    header = read_header(summary)
    if header.get("written_by") != "track.py" or not isinstance(header.get("video"), list):
        raise InputError(f"{summary}: not written by track.py; give the folder of the masks itself, and --video")
    if "speed" not in header:
        # What follows the frames is missing: not even a video with damaged frames ends like this.
        raise InputError(f"{folder}: tracking was interrupted; track the video again, or export what there is with "
                         f"export_masks.py {folder / 'masks'} --video {header['video'][0]}")
    if not (folder / "masks").is_dir() or not _holds_masks(folder / "masks"):
        raise InputError(f"{folder / 'masks'}: no masks in this folder")
    try:
        files = tuple(json.loads((folder / ".track.json").read_text())["video"]["files"])
    except (OSError, ValueError, LookupError, TypeError):
        files = ()
    at_hand = [names for names in ((video,) if video else (), files, tuple(header["video"]))
               if names and all(_is_at_hand(name) for name in names)]
    if video and not _is_at_hand(video):
        raise InputError(f"{video}: no such video or folder of frames")
    scores, name = folder / "scores", header["video"][0]
    what = f"{name} was a stream" if is_stream(name) else f"the video {name} is not there any more"
    return Source(folder.resolve().name, folder / "masks", at_hand[0] if at_hand else (),
                  "" if at_hand else f"{what}: {cure}", header.get("start"), header.get("end"),
                  summary, scores if scores.is_dir() else None, folder)


def _find_project(folder, video):
    """The Source of a project of annotate.py."""
    try:
        known = [str(name) for name in dict(read_json(folder / PROJECT))["video"]]
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{folder / PROJECT}: damaged, or not written by annotate.py ({error})") from None
    if not (folder / "masks").is_dir() or not _holds_masks(folder / "masks"):
        raise InputError(f"{folder}: no frame of this project has a mask yet")
    if video and not _is_at_hand(video):
        raise InputError(f"{video}: no such video or folder of frames")
    names = [video] if video else known
    at_hand = names and all(_is_at_hand(name) for name in names)
    return Source(folder.resolve().name, folder / "masks", tuple(map(str, names)) if at_hand else (),
                  "" if at_hand else f"the video {known[0]} is not there any more: say with --video where it is",
                  home=folder)


def _is_at_hand(name):
    return not is_stream(name) and (Path(name).exists() or (glob.has_magic(name) and bool(glob.glob(name))))


def read_header(summary):
    """What a summary.json says beside its frames. Raises InputError if it is none."""
    lines, in_frames = [], False
    try:
        with open(summary, encoding="utf-8") as file:
            for line in file:
                if in_frames and line.startswith(" ]"):
                    in_frames = False
                if not in_frames:
                    lines.append(line)
                in_frames = in_frames or line.startswith(' "frames": [')
        header = json.loads("".join(lines))
    except (OSError, ValueError) as error:
        raise InputError(f"{summary}: damaged, or not a summary of track.py ({error})") from None
    return header if isinstance(header, dict) else {}


def read_items(summary):
    """Yield what a summary.json says of each frame."""
    with open(summary, encoding="utf-8") as file:
        for line in file:
            if line.startswith("  {"):
                yield json.loads(line.strip().rstrip(","))


def read_names(source, pairs):
    """{object id: its name} from names.json beside the masks, overridden by `pairs`, like 1=dog.

    Raises InputError for what is no object id, or no name.
    """
    names = {}
    for folder in dict.fromkeys([source.home, source.masks]):
        file = folder / "names.json"
        if file.is_file():
            try:
                content = json.loads(read_text(file))
                names |= {_object_id(key, file): _name(value, file) for key, value in content.items()}
            except (ValueError, AttributeError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{file}: names like {{\"1\": \"dog\"}} were expected") from None
    for pair in pairs or []:
        key, equals, name = pair.partition("=")
        if not equals:
            raise InputError(f"--names {pair}: an object id and its name, like 1=dog, were expected")
        names[_object_id(key, "--names")] = _name(name, "--names")
    return names


def _object_id(text, title):
    if not str(text).isdecimal() or not 1 <= int(text) <= 255:
        raise InputError(f"{title}: object id {text}, ids go from 1 to 255")
    return int(text)


def _name(text, title):
    # Without what is no text, controls and ends of lines.
    if not isinstance(text, str) or not text.strip() or {"Cc", "Cs", "Zl", "Zp"} & set(map(category, text)):
        raise InputError(f"{title}: {text!r} is no name for an object")
    return text.strip()


@dataclass(frozen=True)
class MaskedFrame:
    """A frame and where the objects are in it."""

    name: str

    number: int
    """In the whole video, from 0."""

    time: Fraction | None
    """Seconds from the start of the video, if it is known."""

    image: np.ndarray | None
    """uint8 H×W×3 RGB; None if no format wants the frames."""

    masks: list
    """ObjectMasks in the order of their ids."""

    has_mask: bool
    """Whether anything says where the objects are. If not, it is not known that there are none."""

    size: tuple
    """(width, height)"""

    settings: object
    """ExportSettings"""

    scores: Path | None = None
    """With --soft: the file of the probabilities."""

    def draw_ids(self):
        """Object ids uint8 H×W. Where masks that have grown overlap, the lower id is seen."""
        ids = np.zeros(self.size[::-1], np.uint8)
        for mask in reversed(self.masks):
            ids[mask.place][mask.pixels > 0] = mask.object_id
        return ids

    def alpha(self, object_id=None):
        """How much of each pixel belongs to an object, or to any of them: uint8 H×W, 255 is all of it."""
        if self.settings.soft:
            return self._soft_alpha(object_id)
        masks = [mask for mask in self.masks if object_id in (None, mask.object_id)]
        alpha = np.zeros(self.size[::-1], np.uint8)
        if len(masks) > 1:
            # As one: between two objects that touch there is no edge.
            pixels = (self.draw_ids() > 0).view(np.uint8)
            masks = [ObjectMask(0, 0, 0, pixels)]
        for mask in masks:
            values, left, top = soften(mask, self.settings.feather, self.size)
            alpha[top:top + values.shape[0], left:left + values.shape[1]] = values
        return alpha

    def _soft_alpha(self, object_id):
        if self.scores is None:
            return np.zeros(self.size[::-1], np.uint8)
        try:
            with np.load(self.scores) as scores:
                prob, objects = scores["prob"], scores["objects"].tolist()
        except (OSError, ValueError, LookupError) as error:
            raise InputError(f"{self.scores}: missing or damaged ({error}); track again with --save-scores") from None
        wanted = [index for index, known in enumerate(objects, 1) if object_id in (None, known)
                  and (self.settings.objects is None or known in self.settings.objects)]
        if prob.shape[1:] != self.size[::-1]:
            raise InputError(f"{self.scores}: probabilities of another size than the frames")
        return np.minimum(prob[wanted].sum(0, dtype=np.uint16), 255).astype(np.uint8)


class MaskedVideo:
    """A video's frames with their masks. It can be iterated once, and yields MaskedFrames.

    source: a Source. settings: ExportSettings. names: {object id: name}. with_frames: whether a format wants the
    images, or what only the video knows; without frames at hand it goes through the masks alone.

        size, rate, look    as those of `open_frames`
        length              how many frames there are; None if it is not known
        count               how many have been yielded
        objects             the ids of all objects that are wanted, in order
        kinds               the names of the kinds of objects
        guessed             if nothing says which number the first frame has in the video: what is taken for it
        remarks             what the user should know, one sentence each

    Raises InputError if masks do not belong to the frames, cannot be read, or have another size.
    """

    def __init__(self, source, settings, names, with_frames):
        self.name, self.source, self.settings, self.names = source.name, source, settings, names
        self.count, self.remarks = 0, []
        self._colours, self._seen = {}, set()
        self._notices = {}  # {sentence about a mask: the first file that it is about}
        self._without_mask = 0
        self._files = mask_files(source.masks)
        whole = open_frames(list(source.video), list(self._files.values())) if source.video else None
        self.has_frames = bool(whole and with_frames)
        self.rate, self.look = Fraction(IMAGE_RATE), Look()
        self.size = mask_size(next(iter(self._files.values())))
        self._frames = self._numbers = None
        if whole:
            self._files = _match(self._files, whole)
            self._numbers = whole.names and {name: number for number, name in enumerate(whole.names)}
            self.rate, self.look, self.size = whole.rate, whole.look, whole.size
            if not isinstance(whole, VideoFrames) or self.look.matrix == RGB:
                # Programs take a video that says nothing for BT.709 or BT.601, depending on its size.
                self.look = self.look._replace(matrix=BT_709, primaries=BT_709, transfer=BT_709, full_range=False)
        elif source.summary:
            self.rate = Fraction(read_header(source.summary).get("frame_rate", IMAGE_RATE))
        first = next(iter(self._files))
        # Only frames of a video file have times, and they are named after their numbers.
        timed = source.summary and next(read_items(source.summary), {}).get("time") is not None
        self.guessed = "" if whole or timed or find_numbers(first)[-1:] == [0] else \
            f"frame {first} is taken for number {self._number(first)} of the video, from 0 on"
        if self.has_frames:
            self._frames = whole if source.start is None and source.end is None else \
                open_frames(list(source.video), list(self._files.values()), start=source.start, end=source.end)
        self.length = self._frames.length if self._frames else len(self._files)
        self._kinds = list(dict.fromkeys(names[object_id] for object_id in sorted(names)))
        if settings.soft and not source.scores:
            raise InputError(f"{source.masks.parent}: --soft takes the edges from scores/, which track.py writes with "
                             "--save-scores; there is no such folder")

    @cached_property
    def objects(self):
        """The ids of all objects that are wanted, in order. Without track.py's summary all masks are read for it."""
        found = set()
        if self.source.summary:
            for item in read_items(self.source.summary):
                found |= set(map(int, item["objects"]))
        else:
            for file in self._files.values():
                found |= set(np.unique(read_mask(file, self.size, self._colours)).tolist()) - {0}
        return sorted(object_id for object_id in found
                      if self.settings.objects is None or object_id in self.settings.objects)

    def kind(self, object_id):
        """The index in `kinds` of an object's kind."""
        if self.name_of(object_id) not in self._kinds:
            self._kinds.append(OBJECT)
        return self._kinds.index(self.name_of(object_id))

    def name_of(self, object_id):
        return self.names.get(object_id, OBJECT)

    @property
    def kinds(self):
        return self._kinds or [OBJECT]

    def __iter__(self):
        hold, unused = Hold(self.settings.hold), set(self._files)
        for name, time, image in self._go_through():
            file = self._files.get(name)
            unused.discard(name)
            masks = []
            if file:
                notices = []
                ids = read_mask(file, self.size, self._colours, notices)
                for noticed, notice in notices:
                    self._notices.setdefault(notice, noticed)
                masks = split_ids(ids, self.settings.objects)
                self._seen |= {mask.object_id for mask in masks}
            masks = hold.add(masks)
            shaped = [shape_mask(mask, self.size, self.settings) for mask in masks]
            known = bool(file or masks)
            self._without_mask += not known
            yield MaskedFrame(name, self._number(name), time, image, [mask for mask in shaped if mask], known,
                              self.size, self.settings,
                              self.source.scores / f"{name}.npz" if self.settings.soft and file else None)
            self.count += 1
        self._check(unused)

    def _go_through(self):
        """Yield (name, time, image) of every frame, or of every mask if the frames are not wanted."""
        if self._frames:
            for frame in self._frames:
                yield frame.name, frame.time, frame.image
            return
        # A run backwards tells the frames from last to first.
        times = {item["name"]: item.get("time") for item in read_items(self.source.summary)} \
            if self.source.summary else {}
        for name in self._files:
            time = times.get(name)
            yield name, None if time is None else Fraction(time).limit_denominator(10**6), None

    def _number(self, name):
        """The number of a frame in the whole video, from 0."""
        if self._numbers:
            return self._numbers[name]
        return int(name) if name.isdecimal() and (self.source.video or self.source.summary) else self.count

    def _check(self, unused):
        """Raise InputError if something was not used that was meant to be, and remark what else may be amiss."""
        if unused:
            raise InputError(f"{self._files[min(unused)]}: belongs to no frame of {self.source.video[0]}, which has "
                             f"{self.count} frames; give the video of these masks with --video")
        missing = sorted(set(self.settings.objects or ()) - self._seen)
        if missing:
            raise InputError(f"{self.source.masks}: --objects {missing[0]}: no mask shows this object")
        if self.settings.objects is None:
            # Otherwise it is not known whether masks show an object that is left out.
            named = {int(pair.partition("=")[0]) for pair in self.settings.names or ()}
            self.remarks += [f"{self.source.masks}: --names {object_id}: no mask shows this object"
                             for object_id in sorted(named - self._seen)]
        self.remarks += [f"{file}: {notice}" for notice, file in self._notices.items()]
        if self._frames:
            self.remarks += self._frames.notices
        if self._without_mask:
            self.remarks.append(f"{self._without_mask} of {self.count} frames have no mask: no object is known in them")


def _match(files, frames):
    """{frame's name: mask file} for {mask's name: mask file}. Raises InputError for a mask that has no frame."""
    matched, names = {}, set(frames.names or ())
    for key, file in files.items():
        if key in names:
            name = key
        elif frames.names:
            name = frames.find(key, file, counts=False)[0]
        else:
            numbers = find_numbers(key)
            if len(numbers) != 1:
                raise InputError(f"{file}: the frames of a video file are numbered from 0, {key} is no such number")
            name = frames.name(numbers[0])
        if name in matched:
            raise InputError(f"{file}: frame {name} already has a mask, {matched[name]}")
        matched[name] = file
    return matched
