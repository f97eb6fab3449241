"""The forward pass of a training step of the click network: clicks are made from its own errors.

A batch is a dict of tensors (B images): rgb B×1×3×H×W, uint8; cls_gt B×1×H×W, uint8, with IGNORE; hints B×3×H×W and
previous B×1×H×W, uint8, what the user has given at first (dataset.clicks).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from model.clicks import upsample
from model.losses import IGNORE, intersection_and_union
from util.clicking import draw_stroke, find_next_click

ROUNDS = (0.35, 0.25, 0.2, 0.12, 0.08)
"""Probability of 0, 1, ... clicks that correct the network's own mask before it learns from the next one."""

DEEPEST = 0.5
"""Share of these clicks that are in the very middle of the largest error; the others are near it."""

GAMMA = 2
"""The focal loss's exponent (Lin et al., ICCV 2017)."""


class ClickDraws(NamedTuple):
    """The random numbers of a step. They stay on the CPU, where clicks are made."""

    rounds: int
    """How many further clicks are made."""

    places: np.ndarray
    """rounds×B×2 in [0, 1): where, see `add_clicks`."""

    def to(self, device):
        return self


class ClickStep(nn.Module):
    """The forward pass of a step as one module, with the methods of `model.training_step.TrainingStep`."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.trunk = None

    def use_trunk(self, trunk):
        """See TrainingStep."""
        self.trunk = None if trunk is None else (trunk,)

    def draw(self, batch, generator=None):
        """Return the ClickDraws for a batch. generator: a torch.Generator on the CPU; torch's global one if None."""
        rounds = int(torch.multinomial(torch.tensor(ROUNDS), 1, generator=generator))
        places = torch.rand(rounds, len(batch["rgb"]), 2, generator=generator, dtype=torch.float64)
        return ClickDraws(rounds, places.numpy())

    def forward(self, batch, iteration, draws=None):
        """Return (loss, {name: scalar tensor} to log, {mask_0: B×1×H×W probabilities} to look at)."""
        draws = draws or self.draw(batch)
        truth = batch["cls_gt"][:, 0]
        features = self._encode(batch["rgb"][:, 0])
        hints, previous = batch["hints"].clone(), batch["previous"].float()
        for places in draws.places:
            with torch.no_grad():
                previous = upsample(self._segment(features, hints, previous)).sigmoid()
            add_clicks(hints, previous, truth, places)
        logits = upsample(self._segment(features, hints, previous))[:, 0]
        focal, overlap = losses(logits, truth)
        prob = logits.detach().sigmoid()
        common, union = intersection_and_union(prob.masked_fill(truth == IGNORE, 0), truth == 1)
        scalars = {"total_loss": (focal + overlap).detach(), "focal_loss": focal.detach(),
                   "dice_loss": overlap.detach(), "hide_iou/i": common, "hide_iou/u": union}
        return focal + overlap, scalars, {"mask_0": prob.unsqueeze(1)}

    def _encode(self, images):
        if self.trunk is None:
            return self.network.encode_image(images)
        with torch.no_grad():
            return self.network.encode_image(images, self.trunk[0])

    def _segment(self, features, hints, previous):
        return self.network.segment(features, torch.cat([hints.float(), previous], 1))


def add_clicks(hints, prob, truth, places):
    """Draw the click that corrects each mask into its hints; in place.

    hints: uint8 B×3×H×W. prob: B×1×H×W. truth: B×H×W, see the batch. places: B×2 in [0, 1), from which it follows
    whether the click is in the very middle of the largest error, and if not, where.
    """
    masks, truths = (prob[:, 0] > 0.5).cpu().numpy(), truth.cpu().numpy()
    planes = hints.cpu().numpy()
    for index, (kind, place) in enumerate(places):
        depth = None if kind < DEEPEST else (0.5, place)
        click = find_next_click(masks[index], truths[index], depth=depth)
        if click:
            draw_stroke(planes[index], [click[:2]], click[2])
    if hints.device.type != "cpu":
        hints.copy_(torch.from_numpy(planes))


def losses(logits, truth):
    """Return the normalised focal loss and the Dice loss of logits B×H×W, each a mean over the batch.

    The focal loss weighs pixels by how wrong they are, with weights whose mean over an image is 1 (Sofiiuk et al.,
    AdaptIS, ICCV 2019): so that its gradients do not vanish as the network gets better. truth: B×H×W, with IGNORE.
    """
    known = (truth != IGNORE).float()
    target = (truth == 1).float()
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = (logits.sigmoid() - target).abs() * known
    weight = wrong.detach() ** GAMMA
    weight = weight / (weight.sum((1, 2), keepdim=True) / known.sum((1, 2), keepdim=True).clamp(min=1)).clamp(min=1e-3)
    pixels = known.sum((1, 2)).clamp(min=1)
    focal = ((weight * known * entropy).sum((1, 2)) / pixels).mean()
    prob = logits.sigmoid() * known
    overlap = 1 - (2 * (prob * target).sum((1, 2)) + 1) / (prob.sum((1, 2)) + target.sum((1, 2)) + 1)
    return focal, overlap.mean()
