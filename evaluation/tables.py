"""Make the tables of scores, write them as CSV files and print them."""

import csv
import io
import math
import sys

import numpy as np

from evaluation.measures import decay, object_statistics
from util.files import write_text

GLOBAL_HEADER = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
"""Columns of the table of all objects together."""

UINT8_FRAMES = 256
"""From so many frames on, the official code's decay is wrong."""


def compute_global_scores(scores, decay_rule):
    """Return the seven numbers of GLOBAL_HEADER: means over all objects of all sequences, with equal weights."""
    # One mean for each column: a mean along the first axis of the whole table would add up in another order.
    j, f = (
        [float(np.mean(column)) for column in zip(*statistics, strict=True)]
        for statistics in (
            [object_statistics(score.j, decay_rule) for score in scores],
            [object_statistics(score.f, decay_rule) for score in scores],
        )
    )
    return [(j[0] + f[0]) / 2, *j, *f]


def make_object_rows(scores, decay_rule, statistics=False):
    """Return header and rows of the table of objects, with recall and decay if `statistics`."""
    rows = []
    for score in scores:
        j, f = object_statistics(score.j, decay_rule), object_statistics(score.f, decay_rule)
        rows.append([score.name, *j, *f] if statistics else [score.name, j[0], f[0]])
    return ("Sequence", *(GLOBAL_HEADER[1:] if statistics else ("J-Mean", "F-Mean"))), rows


def make_comparison(runs):
    """Return header and rows of the J&F of several runs side by side: all objects together, then each sequence.

    runs: {name: ObjectScores}. A sequence that a run does not have is NaN.
    """
    means = {name: {} for name in runs}
    for name, scores in runs.items():
        for score in scores:
            means[name].setdefault(score.sequence, []).append((np.mean(score.j) + np.mean(score.f)) / 2)
    sequences = dict.fromkeys(sequence for found in means.values() for sequence in found)
    everything = [float(np.mean([value for values in found.values() for value in values])) for found in means.values()]
    rows = [["all objects", *everything]]
    for sequence in sequences:
        rows.append([sequence, *(float(np.mean(found[sequence])) if sequence in found else math.nan
                                 for found in means.values())])
    return ("J&F", *runs), rows


def note_decay(scores, decay_rule):
    """Print a note to standard error if the official code's decay of the longest video is wrong."""
    longest = max(scores, key=lambda score: len(score.j))
    frames = len(longest.j)
    if frames < UINT8_FRAMES:
        return
    ours = f"{decay(longest.j, decay_rule):.3f}"
    if decay_rule == "correct":
        theirs = ", ".join(f"{decay(longest.j, rule):.3f} ({rule})" for rule in ("numpy1", "numpy2"))
        text = f"J-Decay of {longest.name} is {ours}, the official code's {theirs}: --official-decay"
    else:
        text = f"J-Decay of {longest.name} is given as {ours} like the official code's, it really is "
        text += f"{decay(longest.j):.3f}"
    # The official code's limits of the quarters are uint8, see `evaluation.measures.decay`.
    reason = f"{frames} scored frames, the official decay wraps from {UINT8_FRAMES} on"
    print(f"note: {reason}; {text}", file=sys.stderr)


def write_csv(path, header, rows):
    """Write a table as a CSV file, atomically: numbers with three decimals, NaN as an empty field."""
    write_text(path, make_csv_text(header, rows))


def make_csv_text(header, rows):
    """Return the text that `write_csv` writes."""
    return join_csv([header, *(map(_format_csv_field, row) for row in rows)])


def join_csv(rows):
    """Return the text of a CSV file with these rows of texts; those with commas, quotes or line breaks are quoted."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _format_csv_field(value):
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.3f}"


def print_table(header, rows):
    """Print a table as pandas' to_string(index=False) does, which the official tools use."""
    columns = [_format_column(name, [row[i] for row in rows]) for i, name in enumerate(header)]
    for line in zip(*columns, strict=True):
        print(" ".join(line))


def _format_column(name, values):
    """Return the cells of a column, its name first, as texts of one width. values: all texts or all numbers."""
    if isinstance(values[0], str):
        cells = [name, *values]
    else:
        finite = [abs(value) for value in values if value]
        style = ".6e" if any(value < 1e-6 for value in finite) else ".6f"
        cells = [f"{value:{style}}".replace("nan", "NaN") for value in values]
        numbers = [i for i, value in enumerate(values) if not math.isnan(value)]
        # Cut zeros off the ends as long as all numbers of the column end in one, but leave one after the point.
        while style == ".6f" and numbers and all(cells[i].endswith("0") for i in numbers):
            for i in numbers:
                cells[i] = cells[i][:-1]
        for i in numbers:
            cells[i] += "0" if cells[i].endswith(".") else ""
        cells = [f" {name}", *cells]
    width = max(map(len, cells))
    return [cell.rjust(width) for cell in cells]
