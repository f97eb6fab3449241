"""What the scoring scripts have in common, and DAVIS 2017 as the official toolkit runs it."""

import sys
import time
from dataclasses import dataclass

from dataset.evaluation_sets import read_set
from evaluation.davis import (
    UNSUPERVISED_2019,
    davis_clips,
    find_davis,
    score_semi_supervised,
    score_unsupervised,
)
from evaluation.measures import DECAY_RULES
from evaluation.report import write_report
from evaluation.tables import (
    GLOBAL_HEADER,
    global_scores,
    note_decay,
    object_rows,
    print_table,
    write_csv,
)
from util.hyper_para import DavisScoringSettings, option


@dataclass(frozen=True)
class Davis2017Settings(DavisScoringSettings):
    """What the scripts that score DAVIS 2017 are told."""

    task: str = option("semi-supervised", "rules to score by (default: %(default)s); unsupervised needs SciPy",
                       choices=("semi-supervised", "unsupervised"))


def decay_rule(settings):
    """The rule for evaluation.measures.decay that DavisScoringSettings ask for."""
    return settings.official_decay or DECAY_RULES[0]


def say_written(paths):
    """The last line of every scoring script, on standard error: which files were written."""
    print(f"written: {', '.join(str(path) for path in paths if path)}", file=sys.stderr)


def score_davis_2017(settings):
    """The list of ObjectScores of one split of DAVIS 2017, as Davis2017Settings ask for them."""
    unsupervised = settings.task == "unsupervised"
    year = 2019 if unsupervised and settings.split in UNSUPERVISED_2019 else 2017
    home = find_davis(settings.davis_path, year, settings.split)
    clips, first_masks = davis_clips(
        home,
        settings.results,
        read_set(home, year, settings.split),
        settings.split,
        annotations="Annotations_unsupervised" if unsupervised else "Annotations",
        ends=unsupervised,
    )
    score = score_unsupervised if unsupervised else score_semi_supervised
    return score(clips, first_masks, settings.workers)


def evaluate_davis_2017(settings, print_objects):
    """Score, print and write what the official toolkit does. Returns the list of ObjectScores."""
    start = time.monotonic()
    print(f"Evaluating sequences for the {settings.task} task...")
    scores = score_davis_2017(settings)
    rule = decay_rule(settings)
    note_decay(scores, rule)
    row = global_scores(scores, rule)
    header, rows = object_rows(scores, rule)
    global_path = settings.results / f"global_results-{settings.split}.csv"
    objects_path = settings.results / f"per-sequence_results-{settings.split}.csv"
    write_csv(global_path, GLOBAL_HEADER, [row])
    print(f"Global results saved in {global_path}")
    write_csv(objects_path, header, rows)
    print(f"Per-sequence results saved in {objects_path}")
    print(f"--------------------------- Global results for {settings.split} ---------------------------")
    print_table(GLOBAL_HEADER, [row])
    if print_objects:
        print(f"\n---------- Per sequence results for {settings.split} ----------")
        print_table(header, rows)
    if settings.report:
        summary = dict(zip(GLOBAL_HEADER, row, strict=True))
        facts = {"results": settings.results.resolve().name, "task": settings.task, "decay": rule}
        write_report(settings.report, f"DAVIS 2017, {settings.split}", scores, summary, facts, rule)
    print(f"\nTotal time:{time.monotonic() - start}")
    say_written([global_path, objects_path, settings.report])
    return scores
