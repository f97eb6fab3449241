"""Object ids out of mask files, fast.

Half the time of scoring goes into decoding PNG files. The indexed and grey files that everybody writes are
read here: their chunks by hand and their pixels with one call of inflate. Everything else (interlaced, 16
bit, scaled grey, other formats) goes to Pillow and gives what `numpy.array(PIL.Image.open(path))` gives.
"""

import struct
import zlib

import numpy as np
from PIL import Image

from util.errors import InputError

try:  # ten times faster where it is installed: pip install zlib-ng
    from zlib_ng import zlib_ng as inflate
except ImportError:
    inflate = zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_USUAL_BITS = {0: (1, 8), 3: (1, 2, 4, 8)}  # by colour type: grey (Pillow scales 2 and 4 bit), indexed
_NONE, _SUB, _UP = range(3)  # row filters


def read_ids(path):
    """The values of a mask file: uint8 H×W palette indices or grey values, possibly a read-only view.

    As in the official tools 1 bit grey gives 0 and 1, and 2 and 4 bit grey are scaled to 0 … 255. Raises
    InputError for missing and damaged files, colour images and values above 255.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    try:
        ids = _read_plain_png(data)
    except (zlib.error, inflate.error, struct.error) as error:
        raise InputError(f"{path}: damaged PNG ({error})") from None
    return _read_with_pillow(path) if ids is None else ids


def _read_plain_png(data):
    """The values of an ordinary indexed or grey PNG, None for every other file."""
    if data[:8] != _SIGNATURE or data[12:16] != b"IHDR":
        return None
    width, height, bits, colour, _, _, interlaced, checksum = struct.unpack_from(">IIBBBBBI", data, 16)
    if zlib.crc32(data[12:29]) != checksum:
        raise zlib.error("wrong checksum")
    if interlaced or bits not in _USUAL_BITS.get(colour, ()):
        return None
    parts = []
    position = 8
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            end = position + 8 + size
            if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
                raise zlib.error("wrong checksum")
            parts.append(data[position + 8 : end])
        position += size + 12
    stream = parts[0] if len(parts) == 1 else b"".join(parts)
    row_bytes = (width * bits + 7) // 8
    # Only the bare deflate stream: the checksums of the chunks vouch for the file already, and the one
    # over the decoded pixels would cost a sixth of the time.
    raw = inflate.decompress(stream[2:], -15, height * (row_bytes + 1))
    if len(raw) < height * (row_bytes + 1):
        raise zlib.error("too few pixels")
    rows = np.frombuffer(raw, np.uint8, height * (row_bytes + 1)).reshape(height, row_bytes + 1)
    rows = _undo_row_filters(rows)
    if rows is None or bits == 8:
        return rows
    pixels = np.unpackbits(rows, axis=1)
    if bits > 1:
        weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.uint8)
        pixels = (pixels.reshape(height, -1, bits) * weights).sum(2, dtype=np.uint8)
    return pixels[:, :width]


def _undo_row_filters(rows):
    """Pixels h×w of filtered rows h×(1 + w), None where a row uses one of the two unusual filters."""
    filters, pixels = rows[:, 0], rows[:, 1:]
    if not filters.any():
        return pixels
    if filters.max() > _UP:
        return None
    pixels = pixels.copy()
    sub = filters == _SUB
    pixels[sub] = np.add.accumulate(pixels[sub], axis=1, dtype=np.uint8)
    for y in np.flatnonzero(filters == _UP):
        if y:
            pixels[y] += pixels[y - 1]
    return pixels


def _read_with_pillow(path):
    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "P", "I", "I;16"):
                raise InputError(f"{path}: a mask must be an indexed or grey PNG, this one is {image.mode}")
            ids = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged or no image") from None
    if ids.max() > 255:
        raise InputError(f"{path}: object id {ids.max()}, ids go from 1 to 255")
    return ids.astype(np.uint8)
