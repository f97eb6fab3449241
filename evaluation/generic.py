"""J and F of any folder of masks against any folder of ground truth.

    python evaluation/generic.py --ground_truth DATA/Annotations --results_path R
    python evaluation/generic.py --ground_truth A --results_path B --strict --all_frames --report report.html

Both hold a folder of indexed or grey PNG files per sequence; frames belong together by file name and ground
truth may be sparse. Scored are the sequences that are in both folders, every annotated frame but the first
and the last, and each object of the ground truth from the frame on in which it is first seen on either side:
the rules of vos-benchmark. There is no void: 255 is an object like any other. Writes results.csv into R, in
percent.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from evaluation.command_line import add_scoring_options, check_workers, say_written
from evaluation.decoding import read_ids
from evaluation.folders import a_few, check_predictions, list_folders, list_masks
from evaluation.report import write_report
from evaluation.scoring import Rules, ScoredVideo, object_score, raise_problems, score_clips
from util.errors import InputError, run_script
from util.files import atomic_path


def get_args_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ground_truth", type=Path, required=True)
    parser.add_argument("--results_path", type=Path, required=True)
    parser.add_argument("--images", type=Path, help="folder of JPEG frames per sequence, for the report")
    parser.add_argument("--strict", action="store_true", help="every sequence must have results")
    parser.add_argument("--all_frames", action="store_true", help="score the first and the last frame, too")
    parser.add_argument(
        "--ignore_extra_ids",
        action="store_true",
        help="accept ids that the ground truth does not have; by themselves they cost nothing",
    )
    add_scoring_options(parser, decay=False)
    return parser


def find_clips(args):
    """The clips to score and, for each, all its ground truth files."""
    sequences = [name for name in list_folders(args.ground_truth) if list_masks(args.ground_truth / name)]
    if not sequences:
        raise InputError(f"{args.ground_truth}: no folders with PNG files in it")
    all_masks = {name: list_masks(args.ground_truth / name) for name in sequences}
    found = set(list_folders(args.results_path)) & set(sequences)
    scored = {
        name: masks if args.all_frames else masks[1:-1]
        for name, masks in all_masks.items()
        if args.strict or not found or name in found
    }
    check_predictions(args.results_path, scored, str(args.ground_truth))
    left_out = [name for name in sequences if name not in scored]
    if left_out:
        print(f"note: {len(left_out)} sequences have no results: {a_few(left_out)}", file=sys.stderr)
    short = [name for name, masks in scored.items() if not masks]
    if short:
        raise InputError(f"{args.ground_truth}: fewer than three annotated frames in {', '.join(short)}")
    photos = args.images or args.ground_truth
    clips = [
        ScoredVideo(
            name,
            tuple(Path(mask).stem for mask in masks),
            tuple(args.ground_truth / name / mask for mask in masks),
            tuple(args.results_path / name / mask for mask in masks),
            tuple(photos / name / f"{Path(mask).stem}.jpg" for mask in masks),
        )
        for name, masks in scored.items()
    ]
    return clips, [[args.ground_truth / clip.name / mask for mask in all_masks[clip.name]] for clip in clips]


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


def score_objects(clips, all_masks, args):
    """The list of ObjectScores of all clips."""
    results = score_clips(clips, [None] * len(clips), Rules(void="an object"), args.workers)
    scores, problems = [], []
    for clip, masks, frames in zip(clips, all_masks, results, strict=True):
        known = set().union(*(frame.ground_truth_ids for frame in frames))
        if not args.ignore_extra_ids:
            problems += check_ids(clip, masks, frames, known)
        for k in sorted(known):
            first = next(t for t, frame in enumerate(frames) if (k, k) in frame.values)
            scores.append(object_score(clip, f"{k:03d}", k, k, frames, range(first, len(frames))))
    raise_problems(problems)
    if not scores:
        raise InputError(f"{args.ground_truth}: no object in any frame that is scored")
    return scores


def percent(j, f):
    return [f"{100 * value:.1f}" for value in ((j + f) / 2, j, f)]


def main(args):
    check_workers(args)
    scores = score_objects(*find_clips(args), args)
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
    path = args.results_path / "results.csv"
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if args.report:
        settings = {
            "ground truth": args.ground_truth.resolve().name,
            "results": args.results_path.resolve().name,
            "frames": "all" if args.all_frames else "all but the first and the last",
        }
        summary = {"J&F-Mean": (j + f) / 2, "J-Mean": j, "F-Mean": f}
        write_report(args.report, "Two folders of masks", scores, summary, settings)
    say_written([path, args.report])


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
