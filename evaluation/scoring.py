"""Compute J and F of every object in every frame of many videos, in several processes.

Each frame is scored by itself: which objects are in its two masks, and J and F of each pair. An object that is in
neither mask of a frame has J = F = 1 there by definition. So the rules of a dataset (which objects, which frames) only
pick from these values afterwards.
"""

import itertools
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from evaluation.decoding import read_scored_mask
from evaluation.measures import (
    boundary_accuracy,
    boundary_radius,
    compare_regions,
    make_region,
    region_similarity,
)
from util.errors import InputError
from util.mask_rule import VOID
from util.notices import list_notices, tell
from util.processes import map_in_processes
from util.progress import progress_bar

FRAMES_PER_TASK = 8
"""A process gets so many frames at once: few, to keep all processes busy to the end, but enough to be worth sending."""

NAMED_AT_ONCE = 3
"""Up to so many bad files in a row are named one by one; of longer runs, the first and the last."""


@dataclass(frozen=True)
class ScoredVideo:
    """One video: the frames to score, in order, each with its two mask files."""

    name: str
    frames: tuple[str, ...]
    ground_truth: tuple[Path, ...]
    prediction: tuple[Path, ...]

    images: tuple[Path, ...]
    """The frames' image files, for the report. They need not exist."""


@dataclass(frozen=True)
class Rules:
    """How the two masks of a frame are read and which objects are compared."""

    void: str = "background"
    """What pixels of value 255 in the ground truth are: "background", "ignored", or "an object"."""

    binary: bool = False
    """Treat every id above 0 as object 1, in both masks."""

    official: bool = False
    """Refuse predictions in colours, since the dataset's official tools cannot read them."""

    proposals: int = 0
    """0: compare objects of equal id. Otherwise compare each object with each of so many proposals."""


class FrameScore(NamedTuple):
    """The scores of all objects in one frame, or the reason why it cannot be scored."""

    values: dict
    """{(object id in the ground truth, object id in the prediction): (J, F)}. A pair that is missing has (1, 1)."""

    ground_truth_ids: tuple
    """The scored object ids that the ground truth holds."""

    highest_prediction: int
    """The highest object id in the prediction."""

    shape: tuple
    """(height, width) of the masks."""

    problem: str
    """"PATH: why the frame cannot be scored", "" if it can."""

    notices: tuple = ()
    """Pairs (mask file, sentence about what may not be as it was meant)."""


@dataclass(frozen=True)
class ObjectScore:
    """J and F of one object in T frames."""

    sequence: str
    """The video's name."""

    label: str
    """The object's name within its video, as in the tables."""

    video: ScoredVideo

    frames: tuple[int, ...]
    """T indices into the video's frames."""

    ground_truth_id: int
    prediction_id: int

    j: np.ndarray
    """float64 T."""

    f: np.ndarray
    """float64 T."""

    @property
    def name(self):
        """The object's name in the tables, video and label together."""
        return f"{self.sequence}_{self.label}" if self.label else self.sequence


def score_frame(ground_truth_path, prediction_path, object_ids, rules):
    """Return the FrameScore of one frame. object_ids: the ids to score, None for all ids in either mask."""
    # Read the two masks.
    try:
        masks = read_scored_mask(ground_truth_path), read_scored_mask(prediction_path)
    except InputError as error:
        return FrameScore({}, (), 0, (), str(error))
    notices = tuple((path, notice) for path, mask in zip((ground_truth_path, prediction_path), masks, strict=True)
                    for notice in mask.notices)
    ground_truth, prediction = (mask.ids for mask in masks)
    if ground_truth.shape != prediction.shape:
        found, expected = (f"{width}×{height}" for height, width in (prediction.shape, ground_truth.shape))
        fault = f"{prediction_path}: {found} pixels, the ground truth has {expected}"
        return FrameScore({}, (), 0, (), fault)

    if rules.official and not masks[1].indexed_or_grey:
        fault = (f"{prediction_path}: a mask must be an indexed or grey PNG, this one is in colours, which the "
                 "official tool cannot read")
        return FrameScore({}, (), 0, (), fault)

    # Apply the rules for ids and void.
    if not (rules.binary or rules.proposals or masks[1].numbered):
        other = int(ground_truth[ground_truth != VOID].max(initial=0))
        if other > 1:
            fault = (f"{prediction_path}: one object without an id, the ground truth has object {other} (masks of 0 "
                     "and 255 are scored by evaluation/2016/evaluation.py)")
            return FrameScore({}, (), 0, (), fault)
    if rules.binary:
        ground_truth, prediction = (ground_truth > 0).view(np.uint8), (prediction > 0).view(np.uint8)
    highest = int(prediction.max())
    if rules.void == "ignored":
        scored = ground_truth != VOID
        ground_truth, prediction = ground_truth * scored, prediction * scored
    elif rules.void == "background" and ground_truth.max() == VOID:
        ground_truth = ground_truth * (ground_truth != VOID)

    # Compare the objects.
    radius = boundary_radius(*ground_truth.shape)
    if rules.proposals:
        values, present = _score_all_pairs(ground_truth, prediction, object_ids, rules.proposals, radius)
    else:
        values, present = _score_by_id(ground_truth, prediction, object_ids, radius)
    return FrameScore(values, present, highest, ground_truth.shape, "", notices)


def _crop_around(mask):
    """Return the slices around all non-zero pixels of a mask H×W and one pixel on each side; None if all are 0."""
    rows = np.flatnonzero(mask.max(axis=1))
    if not rows.size:
        return None
    top, bottom = max(rows[0] - 1, 0), rows[-1] + 2
    columns = np.flatnonzero(mask[top:bottom].max(axis=0))
    return slice(top, bottom), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _score_pair(ground_truth, prediction):
    """Return (J, F) of two Regions of the same crop."""
    counts = compare_regions(ground_truth, prediction)
    return region_similarity(counts.intersection, counts.union), boundary_accuracy(counts)


def _score_by_id(ground_truth, prediction, object_ids, radius):
    """Compare objects of equal id in two masks uint8 H×W: return values and ground_truth_ids of a FrameScore."""
    values, present = {}, []
    both = _crop_around(ground_truth | prediction)
    if both is None:
        return values, ()
    ground_truth, prediction = ground_truth[both], prediction[both]
    if object_ids is None:
        object_ids = range(1, max(int(ground_truth.max()), int(prediction.max())) + 1)
    for object_id in object_ids:
        truth, predicted = ground_truth == object_id, prediction == object_id
        crop = _crop_around(truth | predicted)
        if crop is None:
            continue
        if truth[crop].any():
            present.append(object_id)
        values[object_id, object_id] = _score_pair(make_region(truth[crop], radius),
                                                   make_region(predicted[crop], radius))
    return values, tuple(present)


def _score_all_pairs(ground_truth, prediction, object_ids, proposals, radius):
    """Compare each object with each of the proposals 1 … `proposals`: return what `_score_by_id` does."""
    both = _crop_around(ground_truth | prediction)
    if both is None:
        return {}, ()
    ground_truth, prediction = ground_truth[both], prediction[both]
    truths = {object_id: make_region(ground_truth == object_id, radius) for object_id in object_ids}
    predicted = {proposal: make_region(prediction == proposal, radius) for proposal in range(1, proposals + 1)}
    values = {(object_id, proposal): _score_pair(truth, other)
              for object_id, truth in truths.items() for proposal, other in predicted.items()}
    return values, tuple(object_id for object_id, truth in truths.items() if truth.mask.any())


def _score_task(task):
    """Return the FrameScores of a few frames of one video. Worker processes run this function."""
    pairs, object_ids, rules = task
    return [score_frame(ground_truth, prediction, object_ids, rules) for ground_truth, prediction in pairs]


def _keep_freed_memory():
    """Make the C library keep the memory of freed masks for the next frame instead of returning it to the system.

    glibc raises its threshold for keeping memory to the size of the largest block that was freed so far, so freeing
    one large block is enough. With zlib-ng, page faults would otherwise take a fifth of the time.
    """
    np.empty(16 << 20, np.uint8)


def _start_worker():
    # The main process handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A spawned process, unlike a forked one, does not inherit this setting.
    cv2.setNumThreads(1)
    _keep_freed_memory()


def score_videos(videos, object_ids, rules, workers):
    """Score every frame of every video: return for each video the list of its FrameScores.

    videos: ScoredVideos. object_ids: for each video the ids to score, None for all ids in its masks. workers: number
    of processes; the scores do not depend on it. Raises InputError naming every file that cannot be scored, and if a
    process is killed.
    """
    tasks = []
    for video, ids in zip(videos, object_ids, strict=True):
        pairs = list(zip(video.ground_truth, video.prediction, strict=True))
        tasks += [
            (pairs[start : start + FRAMES_PER_TASK], ids, rules)
            for start in range(0, len(pairs), FRAMES_PER_TASK)
        ]
    bar = progress_bar(sum(len(pairs) for pairs, _, _ in tasks), "scoring")
    scores = []
    with bar:
        for done in _score_tasks(tasks, min(workers, len(tasks))):
            scores += done
            bar.increment(len(done))
    remaining = iter(scores)
    results = [list(itertools.islice(remaining, len(video.frames))) for video in videos]
    _check_frames(videos, results)
    tell(list_notices(notice for frame in scores for notice in frame.notices))
    return results


def collect_object_score(video, label, ground_truth_id, prediction_id, frames, chosen=None):
    """Return the ObjectScore of one object: its values in all frames of its video, or in those with `chosen` indices.

    frames: the video's FrameScores.
    """
    chosen = range(len(frames)) if chosen is None else chosen
    values = [frames[t].values.get((ground_truth_id, prediction_id), (1.0, 1.0)) for t in chosen]
    j, f = np.array(values, np.float64).reshape(-1, 2).T.copy()
    return ObjectScore(video.name, label, video, tuple(chosen), ground_truth_id, prediction_id, j, f)


def _score_tasks(tasks, workers):
    """Yield the result of `_score_task` for each task, in order."""
    threads = cv2.getNumThreads()
    # This call ends OpenCV's threads: a forked process would not have them, but wait for them forever.
    cv2.setNumThreads(1)
    try:
        if workers <= 1:
            _keep_freed_memory()
            yield from map(_score_task, tasks)
        else:
            # Forking takes milliseconds, a fresh interpreter with NumPy and OpenCV a third of a second.
            method = "fork" if sys.platform == "linux" else "spawn"
            yield from map_in_processes(_score_task, tasks, workers, method, _start_worker)
    finally:
        cv2.setNumThreads(threads)


def _check_frames(videos, results):
    """Raise InputError naming all frames that could not be scored or whose size differs within a video."""
    problems = []
    for video, frames in zip(videos, results, strict=True):
        shape = next((frame.shape for frame in frames if frame.shape), ())
        for t, frame in enumerate(frames):
            if frame.problem:
                of_prediction = frame.problem.startswith(f"{video.prediction[t]}: ")
                side = video.prediction if of_prediction else video.ground_truth
                problems.append((side, t, frame.problem.removeprefix(f"{side[t]}: ")))
            elif frame.shape != shape:
                found, first = (f"{width}×{height}" for height, width in (frame.shape, shape))
                fault = f"{found} pixels, the video's first frame has {first}"
                problems.append((video.ground_truth, t, fault))
    raise_problems(problems)


def raise_problems(problems):
    """Raise one InputError for a list of (paths, t, what is wrong with paths[t]); do nothing if the list is empty.

    Files of a video that follow each other and have the same fault are named together.
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
    """Return short text that names files of one folder, like "a/00001.png, 00002.png"."""
    names = [path.name for path in paths[1:]]
    if len(paths) > NAMED_AT_ONCE:
        return f"{paths[0]} to {paths[-1].name} ({len(paths)} files)"
    return ", ".join([str(paths[0]), *names])
