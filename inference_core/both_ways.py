"""Track a video forwards and backwards, and merge the two where a frame lies between given masks."""

import shutil

import numpy as np
import torch

from inference_core.tracking import name_objects, track_frames
from util.cuts import CutFinder
from util.files import name_errors


def track_both_ways(core, frames, masks, folder, *, across_cuts=False, kept=lambda: None):
    """Track objects from the frames whose masks are given to both ends of the video; yield a TrackedFrame for each.

    First come the frames after the last given mask, in order; then, from the last mask on, all others in reverse
    order. A frame between two given masks of an object is tracked from both; the results are merged, see `merge`.

    core: it should be new or `reset`. frames: SeekableFrames. masks: {frame's name: mask}, at least one; `mask.read`
    returns its ids, uint8 H×W. folder: what forward tracking finds between masks is kept in a folder BOTH_WAYS in it,
    on disk, until the end. across_cuts: as for `track_frames`. kept: is called after each frame of forward tracking
    that is not yielded yet.

    Raises InputError for masks and frames that cannot be used.
    """
    plan = _Plan(core, frames, masks)
    forward = folder / BOTH_WAYS
    shutil.rmtree(forward, ignore_errors=True)
    forward.mkdir(parents=True)
    options = {"across_cuts": across_cuts, "number": frames.position}
    try:
        for frame in track_frames(core, frames.forwards(plan.first), plan.mask_of(1), cuts=CutFinder(), **options):
            position = frames.position(frame.name)
            if position > plan.last:
                yield frame
                continue
            if position not in plan.given:
                with name_errors(forward / f"{position}.npz"):
                    np.savez_compressed(forward / f"{position}.npz", ids=frame.objects,
                                        prob=(frame.probabilities * 255).round().byte().cpu().numpy())
            kept()
        core.reset()
        for frame in track_frames(core, frames.backwards(plan.last), plan.mask_of(-1), cuts=CutFinder(), **options):
            position = frames.position(frame.name)
            file = forward / f"{position}.npz"
            if file.exists():
                with np.load(file) as found:
                    frame = _merge_frame(frame, found, plan.weigh(position))
                file.unlink()
            yield frame
    finally:
        shutil.rmtree(forward, ignore_errors=True)


BOTH_WAYS = ".both_ways"
"""The folder that holds, while a video is tracked both ways, what was found forwards."""


def merge(parts):
    """Merge probabilities of the same frame. Returns (object ids, float (objects + 1)×H×W, background first).

    parts: [(object ids, probabilities (objects + 1)×H×W, {object id: weight})]. Of each object the weighted mean is
    taken, and of the background that with the sums of these weights; then all are divided by their sum. An object whose
    weights are all 0 is left out.
    """
    planes, total = {}, {}
    for ids, prob, weights in parts:
        own = [(0, sum(weights.get(object_id, 0) for object_id in ids)),
               *((object_id, weights.get(object_id, 0)) for object_id in ids)]
        for plane, (object_id, weight) in zip(prob, own, strict=True):
            if weight:
                planes[object_id] = planes.get(object_id, 0) + weight * plane
                total[object_id] = total.get(object_id, 0) + weight
    if 0 not in planes:
        return [], parts[0][1][:1] * 0 + 1
    ids = sorted(set(planes) - {0})
    merged = torch.stack([planes[object_id] / total[object_id] for object_id in (0, *ids)])
    return ids, merged / merged.sum(0)


class _Plan:
    """Which frames have masks, and of which objects."""

    def __init__(self, core, frames, masks):
        self._core, self._frames = core, frames
        self.given = {frames.position(name): mask for name, mask in masks.items()}
        self.first, self.last = min(self.given), max(self.given)
        # One frame's mask is in memory at a time.
        self._objects = {}
        for position in sorted(self.given):
            self._objects[position] = name_objects(self._read(position))[1]

    def mask_of(self, direction):
        """Return the function of (name, image) that `track_frames` asks for masks: 1 forwards, -1 backwards.

        Before a frame's mask is given, the next one in this direction is, so that the frames up to it are tracked from
        both. Of that only the objects count that are known by then.
        """
        order = sorted(self.given, reverse=direction < 0)

        def find(name, image):
            position = self._frames.position(name)
            if position not in self.given:
                return None
            place = order.index(position)
            if place + 1 < len(order):
                ahead = order[place + 1]
                known = {*self._core.objects, *self._objects[position]}
                objects = [object_id for object_id in self._objects[ahead] if object_id in known]
                if objects:
                    self._core.step(self._frames[ahead].image, self._read(ahead), objects, frame=ahead,
                                    needs_output=False)
            return self._read(position), self._objects[position]

        return find

    def weigh(self, position):
        """Return the weights for `merge`, forwards and backwards, of a frame between masks.

        An object counts as the inverse of the distance to its nearest mask in the direction that it came from; if there
        is none, not at all.
        """
        weights = {}, {}
        for given, objects in self._objects.items():
            for object_id in objects:
                own = weights[given > position]
                own[object_id] = max(own.get(object_id, 0), 1 / abs(given - position))
        return weights

    def _read(self, position):
        return self.given[position].read(self._frames[position].image.shape[1::-1])


def _merge_frame(frame, forward, weights):
    """Return a TrackedFrame of backward tracking, merged with what forward tracking has kept."""
    ahead, back = weights
    prob = torch.from_numpy(forward["prob"]).to(frame.probabilities.device).float() / 255
    ids, prob = merge([(forward["ids"].tolist(), prob, ahead), (frame.objects, frame.probabilities, back)])
    table = torch.tensor([0, *ids], dtype=torch.uint8, device=prob.device)
    return frame._replace(ids=table[prob.argmax(0)].cpu().numpy(), probabilities=prob, objects=ids)
