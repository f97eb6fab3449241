"""J and F of DAVIS 2016, one foreground object per sequence.

    python evaluation/2016/evaluation.py --results R --davis-path D
    python evaluation/2016/evaluation.py --results R --davis-path DAVIS/2017/trainval --split val

R holds a folder of PNG files per sequence, 0/255 or any other ids: what is not 0 is the object, in the ground
truth as well, so that D may be the tree of DAVIS 2016 or that of 2017. The first and last frame of a sequence
are not scored. Writes global_results-SPLIT.csv and per-sequence_results-SPLIT.csv into R.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dataset.evaluation_sets import read_set
from evaluation.command_line import decay_rule, say_written
from evaluation.davis import davis_clips, find_davis, score_binary
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
from util.hyper_para import DavisScoringSettings, OptionParser, settings_from

RELEASED_LISTS = "480p"  # ImageSets/480p of the original release, where there is no ImageSets/2016


def get_args_parser():
    parser = OptionParser("evaluation.py", __doc__)
    parser.add_settings(DavisScoringSettings, davis_path=Path("DAVIS/2016"))
    return parser


def main(args):
    settings = settings_from(DavisScoringSettings, args)
    home = find_davis(settings.davis_path, 2016, settings.split)
    year = RELEASED_LISTS if (home / "ImageSets" / RELEASED_LISTS).is_dir() \
        and not (home / "ImageSets" / "2016").is_dir() else 2016
    clips, _ = davis_clips(home, settings.results, read_set(home, year, settings.split), settings.split)
    scores = score_binary(clips, settings.workers)
    rule = decay_rule(settings)
    note_decay(scores, rule)
    row = global_scores(scores, rule)
    header, rows = object_rows(scores, rule, statistics=True)
    global_path = settings.results / f"global_results-{settings.split}.csv"
    sequences_path = settings.results / f"per-sequence_results-{settings.split}.csv"
    write_csv(global_path, GLOBAL_HEADER, [row])
    write_csv(sequences_path, header, rows)
    print_table(GLOBAL_HEADER, [row])
    print()
    print_table(header, rows)
    if settings.report:
        facts = {"results": settings.results.resolve().name, "decay": rule}
        summary = dict(zip(GLOBAL_HEADER, row, strict=True))
        write_report(settings.report, f"DAVIS 2016, {settings.split}", scores, summary, facts, rule, binary=True)
    say_written([global_path, sequences_path, settings.report])


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
