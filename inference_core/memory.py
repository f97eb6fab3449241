"""The memory: what it holds and what a query reads, in each of the eight modes (paper, section 3.2 and table 5)."""

import torch

from model.memory_reading import read_top_k

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
"""{mode: (what queries read until a memory frame follows the annotated one, what they read from then on)}.

`gt` is the annotated frame, `last` the last memory frame, `mem` the recurrent embedding, `all` every memory frame. In
the two-frames modes the annotated frame stands in the memory twice: it takes two of the top-k places and so has twice
the weight. The memory keeps only one copy and notes that it counts twice."""

MODES = tuple(READS)
"""The names of all modes."""


def needs_sam(mode):
    """Return whether this mode needs SAM."""
    return "compress" in mode


class ObjectMemory:
    """The memory of the objects that were annotated in one frame. They share keys, so one affinity serves them all.

    A memory entry is a pair (key C×h×w, value O×V×h×w). `aggregate` is SAM: a function of two entries, the embedding
    and a new one, that returns one. The size does not depend on how many entries were added, except in mode `stm`.
    """

    def __init__(self, ids, mode, aggregate, key, value):
        self.ids = list(ids)
        self._mode = mode
        self._aggregate = aggregate
        self._entries = {"gt": (key, value), "mem": (key, value)}
        self._join(READS[mode][0])

    def add(self, key, value):
        """Add the entry of a memory frame."""
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
        """Return the readout O×V×h×w, channels_last, for a query C×h×w. read: read_top_k, or an engine's `read`."""
        readout = read(query.flatten(1), self._key, self._value, self._copies, top_k)
        readout = readout.view(*query.shape[1:], len(self.ids), -1).permute(2, 3, 0, 1)
        return readout.contiguous(memory_format=torch.channels_last)

    def list_tensors(self):
        """Return all tensors that the memory holds. Some may be views of the same storage."""
        entries = [tensor for entry in self._entries.values() for tensor in entry]
        return [self._key, self._value, self._copies, *entries]

    def remove(self, ids):
        """Forget the objects with these ids. Ids that are not in this memory are ignored."""
        rows = [row for row, object_id in enumerate(self.ids) if object_id not in ids]
        if len(rows) == len(self.ids):
            return
        self._value = self._value.unflatten(1, (len(self.ids), -1))[:, rows].flatten(1)
        self._entries = {part: (key, value[rows]) for part, (key, value) in self._entries.items()}
        self.ids = [self.ids[row] for row in rows]

    def _join(self, parts):
        """Join the entries of these parts for reading."""
        # Values are laid out once per memory frame as N×(O·V), so that a query reads one position as one row.
        entries = [self._entries[part] for part in dict.fromkeys(parts)]
        self._key = torch.cat([_to_columns(key) for key, _ in entries], 1)
        self._value = torch.cat([_to_rows(value) for _, value in entries])
        positions = self._key.shape[1] // len(entries)
        self._copies = torch.cat([self._key.new_full((positions,), parts.count(part)) for part in dict.fromkeys(parts)])


def _to_columns(key):
    """Turn a key C×h×w into C×(h·w), float32, which affinities are computed in."""
    return key.float().flatten(1)


def _to_rows(value):
    """Turn a value O×V×h×w into (h·w)×(O·V)."""
    return value.permute(2, 3, 0, 1).flatten(0, 1).flatten(1)
