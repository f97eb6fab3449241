"""The evaluation scripts through their command lines, on small datasets in the benchmarks' trees."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

import eval_davis
import eval_davis_2016
import eval_generic
import eval_youtube
from dataset.evaluation_sets import EVALUATION_SETS
from inference_core import open_network
from tests.conftest import ROOT, SHARED
from tests.evaluation_runs import expected, read, run, same
from tests.trees import folder_bytes, write_sequence
from util.errors import InputError
from util.hyper_para import TrackingSettings
from util.image_io import read_mask, write_grey, write_mask
from util.options import settings_from


def test_davis_2017(davis, davis_results, tiny_network):
    assert sorted(path.name for path in davis_results.iterdir()) == [
        ".evaluation", "bear", "camel", "dog", "speed.json"]
    home = davis / "trainval"
    for name in ("bear", "camel", "dog"):
        first = np.array(Image.open(home / "Annotations" / "480p" / name / "00000.png"))
        files = sorted((home / "JPEGImages" / "480p" / name).iterdir())
        assert same(read(davis_results / name), expected(tiny_network, files, {"00000": first}))
    with Image.open(davis_results / "bear" / "00003.png") as mask:
        assert mask.mode == "P" and mask.getpalette()[3:6] == [128, 0, 0]
    with zipfile.ZipFile(f"{davis_results}.zip") as archive:
        assert archive.namelist() == [f"{name}/{number:05d}.png" for name in ("bear", "camel", "dog")
                                      for number in range(6)]
    speed = json.loads((davis_results / "speed.json").read_text())
    assert speed["frames"] == 18 and speed["precision"] == "float32" and speed["objects"] == "2"
    assert speed["network"]["p95_ms"] >= speed["network"]["p50_ms"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("root", ["trainval", "..", "."])
def test_davis_root_is_found(davis, tiny_checkpoint, tmp_path, root):
    if root == "..":
        (tmp_path / "DAVIS").mkdir()
        (tmp_path / "DAVIS" / "2017").symlink_to(davis)
        path = tmp_path / "DAVIS"
    else:
        path = davis / root
    assert run(eval_davis, "--davis_path", path, "--output", tmp_path / "out", "--model", tiny_checkpoint,
               "--repeat", "0", "--mode", "gt") == 0


def test_davis_2017_test_dev(davis, tiny_checkpoint, tmp_path):
    assert run(eval_davis, "--davis_path", davis, "--output", tmp_path, "--model", tiny_checkpoint,
               "--split", "testdev", "--mode", "two-frames-compress", "--mem_every", "3", "--top", "40", "--amp") == 0
    assert len(folder_bytes(tmp_path)) == 18


def test_davis_2016(davis, tiny_network, tiny_checkpoint, tmp_path):
    """One foreground object, written as grey 0 and 255; --split is accepted since a printed command has it."""
    assert run(eval_davis_2016, "--davis_path", davis, "--output", tmp_path, "--model", tiny_checkpoint,
               "--mode", "two-frames-compress", "--mem_every", "3", "--top", "40", "--split", "testdev") == 0
    home = davis / "trainval"
    first = np.array(Image.open(home / "Annotations" / "480p" / "dog" / "00000.png"))
    files = sorted((home / "JPEGImages" / "480p" / "dog").iterdir())
    binary = {"00000": (first > 0).astype(np.uint8)}
    masks = {name: ids * 255 for name, ids in expected(tiny_network, files, binary).items()}
    assert same(read(tmp_path / "dog"), masks)
    with Image.open(tmp_path / "dog" / "00000.png") as mask:
        assert mask.mode == "L"


def test_youtube_writes_what_meta_json_asks_for(youtube, tiny_network, tiny_checkpoint, tmp_path):
    output = tmp_path / "out"
    assert run(eval_youtube, "--yv_path", youtube, "--output", output, "--model", tiny_checkpoint, "--size", "0",
               "--mode", "two-frames-compress", "--mem_every", "4", "--top", "20", "--zip") == 0
    every = youtube / "all_frames" / "valid_all_frames"
    for name in ("0043f083b5", "00f88c4f0a"):
        masks = {path.stem: np.array(Image.open(path)) for path in (every / "Annotations" / name).iterdir()}
        wanted = expected(tiny_network, sorted((every / "JPEGImages" / name).iterdir()), masks,
                          {"00000", "00005", "00010", "00015"}, mem_every=4, top_k=20)
        assert same(read(output / "Annotations" / name), wanted)
    late = read(output / "Annotations" / "00f88c4f0a")
    assert 9 not in late["00005.png"] and {3, 9} <= set(np.unique(late["00010.png"]))
    with zipfile.ZipFile(f"{output}.zip") as archive:
        assert len(archive.namelist()) == 8
        assert all(name.startswith("Annotations/0") for name in archive.namelist())


def test_the_original_davis_2016(davis, tiny_checkpoint, tmp_path, capsys):
    """Its lists lie in ImageSets/480p and name files, its masks are 0 and 255; archives of a Mac add __MACOSX."""
    expected = tmp_path / "expected"
    assert run(eval_davis_2016, "--davis_path", davis, "--output", expected, "--model", tiny_checkpoint) == 0
    home = tmp_path / "DAVIS"
    for part in ("JPEGImages", "Annotations"):
        shutil.copytree(davis / "trainval" / part, home / part)
        (home / part / "__MACOSX").mkdir()
    for file in (home / "Annotations").rglob("*.png"):
        write_grey(file, (read_mask(file) > 0) * np.uint8(255))
    line = "/JPEGImages/480p/{0}/{1:05d}.jpg /Annotations/480p/{0}/{1:05d}.png"
    for resolution in ("480p", "1080p"):
        (home / "ImageSets" / resolution).mkdir(parents=True)
        (home / "ImageSets" / resolution / "val.txt").write_text(
            "\n".join(line.format(name, t) for name in ("bear", "camel", "dog") for t in range(6)))
    for number, path in enumerate((home, home.parent)):
        output = tmp_path / f"out{number}"
        assert run(eval_davis_2016, "--davis_path", path, "--output", output, "--model", tiny_checkpoint) == 0
        assert folder_bytes(output) == folder_bytes(expected)
    assert run(eval_davis, "--davis_path", home, "--output", tmp_path / "o", "--model", tiny_checkpoint) == 2
    assert "expected ImageSets/2017/val.txt" in capsys.readouterr().err


@pytest.mark.parametrize("script", [eval_davis, eval_davis_2016])
def test_davis_at_full_resolution_is_tracked(davis, davis_results, tiny_checkpoint, tmp_path, capsys, script):
    root = tmp_path / "DAVIS"
    shutil.copytree(davis, root)
    for folder in root.glob("*/*/480p"):
        folder.rename(folder.with_name("Full-Resolution"))
    assert run(script, "--davis_path", root, "--output", tmp_path / "out", "--model", tiny_checkpoint) == 0
    assert "there is no 480p here, so Full-Resolution is used" in capsys.readouterr().err
    if script is eval_davis:
        assert folder_bytes(tmp_path / "out") == folder_bytes(davis_results)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_lists_of_every_encoding_are_tracked(davis, tmp_path, encoding):
    root = tmp_path / "DAVIS"
    shutil.copytree(davis, root)
    listing = root / "trainval" / "ImageSets" / "2017" / "val.txt"
    listing.write_bytes("dog\r\nbear\r\n".encode(encoding))
    listing.with_name("._val.txt").write_bytes(b"\0\5\x16\7\xb0")
    assert [video.name for video in EVALUATION_SETS["davis17"].find(root, "val")] == ["dog", "bear"]
    listing.write_text("dog\nghost\n")
    with pytest.raises(InputError, match=r"ghost: no such folder, .*val\.txt names it"):
        EVALUATION_SETS["davis17"].find(root, "val")


def test_folders_of_two_frames_are_tracked_and_what_archives_add_is_no_video(clip, tiny_checkpoint, tmp_path):
    home = tmp_path / "data"
    write_sequence(home / "JPEGImages", home / "Annotations", "two", clip[0][:2], {0: clip[1][0]})
    for name in ("__MACOSX", "@eaDir"):
        (home / "JPEGImages" / name / "two").mkdir(parents=True)
        (home / "JPEGImages" / name / "two" / "._00000.jpg").write_bytes(b"\0\5\x16\7")
    assert run(eval_generic, "--long_video_path", home, "--output", tmp_path / "out", "--model", tiny_checkpoint) == 0
    assert sorted(folder_bytes(tmp_path / "out")) == ["two/00000.png", "two/00001.png"]


@pytest.mark.parametrize("script", ["eval_generic.py", "track.py"])
@pytest.mark.parametrize("arguments, environment, expected", [([], "3", 3), (["--threads", "2"], "3", 2)])
def test_threads_are_those_of_the_option_or_of_omp_num_threads(tiny_checkpoint, monkeypatch, script, arguments,
                                                                environment, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", environment)
    parser = runpy.run_path(str(ROOT / script), run_name="imported")["get_args_parser"]()
    required = {"eval_generic.py": ["--long-video-path", "x", "--output", "x"], "track.py": []}[script]
    args = parser.parse_args([*required, "--model", str(tiny_checkpoint), *arguments])
    before = cv2.getNumThreads()
    try:
        open_network(settings_from(TrackingSettings, args))
        assert torch.get_num_threads() == cv2.getNumThreads() == expected
    finally:
        cv2.setNumThreads(before)


@pytest.mark.slow
def test_youtube_all_frames_and_every_fifth(youtube, tiny_checkpoint, tmp_path):
    arguments = ["--model", tiny_checkpoint, "--size", "0"]
    run(eval_youtube, "--yv_path", youtube, "--output", tmp_path / "all", "--output_all", *arguments)
    assert len(folder_bytes(tmp_path / "all")) == 32
    assert run(eval_youtube, "--yv_path", youtube / "valid", "--output", tmp_path / "valid", *arguments) == 0
    shutil.copytree(youtube / "valid", tmp_path / "fifth" / "valid")
    run(eval_youtube, "--yv_path", tmp_path / "fifth", "--output", tmp_path / "five", *arguments)
    assert len(folder_bytes(tmp_path / "five")) == 8


@pytest.mark.slow
def test_frames_are_computed_at_480_lines_by_default(youtube, tiny_checkpoint, tmp_path):
    run(eval_youtube, "--yv_path", youtube, "--output", tmp_path, "--model", tiny_checkpoint, "--mode", "gt")
    assert json.loads((tmp_path / "speed.json").read_text())["computed_at"] == 480
    assert read(tmp_path / "Annotations" / "0043f083b5")["00005.png"].shape == (72, 100)


@pytest.mark.parametrize("layout", ["davis", "youtube", "single"])
def test_generic_folders_use_each_object_s_first_mask_only(clip, tiny_network, tiny_checkpoint, tmp_path, layout):
    """A full ground truth may lie there; reading more of it would be cheating."""
    frames, truth = clip[0][:6], clip[1][:6]
    between = "480p" if layout == "davis" else "."
    name = "." if layout == "single" else "video"
    images, annotations = (tmp_path / "data" / part / between for part in ("JPEGImages", "Annotations"))
    if layout == "single":
        write_sequence(tmp_path / "data", tmp_path / "x", "JPEGImages", frames, {})
        write_sequence(tmp_path / "y", tmp_path / "data", "Annotations", [], {})
        for index, mask in enumerate(truth):
            write_mask(annotations / f"{index:05d}.png", mask)
    else:
        write_sequence(images, annotations, name, frames, dict(enumerate(truth)))
    assert run(eval_generic, "--long_video_path", tmp_path / "data", "--output", tmp_path / "out",
               "--model", tiny_checkpoint, "--size", "0", "--save-scores") == 0
    found = tmp_path / "out" / ("data" if layout == "single" else "video")
    assert same(read(found), expected(tiny_network, sorted((images / name).glob("*.jpg")), {"00000": truth[0]}))
    assert len(list((tmp_path / "out_scores").rglob("*.npz"))) == 6


def test_late_objects_of_a_generic_folder(clip, tiny_network, tiny_checkpoint, tmp_path):
    frames, truth = clip[0][:6], clip[1][:6].copy()
    truth[:3][truth[:3] == 2] = 0
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "video", frames, dict(enumerate(truth)))
    run(eval_generic, "--long_video_path", tmp_path, "--output", tmp_path / "out", "--model", tiny_checkpoint,
        "--size", "0")
    masks = {"00000": truth[0], "00003": truth[3] * (truth[3] == 2)}
    files = sorted((tmp_path / "JPEGImages" / "video").iterdir())
    assert same(read(tmp_path / "out" / "video"), expected(tiny_network, files, masks))


def test_generic_frames_are_in_natural_order(clip, tiny_network, tiny_checkpoint, tmp_path):
    """Hidden folders are no sequences."""
    frames, truth = clip[0][:11], clip[1]
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "video", frames, {0: truth[0]})
    (tmp_path / "JPEGImages" / ".ipynb_checkpoints").mkdir()
    for file in tmp_path.rglob("*/video/*"):
        file.rename(file.with_name(f"{int(file.stem)}{file.suffix}"))
    assert run(eval_generic, "--long_video_path", tmp_path, "--output", tmp_path / "out", "--model", tiny_checkpoint,
               "--size", "0") == 0
    files = [tmp_path / "JPEGImages" / "video" / f"{index}.jpg" for index in range(11)]
    assert same(read(tmp_path / "out" / "video"), expected(tiny_network, files, {"0": truth[0]}))


def test_masks_of_all_kinds_are_tracked_and_scored_alike(clip, tiny_checkpoint, tmp_path, capsys):
    """And what is not as it was meant is said at the end, once for all videos."""
    frames, truth = clip[0][:4], clip[1][:4]
    for name in "abcd":
        write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", name, frames, {0: truth[0]})
    soft = Image.fromarray((truth[0] == 1) * np.uint8(255)).filter(ImageFilter.GaussianBlur(2))
    for name in "ab":
        soft.save(tmp_path / "Annotations" / name / "00000.png")
    adaptive = Image.fromarray(np.array([1, 0, 2], np.uint8)[truth[0]])
    adaptive.putpalette([128, 0, 0, 0, 0, 0, 0, 128, 0])
    adaptive.save(tmp_path / "Annotations" / "c" / "00000.png")
    small = truth[0].copy()
    small[1, 1] = 7
    write_mask(tmp_path / "Annotations" / "d" / "00000.png", small)
    assert run(eval_generic, "--long_video_path", tmp_path, "--output", tmp_path / "out", "--model", tiny_checkpoint,
               "--size", 36) == 0
    error = capsys.readouterr().err
    assert "00000.png and 1 more: grey levels, taken as one object, cut at half" in error
    assert "the palette's colour 0 is not the background" in error
    assert "d/00000.png: object 7 is so small that nothing is left of it at --size 36" in error
    with Image.open(tmp_path / "out" / "c" / "00000.png") as result:
        assert result.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        assert set(np.unique(np.array(result))) == {0, 1, 2}


def test_wrong_repeat_is_not_passed_over(davis, tiny_checkpoint, tmp_path, capsys):
    """The published script loads loosely, and a wrong --repeat goes unnoticed."""
    assert run(eval_davis, "--davis_path", davis, "--output", tmp_path, "--model", tiny_checkpoint,
               "--repeat", "2") == 2
    assert "repeat 0, --repeat says 2" in capsys.readouterr().err


@pytest.fixture
def script():
    return ROOT / "eval_davis.py"


@pytest.mark.slow
def test_killed_runs_end_as_an_unbroken_one(davis, davis_results, tiny_checkpoint, tmp_path, script):
    output = tmp_path / "davis"
    command = [sys.executable, script, "--davis_path", davis, "--output", output, "--model", tiny_checkpoint, "--zip"]
    command = [str(part) for part in command]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 60
    while len(list(output.glob("*/*.png"))) < 8 and killed.poll() is None and time.time() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "davis.zip").exists()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert folder_bytes(output) == folder_bytes(davis_results)
    assert (tmp_path / "davis.zip").read_bytes() == davis_results.with_name("davis.zip").read_bytes()


@pytest.mark.slow
def test_two_processes_give_the_same(davis, davis_results, tiny_checkpoint, tmp_path, script):
    output = tmp_path / "davis"
    threads = str(torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(script),
         "--davis_path", str(davis), "--output", str(output), "--model", str(tiny_checkpoint), "--zip",
         "--threads", threads],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    assert done.returncode == 0, done.stderr
    assert folder_bytes(output) == folder_bytes(davis_results)
    assert (tmp_path / "davis.zip").read_bytes() == davis_results.with_name("davis.zip").read_bytes()
    assert json.loads((output / "speed.json").read_text())["processes"] == 2


CASES = SHARED / "parity" / "inference"


@pytest.mark.slow
@pytest.mark.skipif(not CASES.exists(), reason="reference results are not here")
@pytest.mark.parametrize("case, run_name, script", [
    ("b_padding", "two-frames-compress", eval_davis), ("c_youtube", "req", eval_youtube)])
def test_published_masks_through_the_command_line(base_network, tmp_path, case, run_name, script):
    settings = json.loads((CASES / f"{case}.json").read_text())["runs"][run_name]
    with np.load(CASES / f"{case}.npz") as arrays:
        frames, truth = arrays["frames"], arrays["gt_masks"]
        prob, golden = arrays[f"prob_f16:{run_name}"], arrays[f"index:{run_name}"]
    labels = {int(index): ids for index, ids in settings.get("labels", {"0": [1]}).items()}
    masks = {index: np.where(np.isin(truth[index], ids), truth[index], 0) for index, ids in labels.items()}
    between = "480p" if script is eval_davis else "."
    home = tmp_path / "valid"
    write_sequence(home / "JPEGImages" / between, home / "Annotations" / between, "video", frames, masks, suffix="png")
    if script is eval_davis:
        (home / "ImageSets" / "2017").mkdir(parents=True)
        (home / "ImageSets" / "2017" / "val.txt").write_text("video\n")
    wanted = settings.get("req_frames", range(len(frames)))
    asked = {"objects": {"1": {"frames": [f"{index:05d}" for index in wanted]}}}
    (home / "meta.json").write_text(json.dumps({"videos": {"video": asked}}))
    torch.save(base_network.state_dict(), tmp_path / "w.pth")
    root = "--davis_path" if script is eval_davis else "--yv_path"
    assert run(script, root, home, "--output", tmp_path / "out", "--model", tmp_path / "w.pth", "--size", "0",
               "--mode", settings["mode"], "--mem_every", settings["mem_every"], "--top", settings["top"]) == 0
    found = read(next((tmp_path / "out").rglob("video")))
    assert len(found) == len(wanted)
    for index in wanted:
        second, first = np.sort(prob[:, index].astype(np.float32), axis=0)[-2:]
        assert not ((found[f"{index:05d}.png"] != golden[index]) & (first - second > 2e-3)).any()
