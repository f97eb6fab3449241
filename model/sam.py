"""SAM, the Spatio-temporal Aggregation Module (paper, section 3.2): it makes one time step of memory of two.

Everything works on B×C×T×h×w with T = 2: the old embedding, then the new memory frame. Attribute names are those of the
published checkpoint.
"""

import torch
import torch.nn.functional as F
from torch import nn


class NonLocal(nn.Module):
    """Embedded non-local block over space and time, its pairwise map divided by the number of positions.

    Wang et al., "Non-local Neural Networks", CVPR 2018, the dot-product version: y = (θᵀφ) g / N. There is
    no softmax, hence (θᵀφ) g = θᵀ (φ g): the map of all pairs of positions is never built.
    """

    def __init__(self, dim):
        super().__init__()
        inner = dim // 2
        self.theta = nn.Conv3d(dim, inner, kernel_size=1)
        # The pooling is a function call. The Sequential only gives the published names `phi.0`, `g.0`.
        self.phi = nn.Sequential(nn.Conv3d(dim, inner, kernel_size=1))
        self.g = nn.Sequential(nn.Conv3d(dim, inner, kernel_size=1))
        self.W = nn.Conv3d(inner, dim, kernel_size=1)
        # The block starts as the identity (Wang et al., section 4.1). Otherwise products of three unnormalised
        # features, nested from frame to frame, would make the first losses astronomic.
        nn.init.zeros_(self.W.weight)
        nn.init.zeros_(self.W.bias)

    def forward(self, x):
        batch, _, time, height, width = x.shape
        # A feature map of one cell on a side has nothing to pool there.
        window = (1, min(2, height), min(2, width))
        phi = F.max_pool3d(self.phi(x), window).flatten(2)
        g = F.max_pool3d(self.g(x), window).flatten(2)
        theta = self.theta(x).flatten(2)
        # Dividing first keeps float16 from overflowing in the sum over positions.
        y = (g @ (phi / phi.shape[2]).transpose(1, 2)) @ theta
        return self.W(y.reshape(batch, -1, time, height, width)) + x


class SqueezeExcitation(nn.Module):
    """Scales every channel of every time step by a factor that depends on all their averages."""

    def __init__(self, dim, reduction=8):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(dim, dim // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(dim // reduction, dim, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        batch, dim, time = x.shape[:3]
        scale = self.fc(x.mean((3, 4)).flatten(1))
        return x * scale.reshape(batch, dim, time, 1, 1)


class SEBlock(nn.Module):
    """Squeeze-and-excitation residual block; instance norms without parameters."""

    def __init__(self, dim):
        super().__init__()
        self.conv1 = nn.Conv3d(dim, dim, kernel_size=(1, 3, 3), padding=(0, 1, 1))
        self.conv2 = nn.Conv3d(dim, dim, kernel_size=(1, 3, 3), padding=(0, 1, 1))
        self.ses = SqueezeExcitation(2 * dim)

    def forward(self, x):
        y = F.relu(F.instance_norm(self.conv1(x)))
        y = F.instance_norm(self.conv2(y))
        return F.relu(F.instance_norm(self.ses(y)) + x)


class DilatedBranch(nn.Module):
    """One branch of the ASPP. With dilation 0 it is the 1×1 convolution."""

    def __init__(self, dim, out_dim, dilation):
        super().__init__()
        size = 3 if dilation else 1
        self.atrous_conv = nn.Conv3d(
            dim,
            out_dim,
            kernel_size=(1, size, size),
            padding=(0, dilation, dilation),
            dilation=(1, max(dilation, 1), max(dilation, 1)),
            bias=False,
        )

    def forward(self, x):
        return F.relu(self.atrous_conv(x))


class ASPP(nn.Module):
    """Atrous spatial pyramid of dilations 2, 4, 6 and a residual connection, frame by frame."""

    def __init__(self, dim):
        super().__init__()
        self.aspp1 = DilatedBranch(dim, dim // 4, 0)
        self.aspp2 = DilatedBranch(dim, dim // 4, 2)
        self.aspp3 = DilatedBranch(dim, dim // 4, 4)
        self.aspp4 = DilatedBranch(dim, dim // 4, 6)
        self.conv1 = nn.Conv3d(dim, dim, kernel_size=(1, 3, 3), padding=(0, 1, 1), bias=False)

    def forward(self, x):
        y = torch.cat([self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x)], 1)
        return F.relu(self.conv1(y)) + x


class AggregationEncoder(nn.Module):
    """Processes keys or values before their two time steps become one."""

    def __init__(self, dim, repeat):
        super().__init__()
        self.non_local = NonLocal(dim)
        self.se_block = nn.Sequential(*(SEBlock(dim) for _ in range(repeat)))
        self.conv1 = ASPP(dim)

    def forward(self, x):
        return self.conv1(self.se_block(self.non_local(x)))


class SAM(nn.Module):
    """The Spatio-temporal Aggregation Module. Keys and values have separate weights."""

    def __init__(self, key_dim, value_dim, repeat):
        super().__init__()
        self.key_encoder = AggregationEncoder(key_dim, repeat)
        self.value_encoder = AggregationEncoder(value_dim, repeat)
        self.compress_key = nn.Conv3d(key_dim, key_dim, kernel_size=(2, 3, 3), padding=(0, 1, 1))
        self.compress_value = nn.Conv3d(value_dim, value_dim, kernel_size=(2, 3, 3), padding=(0, 1, 1))

    def aggregate_key(self, old, new):
        """Return the one key that SAM makes of two keys B×C×h×w."""
        return self.compress_key(self.key_encoder(torch.stack([old, new], 2))).squeeze(2)

    def aggregate_value(self, old, new):
        """Return the one value that SAM makes of two values B×C×h×w, with all objects as a batch."""
        return self.compress_value(self.value_encoder(torch.stack([old, new], 2))).squeeze(2)
