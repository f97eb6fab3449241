"""track.py --click and --box through its command line."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.painted_network import PaintedNetwork
from tests.tracking_runs import one_line_error, run
from util.image_io import read_mask

COUNT = 6


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A folder of frames: a red square of 20×20 pixels, at 30 in the first frame, that moves by two pixels a frame."""
    monkeypatch.setattr("runs.video.load_clicks", lambda device: PaintedNetwork())
    (tmp_path / "frames").mkdir()
    for number in range(COUNT):
        image = np.zeros((72, 100, 3), np.uint8)
        image[20:40, 30 + 2 * number:50 + 2 * number, 0] = 200
        Image.fromarray(image).save(tmp_path / "frames" / f"f{number}.png")
    return tmp_path


def test_click_is_the_mask_that_it_makes(inputs, tiny_checkpoint, capsys):
    options = ["--no-overlay", "--model", tiny_checkpoint, "--output"]
    assert run(inputs / "frames", "--click", "40,30", "f3:45,30:2", *options, inputs / "a") == 0
    clicked = inputs / "a" / "clicked"
    assert f"clicks and boxes: {clicked / 'f0.png'}, {clicked / 'f3.png'}" in capsys.readouterr().err
    ids = read_mask(clicked / "f0.png")
    assert (ids[22:38, 32:48] == 1).all() and (ids > 0).sum() < 500
    assert set(np.unique(read_mask(clicked / "f3.png"))) == {0, 2}
    # The same files, given as masks.
    assert run(inputs / "frames", clicked / "f0.png", f"f3:{clicked / 'f3.png'}", *options, inputs / "b") == 0
    for number in range(COUNT):
        assert np.array_equal(read_mask(inputs / "a" / "masks" / f"f{number}.png"),
                              read_mask(inputs / "b" / "masks" / f"f{number}.png"))
    annotated = json.loads((inputs / "a" / "summary.json").read_text())["annotated"]
    assert annotated == {"f0": str(clicked / "f0.png"), "f3": str(clicked / "f3.png")}


def test_box_backward_and_beside_a_mask(inputs, tiny_checkpoint):
    assert run(inputs / "frames", "--box", "37,18,63,42", "--backward", "--no-overlay", "--model", tiny_checkpoint,
               "--output", inputs / "out") == 0
    assert len(list((inputs / "out" / "masks").iterdir())) == COUNT
    assert (read_mask(inputs / "out" / "clicked" / "f5.png")[22:38, 42:58] == 1).all()


def test_resume_goes_on(inputs, tiny_checkpoint):
    command = [inputs / "frames", "--click", "40,30", "--no-overlay", "--model", tiny_checkpoint, "--output",
               inputs / "out"]
    assert run(*command) == 0
    before = (inputs / "out" / "masks" / "f5.png").read_bytes()
    assert run(*command, "--resume") == 0
    assert (inputs / "out" / "masks" / "f5.png").read_bytes() == before


def test_resume_with_other_clicks_changes_nothing(inputs, tiny_checkpoint, capsys):
    options = ["--no-overlay", "--model", tiny_checkpoint, "--output", inputs / "out"]
    assert run(inputs / "frames", "--click", "40,30", *options) == 0
    clicked = inputs / "out" / "clicked" / "f0.png"
    before = clicked.read_bytes()
    capsys.readouterr()
    assert run(inputs / "frames", "--click", "40,30:2", *options, "--resume") == 2
    assert one_line_error(capsys, clicked, "was made from other clicks", "--resume")
    assert clicked.read_bytes() == before


@pytest.mark.parametrize("arguments, parts", [
    (["--click", "f9:1,1"], ["--click f9:1,1", "no frame"]),
    (["--click", "400,1"], ["--click 400,1", "100×72"]),
    (["--click", "1"], ["--click 1", "FRAME:X,Y:ID"]),
    (["--box", "1,2,3"], ["--box 1,2,3", "LEFT,TOP,RIGHT,BOTTOM"]),
])
def test_what_cannot_be_meant_is_refused(inputs, tiny_checkpoint, capsys, arguments, parts):
    assert run(inputs / "frames", *arguments, "--model", tiny_checkpoint, "--output", inputs / "out") == 2
    assert one_line_error(capsys, *parts)
    assert not (inputs / "out").exists()


def test_frame_with_a_mask_takes_no_click(inputs, tiny_checkpoint, capsys):
    mask = inputs / "mask.png"
    Image.fromarray(np.eye(72, 100, dtype=np.uint8)).save(mask)
    assert run(inputs / "frames", mask, "--click", "40,30", "--model", tiny_checkpoint, "--output",
               inputs / "out") == 2
    assert one_line_error(capsys, "frame f0 already has a mask", mask)


def test_stream_and_example_take_no_clicks(inputs, capsys):
    assert run("-", "--click", "40,30", "--output", inputs / "out") == 2
    assert one_line_error(capsys, "gives its frames only once")
    assert run("--click", "40,30", "--output", inputs / "out") == 2
    assert one_line_error(capsys, "need a --video")


def test_a_clicked_mask_that_somebody_has_corrected_is_not_replaced(inputs, tiny_checkpoint, capsys):
    options = ["--no-overlay", "--model", tiny_checkpoint, "--output", inputs / "out"]
    corrected = inputs / "out" / "clicked" / "f0.png"
    # What clicks alone have made, other clicks may replace.
    for click in ("40,30", "42,31:3"):
        assert run(inputs / "frames", "--click", click, *options) == 0
    Image.fromarray(np.eye(72, 100, dtype=np.uint8) * 7).save(corrected)
    before = corrected.read_bytes()
    capsys.readouterr()
    assert run(inputs / "frames", "--click", "40,30", *options) == 2
    assert one_line_error(capsys, corrected, "was changed since it was made from clicks")
    assert run(inputs / "frames", corrected, "--click", "40,30", *options) == 2
    assert one_line_error(capsys, corrected, "was changed since it was made from clicks")
    # In another frame it goes with clicks, whether it is given as a file or with its folder.
    assert run(inputs / "frames", corrected, "--click", "f3:45,30", *options) == 0
    (corrected.parent / "f3.png").unlink()
    # With its folder, the same command may be given again: f3.png, too, is then in the folder.
    for _ in range(2):
        assert run(inputs / "frames", corrected.parent, "--click", "f3:45,30", *options) == 0
    assert corrected.read_bytes() == before
    assert run(inputs / "frames", corrected.parent, "--click", "f3:45,30", *options, "--resume") == 0
    # Where the record of what clicks have made is damaged, nothing counts as made by them.
    (corrected.parent / ".made.json").write_text("[1]")
    assert run(inputs / "frames", "--click", "40,30", *options) == 2
    assert one_line_error(capsys, corrected, "was changed since it was made from clicks")
    assert run(inputs / "frames", "--click", "40,30", *options, "--overwrite") == 0
    assert corrected.read_bytes() != before
    # What clicks have made is known again after this, although it was not made anew.
    (corrected.parent / ".made.json").unlink()
    for click in ("40,30", "42,31:3"):
        assert run(inputs / "frames", "--click", click, *options) == 0


def test_a_damaged_clicked_mask_is_named_and_can_be_replaced(inputs, tiny_checkpoint, capsys):
    command = [inputs / "frames", "--click", "40,30", "--no-overlay", "--model", tiny_checkpoint, "--output",
               inputs / "out"]
    assert run(*command) == 0
    (inputs / "out" / "clicked" / "f0.png").write_bytes(b"")
    capsys.readouterr()
    assert run(*command) == 2
    assert one_line_error(capsys, inputs / "out" / "clicked" / "f0.png", "was changed", "--overwrite")
    assert run(*command, "--overwrite") == 0


def test_a_folder_of_empty_masks_goes_with_clicks(inputs, tiny_checkpoint):
    (inputs / "empty").mkdir()
    Image.fromarray(np.zeros((72, 100), np.uint8)).save(inputs / "empty" / "f3.png")
    assert run(inputs / "frames", inputs / "empty", "--click", "40,30", "--no-overlay", "--model", tiny_checkpoint,
               "--output", inputs / "out") == 0


def test_clicks_in_another_video_leave_the_masks_of_this_one(inputs, tiny_checkpoint, capsys):
    options = ["--no-overlay", "--model", tiny_checkpoint, "--output", inputs / "out"]
    assert run(inputs / "frames", "--click", "40,30", *options) == 0
    before = (inputs / "out" / "clicked" / "f0.png").read_bytes()
    (inputs / "frames").rename(inputs / "others")
    capsys.readouterr()
    assert run(inputs / "others", "--click", "45,35:2", *options) == 2
    assert one_line_error(capsys, inputs / "out", "another video")
    assert (inputs / "out" / "clicked" / "f0.png").read_bytes() == before
