"""The evaluation scripts through their command lines: data with something wrong in it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import eval_davis
import eval_davis_2016
import eval_generic
import eval_youtube
from evaluation.results import Results
from inference_core import InferenceCore
from tests.evaluation_runs import generic_arguments, read, run
from tests.trees import lose_objects, write_sequence
from util.image_io import write_mask


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_what_youtube_loses_is_said_before_tracking(youtube, tiny_checkpoint, tmp_path, capsys, monkeypatch):
    """A mask whose frame is missing, an object without a mask, and that there are not all frames."""
    shutil.copytree(youtube, tmp_path / "all")
    shutil.copytree(youtube / "valid", tmp_path / "five" / "valid")
    arguments = ["--model", tiny_checkpoint, "--size", "0"]
    for name in ("all", "five"):
        assert run(eval_youtube, "--yv_path", tmp_path / name, "--output", tmp_path / f"{name}_out", *arguments) == 0
        error = capsys.readouterr().err
        assert "not used" not in error and "not tracked" not in error
        assert ("every fifth frame is used, since all_frames/valid_all_frames was not found" in error) == (
            name == "five")
    lose_objects(tmp_path / "five" / "valid")
    monkeypatch.setattr(InferenceCore, "step", interrupt)
    assert run(eval_youtube, "--yv_path", tmp_path / "five", "--output", tmp_path / "lost", *arguments) == 130
    error = capsys.readouterr().err
    where = tmp_path / "five" / "valid"
    assert (f"note: {where}/Annotations/0043f083b5/00003.png: not used, since there is no frame of this name in "
            f"{where}/JPEGImages/0043f083b5\n") in error
    assert (f"note: {where}/Annotations/0043f083b5: meta.json names objects that no mask of a frame shows, so they are "
            "not tracked: 5, 7\n") in error


def test_frames_that_davis_lacks_are_told(davis, tiny_checkpoint, tmp_path, capsys):
    shutil.copytree(davis / "trainval", tmp_path / "trainval")
    arguments = ["--davis_path", tmp_path, "--output", tmp_path / "out", "--model", tiny_checkpoint]
    assert run(eval_davis, *arguments) == 0 and "no frame of this mask" not in capsys.readouterr().err
    for lost in ("bear/00000.jpg", "dog/00003.jpg"):
        (tmp_path / "trainval" / "JPEGImages" / "480p" / lost).unlink()
    assert run(eval_davis, *arguments, "--overwrite") == 0
    where = tmp_path / "trainval"
    assert (f"note: {where}/Annotations/480p/bear/00000.png and 1 more: there is no frame of this mask in "
            f"{where}/JPEGImages/480p, so the video is tracked without it\n") in capsys.readouterr().err


def test_bad_sequence_does_not_stop_the_rest(davis, tiny_checkpoint, tmp_path, capsys):
    shutil.copytree(davis / "trainval", tmp_path / "trainval")
    frame = tmp_path / "trainval" / "JPEGImages" / "480p" / "bear" / "00003.jpg"
    frame.write_bytes(frame.read_bytes()[:200])
    mask = tmp_path / "trainval" / "Annotations" / "480p" / "dog" / "00000.png"
    Image.fromarray(np.ones((9, 9), np.uint8)).save(mask)
    assert run(eval_davis, "--davis_path", tmp_path, "--output", tmp_path / "out", "--model", tiny_checkpoint,
               "--zip") == 1
    captured = capsys.readouterr()
    assert "bear: " in captured.err and "00003.jpg" in captured.err
    assert "dog: " in captured.err and "9×9 pixels, the frames 100×72" in captured.err
    assert "wrote 1 of 3 videos" in captured.out
    assert len(read(tmp_path / "out" / "camel")) == 6
    assert not (tmp_path / "out.zip").exists()


def test_sequence_that_vanished_meanwhile_is_not_passed_over(davis, tiny_checkpoint, tmp_path, capsys, monkeypatch):
    """A worker that outlived its launcher may remove what this run has written."""
    finish = Results.finish

    def removed_after(self, video, **facts):
        finish(self, video, **facts)
        if video.name == "camel":
            shutil.rmtree(self.masks / video.name)

    monkeypatch.setattr(Results, "finish", removed_after)
    assert run(eval_davis, "--davis_path", davis, "--output", tmp_path / "out", "--model", tiny_checkpoint,
               "--zip") == 1
    assert "no archive: 1 videos are not there" in capsys.readouterr().err
    assert not (tmp_path / "out.zip").exists()


def test_dark_images_of_16_bits_are_said_once(clip, tiny_checkpoint, tmp_path, capsys):
    for video in ("a", "b"):
        for folder in ("JPEGImages", "Annotations"):
            (tmp_path / folder / video).mkdir(parents=True)
        for number in range(2):
            grey = clip[0][number][..., 0].astype(np.uint16) * 16
            Image.fromarray(grey).save(tmp_path / "JPEGImages" / video / f"{number}.png")
        write_mask(tmp_path / "Annotations" / video / "0.png", clip[1][0])
    assert run(eval_generic, "--long_video_path", tmp_path, "--output", tmp_path / "out", "--model",
               tiny_checkpoint) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "16 bits" in line]
    assert len(lines) == 1 and lines[0].startswith("note: a and 1 more: no value above 4095")


def test_masks_beside_the_frames_of_a_dataset_are_named(clip, tiny_checkpoint, tmp_path, capsys):
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "video", clip[0][:4], {0: clip[1][0]})
    write_mask(tmp_path / "JPEGImages" / "video" / "first_mask.png", clip[1][0])
    assert run(eval_generic, "--long_video_path", tmp_path, "--output", tmp_path / "out", "--model",
               tiny_checkpoint) == 2
    assert "first_mask.png: beside the frames, but not taken for a frame" in capsys.readouterr().err


def test_generic_masks_and_frames_belong_together(clip, tiny_checkpoint, tmp_path, capsys):
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "video", clip[0][:4], {0: clip[1][0]})
    arguments = ["--long_video_path", tmp_path, "--output", tmp_path / "out", "--model", tiny_checkpoint]
    write_mask(tmp_path / "Annotations" / "video" / "2.png", clip[1][2])
    assert run(eval_generic, *arguments) == 2
    assert "2.png: no frame of this name" in capsys.readouterr().err
    (tmp_path / "Annotations" / "video" / "2.png").unlink()
    Image.fromarray(clip[0][1]).save(tmp_path / "JPEGImages" / "video" / "00001.png")
    assert run(eval_generic, *arguments) == 2
    assert "2 images are named 00001" in capsys.readouterr().err
    Image.fromarray(clip[0][1][:40]).save(tmp_path / "JPEGImages" / "video" / "00001.png")
    (tmp_path / "JPEGImages" / "video" / "00001.jpg").unlink()
    assert run(eval_generic, *arguments) == 1
    assert "00001.png: 100×40 pixels, the first frame has 100×72" in capsys.readouterr().err


@pytest.mark.parametrize("script, option, parts", [
    (eval_davis, "--davis_path", ["ImageSets/2017/val.txt", "JPEGImages/480p", "trainval"]),
    (eval_davis_2016, "--davis_path", ["ImageSets/2016/val.txt"]),
    (eval_youtube, "--yv_path", ["meta.json", "valid"]),
    (eval_generic, "--long_video_path", ["JPEGImages", "Annotations"]),
])
def test_missing_trees_are_explained(tiny_checkpoint, tmp_path, capsys, script, option, parts):
    assert run(script, option, tmp_path, "--output", tmp_path / "out", "--model", tiny_checkpoint) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(part in error for part in [*parts, "expected"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../victim", "/victim", "..", ""])
def test_names_of_videos_cannot_lead_elsewhere(youtube, tiny_checkpoint, tmp_path, capsys, name):
    root = tmp_path / "YouTube"
    shutil.copytree(youtube, root)
    file = next(root.rglob("meta.json"))
    meta = json.loads(file.read_text())
    file.write_text(json.dumps({"videos": {name: next(iter(meta["videos"].values()))}}))
    assert run(eval_youtube, "--yv_path", root, "--output", tmp_path / "o", "--model", tiny_checkpoint) == 2
    assert f"{name!r} is no name of a video" in capsys.readouterr().err


def test_damaged_first_mask_does_not_stop_the_rest(davis, tiny_checkpoint, tmp_path, capsys):
    root = tmp_path / "DAVIS"
    shutil.copytree(davis, root)
    mask = root / "trainval" / "Annotations" / "480p" / "bear" / "00000.png"
    mask.write_bytes(mask.read_bytes()[:-40])
    assert run(eval_davis, "--davis_path", root, "--output", tmp_path / "o", "--model", tiny_checkpoint) == 1
    assert "damaged image" in capsys.readouterr().err
    assert len(list((tmp_path / "o" / "camel").iterdir())) == 6


def test_video_whose_name_is_too_long_does_not_stop_the_rest(clip, tiny_checkpoint, tmp_path, capsys):
    arguments = generic_arguments(clip, tiny_checkpoint, tmp_path, ("ant", "x" * 252))
    assert run(eval_generic, *arguments) == 1
    captured = capsys.readouterr()
    assert "File name too long" in captured.err and "wrote 1 of 2 videos" in captured.out


def test_names_that_are_no_text_are_written_but_not_packed(clip, tiny_checkpoint, tmp_path, capsys):
    arguments = generic_arguments(clip, tiny_checkpoint, tmp_path, ("ant", "s\udcff"))
    assert run(eval_generic, *arguments, "--zip") == 2
    assert "is not UTF-8; rename this video" in capsys.readouterr().err
    assert run(eval_generic, *arguments) == 0 and len(list((tmp_path / "out" / "s\udcff").iterdir())) == 3
