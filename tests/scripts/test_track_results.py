"""track.py through its command line: what becomes of the results and files that are there already."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.tracking_runs import names, one_line_error, run


def test_rerun_starts_anew(inputs, tiny_checkpoint, tmp_path):
    arguments = ["--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output", tmp_path]
    run("--video", inputs / "frames", *arguments, "--save-scores")
    run("--video", inputs / "frames", *arguments, "--no-overlay")
    assert names(tmp_path) == ["masks", "summary.json"]
    assert all(name.startswith("img_") for name in names(tmp_path / "masks"))


def test_results_of_another_video_are_replaced_only_on_request(inputs, tiny_checkpoint, tmp_path, capsys):
    arguments = ["--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output", tmp_path, "--no-overlay"]
    assert run("--video", inputs / "frames", *arguments) == 0
    for other in (["--video", inputs / "clip.mp4"], ["--video", inputs / "frames", "--end", "img_8"]):
        assert run(*other, *arguments) == 2
        assert one_line_error(capsys, tmp_path, "another video", "--overwrite")
        assert len(names(tmp_path / "masks")) == 12
    assert run("--video", inputs / "clip.mp4", *arguments, "--overwrite") == 0
    assert names(tmp_path / "masks")[0] == "00000.png"
    # Another name of the same file is no other video.
    (tmp_path / "link.mp4").symlink_to(inputs / "clip.mp4")
    assert run("--video", tmp_path / "link.mp4", *arguments) == 0


def test_files_of_others_are_never_removed(inputs, tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    shutil.copy(inputs / "first.png", tmp_path / "masks" / "img_5.png")
    arguments = ["--video", inputs / "frames", "--model", tiny_checkpoint, "--output", tmp_path]
    assert run(*arguments, "--mask", inputs / "first.png") == 2
    assert one_line_error(capsys, "choose another --output")
    assert run(*arguments, "--mask", tmp_path / "masks") == 2
    assert names(tmp_path / "masks") == ["img_5.png"]


def test_masks_of_the_user_are_kept_where_a_run_once_wrote(inputs, tiny_checkpoint, tmp_path, capsys):
    """Whoever removes the results and puts masks of his own in their place does not lose them."""
    arguments = ["--video", inputs / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
                 "--output", tmp_path, "--no-overlay"]
    assert run(*arguments) == 0
    (tmp_path / "summary.json").unlink()
    assert run(*arguments) == 2
    assert one_line_error(capsys, tmp_path / "masks", "did not write")
    assert len(names(tmp_path / "masks")) == 12


def test_results_of_an_earlier_version_are_replaced(inputs, tiny_checkpoint, tmp_path):
    """It had no manifest; its summary says who wrote it, at whatever place."""
    (tmp_path / "masks").mkdir()
    shutil.copy(inputs / "first.png", tmp_path / "masks" / "old.png")
    summary = {"video": "x" * 1000, "written_by": "track.py", "frames": [{"name": "old"}]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert run("--video", inputs / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output",
               tmp_path, "--no-overlay", "--overwrite") == 0
    assert len(names(tmp_path / "masks")) == 12


def test_folder_that_another_run_writes_into_is_refused(inputs, tiny_checkpoint, tmp_path, capsys):
    fcntl = pytest.importorskip("fcntl")
    arguments = ["--video", inputs / "clip.mp4", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
                 "--output", tmp_path]
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    assert run(*arguments) == 2
    assert one_line_error(capsys, tmp_path, "another run is writing here")
    os.close(other)
    assert run(*arguments) == 0 and run(*arguments) == 0


def test_overlay_of_others_and_the_input_are_never_removed(inputs, tiny_checkpoint, tmp_path, capsys):
    film = tmp_path / "overlay.mp4"
    shutil.copy(inputs / "clip.mp4", film)
    arguments = ["--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output", tmp_path]
    for video in (film, inputs / "frames"):
        assert run("--video", video, *arguments, "--no-overlay") == 2
        assert one_line_error(capsys, "overlay.mp4", "choose another --output")
    assert film.read_bytes() == (inputs / "clip.mp4").read_bytes() and names(tmp_path) == ["overlay.mp4"]


@pytest.mark.parametrize("video", ["out/m*/*.png", "out/masks", "out/masks/img_5.png"])
def test_results_are_never_their_own_input(inputs, tiny_checkpoint, tmp_path, capsys, monkeypatch, video):
    """A glob, too: it once passed, and the frames were removed before they were read."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output", "out", "--no-overlay"]
    assert run("--video", inputs / "frames", *arguments) == 0
    assert run("--video", video, *arguments, "--overwrite") == 2
    assert one_line_error(capsys, "is written anew; choose another --output")
    assert len(names(tmp_path / "out" / "masks")) == 12


def test_masks_that_are_a_link_are_refused(inputs, tiny_checkpoint, tmp_path, capsys):
    arguments = ["--video", inputs / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output",
                 tmp_path / "out", "--no-overlay"]
    assert run(*arguments) == 0
    (tmp_path / "out" / "masks").rename(tmp_path / "elsewhere")
    (tmp_path / "out" / "masks").symlink_to(tmp_path / "elsewhere")
    assert run(*arguments) == 2
    assert one_line_error(capsys, tmp_path / "out" / "masks", "a link")
    assert len(names(tmp_path / "elsewhere")) == 12


def test_what_no_run_has_listed_is_not_removed(inputs, tiny_checkpoint, tmp_path, capsys):
    arguments = ["--video", inputs / "clip.mp4", "--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output",
                 tmp_path, "--no-overlay"]
    assert run(*arguments) == 0
    (tmp_path / "masks" / "notes.txt").write_text("mine")
    assert run(*arguments, "--overwrite") == 2
    assert one_line_error(capsys, tmp_path / "masks" / "notes.txt", "did not write this file")
    assert len(names(tmp_path / "masks")) == 13
    (tmp_path / "masks" / "notes.txt").unlink()
    assert run(*arguments) == 0


def test_masks_of_a_run_that_was_killed_are_replaced(inputs, tiny_checkpoint, tmp_path):
    """Its summary names no frames, but the list of frames does."""
    arguments = ["--video", inputs / "clip.mp4", "--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output",
                 tmp_path, "--no-overlay"]
    assert run(*arguments) == 0
    before = [path.read_bytes() for path in sorted((tmp_path / "masks").iterdir())]
    (tmp_path / "summary.json").write_text('{"complete": false}')
    (tmp_path / "masks" / ".00003.png.01234567.part").write_text("half")
    assert run(*arguments) == 0
    assert [path.read_bytes() for path in sorted((tmp_path / "masks").iterdir())] == before


def test_exports_are_made_at_the_end(inputs, tiny_checkpoint, tmp_path, capsys):
    command = ("--video", inputs / "clip.mp4", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
               "--output", tmp_path / "out", "--no-overlay", "--export")
    assert run(*command, "coco", "prores") == 0
    assert names(tmp_path / "out" / "export") == ["coco.json", "prores.mov"]
    assert len(json.loads((tmp_path / "out" / "export" / "coco.json").read_text())["images"]) == 12
    assert f"as prores to {tmp_path / 'out' / 'export' / 'prores.mov'}" in capsys.readouterr().out
    # A second run replaces its own exports, and names those that are of the masks before.
    assert run(*command, "coco") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "earlier masks" in line]
    assert len(notes) == 1 and "prores.mov" in notes[0] and "coco.json" not in notes[0]


def test_exports_that_cannot_be_made_are_refused_before_tracking(inputs, tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "out" / "export").mkdir(parents=True)
    (tmp_path / "out" / "export" / "coco.json").write_text("mine")
    assert run("--video", inputs / "clip.mp4", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
               "--output", tmp_path / "out", "--export", "coco") == 2
    assert one_line_error(capsys, "coco.json", "not written by an export")
    assert names(tmp_path / "out") == ["export"]
    video = (inputs / "clip.mp4").read_bytes()
    done = subprocess.run([sys.executable, "track.py", "-", str(inputs / "first.png"), "--model", str(tiny_checkpoint),
                           "--output", str(tmp_path / "b"), "--export", "gif"], input=video, cwd=ROOT, check=False,
                          capture_output=True)
    assert done.returncode == 2 and b"gif needs the video's frames; standard input gives" in done.stderr
    assert not (tmp_path / "b").exists()
