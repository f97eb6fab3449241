"""The logs of a training: TensorBoard, JSON lines, console."""

import json
import math
import platform
import sys
import time
from importlib import metadata

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch.utils.tensorboard import SummaryWriter

from util.files import atomic_path, name_errors, write_json
from util.overlay import draw_overlay

TAGS = {
    "total_loss": "train/loss",
    "iou": "train/iou",
    "sec_iou": "train/iou_of_object_2",
    "lr": "train/learning_rate",
    "p": "train/share_of_pixels_in_loss",
    "skipped": "train/skipped_steps",
    "klloss_loss": "loss/klloss",
    "df2_distillation": "loss/decoder_f2",
    "df4_distillation": "loss/decoder_f4",
    "match_loss": "loss/match",
    "focal_loss": "loss/focal",
    "dice_loss": "loss/dice",
    "seconds": "speed/seconds_per_step",
    "data_wait": "speed/data_wait",
    "J": "validation/J",
    "F": "validation/F",
    "J&F": "validation/J&F",
}
"""{what a step or a script calls a number: its name in the logs}. Losses are called as in the published code, and in
the logs like the options of their weights. TensorBoard shows what has the same word before the slash as one group."""

NUMBERED_TAGS = {"loss": "loss/frame", "dice": "loss/dice_of_frame", "memory": "speed/memory"}
"""The same for names with something behind the first underscore, such as loss_1 and memory_gpu_mb."""

SHOWN = ("train/loss", "train/iou", "train/iou_of_object_2", "train/learning_rate", "speed/seconds_per_step",
         "speed/data_wait", "validation/J", "validation/F", "validation/J&F")
"""The scalars that the console shows."""

SILENCE = 30
"""The console shows at least every so many seconds how far the training is."""


class Means:
    """Means of what the steps report, over all processes and over the iterations since the last `read`."""

    def __init__(self):
        self._values = {}

    def add(self, scalars):
        """Add the {name: number or scalar tensor} of one step. Steps and processes may report different names."""
        for name, value in scalars.items():
            self._values.setdefault(name, []).append(value)

    def read(self, processes=1):
        """Return {name: mean} and start anew. Pixel counts (hide_iou/…) become `iou` and `sec_iou`."""
        gathered = [{name: (float(sum(values)), len(values)) for name, values in self._values.items()}]
        self._values = {}
        if processes > 1:
            own, gathered = gathered[0], [None] * processes
            dist.all_gather_object(gathered, own)
        means = {}
        for name in sorted({name for each in gathered for name in each}):
            sums, counts = zip(*(each[name] for each in gathered if name in each), strict=True)
            means[name] = sum(sums) / sum(counts)
        for prefix, name in (("", "iou"), ("sec_", "sec_iou")):
            union, shared = means.pop(f"hide_iou/{prefix}u", 0), means.pop(f"hide_iou/{prefix}i", 0)
            if union:
                means[name] = shared / union
        return means


class TrainLog:
    """Writes the logs of one run into its folder, and shows them on the console.

        events.out.tfevents…   TensorBoard: scalars, and images of predictions
        log.jsonl              the same scalars by the same names, one line for each time
        config.json            options, versions, total batch

    folder: None for the console alone. shown: False for no console output, as in all processes but the first. start:
        the number of iterations that were done before this run. deadline: when the run ends at the latest, in seconds
        of time.monotonic.
    """

    def __init__(self, folder, config, iterations, start, deadline=math.inf, shown=True):
        self.folder = folder
        self._iterations, self._start, self._deadline = iterations, start, deadline
        self._shown = shown
        self._began = time.perf_counter()
        self._shown_at = None
        self._writer = None
        if folder is not None:
            _drop_lines_after(start, folder / "log.jsonl")
            self._writer = SummaryWriter(folder, purge_step=start + 1 if start else None)
            versions = {"python": platform.python_version(), "torch": torch.__version__,
                        "torchvision": metadata.version("torchvision"), "numpy": np.__version__,
                        "opencv": cv2.__version__}
            write_json(folder / "config.json", {**config, "versions": versions})

    def say(self, text):
        """Print a line to standard output."""
        if self._shown:
            print(text)

    def add_scalars(self, iteration, values):
        """Log {name: number} after this iteration, by the names of TAGS."""
        values = {find_tag(name): value for name, value in values.items()}
        if self._writer:
            with name_errors(self.folder / "log.jsonl"), open(self.folder / "log.jsonl", "a") as file:
                file.write(json.dumps({"iteration": iteration, **values}) + "\n")
            with name_errors(self.folder):
                for name, value in values.items():
                    self._writer.add_scalar(name, value, iteration)
        self._show(iteration, [f"{name} {value:.4g}" for name, value in values.items() if name in SHOWN or
                               (name == TAGS["skipped"] and value)])

    def show_progress(self, iteration):
        """Print a line after the first iteration, and again whenever nothing was printed for SILENCE seconds."""
        if self._shown_at is None or time.perf_counter() - self._shown_at > SILENCE:
            self._show(iteration, [])

    def _show(self, iteration, words):
        """Print what is done, these words, and the time that is left."""
        self._shown_at = now = time.perf_counter()
        if self._shown:
            left = (now - self._began) / (iteration - self._start) * (self._iterations - iteration)
            left = max(0, min(left, self._deadline - time.monotonic()))
            # A training of so many minutes need not reach its number of iterations.
            of = f"/{self._iterations}" if self._deadline == math.inf else " iterations"
            print(f"{iteration}{of}", *words, "left", _format_duration(left), file=sys.stderr)

    def add_images(self, iteration, batch, masks):
        """Log a picture of the batch's first sample: each row is a frame with the truth, and with the prediction."""
        if self._writer:
            with name_errors(self.folder):
                self._writer.add_image("samples/truth_and_prediction", draw_montage(batch, masks), iteration,
                                       dataformats="HWC")
                self._writer.flush()

    def close(self):
        if self._writer:
            with name_errors(self.folder):
                self._writer.close()


def find_tag(name):
    """Return the name in the logs of what a step or a script calls `name`."""
    kind, _, rest = name.partition("_")
    if name not in TAGS and kind in NUMBERED_TAGS:
        return f"{NUMBERED_TAGS[kind]}_{rest}"
    return TAGS.get(name, f"train/{name}")


def _drop_lines_after(iteration, path):
    """Drop the lines of a log that a resumed run will write again, and what a kill or a power cut left of a line."""
    if path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        with atomic_path(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines if _find_iteration(line) <= iteration))


def _find_iteration(line):
    """Return the iteration of a line of the log, infinity if it is damaged."""
    try:
        iteration = json.loads(line)["iteration"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return math.inf
    return iteration if type(iteration) is int else math.inf


def draw_montage(batch, masks):
    """Return a uint8 picture of the batch's first sample. masks: {mask_FRAME: B×O×H×W probabilities}."""
    rows = []
    for name, prob in masks.items():
        frame = int(name.rsplit("_", 1)[1])
        image = batch["rgb"][0, frame].permute(1, 2, 0).cpu().numpy()
        truth = batch["cls_gt"][0, frame].to(torch.uint8).cpu().numpy()
        best, index = prob[0].float().max(0)
        found = torch.where(best > 0.5, index + 1, 0).to(torch.uint8).cpu().numpy()
        rows.append(np.hstack([draw_overlay(np.ascontiguousarray(image), ids) for ids in (truth, found)]))
    return np.vstack(rows)


def _format_duration(seconds):
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
