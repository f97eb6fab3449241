"""What the page may send: the kinds of the values in its messages."""

import json
import re

from util.errors import InputError

MOST_WIDTH = 10000
"""Pixels; the widest brush."""


def _is_whole(value):
    # Python takes true for 1.
    return type(value) is int


def _is_text(value):
    return isinstance(value, str)


def _is_bool(value):
    return isinstance(value, bool)


def _is_list_of(test, value):
    return isinstance(value, list) and all(map(test, value))


_TEXT, _BOOL, _WHOLE = ("a text", _is_text), ("true or false", _is_bool), ("a whole number", _is_whole)
_WHOLE_OR_NONE = ("a whole number or null", lambda value: value is None or _is_whole(value))

VALUES = {
    **dict.fromkeys(("tool", "direction"), _TEXT),
    **dict.fromkeys(("frame", "object", "id", "into", "start", "hold", "grow", "feather"), _WHOLE),
    **dict.fromkeys(("first", "last"), _WHOLE_OR_NONE),
    **dict.fromkeys(("hidden", "locked", "across_cuts", "largest", "fill_holes"), _BOOL),
    "name": ("a text or null", lambda value: value is None or _is_text(value)),
    "colour": ("a colour like #ff5a5f", lambda value: _is_text(value) and re.fullmatch("#[0-9a-fA-F]{6}", value)),
    "points": ("a list of points [x, y]", lambda value: isinstance(value, list)),
    "positive": ("a list of true and false", lambda value: _is_list_of(_is_bool, value)),
    "width": (f"a number from 0 to {MOST_WIDTH}", lambda value: (
        isinstance(value, (int, float)) and not _is_bool(value) and 0 <= value <= MOST_WIDTH)),
    "objects": ("a list of ids or null", lambda value: value is None or _is_list_of(_is_whole, value)),
}
"""{what a message or an export's options may hold: (what is expected there, whether a value is such)}."""


def check_value(name, value):
    """Raise InputError if a value of this name, read from JSON, is not of the kind that VALUES says."""
    if name not in VALUES:
        raise InputError(f"there is no value {shorten(name)}")
    expected, test = VALUES[name]
    if not test(value):
        raise InputError(f"{name}: {shorten(value)}; {expected} was expected")


def shorten(value):
    """A value as messages show it."""
    return json.dumps(value)[:40]
