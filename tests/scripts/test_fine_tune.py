"""Tests of train.py --fine-tune."""

import dataclasses
import os
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import train
from dataset.evaluation_sets import EVALUATION_SETS
from dataset.held_back import find_clips
from dataset.training_sets import find_videos
from evaluation.validation import score, validate
from model import RDE, load_network
from tests.scripts.conftest import davis_tree
from tests.training_runs import COMMON, folder_of, raising, run
from util.errors import InputError
from util.hyper_para import COMPACT, training_settings
from util.image_io import read_mask, write_mask

# What the recipe decides.
SHORT = [word for word in COMMON if word not in ("--preset", "tiny", "--backbone_weights", "none")]


@pytest.fixture(scope="module")
def clips(clip, tmp_path_factory):
    """Three clips of sixteen frames, of which the last four are held back."""
    return davis_tree(tmp_path_factory.mktemp("clips"), clip, length=16) / "trainval"


def tune(clips, saves, checkpoint, *options):
    return run("--fine-tune", clips, "--load-network", checkpoint, "--out-root", saves, "--iterations", 3,
               "--id", "mine", *options, common=SHORT)


def test_it_says_what_it_does_and_how_much_it_helped(clips, tmp_path, capsys, tiny_checkpoint, monkeypatch):
    assert tune(clips, tmp_path, tiny_checkpoint, "--ema", 0) == 0
    out = capsys.readouterr().out
    folder = folder_of(tmp_path, "mine")
    assert f"{tiny_checkpoint} is adapted to {clips}, for 10 minutes; the last 25% of each clip (12 frames in" in out
    assert out.index("before: J&F") < out.index("stage 3: 3 videos of") < out.index("after: J&F")
    # The trunk and the keys stay, and the rest has moved, a fifth as far as it was trained.
    before, trained, result = (load_network(file).state_dict() for file in (
        tiny_checkpoint, folder / "model_3.pth", folder / "fine_tuned.pth"))
    moved = {name for name in before if not torch.equal(before[name], result[name])}
    assert moved and not any(name.startswith(("key_encoder.", "key_proj.")) for name in moved)
    for name in moved:
        fifth = before[name] + (trained[name] - before[name]) / 5
        torch.testing.assert_close(result[name], fifth, rtol=1e-5, atol=1e-7)


def test_the_scores_are_those_at_the_lines_that_track_py_computes_at(clips, tmp_path, capsys, tiny_checkpoint):
    assert tune(clips, tmp_path, tiny_checkpoint, "--no-amp") == 0
    scores = re.search(r"after: J&F (.*), before (.*): ", capsys.readouterr().out).groups()
    _, held_back = find_clips(clips)
    for file, told in zip((folder_of(tmp_path, "mine") / "fine_tuned.pth", tiny_checkpoint), scores, strict=True):
        small, auto = (score(load_network(file), held_back, size=size)["J&F"] for size in (None, "auto"))
        assert f"{auto:.1f}" == told != f"{small:.1f}"


@pytest.mark.parametrize("lines", [None, 48])
def test_validation_is_at_the_lines_that_eval_davis_computes_at(clips, tiny_network, lines):
    network = RDE(dataclasses.replace(tiny_network.config, lines=lines)).eval()
    network.load_state_dict(tiny_network.state_dict())
    videos = EVALUATION_SETS["davis17"].find(clips.parent, "val")
    assert validate(network, clips.parent) == score(network, videos, size=lines)
    assert score(network, videos) != score(network, videos, size=48)


@pytest.mark.parametrize("after, told", [(60, "after: J&F 60.0, before 50.0: give {file} to --model"),
                                         (50, "after: J&F 50.0, before 50.0: {start} is as good or better there")])
def test_the_better_network_is_recommended(after, told, clips, tmp_path, capsys, tiny_checkpoint, monkeypatch):
    scores = iter((50, after))
    monkeypatch.setattr(train, "score", lambda network, videos, **settings: {"J&F": next(scores)})
    assert tune(clips, tmp_path, tiny_checkpoint) == 0
    file = folder_of(tmp_path, "mine") / "fine_tuned.pth"
    assert told.format(file=file, start=tiny_checkpoint) in capsys.readouterr().out.splitlines()[-1]


def test_an_error_in_training_is_no_result(clips, tmp_path, capsys, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(train.Trainer, "step", raising(InputError("no step")))
    assert tune(clips, tmp_path, tiny_checkpoint) == 2
    assert "after:" not in capsys.readouterr().out


def test_what_is_learnt_and_what_is_scored_are_apart(clips):
    learnt, scored = find_clips(clips)
    assert [video.frames for video in find_videos(clips)] == [
        (*clip.frames, *(frame.name for frame in video.frames)) for clip, video in zip(learnt, scored, strict=True)]
    assert [len(clip.frames) for clip in learnt] == [12] * 3
    assert all(video.masks == {video.frames[0].stem: clip.annotations / f"{video.frames[0].stem}.png"}
               for clip, video in zip(learnt, scored, strict=True))


def test_scoring_begins_where_there_is_an_object(clips, tmp_path):
    home = shutil.copytree(clips, tmp_path / "clips")
    names = [clip.name for clip in find_videos(home)]
    for name, empty in zip(names, (1, 2, 0), strict=True):
        for mask in sorted((home / "Annotations" / "480p" / name).iterdir())[12:12 + empty]:
            write_mask(mask, 0 * read_mask(mask))
    learnt, scored = find_clips(home)
    # Three frames are scored at least, so the second clip is not.
    assert [(video.name, len(video.frames)) for video in scored] == [(names[0], 3), (names[2], 4)]
    assert len(learnt) == 3
    for name in names:
        for mask in sorted((home / "Annotations" / "480p" / name).iterdir())[12:]:
            write_mask(mask, 0 * read_mask(mask))
    with pytest.raises(InputError, match="no clip has an object in the last 25% of its frames"):
        find_clips(home)


def test_what_is_unknown_is_not_scored(clips, tmp_path, tiny_checkpoint):
    home = shutil.copytree(clips, tmp_path / "clips")
    _, scored = find_clips(home)
    known = score(load_network(tiny_checkpoint), scored)
    for clip in find_videos(home):
        for number in range(13, 16):
            write_mask(clip.mask(number), np.full_like(read_mask(clip.mask(number)), 255))
    assert known["J&F"] < 100 and score(load_network(tiny_checkpoint), scored)["J&F"] == 100


@pytest.mark.parametrize("option", ["--ema=0", "--check-data"])
def test_masks_of_the_part_that_is_held_back_are_checked_too(option, clips, tmp_path, tiny_checkpoint, capsys):
    home = shutil.copytree(clips, tmp_path / "clips")
    missing = find_videos(home)[1].mask(14)
    missing.unlink()
    assert tune(home, tmp_path, tiny_checkpoint, option) == 2
    assert f"training data: {missing}: this mask is missing\n" in capsys.readouterr().err


def test_every_file_is_decoded_before(clips, tmp_path, tiny_checkpoint, capsys):
    home = shutil.copytree(clips, tmp_path / "clips")
    first, second, _ = find_videos(home)
    write_mask(first.mask(3), read_mask(first.mask(3))[:20])
    image = second.image(14)
    image.write_bytes(image.read_bytes()[:500])
    assert tune(home, tmp_path, tiny_checkpoint) == 2
    error = capsys.readouterr().err
    assert f"{first.mask(3)}: the mask has" in error and f"{image}: damaged image" in error


@pytest.mark.parametrize("option", ["--ema=0", "--check-data"])
def test_what_masks_are_taken_for_is_said_once(option, clips, tmp_path, tiny_checkpoint, capsys):
    home = shutil.copytree(clips, tmp_path / "clips")
    for clip in find_videos(home):
        for number in range(len(clip.frames)):
            ids = read_mask(clip.mask(number))
            Image.fromarray(np.where(ids[..., None], np.uint8((200, 30, 30)), np.uint8(255))).save(clip.mask(number))
    assert tune(home, tmp_path, tiny_checkpoint, option) == 0
    assert capsys.readouterr().err.count("the colour of most of the border") == 1


def test_exported_clips_are_found(clips, tmp_path):
    """As export_masks.py writes them."""
    for clip in find_videos(clips):
        for theirs, ours in ((clip.images, "images"), (clip.annotations, "masks")):
            shutil.copytree(theirs, tmp_path / clip.name / ours)
    (tmp_path / "notes.txt").touch()
    assert [(clip.name, clip.frames, clip.mask(3).is_file()) for clip in find_videos(tmp_path)] == [
        (clip.name, clip.frames, True) for clip in find_videos(clips)]
    shutil.rmtree(clip_folder := tmp_path / find_videos(clips)[1].name / "images")
    with pytest.raises(InputError, match=f"{clip_folder.parent}: holds masks alone; both images and masks are needed"):
        find_videos(tmp_path)


def test_without_a_network_it_starts_from_the_one_that_is_here(tmp_path):
    settings = training_settings(train.get_args_parser().parse_args(["--fine_tune", str(tmp_path)]))
    assert settings.network.load_network == COMPACT and settings.running.id == "fine-tuned"
    assert settings.recipe.trunk_lr == 0 and settings.running.minutes == 10
    longer = training_settings(train.get_args_parser().parse_args(["--fine-tune", str(tmp_path), "--minutes", "30"]))
    assert longer.running.minutes == 30 and longer.recipe == settings.recipe


def test_it_is_for_one_process(clips, tmp_path, capsys, monkeypatch, tiny_checkpoint):
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    assert tune(clips, tmp_path, tiny_checkpoint) == 2
    assert "--fine-tune is for one process: start it without torchrun\n" in capsys.readouterr().err
