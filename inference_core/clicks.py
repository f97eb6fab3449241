"""Mark an object in one image: clicks, strokes and a box in, a mask out."""

import threading
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch

from util.clicking import BOX, POSITIVE, draw_box, draw_stroke, make_planes
from util.errors import InputError

WHOLE_SIDE = 384
"""The longer side of the whole image, as the network sees it, in pixels."""

ZOOM_SIDE = 320
"""The longer side of a part of the image, as the network sees it, in pixels."""

MARGIN = 1.4
"""A part of the image is so many times as wide and high as the box around the object."""

SMALLEST_PART = 64
"""A part of the image is at least so many pixels wide and high, if the image is."""

SAME_PART = 0.6
"""If the part that the network would see next overlaps the last one by more than this IoU, it sees the last one again,
whose features are there already."""


UNASKED = 6
"""The logit of what looks like the object, but is apart from it and nobody has clicked at."""


class View(NamedTuple):
    """A part of the image, in whole pixels."""

    left: int
    top: int
    width: int
    height: int

    def holds(self, other):
        return (self.left <= other.left and self.left + self.width >= other.left + other.width
                and self.top <= other.top and self.top + self.height >= other.top + other.height)

    def overlap(self, other):
        """Return the IoU with another View."""
        width = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        height = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        common = max(0, width) * max(0, height)
        return common / (self.width * self.height + other.width * other.height - common)


class Hint(NamedTuple):
    """What the user gave, in pixels of the image."""

    points: tuple
    """(x, y) of each point of a stroke, or of the two corners of a box."""

    positive: bool = True
    """Whether a stroke is on the object."""

    box: bool = False
    """Whether this is a box."""


@dataclass(frozen=True)
class State:
    """What a session knows after some hints."""

    hints: tuple
    """All Hints so far."""

    mask: np.ndarray
    """bool H×W."""

    view: View
    """The part of the image that `prob` shows; outside of it there is nothing of the object."""

    prob: np.ndarray
    """float32 h×w, the probability of the object, in any resolution."""


class ClickSession:
    """The mask of one object in one image, as the user marks it.

        session = ClickSession(load_clicks(), image)
        mask = session.click(250, 120)
        mask = session.click(300, 80, positive=False)

    x and y are pixels of the image, from 0; they may be fractions, whole numbers are the pixels' centres. Each method
    returns the mask, bool H×W. Threads may share a session, and sessions may share a network.
    """

    def __init__(self, network, image, mask=None):
        """network: of `model.load_clicks`. image: uint8 H×W×3, RGB. mask: H×W to start from, nonzero in the object."""
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise InputError(f"the image is {image.dtype} of shape {image.shape}, uint8 H×W×3 was expected")
        self._network = network
        self._image = image.copy()
        height, width = image.shape[:2]
        self._whole = View(0, 0, width, height)
        mask = np.zeros((height, width), bool) if mask is None else np.asarray(mask) != 0
        if mask.shape != (height, width):
            raise InputError(f"the mask has the shape {mask.shape}, the image {(height, width)}")
        self._states = [State((), mask, self._whole, mask.astype(np.float32))]
        self._features = None, None
        self._lock = threading.Lock()

    @property
    def mask(self):
        """The mask so far, bool H×W."""
        return self._states[-1].mask.copy()

    @property
    def hints(self):
        """The Hints so far."""
        return self._states[-1].hints

    def click(self, x, y, positive=True):
        """Say that a pixel belongs to the object, or, if not `positive`, that it does not."""
        return self.stroke([(x, y)], positive)

    def stroke(self, points, positive=True):
        """Say the same of all pixels on a line through `points`, (x, y) each."""
        return self._add(Hint(self._check(points), bool(positive)))

    def box(self, left, top, right, bottom):
        """Say that the object lies in this box, and reaches to each of its edges. It replaces an earlier box.

        The edges belong to the box: one whose left is its right is a pixel wide. A box that ends at the image's width
        or height ends with the last pixel. Raises InputError if a corner is outside of the image.
        """
        width, height = self._whole[2:]
        corners = [(min(x, width - 1) if x <= width else x, min(y, height - 1) if y <= height else y)
                   for x, y in _read_points([(left, top), (right, bottom)])]
        (left, top), (right, bottom) = self._check(corners)
        corners = (min(left, right), min(top, bottom)), (max(left, right), max(top, bottom))
        return self._add(Hint(corners, box=True))

    def undo(self):
        """Take back the last hint, if there is one."""
        with self._lock:
            if len(self._states) > 1:
                self._states.pop()
            return self.mask

    def _check(self, points):
        """Return points as a tuple of pairs of numbers. Raises InputError if one is outside of the image."""
        points = _read_points(points)
        if not points:
            raise InputError("a stroke without points, one or more were expected")
        width, height = self._whole[2:]
        for x, y in points:
            # Comparisons with NaN are all false.
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                raise InputError(f"the point ({x:g}, {y:g}) is outside of the image of {width}×{height} pixels")
        return points

    def _add(self, hint):
        with self._lock, torch.inference_mode():
            state = self._states[-1]
            # A new box replaces the old one.
            kept = tuple(each for each in state.hints if not (hint.box and each.box))
            state = replace(state, hints=(*kept, hint))
            first = not state.mask.any()
            state = self._segment(state, self._choose_view(state))
            if first and state.mask.any():
                # The object is known now, so look at it from near.
                state = self._look_again(state)
            self._states.append(state)
            return self.mask

    def _look_again(self, state):
        """Return the State after a second look, if it would be at another part of the image."""
        view = self._choose_view(state)
        return state if view == state.view else self._segment(state, view)

    def _choose_view(self, state):
        """Return the View in which the network is to see the object: around mask, box and strokes on the object."""
        left, top, width, height = cv2.boundingRect(state.mask.view(np.uint8))
        boxes = [hint for hint in state.hints if hint.box]
        if not width and not boxes:
            return self._whole
        points = [point for hint in state.hints if hint.positive for point in hint.points]
        if width:
            points += [(left, top), (left + width - 1, top + height - 1)]
        (left, top), (right, bottom) = np.min(points, 0), np.max(points, 0)
        spans = []
        for low, high, limit in ((left, right, self._whole.width), (top, bottom, self._whole.height)):
            side = min(limit, max(SMALLEST_PART, round(MARGIN * (high - low + 1))))
            start = min(max(0, round((low + high + 1 - side) / 2)), limit - side)
            spans.append((start, side))
        (left, width), (top, height) = spans
        view = View(left, top, width, height)
        # The state's view and not the last one that was computed, so that an undone hint leaves no trace.
        last = state.view
        tight = View(int(min(x for x, _ in points)), int(min(y for _, y in points)), 1, 1)
        return last if last.overlap(view) > SAME_PART and last.holds(tight) else view

    def _segment(self, state, view):
        """Return the State with the mask that the network makes of its hints and its last mask, looking at `view`."""
        long = WHOLE_SIDE if view == self._whole else ZOOM_SIDE
        scale = long / max(view.width, view.height)
        width, height = (max(32, 16 * round(side * scale / 16)) for side in (view.width, view.height))
        if self._features[0] != view:
            self._features = view, self._network.encode_image(self._cut(view, width, height))
        planes = np.concatenate([self._draw(state.hints, view, width, height),
                                 _resample(state, view, width, height)[None]])
        hints = torch.from_numpy(planes)[None].to(self._network.device, memory_format=torch.channels_last)
        both = self._network.segment(self._features[1], torch.cat([hints, hints.flip(3)])).float()
        logits = ((both[0, 0] + both[1, 0].flip(1)) / 2).cpu().numpy()
        logits = keep_pieces(logits, np.maximum(planes[POSITIVE], planes[BOX]), planes[-1])
        mask = np.zeros(self._whole[:1:-1], bool)
        part = cv2.resize(logits, (view.width, view.height), interpolation=cv2.INTER_LINEAR) > 0
        mask[view.top:view.top + view.height, view.left:view.left + view.width] = part
        return State(state.hints, mask, view, 1 / (1 + np.exp(-logits)))

    def _cut(self, view, width, height):
        """Return a part of the image in this size, and its mirror image, uint8 2×3×height×width."""
        part = self._image[view.top:view.top + view.height, view.left:view.left + view.width]
        smaller = width * height < view.width * view.height
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        part = torch.from_numpy(part).permute(2, 0, 1)[None].to(self._network.device)
        # The mean of both is better than either: IoUs rise by about 0.01.
        return torch.cat([part, part.flip(3)])

    def _draw(self, hints, view, width, height):
        """Return the planes of hints, float32 3×height×width."""
        planes = make_planes(height, width)
        scale = np.array([width / view.width, height / view.height])
        for hint in hints:
            points = (np.array(hint.points) + 0.5 - (view.left, view.top)) * scale - 0.5
            if hint.box:
                draw_box(planes, *points.ravel())
            else:
                draw_stroke(planes, points, hint.positive)
        return planes.astype(np.float32)


def _read_points(points):
    """Return points as a tuple of pairs of float. Raises InputError for anything else."""
    try:
        return tuple((float(x), float(y)) for x, y in points)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"a point is a pair of numbers (x, y); given were {points!r:.60}") from None


def keep_pieces(logits, positive, previous):
    """Return logits without the pieces of the mask that nobody asked for; there they are -UNASKED.

    A piece stays if a positive hint or the box touches it, or the previous mask fills most of it. If no piece would
    stay, all do.
    logits: float32 h×w. positive, previous: float32, planes of a multiple of this size.
    """
    count, labels = cv2.connectedComponents((logits > 0).view(np.uint8), connectivity=8)
    if count < 3:
        return logits
    size = logits.shape[::-1]
    touched = cv2.resize(positive, size, interpolation=cv2.INTER_AREA) > 0
    before = cv2.resize(previous, size, interpolation=cv2.INTER_AREA) > 0.5
    areas = np.bincount(labels.ravel(), minlength=count)
    stays = np.bincount(labels[touched], minlength=count) > 0
    stays |= np.bincount(labels[before], minlength=count) > areas / 2
    stays[0] = False
    if not stays.any():
        return logits
    return np.where(stays[labels] | (logits <= 0), logits, np.float32(-UNASKED))


def _resample(state, view, width, height):
    """Return a State's probabilities in another view, float32 height×width. Where they are not known they are 0."""
    rows, columns = state.prob.shape
    own = state.view
    x = ((np.arange(width) + 0.5) * view.width / width + view.left - own.left) * columns / own.width - 0.5
    y = ((np.arange(height) + 0.5) * view.height / height + view.top - own.top) * rows / own.height - 0.5
    known = np.outer((y > -0.5) & (y < rows - 0.5), (x > -0.5) & (x < columns - 0.5))
    maps = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    prob = cv2.remap(state.prob, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(known, prob, 0).astype(np.float32)
