"""How good a mask probably is: an estimate of its IoU with the true mask, from what tracking gives anyway.

An object that two masks share, or that the network is not sure of, has probabilities that are spread over the image.
The overlap of a mask with its own probabilities says how much, and errors last: what went wrong once since the last
given mask probably still is. The constants were fitted by evaluation/quality.py; docs/QUALITY.md has the figures.
"""

import math
from typing import NamedTuple

import numpy as np

WEIGHTS = (-2.061, -0.857, -0.661)
"""Constant, weight of the spread, weight of the largest spread since the last given mask."""

UNSEEN = 0.63
"""The estimate for an object that is not seen: so often it is truly not there in small frames, and more often in larger
ones (docs/QUALITY.md). It is below DOUBTFUL, so that a lost object is told. Nothing that we tried predicts it."""

DOUBTFUL = 0.7
"""Below this a mask is worth a look."""

LISTED = 5
"""So many runs of frames are recommended at most."""


class QualityMeter:
    """Estimates the IoU of each object's mask with the true one, frame by frame, in the order of tracking."""

    def __init__(self):
        self._largest = {}  # {object id: the largest spread since the last given mask}

    def measure(self, objects, given=()):
        """Return {object id: estimate, 0 to 1} for one frame.

        objects: {object id: {"overlap": see `find_overlap`, None for an object that is not seen}}. given: ids of the
        objects whose mask in this frame was given; their estimate is 1. The IoU of an object that is not seen is 1 if
        it is truly not there, else 0.
        """
        estimates = dict.fromkeys(objects, UNSEEN)
        constant, *weights = WEIGHTS
        for object_id, features in self.find_features(objects, given).items():
            logit = constant + sum(weight * value for weight, value in zip(weights, features, strict=True))
            estimates[object_id] = 1 / (1 + math.exp(-logit))
        return {**estimates, **{object_id: 1.0 for object_id in given if object_id in estimates}}

    def find_features(self, objects, given=()):
        """Return {object id: what WEIGHTS are multiplied with} of the objects that are seen; arguments as `measure`."""
        features = {}
        for object_id, found in objects.items():
            if object_id in given:
                self._largest.pop(object_id, None)
            if found["overlap"] is not None:
                spread = _find_spread(found["overlap"])
                self._largest[object_id] = max(spread, self._largest.get(object_id, spread))
                features[object_id] = spread, self._largest[object_id]
        return features


class Doubt(NamedTuple):
    """A run of frames that is worth a look: in each of them, an object's mask is doubtful."""

    frame: str
    """The name of the worst frame."""

    object_id: int
    """The worst object in it."""

    quality: float
    """The estimate for that object."""

    first: str
    """The name of the run's first frame."""

    last: str
    """The name of the run's last frame."""

    def __str__(self):
        worst = f"object {self.object_id}, {100 * self.quality:.0f} %"
        if self.first == self.last:
            return f"{self.frame} ({worst})"
        return f"{self.first} to {self.last} (worst {self.frame}: {worst})"


class Doubts:
    """Finds the runs of doubtful frames, and keeps the worst ones, LISTED at most."""

    def __init__(self, position=None):
        """position: the function that gives a frame's place in the video, if frames do not come in their order."""
        self._run = None  # the Doubt that goes on
        self._worst = []  # earlier ones
        self._position, self._place = position, None

    def add(self, name, quality):
        """Take the next frame. quality: {object id: estimate}."""
        quality, object_id = min(((value, object_id) for object_id, value in quality.items()), default=(1.0, None))
        backwards = False
        if self._position is not None:
            place, before = self._position(name), self._place
            backwards, self._place = before == place + 1, place
            if before != place - 1 and not backwards:
                self._end_run()
        if quality >= DOUBTFUL:
            self._end_run()
            return
        if self._run is None:
            self._run = Doubt(name, object_id, quality, name, name)
        elif quality < self._run.quality:
            self._run = self._run._replace(frame=name, object_id=object_id, quality=quality)
        self._run = self._run._replace(**{"first" if backwards else "last": name})

    def finish(self):
        """Return the Doubts, the worst first."""
        self._end_run()
        return self._worst

    def _end_run(self):
        if self._run:
            found = self._run._replace(quality=round(self._run.quality, 3))
            self._worst = sorted([*self._worst, found], key=lambda doubt: doubt.quality)[:LISTED]
            self._run = None


def measure_objects(ids, confidence, totals, objects):
    """Return {id: {"area": pixels, "box": [left, top, right, bottom], "confidence": …, "overlap": …}} of one frame.

    ids: uint8 H×W. confidence: float H×W, the probability of each pixel's id. totals: the sum of each object's
    probability over the image. objects: the ids to measure, in the order of `totals`. The right and bottom ends of a
    box are exclusive. Confidence is the mean probability in the mask, for overlap see `find_overlap`; both,
    and the box, are None for an object that is not in the frame.
    """
    area = np.bincount(ids.ravel(), minlength=256).tolist()
    certainty = np.bincount(ids.ravel(), weights=confidence.ravel(), minlength=256).tolist()
    statistics = {}
    for object_id, total in sorted(zip(objects, totals, strict=True)):
        box = mean = overlap = None
        if area[object_id]:
            here = ids == object_id
            rows, columns = np.flatnonzero(here.any(1)), np.flatnonzero(here.any(0))
            box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
            mean = round(certainty[object_id] / area[object_id], 4)
            overlap = round(find_overlap(certainty[object_id], total, area[object_id]), 4)
        statistics[object_id] = {"area": area[object_id], "box": box, "confidence": mean, "overlap": overlap}
    return statistics


def find_overlap(inside, total, area):
    """Return the IoU of a mask with its own probabilities, 0 to 1.

    inside, total: sums of the object's probability over its mask and over the image. area: the mask's pixels, at least
    one. This is the sum of the pixelwise minima of mask and probability divided by that of the maxima.
    """
    return inside / (area + total - inside)


def _find_spread(overlap):
    """Return the logarithm of what is missing from a full overlap, from -7 to 0."""
    return math.log(min(max(1 - overlap, 1e-3), 1.0))
