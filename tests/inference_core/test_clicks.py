"""ClickSession: hints in, mask out."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from inference_core import ClickSession
from inference_core.clicks import View, keep_pieces
from model.clicks import CLICK_PRESETS, ClickNetwork
from tests.painted_network import PaintedNetwork
from tests.trees import photograph
from util.errors import InputError

HEIGHT, WIDTH = 90, 160


@pytest.fixture
def image():
    """A red square of 24×20 pixels, from (100, 30)."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[30:50, 100:124, 0] = 200
    return image


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return ClickNetwork(CLICK_PRESETS["tiny"]).eval().requires_grad_(False)


def near(mask, left, top, right, bottom, by=1):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.abs(np.array([columns[0], rows[0], columns[-1], rows[-1]]) - (left, top, right, bottom)).max() <= by


def test_mask_lies_in_the_pixels_of_the_image(image):
    session = ClickSession(PaintedNetwork(), image)
    mask = session.click(110, 40)
    assert mask.shape == (HEIGHT, WIDTH) and mask.dtype == bool and near(mask, 100, 30, 123, 49)
    assert np.array_equal(session.mask, mask)


def test_session_zooms_in_and_reuses_features_of_a_part(image):
    network = PaintedNetwork()
    session = ClickSession(network, image)
    session.click(110, 40)
    assert len(network.seen) == 2, "the whole image, then the object from near"
    mask = session.click(112, 42)
    assert len(network.seen) == 2 and near(mask, 100, 30, 123, 49)


def test_earlier_mask_and_hints_are_drawn_where_they_are(image):
    """In the zoomed part, the planes show the mask so far on the object, and discs at the clicks."""
    network = PaintedNetwork()
    session = ClickSession(network, image)
    session.click(110, 40)
    session.click(2, 2, positive=False)
    session.click(101, 31)
    positive, negative, _, previous = network.hints[0].numpy()
    assert previous[positive > 0].mean() > 0.7 and not negative.any(), "the negative click lies outside"
    assert (previous > 0.5).mean() == pytest.approx(24 * 20 / 64 ** 2, rel=0.1)


def test_undo_leaves_no_trace(network):
    image = photograph(3, (HEIGHT, WIDTH))
    one, other = (ClickSession(network, image) for _ in range(2))
    expected = [other.click(80, 45), other.click(30, 20, positive=False)]
    first = one.click(80, 45)
    one.box(3, 4, 150, 60)
    assert np.array_equal(one.undo(), first)
    assert np.array_equal(one.click(30, 20, positive=False), expected[1])
    one.undo()
    assert not one.undo().any() and not one.hints
    assert not one.undo().any()


def test_mask_to_start_from(image):
    start = np.zeros((HEIGHT, WIDTH), np.uint8)
    start[20:60, 90:130] = 1
    network = PaintedNetwork()
    session = ClickSession(network, image, mask=start)
    assert np.array_equal(session.mask, start > 0)
    session.click(110, 40)
    assert network.hints[0, 3].mean() > 0.3
    assert np.array_equal(session.undo(), start > 0)


def test_pictures_and_masks_of_other_libraries(image):
    expected = ClickSession(PaintedNetwork(), image).click(110, 40)
    for form in (Image.fromarray, torch.from_numpy):
        assert np.array_equal(ClickSession(PaintedNetwork(), form(image)).click(110, 40), expected)
    for mask in (expected.tolist(), torch.from_numpy(expected), -1 * expected, Image.fromarray(expected)):
        assert np.array_equal(ClickSession(PaintedNetwork(), image, mask).mask, expected)


def test_box_and_stroke_are_hints(image):
    network = PaintedNetwork()
    session = ClickSession(network, image)
    mask = session.box(123, 49, 100, 30)
    assert near(mask, 100, 30, 123, 49) and network.hints[0, 2].any()
    session.stroke([(102, 32), (120, 45)])
    assert network.hints[0, 0].sum() > 300
    session.box(90, 25, 130, 55)
    assert sum(hint.box for hint in session.hints) == 1
    session.box(0, 0, WIDTH, HEIGHT)
    assert session.hints[-1].points == ((0, 0), (WIDTH - 1, HEIGHT - 1))


@pytest.mark.parametrize("box, points", [
    ((7, 5, 7, 9), ((7, 5), (7, 9))),
    ((7, 5, 7, 5), ((7, 5), (7, 5))),
    ((WIDTH - 1, 10, WIDTH, 60), ((WIDTH - 1, 10), (WIDTH - 1, 60))),
    ((0, HEIGHT, 20, HEIGHT - 1), ((0, HEIGHT - 1), (20, HEIGHT - 1))),
])
def test_a_box_may_be_one_pixel_wide(box, points, image):
    network = PaintedNetwork()
    session = ClickSession(network, image)
    session.box(*box)
    assert session.hints[-1].points == points and network.hints[0, 2].any()


@pytest.mark.parametrize("call, part", [
    (lambda session: session.click(WIDTH, 3), "outside of the image of 160×90"),
    (lambda session: session.click(float("nan"), 3), "outside"),
    (lambda session: session.stroke([]), "without points"),
    (lambda session: session.box(-3, 0, 5, 5), "outside"),
    (lambda session: session.click(None, 3), r"a point is a pair of numbers \(x, y\); given were \[\(None, 3\)\]"),
    (lambda session: session.stroke([5, 3]), "a pair of numbers"),
    (lambda session: session.stroke([(1, 2, 3)]), "a pair of numbers"),
    (lambda session: session.stroke("here"), "a pair of numbers"),
    (lambda session: session.box("left", 0, 5, None), "a pair of numbers"),
    (lambda session: session.box(WIDTH + 1, 0, WIDTH + 1, 5), "outside"),
])
def test_hints_outside_of_the_image_are_refused(call, part, image):
    session = ClickSession(PaintedNetwork(), image)
    with pytest.raises(InputError, match=part):
        call(session)
    assert not session.hints


def test_wrong_pictures_are_refused(image):
    for wrong in (image[..., 0], image.astype(np.float32), image[:0], None, "image.png", image.tolist()):
        with pytest.raises(InputError, match="uint8 H×W×3"):
            ClickSession(PaintedNetwork(), wrong)
    with pytest.raises(InputError, match="the mask has the shape"):
        ClickSession(PaintedNetwork(), image, mask=np.zeros((3, 4)))


def test_threads_that_share_a_network_get_the_masks_of_one(network):
    image = photograph(4, (HEIGHT, WIDTH))
    points = [(20 * number + 10, 45) for number in range(4)]
    expected = [ClickSession(network, image).click(*point) for point in points]
    found = [None] * len(points)

    def click(number):
        found[number] = ClickSession(network, image).click(*points[number])

    threads = [threading.Thread(target=click, args=(number,)) for number in range(len(points))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(*each) for each in zip(found, expected, strict=True))


def test_views():
    assert View(0, 0, 10, 10).overlap(View(5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert View(0, 0, 10, 10).holds(View(2, 2, 8, 8)) and not View(0, 0, 10, 10).holds(View(2, 2, 9, 8))


def test_pieces_that_nobody_clicked_at_are_left_out():
    logits = np.full((10, 30), -9, np.float32)
    logits[2:6, 2:8], logits[2:6, 12:18], logits[2:6, 22:28] = 9, 9, 9
    positive, previous = np.zeros((2, 40, 120), np.float32)
    positive[16, 20] = 1
    previous[8:24, 48:72] = 1
    kept = keep_pieces(logits, positive, previous) > 0
    assert kept[2:6, 2:8].all() and kept[2:6, 12:18].all() and kept.sum() == 48
    assert (keep_pieces(logits, positive * 0, previous * 0) == logits).all(), "a box alone names no piece"
