"""J and F of DAVIS 2016, one foreground object per sequence.

    python evaluation/2016/evaluation.py --results_path R --davis_path D
    python evaluation/2016/evaluation.py --results_path R --davis_path DAVIS/2017/trainval --set val

R holds a folder of PNG files per sequence, 0/255 or any other ids: what is not 0 is the object, in the ground
truth as well, so that D may be the tree of DAVIS 2016 or that of 2017. The first and last frame of a sequence
are not scored. Writes global_results-SET.csv and per-sequence_results-SET.csv into R.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dataset.evaluation_sets import read_set
from evaluation.command_line import add_scoring_options, check_workers, decay_rule, say_written
from evaluation.davis import davis_clips, score_binary
from evaluation.report import write_report
from evaluation.tables import (
    GLOBAL_HEADER,
    global_scores,
    note_decay,
    object_rows,
    print_table,
    write_csv,
)
from util.errors import run_script

RELEASED_LISTS = "480p"  # ImageSets/480p of the original release, where there is no ImageSets/2016


def get_args_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--davis_path", type=Path, default="DAVIS/2016", help="folder with ImageSets in it")
    parser.add_argument("--set", default="val", help="which ImageSets/2016/SET.txt is scored (val)")
    parser.add_argument(
        "--results_path", type=Path, required=True, help="folder with a folder of masks per sequence"
    )
    add_scoring_options(parser)
    return parser


def main(args):
    check_workers(args)
    lists = args.davis_path / "ImageSets"
    year = RELEASED_LISTS if (lists / RELEASED_LISTS).is_dir() and not (lists / "2016").is_dir() else 2016
    sequences = read_set(args.davis_path, year, args.set)
    clips, _ = davis_clips(args.davis_path, args.results_path, sequences, args.set)
    scores = score_binary(clips, args.workers)
    rule = decay_rule(args)
    note_decay(scores, rule)
    row = global_scores(scores, rule)
    header, rows = object_rows(scores, rule, statistics=True)
    global_path = args.results_path / f"global_results-{args.set}.csv"
    sequences_path = args.results_path / f"per-sequence_results-{args.set}.csv"
    write_csv(global_path, GLOBAL_HEADER, [row])
    write_csv(sequences_path, header, rows)
    print_table(GLOBAL_HEADER, [row])
    print()
    print_table(header, rows)
    if args.report:
        settings = {"results": args.results_path.resolve().name, "decay": rule}
        summary = dict(zip(GLOBAL_HEADER, row, strict=True))
        write_report(args.report, f"DAVIS 2016, {args.set}", scores, summary, settings, rule, binary=True)
    say_written([global_path, sequences_path, args.report])


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
