"""The network of "Recurrent Dynamic Embedding for Video Object Segmentation" (Li et al., CVPR 2022)."""

import functools

import torch
from torch import nn

from model.config import PRESETS
from model.decoder import Decoder
from model.encoders import KeyProjection, make_key_encoder, make_value_encoder
from model.modules import per_object
from model.sam import SAM

EPSILON = 1e-7
"""Probabilities are kept this far from 0 and 1."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's RGB channels."""


def normalise(image, statistics=None):
    """Return the image as the network takes it: normalised with the mean and standard deviation of ImageNet.

    image: ...×3×H×W RGB, uint8 or float in [0, 1]. A single image comes back channels_last.
    statistics: `image_statistics` of the image's device, which is also the default.
    """
    mean, std = statistics or image_statistics(image.device)
    scale = 255 if image.dtype == torch.uint8 else 1
    if image.ndim > 3:
        return (image.float() / scale - mean) / std
    # With interleaved channels a row of pixels is one long vector. On a CPU that is many times as fast.
    width = image.shape[2]
    rows = image.permute(1, 2, 0).to(torch.float32, memory_format=torch.contiguous_format, copy=True).flatten(1)
    rows = rows.div_(scale).sub_(mean.flatten().repeat(width)).div_(std.flatten().repeat(width))
    return rows.unflatten(1, (width, 3)).permute(2, 0, 1)


@functools.cache
def image_statistics(device):
    """Return mean and standard deviation of ImageNet's channels, each 3×1×1.

    They are made once for each device, so that the host does not wait for the device in every step.
    """
    with torch.inference_mode(False):
        return tuple(torch.tensor(x, device=device).view(3, 1, 1) for x in (MEAN, STD))


def aggregate(prob):
    """Make independent object probabilities one distribution over objects and background (soft aggregation).

    prob: ...×O×H×W in [0, 1], float32. Returns logits ...×(O+1)×H×W, background first; their softmax is the
        distribution. The background's probability is Π (1 - pᵢ). All probabilities are clamped to [1e-7, 1 - 1e-7] (Oh
        et al., STM, ICCV 2019, section 3.4).
    """
    return torch.log(_odds(prob))


def distribution(prob):
    """Return the softmax of `aggregate`.

    It is computed without logarithms and exponentials: odds divided by their sum.
    """
    odds = _odds(prob)
    return odds.div_(odds.sum(-3, keepdim=True))


def _odds(prob):
    """Return the odds ...×(O+1)×H×W of background and objects."""
    background = (1 - prob).prod(-3, keepdim=True)
    prob = torch.cat([background, prob], -3).clamp(EPSILON, 1 - EPSILON)
    return prob / (1 - prob)


class RDE(nn.Module):
    """Space-time memory network with a recurrent dynamic embedding, for training and inference.

    Layouts: B images, O objects, h×w = H/16×W/16; H and W are multiples of 16. Attribute names are those of the
        published checkpoint. Weights are random until a checkpoint is loaded; `model.load_network` does both.
    """

    def __init__(self, config=PRESETS["base"]):
        super().__init__()
        self.config = config
        self.key_encoder = make_key_encoder(config.key_trunk)
        f16_dim, f8_dim, f4_dim = self.key_encoder.dims
        mask_channels = 1 if config.single_object else 2
        self.value_encoder = make_value_encoder(config, mask_channels, f16_dim)
        self.key_proj = KeyProjection(f16_dim, config.key_dim, config.key_scale)
        self.key_comp = nn.Conv2d(f16_dim, config.value_dim, kernel_size=3, padding=1)
        self.decoder = Decoder(config.value_dim, f8_dim, f4_dim, config.decoder_dims, config.skip_kernel)
        if config.sam:
            self.mem_compress = SAM(config.key_dim, config.value_dim, config.repeat, config.bounded)

    def encode_key(self, image):
        """Return key B×key_dim×h×w, f16_thin B×value_dim×h×w, f16, f8 and f4 of a normalised image B×3×H×W."""
        f16, f8, f4 = self.key_encoder(image)
        return self.key_proj(f16), self.key_comp(f16), f16, f8, f4

    def encode_value(self, image, f16, masks, others=None):
        """Return the values B×O×value_dim×h×w of O objects.

        image: B×3×H×W, normalised. f16: features of the same image. masks: B×O×H×W in [0, 1].
        others: B×O×H×W, for each object the sum of all other objects' masks; by default computed from `masks`.
        """
        batch, objects = masks.shape[:2]
        planes = [masks]
        if not self.config.single_object:
            planes.append(masks.sum(1, keepdim=True) - masks if others is None else others)
        # Channels come last here, so that the input is in channels_last.
        pixels = image.permute(0, 2, 3, 1).unsqueeze(1).expand(-1, objects, -1, -1, -1)
        inputs = torch.cat([pixels, torch.stack(planes, -1)], -1).flatten(0, 1).permute(0, 3, 1, 2)
        value = self.value_encoder(inputs, per_object(f16, batch * objects))
        return value.unflatten(0, (batch, objects))

    def decode(self, readout, f16_thin, f8, f4):
        """Return mask logits B×O×H×W from readout B×O×value_dim×h×w and the frame's own features."""
        batch, objects = readout.shape[:2]
        logits = self.decoder(readout.flatten(0, 1), f16_thin, f8, f4)
        return logits.squeeze(1).unflatten(0, (batch, objects))
