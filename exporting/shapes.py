"""The mask of one object in one frame, and what may be done to it on its way out."""

from typing import NamedTuple

import cv2
import numpy as np


class ObjectMask(NamedTuple):
    """Where one object is in one frame: a box that fits it tightly, and which pixels of the box it has."""

    object_id: int
    left: int
    top: int

    pixels: np.ndarray
    """uint8 h×w, 1 for the object. No row or column at its edges is empty."""

    @property
    def box(self):
        """[left, top, width, height]"""
        return [self.left, self.top, self.pixels.shape[1], self.pixels.shape[0]]

    @property
    def area(self):
        return int(np.count_nonzero(self.pixels))

    @property
    def place(self):
        """The slices of the frame that the box takes."""
        return np.s_[self.top:self.top + self.pixels.shape[0], self.left:self.left + self.pixels.shape[1]]


def crop_mask(object_id, pixels, left=0, top=0):
    """The ObjectMask of uint8 h×w whose upper left corner is at (left, top) of the frame; None if it is empty."""
    x, y, width, height = cv2.boundingRect(pixels)
    if not width:
        return None
    return ObjectMask(object_id, left + x, top + y, np.ascontiguousarray(pixels[y:y + height, x:x + width]))


def split_ids(ids, objects=None):
    """The ObjectMasks of uint8 H×W object ids, in the order of the ids. objects: which ones, None for all."""
    found = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[1:]) + 1
    return [crop_mask(int(object_id), (ids == object_id).view(np.uint8)) for object_id in found
            if objects is None or object_id in objects]


def shape_mask(mask, size, settings):
    """An ObjectMask as `settings` (ExportSettings) want it; None if nothing of it is left. size: (width, height)."""
    if settings.largest:
        mask = keep_largest(mask)
    if settings.fill_holes:
        outlines, _ = cv2.findContours(mask.pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        mask = mask._replace(pixels=cv2.drawContours(mask.pixels.copy(), outlines, -1, 1, cv2.FILLED))
    return grow(mask, settings.grow, size) if settings.grow else mask


def keep_largest(mask):
    """The largest part of an ObjectMask. Pixels that touch at a corner belong together."""
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(mask.pixels, connectivity=8)
    if count <= 2:
        return mask
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    return crop_mask(mask.object_id, (parts == largest).view(np.uint8), mask.left, mask.top)


def grow(mask, distance, size):
    """An ObjectMask whose edge is moved outwards by so many pixels, inwards if negative; None if nothing is left.

    An object that goes on beyond the edge of the frame does not shrink there.
    """
    wide, left, top = widen(mask, abs(distance) + 1, size)
    side = 2 * abs(distance) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    change = cv2.dilate if distance > 0 else cv2.erode
    return crop_mask(mask.object_id, change(wide, kernel), left, top)


def soften(mask, distance, size):
    """How much of each pixel an ObjectMask takes if its edge is `distance` pixels wide: (uint8 h×w to 255, left, top).

    An object that goes on beyond the edge of the frame is not soft there.
    """
    if not distance:
        return mask.pixels * np.uint8(255), mask.left, mask.top
    wide, left, top = widen(mask, 2 * distance + 1, size)
    # Half of the width to each side is two standard deviations.
    sigma = distance / 4
    return cv2.GaussianBlur(wide * np.uint8(255), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), left, top


def widen(mask, margin, size):
    """An ObjectMask's pixels with up to `margin` more on each side, as far as the frame goes: (pixels, left, top)."""
    x, y, width, height = mask.box
    left, top = max(0, x - margin), max(0, y - margin)
    right, bottom = min(size[0], x + width + margin), min(size[1], y + height + margin)
    wide = np.zeros((bottom - top, right - left), np.uint8)
    wide[y - top:y - top + height, x - left:x - left + width] = mask.pixels
    return wide, left, top


class Hold:
    """Keeps the masks of objects that vanish for a number of frames. length: that number."""

    def __init__(self, length):
        self._length = length
        self._last = {}  # {object id: [ObjectMask, how many frames ago it was seen]}

    def add(self, masks):
        """The ObjectMasks of the next frame, and those that are held on."""
        seen = {mask.object_id for mask in masks}
        for entry in self._last.values():
            entry[1] += 1
        held = [mask for mask, ago in self._last.values() if mask.object_id not in seen and ago <= self._length]
        self._last |= {mask.object_id: [mask, 0] for mask in masks}
        return sorted([*masks, *held])
