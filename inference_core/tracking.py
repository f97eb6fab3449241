"""From settings to masks: the network and core that the options ask for, and the one loop over a video's frames."""

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch

from inference_core.core import InferenceCore
from model import load_network
from util.device import pick_device
from util.hyper_para import COMPACT
from util.machine import keep_freed_memory
from util.pipeline import mark_last, prefetch


def open_network(settings):
    """The network that TrackingSettings name, on their device, and the process made ready to track with it.

    On the CPU that sets torch's number of threads and keeps freed memory, for the whole process: a script calls this,
    a library does not. Raises InputError where the network or the device cannot be used.
    """
    if settings.model == COMPACT and os.environ.get("RANK", "0") == "0":
        print("the compact network of weights/compact.pth; --model takes another", file=sys.stderr)
    device = pick_device(settings.device)
    if device.type == "cpu":
        if settings.threads:
            torch.set_num_threads(settings.threads)
        if settings.mode != "stm":
            # A memory that grows would leave holes behind that nothing fits into.
            keep_freed_memory()
    return load_network(settings.model, device)


class TrackedFrame(NamedTuple):
    """What `track_frames` knows of one frame."""

    name: str

    image: np.ndarray
    """uint8 H×W×3 RGB, as it came."""

    ids: np.ndarray | None
    """uint8 H×W object ids; None before the first mask, and where no output was wanted."""

    probabilities: torch.Tensor | None
    """float32 (objects + 1)×H×W on the network's device, background first; None where `ids` is."""

    objects: list
    """Ids of the tracked objects, in the order of `probabilities`."""

    seconds: float
    """From the image to the ids, both in the host's memory: the time of the network alone."""


def track_frames(core: InferenceCore, frames: Iterable, masks: Callable, wanted: Callable | None = None):
    """Track objects through the frames of one video; yields a TrackedFrame for each.

    frames: yields (name, uint8 H×W×3 RGB); it is read ahead in a thread, a few frames at most.
    masks: masks(name, image) gives uint8 H×W ids of the objects that appear or are corrected in this frame, or None.
    wanted: wanted(name) says whether this frame's mask is needed (default: each is). Where it is not and the memory
        does not need the frame either, nothing is computed.

    `core` should be new or `reset`. Raises what `frames`, `masks` and `core.step` raise, each frame before it yielded.
    """
    for (name, image), last in mark_last(prefetch(frames)):
        mask = masks(name, image)
        needed = wanted is None or wanted(name)
        start = time.perf_counter()
        prob = core.step(image, mask, end=last, needs_output=needed)
        ids = None
        if prob is not None and core.objects:
            # Copying to the host waits for the device.
            ids = core.to_mask(prob).cpu().numpy()
        seconds = time.perf_counter() - start
        yield TrackedFrame(name, image, ids, prob if ids is not None else None, core.objects, seconds)
