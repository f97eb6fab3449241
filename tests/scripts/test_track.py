"""track.py through its command line: which frames and objects it tracks, and what it writes of them."""

import json
import shutil
import signal
import subprocess
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

import track
from dataset import synthetic
from inference_core import InferenceCore
from tests.tracking_runs import decoded, frames_named, names, one_line_error, run
from util.image_io import davis_palette, write_mask
from util.video import open_frames
from util.video_writer import Look, VideoWriter


def test_folder_of_frames(inputs, tiny_checkpoint, tmp_path, capsys):
    code = run("--video", inputs / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
               "--output", tmp_path / "out")
    assert code == 0
    assert names(tmp_path / "out") == ["masks", "overlay.mp4", "summary.json"]
    masks = sorted((tmp_path / "out" / "masks").iterdir(), key=lambda path: int(path.stem[4:]))
    assert [mask.name for mask in masks] == [f"img_{number}.png" for number in range(5, 17)]
    with Image.open(masks[0]) as first, Image.open(inputs / "first.png") as given:
        assert first.mode == "P" and first.size == (100, 72)
        assert first.getpalette()[:9] == davis_palette()[:3].ravel().tolist()
        assert (np.array(first) == np.array(given)).all()
    assert "wrote 12 masks" in capsys.readouterr().out

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["complete"] and summary["settings"]["mode"] == "two-frames-compress"
    assert len(summary["frames"]) == 12 and len(summary["model"]["sha256"]) == 64
    for speed in (summary["speed"]["network"], summary["speed"]["end_to_end"]):
        assert speed["p95_ms"] >= speed["p50_ms"] > 0
    ids = np.array(Image.open(masks[-1]))
    last = summary["frames"][-1]
    assert last["name"] == "img_16"
    for known, statistics in last["objects"].items():
        here = ids == int(known)
        assert statistics["area"] == here.sum()
        if here.any():
            left, top, right, bottom = statistics["box"]
            assert here[top:bottom, left:right].sum() == here.sum()
            assert 1 / 3 < statistics["confidence"] <= 1
    assert len(decoded(tmp_path / "out" / "overlay.mp4")) == 12


def test_video_file(inputs, tiny_checkpoint, tmp_path):
    assert run("--video", inputs / "clip.mp4", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
               "--output", tmp_path) == 0
    assert names(tmp_path / "masks") == [f"{number:05d}.png" for number in range(12)]
    with av.open(str(tmp_path / "overlay.mp4")) as overlay:
        stream = overlay.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (100, 72, 24)
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"


def test_inputs_without_options(inputs, tiny_checkpoint, tmp_path):
    arguments = ["--model", tiny_checkpoint, "--no-overlay", "--output"]
    assert run(inputs / "clip.mp4", inputs / "first.png", f"6:{inputs / 'later.png'}", *arguments, tmp_path / "a") == 0
    assert run("--video", inputs / "clip.mp4", "--mask", inputs / "first.png", f"6:{inputs / 'later.png'}", *arguments,
               tmp_path / "b") == 0
    assert run(inputs / "clip.mp4", "--mask", inputs / "first.png", f"6:{inputs / 'later.png'}", *arguments,
               tmp_path / "c") == 0
    masks = [[file.read_bytes() for file in sorted((tmp_path / name / "masks").iterdir())] for name in "abc"]
    assert len(masks[0]) == 12 and masks[0] == masks[1] == masks[2]


@pytest.mark.parametrize("video, start, name", [("clip.mp4", None, "00000"), ("clip.mp4", "7", "00007"),
                                                ("frames", None, "img_5")])
def test_without_a_mask_the_first_frame_is_written(inputs, tmp_path, capsys, video, start, name):
    part = ["--start", start] if start else []
    first = tmp_path / "out" / "first.png"
    for arguments in ([inputs / video], ["--video", inputs / video]):
        assert run(*arguments, *part, "--output", tmp_path / "out") == 2
        assert one_line_error(capsys, f"frame {name}", first, "--mask mask.png")
    frames = {frame.name: frame.image for frame in open_frames([str(inputs / video)])}
    assert (np.array(Image.open(first)) == frames[name]).all() and names(tmp_path / "out") == ["first.png"]
    # What the user has drawn there is not lost.
    Image.fromarray(np.zeros((72, 100), np.uint8)).save(first)
    assert run(inputs / video, *part, "--output", tmp_path / "out") == 2
    assert one_line_error(capsys, first, "--overwrite") and not np.array(Image.open(first)).any()
    assert run(inputs / video, *part, "--output", tmp_path / "out", "--overwrite") == 2
    assert np.array(Image.open(first)).any()


def test_a_part_of_a_video(inputs, tiny_network, tiny_checkpoint, tmp_path, capsys):
    """Its first frame has the mask, and all frames keep their numbers."""
    assert run(inputs / "clip.mp4", inputs / "first.png", "--start", "4", "--end", "0.3", "--model", tiny_checkpoint,
               "--output", tmp_path, "--stamp") == 0
    assert names(tmp_path / "masks") == [f"{number:05d}.png" for number in range(4, 8)]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["start"], summary["end"], summary["complete"]) == ("4", "0.3", True)
    assert [frame["time"] for frame in summary["frames"]] == [round(number / 24, 6) for number in range(4, 8)]
    assert list(summary["annotated"]) == ["00004"]
    core = InferenceCore(tiny_network, amp="auto", top_k=40, mem_every=3, size=2 * 72)
    for number, frame in enumerate(decoded(inputs / "clip.mp4")[4:8], 4):
        prob = core.step(frame, np.array(Image.open(inputs / "first.png")) if number == 4 else None)
        assert (np.array(Image.open(tmp_path / "masks" / f"{number:05d}.png")) == core.to_mask(prob).numpy()).all()
    assert len(decoded(tmp_path / "overlay.mp4")) == 4


def test_the_overlay_keeps_times_and_pixel_shape(inputs, tiny_checkpoint, tmp_path):
    look = Look(Fraction(1, 1000), Fraction(16, 11), 1, False, 1, 1)
    writer = VideoWriter(tmp_path / "uneven.mp4", (100, 72), 24, look)
    times = [Fraction(shown, 1000) for shown in (0, 33, 1100, 1133, 3000)]
    for shown, frame in zip(times, decoded(inputs / "clip.mp4")[:len(times)], strict=True):
        writer.write(frame, shown)
    writer.close()
    assert run(tmp_path / "uneven.mp4", inputs / "first.png", "--model", tiny_checkpoint, "--output",
               tmp_path / "out") == 0
    overlay = open_frames([str(tmp_path / "out" / "overlay.mp4")])
    assert [round(frame.time, 3) for frame in overlay] == times and overlay.look[1:] == look[1:]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [frame["time"] for frame in summary["frames"]] == [float(shown) for shown in times]
    assert summary["pixel_aspect"] == pytest.approx(16 / 11)


def test_a_video_cut_short_or_damaged_says_so(inputs, tiny_checkpoint, tmp_path, capsys):
    data = (inputs / "clip.mp4").read_bytes()
    with av.open(str(inputs / "clip.mp4")) as container:
        found = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    (tmp_path / "cut.mp4").write_bytes(data[:found[9][0] + 5])
    place, size = found[6]
    (tmp_path / "damaged.mp4").write_bytes(data[:place] + bytes([255]) * size + data[place + size:])
    for name, numbers, told in (("cut", range(9), "cut short, its header promises 12 frames"),
                                ("damaged", [*range(6), *range(7, 12)], "frame 6 is damaged and left out, 1 in all")):
        assert run(tmp_path / f"{name}.mp4", inputs / "first.png", "--model", tiny_checkpoint, "--output",
                   tmp_path / name) == 0
        lines = [line.removeprefix("note: ") for line in capsys.readouterr().err.splitlines() if told in line]
        assert len(lines) == 1 and lines[0].startswith(str(tmp_path / f"{name}.mp4"))
        assert names(tmp_path / name / "masks") == [f"{number:05d}.png" for number in numbers]
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert not summary["complete"] and lines[0] in summary["notices"]
        assert len(decoded(tmp_path / name / "overlay.mp4")) == len(numbers)


def test_what_the_core_gives_is_what_is_written(inputs, tiny_network, tiny_checkpoint, tmp_path):
    run("--video", inputs / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
        "--output", tmp_path, "--no-overlay", "--save-scores", "--top", "20", "--mem_every", "2")
    core = InferenceCore(tiny_network, amp="auto", top_k=20, mem_every=2, size=2 * 72)
    for number in range(5, 17):
        frame = np.array(Image.open(inputs / "frames" / f"img_{number}.jpg"))
        prob = core.step(frame, np.array(Image.open(inputs / "first.png")) if number == 5 else None)
        written = np.array(Image.open(tmp_path / "masks" / f"img_{number}.png"))
        assert (written == core.to_mask(prob).numpy()).all()
        with np.load(tmp_path / "scores" / f"img_{number}.npz") as scores:
            assert scores["objects"].tolist() == [1, 2]
            assert np.abs(scores["prob"] / 255 - prob.numpy()).max() < 0.5 / 255 + 1e-5
    assert not (tmp_path / "overlay.mp4").exists()


@pytest.mark.parametrize("video", ["frames/img_*.jpg", "files"])
def test_globs_and_files_come_in_natural_order(inputs, tiny_checkpoint, tmp_path, video):
    videos = sorted((inputs / "frames").iterdir()) if video == "files" else [inputs / video]
    assert run("--video", *videos, "--mask", inputs / "first.png", "--model", tiny_checkpoint,
               "--output", tmp_path) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [frame["name"] for frame in summary["frames"]] == [f"img_{number}" for number in range(5, 17)]


@pytest.mark.parametrize("listed, order, said", [
    ((3, 2, 1, 10), (3, 2, 1, 10), "keep the order in which they are listed"),
    ((1, 10, 2, 3), (1, 2, 3, 10), "are sorted by the numbers"),
    ((1, 2, 3, 10), (1, 2, 3, 10), None),
])
def test_listed_files_keep_an_order_of_their_own(inputs, tiny_checkpoint, tmp_path, clip, capsys, listed, order, said):
    folder = frames_named(tmp_path / "frames", clip[0], (1, 2, 3, 10))
    assert run("--video", *[folder / f"{number}.png" for number in listed], "--mask", inputs / "first.png", "--model",
               tiny_checkpoint, "--output", tmp_path / "out", "--no-overlay") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [frame["name"] for frame in summary["frames"]] == [str(number) for number in order]
    error = capsys.readouterr().err
    assert said in error if said else "note:" not in error


@pytest.mark.slow
def test_video_on_standard_input(stream, tmp_path):
    with open(stream[0], "rb") as pipe:
        done = subprocess.run([*stream[1], str(tmp_path)], stdin=pipe, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(names(tmp_path / "masks")) == 12


@pytest.mark.slow
def test_a_stream_that_falls_silent_can_be_ended(stream, tmp_path):
    process = subprocess.Popen([*stream[1], str(tmp_path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=False)
    process.stdin.write(stream[0].read_bytes())
    process.stdin.flush()
    deadline = time.monotonic() + 120
    before, found = 0, None
    # Until it has tracked all that it was sent, and waits.
    while not found or found != before:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(1.5)
        before, found = found, len(list((tmp_path / "masks").glob("*.png")))
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    finally:
        process.kill()
    error = process.stderr.read().decode()
    assert process.returncode == 130 and "finished masks are in" in error and "Traceback" not in error, error


@pytest.mark.slow
def test_frames_are_computed_at_the_size_asked_for(inputs, tiny_checkpoint, tmp_path):
    for size, expected in ((48, 48), (480, 2 * 72), (0, None)):
        run("--video", inputs / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
            "--output", tmp_path, "--size", size)
        assert json.loads((tmp_path / "summary.json").read_text())["settings"]["size"] == expected
        assert Image.open(tmp_path / "masks" / "img_9.png").size == (100, 72)


def test_colons_in_names(inputs, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(inputs / "clip.mp4", "2024-01-01T12:30.mp4")
    assert run("--video", "2024-01-01T12:30.mp4", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
               "--output", "out:put") == 0
    assert len(decoded(tmp_path / "out:put" / "overlay.mp4")) == 12


def test_more_frames_than_the_header_says(inputs, tiny_checkpoint, tmp_path):
    """In a fragmented MP4 the header counts the first fragment."""
    with av.open(str(inputs / "clip.mp4")) as source, \
            av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "frag_keyframe"}) as target:
        stream = target.add_stream("libx264", rate=24, options={"g": "3", "bf": "0", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 100, 72, "yuv420p"
        for frame in source.decode(video=0):
            frame = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert 0 < container.streams.video[0].frames < 12
    assert run("--video", tmp_path / "a.mp4", "--mask", inputs / "first.png", f"11:{inputs / 'later.png'}", "--model",
               tiny_checkpoint, "--output", tmp_path / "out") == 0
    assert len(names(tmp_path / "out" / "masks")) == 12
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["complete"] and len(summary["frames"]) == 12


def test_frames_too_wide_for_an_overlay(tiny_checkpoint, tmp_path, capsys):
    """H.264 ends at 16384 pixels."""
    wide = np.zeros((16, 16400), np.uint8)
    wide[4:12, 100:120] = 1
    write_mask(tmp_path / "first.png", wide)
    (tmp_path / "frames").mkdir()
    for index in range(2):
        Image.fromarray(cv2.merge([wide * np.uint8(200)] * 3)).save(tmp_path / "frames" / f"{index}.png")
    arguments = ["--video", tmp_path / "frames", "--mask", tmp_path / "first.png", "--model", tiny_checkpoint,
                 "--output", tmp_path / "out"]
    assert run(*arguments) == 2
    assert one_line_error(capsys, "16400×16", "--no-overlay")
    assert not json.loads((tmp_path / "out" / "summary.json").read_text())["complete"]
    assert run(*arguments, "--no-overlay") == 0


@pytest.fixture
def two_shots(tmp_path, clip):
    """A folder of twelve frames: from the seventh on, they show something else."""
    folder = tmp_path / "shots"
    folder.mkdir()
    other = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8), (100, 72))
    for number in range(12):
        Image.fromarray(clip[0][number] if number < 6 else other).save(folder / f"{number:05d}.png")
    return folder


@pytest.mark.parametrize("across", [False, True])
def test_objects_end_at_a_cut_unless_told_otherwise(two_shots, inputs, tiny_checkpoint, tmp_path, capsys, across):
    assert run("--video", two_shots, "--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output",
               tmp_path / "o", *(["--across-cuts"] if across else [])) == 0
    told = capsys.readouterr().err
    assert "a new shot begins with frame 00006: objects " + ("are tracked across" if across else "end there") in told
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    frames = summary["frames"]
    assert len(frames) == 12 and summary["cuts"] == ["00006"]
    assert frames[5]["objects"] and bool(frames[6]["objects"]) == bool(frames[11]["objects"]) == across
    assert across or not np.array(Image.open(tmp_path / "o" / "masks" / "00011.png")).any()


def test_doubtful_frames_are_named(inputs, tiny_checkpoint, tmp_path, capsys):
    assert run("--video", inputs / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output",
               tmp_path, "--stamp") == 0
    summary, told = json.loads((tmp_path / "summary.json").read_text()), capsys.readouterr().out
    assert all(0 <= found["quality"] <= 1 for frame in summary["frames"] for found in frame["objects"].values())
    assert all(found["quality"] == 1 for found in summary["frames"][0]["objects"].values())
    # The tests' network knows nothing.
    worst = summary["doubtful"][0]
    first, frame, last = ([entry["name"] for entry in summary["frames"]].index(worst[key])
                          for key in ("first", "frame", "last"))
    assert first <= frame <= last and first < last
    assert f"worth a look: frames {worst['first']} to {worst['last']} (worst {worst['frame']}: object " in told


def test_example(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    small = synthetic.write_example
    monkeypatch.setattr(track, "write_example", lambda folder: small(folder, (48, 64), 4))
    assert run("--model", tiny_checkpoint, "--output", tmp_path) == 0
    out = capsys.readouterr().out
    assert "object 1: J 0." in out and "object 2: J 0." in out
    assert len(names(tmp_path / "example" / "masks")) == 4
    # A second run, now as the option that names it.
    assert run("--example", "--model", tiny_checkpoint, "--output", tmp_path) == 0


@pytest.mark.slow
def test_without_a_model_the_compact_network_tracks_the_example_well(tmp_path, capsys, monkeypatch):
    small = synthetic.write_example
    monkeypatch.setattr(track, "write_example", lambda folder: small(folder, (192, 342), 16))
    assert run("--output", tmp_path) == 0
    out, err = capsys.readouterr()
    assert "weights/compact.pth" in err
    scores = [float(line.split()[-1]) for line in out.splitlines() if line.startswith("object")]
    assert len(scores) == 2 and min(scores) > 0.7
