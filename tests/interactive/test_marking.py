"""What the drawing tools do to a mask."""

import numpy as np
import pytest

from interactive import marking
from util.errors import InputError

EMPTY = np.zeros((120, 160), np.uint8)


def picture():
    """A reddish disc on a greenish ground, with noise; and where the disc is."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:120, :160]
    disc = (x - 90) ** 2 + (y - 60) ** 2 < 20 ** 2
    image = np.where(disc[..., None], (200, 60, 50), (60, 150, 80)) + rng.normal(0, 8, (120, 160, 3))
    return image.clip(0, 255).astype(np.uint8), disc


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_brush_and_eraser():
    ids = marking.paint(EMPTY.copy(), 2, [[10, 60], [100, 60]], 9)
    assert ids[60, 50] == 2 and ids[64, 50] == 2 and ids[66, 50] == 0
    ids[0, 0] = 3
    assert (marking.erase(ids.copy(), 2, [[0, 0], [100, 60]], 9) == 3).sum() == 1
    assert not marking.erase(ids.copy(), 0, [[0, 0], [160, 120]], 400).any()


def test_polygon():
    ids = marking.fill_polygon(EMPTY.copy(), 1, [[10, 10], [50, 10], [50, 50], [10, 50]])
    assert (ids == 1).sum() == 41 * 41
    with pytest.raises(InputError, match="three corners"):
        marking.fill_polygon(EMPTY.copy(), 1, [[10, 10], [50, 10]])


def test_box_finds_the_object_in_it():
    image, disc = picture()
    ids = marking.select_in_box(EMPTY.copy(), 4, image, [[115, 85], [64, 34]])
    assert iou(ids == 4, disc) > 0.9


def test_click_finds_the_object_and_a_second_one_takes_something_away():
    image, disc = picture()
    ids = marking.select_at_clicks(EMPTY.copy(), 4, image, [[92, 58]], [True])
    assert iou(ids == 4, disc) > 0.9
    assert marking.select_at_clicks(ids.copy(), 4, image, [[92, 58], [80, 60]], [True, False])[60, 80] == 0


def test_click_works_at_the_edge_and_on_one_colour():
    image, _ = picture()
    assert marking.select_at_clicks(EMPTY.copy(), 1, image, [[0, 119]], [True])[119, 0] == 1
    assert marking.select_at_clicks(EMPTY.copy(), 1, image * 0, [[80, 60]], [True])[60, 80] == 1


def test_click_and_box_take_nothing_from_other_objects():
    image, disc = picture()
    ids = np.where(disc & (np.arange(160) < 90), 7, 0).astype(np.uint8)
    for changed in (marking.select_at_clicks(ids.copy(), 4, image, [[98, 60]], [True]),
                    marking.select_in_box(ids.copy(), 4, image, [[64, 34], [115, 85]])):
        np.testing.assert_array_equal(changed == 7, ids == 7)
        assert iou(changed == 4, disc & (ids == 0)) > 0.85


def test_holes_and_specks():
    ids = marking.fill_polygon(EMPTY.copy(), 1, [[10, 10], [50, 10], [50, 50], [10, 50]])
    ids[20:25, 20:25], ids[30, 30], ids[100, 100] = 0, 2, 1
    filled = marking.fill_holes(ids.copy(), 1)
    assert (filled[20:25, 20:25] == 1).all() and filled[30, 30] == 2
    assert marking.drop_specks(ids.copy(), 1)[100, 100] == 0


@pytest.mark.parametrize("points", [[], None, [["a", 1]], [[float("nan"), 1]], [1, 2, 3]])
def test_points_that_are_none_are_refused(points):
    with pytest.raises(InputError, match="points"):
        marking.paint(EMPTY.copy(), 1, points, 5)
