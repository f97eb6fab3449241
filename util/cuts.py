"""Find the cuts of a video: frames with which a new shot begins."""

import cv2
import numpy as np

SIZE = (64, 36)
"""Frames are compared at this (width, height)."""

SHIFT = (10, 6)
"""A camera may move by so many pixels of SIZE to each side, and the frames still match."""

THRESHOLD = 0.7
"""Where colours and structure together differ by more than this, there is a cut, if each differs by PART or more."""

PART = 0.2
"""See THRESHOLD. A flash changes nothing but the colours, a fast pan little but the structure."""


class CutFinder:
    """Compares each frame with the one before. It keeps one small picture."""

    def __init__(self):
        self._before = None

    def is_cut(self, image):
        """Return whether a new shot begins with this frame, uint8 H×W×3 RGB. The first frame is no cut."""
        now = _describe(image)
        before, self._before = self._before, now
        if before is None:
            return False
        differences = _compare(before, now)
        return sum(differences) > THRESHOLD and min(differences) >= PART


def _describe(image):
    """Return (histogram of the colours, picture of brightness 36×64) of a frame."""
    small = cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA)
    counts = cv2.calcHist([cv2.cvtColor(small, cv2.COLOR_RGB2HSV)], [0, 1, 2], None, (8, 4, 4),
                          (0, 180, 0, 256, 0, 256))
    grey = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1)
    return counts / counts.sum(), grey


def _compare(before, now):
    """Return how much two frames differ, in colours and in structure.

    Colours, 0 to 1: the share of the pixels whose colours differ. Structure, 0 to 2: one minus the correlation of the
    brightness, where one frame fits best on the other.
    """
    (colours_before, grey_before), (colours, grey) = before, now
    x, y = SHIFT
    middle = grey[y:-y, x:-x]
    # A picture of one colour has no structure to correlate.
    plain = [float(picture.std()) < 1 for picture in (grey_before, middle)]
    structure = float(plain[0] != plain[1]) if any(plain) else (
        1 - float(cv2.matchTemplate(grey_before, middle, cv2.TM_CCOEFF_NORMED).max()))
    return 1 - float(np.minimum(colours_before, colours).sum()), structure
