"""Functions that the scoring scripts share, and the evaluation of DAVIS 2017 as the official toolkit runs it."""

import dataclasses
import sys
import time
from dataclasses import dataclass

from evaluation.davis import (
    UNSUPERVISED_2019,
    find_davis_videos,
    score_semi_supervised,
    score_unsupervised,
)
from evaluation.measures import DECAY_RULES
from evaluation.report import write_report
from evaluation.tables import (
    GLOBAL_HEADER,
    compute_global_scores,
    make_comparison,
    make_object_rows,
    note_decay,
    print_table,
    write_csv,
)
from util.hyper_para import CompareSettings, DavisScoringSettings
from util.options import option


@dataclass(frozen=True)
class Davis2017Settings(CompareSettings, DavisScoringSettings):
    """Options of the scripts that score DAVIS 2017."""

    task: str = option("semi-supervised", "rules to score by (default: %(default)s); unsupervised needs SciPy",
                       choices=("semi-supervised", "unsupervised"))


def choose_decay_rule(settings):
    """Return the rule for `evaluation.measures.decay` that these DecaySettings ask for."""
    return settings.official_decay or DECAY_RULES[0]


def say_written(paths):
    """Print the last line of every scoring script, to standard error: which files were written. Skip paths of None."""
    print(f"written: {', '.join(str(path) for path in paths if path)}", file=sys.stderr)


def compare_runs(settings, scores, score):
    """Score the runs of --compare, and print all side by side. Returns {folder: ObjectScores}, this run's first.

    settings: with the fields of CompareSettings and `results`. scores: of this run. score: function of such settings
    that returns the ObjectScores.
    """
    runs = {str(settings.results): scores}
    for folder in settings.compare:
        runs[str(folder)] = score(dataclasses.replace(settings, results=folder))
    if len(runs) > 1:
        print("\n---------- J&F of all runs ----------")
        print_table(*make_comparison(runs))
    return runs


def score_davis_2017(settings):
    """Return the ObjectScores of the split of DAVIS 2017 that these Davis2017Settings name."""
    unsupervised = settings.task == "unsupervised"
    year = 2019 if unsupervised and settings.split in UNSUPERVISED_2019 else 2017
    videos, first_masks = find_davis_videos(
        settings.davis_path,
        year,
        settings.split,
        settings.results,
        annotations="Annotations_unsupervised" if unsupervised else "Annotations",
        ends=unsupervised,
    )
    score = score_unsupervised if unsupervised else score_semi_supervised
    return score(videos, first_masks, settings.workers)


def evaluate_davis_2017(settings, print_objects):
    """Score, and print and write the official toolkit's tables. Returns the ObjectScores.

    print_objects: print the table of objects, too; it is always written.
    """
    # Score.
    start = time.monotonic()
    print(f"Evaluating sequences for the {settings.task} task...")
    scores = score_davis_2017(settings)
    rule = choose_decay_rule(settings)
    note_decay(scores, rule)
    row = compute_global_scores(scores, rule)
    header, rows = make_object_rows(scores, rule)

    # Write and print the tables, in the official toolkit's words.
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

    runs = compare_runs(settings, scores, score_davis_2017)

    # Write the report.
    if settings.report:
        summary = dict(zip(GLOBAL_HEADER, row, strict=True))
        facts = {"task": settings.task, "decay": rule}
        write_report(settings.report, f"DAVIS 2017, {settings.split}", runs, summary, facts, rule)
    print(f"\nTotal time:{time.monotonic() - start}")
    say_written([global_path, objects_path, settings.report])
    return scores
