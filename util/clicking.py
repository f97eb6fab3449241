"""Clicks, strokes and boxes as planes of a picture, and the clicks that a patient user would make."""

import cv2
import numpy as np

from util.mask_rule import VOID

RADIUS = 5
"""The radius in pixels of the disc that stands for a click, and half the width of a stroke."""

POSITIVE, NEGATIVE, BOX = range(3)
"""What each plane of `make_planes` shows."""


def make_planes(height, width):
    """Return empty planes uint8 3×height×width: discs of positive clicks, discs of negative ones, the filled box."""
    return np.zeros((3, height, width), np.uint8)


def draw_stroke(planes, points, positive=True):
    """Draw a line through `points`, (x, y) each, into planes of `make_planes`. One point is a click, a disc.

    Whole numbers are centres of pixels. What the line covers is no longer in the plane of the other sign.
    """
    # OpenCV takes fixed-point numbers, here with four bits behind the point.
    points = np.round(np.asarray(points, np.float64).reshape(-1, 2) * 16).astype(np.int32)
    line = np.zeros(planes.shape[1:], np.uint8)
    if len(points) > 1:
        cv2.polylines(line, [points.reshape(-1, 1, 2)], False, 1, 2 * RADIUS + 1, shift=4)
    for x, y in points:
        cv2.circle(line, (int(x), int(y)), RADIUS * 16, 1, -1, shift=4)
    own, other = (POSITIVE, NEGATIVE) if positive else (NEGATIVE, POSITIVE)
    planes[own] |= line
    planes[other] &= 1 - line


def draw_box(planes, left, top, right, bottom):
    """Fill a box in planes of `make_planes`, instead of an earlier one. Its edges belong to it."""
    planes[BOX] = 0
    corners = [max(0, round(left)), max(0, round(top)), round(right) + 1, round(bottom) + 1]
    planes[BOX, corners[1]:max(corners[3], 0), corners[0]:max(corners[2], 0)] = 1


def find_next_click(found, truth, clicked=(), depth=None):
    """Return (x, y, positive) of the click that corrects a mask most, or None if the mask is right.

    It lies in the middle of an error: where the distance to the error's border is largest, among the parts of the
    object that are missing and the parts that are too many (Sofiiuk et al., RITM, 2021).

    found: bool H×W, the mask so far. truth: uint8 H×W, 1 for the object, VOID where anything is right. clicked: (x, y)
    of earlier clicks; the same pixel is never clicked again. depth: None for the deepest pixel, or (share, which), both
    in [0, 1): of the pixels whose distance is at least `share` of the largest one, the one at `which` of their number.
    """
    missing, extra = _distances((truth == 1) & ~found), _distances((truth == 0) & found)
    for x, y in clicked:
        missing[y, x] = extra[y, x] = 0
    positive = bool(missing.max() > extra.max())
    distances = missing if positive else extra
    deepest = distances.max()
    if deepest <= 0:
        return None
    index = int(distances.argmax())
    if depth is not None:
        inside = np.flatnonzero(distances >= depth[0] * deepest)
        index = inside[int(depth[1] * len(inside))]
    y, x = divmod(int(index), truth.shape[1])
    return x, y, positive


def _distances(error):
    """Return how far each pixel of an error, bool H×W, is from its border; the image ends there, too."""
    if not error.any():
        return np.zeros(error.shape, np.float32)
    return cv2.distanceTransform(np.pad(error, 1).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]


def iou(found, truth):
    """Return the intersection over union of a mask bool H×W and the truth uint8 H×W, whose VOID pixels do not count."""
    known = truth != VOID
    common = np.count_nonzero(found & (truth == 1))
    union = np.count_nonzero((found | (truth == 1)) & known)
    return common / union if union else 1.0
