"""Read object ids from mask files, fast.

Scoring spends half its time on decoding PNG files. The usual files, indexed or grey PNGs, are decoded here: Python
reads the chunks, and one call of inflate the pixels. Pillow reads all other files (interlaced, 16 bit, scaled grey,
other formats), and refuses those that claim to be larger than any mask. The result is always that of
`util.image_io.open_mask`.
"""

import struct
import zlib

import numpy as np
from PIL import Image

from util.errors import InputError
from util.files import refuse_special_file
from util.image_io import open_mask
from util.mask_rule import interpret_grey, interpret_indexed

try:
    # Ten times faster: pip install zlib-ng.
    from zlib_ng import zlib_ng as inflate
except ImportError:
    inflate = zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_USUAL_BITS = {0: (1, 8), 3: (1, 2, 4, 8)}
"""{colour type of a PNG: bits per pixel that are decoded here}. 0 is grey, of which Pillow scales 2 and 4 bits to
0 … 255, and 3 is indexed."""

_INDEXED = 3
"""The colour type of an indexed PNG."""

_LARGEST_STREAM = 2**19
"""Bytes of compressed pixels that are inflated in one go: they cannot become more than half a gigabyte. Pillow stops at
the image's size."""

_NONE, _SUB, _UP = range(3)
"""The row filters of PNG that are undone here."""


def read_ids(path):
    """Return the object ids of a mask file: uint8 H×W, possibly read-only. Errors: see `read_scored_mask`."""
    return read_scored_mask(path).ids


def read_scored_mask(path):
    """Return the `util.mask_rule.Mask` of a mask file, as `util.image_io.open_mask` does; its ids may be read-only.

    Raises InputError for missing and damaged files, and for pictures that are no masks.
    """
    refuse_special_file(path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, a mask was expected") from None
    try:
        values = _read_plain_png(data)
        if values is None:
            return open_mask(path)
        palette, transparent = _read_palette(data)
    except (zlib.error, inflate.error, struct.error) as error:
        raise InputError(f"{path}: damaged PNG ({error}); write or download it again") from None
    if palette is None:
        return interpret_grey(values, path)
    return interpret_indexed(values, palette, transparent, path)


def _read_plain_png(data):
    """Return the pixels, uint8 H×W, of an ordinary indexed or grey PNG, None for every other file.

    Raises zlib.error, inflate.error or struct.error if the file is damaged.
    """
    # The header: is the file of a kind that is decoded here?
    if data[:8] != _SIGNATURE or data[12:16] != b"IHDR":
        return None
    width, height, bits, colour, _, _, interlaced, checksum = struct.unpack_from(">IIBBBBBI", data, 16)
    if zlib.crc32(data[12:29]) != checksum:
        raise zlib.error("wrong checksum")
    if interlaced or bits not in _USUAL_BITS.get(colour, ()) or width * height > 2 * Image.MAX_IMAGE_PIXELS:
        return None

    # The chunks: collect the compressed pixels.
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
    if len(stream) > _LARGEST_STREAM:
        return None

    # The pixels. Decompressing without the zlib header skips the checksum over the pixels, which would take a sixth
    # of the time; the checksums of the chunks have been compared already.
    row_bytes = (width * bits + 7) // 8
    raw = inflate.decompress(stream[2:], -15, height * (row_bytes + 1))
    if len(raw) < height * (row_bytes + 1):
        raise zlib.error("too few pixels")
    rows = np.frombuffer(raw, np.uint8, height * (row_bytes + 1)).reshape(height, row_bytes + 1)
    rows = _undo_row_filters(rows)
    if rows is None or bits == 8:
        return rows

    # Several pixels share a byte: take them apart.
    pixels = np.unpackbits(rows, axis=1)
    if bits > 1:
        weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.uint8)
        pixels = (pixels.reshape(height, -1, bits) * weights).sum(2, dtype=np.uint8)
    return pixels[:, :width]


def _undo_row_filters(rows):
    """Return the bytes h×w of filtered rows h×(1 + w), None if a row has a filter other than none, sub and up."""
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



def _read_palette(data):
    """Return the palette of an undamaged PNG and the opacity of its first colours, as bytes; (None, b"") for grey."""
    if data[25] != _INDEXED:
        return None, b""
    palette, transparent, position = b"", b"", 8
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            break
        if kind == b"PLTE":
            palette = data[position + 8 : position + 8 + size]
        elif kind == b"tRNS":
            transparent = data[position + 8 : position + 8 + size]
        position += size + 12
    return palette, transparent
