"""The forward pass of a training step: from a batch to its loss.

A batch is a dict of tensors (B images or videos, T frames):
    rgb       B×T×3×H×W   uint8 RGB
    gt        B×T×1×H×W   0/1 mask of the first object; `sec_gt` is that of the second
    pgt       B×…×1×H×W   perturbed mask of the first object in the first frame; `sec_pgt` is that of the second
    cls_gt    B×T×H×W     classes: 0 background, 1, 2, and 255 where a pixel is to be left out of all losses
    selector  B×2         1 where there is a first, a second object, else 0
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from model.losses import (
    IGNORE,
    bootstrap_fraction,
    bootstrapped_cross_entropy,
    consistency,
    dice,
    halving_sum,
    intersection_and_union,
    matching,
)
from model.memory_reading import read_all
from model.network import aggregate, image_statistics, normalise

SUPERVISED = 3
"""The number of successive frames that `rollout_step` learns from."""


DAMAGE_DRAWS = 12
"""Random numbers that `damage_masks` needs for an image."""


class Draws(NamedTuple):
    """The random numbers of a step. They are drawn on the CPU, so that they are the same on every device."""

    before: int | None = None
    """For `rollout_step`: the number of frames after the first that are tracked without learning from them."""

    damage: torch.Tensor | None = None
    """N×B×DAMAGE_DRAWS in [0, 1], for each of the N times that a step damages masks."""

    def to(self, device):
        """Return the same numbers, on a device."""
        return self if self.damage is None else self._replace(damage=self.damage.to(device, non_blocking=True))


class TrainingStep(nn.Module):
    """The forward pass of a step as one module.

    DistributedDataParallel wraps this module and not the network, because it synchronises gradients once per call, and
    a step calls the network's parts many times.
    """

    def __init__(self, network, settings, damage=0, keys_only=False, rollout=False):
        """settings: LossSettings of util.hyper_para. damage: as for `video_step`.

        rollout: use `rollout_step` for videos instead of `video_step`. keys_only: use only the loss of `matching`.
        """
        super().__init__()
        self.network = network
        self.settings = settings
        self.trunk = None
        self._rollout, self._damaged = False, 0
        match = settings.match_weight > 0
        if keys_only:
            self.frames = matching_step
        elif network.config.single_object:
            self.frames = functools.partial(static_step, match=match)
        else:
            self._rollout, self._damaged = rollout, (1 if rollout else 3) if damage else 0
            self.frames = functools.partial(rollout_step if rollout else video_step, damage=damage, match=match)

    def use_trunk(self, trunk):
        """Run `trunk` instead of the network's own image trunk: a function that does the same, without gradients."""
        # In a tuple it is no part of this module, so that nobody synchronises its weights.
        self.trunk = None if trunk is None else (trunk,)

    def draw(self, batch, generator=None):
        """Return the Draws for a batch. generator: a torch.Generator on the CPU; torch's global one if None."""
        size, frames = batch["rgb"].shape[:2]
        before = int(torch.randint(frames - SUPERVISED, (), generator=generator)) if self._rollout else None
        damage = torch.rand(self._damaged, size, DAMAGE_DRAWS, generator=generator) if self._damaged else None
        return Draws(before, damage)

    def forward(self, batch, iteration, draws=None):
        """Return (loss, {name: scalar tensor or float} to log, {name: tensor} to look at).

        draws: what `draw` returns for this batch; drawn here if None.
        """
        draws = draws or self.draw(batch).to(batch["rgb"].device)
        outcome = self.frames(self.network, batch, draws, trunk=self.trunk and self.trunk[0])
        return combine_losses(outcome, batch, iteration, self.settings)


@dataclass(frozen=True)
class Outcome:
    """What a step's forward pass gives to the losses."""

    logits: dict
    """{frame: B×(O+1)×H×W}, the supervised outputs."""

    consistencies: dict
    """{name of the loss: (student, teacher)}, each B×O×C×h×w."""

    matches: tuple | None = None
    """(prob, truth, counts) of `_carry_masks`."""

    equal_weights: bool = False
    """Whether all frames have the same weight. If not, they have the published weights of `halving_sum`."""


def static_step(network, batch, draws=None, match=False, trunk=None):
    """Run stage 0: three views of an image, one object, and a memory that grows frame by frame.

    draws: not used, since nothing is drawn. match, trunk: as for `video_step`. Returns an Outcome.
    """
    features = _encode_frames(network, batch["rgb"], trunk)
    clean, perturbed = batch["gt"][:, 0].float(), batch["pgt"][:, 0].float()
    value, clean_value = (network.encode_value(features.image(0), features.f16(0), mask) for mask in (perturbed, clean))
    values, logits = [value], {}
    for frame in (1, 2):
        readout = _read(features, frame, range(frame), values)
        logits[frame] = _segment(network, features, frame, readout)
        if frame == 1:
            mask = logits[frame].softmax(1)[:, 1:]
            values.append(network.encode_value(features.image(frame), features.f16(frame), mask))
    return Outcome(logits, {"klloss_loss": (value, clean_value)}, _carry_masks(features, batch) if match else None)


def video_step(network, batch, draws, damage=0, match=False, trunk=None):
    """Run stages 1 to 3: five frames, two objects. Frames 2 and 4 read the embedding, guided by the full memory.

    draws: the Draws of this step.
    damage: the share of the images whose predicted masks are damaged (`damage_masks`) before the memory takes them.
    match: whether the outcome shall have `matches`.
    trunk: runs instead of the network's image trunk, without gradients, if it is not None. Returns an Outcome.
    """
    features = _encode_frames(network, batch["rgb"], trunk)
    selector = batch["selector"]

    def remember(frame, logits):
        """Return the value of a frame whose masks are predicted, with their damage."""
        masks = logits.softmax(1)[:, 1:]
        if damage:
            masks = damage_masks(masks, selector, damage, draws.damage[frame - 1])
        return network.encode_value(features.image(frame), features.f16(frame), masks)

    # Frame 0: encode the perturbed masks; the clean ones are for the consistency loss.
    clean = torch.cat([batch["gt"][:, 0], batch["sec_gt"][:, 0]], 1).float()
    perturbed = torch.cat([batch["pgt"][:, 0], batch["sec_pgt"][:, 0]], 1).float()
    value, clean_value = (network.encode_value(features.image(0), features.f16(0), mask) for mask in (perturbed, clean))
    values, logits = [value], {}

    # Frame 1: read the first frame.
    logits[1] = _segment(network, features, 1, _read(features, 1, [0], values), selector)
    values.append(remember(1, logits[1]))

    # Frame 2: read the embedding of frames 0 and 1. The guide reads both frames.
    embedding = _aggregate(network, (features.key(0), values[0]), (features.key(1), values[1]))
    thin_2, guide_2 = _read_entries(features, 2, [embedding]), _read(features, 2, [0, 1], values)
    logits[2] = _segment(network, features, 2, thin_2, selector)
    # The memory takes the mask of the guide, since the embedding's errors do not reach it.
    values.append(remember(2, _segment(network, features, 2, guide_2, selector)))

    # Frame 3: read frames 0 to 2.
    logits[3] = _segment(network, features, 3, _read(features, 3, [0, 1, 2], values), selector)
    values.append(remember(3, logits[3]))

    # Frame 4: read the embedding of frames 0 to 3. The guide reads all four frames.
    for frame in (2, 3):
        embedding = _aggregate(network, embedding, (features.key(frame), values[frame]))
    thin_4, guide_4 = _read_entries(features, 4, [embedding]), _read(features, 4, [0, 1, 2, 3], values)
    logits[4] = _segment(network, features, 4, thin_4, selector)
    return Outcome(logits, {
        "klloss_loss": (value, clean_value),
        "df2_distillation": _join_decoder_inputs(features, 2, thin_2, guide_2),
        "df4_distillation": _join_decoder_inputs(features, 4, thin_4, guide_4),
    }, _carry_masks(features, batch) if match else None)


def rollout_step(network, batch, draws, damage=0, match=False, trunk=None):
    """Track any number of frames as inference does it (mode two-frames-compress). All are memory frames.

    The network learns from `SUPERVISED` successive frames, anywhere after the first. The frames before them are tracked
    without gradients: they bring the memory to where a tracker's errors have gathered, and the embedding to what SAM
    makes of its own results. The frames after them are not looked at.

    draws: the Draws of this step, which say which frames are learnt from.
    damage: the share of the images in which the first predicted masks are damaged.
    match, trunk: as for `video_step`. Returns an Outcome.
    """
    before = draws.before
    end = before + SUPERVISED
    batch = {name: value if name == "selector" else value[:, :end + 1] for name, value in batch.items()}
    features = _encode_frames(network, batch["rgb"], trunk)
    selector = batch["selector"]
    true = torch.cat([batch["gt"][:, 0], batch["sec_gt"][:, 0]], 1).float()
    first = features.key(0), network.encode_value(features.image(0), features.f16(0), true)
    # The annotated frame stands twice, as in inference.
    memory, embedding, logits = [first, first], first, {}
    for frame in range(1, end + 1):
        with torch.set_grad_enabled(frame > before and torch.is_grad_enabled()):
            output = _segment(network, features, frame, _read_entries(features, frame, memory), selector)
            if frame > before:
                logits[frame] = output
            if frame < end:
                masks = output.softmax(1)[:, 1:]
                if damage and frame == 1:
                    masks = damage_masks(masks, selector, damage, draws.damage[0])
                last = features.key(frame), network.encode_value(features.image(frame), features.f16(frame), masks)
                embedding = _aggregate(network, embedding, last)
                memory = [first, first, last, embedding]
        if frame == before:
            # Otherwise autocast would reuse the weights that it converted without gradients.
            torch.clear_autocast_cache()
    return Outcome(logits, {}, _carry_masks(features, batch) if match else None, equal_weights=True)


def matching_step(network, batch, draws=None, trunk=None):
    """Carry the first frame's masks into the others by the affinity alone, to train keys. Nothing is drawn."""
    return Outcome({}, {}, _carry_masks(_encode_frames(network, batch["rgb"], trunk), batch))


def damage_masks(masks, selector, share, draws):
    """Return masks with the errors that a tracker would make. masks: B×O×H×W in [0, 1]. selector: as in a batch.

    A `share` of the images is damaged. In half of these every object lacks what lies beyond a line across it. In the
    others every object also has an ellipse of the background. The network then learns to trust the annotated frame.
    Otherwise a part of an object that was missed when it came into sight would be background in all later memory.

    draws: B×DAMAGE_DRAWS random numbers in [0, 1], enough for two objects.
    """
    batch, objects, height, width = masks.shape
    chance, angle = draws[:, :2].t().reshape(2, batch, 1, 1, 1)
    place, *ellipse = draws[:, 2:2 + 5 * objects].t().reshape(5, objects, batch, 1, 1).transpose(1, 2)
    down = torch.linspace(-1, 1, height, device=masks.device).view(height, 1)
    across = torch.linspace(-1, 1, width, device=masks.device)

    along = (2 * math.pi * angle).cos() * across + (2 * math.pi * angle).sin() * down
    weight = masks.detach().float()
    weight = weight / (weight.sum((2, 3), keepdim=True) + 1e-6)
    mean = (along * weight).sum((2, 3), keepdim=True)
    deviation = ((along - mean).square() * weight).sum((2, 3), keepdim=True).sqrt()
    # Between nearly nothing and seven tenths of the object are cut off.
    lacking = masks * (along < mean + deviation * (2 * place - 0.5))

    x, y, wide, high = ellipse
    radii = 0.05 + 0.3 * wide, 0.05 + 0.3 * high
    inside = ((across - 2 * x + 1) / radii[0]).square() + ((down - 2 * y + 1) / radii[1]).square() < 1
    inside = inside * selector[:, :, None, None]
    background = (1 - masks.sum(1, keepdim=True)).clamp(min=0)
    excessive = masks + background * inside / inside.sum(1, keepdim=True).clamp(min=1)
    return torch.where(chance < share / 2, lacking, torch.where(chance < share, excessive, masks))


def combine_losses(outcome, batch, iteration, settings):
    """Return the losses of an Outcome; see TrainingStep.forward."""
    # The segmentation loss of each frame.
    selector = batch.get("selector")
    classes = batch["cls_gt"].long()
    fraction = bootstrap_fraction(iteration, settings.start_warm, settings.end_warm, settings.top_p)
    scalars, images = {"p": fraction}, {}
    frame_losses = []
    for frame, logits in outcome.logits.items():
        frame_losses.append(bootstrapped_cross_entropy(logits, classes[:, frame], fraction, selector))
        scalars[f"loss_{frame}"] = frame_losses[-1]
        if settings.dice_weight:
            overlap = settings.dice_weight * dice(logits, classes[:, frame], selector)
            scalars[f"dice_{frame}"] = overlap
            frame_losses[-1] = frame_losses[-1] + overlap
        images[f"mask_{frame}"] = logits.detach().softmax(1)[:, 1:]
    total = sum(frame_losses) / max(1, len(frame_losses)) if outcome.equal_weights else halving_sum(frame_losses)
    # The losses that compare two results, and the matching loss.
    weights = {"klloss_loss": settings.klloss_weight, "df2_distillation": settings.decoder_f2_weight,
               "df4_distillation": settings.decoder_f4_weight}
    for name, (student, teacher) in outcome.consistencies.items():
        scalars[name] = weights[name] * consistency(student, teacher, settings.temperature)
        total = total + scalars[name]
    if outcome.matches:
        prob, truth, counts = outcome.matches
        scalars["match_loss"] = settings.match_weight * matching(prob, truth, selector, counts)
        total = total + scalars["match_loss"]
    scalars["total_loss"] = total
    # The pixel counts of the logged IoU.
    for prefix, truth, channel in (("", "gt", 0), ("sec_", "sec_gt", 1)):
        if truth in batch and images:
            masks = ((int(name.removeprefix("mask_")), mask[:, channel]) for name, mask in images.items())
            counts = [intersection_and_union(mask.masked_fill(classes[:, frame] == IGNORE, 0),
                                             batch[truth][:, frame, 0] > 0.5) for frame, mask in masks]
            scalars[f"hide_iou/{prefix}i"], scalars[f"hide_iou/{prefix}u"] = map(sum, zip(*counts, strict=True))
    return total, {name: value.detach() if torch.is_tensor(value) else value for name, value in scalars.items()}, images


class _Features:
    """The images of all frames, and what the key encoder gives for them."""

    def __init__(self, images, features):
        self._images, self._features = images, features

    def image(self, frame):
        return self._images[:, frame]

    def key(self, frame):
        return self._features[0][:, frame]

    def f16(self, frame):
        return self._features[2][:, frame]

    def decoder(self, frame):
        """Return f16_thin, f8 and f4 of a frame."""
        return tuple(self._features[index][:, frame] for index in (1, 3, 4))


def _encode_frames(network, rgb, trunk):
    """Return the _Features of images B×T×3×H×W uint8. trunk: as for `video_step`."""
    batch = rgb.shape[:2]
    # On the CPU, convolutions of channels_last images are faster.
    images = rgb.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    images = normalise(images, image_statistics(rgb.device))
    if trunk is None:
        f16, f8, f4 = network.key_encoder(images)
    else:
        with torch.no_grad():
            f16, f8, f4 = trunk(images)
    features = network.key_proj(f16), network.key_comp(f16), f16, f8, f4
    return _Features(images.unflatten(0, batch), [feature.unflatten(0, batch) for feature in features])


def _read(features, frame, memory, values):
    """Return the readout B×O×V×h×w of a frame, from all positions of the frames in `memory`."""
    return _read_entries(features, frame, [(features.key(index), values[index]) for index in memory])


def _read_entries(features, frame, entries):
    """Return the readout of a frame from memory entries (key B×C×h×w, value B×O×V×h×w)."""
    keys = torch.cat([key.flatten(2) for key, _ in entries], 2)
    values = torch.cat([value.flatten(3) for _, value in entries], 3)
    query = features.key(frame)
    readout = read_all(query.flatten(2), keys, values).unflatten(3, query.shape[2:])
    return readout.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, readout.shape[:2])


def _carry_masks(features, batch):
    """Carry the first frame's true masks into all later frames by the affinity alone.

    Return (carried masks, true masks, counts) of the later frames. The first two are B×O×N: the object's share of each
    of the N cells at stride 16 of all these frames. The last is B×1×N: 0 for cells with a pixel to leave out, else 1.
    """
    masks = torch.stack([batch[name][:, :, 0] for name in ("gt", "sec_gt") if name in batch], 2).float()
    cells = F.avg_pool2d(masks.flatten(0, 1), 16).unflatten(0, masks.shape[:2]).flatten(3).transpose(1, 2)
    queries = torch.cat([features.key(frame).flatten(2) for frame in range(1, masks.shape[1])], 2)
    prob = read_all(queries, features.key(0).flatten(2), cells[:, :, 0].unsqueeze(2)).squeeze(2)
    ignored = F.max_pool2d((batch["cls_gt"][:, 1:] == IGNORE).float(), 16)
    return prob, cells[:, :, 1:].flatten(2), 1 - ignored.flatten(1).unsqueeze(1)


def _segment(network, features, frame, readout, selector=None):
    """Return logits B×(O+1)×H×W of background and objects."""
    prob = network.decode(readout, *features.decoder(frame)).float().sigmoid()
    if selector is not None:
        prob = prob * selector[:, :, None, None]
    return aggregate(prob)


def _aggregate(network, old, new):
    """Return the one entry that SAM makes of two (key B×C×h×w, value B×O×V×h×w)."""
    sam = network.mem_compress
    value = sam.aggregate_value(old[1].flatten(0, 1), new[1].flatten(0, 1))
    return sam.aggregate_key(old[0], new[0]), value.unflatten(0, old[1].shape[:2])


def _join_decoder_inputs(features, frame, *readouts):
    """Return each readout with the frame's f16_thin beside it, B×O×2V×h×w."""
    thin = features.decoder(frame)[0].unsqueeze(1)
    return tuple(torch.cat([readout, thin.expand_as(readout)], 2) for readout in readouts)
