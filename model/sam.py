"""SAM, the Spatio-temporal Aggregation Module (paper, section 3.2): it makes one time step of memory of two.

The two time steps, the old embedding and the new memory frame, are images of one batch, all old ones before all new
ones: 2B×C×h×w. The published layers are 3D convolutions over time and space. Most of them reach over one time step
only, so here they are 2D convolutions with the same weights, which are faster. Attribute names are those of the
published checkpoint.
"""

import torch
import torch.nn.functional as F
from torch import nn


def convolve(layer, x, time=0):
    """Apply what an nn.Conv3d does to one time step: a convolution of images B×C×h×w.

    time: which time step of the layer's kernel.
    """
    padding, dilation = layer.padding[1:], layer.dilation[1:]
    return F.conv2d(x, layer.weight[:, :, time], layer.bias if time == 0 else None, 1, padding, dilation)


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
        height, width = x.shape[-2:]
        # A feature map of one cell on a side has nothing to pool there.
        window = min(2, height), min(2, width)
        phi, g = (_list_positions(F.max_pool2d(convolve(layer[0], x), window)) for layer in (self.phi, self.g))
        # Dividing first keeps float16 from overflowing in the sum over positions.
        pairs = (phi / (2 * phi.shape[1])).transpose(1, 2) @ g
        # Both time steps of an image read the positions of both.
        pairs = pairs.unflatten(0, (2, -1)).sum(0).repeat(2, 1, 1)
        y = _list_positions(convolve(self.theta, x)) @ pairs
        return convolve(self.W, y.unflatten(1, (height, width)).permute(0, 3, 1, 2)) + x


def limit_norms(x, old, new):
    """Return x B×C×h×w with its vectors of C channels shortened to the longest vector of `old` and `new`, if longer.

    So however often SAM is applied to its own result, that stays as bounded as the memory frames are. The limit itself
    is taken as given: no gradient flows through it.
    """
    longest = torch.cat([old, new], 1).detach().unflatten(1, (2, -1)).float().square().sum(2).amax((1, 2, 3))
    longest = longest.clamp(min=1e-12).view(-1, 1, 1, 1)
    squares = x.float().square().sum(1, keepdim=True)
    return x * (longest / torch.maximum(squares, longest)).sqrt().to(x.dtype)


def _list_positions(x):
    """Turn B×C×h×w into B×(h·w)×C. This copies nothing if x is in channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


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
        return F.relu(convolve(self.atrous_conv, x))


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
        return F.relu(convolve(self.conv1, y)) + x


class AggregationEncoder(nn.Module):
    """Processes keys or values before their two time steps become one."""

    def __init__(self, dim, repeat):
        super().__init__()
        self.non_local = NonLocal(dim)
        self.se_block = nn.Sequential(*(SEBlock(dim) for _ in range(repeat)))
        self.conv1 = ASPP(dim)

    def forward(self, x):
        x = self.non_local(x)
        if len(self.se_block):
            # The norms and gates of these blocks need both time steps at once.
            x = self.se_block(x.unflatten(0, (2, -1)).permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4).flatten(0, 1)
        return self.conv1(x)


class SAM(nn.Module):
    """The Spatio-temporal Aggregation Module. Keys and values have separate weights."""

    def __init__(self, key_dim, value_dim, repeat, bounded=False):
        """bounded: apply `limit_norms` to keys and values. The published module does not."""
        super().__init__()
        # This is saved with the weights, which mean nothing without it.
        self.register_buffer("bounded", torch.ones(()) if bounded else None)
        self.key_encoder = AggregationEncoder(key_dim, repeat)
        self.value_encoder = AggregationEncoder(value_dim, repeat)
        self.compress_key = nn.Conv3d(key_dim, key_dim, kernel_size=(2, 3, 3), padding=(0, 1, 1))
        self.compress_value = nn.Conv3d(value_dim, value_dim, kernel_size=(2, 3, 3), padding=(0, 1, 1))

    def aggregate_key(self, old, new):
        """Return the one key that SAM makes of two keys B×C×h×w."""
        return self._aggregate(self.key_encoder, self.compress_key, old, new)

    def aggregate_value(self, old, new):
        """Return the one value that SAM makes of two values B×C×h×w, with all objects as a batch."""
        return self._aggregate(self.value_encoder, self.compress_value, old, new)

    def _aggregate(self, encoder, compress, old, new):
        first, second = encoder(torch.cat([old, new])).chunk(2)
        result = convolve(compress, first, time=0) + convolve(compress, second, time=1)
        return result if self.bounded is None else limit_norms(result, old, new)
