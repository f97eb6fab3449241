"""Decode a video file, a camera or a stream with FFmpeg, as far as it can be decoded, and find out what is missing."""

import heapq
import re
import sys
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Disposition

from util.errors import InputError

DEFAULT_RATE = 25
"""Frames per second of what does not say it."""

MOST_DAMAGED = 250
"""So many damaged frames in a row end a video. One damaged frame can spoil all until the next key frame, which in
common files come every few seconds."""

MOST_READ_ERRORS = 10
"""So many errors of reading in a row end a video."""

NAMED_FRAMES = 5
"""So many numbers of lost frames a notice names."""

SECONDS_TO_CONNECT = 30
"""How long an address on the network may take to answer."""


def is_stream(text):
    """Whether a value of --video is standard input, a camera or an address, not a file."""
    return text == "-" or bool(re.match(r"camera:|[A-Za-z][A-Za-z0-9+.-]*://", text)) or Path(text).is_char_device()


def public_name(text):
    """A value of --video without the password that an address may hold, for messages and files."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def open_container(text):
    """Open what a value of --video names, with FFmpeg. Raises InputError if it cannot be opened."""
    options = {}
    file = text
    if text == "-":
        file = "pipe:0"
    elif text.startswith("camera:") or Path(text).is_char_device():
        file, options = _camera(text)
    elif not is_stream(text):
        # As an absolute path: FFmpeg takes what stands before a colon for a protocol.
        file = str(Path(text).absolute())
    else:
        options = {"timeout": (SECONDS_TO_CONNECT, None)}
        if text.startswith("rtsp"):
            # UDP, which is tried first otherwise, loses packets without a word.
            options["options"] = {"rtsp_transport": "tcp"}
    name = "standard input" if text == "-" else public_name(text)
    try:
        return av.open(file, **options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: not a readable video ({reason})") from None


def _camera(text):
    """What `av.open` takes for a camera: (file, keyword arguments)."""
    name = text.removeprefix("camera:")
    if sys.platform == "darwin":
        return name, {"format": "avfoundation", "options": {"framerate": "30"}}
    if sys.platform == "win32":
        return f"video={name}", {"format": "dshow"}
    return f"/dev/video{name}" if name.isdecimal() else name, {"format": "video4linux2,v4l2"}


class Decoder:
    """The frames of a video's main stream in the order in which they are shown. It can be iterated once.

    source: a value of --video. title: its name in messages. threads: how many decode, None for all cores.

    Yields (number, time, av.VideoFrame): the frame's number in the file, from 0, in which frames that cannot be decoded
    count, and its time in seconds from the start of the file, a Fraction.

        rate, time_base, pixel_aspect    of the stream; pixel_aspect is a pixel's width divided by its height
        length     number of frames, None if it is not known; the file's header says it, and may be wrong
        timecode   of the first frame, as text; None if the file has none
        notices    what the user should know, one sentence each; more may come with the frames
        complete   False as soon as a frame is known to be missing

    Raises InputError if the source cannot be opened, holds no video, or is damaged over a long stretch.
    """

    def __init__(self, source, title, threads=None):
        self._title = title
        self._container = open_container(source)
        self._stream = stream = self._find_stream()
        # A frame that fails must be known at once, so that it has its number; FFmpeg's threads that decode several
        # frames at a time report it late or not at all.
        stream.thread_type = "SLICE"
        if threads:
            stream.codec_context.thread_count = threads
        if stream.codec_context.name == "libdav1d":
            stream.codec_context.flags |= av.codec.context.Flags.low_delay
        self.rate = stream.average_rate or stream.guessed_rate or DEFAULT_RATE
        self.length = stream.frames or None
        self.time_base = stream.time_base
        self.pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        self.timecode = next((tags["timecode"] for tags in [stream.metadata, self._container.metadata,
                                                            *(other.metadata for other in self._container.streams)]
                              if "timecode" in tags), None)
        self._start = Fraction(self._container.start_time or 0, av.time_base)
        self._lost = []  # times of packets that could not be decoded, of frames that were to come: a heap
        self._number = 0
        self._lost_numbers = []
        self._lost_count = self._damaged_count = 0
        self._packets = 0
        self._end = self._others_end = Fraction(0)
        self._cut = None
        others = [other for other in self._container.streams.video if other is not stream and other.frames != 1
                  and not other.disposition & Disposition.attached_pic]
        self._remarks = [f"{title}: stream {stream.index} is taken, of {len(others) + 1} videos in this file"] \
            if others else []

    def _find_stream(self):
        """The stream that a player would show."""
        # Not the first one: that may be a cover picture, or the still image of an AVIF sequence.
        stream = self._container.streams.best("video")
        if stream is None or stream.codec_context is None:
            raise InputError(f"{self._title}: no video in this file")
        if stream.disposition & Disposition.attached_pic:
            raise InputError(f"{self._title}: no video in this file, only a cover picture")
        return stream

    @property
    def complete(self):
        return not (self._lost_count or self._cut)

    @property
    def notices(self):
        notices = list(self._remarks)
        if self._lost_count:
            names = ", ".join(map(str, self._lost_numbers))
            more = self._lost_count - len(self._lost_numbers)
            frames = f"frame {names} is" if self._lost_count == 1 else \
                f"frames {names}{f' and {more} more' if more else ''} are"
            notices.append(f"{self._title}: {frames} damaged and left out, {self._lost_count} in all")
        if self._damaged_count:
            notices.append(f"{self._title}: {self._damaged_count} frames are damaged in part")
        if self._cut:
            notices.append(f"{self._title}: this file is cut short, {self._cut}")
        return notices

    def __iter__(self):
        decode = self._stream.codec_context.decode
        reason, in_a_row, key_seen = None, 0, False
        for packet in self._read_packets():
            key_seen = key_seen or (packet is not None and packet.is_keyframe)
            try:
                frames = decode(packet)
            except av.error.FFmpegError as error:
                reason = error.strerror
                in_a_row += 1
                # What comes before the first key frame needs frames from before the start of the file.
                if packet is not None and key_seen:
                    self._lose(packet)
                if in_a_row > MOST_DAMAGED:
                    where = f"damaged after frame {self._number - 1}" if self._number else "no frame could be decoded"
                    raise InputError(f"{self._title}: {where}, {in_a_row} frames in a row ({reason})") from None
                continue
            for frame in frames:
                in_a_row = 0
                self._damaged_count += bool(frame.is_corrupt)
                yield *self._place(frame), frame
        if reason and not self._number:
            raise InputError(f"{self._title}: no frame could be decoded ({reason})")
        while self._lost:
            heapq.heappop(self._lost)
            self._count_lost()
        self._cut = self._cut or self._find_cut()

    def _read_packets(self):
        """Yield the stream's packets, then None, and note how far the file goes."""
        failures = 0
        while failures < MOST_READ_ERRORS:
            try:
                for packet in self._container.demux():
                    if packet.size and packet.stream is self._stream:
                        failures = 0
                        self._packets += 1
                        self._end = max(self._end, self._packet_end(packet))
                        yield packet
                    elif packet.size:
                        self._others_end = max(self._others_end, self._packet_end(packet))
                break
            except av.error.FFmpegError as error:
                # The demuxer goes on behind what it could not read.
                failures += 1
                if failures == MOST_READ_ERRORS:
                    self._cut = f"reading it failed ({error.strerror})"
        yield None

    def _packet_end(self, packet):
        """When what a packet holds has been shown, in seconds from the start of the file."""
        if packet.pts is None or packet.time_base is None:
            return Fraction(0)
        duration = packet.duration * packet.time_base if packet.duration else \
            1 / Fraction(self.rate) if packet.stream is self._stream else 0
        return packet.pts * packet.time_base + duration - self._start

    def _place(self, frame):
        """The number and the time of a frame that was decoded."""
        if frame.pts is not None:
            while self._lost and self._lost[0] < frame.pts:
                heapq.heappop(self._lost)
                self._count_lost()
        number = self._number
        self._number += 1
        if frame.pts is None:
            return number, number / Fraction(self.rate)
        return number, frame.pts * self.time_base - self._start

    def _lose(self, packet):
        if packet.is_discard:
            return
        if packet.pts is None:
            self._count_lost()
        else:
            heapq.heappush(self._lost, packet.pts)

    def _count_lost(self):
        if len(self._lost_numbers) < NAMED_FRAMES:
            self._lost_numbers.append(self._number)
        self._lost_count += 1
        self._number += 1

    def _find_cut(self):
        """What the header promised and the file does not hold, as a part of a sentence; None if nothing is missing."""
        frame = 1 / Fraction(self.rate)
        stream, container = self._stream, self._container
        if stream.duration:
            promised = stream.duration * stream.time_base + \
                (stream.start_time or 0) * stream.time_base - self._start
            reached = self._end
        else:
            promised = Fraction(container.duration or 0, av.time_base)
            reached = max(self._end, self._others_end)
        # Headers round; and files that were trimmed without encoding hold fewer frames than their header counts, but
        # end when they should.
        if self.length and self._packets < self.length and reached < promised - frame / 2:
            return f"its header promises {self.length} frames and it holds {self._packets}"
        if not self.length and reached and reached < promised - 2 * frame - Fraction(1, 10):
            return f"its header promises {float(promised):.2f} s and it holds {float(reached):.2f} s"
        return None
