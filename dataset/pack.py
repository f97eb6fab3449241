"""Put training images and videos into one small folder, and hold them all in memory as one tensor.

A pack is a folder of few files: `data-00.bin` and so on, which are one stream of compressed pictures and masks cut into
parts, and `index.npz`, which says what lies where and which objects there are. Images and videos are compressed as
AVIF, masks without loss as WebP.
"""

import io
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, features

from dataset.cuttings import CONNECTED, find_usable_objects
from dataset.training_sets import VOID
from util.errors import InputError, pixels
from util.files import atomic_path
from util.image_io import read_image, read_mask
from util.machine import available_cores
from util.progress import progress_bar

LINES, LONGEST = 320, 576
"""Larger pictures are reduced until the shorter side has at most LINES and the longer one at most LONGEST pixels."""

IMAGE_QUALITY, VIDEO_QUALITY = 38, 42
"""Qualities of AVIF. At these, a picture of 320 lines takes about 6 KB, and fine textures are slightly smoothed."""

PART_BYTES = 15 * 2**20
"""A data file is at most so large: many ways to carry files end at 16 MB."""

FOLDER_WEIGHTS = {"camvid": 0.3, "borrat_teacher": 0.15, "bsds500": 0.5}
"""{folder: how often its images are drawn, others are 1}. These show few scenes, or regions that are not objects."""

CUT_OUT_SHARE, IN_PLACE_SHARE = (0.006, 0.5), (0.006, 0.7)
"""Lowest and highest share of its image's area of an object that is cut out, or that is followed where it is."""

CUT_OUT, IN_PLACE = 1, 2
"""Flags of an object: it can be cut out, it can be followed in its own picture."""

EVERY_ID = (1, VOID - 1)
"""The range of ids of an object that consists of all labelled parts of a picture."""

FORMAT = 1
"""Number of the pack's layout. A pack of another one is refused."""


@dataclass(frozen=True)
class Pack:
    """All pictures of a pack on one device, and tables of what they show, which are NumPy arrays.

    There are P pictures, first the frames of each of V videos in order, then images, and O objects.
    """

    pixels: torch.Tensor
    """uint8 N×4: red, green, blue and object id of every pixel of every picture, row by row. An id of 255 means ignore:
    neither object nor background."""

    offsets: np.ndarray
    """int64 P: the pixel with which a picture begins."""

    sizes: np.ndarray
    """int P×2: height and width."""

    folders: np.ndarray
    """int P: the folder of an image, whose images come one after the other; -1 for frames of videos."""

    weights: np.ndarray
    """float P: how often an image is drawn, 0 for frames of videos."""

    tones: np.ndarray
    """float P×3: mean RGB of a picture."""

    videos: np.ndarray
    """int V×2: first picture and number of frames of each video."""

    names: tuple
    """V names of the videos."""

    objects: np.ndarray
    """int O×9, in the order of the pictures: picture, lowest and highest id of its pixels, left, top, width and height
    of its box, number of pixels, and flags (CUT_OUT, IN_PLACE)."""

    object_tones: np.ndarray
    """float O×3: mean RGB of an object."""


def write_pack(folder, pairs, videos):
    """Write a pack, with progress on standard error. Return the numbers of its images, videos, frames, objects, bytes.

    folder: is created; a pack in it is replaced. pairs: Pairs of dataset.training_sets. Of an image that is listed with
    two masks, the last one is taken, which is that with object ids. An image that is listed several times with it is
    drawn so many times as often. videos: TrainingVideos. Raises InputError naming a file that cannot be used.
    """
    if not features.check("avif"):
        raise InputError("this Pillow cannot write AVIF images: pip install --upgrade pillow")
    masks = {pair.image: pair.mask for pair in pairs}
    repeats = Counter((pair.image, pair.mask) for pair in pairs)
    images = sorted(masks, key=lambda image: (str(image.parent), str(image)))
    folders = sorted({str(image.parent) for image in images})
    videos = list(dict.fromkeys(videos))
    work = [[(video.image(index), video.mask(index)) for index in range(len(video.frames))] for video in videos]
    lengths = [len(files) for files in work] + [1] * len(images)
    work += [[(image, masks[image])] for image in images]

    # Compress all in threads. Videos come first, so that none is left for a single thread at the end.
    bar = progress_bar(sum(lengths), "packing")
    sources, pictures = [], []
    with ThreadPoolExecutor(available_cores()) as pool:
        try:
            for data, rows in pool.map(_compress, work):
                sources.append(data)
                pictures += rows
                bar.increment(len(rows))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            bar.finish(dirty=True)

    # Write the parts, then the index, without which there is no pack.
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (folder / "index.npz", *folder.glob("data-*.bin")):
        old.unlink(missing_ok=True)
    data = b"".join([*sources, *(picture["mask"] for picture in pictures)])
    parts = [data[start:start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    for number, part in enumerate(parts):
        with atomic_path(_part_file(folder, number)) as temporary:
            temporary.write_bytes(part)
    objects = [(number, *row) for number, picture in enumerate(pictures) for row in picture["objects"]]
    tones = [tone for picture in pictures for tone in picture["object_tones"]]
    weights = [repeats[image, masks[image]] * min(FOLDER_WEIGHTS.get(part, 1) for part in image.parts)
               for image in images]
    frames = sum(lengths) - len(images)
    with atomic_path(folder / "index.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file, format=FORMAT, part_sizes=np.array([len(part) for part in parts], int),
            part_sums=np.array([zlib.crc32(part) for part in parts], int),
            lengths=np.array(lengths, int), source_bytes=np.array([len(data) for data in sources], int),
            mask_bytes=np.array([len(picture["mask"]) for picture in pictures], int),
            sizes=np.array([picture["size"] for picture in pictures], int),
            tones=np.array([picture["tone"] for picture in pictures], np.float32),
            folders=np.array([-1] * frames + [folders.index(str(image.parent)) for image in images], int),
            weights=np.array([0] * frames + weights, np.float32), names=np.array([video.name for video in videos], str),
            objects=np.array(objects, np.int32).reshape(-1, 9),
            object_tones=np.array(tones, np.float32).reshape(-1, 3))
    return len(images), len(videos), frames, len(objects), len(data) + (folder / "index.npz").stat().st_size


def read_pack(folder, device="cpu"):
    """Read and decode a pack in threads, and return it as a Pack on a device.

    Raises InputError naming what is missing, damaged, or cannot be decoded.
    """
    folder, index = Path(folder), _read_index(Path(folder) / "index.npz")
    if not features.check("avif"):
        raise InputError(f"{folder}: the pictures are AVIF images, which this Pillow cannot read: "
                         "pip install --upgrade pillow")
    stream = []
    for number, (size, checksum) in enumerate(zip(index["part_sizes"], index["part_sums"], strict=True)):
        file = _part_file(folder, number)
        if not file.exists():
            raise InputError(f"{file}: this part of the pack is missing")
        data = file.read_bytes()
        if len(data) != size or zlib.crc32(data) != checksum:
            raise InputError(f"{file}: damaged or not of this pack: {len(data)} bytes, {size} with another checksum "
                             "were expected")
        stream.append(data)
    stream = memoryview(b"".join(stream))

    # Lay out the pixels of all pictures one after the other, and decode into them.
    sizes, lengths = index["sizes"], index["lengths"]
    ends = np.cumsum(sizes.prod(1))
    offsets = ends - sizes.prod(1)
    flat = torch.empty(int(ends[-1]), 4, dtype=torch.uint8)
    target = flat.numpy()
    bounds = np.cumsum([0, *index["source_bytes"], *index["mask_bytes"]])
    firsts = np.cumsum(lengths) - lengths

    def decode(source):
        first, count = firsts[source], lengths[source]
        with Image.open(io.BytesIO(stream[bounds[source]:bounds[source + 1]])) as image:
            for time in range(count):
                image.seek(time)
                place = len(lengths) + first + time
                with Image.open(io.BytesIO(stream[bounds[place]:bounds[place + 1]])) as mask:
                    area = target[offsets[first + time]:ends[first + time]].reshape(*sizes[first + time], 4)
                    area[..., :3] = np.asarray(image.convert("RGB"))
                    area[..., 3] = np.asarray(mask.convert("RGB"))[..., 0]

    # Videos come first, see `write_pack`.
    with ThreadPoolExecutor(available_cores()) as pool:
        try:
            list(pool.map(decode, range(len(lengths))))
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise InputError(f"{folder}: a picture of the pack cannot be decoded ({error})") from None
    videos = np.stack([firsts, lengths], 1)[:len(index["names"])]
    return Pack(flat.to(device), offsets, sizes, index["folders"], index["weights"], index["tones"], videos,
                tuple(map(str, index["names"])), index["objects"], index["object_tones"])


def _part_file(folder, number):
    return folder / f"data-{number:02d}.bin"


def _read_index(path):
    """Return the arrays of a pack's index. Raises InputError if it is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            index = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, {path.parent} is not a pack as make_pack.py makes it") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not the index of a pack, or damaged ({error})") from None
    if int(index.get("format", 0)) != FORMAT:
        raise InputError(f"{path}: a pack of format {index.get('format')}, {FORMAT} was expected: run "
                         "make_pack.py again")
    return index


def _compress(files):
    """Return (pictures as one AVIF, rows) of an image, or of a video's frames; a row is a dict for each picture.

    files: list of (image file, mask file).
    """
    images, rows, colours = [], [], {}
    for image_file, mask_file in files:
        image, mask = _read_reduced(image_file, mask_file, colours)
        if images and image.shape != images[0].shape:
            raise InputError(f"{image_file}: the frame is {pixels(image.shape[1::-1])} pixels after reduction, the "
                             f"video's first one {pixels(images[0].shape[1::-1])}")
        images.append(image)
        objects, tones = _find_objects(image, mask)
        with io.BytesIO() as buffer:
            Image.fromarray(cv2.merge([mask] * 3)).save(buffer, "WEBP", lossless=True, quality=100, method=5)
            rows.append({"mask": buffer.getvalue(), "size": mask.shape, "tone": cv2.mean(image)[:3], "objects": objects,
                         "object_tones": tones})
    first, *more = map(Image.fromarray, images)
    with io.BytesIO() as buffer:
        first.save(buffer, "AVIF", save_all=bool(more), append_images=more, speed=6, max_threads=1,
                   quality=VIDEO_QUALITY if more else IMAGE_QUALITY)
        return buffer.getvalue(), rows


def _read_reduced(image_file, mask_file, colours):
    """Return image uint8 H×W×3 and mask uint8 H×W of object ids, reduced to LINES and LONGEST.

    colours: see `open_mask`.
    """
    image = read_image(image_file, shorter=LINES)
    mask = read_mask(mask_file, colours=colours)
    height, width = image.shape[:2]
    if abs(mask.shape[0] * width - mask.shape[1] * height) > max(mask.shape):
        raise InputError(f"{mask_file}: the mask has {pixels(mask.shape[::-1])} pixels, the image has other "
                         "proportions")
    scale = min(1, LINES / min(height, width), LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if size != mask.shape[::-1]:
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.ascontiguousarray(image), mask


def _find_objects(image, mask):
    """Return the rows of `Pack.objects` without the picture, and the mean colours, of a picture's usable objects."""
    cut = find_usable_objects(mask, CUT_OUT_SHARE, cut=0.12, connected=CONNECTED)
    place = find_usable_objects(mask, IN_PLACE_SHARE, cut=0.4, connected=0)
    usable = {(object_id, object_id): CUT_OUT * (object_id in cut) + IN_PLACE * (object_id in place)
              for object_id in sorted({*cut, *place})}
    # Three and more that hang together are mostly parts of one thing, like a person's clothes: it can be cut out.
    if np.count_nonzero(np.bincount(mask.ravel(), minlength=256)[slice(EVERY_ID[0], EVERY_ID[1] + 1)]) >= 3:
        whole = cv2.inRange(mask, *EVERY_ID) & 1
        if find_usable_objects(whole, CUT_OUT_SHARE, cut=0.12, connected=CONNECTED):
            usable[EVERY_ID] = CUT_OUT
    rows, tones = [], []
    for (low, high), flags in usable.items():
        own = cv2.inRange(mask, low, high)
        rows.append((low, high, *cv2.boundingRect(own), cv2.countNonZero(own), flags))
        tones.append(cv2.mean(image, own)[:3])
    return rows, tones
