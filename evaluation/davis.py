"""The rules of DAVIS 2016 and 2017: which sequences, frames and objects are scored."""

from pathlib import Path

import numpy as np

from dataset.evaluation_sets import read_set
from evaluation.decoding import read_ids
from evaluation.folders import a_few, check_predictions, list_masks
from evaluation.scoring import VOID, Rules, ScoredVideo, object_score, raise_problems, score_clips
from util.errors import InputError

MAX_PROPOSALS = 20  # of the unsupervised task
BINARY_VALUE = 255  # of the object in masks of DAVIS 2016
UNSUPERVISED_2019 = ("test-dev", "test-challenge")  # their unsupervised lists came out two years later


def find_davis(path, year, split):
    """The folder at or below `path` that holds ImageSets/`year`/`split`.txt; `path` itself if there is none."""
    for folder in (".", "trainval", "test-dev", "2017/trainval", "2017/test-dev", "2016"):
        if (Path(path) / folder / "ImageSets" / str(year) / f"{split}.txt").is_file():
            return Path(path) / folder
    return Path(path)


def _other_sets(davis_path, sequences):
    sets = {}
    for path in sorted((Path(davis_path) / "ImageSets").glob("*/*.txt")):
        names = read_set(davis_path, path.parent.name, path.stem) if path.stat().st_size else []
        if not set(names) & set(sequences):
            sets[f"{path.parent.name}/{path.stem}"] = names
    return sets


def davis_clips(davis_path, results_path, sequences, set_name, annotations="Annotations", ends=False):
    """The clips to score and, for each, the mask of the first frame, which says what objects there are.

    The first and the last frame are left out unless `ends`. Raises InputError naming all that is missing.
    """
    folder = Path(davis_path) / annotations / "480p"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --davis_path is the folder that {annotations} is in")
    all_masks = {name: list_masks(folder / name) for name in sequences}
    without = [name for name, masks in all_masks.items() if not masks]
    if without:
        raise InputError(f"{folder}: no ground truth for {', '.join(without)}")
    wanted, clips = {}, []
    short = []
    for name, masks in all_masks.items():
        scored = masks if ends else masks[1:-1]
        if not scored:
            short.append(name)
        # Frame ids have no dots, as in the official tool: 00.01.png is frame 0001.
        frames = [Path(mask).stem.replace(".", "") for mask in scored]
        wanted[name] = [f"{frame}.png" for frame in frames]
        photos = Path(davis_path) / "JPEGImages" / "480p" / name
        clips.append(
            ScoredVideo(
                name,
                tuple(frames),
                tuple(folder / name / mask for mask in scored),
                tuple(Path(results_path) / name / prediction for prediction in wanted[name]),
                tuple(photos / f"{Path(mask).stem}.jpg" for mask in scored),
            )
        )
    if short:
        raise InputError(
            f"{folder}: fewer than three annotated frames in {', '.join(short)}; "
            "the first and the last are not scored"
        )
    check_predictions(
        Path(results_path), wanted, f"{set_name} in {davis_path}", _other_sets(davis_path, sequences)
    )
    return clips, [folder / name / masks[0] for name, masks in all_masks.items()]


def count_objects(first_mask):
    """The highest id of the first frame's mask, void aside. Numbers that are left out count as objects."""
    ids = read_ids(first_mask)
    return int(ids[ids != VOID].max(initial=0))


def score_semi_supervised(clips, first_masks, workers):
    """J and F of the objects 1 … N of every clip in all its frames: list of ObjectScore."""
    counts = [count_objects(path) for path in first_masks]
    _check_any_object(counts, first_masks)
    results = score_clips(clips, [range(1, n + 1) for n in counts], Rules(), workers)
    _check_ids(clips, results, counts, "its highest id in the first frame is")
    scores = []
    for clip, frames, n in zip(clips, results, counts, strict=True):
        scores += [object_score(clip, str(k), k, k, frames) for k in range(1, n + 1)]
    return scores


def score_binary(clips, workers):
    """J and F of what is not background (DAVIS 2016), one object per clip: list of ObjectScore."""
    rules = Rules(void="an object", binary=True)
    results = score_clips(clips, [(1,)] * len(clips), rules, workers)
    return [object_score(clip, "", 1, 1, frames) for clip, frames in zip(clips, results, strict=True)]


def score_unsupervised(clips, first_masks, workers):
    """As score_semi_supervised, each object with the proposal that suits it in the best assignment overall.

    Caelles et al., "The 2019 DAVIS Challenge on VOS: Unsupervised Multi-Object Segmentation", section 3.
    The objects of a clip are numbered in the order of their proposals, as in the official tables.
    """
    try:
        # Ties between proposals are resolved as in the official tool only by the same implementation.
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise InputError("the unsupervised task needs SciPy: pip install scipy") from None
    counts = [count_objects(path) for path in first_masks]
    _check_any_object(counts, first_masks)
    rules = Rules(void="ignored", proposals=max(MAX_PROPOSALS, *counts))
    results = score_clips(clips, [range(1, n + 1) for n in counts], rules, workers)
    _check_ids(clips, results, [MAX_PROPOSALS] * len(clips), "the most proposals are")
    scores = []
    for clip, frames, n in zip(clips, results, counts, strict=True):
        proposals = max(n, *(frame.highest_prediction for frame in frames))
        pairs = [
            [object_score(clip, "", i, j, frames) for i in range(1, n + 1)] for j in range(1, proposals + 1)
        ]
        means = np.array([[(np.mean(pair.j) + np.mean(pair.f)) / 2 for pair in row] for row in pairs])
        chosen = zip(*linear_sum_assignment(-means.reshape(proposals, n)), strict=True)
        scores += [
            object_score(clip, str(k), int(i) + 1, int(j) + 1, frames) for k, (j, i) in enumerate(chosen, 1)
        ]
    return scores


def _check_any_object(counts, first_masks):
    if not any(counts):
        raise InputError(f"no object in the first frames: {a_few([str(path) for path in first_masks])}")


def _check_ids(clips, results, limits, reason):
    problems = []
    for clip, frames, limit in zip(clips, results, limits, strict=True):
        for t, frame in enumerate(frames):
            if frame.highest_prediction > limit:
                found = frame.highest_prediction
                fault = f"object id {found} is beyond the ground truth's, {reason} {limit}"
                if found == BINARY_VALUE:
                    fault += " (masks of 0 and 255 are scored by evaluation/2016/evaluation.py)"
                problems.append((clip.prediction, t, fault))
    raise_problems(problems)
