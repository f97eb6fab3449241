"""J and F on YouTube-VOS, separately for seen and unseen categories, where there is ground truth.

    python evaluation/youtube/evaluation.py --results R --yv-path YouTube --split valid_with_masks \
        --seen YouTube/train/meta.json

Ground truth is YouTube/SPLIT/Annotations/VIDEO/FRAME.png and YouTube/SPLIT/meta.json, R holds
VIDEO/FRAME.png or Annotations/VIDEO/FRAME.png. The published validation sets have no public masks but the
first ones: this is for videos held out from training. An object is scored in its frames of meta.json after
the first, without meta.json in those in which the ground truth shows it. The overall score is the mean of J
and F on seen and on unseen categories, each a mean over objects; the server's own code is not public. Writes
global_results-SPLIT.csv and per-sequence_results-SPLIT.csv into R.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from evaluation.command_line import say_written
from evaluation.decoding import read_ids
from evaluation.folders import check_predictions, list_folders, list_masks
from evaluation.report import write_report
from evaluation.scoring import VOID, Rules, ScoredVideo, object_score, raise_problems, score_clips
from evaluation.tables import print_table, write_csv
from util.errors import InputError, run_script
from util.hyper_para import OptionParser, ScoringSettings, option, settings_from


@dataclass(frozen=True)
class YouTubeScoringSettings(ScoringSettings):
    """What this script is told."""

    yv_path: Path = option(Path("YouTube"), "folder that holds the split (default: %(default)s)", type=Path,
                           metavar="FOLDER")
    split: str = option("valid", "folder that holds Annotations and meta.json (default: %(default)s)", metavar="SPLIT")
    results: Path = option(None, "folder that holds a folder of masks for each video, or Annotations with them",
                           names=["results", "results-path"], type=Path, required=True, metavar="FOLDER")
    seen: Path | None = option(None, "the seen categories: meta.json of the training split, or a text file with one a "
                                     "line (default: all categories together)", type=Path, metavar="FILE")
    include_first: bool = option(False, "score an object's first frame, too (default: do not)")
    per_category: bool = option(False, "mean over categories (default: over objects)")


def get_args_parser():
    parser = OptionParser("evaluation.py", __doc__)
    parser.add_settings(YouTubeScoringSettings)
    return parser


def read_meta(path):
    """Per video and object id what meta.json says: {video: {id: (category, sorted frames)}}."""
    try:
        videos = json.loads(path.read_text())["videos"]
        return {
            video: {
                int(k): (entry.get("category", ""), sorted(entry["frames"]))
                for k, entry in description["objects"].items()
            }
            for video, description in videos.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a meta.json of YouTube-VOS ({error!r})") from None


def meta_from_masks(annotations):
    """The same from the ground truth's masks alone, without categories."""
    meta = {}
    for video in list_folders(annotations):
        objects = {}
        for name in list_masks(annotations / video):
            for k in set(np.unique(read_ids(annotations / video / name)).tolist()) - {0, VOID}:
                objects.setdefault(k, ("", []))[1].append(Path(name).stem)
        meta[video] = dict(sorted(objects.items()))
    return meta


def read_seen(path):
    """The set of seen categories of a meta.json or a text file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".json":
        return {category for objects in read_meta(path).values() for category, _ in objects.values()}
    return {line.strip() for line in path.read_text().splitlines() if line.strip()}


def find_clips(settings, results, meta):
    """One clip per video with all frames in which an object is scored."""
    annotations = settings.yv_path / settings.split / "Annotations"
    clips, without = [], []
    for video, objects in meta.items():
        skipped = 0 if settings.include_first else 1
        frames = sorted({frame for _, frames in objects.values() for frame in frames[skipped:]})
        if not frames:
            continue
        truth = tuple(annotations / video / f"{frame}.png" for frame in frames)
        without += [str(path) for path in truth if not path.is_file()]
        photos = settings.yv_path / settings.split / "JPEGImages" / video
        clips.append(
            ScoredVideo(
                video,
                tuple(frames),
                truth,
                tuple(results / video / f"{frame}.png" for frame in frames),
                tuple(photos / f"{frame}.jpg" for frame in frames),
            )
        )
    if without:
        raise InputError(
            f"{annotations}: meta.json names {len(without)} frames that have no mask (the published "
            f"validation sets have none but the first): {', '.join(without)}"
        )
    if not clips:
        raise InputError(f"{annotations}: no object has a frame to score")
    wanted = {clip.name: [f"{frame}.png" for frame in clip.frames] for clip in clips}
    check_predictions(results, wanted, f"{settings.split} in {settings.yv_path}")
    return clips


def score_objects(clips, meta, settings):
    """The list of ObjectScores of all clips and the category of each."""
    results = score_clips(clips, [None] * len(clips), Rules(), settings.workers)
    scores, categories, problems = [], [], []
    for clip, frames in zip(clips, results, strict=True):
        objects = meta[clip.name]
        for t, frame in enumerate(frames):
            extra = {j for _, j in frame.values} - set(objects) - set(frame.ground_truth_ids)
            if extra:
                ids = ", ".join(map(str, objects))
                problems.append((clip.prediction, t, f"object id {min(extra)}, the objects are {ids}"))
        for k, (category, own) in objects.items():
            chosen = [clip.frames.index(frame) for frame in own[0 if settings.include_first else 1 :]]
            if chosen:
                scores.append(object_score(clip, str(k), k, k, frames, chosen))
                categories.append(category)
    raise_problems(problems)
    return scores, categories


def mean_over(values, categories, per_category):
    """Mean of values over objects, or over the means of their categories; NaN of none."""
    if not values:
        return float("nan")
    if per_category:
        groups = {}
        for value, category in zip(values, categories, strict=True):
            groups.setdefault(category, []).append(value)
        values = [np.mean(group) for group in groups.values()]
    return float(np.mean(values))


def summarise(scores, categories, seen, per_category):
    """The table of means: {column: value}. `seen` is None where the categories are not told apart."""
    values = {"J": [np.mean(score.j) for score in scores], "F": [np.mean(score.f) for score in scores]}
    if seen is None:
        j, f = (mean_over(values[measure], categories, per_category) for measure in "JF")
        return {"J&F-Mean": (j + f) / 2, "J-Mean": j, "F-Mean": f}
    table = {}
    for measure in "JF":
        for name, wanted in (("seen", True), ("unseen", False)):
            chosen = [i for i, category in enumerate(categories) if (category in seen) == wanted]
            table[f"{measure}-{name}"] = mean_over(
                [values[measure][i] for i in chosen], [categories[i] for i in chosen], per_category
            )
    return {"Overall": float(np.mean(list(table.values()))), **table}


def main(args):
    settings = settings_from(YouTubeScoringSettings, args)
    split = settings.yv_path / settings.split
    meta_path = split / "meta.json"
    list_folders(split / "Annotations")  # raises a clear error where there is none
    meta = read_meta(meta_path) if meta_path.is_file() else meta_from_masks(split / "Annotations")
    seen = read_seen(settings.seen) if settings.seen else None
    inner = settings.results / "Annotations"
    results = inner if inner.is_dir() else settings.results
    scores, categories = score_objects(find_clips(settings, results, meta), meta, settings)
    summary = summarise(scores, categories, seen, settings.per_category)
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
    if settings.report:
        facts = {"results": settings.results.resolve().name, "mean over": "objects"}
        if settings.per_category:
            facts["mean over"] = "categories"
        write_report(settings.report, f"YouTube-VOS, {settings.split}", scores, summary, facts)
    say_written([global_path, objects_path, settings.report])


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
