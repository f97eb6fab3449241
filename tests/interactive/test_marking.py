"""What the drawing tools do to a mask."""

import numpy as np
import pytest

from interactive import marking
from util.errors import InputError

EMPTY = np.zeros((120, 160), np.uint8)


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
