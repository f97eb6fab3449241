"""The frames of a video in any order, and backwards, without unpacking them."""

import threading
from collections import OrderedDict

MOST_KEPT = 256 * 2**20
"""So many bytes of decoded frames are kept by each SeekableFrames, and by each reading forwards or backwards."""

KEPT_BEFORE = 16
"""So many frames before one that is asked for are decoded with it, for those who step back."""

TOGETHER = 16
"""Reading backwards, so many frames are decoded at a time where groups are shorter."""


class SeekableFrames:
    """The frames of a video, each at its position from 0: `len(frames)`, `frames[position]`, and backwards.

    Each frame is the one that reading in order gives, bit for bit. Get it from `seekable` of what
    `util.video.open_frames` returns; it has the frames from --start to --end. Any thread may ask for frames, one is
    served at a time; `forwards` and `backwards` have decoders of their own and disturb nobody, but each is for one
    thread at a time. About 30 bytes for each frame of the video are kept, and MOST_KEPT of decoded frames.

        times      float64, when each frame is shown, in seconds from the start of the video; None for images
        names      the frames' names

    open_store: makes a store, which has
        count, times
        name(position), position(name)    the latter may be None
        begin(position)                   where decoding begins to get to this position: the position of a key frame
        load(first, last)                 {position: decoded frame}, without those that cannot be decoded
        frame(position, decoded frame)    the Frame
        forget()                          lets go of decoders, until the next load
        frame_bytes                       bytes of a decoded frame
        title                             for messages
    """

    def __init__(self, open_store):
        self._open_store = open_store
        self._store = open_store()
        self._lock = threading.Lock()
        self._kept = OrderedDict()
        self.times = self._store.times

    def __len__(self):
        return self._store.count

    def name(self, position):
        """The name of the frame at a position."""
        return self._store.name(range(len(self))[position])

    def position(self, name):
        """The position of the frame with this name. Raises KeyError if there is none."""
        position = self._store.position(name)
        if position is None:
            raise KeyError(name)
        return position

    def __getitem__(self, position):
        """The `util.frames.Frame` at a position; negative ones count from the end.

        Raises IndexError if there is no such position, and InputError if the frame is damaged.
        """
        position = range(len(self))[position]
        with self._lock:
            if position not in self._kept:
                self._load(position)
            self._kept.move_to_end(position)
            return self._store.frame(position, self._kept[position])

    def __iter__(self):
        return self.forwards()

    def __reversed__(self):
        return self.backwards()

    def forwards(self, first=0):
        """Yield the Frames from this position to the end. Damaged ones are left out."""
        store = self._open_store()
        for begin in range(first, len(self), TOGETHER):
            yield from _frames(store, range(begin, min(begin + TOGETHER, len(self))))

    def backwards(self, last=None):
        """Yield the Frames from this position, None for the last one, to the beginning. Damaged ones are left out.

        Each group of frames, from one key frame to the next, is decoded once. Of a group that is larger than
        MOST_KEPT only as many frames as fit are kept, and the group is decoded again for the others.
        """
        store = self._open_store()
        most = max(1, MOST_KEPT // store.frame_bytes)
        last = len(self) - 1 if last is None else last
        while last >= 0:
            begin = store.begin(last)
            while begin and last - store.begin(begin - 1) < min(TOGETHER, most):
                begin = store.begin(begin - 1)
            first = max(begin, last - most + 1)
            yield from _frames(store, range(last, first - 1, -1))
            last = first - 1

    def forget(self):
        """Let go of the frames that are kept, and of what decodes them, until a frame is asked for again."""
        with self._lock:
            self._kept.clear()
            self._store.forget()

    def _load(self, position):
        """Decode the frame at this position, and some before it."""
        store, kept = self._store, self._kept
        most = max(1, MOST_KEPT // store.frame_bytes)
        # Who steps back comes to the frames before these next.
        before = 4 * KEPT_BEFORE if position + 1 in kept else KEPT_BEFORE
        earliest = max(store.begin(position), position - min(before, most // 2))
        first = position
        while first > earliest and first - 1 not in kept:
            first -= 1
        loaded = store.load(first, position)
        if position not in loaded:
            raise store.damaged(position)
        kept.update(loaded)
        while len(kept) > most:
            kept.popitem(last=False)


def _frames(store, positions):
    """Load the frames at positions in a row, up or down, and yield them without keeping those that were used."""
    loaded = store.load(min(positions), max(positions))
    for position in positions:
        if position in loaded:
            yield store.frame(position, loaded.pop(position))
