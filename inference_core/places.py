"""Where objects are, so that alike objects are not mixed up: a place of the memory counts less, the farther it lies.

Affinities compare appearance alone, and of alike objects none looks more like itself than like the others. So from the
affinity of a place x of the frame and a place m of the memory that belongs to an object, |x - m'|² / 2σ² is subtracted.
Here m' is m moved with the object's centre from the memory's frame to the latest one, and σ grows with the object's
size, and with the time since it was last seen. Of the background, which does not move as one, places of the last memory
frame count less in the same way, where they are, and places of references count as they are. Only frames that the
memory takes are looked at, so that frames in between may be left out. Seong et al. ("Kernelized Memory Network for
Video Object Segmentation", ECCV 2020) weigh by place, too, but from the memory's side.

Lengths are in cells of the feature map. A map has h×w cells, n in all.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

IDS = 256
"""Ids of objects are below this."""

SPREAD, SHARE_OF_SIZE, GROWTH = 2, 0.3, 0.5
"""σ is SPREAD + SHARE_OF_SIZE · (the square root of the object's area) + GROWTH · (the number of frames between the one
in which it was last seen and this one)."""

BACKGROUND = 4
"""σ of the background in the last memory frame is BACKGROUND + GROWTH · (the number of frames between that one and this
one)."""

FADING = 0.95
"""The size of an object is its area, or what it was a memory frame ago times this, whichever is larger."""

SEEN = 0.1
"""An object that has less than this share of its size, or less than half a cell, is out of sight. Its centre stays."""


class Sighting(NamedTuple):
    """Where everything is in one frame. All are float32 tensors; tables have a row for each object id."""

    owner: torch.Tensor
    """n, the id that each cell belongs to, 0 for none."""

    offset: torch.Tensor
    """n×2, (x, y), where each cell lies from the centre of its object; background: from the middle of the map."""

    centre: torch.Tensor
    """256×2, (x, y) from the middle of the map, where the object was when it was last seen."""

    size: torch.Tensor
    """256, in cells; 0 of an object that is not in sight yet."""

    seen: torch.Tensor
    """256, the index of the frame in which the object was last seen."""


class Places:
    """Where the objects of a core are in the frames that its memory keeps, and in the two that it has taken last.

    They are looked for where they are in the nearest of these frames that lies behind, in the direction of tracking. An
    annotated frame that comes before its turn lies ahead: it may be in another shot.

    sightings: what the `sightings` of other Places were, or None.
    """

    def __init__(self, device, sightings=None):
        self._device = device
        self._sightings = {number: Sighting(*(tensor.to(device) for tensor in sighting))
                           for number, sighting in (sightings or {}).items()}
        self._grids, self._lists = {}, {}

    @staticmethod
    def fits(sightings, cells):
        """Return whether these are sightings of maps of so many cells."""
        shapes = [(cells,), (cells, 2), (IDS, 2), (IDS,), (IDS,)]
        return all([tuple(tensor.shape) for tensor in sighting] == shapes and sighting.owner.min() >= 0
                   and sighting.owner.max() < IDS for sighting in sightings.values())

    @property
    def sightings(self):
        """{frame's index: Sighting}. The tensors never change."""
        return dict(self._sightings)

    def copy(self):
        """Return other Places of the same, which do not change with these. They share tensors."""
        return Places(self._device, self._sightings)

    def remember(self, number, direction, ids, prob, given, kept):
        """Look where the objects are in a frame, and keep that and what is known of the frames `kept`, but no others.

        number: the frame's index. direction: that of tracking, 1 if the indices grow, else -1. ids: the objects, O in
        number. prob: (O+1)×H×W, H and W multiples of 16. given: those of `ids` whose mask was given: they are taken to
        be there, however small they are, as long as a cell is more theirs than anything else's. kept: a set of indices.
        """
        prob = F.avg_pool2d(prob.unsqueeze(0), 16).squeeze(0)
        shape = prob.shape[1:]
        winner = prob.flatten(1).argmax(0)
        rows = torch.arange(1, len(ids) + 1, device=prob.device)
        own = prob.flatten(1)[1:] * (winner == rows.unsqueeze(1))
        area = own.sum(1)
        centre = own @ self._grid(shape) / area.clamp(min=1e-6).unsqueeze(1)

        # Tables are made anew, since others share the old ones.
        before = self._find_behind(number, direction)
        if before is None:
            table = torch.zeros(IDS, 4, device=self._device)
            before = Sighting(None, None, table[:, :2], table[:, 2], table[:, 3] + number)
        index = self._list_ids(ids)
        size, anew = before.size[index], torch.zeros_like(area, dtype=torch.bool)
        if given:
            anew = torch.tensor([object_id in given for object_id in ids], device=prob.device)
        seen = (area > 0.5) & (area > SEEN * size) | anew & (area > 0)
        # What was never seen has no size, and so no place.
        size = torch.where(anew, area, torch.where(seen | (size > 0), torch.maximum(FADING * size, area), 0))
        centres = before.centre.index_copy(0, index, torch.where(seen.unsqueeze(1), centre, before.centre[index]))
        owner = F.pad(index, (1, 0))[winner]
        kept = {*kept, *list(self._sightings)[-1:]} - {number}
        self._sightings = {other: known for other, known in self._sightings.items() if other in kept}
        self._sightings[number] = Sighting(
            owner.float(), self._grid(shape) - centres[owner], centres, before.size.index_copy(0, index, size),
            before.seen.index_copy(0, index, torch.where(seen, number, before.seen[index])))

    def forget(self, ids):
        """Take the objects with these ids for background from now on, also in the frames that are kept."""
        index = self._list_ids(ids)
        gone = torch.zeros(IDS, device=self._device).index_fill(0, index, 1)
        for number, known in self._sightings.items():
            owner = known.owner.long()
            away = gone[owner] > 0
            self._sightings[number] = known._replace(
                owner=torch.where(away, 0, known.owner), size=known.size.index_fill(0, index, 0),
                offset=torch.where(away.unsqueeze(1), known.offset + known.centre[owner], known.offset))

    def penalise(self, number, direction, last, frames, shape, columns):
        """Return (queries n×4, keys 4×N), whose product is to be added to the affinities in a frame.

        number, direction: as for `remember`. last: the index of the last memory frame. frames: the indices of the
        frames that a memory's entries are of, in their order, n columns each; None is the last memory frame. What
        follows up to N = `columns` counts as it is, and so do frames of which nothing is known. shape: (h, w).
        """
        grid = self._grid(shape)
        queries = torch.cat([grid, grid.square().sum(1, keepdim=True), torch.ones_like(grid[:, :1])], 1)
        now = self._find_behind(number, direction)
        if now is None:
            return queries, grid.new_zeros(4, columns)
        unseen = ((number - now.seen).abs() - 1).clamp(min=0)
        sigma = SPREAD + SHARE_OF_SIZE * now.size.sqrt() + GROWTH * unseen
        weights = (now.size > 0) / (2 * sigma.square())
        parts = []
        for frame in frames:
            known = self._sightings.get(last if frame is None else frame)
            if known is None:
                parts.append((torch.zeros_like(grid[:, 0]), grid))
                continue
            owner = known.owner.long()
            background = 0
            if frame is None:
                background = 1 / (2 * (BACKGROUND + GROWTH * max(0, abs(number - last) - 1)) ** 2)
            parts.append((torch.where(owner > 0, weights[owner], background), known.offset + now.centre[owner]))
        weight, place = (torch.cat(part) for part in zip(*parts, strict=True))
        keys = torch.stack([2 * weight * place[:, 0], 2 * weight * place[:, 1], -weight,
                            -weight * place.square().sum(1)])
        return queries, F.pad(keys, (0, columns - keys.shape[1]))

    def _find_behind(self, number, direction):
        """Return the Sighting that is nearest behind the frame of this index, or at it; if there is none, the nearest.

        Returns None if nothing is known.
        """
        behind = [other for other in self._sightings if (number - other) * direction >= 0]
        near = min(behind or self._sightings, key=lambda other: abs(other - number), default=None)
        return self._sightings.get(near)

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
