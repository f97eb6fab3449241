"""track.py through its command line: runs that end in the middle, and how they go on."""

import errno
import json
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from inference_core import InferenceCore, track_output
from tests.tracking_runs import decoded, names, one_line_error, run
from util.image_io import write_mask


def test_damaged_frame_in_the_middle_keeps_what_is_finished(inputs, tiny_checkpoint, tmp_path, capsys):
    shutil.copytree(inputs / "frames", tmp_path / "frames")
    broken = tmp_path / "frames" / "img_10.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    assert run("--video", tmp_path / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
               "--output", tmp_path / "out") == 2
    assert one_line_error(capsys, "img_10.jpg", "damaged", "5 finished masks")
    assert names(tmp_path / "out" / "masks") == sorted(f"img_{number}.png" for number in range(5, 10))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert not summary["complete"] and len(summary["frames"]) == 5
    assert len(decoded(tmp_path / "out" / "overlay.mp4")) == 5


def test_frame_of_another_size_in_the_middle(inputs, tiny_checkpoint, tmp_path, capsys):
    shutil.copytree(inputs / "frames", tmp_path / "frames")
    Image.new("RGB", (90, 72)).save(tmp_path / "frames" / "img_8.jpg")
    assert run("--video", tmp_path / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
               "--output", tmp_path / "out") == 2
    assert one_line_error(capsys, "img_8.jpg", "90×72", "100×72", "3 finished masks")


def test_full_disk_keeps_what_is_finished(inputs, tiny_checkpoint, tmp_path, capsys, monkeypatch):
    written = []

    def write(path, ids):
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        write_mask(path, ids)

    monkeypatch.setattr(track_output, "write_mask", write)
    assert run("--video", inputs / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
               "--output", tmp_path) == 2
    assert one_line_error(capsys, "No space left", "4 finished masks")
    assert len(names(tmp_path / "masks")) == 4
    assert not json.loads((tmp_path / "summary.json").read_text())["complete"]


def test_interrupted_run_says_what_is_finished(inputs, tiny_checkpoint, tmp_path, capsys, monkeypatch):
    step, steps = InferenceCore.step, []

    def interrupted(self, *arguments, **options):
        steps.append(0)
        if len(steps) == 7:
            raise KeyboardInterrupt
        return step(self, *arguments, **options)

    monkeypatch.setattr(InferenceCore, "step", interrupted)
    assert run("--video", inputs / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
               "--output", tmp_path) == 130
    assert "6 finished masks" in capsys.readouterr().err
    assert len(names(tmp_path / "masks")) == 6
    assert len(decoded(tmp_path / "overlay.mp4")) == 6


@pytest.fixture
def breakable(inputs, tiny_checkpoint, monkeypatch):
    """track(folder, *options, stop, method): run track.py, and interrupt it at a call of a method, from 1.

    The folder named killed beside `folder` is then as a kill would have left it.
    """
    monkeypatch.setattr("runs.video.KEEP_SECONDS", 0)

    def track_part(folder, *options, stop=None, method="step", owner=InferenceCore):
        calls, function = [], getattr(owner, method)

        def interrupted(self, *arguments, **given):
            calls.append(0)
            if len(calls) == stop:
                copy_as_killed(folder)
                raise KeyboardInterrupt
            return function(self, *arguments, **given)

        with monkeypatch.context() as patch:
            patch.setattr(owner, method, interrupted)
            return run("--video", inputs / "clip.mp4", "--mask", inputs / "first.png", f"6:{inputs / 'later.png'}",
                       "--model", tiny_checkpoint, "--output", folder, "--save-scores", *options), len(calls)

    return track_part


def copy_as_killed(folder):
    """Copy a folder of results in which threads write to the folder named killed beside it."""
    unfinished = shutil.ignore_patterns(".*.????????.part")
    for last in (False, False, True):
        shutil.rmtree(folder.with_name("killed"), ignore_errors=True)
        try:
            shutil.copytree(folder, folder.with_name("killed"), ignore=unfinished)
            return
        except shutil.Error:
            # A file went while it was copied.
            if last:
                raise


def results_of(folder):
    """What a run has written, without times. Of the overlay the number of frames: its bytes differ now and then."""
    summary = json.loads((folder / "summary.json").read_text())
    for name in ("speed", "peak_memory_mb"):
        summary.pop(name, None)
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")
             if path.suffix == ".png" or path.name.startswith(".")}
    scores = {path.name: np.load(path)["prob"].tobytes() for path in (folder / "scores").iterdir()}
    return json.dumps(summary), files, scores, len(decoded(folder / "overlay.mp4"))


@pytest.mark.parametrize("stop", [2, 6, 9, 12])
@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_a_run_goes_on_after_an_interruption_and_ends_with_the_same_files(breakable, tmp_path, capsys, stop, how):
    assert breakable(tmp_path / "whole") == (0, 12)
    assert breakable(tmp_path / "interrupted", stop=stop) == (130, stop)
    assert "the same command with --resume goes on" in capsys.readouterr().err
    code, steps = breakable(tmp_path / how, "--resume")
    # At a kill, a few states may have been on their way to the disk.
    assert code == 0 and (steps == 13 - stop if how == "interrupted" else 13 - stop <= steps <= 12)
    assert "going on after" in capsys.readouterr().err or steps == 12
    assert results_of(tmp_path / how) == results_of(tmp_path / "whole")


def test_a_run_that_goes_on_may_be_interrupted_again(breakable, tmp_path):
    breakable(tmp_path / "whole")
    breakable(tmp_path / "part", stop=9)
    for stop, method, owner in ((4, "take_over", track_output.TrackOutput), (2, "step", InferenceCore)):
        assert breakable(tmp_path / "part", "--resume", stop=stop, method=method, owner=owner)[0] == 130
        code, _ = breakable(tmp_path / "killed", "--resume")
        assert code == 0 and results_of(tmp_path / "killed") == results_of(tmp_path / "whole")
        shutil.rmtree(tmp_path / "killed")
    assert breakable(tmp_path / "part", "--resume") == (0, 3)
    assert results_of(tmp_path / "part") == results_of(tmp_path / "whole")


def test_only_the_same_run_goes_on(breakable, inputs, tmp_path, capsys):
    breakable(tmp_path / "part", stop=9)
    capsys.readouterr()
    assert breakable(tmp_path / "part", "--resume", "--top", 20)[0] == 2
    error = capsys.readouterr().err
    assert "differs in settings (top_k)" in error and "begin anew\n" in error and error.count("\n") == 1, error
    assert breakable(tmp_path / "part", "--resume", "--end", 10)[0] == 2
    assert one_line_error(capsys, "differs in video, end")
    # Without --resume it begins anew, and nothing of the state is left.
    assert breakable(tmp_path / "part", "--top", 20) == (0, 12)
    assert not (tmp_path / "part" / ".state.npz").exists()
    # Finished results stay: the same command has nothing to do, and another one is refused.
    masks = results_of(tmp_path / "part")
    assert breakable(tmp_path / "part", "--resume", "--top", 20) == (0, 0)
    assert "finished already" in capsys.readouterr().err
    assert breakable(tmp_path / "part", "--resume") == (2, 0)
    assert one_line_error(capsys, "differs in settings (top_k)") and results_of(tmp_path / "part") == masks
    # Another torch or device would compute nothing, and the overlay is not drawn again without being asked for anew.
    manifest = json.loads((tmp_path / "part" / ".track.json").read_text())
    manifest["run"] |= {"versions": {"torch": "1.0"}, "device": "another one"}
    (tmp_path / "part" / ".track.json").write_text(json.dumps(manifest))
    assert breakable(tmp_path / "part", "--resume", "--top", 20) == (0, 0)
    assert breakable(tmp_path / "part", "--resume", "--top", 20, "--stamp") == (2, 0)
    assert one_line_error(capsys, "differs in stamp")
    # A run with a file that is missing or cut is not finished.
    cut = (tmp_path / "part" / "masks" / "00004.png").read_bytes()[:-1]
    for damage in (lambda folder: (folder / "masks" / "00003.png").unlink(),
                   lambda folder: (folder / "masks" / "00004.png").write_bytes(cut),
                   lambda folder: (folder / "scores" / "00005.npz").write_bytes(b""),
                   lambda folder: (folder / "overlay.mp4").write_bytes(b""),
                   lambda folder: (folder / "summary.json").write_text('{"complete": true, "frames": [1]}')):
        damage(tmp_path / "part")
        assert breakable(tmp_path / "part", "--resume", "--top", 20) == (0, 12)
        assert "nothing to go on from" in capsys.readouterr().err
        assert results_of(tmp_path / "part") == masks


def test_other_frames_of_the_same_path_are_another_run(inputs, tiny_checkpoint, tmp_path, capsys):
    shutil.copytree(inputs / "frames", tmp_path / "frames")
    command = ["--video", tmp_path / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output",
               tmp_path / "out", "--resume"]
    assert run(*command) == 0
    frames = tmp_path / "frames"
    shutil.copy(frames / "img_5.jpg", frames / "img_17.jpg")
    capsys.readouterr()
    assert run(*command) == 2
    assert one_line_error(capsys, tmp_path / "out", "differs in frames")
    (frames / "img_17.jpg").unlink()
    assert run(*command) == 0
    shutil.copy(frames / "img_5.jpg", frames / "img_16.jpg")
    capsys.readouterr()
    assert run(*command) == 2
    assert one_line_error(capsys, tmp_path / "out", "differs in frames")


def test_a_run_through_a_video_that_is_cut_short_is_finished(inputs, tiny_checkpoint, tmp_path, capsys):
    data = (inputs / "clip.mp4").read_bytes()
    with av.open(str(inputs / "clip.mp4")) as container:
        end = [packet.pos for packet in container.demux(video=0) if packet.size][9]
    (tmp_path / "cut.mp4").write_bytes(data[:end])
    command = [tmp_path / "cut.mp4", inputs / "first.png", "--model", tiny_checkpoint, "--output", tmp_path / "out"]
    assert run(*command) == 0 and not json.loads((tmp_path / "out" / "summary.json").read_text())["complete"]
    capsys.readouterr()
    assert run(*command, "--resume") == 0
    assert "finished already" in capsys.readouterr().err
    assert run(*command, "--resume", "--top", 20) == 2
    assert one_line_error(capsys, "differs in settings (top_k)")


def test_a_mask_that_was_not_used_is_told_again(inputs, tiny_checkpoint, tmp_path, capsys):
    with av.open(str(inputs / "clip.mp4")) as container:
        end = [packet.pos for packet in container.demux(video=0) if packet.size][9]
    (tmp_path / "cut.mp4").write_bytes((inputs / "clip.mp4").read_bytes()[:end])
    command = [tmp_path / "cut.mp4", inputs / "first.png", f"11:{inputs / 'later.png'}", "--model", tiny_checkpoint,
               "--output", tmp_path / "out"]
    for options in ([], ["--resume"]):
        assert run(*command, *options) == 2
        assert one_line_error(capsys, "later.png", "not used", "9 frames")


def test_images_after_the_end_do_not_matter(inputs, tiny_checkpoint, tmp_path, capsys):
    shutil.copytree(inputs / "frames", tmp_path / "frames")
    command = ["--video", tmp_path / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint, "--end",
               "img_9", "--output", tmp_path / "out", "--resume"]
    assert run(*command) == 0
    shutil.copy(tmp_path / "frames" / "img_5.jpg", tmp_path / "frames" / "img_17.jpg")
    capsys.readouterr()
    assert run(*command) == 0
    assert "finished already" in capsys.readouterr().err


def test_a_new_run_never_goes_on_from_the_state_of_another(breakable, tmp_path, monkeypatch):
    breakable(tmp_path / "part", stop=9)
    with monkeypatch.context() as patch:
        patch.setattr(track_output, "remove_earlier_results", interrupt)
        assert breakable(tmp_path / "part", "--top", 20) == (130, 0)
    assert breakable(tmp_path / "part", "--resume", "--top", 20) == (0, 12)


def test_a_full_disk_at_the_very_end_leaves_the_folder_to_the_next_run(breakable, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        write, outputs = track_output.TrackOutput._write_manifest, []

        def fail(self, finished):
            # It is kept, so that nobody but itself lets its folder go.
            outputs.append(self)
            if finished is not None:
                raise OSError(errno.ENOSPC, "No space left on device", str(self.folder))
            write(self, finished)

        patch.setattr(track_output.TrackOutput, "_write_manifest", fail)
        assert breakable(tmp_path / "part")[0] == 2
        assert one_line_error(capsys, "No space left")
    assert breakable(tmp_path / "part", "--resume")[0] == 0


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_results_of_an_earlier_version_are_not_gone_on_with(inputs, tiny_checkpoint, tmp_path, capsys):
    command = ["--video", inputs / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output",
               tmp_path]
    assert run(*command) == 0
    manifest = json.loads((tmp_path / ".track.json").read_text())
    del manifest["finished"]
    (tmp_path / ".track.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    assert run(*command, "--resume") == 2
    assert one_line_error(capsys, tmp_path, "an earlier version")
    assert run(*command) == 0


def test_a_run_goes_on_however_its_paths_are_written(breakable, inputs, tiny_checkpoint, tmp_path, capsys):
    breakable(tmp_path / "part", stop=9)
    capsys.readouterr()
    other = inputs / ".." / inputs.name
    assert run("--video", other / "clip.mp4", "--mask", other / "first.png", f"6:{other / 'later.png'}", "--model",
               tiny_checkpoint, "--output", tmp_path / ".." / tmp_path.name / "part", "--save-scores", "--resume") == 0
    assert "going on after 8 frames" in capsys.readouterr().err


def test_a_stream_does_not_go_on(inputs, capsys):
    assert run("--video", "-", "--mask", inputs / "first.png", "--resume") == 2
    assert one_line_error(capsys, "--resume", "other frames each time")
