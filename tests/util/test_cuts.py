"""CutFinder, on shots that are painted here."""

import cv2
import numpy as np
import pytest

from util.cuts import CutFinder


def scene(seed, size=(240, 426)):
    """A picture of large coloured patches, half as wide again as a frame."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 12, 3), dtype=np.uint8)
    return cv2.resize(colours, (size[1] * 3 // 2, size[0]), interpolation=cv2.INTER_CUBIC)


def shot(seed, length=8, pan=4):
    """Frames of a camera that pans over a scene."""
    picture = scene(seed)
    return [np.ascontiguousarray(picture[:, pan * number:pan * number + 426]) for number in range(length)]


def find(frames):
    finder = CutFinder()
    return [number for number, frame in enumerate(frames) if finder.is_cut(frame)]


def test_the_first_frames_of_shots_are_found():
    assert find([*shot(1), *shot(2), *shot(3)]) == [8, 16]


@pytest.mark.parametrize("pan", [0, 4, 24])
def test_a_moving_camera_is_no_cut(pan):
    assert find(shot(1, pan=pan)) == []


def test_a_flash_is_no_cut():
    frames = shot(1)
    frames[4] = np.clip(frames[4] * 1.3 + 30, 0, 255).astype(np.uint8)
    assert find(frames) == []


def test_something_that_passes_is_no_cut():
    frames = shot(1)
    for number, frame in enumerate(frames):
        frame[60:180, 50 * number:50 * number + 100] = (250, 20, 20)
    assert find(frames) == []


def test_a_cut_to_black_is_one_and_a_flicker_of_one_colour_is_none():
    black, white = np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 255, np.uint8)
    assert find([black, black, white, *shot(1), black]) == [3, 11]
