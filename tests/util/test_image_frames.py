"""Frames from image files: several in one file, and values of 10 or 12 bits in 16."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image

from util.errors import InputError
from util.image_frames import ImageFrames
from util.video import open_frames


def images(count=4, size=(24, 32)):
    """uint8 count×H×W×3, each darker on the left, and brighter than the one before."""
    ramp = np.linspace(0, 150, size[1]).astype(np.uint8)
    return np.stack([np.repeat(np.broadcast_to(ramp + 20 * number, size)[..., None], 3, 2) for number in range(count)])


def save_all(path, frames, **options):
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, **options)
    return path


@pytest.mark.parametrize("name, options, times", [
    ("a.tif", {}, [None] * 4), ("a.tiff", {"compression": "tiff_lzw"}, [None] * 4),
    ("a.png", {"duration": [100, 300, 40, 100]}, [0, 0.1, 0.4, 0.44]),
    ("a.webp", {"duration": [100, 300, 40, 100], "lossless": True}, [0, 0.1, 0.4, 0.44]),
    ("a.apng", {"duration": 100, "format": "PNG"}, [0, 0.1, 0.2, 0.3]),
    ("a.gif", {"duration": 100}, [0, 0.1, 0.2, 0.3]),
])
@pytest.mark.parametrize("alone", [True, False])
def test_one_file_with_several_frames(tmp_path, name, options, times, alone):
    path = save_all(tmp_path / name, images(), **options)
    listed = alone or name in ("a.apng", "a.gif")
    frames = open_frames([str(path if listed else tmp_path)])
    found = list(frames)
    assert frames.names is None and frames.length == 4 and frames.size == (32, 24) and frames.complete
    assert [frame.name for frame in found] == ["00000", "00001", "00002", "00003"] and frames.first == "00000"
    assert [frame.time for frame in found] == [time if time is None else Fraction(str(time)) for time in times]
    for frame, image in zip(found, images(), strict=True):
        assert np.abs(frame.image.astype(int) - image).max() <= (8 if name == "a.gif" else 0)


@pytest.mark.skipif("not __import__('PIL.features').features.check('avif')")
def test_avif_sequence(tmp_path):
    path = save_all(tmp_path / "a.avif", images(size=(48, 64)), duration=100, quality=95)
    frames = open_frames([str(path)])
    found = list(frames)
    assert [float(frame.time) for frame in found] == [0, 0.1, 0.2, 0.3]
    assert all(np.abs(frame.image.astype(int) - image).mean() < 4
               for frame, image in zip(found, images(size=(48, 64)), strict=True))


def test_a_part_of_a_stack(tmp_path):
    path = save_all(tmp_path / "a.tif", images())
    frames = open_frames([str(path)], start="1", end="2")
    assert [frame.name for frame in frames] == ["00001", "00002"] and frames.length == 2
    assert [frames.holds(number) for number in range(5)] == [False, True, True, False, False]
    with pytest.raises(InputError, match="no times"):
        open_frames([str(path)], start="0.04")
    path = save_all(tmp_path / "a.png", images(), duration=100)
    assert [frame.name for frame in open_frames([str(path)], start="0.1", end="0.2")] == ["00001", "00002"]


def test_previews_are_no_frames(tmp_path):
    pages = [Image.fromarray(images()[0]), Image.fromarray(images()[1][:8, :8])]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    frames = open_frames([str(tmp_path / "a.tif")])
    assert [frame.name for frame in frames] == ["a"]


def test_the_still_image_before_an_animation_is_no_frame(tmp_path):
    save_all(tmp_path / "a.png", images(), duration=100, default_image=True)
    assert [int(frame.image.max()) for frame in open_frames([str(tmp_path / "a.png")])] == [170, 190, 210]


def test_several_files_with_several_frames_are_refused(tmp_path):
    for name in ("0.tif", "1.tif"):
        save_all(tmp_path / name, images())
    with pytest.raises(InputError, match=r"0\.tif: 4 frames in one file, one was expected"):
        open_frames([str(tmp_path)])


def test_a_damaged_page_is_left_out_and_an_animation_ends_with_it(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4, 64, 64, 3), np.uint8)
    path = save_all(tmp_path / "a.tif", noise, compression="tiff_adobe_deflate")
    data = bytearray(path.read_bytes())
    place = len(data) // 4 + 3000
    data[place:place + 400] = bytes(400)
    path.write_bytes(data)
    frames = open_frames([str(path)])
    found = [frame.name for frame in frames]
    assert len(found) == 3 and not frames.complete and "is damaged and left out" in frames.notices[0]

    path = save_all(tmp_path / "a.png", noise, duration=100)
    path.write_bytes(path.read_bytes()[:int(0.7 * path.stat().st_size)])
    frames = open_frames([str(path)])
    assert [frame.name for frame in frames] == ["00000", "00001"] and not frames.complete
    assert "damaged from frame 2 on, of 4" in frames.notices[0]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_stack_cut_short_is_not_complete(tmp_path):
    path = save_all(tmp_path / "a.tif", images())
    path.write_bytes(path.read_bytes()[:int(0.6 * path.stat().st_size)])
    frames = open_frames([str(path)])
    assert 0 < len(list(frames)) < 4 and not frames.complete and frames.notices


@pytest.mark.parametrize("largest, bits", [(900, 10), (4095, 12), (16383, 14), (200, 8), (16384, 16), (65535, 16)])
@pytest.mark.parametrize("kind", ["grey.png", "colour.png", "grey.tif", "colour.tif", "stack"])
def test_small_values_of_16_bits_are_scaled_by_the_whole_video_s_range(tmp_path, largest, bits, kind):
    grey = np.linspace(0, largest, 3 * 24 * 32).reshape(3, 24, 32).astype(np.uint16)
    frames = grey if "colour" not in kind else np.stack([grey, grey // 2, grey // 4], -1)
    if kind == "stack":
        save_all(tmp_path / "a.tif", grey)
        opened = open_frames([str(tmp_path / "a.tif")])
    else:
        for number, frame in enumerate(frames):
            cv2.imwrite(str(tmp_path / f"{number}.{kind[-3:]}"), frame[..., ::-1] if frame.ndim == 3 else frame)
        opened = open_frames([str(tmp_path)])
    truth = frames >> (bits - 8)
    for frame, expected in zip(opened, truth, strict=True):
        expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, 2)
        assert np.abs(frame.image.astype(int) - expected).max() <= (1 if bits == 16 else 0)
    told = [notice for notice in opened.notices if f"{bits} bits" in notice]
    assert len(told) == (bits < 16) and opened.complete


def test_a_part_looks_like_the_whole(tmp_path):
    for number, value in enumerate((100, 1000)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8), value, np.uint16))
    whole = [frame.image for frame in open_frames([str(tmp_path)])]
    assert (next(iter(open_frames([str(tmp_path)], end="0"))).image == whole[0]).all() and whole[0][0, 0, 0] == 25


@pytest.mark.parametrize("names, start, end, expected", [
    (["img_5", "img_6", "img_7"], "img_6", None, ["img_6", "img_7"]),
    (["img_5", "img_6", "img_7"], "0", "1", ["img_5", "img_6"]),
    (["00001", "00002", "00003"], "1", "2", ["00001", "00002"]),
    (["9", "10", "11"], "10", "00011", ["10", "11"]),
])
def test_a_part_of_a_folder(tmp_path, names, start, end, expected):
    for name in names:
        Image.fromarray(images()[0]).save(tmp_path / f"{name}.png")
    frames = open_frames([str(tmp_path)], start=start, end=end)
    assert [frame.name for frame in frames] == expected == frames.names and frames.first == expected[0]


def test_a_number_that_counts_says_so(tmp_path):
    """--start and masks find the same frame by the same number, counted in the whole video."""
    for number in range(5, 12):
        Image.fromarray(images()[0]).save(tmp_path / f"img_{number}.png")
    frames = open_frames([str(tmp_path)], start="3", end="img_10")
    assert frames.first == "img_8" and frames.find("4", "mask.png") == ("img_9", None)
    assert frames.find("5", "mask.png") == ("img_10", "5 counts frames from 0 and means img_10, not img_5")
    assert frames.find("10", "mask.png", counts=False) == ("img_10", None)
    assert frames.notices == []
    for key, counts in (("2", True), ("img_11", True), ("7", False)):
        with pytest.raises(InputError, match=r"mask.png: frame img_\d+ is not between --start and --end; .* img_8"):
            frames.find(key, "mask.png", counts)
    notices = open_frames([str(tmp_path)], start="5").notices
    assert notices == ["--start: 5 counts frames from 0 and means img_10, not img_5"]


@pytest.mark.parametrize("start, end, error", [("0", None, "--start: no frame is called 0; the frames are 00001 to"),
                                               ("1.5", None, "images have no times"),
                                               ("2s", None, "images have no times"), ("2", "1", "is after --end 1")])
def test_parts_that_are_none(tmp_path, start, end, error):
    for name in ("00001", "00002"):
        Image.fromarray(images()[0]).save(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=error):
        ImageFrames(list(tmp_path.iterdir()), start=start, end=end)
