"""track.py --backward through its command line."""

import json

import av
import numpy as np
import pytest
from PIL import Image

from inference_core import InferenceCore
from tests.tracking_runs import decoded, run
from util.image_io import read_mask, write_mask
from util.video import open_frames
from util.video_writer import H264, VideoWriter

COUNT = 12
"""Frames of the clip of these tests."""


@pytest.fixture(scope="module")
def inputs(clip, tmp_path_factory):
    """clip.mp4; backward/, the PNGs of its frames from last to first; last.png and middle.png, masks of 11 and 5."""
    folder = tmp_path_factory.mktemp("inputs")
    video = VideoWriter(folder / "clip.mp4", (100, 72), 24)
    for frame in clip[0][:COUNT]:
        video.write(frame)
    video.close()
    (folder / "backward").mkdir()
    for frame in open_frames([str(folder / "clip.mp4")]):
        Image.fromarray(frame.image).save(folder / "backward" / f"{COUNT - 1 - int(frame.name):05d}.png")
    write_mask(folder / "last.png", clip[1][COUNT - 1])
    write_mask(folder / "middle.png", clip[1][5] * (clip[1][5] == 2))
    return folder


def masks(folder):
    return {int(file.stem): read_mask(file) for file in (folder / "masks").glob("*.png")}


def test_backward_is_forward_through_the_reversed_clip(inputs, tiny_checkpoint, tmp_path, capsys):
    options = ["--model", tiny_checkpoint, "--save-scores", "--output"]
    assert run(inputs / "clip.mp4", inputs / "last.png", f"5:{inputs / 'middle.png'}", "--backward", *options,
               tmp_path / "a") == 0
    assert "taken for the mask of frame 00011, the last one" in capsys.readouterr().err
    assert run(inputs / "backward", inputs / "last.png", f"6:{inputs / 'middle.png'}", *options, tmp_path / "b") == 0
    found, expected = masks(tmp_path / "a"), masks(tmp_path / "b")
    assert sorted(found) == list(range(COUNT))
    for number in range(COUNT):
        assert np.array_equal(found[number], expected[COUNT - 1 - number])
        scores = [np.load(tmp_path / name / "scores" / f"{shown:05d}.npz") for name, shown in
                  (("a", number), ("b", COUNT - 1 - number))]
        assert np.array_equal(scores[0]["prob"], scores[1]["prob"])
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["complete"] and summary["backward"] and list(summary["annotated"]) == ["00011", "00005"]
    assert [int(frame["name"]) for frame in summary["frames"]] == list(range(COUNT))[::-1]


def test_backward_begins_at_the_last_mask_and_draws_all_frames_in_order(inputs, tiny_checkpoint, tmp_path):
    options = ["--backward", "--model", tiny_checkpoint, "--output", tmp_path / "out"]
    assert run(inputs / "clip.mp4", f"8:{inputs / 'last.png'}", *options, "--start", "2") == 0
    assert sorted(masks(tmp_path / "out")) == list(range(2, 9))
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as overlay:
        shown = [frame.to_ndarray(format="rgb24").astype(int) for frame in overlay.decode(video=0)]
    frames = [frame.image.astype(int) for frame in open_frames([str(inputs / "clip.mp4")], start="2")]
    assert len(shown) == len(frames) == 10
    # What is drawn changes a frame much more than coding it again does.
    drawn = [np.abs(one - other).mean() for one, other in zip(shown, frames, strict=True)]
    assert min(drawn[:7]) > 2 * max(drawn[7:])


def test_backward_through_images(inputs, tiny_network, tiny_checkpoint, tmp_path):
    assert run(inputs / "backward", inputs / "last.png", "--backward", "--model", tiny_checkpoint, "--no-overlay",
               "--output", tmp_path) == 0
    core = InferenceCore(tiny_network, amp="auto", top_k=40, mem_every=3, size=2 * 72)
    for number in reversed(range(COUNT)):
        image = np.array(Image.open(inputs / "backward" / f"{number:05d}.png"))
        prob = core.step(image, read_mask(inputs / "last.png") if number == COUNT - 1 else None, end=not number)
        assert np.array_equal(read_mask(tmp_path / "masks" / f"{number:05d}.png"), core.to_mask(prob).numpy())


def test_backward_without_a_mask_writes_the_last_frame(inputs, tmp_path, capsys):
    assert run(inputs / "clip.mp4", "--backward", "--end", "9", "--output", tmp_path) == 2
    assert f"frame 00009 is now in {tmp_path / 'last.png'}" in capsys.readouterr().err
    frames = {frame.name: frame.image for frame in open_frames([str(inputs / "clip.mp4")])}
    assert np.array_equal(np.array(Image.open(tmp_path / "last.png")), frames["00009"])


def test_backward_and_forward_results_are_not_mixed(inputs, tiny_checkpoint, tmp_path, capsys):
    options = [inputs / "clip.mp4", f"6:{inputs / 'last.png'}", "--model", tiny_checkpoint, "--no-overlay",
               "--output", tmp_path]
    assert run(*options, "--backward") == 0 and sorted(masks(tmp_path)) == list(range(7))
    assert run(*options) == 2 and "--overwrite" in capsys.readouterr().err
    assert run(*options, "--overwrite") == 0 and sorted(masks(tmp_path)) == list(range(6, COUNT))


def test_a_stream_cannot_be_tracked_backwards(inputs, tiny_checkpoint, tmp_path, capsys):
    with av.open(str(inputs / "clip.mp4")) as source, av.open(str(tmp_path / "a.h264"), "w", format="h264") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert run(tmp_path / "a.h264", inputs / "last.png", "--backward", "--model", tiny_checkpoint,
               "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "a.h264: its frames can only be read in their order, since not every frame has a time" in error
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_backwards_goes_on(inputs, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("runs.video.KEEP_SECONDS", 0)
    # Without loss: otherwise x264 encodes the last columns of the same pictures differently about once in 70 times.
    monkeypatch.setitem(H264.options, "crf", "0")
    options = [inputs / "clip.mp4", inputs / "last.png", "--backward", "--model", tiny_checkpoint, "--output"]
    assert run(*options, tmp_path / "whole") == 0
    step, calls = InferenceCore.step, []

    def interrupted(self, *arguments, **given):
        calls.append(0)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return step(self, *arguments, **given)

    with monkeypatch.context() as patch:
        patch.setattr(InferenceCore, "step", interrupted)
        assert run(*options, tmp_path / "part") == 130
    assert run(*options, tmp_path / "part", "--resume") == 0
    for name in (f"masks/{number:05d}.png" for number in range(COUNT)):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    films = [decoded(tmp_path / name / "overlay.mp4") for name in ("part", "whole")]
    assert len(films[0]) == COUNT and np.array_equal(*films)
    frames = [json.loads((tmp_path / name / "summary.json").read_text())["frames"] for name in ("part", "whole")]
    assert frames[0] == frames[1] and len(frames[0]) == COUNT


@pytest.fixture(scope="module")
def two_shots(clip, tmp_path_factory):
    """clip.mp4 of 14 frames with a cut before frame 8; last.png, a mask of the last frame."""
    folder = tmp_path_factory.mktemp("two_shots")
    video = VideoWriter(folder / "clip.mp4", (100, 72), 24)
    for number, frame in enumerate(clip[0][:14]):
        video.write(frame if number < 8 else 255 - frame[::-1, ::-1])
    video.close()
    write_mask(folder / "last.png", clip[1][13][::-1, ::-1])
    return folder


@pytest.mark.parametrize("step", [5, 7, 8, 9])
def test_a_resumed_run_backwards_has_the_same_cuts(two_shots, tiny_checkpoint, tmp_path, monkeypatch, step):
    # Frames 13 to 8 come first; the seventh step is that of frame 7, beyond the cut.
    monkeypatch.setattr("runs.video.KEEP_SECONDS", 0)
    options = [two_shots / "clip.mp4", two_shots / "last.png", "--backward", "--no-overlay", "--model",
               tiny_checkpoint, "--output", tmp_path]
    track, calls = InferenceCore.step, []

    def interrupted(self, *arguments, **given):
        calls.append(0)
        if len(calls) == step:
            raise KeyboardInterrupt
        return track(self, *arguments, **given)

    with monkeypatch.context() as patch:
        patch.setattr(InferenceCore, "step", interrupted)
        assert run(*options) == 130
    assert run(*options, "--resume") == 0
    assert json.loads((tmp_path / "summary.json").read_text())["cuts"] == ["00008"]


def test_a_cut_right_after_the_last_mask(two_shots, tiny_checkpoint, tmp_path):
    assert run(two_shots / "clip.mp4", f"7:{two_shots / 'last.png'}", "--both-ways", "--no-overlay", "--model",
               tiny_checkpoint, "--output", tmp_path) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["cuts"] == ["00008"]
