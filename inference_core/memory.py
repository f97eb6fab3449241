"""The memory: what it holds and what a query reads, in each of the eight modes (paper, section 3.2 and table 5)."""

import copy
from typing import NamedTuple

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

`gt` is the first reference, `last` the last memory frame, `mem` the recurrent embedding, `all` every memory frame. In
the two-frames modes the first reference stands in the memory twice: it takes two of the top-k places and so has twice
the weight. The memory keeps only one copy and notes that it counts twice. Further references: see ObjectMemory."""

MODES = tuple(READS)
"""The names of all modes."""


def needs_sam(mode):
    """Return whether this mode needs SAM."""
    return "compress" in mode


class MemoryState(NamedTuple):
    """What an ObjectMemory is made of. An entry is a pair (key C×h×w, value O×V×h×w)."""

    ids: list
    """The objects, O in number."""

    references: dict
    """{frame's index: entry} of the frames whose masks were given. The first one is `gt`."""

    embedding: tuple | None = None
    """An entry; None in modes without SAM."""

    last: tuple | None = None
    """An entry; None until there is a later memory frame, and in modes that do not read it."""

    others: tuple | None = None
    """In mode `stm`, keys C×N and values N×(O·V) of all memory frames that are no references."""


class ObjectMemory:
    """The memory of objects that have the same references. They share keys, so one affinity serves them all.

    `aggregate` is SAM: a function of two memory entries, the embedding and a new one, that returns one. state: a
    MemoryState. The size does not depend on how many entries were added, except in mode `stm`.

    If there is more than one reference, each is read, in every mode: the one that is nearest in time as often as `gt`
    (twice in the two-frames modes), the others once.
    """

    def __init__(self, mode, aggregate, state):
        self.ids = list(state.ids)
        self.references = dict(state.references)
        self._mode = mode
        self._aggregate = aggregate
        self._nearest = None
        self._parts = {}
        if needs_sam(mode):
            self._parts["mem"] = state.embedding or next(iter(self.references.values()))
        if state.last:
            self._parts["last"] = state.last
        self._join(state.others)

    @property
    def state(self):
        """The MemoryState. Its tensors are the memory's own, which never change."""
        return MemoryState(list(self.ids), dict(self.references), self._parts.get("mem"), self._parts.get("last"),
                           self._list_others())

    def copy(self):
        """Return another memory of the same, which does not change with this one. They share tensors."""
        other = copy.copy(self)
        other.references, other._parts = dict(self.references), dict(self._parts)
        return other

    def add(self, key, value):
        """Add the entry of a memory frame."""
        _, parts = READS[self._mode]
        if "all" in parts:
            self._key = torch.cat([self._key, _to_columns(key)], 1)
            self._value = torch.cat([self._value, _to_rows(value)])
            self._copies = self._copies.new_ones(self._key.shape[1])
            return
        if "mem" in parts:
            self._parts["mem"] = self._aggregate(self._parts["mem"], (key, value))
        if "last" in parts:
            self._parts["last"] = (key, value)
        self._join()

    def add_reference(self, frame, key, value, limit):
        """Add the entry of an annotated frame as a reference, in the place of that frame's earlier one if there is one.

        If there are more than `limit` references then, the oldest one but the first goes; in mode `stm` all stay.
        """
        others = self._list_others()
        self.references[frame] = (key, value)
        if others:
            self._join(others)
            return
        if len(self.references) > limit:
            del self.references[list(self.references)[1]]
        self.add(key, value)

    def forget_reference(self, frame):
        """Forget one of several references. What the embedding has taken in of it stays."""
        others = self._list_others()
        del self.references[frame]
        self._join(others)

    def face(self, frame):
        """Let the reference that is nearest to the frame of this index count most."""
        nearest = min(self.references, key=lambda other: abs(other - frame))
        if nearest != self._nearest:
            self._nearest = nearest
            if len(self.references) > 1:
                self._join(self._list_others())

    def read(self, query, top_k, read=read_top_k, penalise=None):
        """Return the readout O×V×h×w, channels_last, for a query C×h×w.

        read: read_top_k, or an engine's `read`. penalise: what the method of Places of this name does with the frames
        of the memory's entries, the shape of the map, and the number of positions in the memory; None: go by looks.
        """
        addend = penalise and penalise(self._frames, query.shape[1:], self._key.shape[1])
        readout = read(query.flatten(1), self._key, self._value, self._copies, top_k, addend)
        readout = readout.view(*query.shape[1:], len(self.ids), -1).permute(2, 3, 0, 1)
        return readout.contiguous(memory_format=torch.channels_last)

    def list_tensors(self):
        """Return all tensors that the memory holds. Some may be views of the same storage."""
        entries = [tensor for entry in (*self.references.values(), *self._parts.values()) for tensor in entry]
        return [self._key, self._value, self._copies, *entries]

    def select(self, ids):
        """Return the memory of those of its objects that are among `ids`, or None if there are none."""
        rows = [row for row, object_id in enumerate(self.ids) if object_id in ids]
        if len(rows) == len(self.ids):
            return self
        if not rows:
            return None
        part = copy.copy(self)
        part.ids = [self.ids[row] for row in rows]
        part.references = {frame: (key, value[rows]) for frame, (key, value) in self.references.items()}
        part._parts = {name: (key, value[rows]) for name, (key, value) in self._parts.items()}
        part._value = self._value.unflatten(1, (len(self.ids), -1))[:, rows].flatten(1)
        return part

    def _list_others(self):
        """Return (keys, values) of the memory frames that are no references, in mode `stm`; else None."""
        if "all" not in READS[self._mode][1]:
            return None
        positions = sum(key[0].numel() for key, _ in self.references.values())
        return self._key[:, positions:], self._value[positions:]

    def _join(self, others=None):
        """Join references, embedding and last memory frame for reading. others: as in MemoryState."""
        # Values are laid out once per memory frame as N×(O·V), so that a query reads one position as one row.
        first, *further = self.references.values()
        parts = {"gt": first, **self._parts}
        # Where a mode does not read `last`, both lists are the same, but for `stm`, whose later frames are `others`.
        names = READS[self._mode]["last" in self._parts]
        joined = [name for name in dict.fromkeys(names) if not (further and name == "gt")]
        entries = [(parts[name], names.count(name)) for name in joined]
        # The frames that the entries are of; None is the last memory frame, where the embedding's cells are, too.
        self._frames = [next(iter(self.references)) if name == "gt" else None for name in joined]
        if further:
            most = max(1, names.count("gt"))
            entries += [(entry, most if frame == self._nearest else 1) for frame, entry in self.references.items()]
            self._frames += list(self.references)
        self._key = torch.cat([_to_columns(key) for (key, _), _ in entries], 1)
        self._value = torch.cat([_to_rows(value) for (_, value), _ in entries])
        self._copies = torch.cat([self._key.new_full((key[0].numel(),), copies) for (key, _), copies in entries])
        if others:
            self._key, self._value = torch.cat([self._key, others[0]], 1), torch.cat([self._value, others[1]])
            self._copies = self._copies.new_ones(self._key.shape[1])


def move_memory(state, device):
    """Return a MemoryState with its tensors on this torch.device."""
    def move(entry):
        return entry and tuple(tensor.to(device) for tensor in entry)

    return state._replace(references={frame: move(entry) for frame, entry in state.references.items()},
                          embedding=move(state.embedding), last=move(state.last), others=move(state.others))


def _to_columns(key):
    """Turn a key C×h×w into C×(h·w), float32, which affinities are computed in."""
    return key.float().flatten(1)


def _to_rows(value):
    """Turn a value O×V×h×w into (h·w)×(O·V)."""
    return value.permute(2, 3, 0, 1).flatten(0, 1).flatten(1)
