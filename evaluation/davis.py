"""The rules of DAVIS 2016 and 2017: which videos, frames and objects are scored."""

from pathlib import Path

import numpy as np

from dataset.evaluation_sets import read_set
from dataset.trees import find_davis_home, find_resolution, note_resolution, read_names
from evaluation.decoding import read_ids
from evaluation.folders import check_predictions, list_masks
from evaluation.scoring import Rules, ScoredVideo, collect_object_score, raise_problems, score_videos
from util.errors import InputError, name_a_few
from util.files import is_hidden
from util.mask_rule import VOID
from util.notices import list_notices, tell

MAX_PROPOSALS = 20
"""So many objects a video's predictions may have in the unsupervised task."""

UNSUPERVISED_2019 = ("test-dev", "test-challenge")
"""Splits whose lists for the unsupervised task are those of 2019, in ImageSets/2019."""


def _read_other_sets(listing):
    """Return {YEAR/SET: names of its videos} for all lists beside a list of DAVIS that have none of its videos.

    Nobody asked for these lists, so those that are no lists are left out.
    """
    sets, names = {}, set(read_names(listing))
    for path in sorted(listing.parents[1].glob("*/*.txt")):
        try:
            others = [] if is_hidden(path.name) else read_names(path)
        except InputError:
            continue
        if others and not names & set(others):
            sets[f"{path.parent.name}/{path.stem}"] = others
    return sets


def find_davis_videos(root, year, split, results, annotations="Annotations", ends=False):
    """Return the ScoredVideos of a list of DAVIS and, for each, the mask file of its first frame.

    root: see `dataset.trees.find_davis_home`. year, split: of the list. results: the folder of the predictions.
    annotations: folder of the ground truth. ends: score the first and the last frame, too. Raises
    InputError naming all files that are missing, and sequences without a frame to score.
    """
    # List the masks of the ground truth.
    home, listing = find_davis_home(root, year, split, (annotations,))
    names, resolution = read_set(listing), find_resolution(home / annotations)
    folder = home / annotations / resolution
    all_masks = {name: list_masks(folder / name) for name in names}
    without = [name for name, masks in all_masks.items() if not masks]
    if without:
        raise InputError(f"{folder}: no ground truth for {', '.join(without)}, which {listing} names")
    tell(list_notices(note_resolution(home / annotations, resolution)))

    # Pair the masks of the scored frames with the predictions.
    wanted, videos = {}, []
    short = [name for name, masks in all_masks.items() if not (ends or masks[1:-1])]
    if short:
        raise InputError(f"{folder}: fewer than three annotated frames in {', '.join(short)}; the first and the last "
                         f"are not scored, so take these out of {listing}, or score with evaluation/generic.py")
    for name, masks in all_masks.items():
        scored = masks if ends else masks[1:-1]
        # As in the official tool, frames are named without dots: 00.01.png is frame 0001.
        frames = [Path(mask).stem.replace(".", "") for mask in scored]
        wanted[name] = [f"{frame}.png" for frame in frames]
        images = home / "JPEGImages" / resolution / name
        videos.append(
            ScoredVideo(
                name,
                tuple(frames),
                tuple(folder / name / mask for mask in scored),
                tuple(results / name / prediction for prediction in wanted[name]),
                tuple(images / f"{Path(mask).stem}.jpg" for mask in scored),
            )
        )
    # Check that all predictions exist.
    check_predictions(results, wanted, f"{split} in {root}", _read_other_sets(listing))
    true = {name: {f"{Path(mask).stem.replace('.', '')}.png" for mask in masks} for name, masks in all_masks.items()}
    tell(list_notices((results / name / mask, f"not scored, since {folder} has no mask of this frame")
                      for name in names for mask in list_masks(results / name) if mask not in true[name]))
    return videos, [folder / video.name / all_masks[video.name][0] for video in videos]


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
