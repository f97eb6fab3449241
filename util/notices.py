"""Notices: sentences about what may not be as the user meant it."""

import sys


def list_notices(pairs):
    """Return lines that say [(file, notice)] in short: a notice once, with the first of its files and their number."""
    files = {}
    for file, notice in pairs:
        files.setdefault(notice, {})[str(file)] = True
    return [f"{next(iter(where))}{f' and {len(where) - 1} more' if len(where) > 1 else ''}: {notice}"
            for notice, where in files.items()]


def tell(lines, known=()):
    """Show lines on standard error, except those in `known`, and return all of them."""
    lines = list(lines)
    for line in lines:
        if line not in known:
            print(f"note: {line}", file=sys.stderr)
    return lines
