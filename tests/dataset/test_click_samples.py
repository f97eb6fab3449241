"""Samples for the click network."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dataset.clicks import ClickDataset, find_objects, list_frames, make_start
from dataset.training_sets import Pair, find_videos
from tests.trees import photograph, training_tree
from util.errors import InputError
from util.mask_rule import VOID


@pytest.fixture
def folder(tmp_path):
    """Two images with masks of their foreground; one also has ids, which leave out a corner."""
    ids = np.zeros((120, 160), np.uint8)
    cv2.circle(ids, (50, 60), 25, 1, -1)
    cv2.rectangle(ids, (100, 30), (140, 100), 2, -1)
    ids[:20, :20] = VOID
    for part in ("things", "things_instances"):
        (tmp_path / part).mkdir()
    for name in ("a", "b"):
        Image.fromarray(photograph(len(name))).save(tmp_path / "things" / f"{name}.jpg")
        Image.fromarray(np.where((ids > 0) & (ids < VOID), 255, 0).astype(np.uint8)).save(
            tmp_path / "things" / f"{name}.png")
    Image.fromarray(ids).save(tmp_path / "things_instances" / "a.png")
    return tmp_path


def test_masks_of_objects_replace_that_of_the_foreground(folder):
    found = [pair.mask.relative_to(folder).as_posix() for pair in find_objects(folder)]
    assert found == ["things_instances/a.png", "things/b.png"]


def test_a_sample_depends_on_seed_and_number_alone(folder):
    pairs = find_objects(folder)
    one, same, other = (ClickDataset(pairs, seed=seed, size=64) for seed in (1, 1, 2))
    one[0], one[1]
    for number in (2, 3):
        first, second, third = one[number], same[number], other[number]
        assert all(torch.equal(first[key], second[key]) for key in ("rgb", "cls_gt", "hints", "previous"))
        assert not torch.equal(first["rgb"], third["rgb"])


def test_samples_show_an_object_and_a_hint_of_it(folder):
    """Whatever the user begins with, positive hints touch the object. Pixels outside of the image are not known."""
    dataset = ClickDataset(find_objects(folder), size=64)
    seen = set()
    for number in range(60):
        sample = dataset[number]
        truth, hints, previous = sample["cls_gt"][0], sample["hints"], sample["previous"][0]
        assert sample["rgb"].shape == (1, 3, 64, 64) and sample["rgb"].dtype == torch.uint8
        assert set(truth.unique().tolist()) <= {0, 1, VOID} and (truth == 1).any()
        assert hints.any() or previous.any()
        if hints[0].any():
            assert (truth[hints[0] > 0] == 1).any()
        seen |= {name for name, used in (("positive", hints[0]), ("negative", hints[1]), ("box", hints[2]),
                                         ("mask", previous), ("void", truth == VOID)) if used.any()}
    assert seen == {"positive", "negative", "box", "mask", "void"}


def test_an_image_without_objects_gets_no_hints():
    hints, previous = make_start(np.random.default_rng(0), np.zeros((32, 32), np.uint8))
    assert not hints.any() and not previous.any()


def test_frames_of_videos_are_images_too(tmp_path, clip):
    videos = find_videos(training_tree(tmp_path / "videos", clip, names=("ant",)))
    pairs = list_frames(videos)
    assert [pair.image.stem for pair in pairs] == ["00000", "00010"]
    assert (ClickDataset(pairs, size=64)[0]["cls_gt"] == 1).any()


def test_sizes_that_differ_are_named(folder):
    Image.fromarray(np.ones((10, 10), np.uint8)).save(folder / "small.png")
    dataset = ClickDataset([Pair(folder / "things" / "a.jpg", folder / "small.png")], size=64)
    with pytest.raises(InputError, match=r"small\.png: the mask has 10×10 pixels, the image 160×120"):
        dataset[0]
