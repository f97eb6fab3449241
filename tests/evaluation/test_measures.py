import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluation.measures import (
    boundary_f,
    boundary_map,
    boundary_radius,
    compare_regions,
    decay,
    jaccard,
    make_region,
    object_statistics,
)
from util.errors import InputError

shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))


def random_masks(count):
    return shapes.flatmap(lambda shape: st.tuples(*[arrays(bool, shape)] * count))


def naive_boundary(mask):
    """Pixel by pixel, from the definition."""
    height, width = mask.shape
    boundary = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            below, right = min(y + 1, height - 1), min(x + 1, width - 1)
            others = mask[y, right], mask[below, x], mask[below, right]
            boundary[y, x] = any(other != mask[y, x] for other in others)
    return boundary


def naive_matches(boundary, other, radius):
    points, others = np.argwhere(boundary), np.argwhere(other)
    if not len(others):
        return 0
    squared = ((points[:, None] - others[None]) ** 2).sum(2)
    return int((squared.min(1) <= radius * radius).sum()) if len(points) else 0


@given(random_masks(1))
def test_a_mask_compared_with_itself_scores_one(masks):
    (mask,) = masks
    assert jaccard(mask, mask) == 1 and boundary_f(mask, mask) == 1


@given(random_masks(2))
def test_j_and_f_are_symmetric(masks):
    first, second = masks
    assert jaccard(first, second) == jaccard(second, first)
    assert boundary_f(first, second) == boundary_f(second, first)


@given(random_masks(2))
def test_j_and_f_lie_between_zero_and_one(masks):
    assert 0 <= jaccard(*masks) <= 1 and 0 <= boundary_f(*masks) <= 1


@given(random_masks(1))
def test_an_empty_prediction_scores_zero_unless_there_is_nothing_to_find(masks):
    (mask,) = masks
    empty = np.zeros_like(mask)
    assert jaccard(mask, empty) == (0 if mask.any() else 1)
    assert boundary_f(mask, empty) == (0 if naive_boundary(mask).any() else 1)


@given(arrays(bool, (9, 11)), st.integers(0, 12), st.integers(0, 12))
def test_shifting_both_masks_inside_the_image_changes_nothing(mask, down, right):
    first = np.zeros((26, 28), bool)
    first[2:11, 2:13] = mask
    second = np.roll(first, (1, -1), (0, 1))
    moved = [np.roll(one, (down, right), (0, 1)) for one in (first, second)]
    assert jaccard(first, second) == jaccard(*moved)
    assert boundary_f(first, second) == boundary_f(*moved)


@given(random_masks(1))
def test_boundary_is_that_of_the_definition(masks):
    (mask,) = masks
    np.testing.assert_array_equal(boundary_map(mask.view(np.uint8)), naive_boundary(mask))


@settings(max_examples=200)
@given(random_masks(2), st.integers(1, 9))
def test_boundary_pixels_within_the_radius_are_counted_exactly(masks, radius):
    truth, prediction = (mask & np.roll(mask, 1, 0) & np.roll(mask, 1, 1) for mask in masks)  # sparser
    counts = compare_regions(make_region(truth, radius), make_region(prediction, radius))
    outline, other = naive_boundary(truth), naive_boundary(prediction)
    assert counts.matched_prediction == naive_matches(other, outline, radius)
    assert counts.matched_ground_truth == naive_matches(outline, other, radius)
    assert (counts.boundary_ground_truth, counts.boundary_prediction) == (outline.sum(), other.sum())


@pytest.mark.parametrize(
    "shape, radius", [((480, 854), 8), ((480, 910), 9), ((1080, 1920), 18), ((60, 106), 1)]
)
def test_radius_is_eight_thousandths_of_the_diagonal_rounded_up(shape, radius):
    assert boundary_radius(*shape) == radius


def test_a_mask_that_fills_the_image_has_no_boundary():
    """Kept: against an empty mask it has J = 0 but F = 1, since F compares boundaries, not masks."""
    full, empty = np.ones((20, 30), bool), np.zeros((20, 30), bool)
    assert (jaccard(empty, full), boundary_f(empty, full)) == (0, 1)


def test_boundary_lies_above_and_left_of_the_object():
    """Kept: a single pixel has four boundary pixels, in the top left corner one, in the other corners fewer
    than an outline on both sides would have."""
    counts = {}
    for y, x in ((5, 5), (0, 0), (9, 9), (0, 9), (9, 0)):
        mask = np.zeros((10, 10), np.uint8)
        mask[y, x] = 1
        counts[y, x] = int(boundary_map(mask).sum())
    assert counts == {(5, 5): 4, (0, 0): 1, (9, 9): 3, (0, 9): 2, (9, 0): 2}


def test_recall_does_not_count_exactly_one_half():
    """Kept: recall is the share of frames strictly above 0.5."""
    assert object_statistics(np.array([0.5, 0.5, 0.5000001, 1.0]))[1] == 0.5


def test_decay_of_long_sequences_is_right():
    """Repaired: the official limits of the quarters wrap at 256 frames."""
    values = np.linspace(1, 0, 400)
    assert decay(values) == pytest.approx(299 / 399)  # frames 1 to 101 and 300 to 400
    assert decay(values, "numpy2") == pytest.approx(43 / 399)  # the last quarter is 44 to 144


@pytest.mark.parametrize("rule, correct", [("numpy1", True), ("numpy2", False)])
def test_official_decay_of_256_frames_depends_on_the_generation_of_numpy(rule, correct):
    """Kept on request: 255 + 1 as uint8 is 256 in NumPy 1 and 0, an empty quarter, in NumPy 2."""
    values = np.linspace(1, 0, 256)
    assert decay(values, rule) == decay(values) if correct else math.isnan(decay(values, rule))


@given(arrays(np.float64, st.integers(1, 255), elements=st.floats(0, 1)))
def test_all_decay_rules_agree_up_to_255_frames(values):
    assert decay(values) == decay(values, "numpy1") == decay(values, "numpy2")


def test_decay_of_one_frame_is_zero():
    assert decay(np.array([0.3])) == 0


@pytest.mark.parametrize("measure", [jaccard, boundary_f])
def test_masks_of_other_types_give_the_same_or_are_refused(measure):
    truth, found = np.zeros((2, 40, 50), bool)
    truth[5:20, 5:30], found[8:22, 5:27] = True, True
    expected = measure(truth, found)
    assert 0 < expected < 1
    for one, other in ((1, 2), (255, 1), (-1, 4)):
        assert measure(one * truth.astype(int), other * found.astype(np.int16)) == expected
    assert measure(truth.tolist(), found.tolist()) == expected
    for wrong in (found * 1.0, found[:30], found[None], None):
        with pytest.raises(InputError, match="two masks H×W, bool or whole numbers"):
            measure(truth, wrong)
