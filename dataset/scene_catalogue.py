"""What scenes are drawn from: the tables of a pack, and random numbers for many samples at once.

`dataset.scene_plans` decides with them what a scene shows. Letters in shapes are explained there.
"""

import numpy as np

from dataset.pack import CUT_OUT, IN_PLACE
from dataset.sampler import make_sample_generator
from util.errors import InputError

KINDS = {"clip": 0.65, "place": 0.08, "pasted": 0.12, "alike": 0.1, "crowd": 0.05}
"""The kinds of samples and their shares. clip: a real video. place: an image whose own objects are followed. pasted: an
image with objects pasted into it. alike: the same object two to four times. crowd: many small objects."""


class Draws:
    """Random numbers of several samples, handed out in order. Row i of each answer depends on sample i alone."""

    def __init__(self, seed, numbers, uniforms, normals):
        generators = [make_sample_generator(seed, number) for number in numbers]
        self._uniforms = np.stack([generator.random(uniforms) for generator in generators])
        self._normals = np.stack([generator.standard_normal(normals) for generator in generators])
        self._used = [0, 0]

    def _take(self, numbers, which, shape):
        start = self._used[which]
        self._used[which] += int(np.prod(shape))
        assert self._used[which] <= numbers.shape[1], "more random numbers are needed than were drawn"
        return numbers[:, start:self._used[which]].reshape(-1, *shape)

    def uniform(self, low=0, high=1, shape=()):
        """Return n×shape numbers, uniform between `low` and `high`."""
        return low + (high - low) * self._take(self._uniforms, 0, shape)

    def logarithmic(self, low, high, shape=()):
        """Return n×shape numbers between `low` and `high`, uniform in the logarithm."""
        return np.exp(self.uniform(np.log(low), np.log(high), shape))

    def normal(self, deviation=1, shape=()):
        """Return n×shape normally distributed numbers."""
        return deviation * self._take(self._normals, 1, shape)

    def chance(self, probability, shape=()):
        """Return n×shape booleans that are True with a probability."""
        return self.uniform(shape=shape) < probability

    def below(self, count, shape=()):
        """Return n×shape whole numbers from 0 to `count` - 1. `count` may be an array; where it is 0, so is the result.
        """
        return np.minimum(self.uniform(shape=shape) * count, np.maximum(count, 1) - 1).astype(int)

    def choice(self, shares, shape=()):
        """Return n×shape indices, drawn with these shares."""
        limits = np.cumsum(shares) / np.sum(shares)
        return np.minimum(np.searchsorted(limits, self.uniform(shape=shape), side="right"), len(limits) - 1)


class Catalogue:
    """Tables of a pack by which pictures and objects are drawn. Raises InputError if the pack cannot serve."""

    def __init__(self, pack, shots, kinds):
        self.sizes, self.tones, self.offsets = pack.sizes.astype(float), pack.tones, pack.offsets
        self.folders = pack.folders
        self.objects, self.object_tones = pack.objects, pack.object_tones
        self.pictures = _Weighted(np.arange(len(pack.weights)), pack.weights)
        self.cut = _Rows(pack, CUT_OUT)
        self.place = _Rows(pack, IN_PLACE)
        usable = [video for video in range(len(pack.videos)) if pack.videos[video, 1] >= shots]
        self.videos = pack.videos[usable]
        self.tracks = _find_tracks(pack, usable)
        has = {"clip": len(self.videos) > 0, "place": self.place.some, "pasted": self.cut.some, "alike": self.cut.some,
               "crowd": self.cut.some}
        self.kinds = {kind: share for kind, share in (kinds or KINDS).items() if share > 0 and (kinds or has[kind])}
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        lacking = [kind for kind in self.kinds if not has.get(kind)]
        if unknown or not self.kinds:
            raise InputError(f"kinds of scenes: {', '.join(unknown) or 'none'} was found, shares of {', '.join(KINDS)} "
                             "were expected")
        if lacking:
            raise InputError(f"the pack has nothing to make scenes of the kind {lacking[0]} from: pack "
                             f"{'videos of enough frames' if lacking[0] == 'clip' else 'images with objects'}, too")


class _Weighted:
    """Draws items with weights. Items of weight 0 are never drawn."""

    def __init__(self, items, weights):
        self.items = items[weights > 0]
        self.limits = np.cumsum(weights[weights > 0], dtype=float)

    def find(self, chance):
        """Return the items for numbers from 0 to 1."""
        at = np.searchsorted(self.limits, chance * self.limits[-1], side="right")
        return self.items[np.minimum(at, len(self.items) - 1)]


class _Rows:
    """Draws images that have objects with a flag, and rows of these objects in the table of a pack."""

    def __init__(self, pack, flag):
        pictures = pack.objects[:, 0]
        self.rows = np.flatnonzero((pack.objects[:, 8] & flag > 0) & (pack.weights[pictures] > 0))
        owners = pictures[self.rows]
        numbers = np.arange(len(pack.weights))
        self.first = np.searchsorted(owners, numbers)
        self.count = np.searchsorted(owners, numbers, side="right") - self.first
        self.some = len(self.rows) > 0
        if not self.some:
            return
        self.images = _Weighted(numbers, pack.weights * (self.count > 0))
        # Images of a folder follow one another, so that they are an interval of the limits.
        ends = np.searchsorted(pack.folders[self.images.items], np.arange(pack.folders.max() + 2))
        self.bounds = np.concatenate([[0], self.images.limits])[ends] / self.images.limits[-1]

    def find(self, chance, chance_of_row, folder=None):
        """Return rows for numbers from 0 to 1, of images in a folder if `folder` says which (-1: any)."""
        if folder is not None:
            low, high = self.bounds[folder], self.bounds[folder + 1]
            known = (folder >= 0) & (high > low)
            chance = np.where(known, low + (high - low) * chance, chance)
        picture = self.images.find(chance)
        return self.rows[self.first[picture] + np.minimum(chance_of_row * self.count[picture],
                                                          self.count[picture] - 1).astype(int)]


def _find_tracks(pack, usable):
    """Return {name: array} of the objects of the usable videos: video (its place among them), id, and start.

    In `boxes`, the rows from a track's start on are left, top, right, bottom, area of each frame of its video; in
    `whole`, whether the object can be cut out in that frame.
    """
    tracks = {"video": [], "id": [], "start": [], "boxes": [], "whole": []}
    length = 0
    for place, video in enumerate(usable):
        first, count = pack.videos[video]
        rows = pack.objects[(pack.objects[:, 0] >= first) & (pack.objects[:, 0] < first + count)]
        for low, high in sorted({(row[1], row[2]) for row in rows}):
            if low != high:
                continue
            own = rows[(rows[:, 1] == low) & (rows[:, 2] == high)]
            boxes, whole = np.zeros((count, 5)), np.zeros(count, bool)
            boxes[own[:, 0] - first] = np.column_stack([own[:, 3:5], own[:, 3:5] + own[:, 5:7], own[:, 7]])
            whole[own[:, 0] - first] = own[:, 8] & CUT_OUT > 0
            for name, value in (("video", place), ("id", low), ("start", length), ("boxes", boxes), ("whole", whole)):
                tracks[name].append(value)
            length += count
    joined = {name: np.array(tracks[name], int) for name in ("video", "id", "start")}
    boxes = np.concatenate([np.zeros((0, 5)), *tracks["boxes"]])
    return {**joined, "boxes": boxes, "whole": np.concatenate([np.zeros(0, bool), *tracks["whole"]])}
