"""The measures J (region similarity) and F (boundary accuracy) of DAVIS, and their statistics.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016,
section 4. All counts are exact integers and all divisions are in the order of the official code, so that
every value is the same float64.

A boundary is kept as a bitset: a Python integer whose bit y·stride + x is pixel (y, x) of a crop. Shifts
and unions of whole boundaries are then single operations, which makes the search for boundary pixels
within the radius several times cheaper than a dilation of the image.
"""

import functools
import math
from typing import NamedTuple

import cv2
import numpy as np

BOUND = 0.008  # tolerance of F as a share of the image diagonal
RECALL_ABOVE = 0.5
DECAY_BINS = 4
DECAY_RULES = ("correct", "numpy1", "numpy2")

_TWO_BY_TWO = np.ones((2, 2), np.uint8)


class Region(NamedTuple):
    """One object in one frame, prepared for comparison with others in the same crop."""

    mask: np.ndarray  # uint8 h×w of 0 and 1
    boundary: int  # bitset of the boundary pixels
    reach: int  # bitset that, inside the crop, holds the pixels within the radius of the boundary


class Counts(NamedTuple):
    """What J and F of one object in one frame are made of, in pixels."""

    intersection: int
    union: int
    boundary_prediction: int
    boundary_ground_truth: int
    matched_prediction: int  # boundary pixels of the prediction within the radius of the other boundary
    matched_ground_truth: int


def jaccard(ground_truth, prediction):
    """Region similarity J of two boolean masks of one shape: |A ∩ B| / |A ∪ B|, 1 where both are empty."""
    return region_similarity(
        np.count_nonzero(ground_truth & prediction), np.count_nonzero(ground_truth | prediction)
    )


def boundary_f(ground_truth, prediction):
    """Boundary accuracy F of two boolean masks H×W of one shape."""
    radius = boundary_radius(*ground_truth.shape)
    return boundary_accuracy(
        compare_regions(make_region(ground_truth, radius), make_region(prediction, radius))
    )


def region_similarity(intersection, union):
    """J from the two areas (section 4.1), 1 where both masks are empty."""
    return intersection / union if union else 1.0


def boundary_accuracy(counts):
    """F, the harmonic mean of boundary precision and recall (section 4.2).

    1 where both boundaries are empty, 0 where one is. What counts are boundaries, not masks: a mask that
    covers the whole image has none.
    """
    if not counts.boundary_prediction or not counts.boundary_ground_truth:
        return 0.0 if counts.boundary_prediction or counts.boundary_ground_truth else 1.0
    precision = counts.matched_prediction / counts.boundary_prediction
    recall = counts.matched_ground_truth / counts.boundary_ground_truth
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def boundary_radius(height, width):
    """How many pixels a boundary may be off: 0.8 % of the image diagonal, rounded up (8 at 480×854)."""
    return math.ceil(BOUND * np.linalg.norm((height, width)))


def boundary_map(mask):
    """The boundary of a uint8 h×w mask of 0 and 1, in the same form.

    A pixel is on it when its right, lower or lower right neighbour differs, the last row and column being
    repeated: the outline lies on the object's upper left sides just outside, elsewhere on its last pixels,
    and the image border itself is no boundary.
    """
    return cv2.morphologyEx(
        mask, cv2.MORPH_GRADIENT, _TWO_BY_TWO, anchor=(0, 0), borderType=cv2.BORDER_REPLICATE
    )


@functools.cache
def _disk_half_widths(radius):
    """Half the width of the disk dx² + dy² ≤ radius² at dy = 0 … radius."""
    return [math.isqrt(radius * radius - dy * dy) for dy in range(radius + 1)]


def _disk_dilation(bits, stride, radius):
    """All pixels within `radius` of a set bit; the columns beyond the crop must leave `radius` free."""
    half_widths = _disk_half_widths(radius)
    runs = [bits, bits << 1 | bits | bits >> 1]  # runs[w]: everything within w pixels in the same row
    while len(runs) <= radius:
        runs.append(runs[-1] << 1 | runs[-1] >> 1)
    above = below = runs[half_widths[radius]]
    for dy in range(radius - 1, -1, -1):
        above = above >> stride | runs[half_widths[dy]]
        below = below << stride | runs[half_widths[dy]]
    return above | below


def make_region(mask, radius):
    """Prepare a bool or 0/1 uint8 mask h×w, the whole image or a crop of it.

    A crop must include the row and the column around the object on every side where the image has one.
    """
    mask = mask.view(np.uint8)
    height, width = mask.shape
    row_bytes = (width + radius + 7) // 8
    rows = np.zeros((height, row_bytes), np.uint8)
    rows[:, : (width + 7) // 8] = np.packbits(boundary_map(mask), axis=1, bitorder="little")
    boundary = int.from_bytes(rows.tobytes(), "little")
    return Region(mask, boundary, _disk_dilation(boundary, 8 * row_bytes, radius) if boundary else 0)


def compare_regions(ground_truth, prediction):
    """The counts of two regions of the same crop."""
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
    """Mean, recall and decay (section 4) of one object's values, float64 T with T ≥ 1."""
    return float(np.mean(values)), float(np.mean(values > RECALL_ABOVE)), decay(values, decay_rule)


def decay(values, rule="correct"):
    """How much the values, float64 T, fall from the first quarter of the frames to the last.

    The official code keeps the limits of the quarters as uint8, so that from 256 frames on they wrap
    around: the result is NaN (an empty quarter) or silently wrong. `rule` is "correct", or "numpy1" or
    "numpy2" for what the official code computes with that generation of NumPy (they differ in 255 + 1,
    which is 256 in the first and 0 in the second).
    """
    limits = np.round(np.linspace(1, len(values), DECAY_BINS + 1) + 1e-10).astype(int) - 1
    if rule != "correct":
        limits = limits % 256
    ends = limits + 1
    if rule == "numpy2":
        ends = ends % 256
    first, last = values[limits[0] : ends[1]], values[limits[-2] : ends[-1]]
    return float(np.mean(first) - np.mean(last)) if first.size and last.size else math.nan
