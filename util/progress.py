"""Progress of anything that takes longer than a few seconds."""

import os
import sys

import progressbar

SECONDS = "RDE_PROGRESS_SECONDS"
"""This environment variable says how often a line is written where standard error is no terminal (default: 10)."""


def progress_bar(total, label, start=0, size=False):
    """A started bar over `total` steps (None: unknown) on standard error; count with `.increment()`.

    start: how many steps an earlier run has done. size: the steps are bytes; show them as such, with their speed.
    If standard error is not a terminal, a line every SECONDS.
    """
    interactive = sys.stderr.isatty()
    count = [progressbar.SimpleProgress()]
    if size:
        count = [progressbar.DataSize(), " of ", progressbar.DataSize("max_value"), " ",
                 progressbar.AdaptiveTransferSpeed()]
    # A resumed run did its first steps in no time: only the latest ones say how long the rest takes.
    widgets = [f"{label} ", *count, " ", progressbar.Bar(), " ",
               progressbar.AdaptiveETA() if start else progressbar.ETA()]
    if total is None:
        widgets = [f"{label} ", progressbar.DataSize() if size else progressbar.Counter(), " ", progressbar.Timer()]
    return progressbar.ProgressBar(
        fd=sys.stderr,
        initial_value=start,
        max_value=progressbar.UnknownLength if total is None else total,
        # A video's header may promise fewer frames than there are.
        max_error=False,
        widgets=widgets,
        is_terminal=interactive,
        line_breaks=not interactive,
        min_poll_interval=0.1 if interactive else float(os.environ.get(SECONDS, 10)),
    ).start()
