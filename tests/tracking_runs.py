"""Runs of track.py in the process of the tests."""

import track
from util.errors import run_script


def run(*arguments):
    """Run track.py with these arguments, and return its exit code."""
    return run_script(track.get_args_parser(), track.main, [str(argument) for argument in arguments])


def one_line_error(capsys, *parts):
    """Whether one error was told, in one line that holds these parts."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1 and all(str(part) in lines[0] for part in parts), lines
    return True
