"""Building blocks that key encoder, value encoder and decoder share.

Attribute names are those of the published checkpoint. Layouts: B batch, C channels, h×w a feature map.
"""

import torch
import torch.nn.functional as F
from torch import nn


def conv3x3(in_dim, out_dim):
    return nn.Conv2d(in_dim, out_dim, kernel_size=3, padding=1)


class ResBlock(nn.Module):
    """Pre-activation residual block, B×in×h×w to B×out×h×w. If the width changes, the shortcut is a convolution."""

    def __init__(self, in_dim, out_dim, skip_kernel=3):
        super().__init__()
        self.downsample = None
        if in_dim != out_dim:
            self.downsample = nn.Conv2d(in_dim, out_dim, skip_kernel, padding=skip_kernel // 2)
        self.conv1 = conv3x3(in_dim, out_dim)
        self.conv2 = conv3x3(out_dim, out_dim)

    def forward(self, x):
        residual = self.conv2(F.relu(self.conv1(F.relu(x))))
        return residual + (x if self.downsample is None else self.downsample(x))


class ChannelGate(nn.Module):
    """Scales each channel by a factor that depends on all channels' averages and maxima over the image."""

    def __init__(self, dim, reduction=16):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Flatten(), nn.Linear(dim, dim // reduction), nn.ReLU(), nn.Linear(dim // reduction, dim)
        )

    def forward(self, x):
        scale = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        return x * scale.sigmoid()[:, :, None, None]


class SpatialGate(nn.Module):
    """Scales each position by a factor that depends on maximum and mean over the channels nearby."""

    def __init__(self):
        super().__init__()
        self.spatial = nn.Module()
        self.spatial.conv = nn.Conv2d(2, 1, kernel_size=7, padding=3)

    def forward(self, x):
        summary = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * self.spatial.conv(summary).sigmoid()


class CBAM(nn.Module):
    """Channel attention, then spatial attention (Woo et al., "CBAM", ECCV 2018)."""

    def __init__(self, dim):
        super().__init__()
        self.ChannelGate = ChannelGate(dim)
        self.SpatialGate = SpatialGate()

    def forward(self, x):
        return self.SpatialGate(self.ChannelGate(x))


class FeatureFuser(nn.Module):
    """Joins an object's features with the image's f16: B×x_dim×h×w, B×f16_dim×h×w to B×out_dim×h×w."""

    def __init__(self, x_dim, f16_dim, out_dim, skip_kernel=3):
        super().__init__()
        self.block1 = ResBlock(x_dim + f16_dim, out_dim, skip_kernel)
        self.attention = CBAM(out_dim)
        self.block2 = ResBlock(out_dim, out_dim)

    def forward(self, x, f16):
        x = self.block1(torch.cat([x, f16], 1))
        return self.block2(x + self.attention(x))


class UpBlock(nn.Module):
    """Doubles the resolution and adds a skip connection from the key encoder."""

    def __init__(self, skip_dim, up_dim, out_dim, skip_kernel=3):
        super().__init__()
        self.skip_conv = conv3x3(skip_dim, up_dim)
        self.out_conv = ResBlock(up_dim, out_dim, skip_kernel)

    def forward(self, skip, x):
        """skip: B×skip_dim×2h×2w. x: (B·O)×up_dim×h×w, with the objects of one image in a row."""
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.out_conv(per_object(self.skip_conv(skip), x.shape[0]) + x)


def per_object(x, total):
    """Repeat each of the B images in x (B×C×h×w) so that there are `total` = B·O rows, object by object."""
    if x.shape[0] == total:
        return x
    # Rows of pixels are repeated, not planes: so a tensor in channels_last stays in it.
    return x.permute(0, 2, 3, 1).repeat_interleave(total // x.shape[0], 0).permute(0, 3, 1, 2)
