"""Compute J and F of DAVIS 2016, with one foreground object in each sequence.

    python evaluation/2016/evaluation.py --results R --davis-path D
    python evaluation/2016/evaluation.py --results R --davis-path DAVIS/2017/trainval --split val

R holds a folder of PNG files for each sequence. In predictions and ground truth, every pixel that is not 0 belongs to
the object. So D may be the folder of DAVIS 2016 or that of DAVIS 2017. The first and the last frame of a sequence are
not scored. Writes global_results-SPLIT.csv and per-sequence_results-SPLIT.csv into R.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluation.command_line import choose_decay_rule, say_written
from evaluation.davis import find_davis_videos, score_binary
from evaluation.report import write_report
from evaluation.tables import (
    GLOBAL_HEADER,
    compute_global_scores,
    make_object_rows,
    note_decay,
    print_table,
    write_csv,
)
from util.errors import run_script
from util.hyper_para import DavisScoringSettings
from util.options import OptionParser, settings_from


def get_args_parser():
    parser = OptionParser("evaluation.py", __doc__)
    parser.add_settings(DavisScoringSettings, davis_path=Path("DAVIS/2016"))
    return parser


def main(args):
    settings = settings_from(DavisScoringSettings, args)
    videos, _ = find_davis_videos(settings.davis_path, 2016, settings.split, settings.results)
    scores = score_binary(videos, settings.workers)
    rule = choose_decay_rule(settings)
    note_decay(scores, rule)
    row = compute_global_scores(scores, rule)
    header, rows = make_object_rows(scores, rule, statistics=True)
    global_path = settings.results / f"global_results-{settings.split}.csv"
    sequences_path = settings.results / f"per-sequence_results-{settings.split}.csv"
    write_csv(global_path, GLOBAL_HEADER, [row])
    write_csv(sequences_path, header, rows)
    print_table(GLOBAL_HEADER, [row])
    print()
    print_table(header, rows)
    if settings.report:
        facts, runs = {"decay": rule}, {str(settings.results): scores}
        summary = dict(zip(GLOBAL_HEADER, row, strict=True))
        write_report(settings.report, f"DAVIS 2016, {settings.split}", runs, summary, facts, rule, binary=True)
    say_written([global_path, sequences_path, settings.report])


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
