"""What the scoring scripts have in common: their options, and DAVIS 2017 as the official toolkit runs it."""

import os
import sys
import time
from pathlib import Path

from dataset.evaluation_sets import read_set
from evaluation.davis import UNSUPERVISED_2019, davis_clips, score_semi_supervised, score_unsupervised
from evaluation.measures import DECAY_RULES
from evaluation.report import write_report
from evaluation.scoring import default_workers
from evaluation.tables import (
    GLOBAL_HEADER,
    global_scores,
    note_decay,
    object_rows,
    print_table,
    write_csv,
)
from util.errors import InputError


def add_scoring_options(parser, decay=True):
    """Options of every scoring script; `decay` for those that give the decay."""
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes (all cores)")
    parser.add_argument("--report", metavar="HTML", help="also write a report that opens in any browser")
    if decay:
        parser.add_argument(
            "--official_decay",
            choices=DECAY_RULES[1:],
            help="repeat the official toolkit's wrong decay of sequences with more than 255 scored frames, "
            "as it comes out with NumPy 1 or 2",
        )


def decay_rule(args):
    """The rule for evaluation.measures.decay that the options ask for."""
    return args.official_decay or DECAY_RULES[0]


def say_written(paths):
    """The last line of every scoring script, on standard error: which files were written."""
    print(f"written: {', '.join(str(path) for path in paths if path)}", file=sys.stderr)


def check_workers(args):
    if args.workers < 1:
        raise InputError(f"--workers {args.workers}: at least one process is needed")


def add_davis_2017_options(parser, default_task):
    parser.add_argument("--davis_path", default="DAVIS/2017/trainval", help="folder with ImageSets in it")
    parser.add_argument("--set", default="val", help="which ImageSets/2017/SET.txt is scored (val)")
    parser.add_argument(
        "--task",
        choices=("semi-supervised", "unsupervised"),
        default=default_task,
        help=f"({default_task}); unsupervised needs SciPy",
    )
    parser.add_argument("--results_path", required=True, help="folder with a folder of masks per sequence")
    add_scoring_options(parser)


def score_davis_2017(args):
    """The list of ObjectScores of one set of DAVIS 2017 under the rules of `args.task`."""
    check_workers(args)
    unsupervised = args.task == "unsupervised"
    year = 2019 if unsupervised and args.set in UNSUPERVISED_2019 else 2017
    clips, first_masks = davis_clips(
        args.davis_path,
        args.results_path,
        read_set(args.davis_path, year, args.set),
        args.set,
        annotations="Annotations_unsupervised" if unsupervised else "Annotations",
        ends=unsupervised,
    )
    score = score_unsupervised if unsupervised else score_semi_supervised
    return score(clips, first_masks, args.workers)


def evaluate_davis_2017(args, print_objects):
    """Score, print and write what the official toolkit does. Returns the list of ObjectScores."""
    start = time.monotonic()
    print(f"Evaluating sequences for the {args.task} task...")
    scores = score_davis_2017(args)
    rule = decay_rule(args)
    note_decay(scores, rule)
    row = global_scores(scores, rule)
    header, rows = object_rows(scores, rule)
    global_path = os.path.join(args.results_path, f"global_results-{args.set}.csv")
    objects_path = os.path.join(args.results_path, f"per-sequence_results-{args.set}.csv")
    write_csv(global_path, GLOBAL_HEADER, [row])
    print(f"Global results saved in {global_path}")
    write_csv(objects_path, header, rows)
    print(f"Per-sequence results saved in {objects_path}")
    print(f"--------------------------- Global results for {args.set} ---------------------------")
    print_table(GLOBAL_HEADER, [row])
    if print_objects:
        print(f"\n---------- Per sequence results for {args.set} ----------")
        print_table(header, rows)
    if args.report:
        summary = dict(zip(GLOBAL_HEADER, row, strict=True))
        settings = {"results": Path(args.results_path).resolve().name, "task": args.task, "decay": rule}
        write_report(args.report, f"DAVIS 2017, {args.set}", scores, summary, settings, rule)
    print(f"\nTotal time:{time.monotonic() - start}")
    say_written([global_path, objects_path, args.report])
    return scores
