"""track.py through its command line."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import track
from dataset import synthetic
from inference_core import InferenceCore, track_output
from tests.conftest import ROOT
from tests.tracking_runs import one_line_error, run
from util.image_io import davis_palette, write_mask
from util.video import open_frames
from util.video_writer import Look, VideoWriter


@pytest.fixture(scope="module")
def inputs(clip, tmp_path_factory):
    """frames/ of JPEGs with names of their own, clip.mp4 and first.png, of 12 frames."""
    folder = tmp_path_factory.mktemp("inputs")
    frames, truth = clip[0][:12], clip[1][:12]
    (folder / "frames").mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / "frames" / f"img_{index + 5}.jpg", quality=95)
    video = VideoWriter(folder / "clip.mp4", (100, 72), 24)
    for frame in frames:
        video.write(frame)
    video.close()
    write_mask(folder / "first.png", truth[0])
    write_mask(folder / "later.png", truth[6] * (truth[6] == 2))
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def decoded(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


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
    core = InferenceCore(tiny_network, amp="auto", top_k=40, mem_every=3)
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
    core = InferenceCore(tiny_network, amp="auto", top_k=20, mem_every=2)
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


def grey(path, mask):
    Image.fromarray(mask).save(path)
    return path


def frames_named(folder, frames, stems):
    folder.mkdir()
    for frame, stem in zip(frames[:len(stems)], stems, strict=True):
        Image.fromarray(frame).save(folder / f"{stem}.png")
    return folder


def written(folder):
    return {path.stem: np.array(Image.open(path)) for path in folder.iterdir()}


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


@pytest.fixture(scope="module")
def stream(inputs, tmp_path_factory):
    """The clip as a live stream would send it: (Matroska file, arguments of a process that tracks standard input).

    The checkpoint is of the published network, since that process knows no other.
    """
    from model import PRESETS, RDE
    folder = tmp_path_factory.mktemp("stream")
    torch.manual_seed(0)
    torch.save(RDE(PRESETS["base"]).state_dict(), folder / "base.pth")
    with av.open(str(folder / "clip.mkv"), "w", format="matroska") as container:
        output = container.add_stream("libx264", rate=24, options={"tune": "zerolatency"})
        output.width, output.height, output.pix_fmt = 100, 72, "yuv420p"
        for frame in decoded(inputs / "clip.mp4"):
            container.mux(output.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(output.encode())
    return folder / "clip.mkv", [sys.executable, str(ROOT / "track.py"), "--video", "-", "--mask",
                                 str(inputs / "first.png"), "--model", str(folder / "base.pth"), "--output"]


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


def test_binary_grey_mask_is_one_object(inputs, tiny_checkpoint, tmp_path):
    mask = np.zeros((72, 100), np.uint8)
    mask[10:40, 20:60] = 255
    Image.fromarray(mask).save(tmp_path / "binary.png")
    assert run("--video", inputs / "frames", "--mask", tmp_path / "binary.png", "--model", tiny_checkpoint,
               "--output", tmp_path / "out") == 0
    first = np.array(Image.open(tmp_path / "out" / "masks" / "img_5.png"))
    assert (first == mask // 255).all()


@pytest.mark.slow
def test_larger_frames_are_computed_at_the_size_asked_for(inputs, tiny_checkpoint, tmp_path):
    for size, expected in ((48, 48), (480, None), (0, None)):
        run("--video", inputs / "frames", "--mask", inputs / "first.png", "--model", tiny_checkpoint,
            "--output", tmp_path, "--size", size)
        assert json.loads((tmp_path / "summary.json").read_text())["settings"]["size"] == expected
        assert Image.open(tmp_path / "masks" / "img_9.png").size == (100, 72)


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


def test_overlay_of_others_and_the_input_are_never_removed(inputs, tiny_checkpoint, tmp_path, capsys):
    film = tmp_path / "overlay.mp4"
    shutil.copy(inputs / "clip.mp4", film)
    arguments = ["--mask", inputs / "first.png", "--model", tiny_checkpoint, "--output", tmp_path]
    for video in (film, inputs / "frames"):
        assert run("--video", video, *arguments, "--no-overlay") == 2
        assert one_line_error(capsys, "overlay.mp4", "choose another --output")
    assert film.read_bytes() == (inputs / "clip.mp4").read_bytes() and names(tmp_path) == ["overlay.mp4"]


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


@pytest.mark.parametrize("mask, parts", [
    ("img_99:{first}", ["img_99", "img_5", "img_16"]),
    ("12:{first}", ["no frame is called 12"]),
    ("{first} 0:{first}", ["already has a mask"]),
])
def test_masks_of_no_frame(inputs, tiny_checkpoint, tmp_path, capsys, mask, parts):
    assert run("--video", inputs / "frames", "--mask", *mask.format(first=inputs / "first.png").split(),
               "--model", tiny_checkpoint, "--output", tmp_path) == 2
    assert one_line_error(capsys, *parts)


def test_options_that_do_not_go_together(inputs, tiny_checkpoint, tmp_path, capsys):
    frames, first = inputs / "frames", inputs / "first.png"
    for arguments, part in ((["--mask", first], "--video"), (["--start", "3"], "--video"),
                            (["--example", "--video", frames, "--mask", first], "--example"),
                            ([frames, first, "--video", frames], "give the video once"),
                            (["--video", frames, "--mask", first, "--model", tiny_checkpoint,
                              "--device", "cuda:77"], "cuda:77")):
        assert run(*arguments, "--output", tmp_path) == 2
        assert one_line_error(capsys, part)


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
    assert f"worth a look: frames {worst['frame']} (object {worst['object_id']}, " in told


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
                # Without files that are being written.
                unfinished = shutil.ignore_patterns(".*.????????.part")
                shutil.copytree(folder, folder.with_name("killed"), dirs_exist_ok=True, ignore=unfinished)
                raise KeyboardInterrupt
            return function(self, *arguments, **given)

        with monkeypatch.context() as patch:
            patch.setattr(owner, method, interrupted)
            return run("--video", inputs / "clip.mp4", "--mask", inputs / "first.png", f"6:{inputs / 'later.png'}",
                       "--model", tiny_checkpoint, "--output", folder, "--save-scores", *options), len(calls)

    return track_part


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
    assert one_line_error(capsys, tmp_path / "part", "differs in settings", "leave --resume out")
    assert breakable(tmp_path / "part", "--resume", "--end", 10)[0] == 2
    assert one_line_error(capsys, "differs in video, end")
    # Without --resume it begins anew, and nothing of the state is left.
    assert breakable(tmp_path / "part", "--top", 20) == (0, 12)
    assert not (tmp_path / "part" / ".state.npz").exists()
    assert breakable(tmp_path / "part", "--resume") == (0, 12)
    assert "nothing to go on from" in capsys.readouterr().err


def test_a_stream_does_not_go_on(inputs, capsys):
    assert run("--video", "-", "--mask", inputs / "first.png", "--resume") == 2
    assert one_line_error(capsys, "--resume", "other frames each time")


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


def test_without_scikit_image_the_example_says_what_to_install(tmp_path, capsys, monkeypatch, tiny_checkpoint):
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert run("--example", "--model", tiny_checkpoint, "--output", tmp_path) == 2
    assert one_line_error(capsys, "pip install scikit-image")


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
