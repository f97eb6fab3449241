"""Compute J and F of any folder of masks against any folder of ground truth.

    python evaluation/generic.py --ground-truth DATA/Annotations --results R
    python evaluation/generic.py --ground-truth A --results B --strict --all-frames --report report.html

Each of the two holds a folder of indexed or grey PNG files for each video. Masks of the same file name are compared, in
the order of the numbers in their names. The ground truth need not have a mask for every frame, and frames before a
video's first object need no prediction. The script scores the videos that are in both folders, in each video all
annotated frames but the first and the last, and each object of the ground truth from the first of these frames on in
which the ground truth or the prediction shows it. These are the rules of vos-benchmark. There is no void: 255 is an
object like any other; but grey masks of 0 and 255 alone are object 1. Writes results.csv into R, in percent.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from evaluation.command_line import compare_runs, say_written
from evaluation.decoding import read_ids
from evaluation.folders import check_predictions, list_folders, list_masks
from evaluation.report import write_report
from evaluation.scoring import Rules, ScoredVideo, collect_object_score, raise_problems, score_videos
from evaluation.tables import join_csv
from util.errors import InputError, name_a_few, run_script
from util.files import write_text
from util.hyper_para import CompareSettings, ScoringSettings
from util.options import OptionParser, option, settings_from


@dataclass(frozen=True)
class GenericSettings(CompareSettings, ScoringSettings):
    """Options of this script."""

    ground_truth: Path = option(None, "folder that holds a folder of true masks for each video", type=Path,
                                required=True, metavar="FOLDER")
    results: Path = option(None, "folder that holds a folder of masks for each video",
                           names=["results", "results-path"], type=Path, required=True, metavar="FOLDER")
    images: Path | None = option(None, "folder that holds a folder of JPEG frames for each video, for the report "
                                       "(default: the ground truth's folder)", type=Path, metavar="FOLDER")
    strict: bool = option(False, "refuse videos without results (default: leave them out, with a note)")
    all_frames: bool = option(False, "score the first and the last frame, too (default: do not)")
    ignore_extra_ids: bool = option(False, "accept object ids that the ground truth does not have, and do not score "
                                           "them (default: refuse them)")


def get_args_parser():
    parser = OptionParser("generic.py", __doc__)
    parser.add_settings(GenericSettings)
    return parser


def find_videos(settings):
    """Return the ScoredVideos and, for each, all its mask files in the ground truth.

    settings: GenericSettings. Raises InputError naming what is missing.
    """
    # Find the masks of the ground truth, and choose videos and frames.
    listed = {name: list_masks(settings.ground_truth / name) for name in list_folders(settings.ground_truth)}
    all_masks = {name: masks for name, masks in listed.items() if masks}
    if not all_masks:
        raise InputError(f"{settings.ground_truth}: no folders with PNG files in it; a folder for each video was "
                         "expected")
    found = set(list_folders(settings.results)) & set(all_masks)
    chosen = {name: masks for name, masks in all_masks.items() if settings.strict or not found or name in found}
    scored = choose_frames(settings, chosen)
    for name in found & scored.keys():
        scored[name] = leave_out_early(settings, name, all_masks[name], scored[name])

    # Check that all files are there.
    check_predictions(settings.results, scored, str(settings.ground_truth))
    left_out = [name for name in all_masks if name not in chosen]
    if left_out:
        print(f"note: {len(left_out)} videos have no results: {name_a_few(left_out)}", file=sys.stderr)

    # Pair each mask of the ground truth with the prediction.
    images = settings.images or settings.ground_truth
    videos = [
        ScoredVideo(
            name,
            tuple(Path(mask).stem for mask in masks),
            tuple(settings.ground_truth / name / mask for mask in masks),
            tuple(settings.results / name / mask for mask in masks),
            tuple(images / name / f"{Path(mask).stem}.jpg" for mask in masks),
        )
        for name, masks in scored.items()
    ]
    return videos, [[settings.ground_truth / video.name / mask for mask in all_masks[video.name]] for video in videos]


def choose_frames(settings, all_masks):
    """Return {video name: mask files of the frames to score}. Videos without such a frame are left out, with a note.

    all_masks: {video name: all its mask files} in the ground truth. Raises InputError if no video is left.
    """
    scored = {name: masks if settings.all_frames else masks[1:-1] for name, masks in all_masks.items()}
    short = [name for name, masks in scored.items() if not masks]
    if short:
        fault = (f"fewer than three annotated frames in {name_a_few(short)}; the first and the last are not scored "
                 "without --all-frames")
        if len(short) == len(scored):
            raise InputError(f"{settings.ground_truth}: {fault}")
        print(f"note: {fault}, so {len(short)} of {len(scored)} videos are left out", file=sys.stderr)
    return {name: masks for name, masks in scored.items() if masks}


def leave_out_early(settings, name, masks, scored):
    """Return the mask files of a video to score, without the frames before the first object that nobody has predicted.

    Trackers write no masks there, and no object is scored before its first frame. masks: all mask files of the video's
    ground truth. scored: those of the frames to score.
    """
    present = {path.name for path in (settings.results / name).iterdir()}
    if present.issuperset(scored):
        return scored
    first = next((t for t, mask in enumerate(masks) if read_ids(settings.ground_truth / name / mask).any()), len(masks))
    early = set(masks[:first])
    return [mask for mask in scored if mask in present or mask not in early]


def check_ids(video, masks, frames, object_ids):
    """Return (predictions, t, fault) for every frame t that has object ids which no frame of the ground truth has.

    masks: all mask files of the video's ground truth. frames: the FrameScores of its scored frames. object_ids: the set
    of ids in the ground truth of these frames.
    """
    extra_ids = {
        t: extra
        for t, frame in enumerate(frames)
        if (extra := {object_id for object_id, _ in frame.values if object_id not in object_ids})
    }
    if extra_ids:
        # The two frames that are not scored may have these ids.
        object_ids = object_ids.union(*(set(np.unique(read_ids(path)).tolist()) for path in (masks[0], masks[-1])))
    return [
        (video.prediction, t, f"object id {min(extra - object_ids)} is in no frame of the ground truth "
                              "(--ignore-extra-ids accepts it)")
        for t, extra in extra_ids.items()
        if extra - object_ids
    ]


def score_objects(videos, all_masks, settings):
    """Return the ObjectScores of all videos. all_masks: for each video all mask files of its ground truth."""
    results = score_videos(videos, [None] * len(videos), Rules(void="an object"), settings.workers)
    scores, problems = [], []
    for video, masks, frames in zip(videos, all_masks, results, strict=True):
        object_ids = set().union(*(frame.ground_truth_ids for frame in frames))
        if not settings.ignore_extra_ids:
            problems += check_ids(video, masks, frames, object_ids)
        for object_id in sorted(object_ids):
            first = next(t for t, frame in enumerate(frames) if (object_id, object_id) in frame.values)
            chosen = range(first, len(frames))
            scores.append(collect_object_score(video, f"{object_id:03d}", object_id, object_id, frames, chosen))
    raise_problems(problems)
    found = {score.sequence for score in scores}
    without = [video.name for video in videos if video.name not in found]
    if without and scores:
        print(f"note: no object in any frame that is scored of {name_a_few(without)}", file=sys.stderr)
    if not scores:
        raise InputError(f"{settings.ground_truth}: no object in any frame that is scored")
    return scores


def format_percent(j, f):
    """Return J&F, J and F, in percent, as texts."""
    return [f"{100 * value:.1f}" for value in ((j + f) / 2, j, f)]


def score_run(settings):
    """Return the ObjectScores of the results that GenericSettings name."""
    return score_objects(*find_videos(settings), settings)


def main(args):
    settings = settings_from(GenericSettings, args)
    scores = score_run(settings)
    means = [(np.mean(score.j), np.mean(score.f)) for score in scores]
    j, f = (float(np.mean(values)) for values in zip(*means, strict=True))
    width = max(len(name) for name in ("Global score", *(score.sequence for score in scores)))
    rows = [
        (f"{'sequence':{width}}", "obj", "  J&F", "    J", "    F"),
        (f"{'Global score':{width}}", "   ", *(f" {value}" for value in format_percent(j, f))),
    ]
    for score, (own_j, own_f) in zip(scores, means, strict=True):
        rows.append((f"{score.sequence:{width}}", score.label,
                     *(value.rjust(5) for value in format_percent(own_j, own_f))))
    text = join_csv(rows)
    path = settings.results / "results.csv"
    write_text(path, text)
    print(text, end="")
    runs = compare_runs(settings, scores, score_run)
    if settings.report:
        facts = {
            "ground truth": settings.ground_truth.resolve().name,
            "frames": "all" if settings.all_frames else "all but the first and the last",
        }
        summary = {"J&F-Mean": (j + f) / 2, "J-Mean": j, "F-Mean": f}
        write_report(settings.report, "Two folders of masks", runs, summary, facts)
    say_written([path, settings.report])


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
