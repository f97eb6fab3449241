"""ResNet up to stride 16 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016).

Attributes have torchvision's names, so its weights fit, and so do the published checkpoints. Torchvision's own class
would do the same, but importing torchvision would cost every script that tracks two seconds and 170 MB.
"""

from torch import nn

from model.norm_folding import convolve_and_norm


class BasicBlock(nn.Module):
    """B×in×h×w to B×dim×h/stride×w/stride."""

    expansion = 1

    def __init__(self, in_dim, dim, stride):
        super().__init__()
        self.conv1, self.bn1 = _make_convolution(in_dim, dim, 3, stride), nn.BatchNorm2d(dim)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = _make_convolution(dim, dim, 3), nn.BatchNorm2d(dim)
        self.downsample = _make_shortcut(in_dim, dim, stride)

    def forward(self, x):
        y = self.relu(convolve_and_norm(x, self.conv1, self.bn1))
        y = convolve_and_norm(y, self.conv2, self.bn2)
        y += x if self.downsample is None else convolve_and_norm(x, *self.downsample)
        return self.relu(y)


class Bottleneck(nn.Module):
    """B×in×h×w to B×4·dim×h/stride×w/stride."""

    expansion = 4

    def __init__(self, in_dim, dim, stride):
        super().__init__()
        self.conv1, self.bn1 = _make_convolution(in_dim, dim, 1), nn.BatchNorm2d(dim)
        self.conv2, self.bn2 = _make_convolution(dim, dim, 3, stride), nn.BatchNorm2d(dim)
        self.conv3, self.bn3 = _make_convolution(dim, 4 * dim, 1), nn.BatchNorm2d(4 * dim)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _make_shortcut(in_dim, 4 * dim, stride)

    def forward(self, x):
        y = self.relu(convolve_and_norm(x, self.conv1, self.bn1))
        y = self.relu(convolve_and_norm(y, self.conv2, self.bn2))
        y = convolve_and_norm(y, self.conv3, self.bn3)
        y += x if self.downsample is None else convolve_and_norm(x, *self.downsample)
        return self.relu(y)


LAYERS = {"resnet18": (BasicBlock, (2, 2, 2)), "resnet50": (Bottleneck, (3, 4, 6))}
"""{name: (block, number of blocks in each of the three layers)}."""


class ResNet(nn.Module):
    """The layers of a ResNet, with random weights, for the networks that take them over. It is never called itself."""

    def __init__(self, name):
        super().__init__()
        block, counts = LAYERS[name]
        self.conv1, self.bn1 = _make_convolution(3, 64, 7, stride=2), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        in_dim, layers = 64, []
        for number, count in enumerate(counts):
            dim, blocks = 64 * 2 ** number, []
            for place in range(count):
                blocks.append(block(in_dim, dim, 2 if number and not place else 1))
                in_dim = dim * block.expansion
            layers.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = layers
        self.dims = tuple(dim * block.expansion for dim in (256, 128, 64))
        """The channels at strides 16, 8, 4."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _make_convolution(in_dim, out_dim, kernel_size, stride=1):
    return nn.Conv2d(in_dim, out_dim, kernel_size, stride, padding=kernel_size // 2, bias=False)


def _make_shortcut(in_dim, out_dim, stride):
    """Return a convolution with its norm, or None where the sum needs neither."""
    if stride == 1 and in_dim == out_dim:
        return None
    return nn.Sequential(_make_convolution(in_dim, out_dim, 1, stride), nn.BatchNorm2d(out_dim))
