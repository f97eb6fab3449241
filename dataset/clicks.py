"""Make training samples for the click network: one object of an image, and what a user gave to mark it."""

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from dataset.augmentation import (
    IMAGE_MEAN,
    MINIFICATION,
    make_lookup,
    mean_colour,
    random_colour,
    recolour,
    rotation,
    scaling,
    shift_hue,
    translation,
    warp,
)
from dataset.perturbation import perturb_mask
from dataset.sampler import find_sample_index, make_sample_generator
from dataset.training_sets import Pair, count_object_pixels, find_pairs
from util.clicking import draw_box, draw_stroke, find_next_click, iou, make_planes
from util.errors import InputError, pixels
from util.image_io import read_image, read_mask
from util.mask_rule import VOID

FRAME_STEP = 10
"""Every so manieth frame of a video is an image to learn from: its neighbours look the same."""

SMALLEST = 150
"""Objects of fewer pixels than this are not learnt from, if the image has larger ones."""

UNION = 0.03
"""Share of the samples whose object is two objects of the image together."""

WHOLE = 0.2
"""Share of the samples whose object is all objects of the image, if they look like parts: a person, not the shirt."""

FEWEST_PARTS = 4
"""So many objects in one piece look like parts of a thing."""

LARGEST_WHOLE = 0.7
"""All objects of an image together are no object if they fill more than this share of it."""

STARTS = {"click": 0.6, "clicks": 0.12, "stroke": 0.08, "box": 0.1, "mask": 0.1}
"""How samples start: {what the user gave: share}. A mask comes with the click that corrects it most."""

MASK_IOU = (0.4, 0.95)
"""Range of the IoU between a mask to start from and the true one."""


def find_objects(root):
    """Return the Pairs of images below `root` and the masks of their objects, see `find_pairs`.

    Where an image has a mask of its objects beside one of the foreground, only the former is listed.
    """
    pairs = find_pairs(root, instances=True)
    detailed = {pair.image for pair in pairs if pair.mask.parent != pair.image.parent}
    return [pair for pair in pairs if pair.image not in detailed or pair.mask.parent != pair.image.parent]


def list_frames(videos):
    """Return Pairs of every FRAME_STEP-th frame of TrainingVideos."""
    return [Pair(video.image(index), video.mask(index)) for video in videos
            for index in range(0, len(video.frames), FRAME_STEP)]


class ClickDataset(Dataset):
    """`dataset[n]` is an object of one image with first hints. n, from 0, is a running number that goes on over epochs.

    A sample is a dict:
        rgb       uint8 1×3×size×size   RGB, 0 to 255
        cls_gt    uint8 1×size×size     1 in the object, 0 outside, VOID where neither is known
        hints     uint8 3×size×size     0 and 1, see util.clicking.make_planes
        previous  uint8 1×size×size     0 and 1, the mask to start from
        info      name: the image file

    pairs: Pairs of dataset.training_sets. All random numbers of a sample come from (seed, n). Raises InputError naming
    a file that cannot be used.
    """

    def __init__(self, pairs, *, seed=0, size=320):
        self.pairs = tuple(pairs)
        self.seed = seed
        self.size = size

    def __len__(self):
        """Return the number of samples in one epoch."""
        return len(self.pairs)

    def __getitem__(self, number):
        rng = make_sample_generator(self.seed, number)
        pair = self.pairs[find_sample_index(self.seed, number, len(self.pairs))]
        image, ids = read_image(pair.image), read_mask(pair.mask, colours={})
        if image.shape[:2] != ids.shape:
            raise InputError(f"{pair.mask}: the mask has {pixels(ids.shape[::-1])} pixels, the image "
                             f"{pixels(image.shape[1::-1])}")
        rgb, truth = self._make_view(rng, image, _choose_object(rng, ids))
        hints, previous = make_start(rng, truth)
        return {
            "rgb": torch.from_numpy(rgb.transpose(2, 0, 1).copy()[None]),
            "cls_gt": torch.from_numpy(truth[None]),
            "hints": torch.from_numpy(hints),
            "previous": torch.from_numpy(previous[None]),
            "info": {"name": str(pair.image)},
        }

    def _make_view(self, rng, image, truth):
        """Return a random square part of an image and of the mask of its object, size×size, with jittered colours."""
        height, width = truth.shape
        left, top, w, h = cv2.boundingRect((truth == 1).view(np.uint8))
        # The side of the part lies between that of the object and that of the image.
        smallest, largest = 1.1 * max(w, h, 16), 1.1 * max(width, height, w, h)
        side = np.exp(rng.uniform(*np.log((smallest, max(largest, smallest + 1)))))
        # The object may be anywhere in the part, which reaches over the image's border only where it must.
        middle = np.array([left + w / 2, top + h / 2]) + (side - np.array([w, h])) * rng.uniform(-0.5, 0.5, 2)
        sides = np.array([width, height])
        middle = np.where(sides > side, np.clip(middle, side / 2, np.maximum(sides - side / 2, side / 2)), sides / 2)
        stretch = np.exp(rng.uniform(-0.15, 0.15))
        scale = self.size / side
        matrix = scaling(scale * stretch, scale / stretch) @ rotation(np.radians(rng.normal(0, 8)))
        matrix = translation(self.size / 2, self.size / 2) @ matrix @ translation(*-middle)
        if rng.random() < 0.5:
            matrix = translation(self.size, 0) @ scaling(-1, 1) @ matrix
        lookup = make_lookup(matrix)
        mask = warp(truth, lookup, self.size, cv2.INTER_NEAREST, VOID)
        if scale < MINIFICATION:
            part = max(1, round(width * scale)), max(1, round(height * scale))
            image = cv2.resize(image, part, interpolation=cv2.INTER_AREA)
            lookup = make_lookup(matrix @ scaling(width / part[0], height / part[1]))
        image = shift_hue(image, rng.uniform(-0.04, 0.04))
        rgb = warp(image, lookup, self.size, cv2.INTER_LINEAR, IMAGE_MEAN)
        return recolour(rgb, random_colour(rng, mean_colour(rgb), 0.25, 0.25, 0.25, greyscale=0.05)), mask


def _choose_object(rng, ids):
    """Return a random object of a mask, uint8 H×W: 1 in it, 0 outside, VOID as in `ids`. Without objects all is 0."""
    counts = count_object_pixels(ids)
    chosen = [object_id for object_id, count in counts.items() if count >= SMALLEST] or list(counts)
    truth = np.where(ids == VOID, VOID, 0).astype(np.uint8)
    if chosen:
        if len(counts) >= FEWEST_PARTS and rng.random() < WHOLE and _is_whole(ids):
            truth[(ids > 0) & (ids < VOID)] = 1
            return truth
        share = np.sqrt([counts[object_id] for object_id in chosen])
        several = 2 if len(chosen) > 1 and rng.random() < UNION else 1
        truth[np.isin(ids, rng.choice(chosen, several, replace=False, p=share / share.sum()))] = 1
    return truth


def _is_whole(ids):
    """Return whether all objects of a mask, uint8 H×W, together are one object: nearly all of it in one piece."""
    inside = ((ids > 0) & (ids < VOID)).view(np.uint8)
    areas = cv2.connectedComponentsWithStats(cv2.dilate(inside, np.ones((3, 3), np.uint8)))[2][1:, cv2.CC_STAT_AREA]
    return inside.mean() < LARGEST_WHOLE and areas.max() > 0.9 * areas.sum()


def make_start(rng, truth):
    """Return (hints, previous), what a user might begin with to mark an object.

    truth: uint8 H×W, 1 in the object, 0 outside, VOID. hints: uint8 3×H×W, see `make_planes`. previous: uint8 H×W.
    """
    hints, previous = make_planes(*truth.shape), np.zeros_like(truth)
    start = rng.choice(list(STARTS), p=list(STARTS.values()))
    inside = (truth == 1).view(np.uint8)
    if not inside.any():
        return hints, previous
    if start == "mask":
        previous = perturb_mask(inside, rng, *MASK_IOU)
        if iou(previous > 0, truth) < 1:
            x, y, positive = find_next_click(previous > 0, truth)
            draw_stroke(hints, [(x, y)], positive)
        return hints, previous
    if start == "box":
        left, top, w, h = cv2.boundingRect(inside)
        shift = rng.normal(0, 0.03, 4) * (w, h, w, h)
        draw_box(hints, left + shift[0], top + shift[1], left + w - 1 + shift[2], top + h - 1 + shift[3])
        if rng.random() < 0.7:
            return hints, previous
    points = [_draw_inside(rng, truth, centre=start == "click")]
    if start == "clicks":
        for _ in range(rng.integers(1, 5)):
            if rng.random() < 0.5:
                points.append(_draw_inside(rng, truth))
            else:
                x, y = _draw_outside(rng, truth, inside)
                draw_stroke(hints, [(x, y)], positive=False)
        for point in points:
            draw_stroke(hints, [point])
        return hints, previous
    if start == "stroke":
        points += [_draw_inside(rng, truth) for _ in range(rng.integers(1, 4))]
        # Only what lies in the object is drawn: people do not cross its border.
        line = make_planes(*truth.shape)
        draw_stroke(line, points)
        hints[0] = line[0] & inside
        return hints, previous
    draw_stroke(hints, points)
    return hints, previous


def _draw_inside(rng, truth, centre=False):
    """Return a random (x, y) in the object, more often deep inside. centre: half the time the deepest pixel."""
    nothing = np.zeros(truth.shape, bool)
    depth = None if centre and rng.random() < 0.5 else (rng.choice((0.2, 0.5, 0.8)), rng.random())
    return find_next_click(nothing, np.where(truth == 1, 1, VOID), depth=depth)[:2]


def _draw_outside(rng, truth, inside):
    """Return a random (x, y) of the background, half the time near the object; any pixel if there is no background."""
    ring = cv2.dilate(inside, np.ones((31, 31), np.uint8)) & (truth == 0)
    place = ring if rng.random() < 0.5 and ring.any() else truth == 0
    choice = np.flatnonzero(place) if place.any() else np.arange(truth.size)
    y, x = divmod(int(rng.choice(choice)), truth.shape[1])
    return x, y
