"""Clicks and boxes of the command line become masks."""

import numpy as np
import pytest

from inference_core.clicked_masks import find_hint_frames, mark_objects, read_hints
from tests.painted_network import PaintedNetwork
from util.errors import InputError


@pytest.fixture
def image():
    """Two red squares of 20×20 pixels, that touch, the right one darker; and a third one apart."""
    image = np.zeros((90, 160, 3), np.uint8)
    image[30:50, 60:80, 0], image[30:50, 80:100, 0], image[60:80, 10:30, 0] = 220, 120, 220
    return image


def mark(image, clicks, boxes=()):
    return mark_objects(PaintedNetwork(), image, read_hints(clicks, boxes))


def test_clicks_mark_objects(image):
    ids = mark(image, ["70,40", "0:90,40:3"])
    assert (ids[32:48, 62:78] == 1).all() and (ids[32:48, 82:98] == 3).all()
    assert set(np.unique(ids)) == {0, 1, 3} and (ids > 0).mean() < 0.07


def test_box_marks_an_object(image):
    ids = mark(image, [], ["0:8,58,32,82:2"])
    assert (ids[62:78, 12:28] == 2).all() and not ids[:50].any()


@pytest.mark.parametrize("text, says", [
    ("5", "--click 5: FRAME:X,Y:ID was expected"), ("1,2,3", "FRAME:X,Y:ID"), ("1,2:0", "ids go from 1 to 255"),
    ("1,2:256", "ids go from 1 to 255"), ("0:-1,2", "FRAME:X,Y:ID"), ("0:nan,2", "FRAME:X,Y:ID"), ("", "FRAME:X,Y:ID"),
])
def test_what_is_no_click_is_refused(text, says):
    with pytest.raises(InputError, match=says):
        read_hints([text], None)


def test_what_is_no_box_is_refused():
    for text in ("1,2", "0:1,2,3,4:-1", "1,2,3"):
        with pytest.raises(InputError, match="LEFT,TOP,RIGHT,BOTTOM"):
            read_hints(None, [text])


def test_hints_that_mark_nothing_are_refused(image):
    with pytest.raises(InputError, match=r"--click 200,3: the point \(200, 3\) is outside of the image of 160×90"):
        mark(image, ["200,3"])
    hints = read_hints(["5:3,3:-2", "5:8,8"], None)
    with pytest.raises(InputError, match="5:3,3:-2: says what is not object 2"):
        find_hint_frames(hints, NumberedFrames())


class NumberedFrames:
    """What a video file of ten frames says of them."""

    names, first, length = None, "00000", 10

    def holds(self, number):
        return number < 10

    def name(self, number):
        return f"{number:05d}"


def test_frames_are_found():
    found = find_hint_frames(read_hints(["3,3", "5:3,3:2", "5:9,9:2"], ["7:1,1,9,9"]), NumberedFrames())
    assert {name: len(hints) for name, hints in found.items()} == {"00007": 1, "00000": 1, "00005": 2}
    assert list(find_hint_frames(read_hints(["3,3"], None), NumberedFrames(), "00009")) == ["00009"]
    with pytest.raises(InputError, match="--click 12:3,3: no frame 12 is tracked"):
        find_hint_frames(read_hints(["12:3,3"], None), NumberedFrames())
