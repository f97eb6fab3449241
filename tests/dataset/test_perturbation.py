import cv2
import numpy as np
import pytest

from dataset.perturbation import perturb_mask


def disc(radius=60):
    mask = np.zeros((240, 240), np.uint8)
    cv2.circle(mask, (130, 110), radius, 1, -1)
    return mask


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_iou_falls_just_below_its_target():
    mask = disc()
    for target in (0.95, 0.85):
        values = [iou(mask, perturb_mask(mask, np.random.default_rng(seed), target, target)) for seed in range(60)]
        assert max(values) < target
        # A round of four operations takes away some more, but not all.
        assert np.median(values) > target - 0.06 and min(values) > 0.5


def test_iou_follows_the_range_of_targets():
    mask = disc()
    values = np.array([iou(mask, perturb_mask(mask, np.random.default_rng(seed))) for seed in range(200)])
    assert 0.88 < values.mean() < 0.93
    # Uniform targets: each third of the range has its share.
    assert all(0.15 < share < 0.5 for share in np.histogram(values, [0.83, 0.9, 0.95, 1])[0] / 200)


def test_mask_grows_and_shrinks_alike():
    mask = disc()
    change = [perturb_mask(mask, np.random.default_rng(seed)).sum() / mask.sum() - 1 for seed in range(100)]
    assert 0.3 < np.mean(np.array(change) > 0) < 0.7


def test_target_of_one_and_empty_masks_are_left_alone():
    mask = disc()
    same = perturb_mask(mask, np.random.default_rng(0), 1, 1)
    assert (same == mask).all() and same is not mask
    assert not perturb_mask(np.zeros_like(mask), np.random.default_rng(0)).any()


@pytest.mark.parametrize("mask", [disc(1), np.ones((50, 70), np.uint8), np.eye(9, dtype=np.uint8)])
def test_odd_masks_are_damaged_and_stay_masks(mask):
    before = mask.copy()
    for seed in range(20):
        damaged = perturb_mask(mask, np.random.default_rng(seed), 0.85, 0.95)
        assert damaged.dtype == np.uint8 and damaged.max() <= 1 and damaged.shape == mask.shape
        assert iou(mask, damaged) < 0.95
    assert (mask == before).all()


def test_working_in_the_object_s_region_changes_nothing(monkeypatch):
    """Against the same operations on whole rectangles."""
    masks = [disc(radius) for radius in (10, 40)]
    results = [perturb_mask(mask, np.random.default_rng(seed)) for mask in masks for seed in range(30)]
    monkeypatch.setattr("dataset.perturbation.REACH", 1000)
    whole = [perturb_mask(mask, np.random.default_rng(seed)) for mask in masks for seed in range(30)]
    assert all((one == other).all() for one, other in zip(results, whole, strict=True))
