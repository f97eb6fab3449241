"""Clicks and boxes on the page."""

import cv2
import numpy as np
import pytest

from interactive.clicking import Clicker
from tests.painted_network import PaintedNetwork
from util.errors import InputError

PLACE = 0, 4


@pytest.fixture
def image():
    """A red square of 24×20 pixels, from (100, 30)."""
    image = np.zeros((90, 160, 3), np.uint8)
    image[30:50, 100:124, 0] = 200
    return image


@pytest.fixture
def empty():
    return np.zeros((90, 160), np.uint8)


@pytest.fixture
def network():
    return PaintedNetwork()


@pytest.fixture
def clicker(network):
    return Clicker(lambda: network)


def is_square(plane, by=0.9):
    square = np.zeros((90, 160), bool)
    square[30:50, 100:124] = True
    return (plane & square).sum() / (plane | square).sum() > by


def count_clicks(network):
    """How many separate positive clicks the network has seen last."""
    return cv2.connectedComponents(network.hints[0, 0].byte().numpy())[0] - 1


def test_click_and_box_find_the_object(clicker, image, empty):
    assert is_square(clicker.click(empty, PLACE, image, [[110.5, 40.5]], [True]) == 4)
    assert is_square(clicker.box(empty, PLACE, image, [[126, 52], [98, 28]]) == 4)


def test_a_further_click_goes_on_and_an_undone_one_is_forgotten(clicker, network, image, empty):
    first = clicker.click(empty, PLACE, image, [[110, 40]], [True])
    second = clicker.click(first, PLACE, image, [[110, 40], [90, 20]], [True, True])
    assert count_clicks(network) == 2 and not np.array_equal(first, second)
    # The page was undone to the first mask, so that the second click is no more.
    clicker.click(first, PLACE, image, [[112, 42]], [True])
    assert count_clicks(network) == 1


def test_clicks_on_another_object_or_frame_begin_anew(clicker, network, image, empty):
    ids = clicker.click(empty, PLACE, image, [[90, 20], [110, 40]], [False, True])
    for place in ((0, 5), (1, 4)):
        clicker.click(ids if place[0] == 0 else empty, place, image, [[112, 42]], [True])
        assert not (network.hints[:, 1] > 0).any()


def test_only_objects_that_are_clicked_at_lose_pixels(clicker, image, empty):
    other = empty.copy()
    other[30:50, 90:110] = 7
    changed = clicker.click(other.copy(), PLACE, image, [[118, 40]], [True])
    assert np.array_equal(changed == 7, other == 7) and (changed[30:50, 111:123] == 4).all()
    taken = clicker.click(other.copy(), PLACE, image, [[105, 40]], [True])
    assert is_square(taken == 4) and (taken[30:50, 90:98] == 7).all()


def test_what_was_taken_goes_back_when_the_next_click_does_not_want_it(clicker, image, empty):
    other = empty.copy()
    other[30:50, 100:124] = 7
    first = clicker.click(other, PLACE, image, [[110, 40]], [True])
    assert is_square(first == 4)
    # The median of both clicks is the black around the square.
    second = clicker.click(first.copy(), PLACE, image, [[110, 40], [60, 70]], [True, True])
    assert np.array_equal(second == 7, other == 7) and second[70, 60] == 4


def test_points_beside_the_image_count_as_its_edge(clicker, image, empty):
    image[80:, :20, 0] = 200
    assert clicker.click(empty, PLACE, image, [[-50, 500]], [True])[89, 0] == 4


@pytest.mark.parametrize("points", [[[3, 3]], [[3, 3], [3, 9]], [], [["a", 1], [2, 3]]])
def test_boxes_that_are_none_are_refused(clicker, image, empty, points):
    with pytest.raises(InputError, match=r"box|points"):
        clicker.box(empty, PLACE, image, points)


def test_each_point_says_whether_it_is_on_the_object(clicker, image, empty):
    with pytest.raises(InputError, match="2 points, but 1"):
        clicker.click(empty, PLACE, image, [[3, 3], [4, 4]], [True])
