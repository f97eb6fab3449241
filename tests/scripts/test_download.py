"""The download scripts through their command lines, with archives from a server on this machine."""

import dataclasses
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import namedtuple

import gdown
import numpy as np
import pytest
from PIL import Image

import download_bl30k
import download_datasets
import download_models
from dataset.evaluation_sets import EVALUATION_SETS
from tests.conftest import ROOT
from tests.server import serving
from tests.trees import davis_tree, youtube_tree
from util.download import parts as download
from util.errors import run_script
from util.image_io import write_mask

SCRIPTS = (download_datasets, download_bl30k, download_models)


def run(script, *arguments):
    return run_script(script.get_args_parser(), script.main, [str(argument) for argument in arguments])


def zipped(folder, around=""):
    """The bytes of a zip of all files in a folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, around / path.relative_to(folder) if around else path.relative_to(folder))
    return buffer.getvalue()


def tarred(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def server(monkeypatch):
    """A server to which all links of the scripts point; a part's path is its name."""
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as running:
        for script in (download_datasets, download_bl30k):
            monkeypatch.setattr(script, "PARTS", tuple(
                dataclasses.replace(part, url=running.url(part.name), size=0) for part in script.PARTS))
        yield running


@pytest.fixture
def youtube_train(tmp_path):
    """A folder like that of YouTube-VOS train: one large video, one upright, one small; ids 3 and 200, odd palette."""
    folder = tmp_path / "source" / "train"
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    for name, (width, height) in {"large": (1280, 720), "upright": (500, 960), "small": (320, 180)}.items():
        ids = np.zeros((height, width), np.uint8)
        ids[height // 4:height // 2, width // 4:] = 3
        ids[height // 2:, :width // 2] = 200
        image = np.repeat(ids[..., None] // 2 + 60, 3, axis=2).astype(np.uint8)
        for kind in ("JPEGImages", "Annotations"):
            (folder / kind / name).mkdir(parents=True)
        for frame in ("00000", "00005"):
            Image.fromarray(image).save(folder / "JPEGImages" / name / f"{frame}.jpg", quality=95)
            write_mask(folder / "Annotations" / name / f"{frame}.png", ids, palette)
    (folder / "meta.json").write_text("{}")
    return folder


@pytest.fixture
def everything(server, clip, tmp_path, youtube_train):
    """All of download_datasets.py is served; returns the server."""
    davis = davis_tree(tmp_path / "source" / "davis", clip)
    youtube = youtube_tree(tmp_path / "source" / "youtube", clip)
    static = tmp_path / "source" / "static"
    for name in ("BIG_small", "HRSOD_small", "DUTS-TR", "DUTS-TE", "ecssd", "fss/cat"):
        (static / name).mkdir(parents=True)
        (static / name / "1.jpg").write_bytes(name.encode())
    scribbles = tmp_path / "source" / "scribbles" / "Scribbles" / "bear"
    scribbles.mkdir(parents=True)
    (scribbles / "001.json").write_text("{}")
    server.files.update({
        "static": zipped(static),
        "davis-2016": zipped(davis / "trainval", "DAVIS"),
        "davis-2017": zipped(davis / "trainval", "DAVIS"),
        "davis-2017-test": zipped(davis / "test-dev", "DAVIS"),
        "davis-2017-scribbles": zipped(scribbles.parents[1], "DAVIS"),
        "youtube-train": zipped(youtube_train, "train"),
        "youtube-valid": zipped(youtube / "valid", "valid"),
        "youtube-valid-all": zipped(youtube / "all_frames"),
        "youtube-2018-valid": zipped(youtube / "valid", "valid"),
        "youtube-2018-valid-all": zipped(youtube / "all_frames"),
    })
    return server


def test_the_datasets_lie_where_the_scripts_look(everything, tmp_path, capfd):
    root = tmp_path / "data"
    assert run(download_datasets, "--root", root, "--yes") == 0
    for benchmark, folder, split, count in (
            ("davis17", "DAVIS/2017", "val", 3), ("davis17", "DAVIS/2017", "testdev", 3),
            ("davis16", "DAVIS/2017", "val", 3), ("youtube", "YouTube", "valid", 2),
            ("youtube", "YouTube2018", "valid", 2)):
        sequences = EVALUATION_SETS[benchmark].find(root / folder, split)
        assert len(sequences) == count
        if benchmark == "youtube":
            assert len(sequences[0].frames) == 16
    assert (root / "DAVIS" / "2016" / "Annotations" / "480p" / "bear").is_dir()
    assert (root / "DAVIS" / "2017" / "trainval" / "Scribbles" / "bear" / "001.json").is_file()
    assert {path.name for path in (root / "static").iterdir()} == {
        "BIG_small", "HRSOD_small", "DUTS-TR", "DUTS-TE", "ecssd", "fss"}
    assert {path.name for path in root.iterdir()} == {".downloads", "static", "DAVIS", "YouTube", "YouTube2018"}
    # The archives are gone, the marks stay.
    assert {path.suffix for path in (root / ".downloads").iterdir()} == {".unpacked", ".resized"}
    out = capfd.readouterr().out
    assert out.index("terms") < out.index("static: 6 files in") and "DUTS" in out and "YouTube-VOS" in out
    assert out.splitlines()[-1] == (f"10 of 10 parts are complete: {root}/static, {root}/DAVIS, {root}/YouTube, "
                                    f"{root}/YouTube2018")


def test_videos_of_youtube_train_are_reduced(everything, youtube_train, tmp_path):
    root = tmp_path / "data"
    assert run(download_datasets, "--root", root, "--yes", "--only", "youtube-train") == 0
    assert files(root / "YouTube" / "train") == files(youtube_train)
    reduced = root / "YouTube" / "train_480p"
    assert files(reduced) == [name for name in files(youtube_train) if name != "meta.json"]
    for name, size in {"large": (853, 480), "upright": (480, 922), "small": (320, 180)}.items():
        with Image.open(reduced / "JPEGImages" / name / "00005.jpg") as image:
            assert image.format == "JPEG" and image.size == size
            values = np.asarray(image)
        with (Image.open(reduced / "Annotations" / name / "00005.png") as mask,
              Image.open(youtube_train / "Annotations" / name / "00005.png") as original):
            assert mask.mode == "P" and mask.size == size and mask.getpalette() == original.getpalette()
            ids, before = np.asarray(mask), np.asarray(original)
        assert np.unique(ids).tolist() == [0, 3, 200]
        for known in (0, 3, 200):
            assert abs((ids == known).mean() - (before == known).mean()) < 0.005
            # Images and masks stay aligned: inside of an object lies its grey.
            inside = np.abs(values[ids == known].astype(int) - (known // 2 + 60)).mean()
            assert inside < 2
    assert (reduced / "JPEGImages/small/00000.jpg").read_bytes() == (
        youtube_train / "JPEGImages/small/00000.jpg").read_bytes()


def test_resizing_goes_on_where_it_was(everything, youtube_train, tmp_path, capsys):
    (youtube_train / "JPEGImages" / "large" / "00000.jpg").write_bytes(b"broken")
    everything.files["youtube-train"] = zipped(youtube_train, "train")
    root = tmp_path / "data"
    arguments = (download_datasets, "--root", root, "--yes", "--only", "youtube-train")
    assert run(*arguments) == 1
    broken = root / "YouTube" / "train" / "JPEGImages" / "large" / "00000.jpg"
    assert f"{broken}: not a readable image; 1 of 12 files could not be resized" in capsys.readouterr().err
    reduced = root / "YouTube" / "train_480p"
    assert len(files(reduced)) == 11
    done = reduced / "JPEGImages" / "large" / "00005.jpg"
    done.write_bytes(b"left alone")
    shutil.copy(broken.with_name("00005.jpg"), broken)
    assert run(*arguments) == 0
    assert len(files(reduced)) == 12 and done.read_bytes() == b"left alone"
    assert len(everything.requests) == 1
    # Who removes what was reduced does not get it again.
    shutil.rmtree(root / "YouTube" / "train")
    assert run(*arguments) == 0
    assert len(everything.requests) == 1 and not (root / "YouTube" / "train").exists()


def test_finished_parts_are_not_fetched_again(everything, tmp_path, capsys):
    root = tmp_path / "data"
    arguments = (download_datasets, "--root", root, "--yes", "--only", "davis-2017-test", "static")
    assert run(*arguments) == 0
    assert sorted(everything.requests) == [("davis-2017-test", 0), ("static", 0)]
    capsys.readouterr()
    assert run(*arguments) == 0
    assert len(everything.requests) == 2
    assert f"static: already in {root / 'static'}" in capsys.readouterr().out
    # What was removed is.
    shutil.rmtree(root / "DAVIS" / "2017" / "test-dev")
    assert run(*arguments) == 0
    assert everything.requests[2:] == [("davis-2017-test", 0)]


def test_one_failing_link_does_not_lose_the_others(everything, tmp_path, capsys):
    root = tmp_path / "data"
    del everything.files["davis-2017"]
    everything.files["youtube-valid"] = everything.files["youtube-valid"][:-100]
    arguments = (download_datasets, "--root", root, "--yes", "--only", "static", "davis-2017", "davis-2017-test",
                 "youtube-valid", "youtube-valid-all")
    assert run(*arguments) == 1
    captured = capsys.readouterr()
    assert "3 of 5 parts are complete" in captured.out
    lines = captured.err.splitlines()
    assert any(line.startswith("davis-2017: ") and "404" in line for line in lines)
    assert any(line.startswith("youtube-valid: ") and "neither a zip" in line for line in lines)
    assert lines[-1] == "failed: davis-2017, youtube-valid; run the same command again to go on"
    assert (root / "DAVIS" / "2017" / "test-dev" / "JPEGImages").is_dir()


def test_a_file_saved_by_hand_is_taken(everything, tmp_path):
    by_hand = tmp_path / "data" / ".downloads" / "davis-2017.zip"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(everything.files.pop("davis-2017"))
    assert run(download_datasets, "--root", tmp_path / "data", "--yes", "--only", "davis-2017") == 0
    assert everything.requests == [] and not by_hand.exists()
    assert (tmp_path / "data" / "DAVIS" / "2017" / "trainval" / "ImageSets" / "2017" / "val.txt").is_file()


def test_a_cut_download_is_resumed_by_the_next_run(everything, tmp_path):
    arguments = (download_datasets, "--root", tmp_path, "--yes", "--only", "static")
    everything.cuts["static"] = [100, 0]
    assert run(*arguments) == 1
    assert files(tmp_path / ".downloads") == ["static.zip.part"]
    assert run(*arguments) == 0
    assert everything.requests == [("static", 0), ("static", 100), ("static", 100)]


def test_a_hostile_archive_leaves_nothing(everything, tmp_path, capsys):
    everything.files["static"] = tarred({"fss/x": b"", "../../evil": b"evil"})
    assert run(download_datasets, "--root", tmp_path / "data", "--yes", "--only", "static") == 1
    assert "'../../evil' would be written outside" in capsys.readouterr().err
    assert files(tmp_path / "data") == [".downloads/static.zip"] and not (tmp_path / "evil").exists()


@pytest.mark.parametrize("script", [download_datasets, download_bl30k])
def test_unknown_part(script, tmp_path, capsys):
    assert run(script, "--root", tmp_path, "--yes", "--only", "davis") == 2
    assert script.PARTS[-1].name in capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS)
def test_nothing_is_downloaded_without_a_yes(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    assert run(script, "--root", tmp_path / "data") == 2
    captured = capsys.readouterr()
    assert "ShapeNet" in captured.out or "youtube-vos.org" in captured.out
    assert "--yes" in captured.err and not (tmp_path / "data").exists()


@pytest.mark.parametrize("answer, code", [("yes\n", 0), (" Y\n", 0), ("no\n", 2), ("\n", 2), ("", 2)])
def test_the_terms_are_agreed_to_at_a_terminal(everything, tmp_path, monkeypatch, capsys, answer, code):
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    assert run(download_datasets, "--root", tmp_path / "data", "--only", "static") == code
    assert (tmp_path / "data" / "static").exists() == (code == 0)
    assert code == 0 or "you did not agree" in capsys.readouterr().err


def test_bl30k_is_merged_from_its_archives(server, tmp_path):
    for letter in "abcdef":
        server.files[f"bl30k-{letter}"] = tarred({
            f"BL30K/{kind}/{letter}/{number:05d}.{suffix}": f"{kind}{letter}{number}".encode()
            for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")) for number in range(3)})
    assert run(download_bl30k, "--root", tmp_path, "--yes") == 0
    assert len(files(tmp_path / "BL30K")) == 36
    assert (tmp_path / "BL30K" / "Annotations" / "e" / "00002.png").read_bytes() == b"Annotationse2"
    assert {path.name for path in (tmp_path / "BL30K").iterdir()} == {"JPEGImages", "Annotations"}


def test_bl30k_is_not_begun_on_a_small_disk(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(0, 0, 8e11))
    assert run(download_bl30k, "--root", tmp_path, "--yes") == 2
    assert "about 819.0 GB are needed, 800.0 GB are free" in capsys.readouterr().err


def test_a_full_disk_fails_a_part_and_the_next_run_goes_on(everything, tmp_path, monkeypatch, capsys):
    real = shutil.copyfileobj

    def full(source, target, length=0):
        real(source, target, length)
        raise OSError(28, "No space left on device", "somewhere")

    arguments = (download_datasets, "--root", tmp_path / "data", "--yes", "--only", "static")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        assert run(*arguments) == 1
    assert "static: somewhere: No space left on device" in capsys.readouterr().err
    assert run(*arguments) == 0
    assert everything.requests == [("static", 0)]


def test_models(server, tmp_path, monkeypatch, capsys):
    File = namedtuple("File", "id path local_path")
    listed = [File("1", "model_s012_final.pth", ""), File("2", os.path.join("more", "b.pth"), "")]
    monkeypatch.setattr(gdown, "download_folder", lambda **_: listed)
    monkeypatch.setattr(download, "drive_url", server.url)
    server.files.update({"1": b"weights" * 1000, "2": b"others"})
    assert run(download_models, "--root", tmp_path, "--yes", "--only", "model_s012_final.pth") == 0
    assert files(tmp_path) == ["pretrain/model_s012_final.pth"]
    assert (tmp_path / "pretrain" / "model_s012_final.pth").read_bytes() == b"weights" * 1000
    assert f"complete: {tmp_path / 'pretrain'}" in capsys.readouterr().out
    assert run(download_models, "--root", tmp_path, "--yes") == 0
    assert files(tmp_path) == ["pretrain/model_s012_final.pth", "pretrain/more/b.pth"]
    assert server.requests == [("1", 0), ("2", 0)]
    assert run(download_models, "--root", tmp_path, "--yes", "--only", "c.pth") == 2
    assert "there are model_s012_final.pth, more/b.pth" in capsys.readouterr().err


def test_models_without_a_network(tmp_path, monkeypatch, capsys):
    def fail(**_):
        raise ConnectionError("no network")

    monkeypatch.setattr(gdown, "download_folder", fail)
    assert run(download_models, "--root", tmp_path, "--yes") == 1
    assert "does not list this folder (no network)" in capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_no_torch_and_no_network(script):
    name = script.__name__
    code = f"import sys, {name}; sys.modules.get('torch') and sys.exit('torch'); {name}.get_args_parser().print_help()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--only NAME" in done.stdout and f"python {name}.py" in done.stdout
