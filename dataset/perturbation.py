"""Damage masks at random, so that they look like predictions."""

import functools

import cv2

ROUNDS = 250
"""After so many rounds, the mask is damaged enough, whatever the target."""

REACH = 5
"""Pixels that the largest structuring element, 9×9, reaches from its centre, plus one."""


def perturb_mask(mask, rng, lowest=0.85, highest=1.0):
    """Return a copy of `mask`, uint8 H×W of 0 and 1, damaged until its IoU with `mask` falls below a random target.

    The target is uniform in [lowest, highest]; 1 leaves the mask as it is. In each of up to 250 rounds, four random
    rectangles are dilated or eroded with a random structuring element of 3 to 9 pixels. Before that, the centre of one
    rectangle in ten is set to 0 or 1, which makes holes and false parts (Cheng et al., CascadePSP, CVPR 2020, section
    3.3). An empty mask stays empty.
    """
    target = rng.uniform(lowest, highest)
    damaged = mask.copy()
    bounds = cv2.boundingRect(mask)
    if target >= 1 or not bounds[2]:
        return damaged
    area = cv2.countNonZero(mask)
    for _ in range(ROUNDS):
        for _ in range(4):
            _damage(damaged, rng)
        common = cv2.countNonZero(damaged & mask)
        if common < target * (area + cv2.countNonZero(damaged) - common):
            break
    return damaged


def _damage(mask, rng):
    """Dilate or erode a random rectangle of a mask uint8 H×W of 0 and 1; in place."""
    height, width = mask.shape
    left, top = rng.integers(width), rng.integers(height)
    right, bottom = rng.integers(left, width) + 1, rng.integers(top, height) + 1
    if rng.random() < 0.1:
        mask[(top + bottom) // 2, (left + right) // 2] = rng.integers(2)
    grow = rng.random() < 0.5
    element = _element(int(rng.integers(4)), int(rng.integers(3, 10)))
    # Only pixels within the element's reach of the object can change. Leaving out the others saves most of the time.
    x, y, w, h = cv2.boundingRect(mask)
    if not w:
        return
    left, top = max(left, x - REACH), max(top, y - REACH)
    right, bottom = min(right, x + w + REACH), min(bottom, y + h + REACH)
    if left < right and top < bottom:
        part = mask[top:bottom, left:right]
        part[:] = (cv2.dilate if grow else cv2.erode)(part, element)


@functools.cache
def _element(kind, size):
    """Return a structuring element, uint8: a rectangle (kind 0), a disc (1), a flat (2) or an upright ellipse (3)."""
    shape = cv2.MORPH_ELLIPSE if kind else cv2.MORPH_RECT
    return cv2.getStructuringElement(shape, ((size, size), (size, size), (size, size // 2), (size // 2, size))[kind])
