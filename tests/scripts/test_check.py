"""evaluation.check finds what is planted."""

import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from dataset.evaluation_sets import EVALUATION_SETS, EvaluationSet, find_folders
from evaluation import check
from tests.conftest import ROOT
from tests.trees import lose_objects, write_sequence
from util.errors import run_script
from util.image_io import read_mask, write_grey, write_mask


def run(*arguments):
    return run_script(check.get_args_parser(), check.main, [str(argument) for argument in arguments])


@pytest.fixture
def results(davis, tmp_path):
    """Flawless results: the ground truth."""
    folder = tmp_path / "results"
    shutil.copytree(davis / "trainval" / "Annotations" / "480p", folder)
    (folder / ".evaluation").mkdir()
    (folder / "speed.json").write_text("{}")
    return folder


@pytest.fixture
def youtube_results(clip, tmp_path):
    folder = tmp_path / "youtube" / "Annotations"
    for name, ids in (("0043f083b5", (0, 1, 2)), ("00f88c4f0a", (0, 3, 9))):
        (folder / name).mkdir(parents=True)
        for index in (0, 5, 10, 15):
            mask = np.array(ids, np.uint8)[clip[1][index]]
            mask[(mask == 9) & (index < 10)] = 0
            write_mask(folder / name / f"{index:05d}.png", mask)
    return folder.parent


def packed(folder, path, prefix=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def test_flawless_results(davis, youtube, results, youtube_results, tmp_path, capsys):
    assert run("--dataset", "davis17", "--root", davis, "--results", results) == 0
    archive = packed(results, tmp_path / "davis.zip")
    assert run("--dataset", "davis17", "--root", davis, "--results", archive) == 0
    assert run("--dataset", "youtube19", "--root", youtube, "--results", youtube_results) == 0
    archive = packed(youtube_results, tmp_path / "packed.zip")
    assert run("--dataset", "youtube18", "--root", youtube, "--results", archive) == 0
    assert capsys.readouterr().out.count("fine") == 4


def test_flawless_results_of_davis_2016(davis, results):
    for file in results.rglob("*.png"):
        write_grey(file, (read_mask(file) > 0) * np.uint8(255))
    assert run("--dataset", "davis16", "--root", davis, "--results", results) == 0


def remove_video(folder):
    shutil.rmtree(folder / "camel")


def add_video(folder):
    shutil.copytree(folder / "camel", folder / "cow")


def remove_frame(folder):
    (folder / "camel" / "00003.png").unlink()


def add_frame(folder):
    shutil.copy(folder / "camel" / "00003.png", folder / "camel" / "00099.png")


def rename_frame(folder):
    (folder / "camel" / "00003.png").rename(folder / "camel" / "3.png")


def resize(folder):
    write_mask(folder / "camel" / "00003.png", np.ones((36, 50), np.uint8))


def colour(folder):
    Image.new("RGB", (100, 72)).save(folder / "camel" / "00003.png")


def grey(folder):
    write_grey(folder / "camel" / "00003.png", np.ones((72, 100), np.uint8))


def jpeg(folder):
    Image.new("L", (100, 72)).save(folder / "camel" / "00003.png", format="JPEG")


def cut(folder):
    file = folder / "camel" / "00003.png"
    file.write_bytes(file.read_bytes()[:80])


def strange_id(folder):
    write_mask(folder / "camel" / "00003.png", np.full((72, 100), 7, np.uint8))


def empty(folder):
    for file in (folder / "camel").iterdir():
        write_mask(file, np.zeros((72, 100), np.uint8))


def deeper(folder):
    shutil.move(folder / "camel", folder / "x" / "camel")


@pytest.mark.parametrize("fault, parts", [
    (remove_video, ["camel: missing"]),
    (add_video, ["cow: not a video of DAVIS 2017"]),
    (remove_frame, ["camel/00003.png: missing"]),
    (add_frame, ["camel/00099.png: not asked for"]),
    (rename_frame, ["camel/00003.png: missing", "camel/3.png: not asked for"]),
    (resize, ["camel/00003.png: has 50×36 pixels, the frame 100×72"]),
    (colour, ["camel/00003.png: is of mode RGB"]),
    (grey, ["camel/00003.png: is of mode L"]),
    (jpeg, ["camel/00003.png: is a JPEG"]),
    (cut, ["camel/00003.png: cannot be read"]),
    (strange_id, ["camel/00003.png: object 7, which no first mask has"]),
    (empty, ["camel: all masks are empty"]),
    (deeper, ["camel: missing", "x: 6 files where VIDEO/FRAME.png is expected"]),
])
def test_planted_faults_are_found_and_nothing_else(davis, results, capsys, fault, parts):
    fault(results)
    assert run("--dataset", "davis17", "--root", davis, "--results", results) == 1
    findings = capsys.readouterr().out.splitlines()[:-1]
    assert len(findings) == len(parts)
    assert all(any(part in finding for finding in findings) for part in parts), findings


def test_archive_with_an_outer_folder(davis, results, tmp_path, capsys):
    archive = packed(results, tmp_path / "a.zip", "prediction/")
    assert run("--dataset", "davis17", "--root", davis, "--results", archive) == 1
    assert "prediction: 18 files where VIDEO/FRAME.png is expected" in capsys.readouterr().out


def test_youtube_archive_without_its_folder(youtube, youtube_results, tmp_path, capsys):
    archive = packed(youtube_results / "Annotations", tmp_path / "a.zip")
    assert run("--dataset", "youtube", "--root", youtube, "--results", archive) == 1
    assert "put the videos into Annotations" in capsys.readouterr().out


def test_archive_with_foreign_and_dangerous_paths(davis, results, tmp_path, capsys):
    archive = packed(results, tmp_path / "a.zip")
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("__MACOSX/x/y", b"")
        opened.writestr("../../evil.png", b"")
    assert run("--dataset", "davis17", "--root", davis, "--results", archive) == 1
    out = capsys.readouterr().out
    assert "__MACOSX: hidden files" in out and "../../evil.png: an archive with such a path" in out


def test_object_before_its_first_mask(youtube, youtube_results, capsys):
    write_mask(youtube_results / "Annotations" / "00f88c4f0a" / "00005.png", np.full((72, 100), 9, np.uint8))
    assert run("--dataset", "youtube", "--root", youtube, "--results", youtube_results) == 1
    assert "00005.png: object 9, which has its first mask only later" in capsys.readouterr().out


def test_davis_2016_values(davis, results, capsys):
    assert run("--dataset", "davis16", "--root", davis, "--results", results) == 1
    assert "is of mode P; write a grey PNG of 0 and 255" in capsys.readouterr().out


def test_nothing_to_check(davis, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "empty").mkdir()
    for name in ("a.txt", "empty", "none"):
        assert run("--dataset", "davis17", "--root", davis, "--results", tmp_path / name) == 2
    assert run("--dataset", "davis17", "--split", "train", "--root", davis, "--results", tmp_path) == 2
    assert "there are val, testdev" in capsys.readouterr().err


def test_damaged_archives(davis, results, tmp_path, capsys):
    packed(results, tmp_path / "o.zip")
    content = (tmp_path / "o.zip").read_bytes()
    place = content.index(b"IDAT") + 10
    (tmp_path / "flipped.zip").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:])
    assert run("--dataset", "davis17", "--root", davis, "--results", tmp_path / "flipped.zip") == 1
    assert "cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("way", [["evaluation/check.py"], ["-m", "evaluation.check"]])
def test_it_runs_as_a_file_and_as_a_module(davis, results, way):
    done = subprocess.run([sys.executable, *way, "--dataset", "davis17", "--root", davis, "--results", results],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr


def test_tables_of_scores_are_no_findings(davis, youtube, results, youtube_results, capsys):
    for folder in (results, youtube_results, youtube_results / "Annotations"):
        for name in ("global_results-val.csv", "per-sequence_results-test-dev.csv", "results.csv", "speed.json",
                     "._a", "Thumbs.db"):
            (folder / name).write_text("")
    assert run("--dataset", "davis17", "--root", davis, "--results", results) == 0
    assert run("--dataset", "youtube", "--root", youtube, "--results", youtube_results) == 0
    capsys.readouterr()
    (results / "report.html").write_text("")
    assert run("--dataset", "davis17", "--root", davis, "--results", results) == 1
    assert "report.html: a file where VIDEO/FRAME.png is expected; leave it out" in capsys.readouterr().out


def test_every_evaluation_set_can_be_checked(davis, results, monkeypatch, capsys):
    """Also one that is added like the example of CONTRIBUTING.md."""
    home = davis / "trainval"
    monkeypatch.setitem(EVALUATION_SETS, "mine", EvaluationSet("My videos", lambda root, split: find_folders(root)))
    for name in EVALUATION_SETS:
        run("--dataset", name, "--root", home, "--results", results)
        assert "invalid choice" not in capsys.readouterr().err
    assert run("--dataset", "mine", "--root", home, "--results", results) == 0


@pytest.mark.parametrize("record, cure", [
    ({"files": ["00000.png"]}, "run the evaluation script again, it tracks this video anew"),
    ({}, "the evaluation of this video is not finished, run the script again and it goes on"),
    (None, "masks are asked for from the first given mask on")])
def test_what_an_evaluation_goes_on_with_is_to_be_kept(davis, results, capsys, record, cure):
    remove_frame(results)
    if record is not None:
        (results / ".evaluation" / "camel.json").write_text(json.dumps({"settings": {}, **record}))
    assert run("--dataset", "davis17", "--root", davis, "--results", results) == 1
    out = capsys.readouterr().out
    assert f"camel/00003.png: missing; {cure}" in out and "remove" not in out


def test_frames_before_the_first_object_are_not_asked_for(clip, tmp_path):
    truth = {index: mask * (index > 1) for index, mask in enumerate(clip[1][:5])}
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "video", clip[0][:5], truth)
    for index in (2, 3, 4):
        (tmp_path / "results" / "video").mkdir(parents=True, exist_ok=True)
        write_mask(tmp_path / "results" / "video" / f"{index:05d}.png", truth[index])
    assert run("--dataset", "generic", "--root", tmp_path, "--results", tmp_path / "results") == 0


def test_what_youtube_loses_is_said(youtube, youtube_results, tmp_path, capsys):
    root = tmp_path / "YouTube"
    shutil.copytree(youtube / "valid", root / "valid")
    lose_objects(root / "valid")
    assert run("--dataset", "youtube", "--root", root, "--results", youtube_results) == 0
    error = capsys.readouterr().err
    assert "00003.png: not used, since there is no frame of this name in" in error
    assert "objects that no mask of a frame shows, so they are not tracked: 5, 7" in error
