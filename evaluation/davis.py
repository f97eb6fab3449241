"""The rules of DAVIS 2016 and 2017: which videos, frames and objects are scored."""

from pathlib import Path

import numpy as np

from dataset.evaluation_sets import read_set
from evaluation.decoding import read_ids
from evaluation.folders import check_predictions, list_masks, name_a_few
from evaluation.scoring import VOID, Rules, ScoredVideo, collect_object_score, raise_problems, score_videos
from util.errors import InputError

MAX_PROPOSALS = 20
"""So many objects a video's predictions may have in the unsupervised task."""

UNSUPERVISED_2019 = ("test-dev", "test-challenge")
"""Splits whose lists for the unsupervised task are those of 2019, in ImageSets/2019."""


def find_davis(path, year, split):
    """Return the folder at or below `path` that holds ImageSets/`year`/`split`.txt, or `path` if there is none."""
    for folder in (".", "trainval", "test-dev", "2017/trainval", "2017/test-dev", "2016"):
        if (Path(path) / folder / "ImageSets" / str(year) / f"{split}.txt").is_file():
            return Path(path) / folder
    return Path(path)


def _read_other_sets(davis_path, names):
    """Return {YEAR/SET: names of its videos} for all lists of DAVIS that have none of the videos `names`."""
    sets = {}
    for path in sorted((Path(davis_path) / "ImageSets").glob("*/*.txt")):
        others = read_set(davis_path, path.parent.name, path.stem) if path.stat().st_size else []
        if not set(others) & set(names):
            sets[f"{path.parent.name}/{path.stem}"] = others
    return sets


def find_davis_videos(davis_path, results_path, names, set_name, annotations="Annotations", ends=False):
    """Return the ScoredVideos with these `names` and, for each, the mask file of its first frame.

    set_name: the list that the names are from, for messages. annotations: folder of the ground truth. ends: score the
    first and the last frame, too. Raises InputError naming all files that are missing.
    """
    # List the masks of the ground truth.
    folder = Path(davis_path) / annotations / "480p"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --davis-path is the folder that {annotations} is in")
    all_masks = {name: list_masks(folder / name) for name in names}
    without = [name for name, masks in all_masks.items() if not masks]
    if without:
        raise InputError(f"{folder}: no ground truth for {', '.join(without)}")

    # Pair the masks of the scored frames with the predictions.
    wanted, videos = {}, []
    short = []
    for name, masks in all_masks.items():
        scored = masks if ends else masks[1:-1]
        if not scored:
            short.append(name)
        # As in the official tool, frames are named without dots: 00.01.png is frame 0001.
        frames = [Path(mask).stem.replace(".", "") for mask in scored]
        wanted[name] = [f"{frame}.png" for frame in frames]
        images = Path(davis_path) / "JPEGImages" / "480p" / name
        videos.append(
            ScoredVideo(
                name,
                tuple(frames),
                tuple(folder / name / mask for mask in scored),
                tuple(Path(results_path) / name / prediction for prediction in wanted[name]),
                tuple(images / f"{Path(mask).stem}.jpg" for mask in scored),
            )
        )
    if short:
        raise InputError(
            f"{folder}: fewer than three annotated frames in {', '.join(short)}; "
            "the first and the last are not scored"
        )

    # Check that all predictions exist.
    check_predictions(
        Path(results_path), wanted, f"{set_name} in {davis_path}", _read_other_sets(davis_path, names)
    )
    return videos, [folder / name / masks[0] for name, masks in all_masks.items()]


def count_objects(first_mask):
    """Return the number of objects: the highest id in a mask file, void excepted. Ids that are left out count, too."""
    ids = read_ids(first_mask)
    return int(ids[ids != VOID].max(initial=0))


def score_semi_supervised(videos, first_masks, workers):
    """Return the ObjectScores of all videos: of the objects 1 … N of each, N being the highest id in its first mask."""
    counts = [count_objects(path) for path in first_masks]
    _check_any_object(counts, first_masks)
    results = score_videos(videos, [range(1, count + 1) for count in counts], Rules(official=True), workers)
    _check_ids(videos, results, counts, "its highest id in the first frame is")
    scores = []
    for video, frames, count in zip(videos, results, counts, strict=True):
        scores += [collect_object_score(video, str(object_id), object_id, object_id, frames)
                   for object_id in range(1, count + 1)]
    return scores


def score_binary(videos, workers):
    """Return an ObjectScore for each video: all that is not background is one object (DAVIS 2016)."""
    rules = Rules(void="an object", binary=True)
    results = score_videos(videos, [(1,)] * len(videos), rules, workers)
    return [collect_object_score(video, "", 1, 1, frames) for video, frames in zip(videos, results, strict=True)]


def score_unsupervised(videos, first_masks, workers):
    """Return the ObjectScores of all videos; proposals are assigned to objects so that the sum of J&F is highest.

    Caelles et al., "The 2019 DAVIS Challenge on VOS: Unsupervised Multi-Object Segmentation", section 3. As in the
    official tables, objects are labelled in the order of the proposals that are assigned to them.
    """
    try:
        # Where several assignments are equally good, only this function picks the official tool's.
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise InputError("the unsupervised task needs SciPy: pip install scipy") from None

    # Score each object with each proposal.
    counts = [count_objects(path) for path in first_masks]
    _check_any_object(counts, first_masks)
    rules = Rules(void="ignored", official=True, proposals=max(MAX_PROPOSALS, *counts))
    results = score_videos(videos, [range(1, count + 1) for count in counts], rules, workers)
    _check_ids(videos, results, [MAX_PROPOSALS] * len(videos), "the most proposals are")

    # Choose the assignment, video by video. Rows and columns of `means` are proposals and objects, counted from 0.
    scores = []
    for video, frames, count in zip(videos, results, counts, strict=True):
        proposals = max(count, *(frame.highest_prediction for frame in frames))
        pairs = [
            [collect_object_score(video, "", object_id, proposal, frames) for object_id in range(1, count + 1)]
            for proposal in range(1, proposals + 1)
        ]
        means = np.array([[(np.mean(pair.j) + np.mean(pair.f)) / 2 for pair in row] for row in pairs])
        assigned = zip(*linear_sum_assignment(-means.reshape(proposals, count)), strict=True)
        scores += [
            collect_object_score(video, str(label), int(column) + 1, int(row) + 1, frames)
            for label, (row, column) in enumerate(assigned, 1)
        ]
    return scores


def _check_any_object(counts, first_masks):
    """Raise InputError if no first mask has an object."""
    if not any(counts):
        raise InputError(f"no object in the first frames: {name_a_few([str(path) for path in first_masks])}")


def _check_ids(videos, results, limits, reason):
    """Raise InputError naming all predictions with an id above their video's limit. reason: what the limit is."""
    problems = []
    for video, frames, limit in zip(videos, results, limits, strict=True):
        for t, frame in enumerate(frames):
            if frame.highest_prediction > limit:
                found = frame.highest_prediction
                fault = f"object id {found} is beyond the ground truth's, {reason} {limit}"
                if found == VOID:
                    fault += " (masks of 0 and 255 are scored by evaluation/2016/evaluation.py)"
                problems.append((video.prediction, t, fault))
    raise_problems(problems)
