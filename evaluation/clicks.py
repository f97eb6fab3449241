"""Measure how many clicks it takes to mark objects in images, for the click network and for GrabCut.

    python evaluation/clicks.py --root FOLDER
    python evaluation/clicks.py --root FOLDER --method grabcut

FOLDER holds images with masks beside them, X.jpg with X.png, in folders of any depth, and may hold masks of several
objects in a folder NAME_instances beside NAME (docs/TRAINING.md). Each object is clicked at until its mask is right:
the first click is in the middle of the object, each later one in the middle of the largest error, 20 at most. Pixels of
255 do not count. NoC@85 and NoC@90 are the mean number of clicks until an IoU of 0.85 and 0.90; an object that 20
clicks do not bring there counts 20 (Sofiiuk et al., RITM, 2021). Each object is also marked by its box alone.
"""

import statistics
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataset.clicks import find_objects
from dataset.training_sets import count_object_pixels
from inference_core import ClickSession
from model import load_clicks
from model.clicks import CLICKS
from util.clicking import RADIUS, draw_stroke, find_next_click, iou, make_planes
from util.errors import InputError, pixels, run_script
from util.files import write_json
from util.image_io import read_image, read_mask
from util.mask_rule import VOID
from util.options import OptionParser, positive
from util.progress import progress_bar

MOST_CLICKS = 20

SHOWN = (1, 3, 5)
"""After so many clicks the mean IoU is told."""

GRABCUT_SIDE = 400
"""GrabCut sees a part of the image whose longer side is at most so many pixels."""

GRABCUT_ROUNDS = 5


def get_args_parser():
    parser = OptionParser("clicks.py", __doc__)
    parser.add_argument("--root", required=True, help="folder of images and masks", metavar="FOLDER")
    parser.add_argument("--method", choices=("network", "grabcut"), default="network",
                        help="what makes the masks (default: %(default)s)")
    parser.add_argument("--model", default=str(CLICKS), metavar="FILE",
                        help="checkpoint of the click network (default: the one that comes with the repository)")
    parser.add_argument("--every", type=positive, default=1, metavar="N",
                        help="measure every Nth object only (default: all)")
    parser.add_argument("--json", metavar="FILE", help="also write the results of all objects into this file (default: "
                                                       "print the means)")
    return parser


@dataclass(frozen=True)
class Result:
    """How one object was marked."""

    folder: str
    image: str
    object_id: int

    ious: list
    """The IoU after each click. No more clicks are made once all figures are known."""

    seconds: list
    """How long each click took."""

    box_iou: float
    """The IoU of the mask that the object's box alone makes."""

    def clicks_until(self, target):
        """Return how many clicks an IoU of `target` took, MOST_CLICKS if it was not reached."""
        return next((count for count, value in enumerate(self.ious, 1) if value >= target), MOST_CLICKS)

    def failed(self, target):
        return max(self.ious) < target

    def iou_after(self, clicks):
        """Return the IoU after so many clicks; a mask without any error is not clicked at any more."""
        return self.ious[min(clicks, len(self.ious)) - 1]


def main(args):
    # GrabCut draws from OpenCV's global generator.
    cv2.setRNGSeed(0)
    pairs = find_objects(args.root)
    open_session = GrabCutSession if args.method == "grabcut" else partial(ClickSession, load_clicks(args.model))
    results, number = [], 0
    bar = progress_bar(len(pairs), "clicking")
    try:
        for pair in pairs:
            ids = read_mask(pair.mask, colours={})
            image = read_image(pair.image)
            if image.shape[:2] != ids.shape:
                raise InputError(f"{pair.mask}: the mask has {pixels(ids.shape[::-1])} pixels, the image "
                                 f"{pixels(image.shape[1::-1])}")
            for object_id in count_object_pixels(ids):
                if number % args.every == 0:
                    truth = np.where(ids == VOID, VOID, ids == object_id).astype(np.uint8)
                    ious, seconds = mark(open_session(image), truth)
                    box_iou = mark_by_box(open_session(image), truth)
                    results.append(Result(pair.image.parent.name, pair.image.name, object_id, ious, seconds, box_iou))
                number += 1
            bar.increment()
    finally:
        bar.finish(dirty=True)
    if not results:
        raise InputError(f"{args.root}: no mask here has an object")
    report(results)
    if args.json:
        write_json(args.json, [asdict(result) for result in results])
    return 0


def mark(session, truth):
    """Click at an object until its mask is right. Return the IoUs after each click, and the seconds that each took.

    session: has `click(x, y, positive)`, which returns a mask bool H×W. truth: uint8 H×W, 1 in the object, 0, VOID.
    """
    found, clicked, ious, seconds = np.zeros(truth.shape, bool), [], [], []
    while len(ious) < MOST_CLICKS and (len(ious) < max(SHOWN) or max(ious) < 0.9):
        click = find_next_click(found, truth, clicked)
        if click is None:
            break
        began = time.perf_counter()
        found = session.click(*click)
        seconds.append(time.perf_counter() - began)
        clicked.append(click[:2])
        ious.append(iou(found, truth))
    return ious, seconds


def mark_by_box(session, truth):
    """Give a session the box of an object. Return the IoU of the mask, see `mark`."""
    left, top, width, height = cv2.boundingRect((truth == 1).view(np.uint8))
    return iou(session.box(left, top, left + width - 1, top + height - 1), truth)


def report(results):
    """Print the figures of each folder, and of all objects together."""
    names = ["objects", "NoC@85", "NoC@90", *(f"IoU@{count}" for count in SHOWN), "fail@85", "fail@90", "box",
             "first", "later"]
    print(f"{'':24}", *(f"{name:>8}" for name in names))
    for folder in [*dict.fromkeys(result.folder for result in results), "all"]:
        chosen = [result for result in results if folder in ("all", result.folder)]
        first = statistics.median(result.seconds[0] for result in chosen)
        later = [seconds for result in chosen for seconds in result.seconds[1:]]
        figures = [*(f"{statistics.fmean(result.clicks_until(target) for result in chosen):.2f}"
                     for target in (0.85, 0.9)),
                   *(f"{statistics.fmean(result.iou_after(count) for result in chosen):.3f}" for count in SHOWN),
                   *(f"{statistics.fmean(result.failed(target) for result in chosen):.1%}" for target in (0.85, 0.9)),
                   f"{statistics.fmean(result.box_iou for result in chosen):.3f}", f"{1000 * first:.0f} ms",
                   f"{1000 * statistics.median(later or [0]):.0f} ms"]
        print(f"{folder:24}", *(f"{figure:>8}" for figure in [len(chosen), *figures]))


class GrabCutSession:
    """The mask of an object by GrabCut (Rother et al., SIGGRAPH 2004), from clicks or from a box: what is to be beaten.

    At first the object may be in a square around the click, half as wide as the shorter side of the image. Later it may
    be in the box around its last mask and the clicks on it, half as wide again.
    """

    def __init__(self, image):
        self.image = image
        self.clicks = []
        self.mask = np.zeros(image.shape[:2], bool)

    def click(self, x, y, positive=True):
        self.clicks.append((x, y, positive))
        height, width = self.mask.shape
        points = [(x, y) for x, y, positive in self.clicks if positive]
        reach = 0
        if self.mask.any():
            left, top, w, h = cv2.boundingRect(self.mask.view(np.uint8))
            points += [(left, top), (left + w - 1, top + h - 1)]
        else:
            reach = min(height, width) // 4
        if not points:
            return self.mask
        (left, top), (right, bottom) = np.min(points, 0) - reach, np.max(points, 0) + reach
        across, down = (right - left) // 4 + RADIUS, (bottom - top) // 4 + RADIUS
        inner = [max(0, left), max(0, top), min(width, right + 1), min(height, bottom + 1)]
        outer = [max(0, left - across), max(0, top - down), min(width, right + across + 1),
                 min(height, bottom + down + 1)]
        labels = np.full(self.mask.shape, cv2.GC_BGD, np.uint8)
        labels[outer[1]:outer[3], outer[0]:outer[2]] = cv2.GC_PR_BGD
        if self.mask.any():
            labels[self.mask] = cv2.GC_PR_FGD
        else:
            labels[inner[1]:inner[3], inner[0]:inner[2]] = cv2.GC_PR_FGD
        planes = make_planes(height, width)
        for x, y, positive in self.clicks:
            draw_stroke(planes, [(x, y)], positive)
        labels[planes[0] > 0], labels[planes[1] > 0] = cv2.GC_FGD, cv2.GC_BGD
        part = slice(outer[1], outer[3]), slice(outer[0], outer[2])
        self.mask = np.zeros(self.mask.shape, bool)
        self.mask[part] = self._cut(self.image[part], labels[part])
        return self.mask

    def box(self, left, top, right, bottom):
        labels = np.full(self.mask.shape, cv2.GC_BGD, np.uint8)
        labels[top:bottom + 1, left:right + 1] = cv2.GC_PR_FGD
        across, down = (right - left) // 4 + RADIUS, (bottom - top) // 4 + RADIUS
        part = slice(max(0, top - down), bottom + down + 1), slice(max(0, left - across), right + across + 1)
        self.mask[part] = self._cut(self.image[part], labels[part])
        return self.mask

    def _cut(self, image, labels):
        """Return the object in a part of the image, bool h×w."""
        height, width = labels.shape
        scale = min(1, GRABCUT_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        if (small % 2).min() == (small % 2).max():
            # There is nothing to tell apart: all of it may be the object, or all of it the background.
            return labels % 2 == 1
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        cv2.grabCut(image[..., ::-1].copy(), small, None, np.zeros((1, 65)), np.zeros((1, 65)), GRABCUT_ROUNDS,
                    cv2.GC_INIT_WITH_MASK)
        return cv2.resize(small % 2, (width, height), interpolation=cv2.INTER_NEAREST) == 1


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
