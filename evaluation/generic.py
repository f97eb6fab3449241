"""J and F of any folder of masks against any folder of ground truth.

    python evaluation/generic.py --ground-truth DATA/Annotations --results R
    python evaluation/generic.py --ground-truth A --results B --strict --all-frames --report report.html

Both hold a folder of indexed or grey PNG files per sequence; frames belong together by file name and ground
truth may be sparse. Scored are the sequences that are in both folders, every annotated frame but the first
and the last, and each object of the ground truth from the frame on in which it is first seen on either side:
the rules of vos-benchmark. There is no void: 255 is an object like any other. Writes results.csv into R, in
percent.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from evaluation.command_line import say_written
from evaluation.decoding import read_ids
from evaluation.folders import a_few, check_predictions, list_folders, list_masks
from evaluation.report import write_report
from evaluation.scoring import Rules, ScoredVideo, object_score, raise_problems, score_clips
from util.errors import InputError, run_script
from util.files import atomic_path
from util.hyper_para import OptionParser, ScoringSettings, option, settings_from


@dataclass(frozen=True)
class GenericSettings(ScoringSettings):
    """What this script is told."""

    ground_truth: Path = option(None, "folder that holds a folder of true masks for each sequence", type=Path,
                                required=True, metavar="FOLDER")
    results: Path = option(None, "folder that holds a folder of masks for each sequence",
                           names=["results", "results-path"], type=Path, required=True, metavar="FOLDER")
    images: Path | None = option(None, "folder that holds a folder of JPEG frames for each sequence, for the report "
                                       "(default: the ground truth's)", type=Path, metavar="FOLDER")
    strict: bool = option(False, "refuse sequences without results (default: leave them out, with a note)")
    all_frames: bool = option(False, "score the first and the last frame, too (default: do not)")
    ignore_extra_ids: bool = option(False, "accept ids that the ground truth does not have; by themselves they cost "
                                           "nothing (default: refuse them)")


def get_args_parser():
    parser = OptionParser("generic.py", __doc__)
    parser.add_settings(GenericSettings)
    return parser


def find_clips(settings):
    """The clips to score and, for each, all its ground truth files."""
    sequences = [name for name in list_folders(settings.ground_truth) if list_masks(settings.ground_truth / name)]
    if not sequences:
        raise InputError(f"{settings.ground_truth}: no folders with PNG files in it")
    all_masks = {name: list_masks(settings.ground_truth / name) for name in sequences}
    found = set(list_folders(settings.results)) & set(sequences)
    scored = {
        name: masks if settings.all_frames else masks[1:-1]
        for name, masks in all_masks.items()
        if settings.strict or not found or name in found
    }
    check_predictions(settings.results, scored, str(settings.ground_truth))
    left_out = [name for name in sequences if name not in scored]
    if left_out:
        print(f"note: {len(left_out)} sequences have no results: {a_few(left_out)}", file=sys.stderr)
    short = [name for name, masks in scored.items() if not masks]
    if short:
        raise InputError(f"{settings.ground_truth}: fewer than three annotated frames in {', '.join(short)}")
    photos = settings.images or settings.ground_truth
    clips = [
        ScoredVideo(
            name,
            tuple(Path(mask).stem for mask in masks),
            tuple(settings.ground_truth / name / mask for mask in masks),
            tuple(settings.results / name / mask for mask in masks),
            tuple(photos / name / f"{Path(mask).stem}.jpg" for mask in masks),
        )
        for name, masks in scored.items()
    ]
    return clips, [[settings.ground_truth / clip.name / mask for mask in all_masks[clip.name]] for clip in clips]


def check_ids(clip, masks, frames, known):
    """(predictions, t, fault) of every frame t with ids that no frame of the ground truth has."""
    suspects = {
        t: ids for t, frame in enumerate(frames) if (ids := {k for k, _ in frame.values if k not in known})
    }
    if suspects:  # an id may still be in the two frames that are not scored
        known = known.union(*(set(np.unique(read_ids(path)).tolist()) for path in (masks[0], masks[-1])))
    return [
        (clip.prediction, t, f"object id {min(ids - known)} is in no frame of the ground truth")
        for t, ids in suspects.items()
        if ids - known
    ]


def score_objects(clips, all_masks, settings):
    """The list of ObjectScores of all clips."""
    results = score_clips(clips, [None] * len(clips), Rules(void="an object"), settings.workers)
    scores, problems = [], []
    for clip, masks, frames in zip(clips, all_masks, results, strict=True):
        known = set().union(*(frame.ground_truth_ids for frame in frames))
        if not settings.ignore_extra_ids:
            problems += check_ids(clip, masks, frames, known)
        for k in sorted(known):
            first = next(t for t, frame in enumerate(frames) if (k, k) in frame.values)
            scores.append(object_score(clip, f"{k:03d}", k, k, frames, range(first, len(frames))))
    raise_problems(problems)
    if not scores:
        raise InputError(f"{settings.ground_truth}: no object in any frame that is scored")
    return scores


def percent(j, f):
    return [f"{100 * value:.1f}" for value in ((j + f) / 2, j, f)]


def main(args):
    settings = settings_from(GenericSettings, args)
    scores = score_objects(*find_clips(settings), settings)
    means = [(np.mean(score.j), np.mean(score.f)) for score in scores]
    j, f = (float(np.mean(values)) for values in zip(*means, strict=True))
    width = max(len(name) for name in ("Global score", *(score.sequence for score in scores)))
    lines = [
        f"{'sequence':{width}},obj,  J&F,    J,    F",
        f"{'Global score':{width}},   , {', '.join(percent(j, f))}",
    ]
    for score, (own_j, own_f) in zip(scores, means, strict=True):
        values = [value.rjust(5) for value in percent(own_j, own_f)]
        lines.append(f"{score.sequence:{width}},{score.label},{','.join(values)}")
    path = settings.results / "results.csv"
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if settings.report:
        facts = {
            "ground truth": settings.ground_truth.resolve().name,
            "results": settings.results.resolve().name,
            "frames": "all" if settings.all_frames else "all but the first and the last",
        }
        summary = {"J&F-Mean": (j + f) / 2, "J-Mean": j, "F-Mean": f}
        write_report(settings.report, "Two folders of masks", scores, summary, facts)
    say_written([path, settings.report])


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
