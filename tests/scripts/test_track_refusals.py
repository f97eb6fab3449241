"""track.py through its command line: what cannot be used is told in one line."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tracking_runs import one_line_error, run


def test_the_cause_behind_a_one_line_error_can_be_seen(tmp_path, capsys, monkeypatch):
    arguments = ["--video", tmp_path / "none.mp4", "--mask", tmp_path / "none.png"]
    assert run(*arguments) == 2 and "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("RDE_TRACEBACK", "1")
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and "in open_frames" in error and error.splitlines()[-1].startswith("track.py: error:")


def test_options_may_have_underscores_and_are_never_guessed(inputs, tiny_checkpoint, tmp_path, capsys):
    arguments = ["--video", inputs / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
                 "--output", tmp_path, "--no_overlay"]
    assert run(*arguments, "--mem_every=2") == 0
    assert json.loads((tmp_path / "summary.json").read_text())["settings"]["mem_every"] == 2
    assert run(*arguments, "--mem", "2") == 2
    assert one_line_error(capsys, "unrecognized arguments: --mem")
    assert run(*arguments, "--mem-every", "0") == 2
    assert one_line_error(capsys, "--mem-every: 0 was found, a whole number from 1 on was expected")


@pytest.fixture
def bad(inputs, tmp_path, tiny_network):
    """Unusable files by name."""
    Image.fromarray(np.zeros((50, 60), np.uint8) + 1).save(tmp_path / "small.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (72, 100, 3), np.uint8)).save(tmp_path / "photo.png")
    Image.fromarray(np.zeros((72, 100), np.uint8)).save(tmp_path / "empty.png")
    Image.fromarray(np.full((72, 100), 256, np.uint16)).save(tmp_path / "id256.png")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "cut.png").write_bytes((inputs / "first.png").read_bytes()[:-40])
    (tmp_path / "cut.mp4").write_bytes((inputs / "clip.mp4").read_bytes()[:600])
    state = tiny_network.state_dict()
    del state["key_comp.bias"]
    torch.save(state, tmp_path / "missing.pth")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(np.random.default_rng(0), tmp_path / "code.pth")
    return tmp_path


@pytest.mark.parametrize("changed, parts", [
    ({"--video": "none.mp4"}, ["none.mp4", "no such file"]),
    ({"--video": "text.mp4"}, ["text.mp4", "not a readable video"]),
    ({"--video": "cut.mp4"}, ["cut.mp4"]),
    ({"--video": "nothing"}, ["nothing", "no image"]),
    ({"--video": "*.gone"}, ["no image matches"]),
    ({"--mask": "none.png"}, ["none.png", "no such file"]),
    ({"--mask": "small.png"}, ["small.png", "60×50", "100×72"]),
    ({"--mask": "photo.png"}, ["photo.png", "colours; a mask has one flat colour for each object: save it as"]),
    ({"--mask": "empty.png"}, ["empty.png", "no object"]),
    ({"--mask": "id256.png"}, ["id256.png", "256", "1 to 255"]),
    ({"--mask": "text.png"}, ["text.png", "not a readable image"]),
    ({"--mask": "cut.png"}, ["cut.png", "damaged"]),
    ({"--mask": "nothing"}, ["nothing", "no PNG"]),
    ({"--model": "none.pth"}, ["none.pth", "no such file"]),
    ({"--model": "missing.pth"}, ["missing.pth", "key_comp.bias"]),
    ({"--model": "other.pth"}, ["other.pth", "another network"]),
    ({"--model": "code.pth"}, ["code.pth", "refused"]),
])
def test_bad_input_is_one_line_and_nothing_is_written(inputs, bad, tiny_checkpoint, capsys, changed, parts):
    values = {"--video": inputs / "frames", "--mask": inputs / "first.png", "--model": tiny_checkpoint,
              "--output": bad / "out"}
    values |= {option: bad / name for option, name in changed.items()}
    assert run(*[part for pair in values.items() for part in pair]) == 2
    assert one_line_error(capsys, *parts)
    assert not (bad / "out").exists()


def test_options_that_do_not_go_together(inputs, tiny_checkpoint, tmp_path, capsys):
    frames, first = inputs / "frames", inputs / "first.png"
    for arguments, part in ((["--mask", first], "--video"), (["--start", "3"], "--video"),
                            (["--example", "--video", frames, "--mask", first], "--example"),
                            ([frames, first, "--video", frames], "give the video once"),
                            (["--video", frames, "--mask", first, "--model", tiny_checkpoint,
                              "--device", "cuda:77"], "cuda:77")):
        assert run(*arguments, "--output", tmp_path) == 2
        assert one_line_error(capsys, part)


def test_without_scikit_image_the_example_says_what_to_install(tmp_path, capsys, monkeypatch, tiny_checkpoint):
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert run("--example", "--model", tiny_checkpoint, "--output", tmp_path) == 2
    assert one_line_error(capsys, "pip install scikit-image")
