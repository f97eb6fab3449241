"""Where each frame of a video file lies, found by reading the file's packets without decoding them."""

from typing import NamedTuple

import numpy as np

from util.decoding import Decoder, is_stream
from util.errors import InputError

INDEPENDENT = ("mjpeg", "prores", "dnxhd", "ffv1", "rawvideo", "huffyuv", "ffvhuff", "utvideo", "v210", "jpeg2000",
               "dvvideo", "hap", "cfhd", "qtrle", "png")
"""Formats whose key frames need nothing from before them."""

FROM_KEY_FRAMES = (*INDEPENDENT, "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9", "av1")
"""Formats in which the frames from a key frame's time on need nothing from before it. Those that are stored behind the
key frame but shown before it (an open group) do. H.264 and HEVC are asked packet by packet."""

MOSTLY = 0.9
"""Where such a share of the frames follow one another without a gap, a gap means lost frames, not a varying rate."""

SMALL_PACKET = 16
"""An MPEG-4 packet of no more bytes may stand for no frame."""


class Point(NamedTuple):
    """A packet with which decoding can begin."""

    place: int
    """The packet's place among the video's packets."""

    pts: int
    """Frames shown from this time on, in the stream's unit, can be decoded exactly."""

    seek: int
    """The time to ask the container for."""


class FrameIndex:
    """The frames of a video file in the order in which they are shown, and the packets in which they are stored.

    times        int64, ascending: when each frame is shown, in the stream's unit. A frame's position counts them from 0
    numbers      int64: the numbers that `util.decoding.Decoder` gives the frames
    packet_times, packet_sizes    int64, int32: of all packets with data, in the order of the file
    seconds      float64: when each frame is shown, from the start of the file
    points       the Points, in the order of the file
    beginning    the first packet as a Point
    decoded      whether every frame was decoded to make this index, so that it holds no frame that cannot be
    suspect      the Points behind which packets may be missing
    cut          how the file is cut short, as `Decoder` says it
    """

    def __init__(self, times, numbers, packets, decoder, decoded):
        self.times, self.numbers, self.decoded, self.cut = times, numbers, decoded, decoder.cut
        self.seconds = (times - float(decoder.seconds(0) / -decoder.time_base)) * float(decoder.time_base)
        self.packet_times = np.array(packets.times, np.int64)
        self.packet_sizes = np.array(packets.sizes, np.int32)
        self.beginning = packets.beginning
        self.points = packets.points
        self._places = [point.place for point in self.points]
        self._order = np.argsort(np.where(packets.shown, self.packet_times, np.iinfo(np.int64).max), kind="stable")
        self._order = self._order[:np.count_nonzero(packets.shown)].astype(np.int32)
        self.suspect = {self._point_for(time) for time in packets.gaps}

    def __len__(self):
        return len(self.times)

    def position(self, time):
        """The position of the frame shown at this time, in the stream's unit; None if there is none."""
        position = int(np.searchsorted(self.times, time))
        return position if position < len(self.times) and self.times[position] == time else None

    def position_of(self, number):
        """The position of the frame with this number; None if there is none."""
        position = int(np.searchsorted(self.numbers, number))
        return position if position < len(self.numbers) and self.numbers[position] == number else None

    def point_before(self, position):
        """The last Point from which the frame at this position can be decoded; None: from the file's beginning."""
        return self._point_for(self.times[position])

    def _point_for(self, time):
        stored = self._order[max(0, np.searchsorted(self.packet_times[self._order], time, "right") - 1)]
        for point in reversed(self.points[:int(np.searchsorted(self._places, stored, "right"))]):
            if point.pts <= time:
                return point
        return None

    def previous_point(self, point):
        """The Point before this one; None: the file's beginning."""
        at = int(np.searchsorted(self._places, point.place))
        return self.points[at - 1] if at else None

    def first_position(self, point):
        """The position of the first frame that decoding from this Point gives exactly."""
        return 0 if point is None else int(np.searchsorted(self.times, point.pts))

    def number_at(self, point):
        """The number of the first frame that decoding from this Point gives exactly."""
        position = self.first_position(point)
        return int(self.numbers[position]) if position < len(self) else len(self)

    def place(self, packet, most):
        """The place of a packet, at most `most`; None if it is not known, or behind that."""
        same = np.flatnonzero((self.packet_times[:most + 1] == packet.pts) &
                              (self.packet_sizes[:most + 1] == packet.size)) if packet.pts is not None else []
        return int(same[-1]) if len(same) else None

    def is_at(self, packet, place):
        """Whether the packet at this place is this one."""
        return place < len(self.packet_times) and self.packet_times[place] == packet.pts \
            and self.packet_sizes[place] == packet.size


class _Packets:
    """What reading all packets of a video tells."""

    def __init__(self):
        self.times, self.sizes, self.shown, self.points = [], [], [], []
        self.beginning = None
        self.first_key_time = None
        self.doubt, self.gaps = False, []
        self.untimed = False


def build_index(source, title, threads=None):
    """Read a video file's packets and return its FrameIndex.

    It takes seconds for hours of video. Only where packets do not tell which frames they give (fields that are stored
    apart, files cut short, rare formats) is every frame decoded once, which takes as long as reading the video does.

    Raises InputError if the frames cannot be told apart by their times: streams, cameras, files without times.
    """
    if is_stream(source):
        raise InputError(f"{title}: its frames can only be read in their order; a video in a file can be read in any")
    in_order = f"{title}: its frames can only be read in their order"
    decoder = Decoder(source, title, threads)
    packets = _read_packets(decoder)
    if packets.untimed:
        raise InputError(f"{in_order}, since not every frame has a time")
    first_number, first_time, interlaced = _find_first(source, title, threads)
    if first_time is None:
        raise InputError(f"{in_order}, since not every frame has a time")
    shown = np.sort(np.array(packets.times, np.int64)[np.array(packets.shown, bool)])
    before = int(np.searchsorted(shown, first_time))
    as_expected = first_number <= before < len(shown) and shown[before] == first_time
    if as_expected and not (packets.doubt or interlaced) and first_time >= packets.first_key_time:
        times = shown[before - first_number:]
        return FrameIndex(times, np.arange(len(times), dtype=np.int64), packets, decoder, False)
    decoder = Decoder(source, title, threads)
    times, numbers = [], []
    for number, _, frame in decoder:
        if frame.pts is None or (times and frame.pts <= times[-1]):
            raise InputError(f"{in_order}, since their times are missing or not in order")
        times.append(frame.pts)
        numbers.append(number)
    return FrameIndex(np.array(times, np.int64), np.array(numbers, np.int64), packets, decoder, True)


def _find_first(source, title, threads):
    """Number and time, in the stream's unit, of the first frame that can be decoded, and whether it has two fields."""
    for number, _, frame in Decoder(source, title, threads):
        return number, frame.pts, frame.interlaced_frame
    raise InputError(f"{title}: no frame could be decoded")


def _read_packets(decoder):
    """Read all packets of a Decoder's stream."""
    packets = _Packets()
    name = decoder.codec.canonical_name
    units = _unit_reader(name, decoder.extradata)
    key_seen = not decoder.begins_anywhere
    packets.first_key_time = -2**63
    durations = []
    for packet in decoder.read_packets():
        if packet is None:
            break
        if packet.pts is None:
            packets.untimed = True
            return packets
        if packet.is_keyframe and not key_seen:
            key_seen, packets.first_key_time = True, packet.pts
        gives_frame, begins = _look_into(packet, name, units)
        point = Point(len(packets.times), packet.pts, packet.pts if packet.dts is None else packet.dts)
        packets.beginning = packets.beginning or point
        packets.doubt |= gives_frame is None
        packets.times.append(packet.pts)
        packets.sizes.append(packet.size)
        packets.shown.append(gives_frame is not False and key_seen and not packet.is_discard)
        durations.append(packet.duration or 0)
        if begins and not packet.is_corrupt:
            packets.points.append(point)
    if name == "mpeg4" and packets.doubt:
        # Where packets hold parts of two frames, none of them is a place to begin.
        packets.points = []
    shown = np.array(packets.shown, bool)
    times, durations = np.array(packets.times, np.int64)[shown], np.array(durations, np.int64)[shown]
    order = np.argsort(times, kind="stable")
    # The second field of a frame, stored apart, comes half a frame after the first one.
    steps, durations = np.diff(times[order]), durations[order][:-1]
    packets.doubt |= bool((steps * 2 <= durations).any()) or decoder.cut is not None
    if not decoder.has_tables and np.mean(steps <= 1.5 * durations) > MOSTLY:
        packets.gaps = times[order][:-1][steps > 1.5 * durations].tolist()
        packets.doubt |= len(packets.gaps) > 0
    return packets


def _look_into(packet, name, units):
    """Whether a packet gives one frame, None if that is not known, and whether decoding can begin with it."""
    key = packet.is_keyframe
    if units is not None:
        return True, key and units(bytes(packet))
    if name == "vp8":
        return bool(bytes(packet)[0] >> 4 & 1), key
    if name == "mpeg4":
        single = bytes(packet).count(b"\0\0\1\xb6") == 1 and packet.size > SMALL_PACKET
        return single or None, key
    if name in ("mpeg1video", "mpeg2video"):
        data = bytes(packet)
        return (data.count(b"\0\0\1\0") == 1 and _is_whole_picture(data)) or None, key
    known = name in FROM_KEY_FRAMES
    return known or None, key and known


def _is_whole_picture(data):
    """Whether an MPEG-1 or MPEG-2 picture is a whole frame, not one of its fields."""
    at = data.find(b"\0\0\1\xb5")
    while at >= 0 and at + 7 <= len(data):
        # The picture coding extension, number 8, says in two bits: 3 is a frame.
        if data[at + 4] >> 4 == 8:
            return data[at + 6] & 3 == 3
        at = data.find(b"\0\0\1\xb5", at + 4)
    return True


def _unit_reader(name, extradata):
    """A function that says whether a key packet of H.264 or HEVC needs nothing from before it; None: other formats."""
    if name not in ("h264", "hevc"):
        return None
    length = 0
    if extradata and extradata[0] == 1:
        length = (extradata[4 if name == "h264" else 21] & 3) + 1
    needs_nothing = _h264_needs_nothing if name == "h264" else _hevc_needs_nothing
    return lambda data: needs_nothing(_split_units(data, length))


def _split_units(data, length):
    """Yield the units of a packet; length: bytes that give each one's size, 0 if start codes part them."""
    at = 0
    if length:
        while at + length < len(data):
            size = int.from_bytes(data[at:at + length], "big")
            yield data[at + length:at + length + size]
            at += length + size
        return
    at = data.find(b"\0\0\1")
    while at >= 0:
        following = data.find(b"\0\0\1", at + 3)
        yield data[at + 3:following if following >= 0 else len(data)]
        at = following


def _h264_needs_nothing(units):
    """An IDR picture, or a recovery point from which on all is exact."""
    for unit in units:
        kind = unit[0] & 31 if unit else 0
        if kind == 5:
            return True
        if kind == 6 and _is_exact_recovery_point(unit[1:]):
            return True
        if kind == 1:
            return False
    return False


def _is_exact_recovery_point(message):
    """Whether an SEI unit of H.264 says: no frames to wait for, and an exact match."""
    at = 0
    while at + 2 < len(message):
        kind = size = 0
        while at < len(message) and message[at] == 255:
            kind, at = kind + 255, at + 1
        kind, at = kind + message[at], at + 1
        while at < len(message) and message[at] == 255:
            size, at = size + 255, at + 1
        if at + 1 >= len(message):
            return False
        size, at = size + message[at], at + 1
        if kind == 6:
            return message[at] & 0xC0 == 0xC0
        at += size
    return False


def _hevc_needs_nothing(units):
    for unit in units:
        kind = unit[0] >> 1 & 63 if unit else 63
        if kind < 32:
            return 16 <= kind <= 21
    return False
