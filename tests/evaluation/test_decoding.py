import contextlib
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from evaluation import decoding
from evaluation.decoding import read_ids
from util.errors import InputError
from util.image_io import davis_palette, read_mask


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(rows, width, bits=8, colour=3, parts=1):
    """A PNG file of filtered rows, bytes each, its data split into some chunks."""
    data = zlib.compress(b"".join(rows))
    step = -(-len(data) // parts)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)),
            chunk(b"PLTE", davis_palette().tobytes()[:3 * 2 ** min(bits, 6)]) if colour == 3 else b"",
            *(chunk(b"IDAT", data[start : start + step]) for start in range(0, len(data), step)),
            chunk(b"IEND", b""),
        ]
    )


def filtered(ids, filters):
    """Rows of ids after the row filters none, sub and up."""
    rows = []
    for y, kind in enumerate(filters):
        above = ids[y - 1] if y else np.zeros_like(ids[y])
        left = np.concatenate([[0], ids[y][:-1]]).astype(np.uint8)
        rows.append(bytes([kind]) + (ids[y] - (0, left, above)[kind]).astype(np.uint8).tobytes())
    return rows


@given(st.data(), st.integers(1, 3))
def test_row_filters_and_split_data_are_undone(tmp_path_factory, data, parts):
    ids = data.draw(arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 9))))
    filters = data.draw(st.lists(st.integers(0, 2), min_size=len(ids), max_size=len(ids)))
    content = png(filtered(ids, filters), ids.shape[1], parts=parts)
    np.testing.assert_array_equal(decoding._read_plain_png(content), ids)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_packed_indices_are_unpacked(tmp_path, bits):
    ids = np.random.default_rng(0).integers(0, 2**bits, (7, 13), dtype=np.uint8)
    planes = (ids[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    packed = np.packbits(planes.reshape(7, -1), axis=1)
    path = tmp_path / "mask.png"
    path.write_bytes(png([b"\0" + row.tobytes() for row in packed], 13, bits))
    np.testing.assert_array_equal(decoding._read_plain_png(path.read_bytes()), ids)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), ids)


def test_grey_of_one_bit_gives_ones_and_of_two_and_four_bits_is_cut_at_half(tmp_path):
    """Pillow scales grey of two and four bits to 0 … 255, so their values are levels and no ids."""
    rows = [b"\0\x9c"]  # 1001 1100
    (tmp_path / "one.png").write_bytes(png(rows, 8, bits=1, colour=0))
    (tmp_path / "two.png").write_bytes(png(rows, 4, bits=2, colour=0))
    (tmp_path / "four.png").write_bytes(png(rows, 2, bits=4, colour=0))
    assert read_ids(tmp_path / "one.png").tolist() == [[1, 0, 0, 1, 1, 1, 0, 0]]
    assert read_ids(tmp_path / "two.png").tolist() == [[1, 0, 1, 0]]
    assert read_ids(tmp_path / "four.png").tolist() == [[1, 1]]


def test_rows_with_average_and_paeth_filters_go_to_pillow(tmp_path):
    path = tmp_path / "mask.png"
    path.write_bytes(png([b"\4\1\2\3", b"\3\1\1\1"], 3))
    assert decoding._read_plain_png(path.read_bytes()) is None
    np.testing.assert_array_equal(read_ids(path), np.asarray(Image.open(path)))


def test_interlaced_files_go_to_pillow(tmp_path):
    path = tmp_path / "mask.png"
    content = bytearray(png([b"\0\5"], 1))
    content[28] = 1
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    path.write_bytes(content)
    assert decoding._read_plain_png(bytes(content)) is None
    assert read_ids(path).tolist() == [[5]]


@pytest.mark.parametrize("damage", ["cut", "flipped", "header", "empty", "text"])
def test_damaged_files_are_named(tmp_path, damage):
    path = tmp_path / "mask.png"
    content = bytearray(png([b"\0\1\2\3"] * 9, 3))
    if damage == "flipped":
        content[-25] ^= 1
    if damage == "header":
        # A height of 8 instead of 9.
        content[23] ^= 1
    path.write_bytes({"cut": content[:-22], "empty": b"", "text": b"no image"}.get(damage, content))
    with pytest.raises(InputError, match=r"mask\.png: (damaged|not a readable image)"):
        read_ids(path)


def test_photographs_are_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="81 colours; a mask has one flat colour for each object"):
        read_ids(tmp_path / "mask.png")


def test_ids_above_255_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 300, np.uint16)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="object id 300"):
        read_ids(tmp_path / "mask.png")


@pytest.mark.parametrize("side", [2**32 - 1, 20000])
def test_pictures_that_claim_to_be_huge_are_refused_as_everywhere(tmp_path, side):
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                                     + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    for read in (read_ids, read_mask):
        with pytest.raises(InputError, match=r"a\.png: damaged image"):
            read(tmp_path / "a.png")


def test_pixels_that_inflate_to_more_than_the_picture_are_not_inflated(tmp_path):
    squeeze = zlib.compressobj(1)
    bomb = b"".join(squeeze.compress(bytes(2**20)) for _ in range(200)) + squeeze.flush()
    assert len(bomb) > 2**19
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bomb)
                                     + chunk(b"IEND", b""))
    tracemalloc.start()
    with contextlib.suppress(InputError):
        read_ids(tmp_path / "a.png")
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
