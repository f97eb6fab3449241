"""Compute J&F of a DAVIS 2017 test-dev submission as the challenge server does.

    python evaluation/2017/evaluation_codalab.py INPUT OUTPUT

INPUT/ref is the folder with ImageSets and Annotations. INPUT/res is the unpacked submission, with a folder for each
sequence at its top. Prints the tables of all objects together and of each object as CSV, and writes OUTPUT/scores.txt.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluation.command_line import choose_decay_rule, say_written
from evaluation.davis import find_davis_videos, score_semi_supervised
from evaluation.report import write_report
from evaluation.tables import GLOBAL_HEADER, compute_global_scores, make_csv_text, make_object_rows, note_decay
from util.errors import run_script
from util.files import write_text
from util.hyper_para import DecaySettings
from util.options import OptionParser, settings_from

SET = "test-dev"
"""The split that the server scores."""

KEYS = ("GlobalMean", "JMean", "JRecall", "JDecay", "FMean", "FRecall", "FDecay")
"""The server's names for the columns of GLOBAL_HEADER."""


def get_args_parser():
    parser = OptionParser("evaluation_codalab.py", __doc__)
    parser.add_argument("input", type=Path, metavar="INPUT", help="folder with ref and res in it")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder for scores.txt, made if it is missing")
    parser.add_settings(DecaySettings)
    return parser


def main(args):
    settings = settings_from(DecaySettings, args)
    reference, submission = args.input / "ref", args.input / "res"
    videos, first_masks = find_davis_videos(reference, 2017, SET, submission)
    scores = score_semi_supervised(videos, first_masks, settings.workers)
    rule = choose_decay_rule(settings)
    note_decay(scores, rule)
    row = compute_global_scores(scores, rule)
    args.output.mkdir(parents=True, exist_ok=True)
    write_text(args.output / "scores.txt", "".join(f"{key}: {value:f}\n" for key, value in zip(KEYS, row, strict=True)))
    print("----------------Global results in CSV---------------")
    print(make_csv_text(GLOBAL_HEADER, [row]))
    print("\n------------Per sequence results in CSV-------------")
    print(make_csv_text(*make_object_rows(scores, rule)), end="")
    if settings.report:
        facts = {"decay": rule}
        summary = dict(zip(GLOBAL_HEADER, row, strict=True))
        write_report(settings.report, f"DAVIS 2017, {SET}", {str(submission): scores}, summary, facts, rule)
    say_written([args.output / "scores.txt", settings.report])


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
