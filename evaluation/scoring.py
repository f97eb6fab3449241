"""J and F of every object in every frame of many sequences, over several processes.

A frame is scored on its own: which pairs of objects are in it and what J and F they have. What is not in
a frame, on either side, has J = F = 1 there by definition, so that the rules of the data sets (which
objects, which frames) only have to pick from these values afterwards.
"""

import itertools
import multiprocessing
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from evaluation.decoding import read_ids
from evaluation.measures import (
    boundary_accuracy,
    boundary_radius,
    compare_regions,
    make_region,
    region_similarity,
)
from util.errors import InputError
from util.progress import progress_bar

VOID = 255
FRAMES_PER_TASK = 8  # small enough to keep all processes busy to the end, large enough to be worth sending
NAMED_AT_ONCE = 3  # frames of a run of bad files that are named one by one; longer runs are "first to last"


@dataclass(frozen=True)
class ScoredVideo:
    """One sequence: the frames to score, in order, each with its two files."""

    name: str
    frames: tuple[str, ...]
    ground_truth: tuple[Path, ...]
    prediction: tuple[Path, ...]
    images: tuple[Path, ...]  # frames as photos, for the report; the files need not exist


@dataclass(frozen=True)
class Rules:
    """How the two masks of a frame are read and which objects are compared."""

    void: str = "background"  # pixels of value 255 in the ground truth: background, ignored, or an object
    binary: bool = False  # every id above 0 is object 1, on both sides
    proposals: int = 0  # 0: objects are matched by id; otherwise each one with each of so many proposals


class FrameScore(NamedTuple):
    """What one frame holds."""

    values: dict  # (id in the ground truth, id in the prediction): (J, F); what is missing is (1, 1)
    ground_truth_ids: tuple
    highest_prediction: int
    shape: tuple  # height, width
    problem: str  # "path: why the frame cannot be scored", "" if it can


@dataclass(frozen=True)
class ObjectScore:
    """J and F of one object over its frames: float64 T each."""

    sequence: str
    label: str  # the object's name within its sequence, as in the tables
    clip: ScoredVideo
    frames: tuple[int, ...]  # which of the clip's frames, T
    ground_truth_id: int
    prediction_id: int
    j: np.ndarray
    f: np.ndarray

    @property
    def name(self):
        return f"{self.sequence}_{self.label}" if self.label else self.sequence


def score_frame(ground_truth_path, prediction_path, objects, rules):
    """Score one frame: a FrameScore. `objects`: the ids to score, None for all that either mask holds."""
    try:
        ground_truth, prediction = read_ids(ground_truth_path), read_ids(prediction_path)
    except InputError as error:
        return FrameScore({}, (), 0, (), str(error))
    if ground_truth.shape != prediction.shape:
        found, expected = (f"{width}×{height}" for height, width in (prediction.shape, ground_truth.shape))
        fault = f"{prediction_path}: {found} pixels, the ground truth has {expected}"
        return FrameScore({}, (), 0, (), fault)
    if rules.binary:
        ground_truth, prediction = (ground_truth > 0).view(np.uint8), (prediction > 0).view(np.uint8)
    highest = int(prediction.max())
    if rules.void == "ignored":
        scored = ground_truth != VOID
        ground_truth, prediction = ground_truth * scored, prediction * scored
    elif rules.void == "background" and ground_truth.max() == VOID:
        ground_truth = ground_truth * (ground_truth != VOID)
    radius = boundary_radius(*ground_truth.shape)
    if rules.proposals:
        values, present = _score_all_pairs(ground_truth, prediction, objects, rules.proposals, radius)
    else:
        values, present = _score_by_id(ground_truth, prediction, objects, radius)
    return FrameScore(values, present, highest, ground_truth.shape, "")


def _crop_around(mask):
    """The slices around all that is not 0 in a mask H×W, and a pixel on each side; None for no object."""
    rows = np.flatnonzero(mask.max(axis=1))
    if not rows.size:
        return None
    top, bottom = max(rows[0] - 1, 0), rows[-1] + 2
    columns = np.flatnonzero(mask[top:bottom].max(axis=0))
    return slice(top, bottom), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _pair_values(ground_truth, prediction):
    counts = compare_regions(ground_truth, prediction)
    return region_similarity(counts.intersection, counts.union), boundary_accuracy(counts)


def _score_by_id(ground_truth, prediction, objects, radius):
    values, present = {}, []
    both = _crop_around(ground_truth | prediction)
    if both is None:
        return values, ()
    ground_truth, prediction = ground_truth[both], prediction[both]
    if objects is None:
        objects = range(1, max(int(ground_truth.max()), int(prediction.max())) + 1)
    for k in objects:
        mask, other = ground_truth == k, prediction == k
        crop = _crop_around(mask | other)
        if crop is None:
            continue
        if mask[crop].any():
            present.append(k)
        values[k, k] = _pair_values(make_region(mask[crop], radius), make_region(other[crop], radius))
    return values, tuple(present)


def _score_all_pairs(ground_truth, prediction, objects, proposals, radius):
    both = _crop_around(ground_truth | prediction)
    if both is None:
        return {}, ()
    ground_truth, prediction = ground_truth[both], prediction[both]
    regions = {i: make_region(ground_truth == i, radius) for i in objects}
    others = {j: make_region(prediction == j, radius) for j in range(1, proposals + 1)}
    values = {(i, j): _pair_values(regions[i], others[j]) for i in regions for j in others}
    return values, tuple(i for i in regions if regions[i].mask.any())


def _score_task(task):
    """A few frames of one clip; also what a worker process runs."""
    pairs, objects, rules = task
    return [score_frame(ground_truth, prediction, objects, rules) for ground_truth, prediction in pairs]


def _keep_freed_memory():
    """Make the C library keep freed masks for the next frame instead of returning them to the system.

    glibc raises its limits for that with the largest block that was ever freed. Without this a fifth of the
    time, where zlib-ng is installed, goes into page faults.
    """
    np.empty(16 << 20, np.uint8)


def _start_worker():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)  # for processes that are not copies of this one
    _keep_freed_memory()


def score_clips(clips, objects, rules, workers):
    """Score every frame of every clip: per clip a list of T FrameScores.

    `objects` holds per clip the ids of the ground truth to score (None: all there are). The values do not
    depend on the number of `workers`. Raises InputError naming every file that cannot be scored.
    """
    tasks = []
    for clip, ids in zip(clips, objects, strict=True):
        pairs = list(zip(clip.ground_truth, clip.prediction, strict=True))
        tasks += [
            (pairs[start : start + FRAMES_PER_TASK], ids, rules)
            for start in range(0, len(pairs), FRAMES_PER_TASK)
        ]
    bar = progress_bar(sum(len(pairs) for pairs, _, _ in tasks), "scoring")
    scores = []
    with bar:
        for done in _map_in_processes(tasks, min(workers, len(tasks))):
            scores += done
            bar.increment(len(done))
    remaining = iter(scores)
    results = [list(itertools.islice(remaining, len(clip.frames))) for clip in clips]
    _check_frames(clips, results)
    return results


def object_score(clip, label, ground_truth_id, prediction_id, frames, chosen=None):
    """Collect one object's values over the frames of its clip (or the `chosen` indices of them)."""
    chosen = range(len(frames)) if chosen is None else chosen
    values = [frames[t].values.get((ground_truth_id, prediction_id), (1.0, 1.0)) for t in chosen]
    j, f = np.array(values, np.float64).reshape(-1, 2).T.copy()
    return ObjectScore(clip.name, label, clip, tuple(chosen), ground_truth_id, prediction_id, j, f)


def _map_in_processes(tasks, workers):
    threads = cv2.getNumThreads()
    # Also where processes do the work: this ends OpenCV's threads, without which its copies would hang.
    cv2.setNumThreads(1)
    try:
        if workers <= 1:
            _keep_freed_memory()
            yield from map(_score_task, tasks)
        else:
            # Forking takes milliseconds, a fresh interpreter with NumPy and OpenCV a third of a second.
            context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
            with context.Pool(workers, _start_worker) as pool:
                yield from pool.imap(_score_task, tasks)
    finally:
        cv2.setNumThreads(threads)


def _check_frames(clips, results):
    problems = []
    for clip, frames in zip(clips, results, strict=True):
        shape = next((frame.shape for frame in frames if frame.shape), ())
        for t, frame in enumerate(frames):
            if frame.problem:
                of_prediction = frame.problem.startswith(f"{clip.prediction[t]}: ")
                side = clip.prediction if of_prediction else clip.ground_truth
                problems.append((side, t, frame.problem.removeprefix(f"{side[t]}: ")))
            elif frame.shape != shape:
                found, first = (f"{width}×{height}" for height, width in (frame.shape, shape))
                fault = f"{found} pixels, the sequence's first frame has {first}"
                problems.append((clip.ground_truth, t, fault))
    raise_problems(problems)


def raise_problems(problems):
    """Raise one InputError for a list of (paths, t, what is wrong with paths[t]); nothing if it is empty.

    Files that follow each other in a sequence and have the same fault are named together.
    """
    if not problems:
        return
    runs = []
    for paths, t, fault in problems:
        if runs and runs[-1][0] is paths and runs[-1][2] == t and runs[-1][3] == fault:
            runs[-1][2] = t + 1
        else:
            runs.append([paths, t, t + 1, fault])
    texts = [f"{name_files(paths[start:end])}: {fault}" for paths, start, end, fault in runs]
    count = f"{len(problems)} files cannot be scored: " if len(problems) > 1 else ""
    raise InputError(count + "; ".join(texts))


def name_files(paths):
    """Name files of one folder in a few words: "a/00001.png", "a/00001.png, 00002.png"."""
    names = [path.name for path in paths[1:]]
    if len(paths) > NAMED_AT_ONCE:
        return f"{paths[0]} to {paths[-1].name} ({len(paths)} files)"
    return ", ".join([str(paths[0]), *names])
