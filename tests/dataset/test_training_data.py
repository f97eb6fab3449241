"""Training samples: what they hold, where their randomness comes from, and what cannot be used."""

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.check import check_data
from dataset.perturbation import perturb_mask
from dataset.sampler import training_batches
from dataset.static import StaticDataset
from dataset.training_sets import find_pairs, find_videos, usable_videos
from dataset.video import VideoDataset, draw_frames, jump_curriculum
from tests.trees import davis_tree, write_sequence
from util.errors import InputError
from util.image_io import write_mask


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Six images of a bright disk on black, the mask that disk."""
    root = tmp_path_factory.mktemp("static")
    rows, columns = np.mgrid[:90, :120]
    for number in range(6):
        disk = (rows - 40) ** 2 + (columns - 50 - 3 * number) ** 2 < 25 ** 2
        Image.fromarray(np.repeat(disk[..., None] * np.uint8(255), 3, 2)).save(root / f"{number}.jpg", quality=95)
        Image.fromarray(disk * np.uint8(255)).save(root / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def videos(clip, tmp_path_factory):
    return davis_tree(tmp_path_factory.mktemp("videos"), clip, length=12) / "trainval"


def datasets(images, videos):
    return (StaticDataset(find_pairs(images), size=64, seed=5),
            VideoDataset(find_videos(videos), size=64, seed=5, max_jump=((0, 1), (8, 2))))


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one if name != "info")


def test_samples_are_what_the_training_step_takes(images, videos):
    static, video = (dataset[0] for dataset in datasets(images, videos))
    assert static["rgb"].shape == (3, 3, 64, 64) and static["rgb"].dtype == torch.uint8
    assert static["gt"].shape == (3, 1, 64, 64) and static["pgt"].shape == (1, 1, 64, 64)
    assert torch.equal(static["cls_gt"].bool(), static["gt"][:, 0] > 0.5)
    assert video["rgb"].shape == (5, 3, 64, 64) and video["selector"].tolist() in ([1, 0], [1, 1])
    for label, name in ((1, "gt"), (2, "sec_gt")):
        assert torch.equal(video["cls_gt"] == label, video[name][:, 0] > 0)


def test_image_and_mask_stay_together(images):
    """The disk is bright wherever the mask says so, after every warp and crop."""
    dataset = StaticDataset(find_pairs(images), size=96, seed=1)
    for number in range(12):
        sample = dataset[number]
        bright = sample["rgb"].float().mean(1) > 150
        # Outside the image, the mean colour of ImageNet fills.
        inside, outside = sample["gt"][:, 0] > 0.9, sample["gt"][:, 0] < 0.1
        assert bright[inside].float().mean() > 0.95 and bright[outside].float().mean() < 0.05


def test_samples_depend_on_seed_and_number_alone(images, videos):
    for dataset in datasets(images, videos):
        np.random.seed(0)
        first = [dataset[number] for number in (3, 9)]
        np.random.seed(1)
        torch.manual_seed(1)
        assert same(first[1], dataset[9]) and same(first[0], dataset[3])
        assert not same(first[0], first[1])
        again = [list(training_batches(dataset, 2, 0, 4, workers=workers)) for workers in (0, 2)]
        resumed = list(training_batches(dataset, 2, 2, 4, workers=2))
        assert all(same(one, other) for one, other in zip(*again, strict=True))
        assert all(same(one, other) for one, other in zip(again[0][2:], resumed, strict=True))


def test_processes_share_the_samples_of_a_larger_batch(images, videos):
    dataset, _ = datasets(images, videos)
    whole = next(training_batches(dataset, 4, 1, 2))
    parts = [next(training_batches(dataset, 2, 1, 2, rank=rank, world_size=2)) for rank in (0, 1)]
    assert torch.equal(whole["rgb"], torch.cat([part["rgb"] for part in parts]))


def test_every_epoch_shows_everything_once(images, videos):
    dataset, _ = datasets(images, videos)
    names = [dataset[number]["info"]["name"] for number in range(18)]
    epochs = [sorted(names[start:start + 6]) for start in (0, 6, 12)]
    assert epochs[0] == epochs[1] == epochs[2] and len(set(epochs[0])) == 6
    assert names[:6] != names[6:12]


def test_frames_are_in_order_and_at_most_the_jump_apart():
    """The published sampling is not monotone in short videos; ours is."""
    rng = np.random.default_rng(0)
    backwards = 0
    for _ in range(300):
        length, jump = int(rng.integers(5, 60)), int(rng.integers(1, 26))
        steps = np.diff(draw_frames(rng, length, jump))
        assert (steps >= 0).all() or (steps <= 0).all()
        assert np.abs(steps).max() <= jump
        backwards += steps.sum() < 0
    assert 100 < backwards < 200


def test_curriculum_goes_by_sample_number(images, videos):
    """Not by a setting that reaches prefetching workers whenever it does: a resumed run sees the same samples."""
    assert jump_curriculum(1000) == ((0, 5), (100, 10), (200, 15), (300, 20), (400, 25), (900, 5))
    _, dataset = datasets(images, videos)
    assert [dataset.jump(number) for number in (0, 7, 8, 100)] == [1, 1, 2, 2]


def test_perturbed_masks_reach_their_targets():
    rows, columns = np.mgrid[:100, :100]
    mask = ((rows - 50) ** 2 + (columns - 50) ** 2 < 30 ** 2).astype(np.uint8)
    rng = np.random.default_rng(0)
    overlaps = []
    for _ in range(60):
        damaged = perturb_mask(mask, rng, 0.85, 1.0)
        overlaps.append((mask & damaged).sum() / (mask | damaged).sum())
    assert min(overlaps) > 0.75 and max(overlaps) > 0.97 and 0.85 < np.mean(overlaps) < 0.97
    assert (perturb_mask(mask, rng, 1.0, 1.0) == mask).all()


def test_unusable_videos_are_left_out_and_named(clip, videos, tmp_path):
    frames, truth = clip
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "short", frames[:3], dict(enumerate(truth[:3])))
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "empty", frames[:6],
                   dict(enumerate(truth[:6] * 0)))
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "good", frames[:6], dict(enumerate(truth[:6])))
    usable, left_out = usable_videos(find_videos(tmp_path))
    assert [video.name for video in usable] == ["good"]
    assert "5 are needed" in left_out["short"] and "no object" in left_out["empty"]


def test_check_names_every_bad_file(clip, tmp_path):
    frames, truth = clip
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "v", frames[:6], dict(enumerate(truth[:6])))
    check_data(find_videos(tmp_path))
    masks, images = tmp_path / "Annotations" / "v", tmp_path / "JPEGImages" / "v"
    (masks / "00001.png").unlink()
    write_mask(masks / "00002.png", np.ones((9, 9), np.uint8))
    (images / "00003.jpg").write_bytes((images / "00003.jpg").read_bytes()[:300])
    write_mask(masks / "00004.png", np.full((72, 100), 255, np.uint8))
    with pytest.raises(InputError) as error:
        check_data(find_videos(tmp_path))
    for part in ("4 of 6", "00001.png: no such file", "00002.png: 9×9 pixels, its image 100×72", "00003.jpg: damaged",
                 "00004.png: holds 255"):
        assert part in str(error.value)
