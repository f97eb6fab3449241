"""Track a video: open the network that the options ask for, and loop over the frames."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np
import torch

from inference_core.core import InferenceCore
from model import load_network
from model.checkpoint import build_network
from util.cuts import CutFinder
from util.device import pick_device
from util.hyper_para import COMPACT
from util.machine import computing_threads, keep_freed_memory
from util.pipeline import mark_last, prefetch


def open_network(settings, state=None):
    """Return the network that TrackingSettings name, on their device, and prepare this process for tracking.

    state: the state dict in the file that they name, where it is at hand already.

    This sets the number of threads of torch and OpenCV, and keeps freed memory on the CPU, for the whole process. So
    call it from a script, not from a library. Raises InputError if the network or the device cannot be used.
    """
    if settings.model == COMPACT and os.environ.get("RANK", "0") == "0":
        print("using the compact network of weights/compact.pth; choose another with --model", file=sys.stderr)
    device = pick_device(settings.device)
    threads = settings.threads or computing_threads()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    if device.type == "cpu" and settings.mode != "stm":
        # Not in mode `stm`: its growing memory would leave holes that nothing fits into.
        keep_freed_memory()
    return load_network(settings.model, device) if state is None else build_network(state, settings.model, device)


def open_engine(settings, state=None):
    """Return an engine for InferenceCores with `settings.core()`; the network itself is not kept beside it.

    Everything else as in `open_network`.
    """
    return InferenceCore(open_network(settings, state), **settings.core()).engine


class TrackedFrame(NamedTuple):
    """One frame as `track_frames` yields it."""

    name: str
    """The frame's name: that of its image file, or its number."""

    image: np.ndarray
    """The image as it came, uint8 H×W×3 RGB."""

    ids: np.ndarray | None
    """Object ids uint8 H×W; None before the first mask, and where no output was wanted."""

    probabilities: torch.Tensor | None
    """Float32 (objects + 1)×H×W on the network's device, background first; None where `ids` is None."""

    objects: list
    """The ids of the tracked objects, in the order of `probabilities`."""

    seconds: float
    """The time from image to ids, both in the host's memory, without reading and writing files."""

    time: Fraction | None = None
    """When the frame is shown, in seconds from the start of the video; None where `frames` does not say it."""

    given: Sequence = ()
    """The ids of the objects whose mask was given in this frame."""

    cut: bool = False
    """Whether a new shot begins with this frame."""


def name_objects(ids):
    """Return the mask of a file, ids uint8 H×W, with the list of its objects: its 255 is an id, even if it is alone."""
    return ids, [object_id for object_id in np.unique(ids).tolist() if object_id]


def track_frames(core: InferenceCore, frames: Iterable, masks: Callable, wanted: Callable | None = None, *,
                 cuts: CutFinder | None = None, across_cuts: bool = False, started: bool = False,
                 number: Callable | None = None):
    """Track objects through the frames of one video, and yield a TrackedFrame for each.

    core: it should be new, `reset`, or restored to the state before the first of these frames.
    frames: yields (name, uint8 H×W×3 RGB), or the same and the frame's time. A thread reads a few frames ahead.
    masks: masks(name, image) returns uint8 H×W ids of the objects that appear or are corrected in this frame, or None;
        or a pair of a mask and `objects`, as `core.step` takes them.
    wanted: wanted(name) says whether this frame's mask is needed (default: all are). If it is not, and the memory does
        not need the frame either, nothing is computed.
    cuts: finds the frames with which a new shot begins. There all objects end that have no mask in this frame, unless
        across_cuts.
    number: number(name) is a frame's index in the video, where they do not come in their order from 0.
    started: objects were tracked before these frames, so every frame has ids, even if no object is left.

    Raises what `frames`, `masks` and `core.step` raise, after the frames before it were yielded.
    """
    for (name, image, *shown), last in mark_last(prefetch(frames)):
        given = masks(name, image)
        mask, objects = given if isinstance(given, tuple) else (given, None)
        needed = wanted is None or wanted(name)
        start = time.perf_counter()
        cut = cuts is not None and cuts.is_cut(image)
        if cut and not across_cuts:
            core.delete_objects(core.objects)
        index = None if number is None else number(name)
        prob = core.step(image, mask, objects, frame=index, cut=cut, end=last, needs_output=needed)
        ids = None
        started = started or bool(core.objects)
        if prob is not None and started:
            # This copy to the host waits for the device, so that the time measured is complete.
            ids = core.to_mask(prob).cpu().numpy()
        seconds = time.perf_counter() - start
        yield TrackedFrame(name, image, ids, prob if ids is not None else None, core.objects, seconds,
                           shown[0] if shown else None, core.given, cut)
