"""What each drawing tool does to a mask: functions of the mask and of what the pointer did.

Points are [x, y] in pixels of the frame; they may lie outside. Object ids are uint8 H×W, 0 is background.
"""

import cv2
import numpy as np

from util.errors import InputError

SPECK = 0.02
"""Parts of an object that are smaller than this share of its largest part are specks."""


def paint(ids, object_id, points, width):
    """Draw a line with round ends, `width` pixels wide; object 0 erases."""
    path = _as_pixels(points)
    width = max(1, round(width))
    plane = np.zeros(ids.shape, np.uint8)
    if len(path) == 1 or width == 1:
        cv2.circle(plane, path[0].tolist(), width // 2, 1, cv2.FILLED)
    cv2.polylines(plane, [path], False, 1, width)
    ids[plane > 0] = object_id
    return ids


def erase(ids, object_id, points, width):
    """Erase the object along a line; object 0: all objects."""
    plane = paint(np.zeros_like(ids), 1, points, width) > 0
    ids[plane & ((ids == object_id) | (object_id == 0))] = 0
    return ids


def fill_polygon(ids, object_id, points):
    """Fill a polygon."""
    if len(points) < 3:
        raise InputError("a polygon has at least three corners")
    plane = np.zeros(ids.shape, np.uint8)
    cv2.fillPoly(plane, [_as_pixels(points)], 1)
    ids[plane > 0] = object_id
    return ids


def fill_holes(ids, object_id):
    """Fill the holes of an object with it, where no other object is."""
    ids[_without_holes(ids == object_id) & (ids == 0)] = object_id
    return ids


def drop_specks(ids, object_id):
    """Drop the parts of an object that are much smaller than its largest part."""
    count, parts, statistics, _ = cv2.connectedComponentsWithStats((ids == object_id).view(np.uint8), connectivity=8)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    if count > 1:
        small = 1 + np.flatnonzero(areas < max(2, SPECK * areas.max()))
        ids[np.isin(parts, small)] = 0
    return ids


def as_points(points):
    """Return points as float64 N×2. Raises InputError for what is none."""
    try:
        path = np.asarray(points, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        path = np.zeros((0, 2))
    if not len(path) or not np.isfinite(path).all():
        raise InputError("points [x, y] were expected")
    return path


def _as_pixels(points):
    """Return points as int32 N×2, no farther away than OpenCV can draw."""
    return np.clip(np.floor(as_points(points)), -2**15, 2**15).astype(np.int32)


def _without_holes(plane):
    """A bool plane H×W with its holes filled."""
    outside = np.pad(~plane, 1, constant_values=True).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2, flags=4)
    return outside[1:-1, 1:-1] != 2
