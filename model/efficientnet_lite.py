"""EfficientNet-Lite0 up to stride 16 (Tan and Le, ICML 2019). The Lite kind has ReLU6 and no squeeze-and-excitation."""

import torch
from torch import nn

from model.norm_folding import convolve_and_norm

STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5))
"""Each stage: (expansion, channels, blocks, stride of the first block, kernel size)."""

BATCH_NORM_EPSILON = 1e-3


class ReLU6(nn.Module):
    """min(max(x, 0), 6). For the backward pass it keeps its result, which the next convolution keeps, too.

    Torch's own keeps a copy of x: a quarter of the memory of a training step.
    """

    def forward(self, x):
        return _ReLU6.apply(x)


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = x.clamp(0, 6)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient):
        return torch.ops.aten.hardtanh_backward(gradient, ctx.saved_tensors[0], 0, 6)


class InvertedResidual(nn.Module):
    """Expands, filters each channel by itself, and projects: B×in×h×w to B×out×h/stride×w/stride."""

    def __init__(self, in_dim, out_dim, expansion, stride, kernel_size):
        super().__init__()
        dim = in_dim * expansion
        layers = _make_convolution(in_dim, dim, 1) if expansion > 1 else []
        layers += _make_convolution(dim, dim, kernel_size, stride, groups=dim)
        layers += _make_convolution(dim, out_dim, 1)[:-1]
        self.layers = _Convolutions(*layers)
        self.residual = stride == 1 and in_dim == out_dim

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite0(nn.Module):
    """Image features: B×3×H×W normalised to f16, f8, f4 at 1/16, 1/8, 1/4 of the image."""

    dims = (112, 40, 24)

    def __init__(self):
        super().__init__()
        self.stem = _Convolutions(*_make_convolution(3, 32, 3, stride=2))
        stages, in_dim = [], 32
        for expansion, dim, count, stride, kernel_size in STAGES:
            blocks = []
            for number in range(count):
                blocks.append(InvertedResidual(in_dim, dim, expansion, 1 if number else stride, kernel_size))
                in_dim = dim
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, image):
        x = self.stages[0](self.stem(image))
        f4 = self.stages[1](x)
        f8 = self.stages[2](f4)
        return self.stages[4](self.stages[3](f8)), f8, f4


class _Convolutions(nn.Sequential):
    """Layers of `_make_convolution`, one after the other."""

    def forward(self, x):
        # Convolutions and norms run together, and what is between them is ReLU6.
        layers = list(self)
        for convolution, norm, *activation in (layers[start:start + 3] for start in range(0, len(layers), 3)):
            x = convolve_and_norm(x, convolution, norm)
            if activation:
                x = activation[0](x)
        return x


def _make_convolution(in_dim, out_dim, kernel_size, stride=1, groups=1):
    """Return the layers convolution, batch norm and ReLU6."""
    return [
        nn.Conv2d(in_dim, out_dim, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_dim, eps=BATCH_NORM_EPSILON),
        ReLU6(),
    ]
