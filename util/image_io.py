"""Reading images and masks, and writing masks: what each file format means is decided here."""

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from util.errors import InputError, pixels
from util.files import atomic_path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def davis_palette():
    """The colours of DAVIS and PASCAL VOC for ids 0 to 255: uint8 256×3.

    Bit b of an id's red, green and blue part is bit 3·(7 - b), +1, +2 of the id.
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for channel in range(3):
        for bit in range(8):
            palette[:, channel] |= ((ids >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def natural(name):
    """A sorting key for names that lets the numbers in them count as numbers: 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def is_image(path):
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def frames_in_order(files):
    """Image files in the order of their names, 2 before 10. Raises InputError if two frames have one name."""
    name, times = Counter(file.stem for file in files).most_common(1)[0]
    if times > 1:
        raise InputError(f"{files[0].parent}: {times} images are named {name}; a frame's name must be its own")
    return tuple(sorted(files, key=lambda file: natural(file.name)))


def mask_files(folder):
    """{name without suffix: file} of the PNGs in a folder, 2 before 10. Raises InputError if there are none."""
    files = [file for file in Path(folder).iterdir() if is_image(file) and file.suffix.lower() == ".png"] \
        if Path(folder).is_dir() else []
    if not files:
        raise InputError(f"{folder}: no PNG in this folder, masks were expected")
    return {file.stem: file for file in frames_in_order(files)}


def check_size(size, image, title):
    """Return `image`, H×W×3. Raises InputError if its size is not that of its video's first frame, (width, height)."""
    if image.shape[1::-1] != tuple(size):
        raise InputError(f"{title}: {pixels(image.shape[1::-1])} pixels, the first frame has {pixels(size)}")
    return image


def _open(path):
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder where an image was expected") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a readable image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: damaged or unreadable image ({error})") from None


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
        try:
            if shorter is not None:
                scale = shorter / min(image.size)
                image.draft("RGB", tuple(math.ceil(side * scale) for side in image.size))
            # In place, and converted only from another mode: each would copy the pixels once more.
            ImageOps.exif_transpose(image, in_place=True)
            if deep:
                # Pillow would make everything above 255 white.
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            values = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path}: damaged image ({error})") from None
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


def read_grey(path):
    """Read a mask with soft edges as uint8 H×W, from 0 for background to 255 for the object.

    A mask of ids (indexed, or grey with no value above 127) becomes 255 wherever the id is not 0. A colour image is
    converted to grey. Raises InputError if the file is missing or cannot be decoded in full.
    """
    with _open(path) as image:
        try:
            values = np.array(image if image.mode in ("P", "L") else image.convert("L"))
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path}: damaged image ({error})") from None
        if image.mode == "P" or values.max() < 128:
            values = (values > 0).astype(np.uint8) * 255
    return values


def read_mask(path, size=None):
    """Read a mask file as uint8 H×W object ids, 0 for background.

    The ids are the indices of an indexed PNG or the values of a grey one; a grey mask of 0 and 255 alone is one object
    with id 1. Raises InputError for colour images, ids above 255, files that cannot be decoded, and masks that do not
    have the `size` (width, height) of the frames.
    """
    with _open(path) as image:
        if image.mode not in ("1", "L", "P", "I", "I;16"):
            raise InputError(f"{path}: a mask must be an indexed or grey PNG, this one is {image.mode}")
        grey = image.mode != "P"
        try:
            ids = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path}: damaged image ({error})") from None
    if size is not None and ids.shape[::-1] != tuple(size):
        raise InputError(f"{path}: the mask has {pixels(ids.shape[::-1])} pixels, the frames {pixels(size)}")
    if ids.max() > 255:
        raise InputError(f"{path}: object id {ids.max()}, ids go from 1 to 255")
    ids = ids.astype(np.uint8)
    if grey and set(np.unique(ids)) <= {0, 255}:
        ids = (ids > 0).astype(np.uint8)
    return ids


def read_objects(path):
    """Read a mask file for training as uint8 H×W object ids, 0 for background.

    A mask of ids is read as `read_mask` does. A grey one with values above 127 is one object, id 1, wherever its value
    is above 127; a colour image is converted to grey first. Raises InputError if the file cannot be decoded.
    """
    with _open(path) as image:
        indexed, colour = image.mode == "P", image.mode in ("LA", "RGB", "RGBA")
    if colour:
        return (read_grey(path) > 127).view(np.uint8)
    ids = read_mask(path)
    return ids if indexed or ids.max() < 128 else (ids > 127).view(np.uint8)


def read_palette(path):
    """The colours of an indexed PNG as uint8 256×3; the colours of DAVIS if the file has none."""
    with _open(path) as image:
        try:
            colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path}: damaged image ({error})") from None
    if not len(colours):
        return davis_palette()
    return np.concatenate([colours, davis_palette()[len(colours):]])


def write_mask(path, ids, palette=None):
    """Write uint8 H×W ids as an indexed PNG, with the DAVIS palette unless told otherwise, atomically."""
    image = Image.fromarray(ids)
    image.putpalette((davis_palette() if palette is None else palette).tobytes())
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def write_grey(path, values):
    """Write uint8 H×W values as a grey PNG, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(values).save(temporary, format="PNG")


def write_scores(path, prob, objects):
    """Write probabilities uint8 (objects + 1)×H×W, background first, and the objects' ids as NPZ, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, prob=prob, objects=np.array(objects, np.uint8))
