"""Random damage to a mask, as if it had been predicted."""

import functools

import cv2

ROUNDS = 250
REACH = 5
"""Pixels that the largest structuring element, 9×9, reaches from its centre, and one more."""


def perturb_mask(mask, rng, lowest=0.85, highest=1.0):
    """A copy of uint8 H×W `mask` (0 and 1), damaged until its IoU with the mask falls below a random target.

    The target is uniform in [lowest, highest]; 1 leaves the mask as it is. Four times a round, a random rectangle is
    dilated or eroded with a random structuring element of 3 to 9 pixels, and one time in ten its centre is set to 0
    or 1 before, which makes holes and false parts (Cheng et al., CascadePSP, CVPR 2020, section 3.3). Gives up after
    250 rounds. An empty mask stays empty.
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
    height, width = mask.shape
    left, top = rng.integers(width), rng.integers(height)
    right, bottom = rng.integers(left, width) + 1, rng.integers(top, height) + 1
    if rng.random() < 0.1:
        mask[(top + bottom) // 2, (left + right) // 2] = rng.integers(2)
    grow = rng.random() < 0.5
    element = _element(int(rng.integers(4)), int(rng.integers(3, 10)))
    # Nothing changes further from the object than an element reaches, and most rectangles are mostly background.
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
    """A rectangle, a disc, a flat ellipse or an upright one; uint8."""
    shape = cv2.MORPH_ELLIPSE if kind else cv2.MORPH_RECT
    return cv2.getStructuringElement(shape, ((size, size), (size, size), (size, size // 2), (size // 2, size))[kind])
