"""What each drawing tool does to a mask: functions of the mask, the frame and what the pointer did.

Points are [x, y] in pixels of the frame; they may lie outside. Object ids are uint8 H×W, 0 is background.
"""

import cv2
import numpy as np

from util.errors import InputError

CLICK_SIDE = 0.5
"""A click looks for its object in a square around it, whose side is this share of the frame's shorter side."""

WORKING_SIDE = 128
"""GrabCut works on crops reduced to this side in pixels, so that a click takes a tenth of a second."""

ROUNDS = 3
"""Rounds of GrabCut."""

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


def select_in_box(ids, object_id, image, points):
    """Find the object that fills a box, given by two opposite corners. Where nothing is found, the box is filled.

    Other objects keep their pixels.
    """
    (left, top), (right, bottom) = np.sort(_as_pixels(points[:2]), axis=0).tolist()
    height, width = ids.shape
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if right - left < 2 or bottom - top < 2:
        raise InputError("the box is empty")
    margin = max(8, round(0.25 * max(right - left, bottom - top)))
    crop = _crop(ids.shape, left - margin, top - margin, right + margin, bottom + margin)
    part, y, x = ids[crop], crop[0].start, crop[1].start
    others = (part > 0) & (part != object_id)
    labels = np.full(part.shape, cv2.GC_BGD, np.uint8)
    labels[top - y:bottom - y, left - x:right - x] = cv2.GC_PR_FGD
    found = _grab_cut(image[crop], labels, others)
    if not found.any():
        found = labels == cv2.GC_PR_FGD
    part[_without_holes(found) & ~others] = object_id
    return ids


def select_at_clicks(ids, object_id, image, points, positive):
    """Find the object at clicks. positive: for each of `points`, whether it is on the object, or surely beside it.

    What the object had near the clicks before is a hint, and may go. Other objects keep their pixels.
    """
    points = np.clip(_as_pixels(points), 0, np.array(ids.shape[::-1]) - 1)
    half = round(CLICK_SIDE * min(ids.shape) / 2)
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    crop = _crop(ids.shape, left - half, top - half, right + half, bottom + half)
    part = ids[crop]
    clicks = list(zip((points - (crop[1].start, crop[0].start)).tolist(), positive, strict=True))
    before, others = part == object_id, (part > 0) & (part != object_id)
    # What is near a click probably belongs to its object; what is at the edge of the crop does not.
    labels = np.full(part.shape, cv2.GC_PR_BGD, np.uint8)
    edge = max(2, half // 10)
    frame = np.ones(part.shape, bool)
    frame[edge:-edge, edge:-edge] = False
    labels[frame] = cv2.GC_BGD
    labels[before] = cv2.GC_PR_FGD
    for radius, marks in ((max(3, half // 3), (cv2.GC_PR_FGD, cv2.GC_PR_BGD)),
                          (max(2, half // 24), (cv2.GC_FGD, cv2.GC_BGD))):
        for point, on in clicks:
            cv2.circle(labels, point, radius, marks[0] if on else marks[1], cv2.FILLED)
    found = _grab_cut(image[crop], labels, others)
    # Only parts with a click on them, or that were there before.
    _, parts = cv2.connectedComponents(found.view(np.uint8), connectivity=4)
    wanted = {parts[y, x] for (x, y), on in clicks if on} | set(np.unique(parts[before & found]).tolist())
    part[before] = 0
    found &= np.isin(parts, list(wanted - {0}))
    part[_without_holes(found) & (labels != cv2.GC_BGD) & ~others] = object_id
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


def _as_pixels(points):
    """Points as int32 N×2. Raises InputError for what is none."""
    try:
        path = np.asarray(points, np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        path = np.zeros((0, 2))
    if not len(path) or not np.isfinite(path).all():
        raise InputError("points [x, y] were expected")
    return np.clip(np.floor(path), -2**15, 2**15).astype(np.int32)


def _crop(shape, left, top, right, bottom):
    """The part of a frame in a box as far as there is any, as slices."""
    height, width = shape
    return slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))


def _grab_cut(image, labels, others):
    """Return where GrabCut finds the object, bool H×W, in a crop.

    labels: OpenCV's GC_… of what is known, uint8 H×W. others: where other objects are, bool H×W.
    """
    surely = (labels == cv2.GC_BGD) & ~others
    if others.any() and surely.any():
        # Another object may look like this one: its colours must not count as the background's.
        image = image.copy()
        image[others] = np.median(image[surely], 0)
    labels = np.where(others, cv2.GC_BGD, labels).astype(np.uint8)
    scale = min(1, WORKING_SIDE / max(labels.shape))
    size = [max(8, round(side * scale)) for side in labels.shape[::-1]]
    small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    if not (small % 2 == 0).any() or not (small % 2 == 1).any():
        return labels % 2 == 1
    colours = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    # GrabCut starts from random centres, which OpenCV draws for each thread on its own.
    cv2.setRNGSeed(0)
    cv2.grabCut(colours, small, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = cv2.resize((small % 2).astype(np.float32), labels.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    return (found | (labels == cv2.GC_FGD)) & (labels != cv2.GC_BGD)


def _without_holes(plane):
    """A bool plane H×W with its holes filled."""
    outside = np.pad(~plane, 1, constant_values=True).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2, flags=4)
    return outside[1:-1, 1:-1] != 2
