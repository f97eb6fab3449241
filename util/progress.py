"""Progress of anything that takes longer than a few seconds."""

import sys

import progressbar


def progress_bar(total, label):
    """A started bar over `total` steps (None: unknown) on standard error; count with `.increment()`.

    Where standard error is no terminal, a line every ten seconds.
    """
    interactive = sys.stderr.isatty()
    widgets = [f"{label} ", progressbar.SimpleProgress(), " ", progressbar.Bar(), " ", progressbar.ETA()]
    if total is None:
        widgets = [f"{label} ", progressbar.Counter(), " ", progressbar.Timer()]
    return progressbar.ProgressBar(
        fd=sys.stderr,
        max_value=progressbar.UnknownLength if total is None else total,
        widgets=widgets,
        is_terminal=interactive,
        line_breaks=not interactive,
        min_poll_interval=0.1 if interactive else 10,
    ).start()
