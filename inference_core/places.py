"""Where objects are, so that alike objects keep their ids: a place of the memory counts less, the farther it lies.

Affinities compare appearance alone, and of alike objects none looks more like itself than like the others. So from the
affinity of a place x of the frame and a place m of the memory that belongs to an object, |x - m'|² / 2σ² is subtracted.
Here m' is m moved with the object's centre from the memory's frame to now, and σ grows with the object's size, and with
the time for which it has not been seen. Of the background, which does not move as one, places of the last memory frame
count less in the same way, where they are, and places of references count as they are. Seong et al. ("Kernelized Memory
Network for Video Object Segmentation", ECCV 2020) weigh by place, too, but from the memory's side.

Lengths are in cells of the feature map. A map has h×w cells, n in all.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

IDS = 256
"""Ids of objects are below this."""

SPREAD, SHARE_OF_SIZE, GROWTH = 2, 0.3, 0.5
"""σ is SPREAD + SHARE_OF_SIZE · (the square root of the object's area) + GROWTH · (frames since it was last seen)."""

BACKGROUND = 4
"""σ of the background in the last memory frame."""

FADING = 0.95
"""The size of an object is its area, or what it was a frame ago times this, whichever is larger."""

SEEN = 0.1
"""An object that has less than this share of its size, or less than half a cell, is out of sight. Its centre stays."""


class PlacesState(NamedTuple):
    """What Places are made of. All are float32 tensors."""

    centre: torch.Tensor
    """256×2, (x, y) by object id, from the middle of the map."""

    size: torch.Tensor
    """256, in cells; 0 of an object that never had one."""

    lost: torch.Tensor
    """256, the number of frames since the object was last seen."""

    frames: dict
    """{frame's index: (n, the id that each cell belongs to, 0 for none; n×2, where it lies from that object's centre)}
    """


class Places:
    """Where the objects of a core are now, and which cells of its memory are theirs. state: a PlacesState, or None."""

    def __init__(self, device, state=None):
        self._device = device
        if state is None:
            table = torch.zeros(IDS, 4, device=device)
            state = PlacesState(table[:, :2], table[:, 2], table[:, 3], {})
        self._centre, self._size, self._lost = (tensor.to(device) for tensor in state[:3])
        self._frames = {number: tuple(tensor.to(device) for tensor in frame) for number, frame in state.frames.items()}
        self._now = None
        self._grids, self._lists = {}, {}

    @staticmethod
    def fits(state, frames, cells):
        """Return whether a PlacesState has these frames, among others, and all of them have so many cells."""
        tables = [tuple(tensor.shape) for tensor in state[:3]]
        return (tables == [(IDS, 2), (IDS,), (IDS,)] and set(frames) <= state.frames.keys()
                and all(owner.shape == (cells,) and offset.shape == (cells, 2) and owner.min() >= 0
                        and owner.max() < IDS for owner, offset in state.frames.values()))

    @property
    def state(self):
        """The PlacesState. Its tensors never change."""
        return PlacesState(self._centre, self._size, self._lost, dict(self._frames))

    def follow(self, ids, prob, given=()):
        """Look where the objects are in the newest frame.

        ids: the objects, O in number. prob: (O+1)×H×W, H and W multiples of 16. given: those of `ids` whose mask was
        given: they are taken to be there, however small they are.
        """
        prob = F.avg_pool2d(prob.unsqueeze(0), 16).squeeze(0)
        shape = prob.shape[1:]
        winner = prob.flatten(1).argmax(0)
        rows = torch.arange(1, len(ids) + 1, device=prob.device)
        own = prob.flatten(1)[1:] * (winner == rows.unsqueeze(1))
        area = own.sum(1)
        centre = own @ self._grid(shape) / area.clamp(min=1e-6).unsqueeze(1)

        # Tables are made anew, since states share the old ones.
        index = self._list_ids(ids)
        size, lost, anew = self._size[index], self._lost[index], torch.zeros_like(area, dtype=torch.bool)
        if given:
            anew = torch.tensor([object_id in given for object_id in ids], device=prob.device)
        seen = (area > 0.5) & (area > SEEN * size) | anew & (area > 0)
        self._centre = self._centre.index_copy(0, index, torch.where(seen.unsqueeze(1), centre, self._centre[index]))
        self._size = self._size.index_copy(0, index, torch.where(anew, area, torch.maximum(FADING * size, area)))
        self._lost = self._lost.index_copy(0, index, torch.where(seen, 0, lost + 1))
        owner = F.pad(index, (1, 0))[winner]
        self._now = owner.float(), self._grid(shape) - self._centre[owner]

    def remember(self, number, kept):
        """Keep the newest frame, whose index is `number`, and of the others only those with an index in `kept`."""
        self._frames = {other: frame for other, frame in self._frames.items() if other in kept} | {number: self._now}

    def penalise(self, ids, frames, last, shape, columns):
        """Return (queries n×4, keys 4×N), whose product is to be added to the affinities.

        ids: the objects that share a memory. frames: the frames' indices of its entries, in their order, n columns
        each; None is the last memory frame, whose index is `last`. What follows up to N = `columns` counts as it is.
        shape: (h, w).
        """
        grid = self._grid(shape)
        ours = torch.zeros_like(self._size).index_fill(0, self._list_ids(ids), 1)
        sigma = SPREAD + SHARE_OF_SIZE * self._size.sqrt() + GROWTH * self._lost
        weights = ours * (self._size > 0) / (2 * sigma.square())
        parts = []
        for number in frames:
            owner, offset = self._frames[last if number is None else number]
            owner = owner.long()
            background = 1 / (2 * BACKGROUND ** 2) if number is None else 0
            parts.append((torch.where(owner == 0, background, weights[owner]), offset + self._centre[owner]))
        weight, place = (torch.cat(part) for part in zip(*parts, strict=True))
        keys = torch.stack([2 * weight * place[:, 0], 2 * weight * place[:, 1], -weight,
                            -weight * place.square().sum(1)])
        queries = torch.cat([grid, grid.square().sum(1, keepdim=True), torch.ones_like(grid[:, :1])], 1)
        return queries, F.pad(keys, (0, columns - keys.shape[1]))

    def _list_ids(self, ids):
        """Return ids as a tensor. It is kept, since making one from numbers makes the host wait for the GPU."""
        if tuple(ids) not in self._lists:
            if len(self._lists) == IDS:
                self._lists.clear()
            self._lists[tuple(ids)] = torch.tensor(ids, device=self._device)
        return self._lists[tuple(ids)]

    def _grid(self, shape):
        """Return the cells' places n×2, (x, y) from the middle of the map. Products of small numbers round less."""
        if shape not in self._grids:
            y, x = torch.meshgrid(*(torch.arange(length, device=self._device) - length / 2 for length in shape),
                                  indexing="ij")
            self._grids = {shape: torch.stack([x.flatten(), y.flatten()], 1)}
        return self._grids[shape]
