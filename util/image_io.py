"""Reading images and masks, and writing masks: what each file format means is decided here."""

import contextlib
import io
import math
import os
import re
import struct
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from util.errors import InputError, pixels
from util.files import atomic_path, refuse_special_file
from util.mask_rule import VOID, davis_palette, interpret_mask

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last bytes of every PNG."""


def natural(name):
    """A sorting key for names that lets the numbers in them count as numbers: 2 before 10, and 02 before 2."""
    parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
    return [*parts, (-1, name)]


def find_numbers(name):
    """Return the list of the numbers in a name."""
    return [int(digits) for digits in re.findall(r"\d+", name)]


def is_image(path):
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def choose_frames(files, masks=()):
    """Return those image files of a folder that are frames, and a list of notices (file, sentence) about the others.

    Left out are the files `masks`, which are given as masks, files with "mask" in their names, PNGs beside an image of
    the same name, and files that are named otherwise than most, without a number if they are many.
    """
    given = {os.path.realpath(mask) for mask in masks}
    frames = [file for file in files if os.path.realpath(file) not in given]
    names = {file.stem for file in frames if file.suffix.lower() != ".png"}
    beside = [file for file in frames if file.suffix.lower() == ".png" and file.stem in names]
    called = [file for file in frames if "mask" in file.stem.lower()]
    for others in (beside, called):
        frames = [file for file in frames if file not in set(others)] if len(others) < len(frames) else frames
    usual, count = Counter(map(_without_numbers, frames)).most_common(1)[0] if frames else ("", 0)
    others = {file for file in frames if _without_numbers(file) != usual}
    without_number = not any("#" in _without_numbers(file) for file in others)
    if "#" in usual and len(others) * (1 if without_number else 3) <= count:
        frames = [file for file in frames if file not in others]
    left_out = sorted(set(files) - set(frames) - {file for file in files if os.path.realpath(file) in given})
    return frames, [(file, "beside the frames, but not taken for a frame") for file in left_out]


def _without_numbers(file):
    """Return what the names of a video's frames have in common: all but the numbers."""
    return re.sub(r"\d+", "#", file.stem)


def frames_in_order(files, listed=False):
    """Image files in the order of their names, 2 before 10. Raises InputError if two frames have one name.

    listed: somebody has listed the files. An order of his own is kept, but not that of a shell, which puts 10 before 2.
    """
    name, times = Counter(file.stem for file in files).most_common(1)[0]
    if times > 1:
        raise InputError(f"{files[0].parent}: {times} images are named {name}; a frame's name must be its own")
    ordered = sorted(files, key=lambda file: natural(file.name))
    return tuple(files if listed and list(files) != sorted(files) else ordered)


def mask_files(folder):
    """{name without suffix: file} of the masks in a folder, 2 before 10. Raises InputError if there are none.

    They are its PNGs, or all its images if it has no PNG.
    """
    files = [file for file in Path(folder).iterdir() if is_image(file)] if Path(folder).is_dir() else []
    files = [file for file in files if file.suffix.lower() == ".png"] or files
    if not files:
        raise InputError(f"{folder}: no PNG in this folder, masks were expected")
    return {file.stem: file for file in frames_in_order(files)}


def check_size(size, image, title):
    """Return `image`, H×W×3. Raises InputError if its size is not that of its video's first frame, (width, height)."""
    if image.shape[1::-1] != tuple(size):
        raise InputError(f"{title}: {pixels(image.shape[1::-1])} pixels, the first frame has {pixels(size)}")
    return image


@contextlib.contextmanager
def _open(path):
    """Open an image file for the block. What Pillow raises in it, too, becomes an InputError that names the file."""
    refuse_special_file(path)
    try:
        with Image.open(path) as image:
            yield image
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder where an image was expected") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a readable image") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: damaged image ({error})") from None


def read_image(path, size=None, shorter=None):
    """Read an image as uint8 H×W×3 RGB.

    Raises InputError if the file is missing, cannot be decoded in full, or has another size than `size`.

    size: the expected (width, height).
    shorter: a length in pixels. A JPEG may then come at 1/2, 1/4 or 1/8 of its size, as long as its shorter side is not
        below this: the decoder averages pixels, which is much faster than decoding all of them.
    """
    with _open(path) as image:
        deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
        if image.mode in ("I", "F") and not deep:
            raise InputError(f"{path}: values of 32 bits, an image of 8 or 16 bits was expected")
        if shorter is not None:
            scale = shorter / min(image.size)
            image.draft("RGB", tuple(math.ceil(side * scale) for side in image.size))
        # In place, and converted only from another mode: each would copy the pixels once more.
        ImageOps.exif_transpose(image, in_place=True)
        if deep:
            # Pillow would make everything above 255 white.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        values = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if size is not None and values.shape[1::-1] != tuple(size):
        raise InputError(f"{path}: the frame has {pixels(values.shape[1::-1])} pixels, expected {pixels(size)}")
    return values


def image_size(path):
    """The (width, height) of what `read_image` returns, from the file's header alone."""
    with _open(path) as image:
        # An Exif orientation of 5 or more is a turn by 90 degrees.
        return image.size[::-1] if image.getexif().get(0x0112, 1) > 4 else image.size


def mask_size(path):
    """The (width, height) of what `read_mask` returns, from the file's header alone. Masks are never turned."""
    with _open(path) as image:
        return image.size


def open_mask(path, size=None, colours=None):
    """Read a mask file as the `util.mask_rule.Mask` that it shows.

    colours: {24-bit RGB: object id}, kept from mask to mask of one video. Raises InputError for files that cannot be
    decoded or are no masks, and for masks that do not have the `size` (width, height) of the frames.
    """
    with _open(path) as image:
        if size is not None and image.size != tuple(size):
            raise InputError(f"{path}: the mask has {pixels(image.size)} pixels, the frames {pixels(size)}")
        return interpret_mask(image, path, colours)


def read_mask(path, size=None, colours=None, notices=None):
    """Read a mask file as uint8 H×W object ids, 0 for background; `util.mask_rule` says what a picture means.

    colours, errors: see `open_mask`. notices: a list that gets (path, sentence) for what may not be as it was meant.
    """
    mask = open_mask(path, size, colours)
    if notices is not None:
        notices += [(path, notice) for notice in mask.notices]
    return mask.ids


def read_grey(path):
    """Read a mask of one object as uint8 H×W, from 0 for background to 255 for the object.

    A mask with soft edges keeps them. A mask of several objects becomes 255 wherever one of them is; pixels that mean
    "do not care" become 0. Errors: see `open_mask`.
    """
    mask = open_mask(path, colours={})
    if mask.levels is not None:
        return mask.levels
    return ((mask.ids > 0) & (mask.ids < VOID)).astype(np.uint8) * 255


def read_palette(path):
    """The colours of a mask's ids as uint8 256×3: an indexed PNG's own, or DAVIS's if its indices are not the ids."""
    with _open(path) as image:
        colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        if len(colours) and (interpret_mask(image, path, {}).ids != np.asarray(image)).any():
            return davis_palette()
    if not len(colours):
        return davis_palette()
    return np.concatenate([colours, davis_palette()[len(colours):]])


def write_mask(path, ids, palette=None):
    """Write uint8 H×W ids as an indexed PNG, with the DAVIS palette unless told otherwise, atomically.

    Like the other functions here that write one of many files, it leaves flushing to its caller; see
    `util.files.flush`.
    """
    image = Image.fromarray(ids)
    image.putpalette((davis_palette() if palette is None else palette).tobytes())
    with atomic_path(path, flushed=False) as temporary:
        image.save(temporary, format="PNG")


def is_whole_png(path):
    """Return whether there is a file that ends as a PNG does: it is not empty, and nothing is cut off."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(PNG_END), os.SEEK_END)
            return file.read() == PNG_END
    except OSError:
        return False


def write_grey(path, values):
    """Write uint8 H×W values as a grey PNG, atomically."""
    with atomic_path(path, flushed=False) as temporary:
        Image.fromarray(values).save(temporary, format="PNG")


def encode_jpeg(image):
    """A Pillow image as the bytes of a JPEG, of the quality in which we write frames.

    Given a file, Pillow does not look how much of a JPEG was written: on a full disk it is cut, and nothing says so.
    """
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_scores(path, prob, objects):
    """Write probabilities uint8 (objects + 1)×H×W, background first, and the objects' ids as NPZ, atomically."""
    with atomic_path(path, flushed=False) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, prob=prob, objects=np.array(objects, np.uint8))
