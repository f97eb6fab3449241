"""What a frame of a video is, how it is named, and which frames of a video are wanted."""

import re
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from util.errors import InputError

TOLERANCE = Fraction(1, 1000)
"""Seconds by which a time may miss a frame: people write times with three decimals, frames come at thirtieths."""


class Frame(NamedTuple):
    """One frame of a video."""

    name: str
    """The frame's name: that of its image file, or its number."""

    image: np.ndarray
    """uint8 H×W×3 RGB."""

    time: Fraction | None = None
    """Seconds from the start of the video; None for images, which have no times."""


def number_name(number, length):
    """The name of the frame with this number, from 0, in a video of `length` frames (None: not known)."""
    # Eight digits are enough for a week of a stream that does not say how long it is.
    digits = 8 if length is None else max(5, len(str(length)))
    return f"{number:0{digits}d}"


class Position(NamedTuple):
    """Where in a video something is: either the number of a frame, from 0, or a time in seconds."""

    number: int | None = None
    seconds: Fraction | None = None


def read_position(text, option, rate, first_timecode=None):
    """Return the Position that a user means. Raises InputError if it is none.

    text: a frame's number (250), seconds (12.5 or 12s), minutes or hours (1:30, 0:01:30.5), or an editor's timecode
        (00:01:30:12; a semicolon before the frames means drop-frame).
    option: the option that gave it, for messages.
    rate: frames per second, for timecodes. first_timecode: that of the video's first frame, None for 0.
    """
    if re.fullmatch(r"\d+", text):
        return Position(number=int(text))
    if seconds := re.fullmatch(r"(\d*\.\d+|\d+\.?)s|(\d*\.\d+)", text):
        return Position(seconds=Fraction(seconds[1] or seconds[2]))
    if clock := re.fullmatch(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)", text):
        return Position(seconds=(int(clock[1] or 0) * 60 + int(clock[2])) * 60 + Fraction(clock[3]))
    number = _timecode_number(text, rate)
    if number is None:
        raise InputError(f"{option} {text}: a frame (250), seconds (12.5 or 12s), minutes (1:30.5) or a timecode "
                         "(00:01:30:12) was expected")
    number -= (first_timecode and _timecode_number(first_timecode, rate)) or 0
    if number < 0:
        raise InputError(f"{option} {text}: before the video's first frame, whose timecode is {first_timecode}")
    return Position(number=number)


def _timecode_number(text, rate):
    """The number of frames from timecode 0 to this one; None if it is no timecode."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d)([:;.])(\d\d+)", text)
    if not found:
        return None
    hours, minutes, seconds, frames = (int(found[group]) for group in (1, 2, 3, 5))
    per_second = max(1, round(rate))
    number = ((hours * 60 + minutes) * 60 + seconds) * per_second + frames
    if found[4] != ":":
        # At 30000/1001 frames per second, drop-frame leaves out two numbers in each minute but every tenth.
        minutes += hours * 60
        number -= (minutes - minutes // 10) * round(per_second / 15)
    return number


class FrameRange:
    """The frames of a video from one position to another, both included.

    start, end: what the user gave, see `read_position`; None for the video's first and last frame. title: the video's
    name in messages; rate, first_timecode as in `read_position`. timed: whether the frames have times. Raises
    InputError if one of them is no position, or nothing can be between them.
    """

    def __init__(self, start, end, title, rate, first_timecode=None, timed=True):
        self._start_text, self._title = start, title
        self.start = Position(number=0) if start is None else read_position(start, "--start", rate, first_timecode)
        self.end = Position() if end is None else read_position(end, "--end", rate, first_timecode)
        if not timed and (self.start.seconds, self.end.seconds) != (None, None):
            raise InputError(f"{title}: its frames have no times; give --start and --end as numbers of frames")
        for first, last in zip(self.start, self.end, strict=True):
            if first is not None and last is not None and first > last:
                raise InputError(f"--start {start} is after --end {end}")

    def select(self, frames):
        """Yield those of (number, time, …) that lie in the range, and end after the last of them.

        Raises InputError if the video ends before the range begins.
        """
        number = time = None
        found = False
        for number, time, *rest in frames:
            if self.is_after(number, time):
                break
            if found or not self._is_before(number, time):
                found = True
                yield number, time, *rest
        if number is not None and not found:
            moment = "" if time is None else f" at {float(time):.3f} s"
            raise InputError(f"{self._title}: no frame from --start {self._start_text} on; the last one seen is "
                             f"{number}{moment}")

    def count(self, length):
        """How many of a video's `length` frames are in the range; None if that is not known beforehand."""
        if self.start.number is None or (self.end.number is None and self.end.seconds is not None):
            return None
        if length is None and self.end.number is None:
            return None
        last = min(number for number in (self.end.number, length and length - 1) if number is not None)
        return max(0, last - self.start.number + 1) or None

    def _is_before(self, number, time):
        if self.start.number is not None:
            return number < self.start.number
        return time < self.start.seconds - TOLERANCE

    def is_after(self, number, time):
        """Whether the frame with this number, from 0, and time, in seconds or None, is behind the end of the range."""
        if self.end.number is not None:
            return number > self.end.number
        return None not in (self.end.seconds, time) and time > self.end.seconds + TOLERANCE
