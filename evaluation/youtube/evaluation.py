"""Compute J and F on YouTube-VOS videos with ground truth, separately for seen and unseen categories.

    python evaluation/youtube/evaluation.py --results R --yv-path YouTube --split valid_with_masks \
        --seen YouTube/train/meta.json

This script is for videos that were held out from training: of the published validation sets, only the first masks are
public. The ground truth is YouTube/SPLIT/Annotations/VIDEO/FRAME.png and YouTube/SPLIT/meta.json. R holds
VIDEO/FRAME.png or Annotations/VIDEO/FRAME.png.

An object is scored in the frames that meta.json lists for it, except the first; without meta.json, in the frames in
which the ground truth shows it, except the first. The overall score is the mean of four numbers: J and F of seen and of
unseen categories, each a mean over objects. The server's own code is not public. Writes global_results-SPLIT.csv and
per-sequence_results-SPLIT.csv into R.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from dataset.trees import read_meta
from evaluation.command_line import say_written
from evaluation.decoding import read_ids
from evaluation.folders import check_predictions, list_folders, list_masks
from evaluation.report import write_report
from evaluation.scoring import VOID, Rules, ScoredVideo, collect_object_score, raise_problems, score_videos
from evaluation.tables import print_table, write_csv
from util.errors import InputError, run_script
from util.files import read_text
from util.hyper_para import ScoringSettings
from util.image_io import natural
from util.options import OptionParser, option, settings_from


@dataclass(frozen=True)
class YouTubeScoringSettings(ScoringSettings):
    """Options of this script."""

    yv_path: Path = option(Path("YouTube"), "folder that holds the split's folder (default: %(default)s)", type=Path,
                           metavar="FOLDER")
    split: str = option("valid", "the split, a folder that holds Annotations and meta.json (default: %(default)s)",
                        metavar="SPLIT")
    results: Path = option(None, "folder that holds a folder of masks for each video, directly or in Annotations",
                           names=["results", "results-path"], type=Path, required=True, metavar="FOLDER")
    seen: Path | None = option(None, "the seen categories: meta.json of the training split, or a text file with one a "
                                     "line (default: all categories together)", type=Path, metavar="FILE")
    include_first: bool = option(False, "score an object's first frame, too (default: do not)")
    per_category: bool = option(False, "take means over categories (default: over objects)")


def get_args_parser():
    parser = OptionParser("evaluation.py", __doc__)
    parser.add_settings(YouTubeScoringSettings)
    return parser


def make_meta_from_masks(annotations):
    """Return what `read_meta` does, from the ground truth's masks alone; categories are empty."""
    meta = {}
    for video in list_folders(annotations):
        objects = {}
        for name in list_masks(annotations / video):
            for object_id in set(np.unique(read_ids(annotations / video / name)).tolist()) - {0, VOID}:
                objects.setdefault(object_id, ("", []))[1].append(Path(name).stem)
        meta[video] = dict(sorted(objects.items()))
    return meta


def read_seen(path):
    """Return the set of seen categories: those in a meta.json, or the lines of a text file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; --seen is a meta.json or a text file with one category a line")
    if path.suffix == ".json":
        return {category for objects in read_meta(path).values() for category, _ in objects.values()}
    return {line.strip() for line in read_text(path).splitlines() if line.strip()}


def find_videos(settings, results, meta):
    """Return a ScoredVideo, with all frames in which an object is scored, for each video that has such frames.

    results: folder of the predictions. meta: as `read_meta` returns it. Raises InputError naming what is missing.
    """
    # Pair the masks of the ground truth with the predictions.
    annotations = settings.yv_path / settings.split / "Annotations"
    videos, without = [], []
    for name, objects in meta.items():
        skipped = 0 if settings.include_first else 1
        frames = sorted({frame for _, frames in objects.values() for frame in frames[skipped:]}, key=natural)
        if not frames:
            continue
        truth = tuple(annotations / name / f"{frame}.png" for frame in frames)
        without += [str(path) for path in truth if not path.is_file()]
        images = settings.yv_path / settings.split / "JPEGImages" / name
        videos.append(
            ScoredVideo(
                name,
                tuple(frames),
                truth,
                tuple(results / name / f"{frame}.png" for frame in frames),
                tuple(images / f"{frame}.jpg" for frame in frames),
            )
        )

    # Check that all files are there.
    if without:
        raise InputError(
            f"{annotations}: meta.json names {len(without)} frames that have no mask (the published "
            f"validation sets have none but the first): {', '.join(without)}"
        )
    if not videos:
        raise InputError(f"{annotations}: no object has a frame to score; an object's first frame counts only with "
                         "--include-first")
    wanted = {video.name: [f"{frame}.png" for frame in video.frames] for video in videos}
    check_predictions(results, wanted, f"{settings.split} in {settings.yv_path}")
    return videos


def score_objects(videos, meta, settings):
    """Return the ObjectScores of all videos, and the list of their categories.

    Raises InputError naming the predictions with object ids that neither `meta` nor the ground truth has.
    """
    results = score_videos(videos, [None] * len(videos), Rules(), settings.workers)
    scores, categories, problems = [], [], []
    for video, frames in zip(videos, results, strict=True):
        objects = meta[video.name]
        # Find ids that the video does not have.
        for t, frame in enumerate(frames):
            extra = {object_id for _, object_id in frame.values} - set(objects) - set(frame.ground_truth_ids)
            if extra:
                ids = ", ".join(map(str, objects))
                problems.append((video.prediction, t, f"object id {min(extra)}, the objects are {ids}"))
        # Collect the scores of each object in its own frames.
        for object_id, (category, own) in objects.items():
            chosen = [video.frames.index(frame) for frame in own[0 if settings.include_first else 1 :]]
            if chosen:
                scores.append(collect_object_score(video, str(object_id), object_id, object_id, frames, chosen))
                categories.append(category)
    raise_problems(problems)
    return scores, categories


def compute_mean(values, categories, per_category):
    """Return the mean over objects, or the mean of the categories' means; NaN if there are no objects.

    values, categories: a number and a category for each object.
    """
    if not values:
        return float("nan")
    if per_category:
        groups = {}
        for value, category in zip(values, categories, strict=True):
            groups.setdefault(category, []).append(value)
        values = [np.mean(group) for group in groups.values()]
    return float(np.mean(values))


def summarise(scores, categories, seen, per_category):
    """Return the table of means, {column: value}.

    scores, categories: an ObjectScore and a category for each object. seen: the set of seen categories, None for means
    over all categories together.
    """
    values = {"J": [np.mean(score.j) for score in scores], "F": [np.mean(score.f) for score in scores]}
    if seen is None:
        j, f = (compute_mean(values[measure], categories, per_category) for measure in "JF")
        return {"J&F-Mean": (j + f) / 2, "J-Mean": j, "F-Mean": f}
    table = {}
    for measure in "JF":
        for name, wanted in (("seen", True), ("unseen", False)):
            chosen = [i for i, category in enumerate(categories) if (category in seen) == wanted]
            table[f"{measure}-{name}"] = compute_mean(
                [values[measure][i] for i in chosen], [categories[i] for i in chosen], per_category
            )
    return {"Overall": float(np.mean(list(table.values()))), **table}


def main(args):
    settings = settings_from(YouTubeScoringSettings, args)

    # Read the ground truth, and score.
    split = settings.yv_path / settings.split
    meta_path = split / "meta.json"
    # Raises InputError if the folder is missing.
    list_folders(split / "Annotations")
    meta = read_meta(meta_path) if meta_path.is_file() else make_meta_from_masks(split / "Annotations")
    seen = read_seen(settings.seen) if settings.seen else None
    inner = settings.results / "Annotations"
    results = inner if inner.is_dir() else settings.results
    scores, categories = score_objects(find_videos(settings, results, meta), meta, settings)
    if seen is not None and not seen & set(categories):
        print(f"note: {settings.seen}: none of the categories that are scored is in this list", file=sys.stderr)
    summary = summarise(scores, categories, seen, settings.per_category)

    # Write and print the tables.
    header = ["Sequence", "Category", "J-Mean", "F-Mean"]
    rows = [
        [score.name, category, float(np.mean(score.j)), float(np.mean(score.f))]
        for score, category in zip(scores, categories, strict=True)
    ]
    global_path = settings.results / f"global_results-{settings.split}.csv"
    objects_path = settings.results / f"per-sequence_results-{settings.split}.csv"
    write_csv(global_path, list(summary), [list(summary.values())])
    write_csv(objects_path, header, rows)
    print_table(list(summary), [list(summary.values())])
    if seen is None:
        print("note: all categories together; --seen tells seen from unseen ones", file=sys.stderr)

    # Write the report.
    if settings.report:
        facts = {"mean over": "categories" if settings.per_category else "objects"}
        runs = {str(settings.results): scores}
        write_report(settings.report, f"YouTube-VOS, {settings.split}", runs, summary, facts)
    say_written([global_path, objects_path, settings.report])


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
