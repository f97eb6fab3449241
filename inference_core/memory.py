"""What the memory holds and what a query reads, in each of the eight modes (paper, section 3.2 and table 5)."""

import torch

from model.memory_reading import read_top_k

# mode: (what a query reads until a memory frame follows the annotated one, what it reads from then on).
# `gt` is the annotated frame, `last` the last memory frame, `mem` the recurrent embedding. The annotated frame
# really stands twice in the two-frames modes: it takes two of the top-k places and so has twice the weight. What is
# kept of it is one copy and that it counts twice.
READS = {
    "stm": (("gt",), ("all",)),
    "gt": (("gt",), ("gt",)),
    "last": (("gt",), ("last",)),
    "two-frames": (("gt",), ("last", "gt", "gt")),
    "compress": (("mem",), ("mem",)),
    "gt-compress": (("mem", "gt"), ("mem", "gt")),
    "last-compress": (("mem",), ("mem", "last")),
    "two-frames-compress": (("mem", "gt"), ("mem", "last", "gt", "gt")),
}
MODES = tuple(READS)


def needs_sam(mode):
    """Does this mode need SAM?"""
    return "compress" in mode


class ObjectMemory:
    """Memory of the objects annotated in one frame. They share keys, hence one affinity serves them all.

    A memory entry is a pair (key C×h×w, value O×V×h×w). `aggregate` is SAM: it turns two entries, the
    embedding and a new one, into one. Except in mode `stm`, the size does not depend on how many were added.
    """

    def __init__(self, ids, mode, aggregate, key, value):
        self.ids = list(ids)
        self._mode = mode
        self._aggregate = aggregate
        self._entries = {"gt": (key, value), "mem": (key, value)}
        self._join(READS[mode][0])

    def add(self, key, value):
        """Remember a further memory frame."""
        _, parts = READS[self._mode]
        if "all" in parts:
            self._key = torch.cat([self._key, _to_columns(key)], 1)
            self._value = torch.cat([self._value, _to_rows(value)])
            self._copies = self._copies.new_ones(self._key.shape[1])
            return
        if "mem" in parts:
            self._entries["mem"] = self._aggregate(self._entries["mem"], (key, value))
        if "last" in parts:
            self._entries["last"] = (key, value)
        self._join(parts)

    def read(self, query, top_k, read=read_top_k):
        """Readout O×V×h×w, channels_last, for a query C×h×w. read: read_top_k or what stands for it."""
        readout = read(query.flatten(1), self._key, self._value, self._copies, top_k)
        readout = readout.view(*query.shape[1:], len(self.ids), -1).permute(2, 3, 0, 1)
        return readout.contiguous(memory_format=torch.channels_last)

    def list_tensors(self):
        """All that it holds; some may be views of the same memory."""
        entries = [tensor for entry in self._entries.values() for tensor in entry]
        return [self._key, self._value, self._copies, *entries]

    def remove(self, ids):
        """Forget these objects; those that are not here do not matter."""
        rows = [row for row, object_id in enumerate(self.ids) if object_id not in ids]
        if len(rows) == len(self.ids):
            return
        self._value = self._value.unflatten(1, (len(self.ids), -1))[:, rows].flatten(1)
        self._entries = {part: (key, value[rows]) for part, (key, value) in self._entries.items()}
        self.ids = [self.ids[row] for row in rows]

    def _join(self, parts):
        # Laid out for reading once per memory frame: N×(O·V), so that one position is one row.
        entries = [self._entries[part] for part in dict.fromkeys(parts)]
        self._key = torch.cat([_to_columns(key) for key, _ in entries], 1)
        self._value = torch.cat([_to_rows(value) for _, value in entries])
        positions = self._key.shape[1] // len(entries)
        self._copies = torch.cat([self._key.new_full((positions,), parts.count(part)) for part in dict.fromkeys(parts)])


def _to_columns(key):
    """C×h×w to C×(h·w), float32, as affinities are computed."""
    return key.float().flatten(1)


def _to_rows(value):
    """O×V×h×w to (h·w)×(O·V)."""
    return value.permute(2, 3, 0, 1).flatten(0, 1).flatten(1)
