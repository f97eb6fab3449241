"""Decode a video file, a camera or a stream with FFmpeg, as far as it can be decoded, and find out what is missing."""

import contextlib
import functools
import heapq
import itertools
import re
import sys
from collections import deque
from fractions import Fraction
from pathlib import Path

from util.errors import InputError
from util.pyav import av, need_pyav

DEFAULT_RATE = 25
"""Frames per second of what does not say it."""

MOST_DAMAGED = 250
"""So many damaged frames in a row end a video. One damaged frame can spoil all until the next key frame, which in
common files come every few seconds."""

MOST_READ_ERRORS = 10
"""So many errors of reading in a row end a video."""

ONE_FRAME_A_PACKET = ("h264", "hevc", "vp9", "av1")
"""Formats, beside those of key frames alone, in which what a file keeps together is one frame that is shown."""

BEGIN_ANYWHERE = ("mpegts", "mpeg", "h264", "hevc", "m4v", "rtsp", "rtp", "sdp")
"""Containers that are recorded from the middle of a broadcast, so that they may not begin with a key frame."""

MOST_SEEKS = 4
"""So many times a container is asked to seek, each time further back."""

MOST_UNKNOWN = 50
"""So many packets that the index does not know may come after seeking."""

NAMED_FRAMES = 5
"""So many numbers of lost frames a notice names."""

SECONDS_TO_CONNECT = 30
"""How long an address on the network may take to answer."""


LISTS = ("hls", "applehttp", "dash", "imf", "concat", "sdp", "vobsub", "avisynth", "vapoursynth")
"""Formats of files that name others, or addresses, which FFmpeg would read wherever they lie."""

LIST_SUFFIXES = (".m3u", ".m3u8", ".ffconcat", ".mpd", ".sdp", ".idx", ".avs", ".vpy")
"""Suffixes of such files."""

LIST_BEGIN = re.compile(rb"\A(#EXTM3U|ffconcat|# VobSub)|^c=IN IP|<MPD\b", re.MULTILINE)
"""What such a file has among its first LIST_BYTES bytes, whatever its suffix."""

LIST_BYTES = 2048


def is_stream(text):
    """Whether a value of --video is standard input, a camera or an address, not a file."""
    return text == "-" or bool(re.match(r"camera:|[A-Za-z][A-Za-z0-9+.-]*://", text)) or Path(text).is_char_device()


def public_name(text):
    """A value of --video without the password that an address may hold, for messages and files."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def open_container(text):
    """Open what a value of --video names, with FFmpeg. Raises InputError if it cannot be opened."""
    need_pyav()
    options = {}
    file = text
    if text == "-":
        file = "pipe:0"
    elif text.startswith("camera:") or Path(text).is_char_device():
        file, options = _camera(text)
    elif not is_stream(text):
        # As an absolute path: FFmpeg takes what stands before a colon for a protocol.
        file = str(Path(text).absolute())
        options = {"options": {"format_whitelist": _formats_of_files()}}
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
        if _names_others(text):
            reason = f"{reason}; a playlist or another file that names others is not read, only the video itself"
        elif isinstance(error, av.error.InvalidDataError) and Path(name).suffix.lower() in (".mp4", ".mov", ".m4v"):
            reason = f"{reason}; if it was cut short, it has lost its index, which is at its end"
        raise InputError(f"{name}: not a readable video ({reason})") from None


def _names_others(text):
    """Whether a value of --video is probably a file of one of the formats LISTS. It is at hand and can be read."""
    if is_stream(text) or not Path(text).is_file():
        return False
    if Path(text).suffix.lower() in LIST_SUFFIXES:
        return True
    with contextlib.suppress(OSError), open(text, "rb") as file:
        return bool(LIST_BEGIN.search(file.read(LIST_BYTES)))
    return False


@functools.cache
def _formats_of_files():
    """The formats that a file may have, as FFmpeg takes them."""
    return ",".join(sorted(name for name in av.formats_available if not set(LISTS) & set(name.split(","))))


def find_stream(container, title):
    """The video stream of a container that a player would show. Raises InputError if there is none."""
    # Not the first one: that may be a cover picture, or the still image of an AVIF sequence.
    stream = container.streams.best("video")
    if stream is None or stream.codec_context is None:
        raise InputError(f"{title}: no video in this file")
    if stream.disposition & av.stream.Disposition.attached_pic:
        raise InputError(f"{title}: no video in this file, only a cover picture")
    return stream


def demux(container):
    """Yield the packets of all streams of a container."""
    # PyAV ends with an empty packet for each stream, and fails there if more streams appeared on the way, as they do
    # in damaged FLV files.
    with contextlib.suppress(IndexError):
        yield from container.demux()


def _camera(text):
    """What `av.open` takes for a camera: (file, keyword arguments)."""
    name = text.removeprefix("camera:")
    if sys.platform == "darwin":
        return name, {"format": "avfoundation", "options": {"framerate": "30"}}
    if sys.platform == "win32":
        return f"video={name}", {"format": "dshow"}
    return f"/dev/video{name}" if name.isdecimal() else name, {"format": "video4linux2,v4l2"}


def lost_notice(title, lost):
    """What to tell the user about the frames that are lost, given their numbers."""
    names = ", ".join(map(str, sorted(lost)[:NAMED_FRAMES]))
    more = len(lost) - NAMED_FRAMES
    frames = f"frame {names} is" if len(lost) == 1 else f"frames {names}{f' and {more} more' if more > 0 else ''} are"
    return f"{title}: {frames} damaged and left out, {len(lost)} in all"


class SeekError(Exception):
    """A container does not give the packets that its FrameIndex says."""


class PacketsFrom:
    """A stream's packets with data, from a Point of its FrameIndex on. Iterating again goes on where it was left.

    Each packet is compared with the index. Raises SeekError if the container cannot seek there, or gives other packets.
    """

    def __init__(self, container, stream, index, point):
        self._container, self._stream, self._index, self._begin = container, stream, index, point.place
        self._waiting = None
        earlier = point
        for _ in range(MOST_SEEKS):
            # Where containers count other times than those that their packets have, the packet found may be too late.
            if earlier is None or self._seek(earlier, point):
                break
            earlier = index.previous_point(earlier)
        if self._waiting is None:
            raise SeekError

    def _seek(self, target, point):
        """Seek to a Point. Returns whether the next packet is known and not behind `point`."""
        try:
            self._container.seek(target.seek, stream=self._stream)
            # The first packets of a stream without an index may be the ends of longer ones.
            for packet in itertools.islice(self._demux(), MOST_UNKNOWN):
                place = self._index.place(packet, point.place)
                if place is not None:
                    self._waiting, self._place = packet, place
                    return True
        except av.error.FFmpegError:
            pass
        return False

    def _demux(self):
        return (packet for packet in demux(self._container) if packet.stream is self._stream)

    def __iter__(self):
        first, self._waiting = self._waiting, None
        for packet in itertools.chain([first] if first else [], self._demux()):
            if packet.size:
                if not self._index.is_at(packet, self._place):
                    raise SeekError
                self._place += 1
                if self._place > self._begin:
                    yield packet


class Decoder:
    """The frames of a video's main stream in the order in which they are shown. It can be iterated once.

    source: a value of --video. title: its name in messages. threads: how many decode, None for all cores.

    begin: (FrameIndex, Point), to begin there instead of at the beginning of the file.

    Yields (number, time, av.VideoFrame): the frame's number in the file, from 0, in which frames that cannot be decoded
    count, and its time in seconds from the start of the file, a Fraction.

        rate, time_base, pixel_aspect    of the stream; pixel_aspect is a pixel's width divided by its height
        length     number of frames, None if it is not known; the file's header says it, and may be wrong
        timecode   of the first frame, as text; None if the file has none
        notices    what the user should know, one sentence each; more may come with the frames
        complete   False as soon as a frame is known to be missing
        lost       the numbers of the frames that are known to be missing, a set
        cut        how the file is cut short, as a part of a sentence; None if it is not, or its end was not yet read

    Raises InputError if the source cannot be opened, holds no video, or is damaged over a long stretch; SeekError if it
    cannot begin where it should.
    """

    def __init__(self, source, title, threads=None, begin=None):
        self._source, self._title = source, title
        self._container = open_container(source)
        self._stream = stream = find_stream(self._container, title)
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
        # Times of packets whose frames have not come, and whether decoding them failed: a heap. Of formats in which a
        # packet may stand for no frame of its own, only those that failed.
        self._waiting = []
        codec = stream.codec_context.codec
        self._all_give_frames = codec.intra_only or codec.canonical_name in ONE_FRAME_A_PACKET
        self._given_up = deque(maxlen=2 * MOST_DAMAGED)
        self._number = 0
        self._shown_until = 0  # the middle of the latest frame, in the stream's unit
        self._longest_wait = Fraction(0)
        self._last_time = None
        self.lost = set()
        self._damaged_count = 0
        self._packets = 0
        self._ends = {}  # of each stream: when its last packet has been shown, and the unit of this time
        self.cut = None
        self._packets_from = self._begin_time = None
        if begin is not None:
            self._packets_from = PacketsFrom(self._container, stream, *begin)
            self._number, self._begin_time = begin[0].number_at(begin[1]), begin[1].pts
        others = [other for other in self._container.streams.video if other is not stream and other.frames != 1
                  and not other.disposition & av.stream.Disposition.attached_pic]
        self._remarks = [f"{title}: stream {stream.index} is taken, of {len(others) + 1} videos in this file"] \
            if others else []

    def seconds(self, pts):
        """A time in the stream's unit as seconds from the start of the file, a Fraction."""
        return pts * self.time_base - self._start

    def holds(self, number):
        """Whether there may be a frame with this number: False only if it is sure that there is none."""
        if self.length is None or number < self.length or is_stream(self._source):
            return True
        # The header of an MP4 that was written piece by piece counts the first piece.
        with open_container(self._source) as container:
            stream = container.streams[self._stream.index]
            return number < sum(packet.size > 0 for packet in container.demux(stream))

    @property
    def codec(self):
        """The av.codec.Codec of the stream."""
        return self._stream.codec_context.codec

    @property
    def extradata(self):
        """What the file says of the stream as a whole, in the codec's own form; None if it says nothing."""
        return self._stream.codec_context.extradata

    @property
    def begins_anywhere(self):
        """Whether the file may begin between key frames."""
        return self._container.format.name in BEGIN_ANYWHERE

    @property
    def has_tables(self):
        """Whether the container tells apart from the packets where each of them lies, so that damage costs none."""
        return "mp4" in self._container.format.name

    @property
    def complete(self):
        return not (self.lost or self.cut)

    @property
    def notices(self):
        notices = list(self._remarks)
        if self.lost:
            notices.append(lost_notice(self._title, self.lost))
        if self._damaged_count:
            frames = "1 frame is" if self._damaged_count == 1 else f"{self._damaged_count} frames are"
            notices.append(f"{self._title}: {frames} damaged in part")
        if self.cut:
            notices.append(f"{self._title}: this file is cut short, {self.cut}")
        return notices

    def __iter__(self):
        decode = self._stream.codec_context.decode
        reason, in_a_row = None, 0
        key_seen = not self.begins_anywhere
        for packet in self.read_packets():
            key_seen = key_seen or (packet is not None and packet.is_keyframe)
            failed = False
            try:
                frames = decode(packet)
            except av.error.FFmpegError as error:
                frames, failed, reason = [], True, error.strerror
                in_a_row += 1
            # What a recording holds before its first key frame needs frames from before its start.
            if packet is not None and key_seen and not packet.is_discard and not self._is_too_early(packet):
                self._await_frame(packet, failed)
            if in_a_row > MOST_DAMAGED:
                where = f"damaged after frame {self._number - 1}" if self._number else "no frame could be decoded"
                raise InputError(f"{self._title}: {where}, {in_a_row} frames in a row ({reason})")
            for frame in frames:
                in_a_row = 0
                if self._is_too_early(frame):
                    continue
                number, time = self._place(frame)
                if number is not None:
                    self._damaged_count += bool(frame.is_corrupt)
                    yield number, time, frame
        if reason and not self._number:
            raise InputError(f"{self._title}: no frame could be decoded ({reason})")
        self._count_lost(None)

    def read_packets(self):
        """Yield the stream's packets, then None, and note how far the file goes."""
        failures = 0
        while failures < MOST_READ_ERRORS:
            try:
                for packet in self._packets_from or demux(self._container):
                    self._note_end(packet)
                    if packet.stream is not self._stream:
                        continue
                    failures = 0
                    # One without data repeats a frame, or is the end; a decoder would take both for the end.
                    self._packets += packet.dts is not None
                    if packet.size:
                        yield packet
                break
            except av.error.FFmpegError as error:
                # The demuxer goes on behind what it could not read.
                failures += 1
                if failures == MOST_READ_ERRORS:
                    self.cut = f"reading it failed ({error.strerror})"
        if not self._packets_from:
            self.cut = self.cut or self._find_cut()
        yield None

    def _is_too_early(self, item):
        """Whether a packet or frame is shown before the place where decoding began, and so cannot be decoded."""
        return self._begin_time is not None and item.pts is not None and item.pts < self._begin_time

    def _note_end(self, packet):
        """Note when what a packet holds has been shown."""
        if packet.pts is None or packet.time_base is None:
            return
        duration = packet.duration
        if not duration and packet.stream is self._stream:
            duration = 1 / (Fraction(self.rate) * packet.time_base)
        end, (latest, _) = packet.pts + (duration or 0), self._ends.get(packet.stream_index, (None, None))
        if latest is None or end > latest:
            self._ends[packet.stream_index] = end, packet.time_base

    def _end(self, *streams):
        """When the last packet of these streams has been shown, in seconds from the start of the file."""
        return max([end * unit - self._start for stream, (end, unit) in self._ends.items() if stream in streams] + [0])

    def _await_frame(self, packet, failed):
        """Expect the frame of this packet, or if decoding it failed, those after it."""
        if packet.pts is not None and (failed or self._all_give_frames):
            heapq.heappush(self._waiting, (packet.pts, failed))
        elif failed:
            self._lose_frame()

    def _place(self, frame):
        """The number and the time of a frame that was decoded; None, None for one that comes too late."""
        if frame.pts is None:
            self._waiting.clear()
            number, time = self._number, self._number / Fraction(self.rate)
        elif frame.pts in self._given_up:
            # After damage, decoders give single frames when later ones are already shown.
            return None, None
        else:
            lost = len(self.lost)
            self._count_lost(frame.pts)
            time = self.seconds(frame.pts)
            if self._last_time is not None:
                wait = time - self._last_time
                if self.cut and self._longest_wait * self.rate < 1.5:
                    # A frame may be stored behind those that are shown after it, and so behind the cut.
                    for _ in range(round(wait * self.rate) - 1 - (len(self.lost) - lost)):
                        self._lose_frame()
                if len(self.lost) == lost:
                    self._longest_wait = max(self._longest_wait, wait)
            number = self._number
            self._last_time = time
            duration = frame.duration or round(1 / (Fraction(self.rate) * self.time_base))
            # Half of it, since times are rounded.
            self._shown_until = frame.pts + duration / 2
        self._number += 1
        return number, time

    def _count_lost(self, time):
        """Count the frames that should have been shown before `time`, in the stream's unit; None: before the end."""
        while self._waiting and (time is None or self._waiting[0][0] <= time):
            expected, failed = heapq.heappop(self._waiting)
            # Decoders drop frames without a word after a damaged key frame. But the second half of an interlaced frame,
            # and frames before the first one that can be decoded, are none that are lost.
            dropped = self._number and expected >= self._shown_until
            if expected != time and (failed or dropped):
                self._given_up.append(expected)
                self._lose_frame()

    def _lose_frame(self):
        self.lost.add(self._number)
        self._number += 1

    def _find_cut(self):
        """What the header promised and the file does not hold, as a part of a sentence; None if nothing is missing."""
        stream, container = self._stream, self._container
        frame = 1 / Fraction(self.rate)
        # Headers round, and how long the last of frames of different lengths is shown is not always known.
        allowed = max(frame / 2, self._longest_wait - frame / 2)
        if self.length and self._packets < self.length:
            # MP4 files that were trimmed without encoding hold fewer frames than they count, but end when they should.
            promised = ((stream.start_time or 0) + (stream.duration or 0)) * stream.time_base - self._start
            reached = self._end(stream.index)
            if "mp4" not in container.format.name or not stream.duration or reached < promised - allowed:
                return f"its header promises {self.length} frames and it holds {self._packets}"
        elif container.format.name == "gif" and Path(container.name).is_file():
            with open(container.name, "rb") as file:
                file.seek(-min(64, Path(container.name).stat().st_size), 2)
                if not file.read().rstrip(b"\0").endswith(b";"):
                    return "it does not have the end that a GIF has"
        elif not self.length:
            tag = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
            if tag:
                promised = (int(tag[1]) * 60 + int(tag[2])) * 60 + Fraction(tag[3])
                reached = self._end(stream.index) + self._start
            else:
                promised = Fraction(container.duration or 0, av.time_base)
                reached = self._end(*self._ends) + self._start
                allowed += len(container.streams) > 1 and Fraction(1, 10)
            if reached < promised - allowed:
                return f"its header promises {float(promised):.2f} s and it holds {float(reached):.2f} s"
        return None
