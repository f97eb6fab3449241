import cv2
import numpy as np
import pytest

from dataset.augmentation import (
    IMAGE_MEAN,
    LUMA,
    make_lookup,
    mean_colour,
    random_affine,
    random_colour,
    random_crop_box,
    random_spline,
    recolour,
    scaling,
    shift_hue,
    translation,
    warp,
)
from tests.trees import photograph


def blob(size=(90, 120)):
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, (55, 40), (30, 18), 20, 0, 360, 255, -1)
    return mask


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_identity_and_flip_are_exact():
    """Pixel centres: half a pixel of error would show."""
    image = photograph(1, (64, 64))
    assert (warp(image, make_lookup(np.eye(3)), 64, cv2.INTER_CUBIC, 0) == image).all()
    flip = translation(64, 0) @ scaling(-1, 1)
    assert (warp(image, make_lookup(flip), 64, cv2.INTER_CUBIC, 0) == image[:, ::-1]).all()


def test_scaling_is_that_of_a_resize():
    """But for the last rows and columns, where one fills and the other repeats."""
    mask = blob()
    resized = cv2.resize(mask, (96, 96), interpolation=cv2.INTER_LINEAR)
    warped = warp(mask, make_lookup(scaling(96 / 120, 96 / 90)), 96, cv2.INTER_LINEAR, 0)
    # OpenCV interpolates at 32nds of a pixel.
    assert np.abs(resized.astype(int) - warped)[1:-1, 1:-1].max() < 255 / 16


@pytest.mark.parametrize("splined", [False, True])
def test_mask_stays_on_the_object(splined):
    """A white object on black, warped as image and as mask, is where its mask is."""
    mask = blob()
    image = np.repeat(mask[..., None], 3, 2)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        matrix = random_affine(rng, np.array([60, 45]), 20, 10, (0.9, 1.1))
        lookup = make_lookup(scaling(1.07, 1.07) @ matrix, random_spline(rng, 96) if splined else None)
        warped = warp(image, lookup, 96, cv2.INTER_CUBIC, 0)[..., 0] > 127
        assert warped.sum() > 500
        assert iou(warped, warp(mask, lookup, 96, cv2.INTER_NEAREST, 0) > 0) > 0.96


def test_affine_maps_stay_within_their_ranges():
    rng = np.random.default_rng(0)
    areas, angles, slopes = [], [], []
    for _ in range(2000):
        matrix = random_affine(rng, np.array([30, 20]), 20, 10, (0.9, 1.1))
        assert matrix @ [30, 20, 1] == pytest.approx([30, 20, 1])
        areas.append(np.sqrt(np.linalg.det(matrix)))
        angles.append(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
        slopes.append(np.degrees(np.arctan(-(matrix[:2, :2].T @ matrix[:2, :2])[0, 1] / areas[-1] ** 2)))
    for values, limits in ((areas, (0.9, 1.1)), (angles, (-20, 20)), (slopes, (-10, 10))):
        assert limits[0] <= min(values) and max(values) <= limits[1]
        assert np.mean(values) == pytest.approx(np.mean(limits), abs=0.04 * (limits[1] - limits[0]))
        assert np.std(values) == pytest.approx((limits[1] - limits[0]) / np.sqrt(12), rel=0.1)


def test_crop_boxes_have_the_area_and_aspect_asked_for():
    rng = np.random.default_rng(0)
    boxes = np.array([random_crop_box(rng, 854, 480, (0.36, 1)) for _ in range(2000)])
    left, top, width, height = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (left + width <= 854).all() and (top + height <= 480).all()
    share, aspect = width * height / (854 * 480), width / height
    # Where no try fits it is the largest part of allowed aspect: 640×480.
    assert share.min() > 0.355 and share.max() < 0.76
    assert aspect.min() > 0.745 and aspect.max() < 1.34
    assert left.max() > 300 and left.min() < 5


def test_coarse_grid_of_the_spline_is_exact_to_a_fraction_of_a_pixel():
    """Against the spline evaluated at every pixel, without the coarse grid."""
    size = 384
    for seed in range(4):
        position = random_spline(np.random.default_rng(seed), size)
        rng = np.random.default_rng(seed)
        origin = rng.uniform(0, 1, (12, 2))
        target = origin + rng.normal(0, 0.02, (12, 2))
        distance = np.linalg.norm(target[:, None] - target, axis=-1)
        kernel = np.where(distance > 0, distance ** 2 * np.log(distance + 1e-300), 0)
        ones = np.hstack([np.ones((12, 1)), target])
        system = np.block([[kernel, ones], [ones.T, np.zeros((3, 3))]])
        weights = np.linalg.solve(system, np.vstack([origin - target, np.zeros((3, 2))]))
        axis = (np.arange(size) + 0.5) / size
        pixels = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        distance = np.linalg.norm(pixels[:, None] - target, axis=-1)
        exact = pixels + np.hstack([distance ** 2 * np.log(distance), np.ones((len(pixels), 1)), pixels]) @ weights
        inside = (position > 0).all(-1).ravel()
        error = np.abs(size * exact - position.reshape(-1, 2))[inside]
        # Where two control points nearly meet, the spline folds and the grid smooths the fold.
        assert np.quantile(error, 0.999) < 0.5 and error.mean() < 0.04
        assert (((exact > 0) & (exact < 1)).all(-1) == inside).mean() > 0.99


def test_spline_fills_what_lies_outside_of_the_sample():
    """Even where the source goes on there: as if the sample had been cut out before."""
    source = np.full((200, 200, 3), 255, np.uint8)
    shift = translation(-52, -52)
    filled = 0
    for seed in range(10):
        lookup = make_lookup(shift, random_spline(np.random.default_rng(seed), 96))
        warped = warp(source, lookup, 96, cv2.INTER_CUBIC, IMAGE_MEAN)
        assert (warped[40:56, 40:56] == 255).all()
        filled += (warped == IMAGE_MEAN).all(-1).sum()
    assert filled > 100


def test_fill_is_the_mean_colour():
    warped = warp(photograph(1), make_lookup(translation(30, 0)), 64, cv2.INTER_CUBIC, IMAGE_MEAN)
    assert (warped[:, :28] == IMAGE_MEAN).all()


def colour_step_by_step(image, factors, order):
    """Brightness, contrast, saturation in floating point, one after the other."""
    image = image.astype(float)
    for kind in order:
        grey = image @ LUMA
        other = (0, grey.mean(), grey[..., None])[kind]
        image = factors[kind] * image + (1 - factors[kind]) * other
    return image


def test_composed_colour_is_the_three_steps_in_their_order():
    image = photograph(1) // 2 + 60
    for seed in range(10):
        matrix = random_colour(np.random.default_rng(seed), image.reshape(-1, 3).mean(0), 0.1, 0.05, 0.05)
        rng = np.random.default_rng(seed)
        factors = 1 + rng.uniform(-1, 1, 3) * (0.1, 0.05, 0.05)
        expected = colour_step_by_step(image, factors, rng.permutation(3))
        assert np.abs(recolour(image, matrix) - expected).max() < 1.01


def test_colour_jitter_has_its_range_and_no_bias():
    image = photograph(1) // 2 + 60
    rng = np.random.default_rng(0)
    means = np.array([np.mean(recolour(image, random_colour(rng, mean_colour(image), 0.1, 0.05, 0.05)))
                      for _ in range(500)]) / image.mean()
    assert means.mean() == pytest.approx(1, abs=0.01)
    assert 0.89 < means.min() < 0.92 and 1.08 < means.max() < 1.11


def test_greyscale_has_its_probability():
    rng = np.random.default_rng(0)
    grey = [np.ptp(random_colour(rng, (100, 100, 100), 0.1, 0.05, 0.05, greyscale=0.05), axis=0).max() < 1e-9
            for _ in range(2000)]
    assert 0.035 < np.mean(grey) < 0.065


def test_hue_turns_around_the_circle():
    red = np.full((4, 4, 3), (200, 20, 20), np.uint8)
    assert np.abs(shift_hue(red, 1 / 3)[0, 0].astype(int) - (20, 200, 20)).max() < 6
    assert np.abs(shift_hue(red, -1 / 3)[0, 0].astype(int) - (20, 20, 200)).max() < 6
    assert np.abs(shift_hue(red, 0).astype(int) - red).max() < 3
