"""Decode any frame of a video file, exactly as decoding the whole file would."""

import contextlib
import gc

from util.decoding import Decoder, PacketsFrom, SeekError, demux, find_stream, open_container
from util.errors import InputError
from util.pyav import av

CAN_SKIP = ("h264", "mpeg4", "mpeg1video", "mpeg2video")
"""Formats that say of a frame that no other one needs it, so that it need not be decoded on the way to another one."""


CLEAN_BEFORE = 2
"""So many undamaged key frames lie between the one where careful decoding begins and a damaged frame: what stands in
for damaged parts comes from frames that were decoded before."""


class VideoStore:
    """Some of a video file's frames for `util.seekable.SeekableFrames`, decoded when they are asked for.

    source, title, threads: as for `Decoder`. index: the file's FrameIndex. positions: the range of wanted frames in it.
    name, convert: name(number) is a frame's name, convert(number, time, av.VideoFrame) makes the `util.frames.Frame`.
    seconds: float64, when each wanted frame is shown. lost: a set that gets the numbers of frames that are damaged.

    Decoding is quick first: in threads that decode several frames at once, and without the frames that nobody needs.
    There everything must be as the index says. Where it is not, the file may be damaged, and a `Decoder` does what it
    does for the whole file, from a key frame before that is not damaged itself.
    """

    def __init__(self, source, title, threads, index, positions, frame_bytes, convert, name, lost):
        self._file = source, title, threads
        self._index, self._positions, self._convert, self._name, self._lost = index, positions, convert, name, lost
        self._quick = self._careful = self._input = None
        self._spoilt, self._clean = set(index.suspect), {None: True}
        self.title, self.count, self.frame_bytes = title, len(positions), frame_bytes
        self.times = index.seconds[positions.start:positions.stop]

    def name(self, position):
        return self._name(int(self._index.numbers[self._positions[position]]))

    def position(self, name):
        if not name.isdecimal():
            return None
        position = self._index.position_of(int(name))
        return self._positions.index(position) if position in self._positions else None

    def begin(self, position):
        inside = self._positions[position]
        return max(0, self._index.first_position(self._index.point_before(inside)) - self._positions.start)

    def frame(self, position, decoded):
        inside = self._positions[position]
        return self._convert(int(self._index.numbers[inside]), decoded)

    def damaged(self, position):
        return InputError(f"{self.title}: frame {self.name(position)} is damaged")

    def forget(self):
        if self._quick or self._careful or self._input:
            self._quick = self._careful = self._input = None
            # PyAV's containers are tied into cycles, and Python does not know how much hangs on them.
            gc.collect()

    def load(self, first, last):
        first, last = self._positions[first], self._positions[last]
        point = self._index.point_before(first)
        found = self._load_quickly(first, last, point)
        if found is None:
            found = self._load_carefully(first, last, point)
            self._lost |= {int(self._index.numbers[position]) for position in range(first, last + 1)
                           if position not in found}
        return {position - self._positions.start: frame for position, frame in found.items()}

    def _load_quickly(self, first, last, point):
        """{position: av.VideoFrame}; None if anything is not as it should be."""
        if point in self._spoilt or any(first <= self._index.first_position(other) <= last for other in self._spoilt):
            return None
        try:
            if self._quick is None or not _reaches(self._quick, self._index, first, point):
                self._quick = QuickRun(self._open_input(), self._index, point)
            return self._quick.take(first, last)
        except (UnusualError, SeekError, av.error.FFmpegError):
            self._spoilt.add(point)
            self._quick = None
            return None

    def _load_carefully(self, first, last, point):
        """{position: av.VideoFrame}, without those that cannot be decoded."""
        found_clean = 0
        while point is not None:
            found_clean += self._is_clean(point)
            if found_clean > CLEAN_BEFORE:
                break
            point = self._index.previous_point(point)
        if self._careful is None or not _reaches(self._careful, self._index, first, point):
            while True:
                try:
                    self._careful = CarefulRun(self._file, self._index, point)
                    break
                except SeekError:
                    point = self._index.previous_point(point)
        return self._careful.take(first, last)

    def _is_clean(self, point):
        """Whether the frame of this Point can be decoded without errors, and without anything before it."""
        if point not in self._clean:
            self._quick = None
            try:
                self._clean[point] = self._open_input().decodes_alone(self._index, point)
            except (SeekError, av.error.FFmpegError):
                self._clean[point] = False
        return self._clean[point]

    def _open_input(self):
        self._input = self._input or StrictInput(*self._file)
        return self._input


def _reaches(run, index, first, point):
    """Whether going on with a run comes to the frame at position `first` sooner than beginning at `point`."""
    return index.first_position(point) <= run.at + 1 and run.at <= first


class UnusualError(Exception):
    """Decoding gives other frames than the index says."""


class StrictInput:
    """An open video file whose decoder takes no damage."""

    def __init__(self, source, title, threads):
        self.container = open_container(source)
        self.stream = find_stream(self.container, title)
        self.stream.thread_type = "FRAME"
        self.context = self.stream.codec_context
        if threads:
            self.context.thread_count = threads
        self.context.options = {"err_detect": "explode"}
        # What only the beginning of a file says (the encoder that made it, for example) stays known.
        first = next((packet for packet in demux(self.container)
                      if packet.stream is self.stream and packet.size), None)
        if first is not None:
            with contextlib.suppress(av.error.FFmpegError):
                self.context.decode(first)

    def packets_from(self, index, point):
        """The packets from a Point on; None: from the file's beginning."""
        return PacketsFrom(self.container, self.stream, index, index.beginning if point is None else point)

    def decodes_alone(self, index, point):
        packets = iter(self.packets_from(index, point))
        packet = next(packets)
        self.context.skip_frame = "DEFAULT"
        frames = [*self.context.decode(packet), *self.context.decode(None)]
        self.context.flush_buffers()
        return (bool(frames) or packet.is_discard) and \
            all(frame.pts == point.pts and not frame.is_corrupt for frame in frames)


class QuickRun:
    """Decoding from a Point on, in which only what is as the index says is accepted.

    at: the position behind the last frame that was decoded.
    """

    def __init__(self, strict, index, point):
        self._context, self._index = strict.context, index
        self._begin_time = index.beginning.pts if point is None else point.pts
        self._packets = strict.packets_from(index, point)
        self._can_skip = strict.context.codec.canonical_name in CAN_SKIP
        self._frames = self._decode(point is not None)
        self.at = index.first_position(point)

    def take(self, first, last):
        """Return {position: av.VideoFrame} of the frames at these positions. Raises UnusualError, FFmpegError."""
        index, found = self._index, {}
        self._wanted_from = index.times[first]
        while self.at <= last:
            frame = next(self._frames, None)
            position = None if frame is None or frame.pts is None else index.position(frame.pts)
            if position is None or position < self.at or position > max(self.at, first) or frame.is_corrupt:
                raise UnusualError
            self.at = position + 1
            if position >= first:
                found[position] = frame
        return found

    def _decode(self, leave_out):
        """Yield the frames. leave_out: those shown before the Point need frames from before it."""
        context = self._context
        for packet in self._packets:
            if leave_out and packet.pts < self._begin_time:
                continue
            skip = self._can_skip and packet.pts < self._wanted_from
            context.skip_frame = "NONREF" if skip else "DEFAULT"
            yield from context.decode(packet)
        context.skip_frame = "DEFAULT"
        yield from context.decode(None)


class CarefulRun:
    """Decoding from a Point on with a `Decoder`, which goes on where the file is damaged.

    at: the position up to which frames were decoded. Raises SeekError if the container cannot seek to the Point.
    """

    def __init__(self, file, index, point):
        self._title, self._index = file[1], index
        self._frames = iter(Decoder(*file, begin=None if point is None else (index, point)))
        self._next = None
        self.at = index.first_position(point)

    def take(self, first, last):
        """Return {position: av.VideoFrame} of those frames at these positions that can be decoded."""
        found = {}
        while self.at <= last:
            if self._next is None:
                self._next = next(self._frames, (None, None, None))
            number, _, frame = self._next
            if frame is None:
                break
            position = None if frame.pts is None else self._index.position(frame.pts)
            if position is not None and position > last:
                break
            self._next = None
            if position is None and self._index.decoded:
                continue
            if position is None or (number != self._index.numbers[position] and not self._index.decoded):
                raise InputError(f"{self._title}: its frames can only be read in their order, since frame {number} is "
                                 "not where its time says")
            if position >= first:
                found[position] = frame
            self.at = position + 1
        self.at = last + 1
        return found
