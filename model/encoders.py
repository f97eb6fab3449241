"""Key encoder and value encoder. Attribute names are the published checkpoint's."""

import torch
import torch.nn.functional as F
from torch import nn

from model.efficientnet_lite import EfficientNetLite0
from model.modules import FeatureFuser, ResBlock
from model.norm_folding import convolve_and_norm
from model.resnet import ResNet

LIGHT_DIMS = (16, 32, 64, 96)
"""Channels of the light value encoder at strides 2, 4, 8, 16."""


def make_key_encoder(trunk):
    """Return the key encoder with this trunk. Its `dims` are the channels of f16, f8, f4."""
    return EfficientNetLite0() if trunk == "efficientnet_lite0" else KeyEncoder(trunk)


def make_value_encoder(config, mask_channels, f16_dim):
    """Return the value encoder of a NetworkConfig."""
    if config.value_trunk == "light":
        return LightValueEncoder(mask_channels, f16_dim, config.value_dim, config.skip_kernel)
    return ValueEncoder(config.value_trunk, mask_channels, f16_dim, config.value_dim)


class KeyEncoder(nn.Module):
    """Image features: B×3×H×W normalised to f16, f8, f4 at 1/16, 1/8, 1/4 of the image."""

    def __init__(self, trunk):
        super().__init__()
        resnet = ResNet(trunk)
        self.conv1, self.bn1, self.res2 = resnet.conv1, resnet.bn1, resnet.layer1
        self.layer2, self.layer3 = resnet.layer2, resnet.layer3
        self.relu, self.maxpool = resnet.relu, resnet.maxpool
        self.dims = resnet.dims

    def forward(self, image):
        f4 = self.res2(self.maxpool(self.relu(convolve_and_norm(image, self.conv1, self.bn1))))
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


class KeyProjection(nn.Module):
    """Turns f16 into keys. It starts orthogonal, so that all directions of the key space are used."""

    def __init__(self, in_dim, key_dim, scale=1):
        super().__init__()
        self.key_proj = nn.Conv2d(in_dim, key_dim, kernel_size=3, padding=1)
        nn.init.orthogonal_(self.key_proj.weight)
        nn.init.zeros_(self.key_proj.bias)
        # The scale is saved with the weights, which mean nothing without it; the published checkpoints have none. It is
        # a factor of its own, because small weights would be made large by the optimizer's first steps.
        self.register_buffer("scale", None if scale == 1 else torch.tensor(float(scale)))

    def forward(self, f16):
        key = self.key_proj(f16)
        return key if self.scale is None else key * self.scale

    def fold_scale(self):
        """Return (weight, bias) of the one convolution that does the same."""
        factor = 1 if self.scale is None else self.scale
        return self.key_proj.weight * factor, self.key_proj.bias * factor


class LightValueEncoder(nn.Module):
    """A value encoder for small networks, with the inputs and output of ValueEncoder.

    It has few layers, since f16 already holds what the image shows.
    """

    def __init__(self, mask_channels, f16_dim, value_dim, skip_kernel):
        super().__init__()
        half, quarter, eighth, sixteenth = LIGHT_DIMS
        self.conv1 = _make_halving(3 + mask_channels, half)
        self.conv2 = _make_halving(half, quarter)
        self.conv3 = _make_halving(quarter, eighth)
        self.block3 = ResBlock(eighth, eighth)
        self.conv4 = _make_halving(eighth, sixteenth)
        self.fuser = FeatureFuser(sixteenth, f16_dim, value_dim, skip_kernel)

    def forward(self, image_and_masks, f16):
        """Turn B×(3 + mask_channels)×H×W and B×f16_dim×h×w into B×value_dim×h×w."""
        x = self.conv2(F.relu(self.conv1(image_and_masks)))
        x = self.block3(self.conv3(F.relu(x)))
        return self.fuser(self.conv4(F.relu(x)), f16)


def _make_halving(in_dim, out_dim):
    return nn.Conv2d(in_dim, out_dim, kernel_size=3, stride=2, padding=1)


class ValueEncoder(nn.Module):
    """Computes what the memory keeps of one object in one frame.

    It takes the image and `mask_channels` masks: the object's own and, except in training stage 0, the sum of the
    others'.
    """

    def __init__(self, trunk, mask_channels, f16_dim, value_dim):
        super().__init__()
        resnet = ResNet(trunk)
        self.conv1 = nn.Conv2d(3 + mask_channels, 64, kernel_size=7, stride=2, padding=3)
        self.bn1, self.relu, self.maxpool = resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3 = resnet.layer1, resnet.layer2, resnet.layer3
        for layer in (self.layer1, self.layer2, self.layer3):
            for module in layer.modules():
                if isinstance(module, nn.Conv2d):
                    # The published value encoder differs from a ResNet in these biases alone.
                    module.bias = nn.Parameter(torch.zeros(module.out_channels))
        self.fuser = FeatureFuser(resnet.dims[0], f16_dim, value_dim)

    def forward(self, image_and_masks, f16):
        """Turn B×(3 + mask_channels)×H×W and B×f16_dim×h×w into B×value_dim×h×w."""
        x = self.maxpool(self.relu(convolve_and_norm(image_and_masks, self.conv1, self.bn1)))
        return self.fuser(self.layer3(self.layer2(self.layer1(x))), f16)
