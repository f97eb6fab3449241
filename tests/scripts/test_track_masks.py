"""track.py through its command line: what the masks that are given to it mean."""

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.tracking_runs import decoded, frames_named, grey, names, one_line_error, run, written
from util.image_io import write_mask


def test_masks_at_several_frames(inputs, tiny_checkpoint, tmp_path, clip):
    folder = tmp_path / "given"
    folder.mkdir()
    shutil.copy(inputs / "first.png", folder / "img_7.png")
    shutil.copy(inputs / "later.png", folder / "img_11.png")
    forms = {
        "folder": ["--mask", folder],
        "pairs": ["--mask", f"img_7:{inputs / 'first.png'}", f"img_11:{inputs / 'later.png'}"],
        "repeated": ["--mask", f"2:{inputs / 'first.png'}", "--mask", f"6:{inputs / 'later.png'}"],
    }
    results = {}
    for form, arguments in forms.items():
        assert run("--video", inputs / "frames", *arguments, "--model", tiny_checkpoint,
                   "--output", tmp_path / form) == 0
        results[form] = [file.read_bytes() for file in sorted((tmp_path / form / "masks").iterdir())]
    # No output before the first label, but the overlay shows all frames.
    assert len(results["folder"]) == 10
    assert len(decoded(tmp_path / "folder" / "overlay.mp4")) == 12
    assert results["folder"] == results["pairs"] == results["repeated"]
    corrected = np.array(Image.open(tmp_path / "folder" / "masks" / "img_11.png"))
    assert ((corrected == 2) == (clip[1][6] == 2)).all()


def test_soft_mask_is_one_object_and_said(inputs, tiny_checkpoint, tmp_path, clip, capsys):
    soft = cv2.GaussianBlur((clip[1][0] == 1) * np.uint8(255), (0, 0), 2)
    assert run("--video", inputs / "clip.mp4", "--mask", grey(tmp_path / "soft.png", soft), "--model", tiny_checkpoint,
               "--output", tmp_path / "out", "--no-overlay") == 0
    assert f"note: {tmp_path / 'soft.png'}: grey levels, taken as one object, cut at half" in capsys.readouterr().err
    assert (written(tmp_path / "out" / "masks")["00000"] == (soft > 127)).all()


def test_index_255_is_an_object_of_this_id(inputs, tiny_checkpoint, tmp_path, clip):
    """Other than grey 255: an indexed mask says what it means, and so does FRAME:PNG:255."""
    one = (clip[1][0] == 1) * np.uint8(255)
    write_mask(tmp_path / "indexed.png", one)
    for mask in (tmp_path / "indexed.png", f"0:{grey(tmp_path / 'grey.png', one)}:255"):
        assert run("--video", inputs / "clip.mp4", "--mask", mask, "--model", tiny_checkpoint, "--output",
                   tmp_path / "out", "--no-overlay") == 0
        assert (written(tmp_path / "out" / "masks")["00000"] == one).all()


def test_mask_of_an_annotated_frame_comes_back_as_it_was(inputs, tiny_checkpoint, tmp_path, clip):
    """Although the network sees it reduced; objects without a mask in this frame have none inside it."""
    assert run("--video", inputs / "frames", "--mask", inputs / "first.png", f"img_11:{inputs / 'later.png'}",
               "--model", tiny_checkpoint, "--output", tmp_path, "--no-overlay", "--size", 36) == 0
    results = written(tmp_path / "masks")
    assert (results["img_5"] == clip[1][0]).all()
    assert ((results["img_11"] == 2) == (clip[1][6] == 2)).all()


def test_later_black_and_white_mask_says_whom_it_corrects_or_is_told(inputs, tiny_checkpoint, tmp_path, clip, capsys):
    first = grey(tmp_path / "first.png", (clip[1][0] == 1) * np.uint8(255))
    later = grey(tmp_path / "later.png", (clip[1][6] == 2) * np.uint8(255))
    arguments = ["--video", inputs / "clip.mp4", "--model", tiny_checkpoint, "--output", tmp_path / "out",
                 "--no-overlay", "--mask", first]
    assert run(*arguments, f"6:{later}") == 0
    assert f"{later}: does not say which object it shows: it corrects object 1" in capsys.readouterr().err
    assert 2 not in written(tmp_path / "out" / "masks")["00006"]
    assert run(*arguments, f"6:{later}:2") == 0
    assert "corrects" not in capsys.readouterr().err
    assert ((written(tmp_path / "out" / "masks")["00006"] == 2) == (clip[1][6] == 2)).all()
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["annotated"]["00006"] == str(later)
    for mask, part in ((f"6:{later}:256", "object id 256"), (f"6:{inputs / 'first.png'}:3", "holds objects 1, 2")):
        assert run(*arguments, mask) == 2
        assert one_line_error(capsys, part)


@pytest.mark.parametrize("mask, found", [("1.png", "00001"), ("00004.png", "00004"), ("mask_3.png", "00003"),
                                         ("0.png", None), ("6.png", None), ("first.png", None)])
def test_name_in_a_mask_folder_is_a_number_and_no_index(inputs, tiny_checkpoint, tmp_path, clip, capsys, mask, found):
    frames = frames_named(tmp_path / "frames", clip[0], [f"{number:05d}" for number in range(1, 6)])
    (tmp_path / "given").mkdir()
    shutil.copy(inputs / "first.png", tmp_path / "given" / mask)
    arguments = ["--video", frames, "--model", tiny_checkpoint, "--output", tmp_path / "out", "--no-overlay"]
    number = mask.removesuffix(".png")
    for given in (tmp_path / "given", f"{number}:{inputs / 'first.png'}"):
        if found is None:
            assert run(*arguments, "--mask", given) == 2
            assert one_line_error(capsys, f"no frame is called {number}", "00001 to 00005")
        else:
            assert run(*arguments, "--mask", given) == 0
            assert min(names(tmp_path / "out" / "masks")) == f"{found}.png"


def test_number_that_may_be_two_frames_is_refused_or_said(inputs, tiny_checkpoint, tmp_path, clip, capsys):
    frames = frames_named(tmp_path / "frames", clip[0], ["a_0", "b_0", "b_1"])
    (tmp_path / "given").mkdir()
    shutil.copy(inputs / "first.png", tmp_path / "given" / "0.png")
    arguments = ["--model", tiny_checkpoint, "--output", tmp_path / "out", "--no-overlay"]
    assert run("--video", frames, "--mask", tmp_path / "given", *arguments) == 2
    assert one_line_error(capsys, "0 may be frame a_0 or b_0")
    assert run("--video", inputs / "frames", "--mask", f"6:{inputs / 'first.png'}", *arguments) == 0
    assert "first.png: 6 counts frames from 0 and means img_11, not img_6" in capsys.readouterr().err


def test_mask_of_a_frame_that_no_video_has(inputs, stream, tiny_checkpoint, tmp_path, capsys):
    """Refused before anything is computed where the length is known, and otherwise at the end."""
    arguments = ["--mask", inputs / "first.png", f"12:{inputs / 'later.png'}", "--model", tiny_checkpoint, "--output",
                 tmp_path / "out", "--no-overlay"]
    assert run("--video", inputs / "clip.mp4", *arguments) == 2
    assert one_line_error(capsys, "later.png", "no frame 12", "12 frames")
    assert not (tmp_path / "out").exists()
    # The header of this Matroska file does not say how many frames there are.
    assert run("--video", stream[0], *arguments) == 2
    assert one_line_error(capsys, "later.png", "not used", "not among the 12 frames")
    assert len(names(tmp_path / "out" / "masks")) == 12


def test_masks_of_a_part(inputs, tiny_checkpoint, tmp_path, capsys):
    """Their frames have the numbers of the whole video."""
    arguments = ["--start", "4", "--model", tiny_checkpoint, "--no-overlay", "--output"]
    for video, found, before in (("clip.mp4", ["00004", "00006"], "no frame 3 is tracked; the first is 00004"),
                                 ("frames", ["img_9", "img_11"], "frame img_8 is not between --start and --end")):
        masks = ["--video", inputs / video, "--mask", inputs / "first.png"]
        assert run(*masks, f"6:{inputs / 'later.png'}", *arguments, tmp_path / video) == 0
        assert list(json.loads((tmp_path / video / "summary.json").read_text())["annotated"]) == found
        capsys.readouterr()
        assert run(*masks, f"3:{inputs / 'later.png'}", *arguments, tmp_path / "none") == 2
        assert one_line_error(capsys, "later.png", before)
    # Where the part ends by time, it is known only at the end.
    assert run("--video", inputs / "clip.mp4", "--mask", inputs / "first.png", f"10:{inputs / 'later.png'}", "--end",
               "0.25s", *arguments, tmp_path / "end") == 2
    assert one_line_error(capsys, "later.png", "frame 00010 is not among the 3 frames", "from 00004 on")


def test_first_frame_drawn_upon_in_flat_colours_is_a_mask(inputs, tiny_checkpoint, tmp_path, clip, capsys):
    assert run(inputs / "clip.mp4", "--start", "4", "--output", tmp_path) == 2
    drawn = np.array([[0, 0, 0], [250, 120, 30], [40, 90, 200]], np.uint8)[clip[1][4]]
    Image.fromarray(drawn).save(tmp_path / "first.png")
    assert run(inputs / "clip.mp4", tmp_path / "first.png", "--start", "4", "--output", tmp_path, "--model",
               tiny_checkpoint, "--no-overlay") == 0
    assert "#fa781e is object 1, #285ac8 is object 2" in capsys.readouterr().err
    assert (written(tmp_path / "masks")["00004"] == clip[1][4]).all()


def test_empty_mask_in_a_folder_gives_nothing_new(inputs, tiny_checkpoint, tmp_path, clip, capsys):
    (tmp_path / "given").mkdir()
    write_mask(tmp_path / "given" / "4.png", clip[1][0] * 0)
    arguments = ["--video", inputs / "clip.mp4", "--model", tiny_checkpoint, "--no-overlay", "--output"]
    assert run(*arguments, tmp_path / "with", "--mask", tmp_path / "given") == 2
    assert one_line_error(capsys, "no mask in this folder holds an object")
    shutil.copy(inputs / "first.png", tmp_path / "given" / "0.png")
    assert run(*arguments, tmp_path / "with", "--mask", tmp_path / "given") == 0
    assert "4.png: an empty mask, which gives nothing new" in capsys.readouterr().err
    assert run(*arguments, tmp_path / "without", "--mask", inputs / "first.png") == 0
    results = [written(tmp_path / folder / "masks") for folder in ("with", "without")]
    assert all((results[0][name] == results[1][name]).all() for name in results[1])


def test_objects_that_the_size_erases_are_named(inputs, tiny_checkpoint, tmp_path, clip, capsys):
    ids = clip[1][0].copy()
    ids[1, 1] = 5
    arguments = ["--video", inputs / "clip.mp4", "--mask", grey(tmp_path / "small.png", ids), "--model",
                 tiny_checkpoint, "--output", tmp_path / "out", "--no-overlay"]
    assert run(*arguments, "--size", 36) == 0
    assert "small.png: object 5 is so small that nothing is left of it at --size 36" in capsys.readouterr().err
    assert run(*arguments) == 0
    assert "nothing is left" not in capsys.readouterr().err


def test_masks_beside_the_frames_are_no_frames(inputs, tiny_checkpoint, tmp_path, clip, capsys):
    arguments = ["--model", tiny_checkpoint, "--output", tmp_path / "out", "--no-overlay"]
    frames = frames_named(tmp_path / "frames", clip[0][:3], "012")
    shutil.copy(inputs / "first.png", frames / "first.png")
    for mask in (frames / "first.png", inputs / "first.png", f"1:{frames / 'first.png'}"):
        assert run("--video", frames, "--mask", mask, *arguments) == 0
        assert {"0.png", "1.png", "2.png"} >= set(names(tmp_path / "out" / "masks"))
    assert "first.png: beside the frames, but not taken for a frame" in capsys.readouterr().err
    # JPEGs and their masks in one folder.
    shutil.copytree(inputs / "frames", tmp_path / "both")
    shutil.copy(inputs / "first.png", tmp_path / "both" / "img_5.png")
    assert run("--video", tmp_path / "both", "--mask", tmp_path / "both", *arguments, "--overwrite") == 0
    assert len(names(tmp_path / "out" / "masks")) == 12


def test_binary_grey_mask_is_one_object(inputs, tiny_checkpoint, tmp_path):
    mask = np.zeros((72, 100), np.uint8)
    mask[10:40, 20:60] = 255
    Image.fromarray(mask).save(tmp_path / "binary.png")
    assert run("--video", inputs / "frames", "--mask", tmp_path / "binary.png", "--model", tiny_checkpoint,
               "--output", tmp_path / "out") == 0
    first = np.array(Image.open(tmp_path / "out" / "masks" / "img_5.png"))
    assert (first == mask // 255).all()


@pytest.mark.parametrize("mask, parts", [
    ("img_99:{first}", ["img_99", "img_5", "img_16"]),
    ("12:{first}", ["no frame is called 12"]),
    ("{first} 0:{first}", ["already has a mask"]),
])
def test_masks_of_no_frame(inputs, tiny_checkpoint, tmp_path, capsys, mask, parts):
    assert run("--video", inputs / "frames", "--mask", *mask.format(first=inputs / "first.png").split(),
               "--model", tiny_checkpoint, "--output", tmp_path) == 2
    assert one_line_error(capsys, *parts)
