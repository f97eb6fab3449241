"""The measures J (region similarity) and F (boundary accuracy) of DAVIS, and their statistics.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016, section 4.
All counts are exact integers, and all divisions are in the order of the official code, so every value is the same
float64 as there.

A boundary is kept as a bitset: a Python integer whose bit y·stride + x is pixel (y, x) of a crop. A shift or a union
of whole boundaries is then one operation on integers. Finding the boundary pixels within the radius in this way is
several times cheaper than dilating the image.
"""

import functools
import math
from typing import NamedTuple

import cv2
import numpy as np

from util.errors import InputError

BOUND = 0.008
"""Tolerance of F as a share of the image diagonal."""

RECALL_ABOVE = 0.5
"""Recall is the share of frames with values above this one."""

DECAY_BINS = 4
"""Decay compares the first with the last of so many equal parts of the video."""

DECAY_RULES = ("correct", "numpy1", "numpy2")
"""See `decay`."""

_TWO_BY_TWO = np.ones((2, 2), np.uint8)


class Region(NamedTuple):
    """One object in one frame, prepared for comparison with other objects in the same crop h×w."""

    mask: np.ndarray
    """uint8 h×w of 0 and 1."""

    boundary: int
    """Bitset of the boundary pixels."""

    reach: int
    """Bitset of the pixels within the radius of the boundary. Its bits outside the crop have no meaning."""


class Counts(NamedTuple):
    """The numbers of pixels from which J and F of one object in one frame are computed."""

    intersection: int
    union: int
    boundary_prediction: int
    boundary_ground_truth: int

    matched_prediction: int
    """Boundary pixels of the prediction within the radius of the ground truth's boundary."""

    matched_ground_truth: int
    """Boundary pixels of the ground truth within the radius of the prediction's boundary."""


def jaccard(ground_truth, prediction):
    """Return the region similarity J of two masks H×W: |A ∩ B| / |A ∪ B|, 1 if both are empty.

    Masks are bool, or whole numbers, which are not 0 in the object. Raises InputError for others.
    """
    ground_truth, prediction = _check_masks(ground_truth, prediction)
    return region_similarity(
        np.count_nonzero(ground_truth & prediction), np.count_nonzero(ground_truth | prediction)
    )


def boundary_f(ground_truth, prediction):
    """Return the boundary accuracy F of two masks H×W; they are as for `jaccard`."""
    ground_truth, prediction = _check_masks(ground_truth, prediction)
    radius = boundary_radius(*ground_truth.shape)
    return boundary_accuracy(
        compare_regions(make_region(ground_truth, radius), make_region(prediction, radius))
    )


def _check_masks(*masks):
    """Return two masks as bool H×W. Raises InputError for other kinds and shapes."""
    masks = [np.asarray(mask) for mask in masks]
    if masks[0].ndim != 2 or masks[0].shape != masks[1].shape or any(mask.dtype.kind not in "bui" for mask in masks):
        found = " and ".join(f"{mask.dtype} of shape {mask.shape}" for mask in masks)
        raise InputError(f"two masks H×W, bool or whole numbers, were expected; these are {found}")
    return [mask != 0 for mask in masks]


def region_similarity(intersection, union):
    """Return J from two areas in pixels (section 4.1): 1 if both masks are empty."""
    return intersection / union if union else 1.0


def boundary_accuracy(counts):
    """Return F, the harmonic mean of boundary precision and recall (section 4.2), from Counts.

    F is 1 if both boundaries are empty and 0 if one of them is. A mask that covers the whole image has an empty
    boundary, too.
    """
    if not counts.boundary_prediction or not counts.boundary_ground_truth:
        return 0.0 if counts.boundary_prediction or counts.boundary_ground_truth else 1.0
    precision = counts.matched_prediction / counts.boundary_prediction
    recall = counts.matched_ground_truth / counts.boundary_ground_truth
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def boundary_radius(height, width):
    """Return how many pixels a boundary may be off: 0.8 % of the image diagonal, rounded up (8 at 480×854)."""
    return math.ceil(BOUND * np.linalg.norm((height, width)))


def boundary_map(mask):
    """Return the boundary, uint8 h×w of 0 and 1, of a mask uint8 h×w of 0 and 1.

    A pixel belongs to the boundary if its right, lower or lower right neighbour has another value. On the object's
    upper and left sides these are the pixels just outside the object, on the lower and right sides the object's last
    pixels. The last row and column of the image count as repeated, so the image border is no boundary.
    """
    return cv2.morphologyEx(
        mask, cv2.MORPH_GRADIENT, _TWO_BY_TWO, anchor=(0, 0), borderType=cv2.BORDER_REPLICATE
    )


@functools.cache
def _disk_half_widths(radius):
    """Return half the width of the disk dx² + dy² ≤ radius² for each dy = 0 … radius."""
    return [math.isqrt(radius * radius - dy * dy) for dy in range(radius + 1)]


def _disk_dilation(bits, stride, radius):
    """Return the bitset of all pixels within `radius` of a set bit.

    A row has `stride` bits, of which at least the last `radius` must be unset, so that rows do not run into each other.
    """
    half_widths = _disk_half_widths(radius)
    # runs[w] holds the pixels with a set bit at most w pixels away in the same row.
    runs = [bits, bits << 1 | bits | bits >> 1]
    while len(runs) <= radius:
        runs.append(runs[-1] << 1 | runs[-1] >> 1)
    above = below = runs[half_widths[radius]]
    for dy in range(radius - 1, -1, -1):
        above = above >> stride | runs[half_widths[dy]]
        below = below << stride | runs[half_widths[dy]]
    return above | below


def make_region(mask, radius):
    """Return the Region of a mask h×w, bool or uint8 of 0 and 1: the whole image or a crop.

    A crop must include one row or column beyond the object on each side, except at the image's border.
    """
    mask = mask.view(np.uint8)
    height, width = mask.shape
    row_bytes = (width + radius + 7) // 8
    rows = np.zeros((height, row_bytes), np.uint8)
    rows[:, : (width + 7) // 8] = np.packbits(boundary_map(mask), axis=1, bitorder="little")
    boundary = int.from_bytes(rows.tobytes(), "little")
    return Region(mask, boundary, _disk_dilation(boundary, 8 * row_bytes, radius) if boundary else 0)


def compare_regions(ground_truth, prediction):
    """Return the Counts of two Regions of the same crop."""
    intersection = cv2.countNonZero(cv2.bitwise_and(ground_truth.mask, prediction.mask))
    return Counts(
        intersection=intersection,
        union=cv2.countNonZero(ground_truth.mask) + cv2.countNonZero(prediction.mask) - intersection,
        boundary_prediction=prediction.boundary.bit_count(),
        boundary_ground_truth=ground_truth.boundary.bit_count(),
        matched_prediction=(prediction.boundary & ground_truth.reach).bit_count(),
        matched_ground_truth=(ground_truth.boundary & prediction.reach).bit_count(),
    )


def object_statistics(values, decay_rule="correct"):
    """Return mean, recall and decay (section 4) of one object's values in T frames: float64 T, T ≥ 1."""
    return float(np.mean(values)), float(np.mean(values > RECALL_ABOVE)), decay(values, decay_rule)


def decay(values, rule="correct"):
    """Return the mean of `values`, float64 T, in the first quarter of the frames minus the mean in the last quarter.

    rule: "correct", or "numpy1" or "numpy2" for the value that the official code computes with that version of NumPy.
    The official code keeps the limits of the quarters as uint8. From 256 frames on they wrap around, and the result
    is wrong, or NaN if a quarter becomes empty. The versions of NumPy differ in the uint8 sum 255 + 1: it is 256 in
    the first, 0 in the second.
    """
    limits = np.round(np.linspace(1, len(values), DECAY_BINS + 1) + 1e-10).astype(int) - 1
    if rule != "correct":
        limits = limits % 256
    ends = limits + 1
    if rule == "numpy2":
        ends = ends % 256
    first, last = values[limits[0] : ends[1]], values[limits[-2] : ends[-1]]
    return float(np.mean(first) - np.mean(last)) if first.size and last.size else math.nan
