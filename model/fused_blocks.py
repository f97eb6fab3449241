"""The blocks of the network as a snapshot runs them: copies of their weights, with less to compute.

Every block of the network that has convolutions has a counterpart here. It has the same name where it does the same:

    as trained      x --+--> conv1 -> bn1 -> relu -> conv2 -> bn2 -> + -> relu ->
                        |                                            |
                        +--> downsample.0 -> downsample.1 -----------+

    here            x --+--> [conv1, bn1, relu] -> [conv2, bn2, +, relu] ->         each [...] one call
                        |                                       |
                        +--> [downsample.0, downsample.1] ------+

and where objects' and image's features are concatenated:

    as trained      object --+
                             cat -> conv ->                                         for each object
                    image ---+

    here            object -------------------> [conv's columns for it, +] ->       for each object
                                                                        |
                    image ---> [conv's columns for it, bias] -----------+           once per frame

The first dimension is 1 for what belongs to the frame and O for what belongs to its objects. h×w = H/16×W/16.
"""

import torch
import torch.nn.functional as F
from torch import nn

from model import exact, onednn, winograd
from model.efficientnet_lite import EfficientNetLite0
from model.norm_folding import fold_norm
from model.resnet import Bottleneck
from model.sam import limit_norms


class LayerCopier:
    """Copies layers of a network for a snapshot. dtype, packed: as for InferenceNetwork."""

    def __init__(self, dtype, packed):
        self.dtype, self.packed = dtype, packed

    def fuse(self, convolution, norm=None, activation=None):
        """Return activation(norm(convolution(x)) + other) as one module.

        Its call takes x and, where a sum is wanted, `other`.
        """
        weight, bias = convolution.weight, convolution.bias
        if norm is not None:
            weight, bias = fold_norm(convolution, norm)
        return self.copy(convolution, weight, bias, activation)

    def copy(self, convolution, weight, bias, activation=None):
        """Return a copy of a convolution with another weight and bias.

        convolution: an nn.Conv2d, or an nn.Conv3d whose copy is to work on images.
        """
        geometry = [list(each[-2:]) for each in (convolution.stride, convolution.padding, convolution.dilation)]
        geometry.append(convolution.groups)
        weight, bias = (None if each is None else each.detach().to(self.dtype, copy=True) for each in (weight, bias))
        packed = self.packed and onednn.can_run(weight)
        if packed and self.dtype == torch.float32 and winograd.is_faster(weight, *geometry):
            return winograd.Winograd(weight, bias, activation)
        weight = weight.contiguous(memory_format=torch.channels_last)
        return onednn.Convolution(weight, bias, geometry, activation, packed=packed)

    def copy_module(self, module):
        """Return a copy of a module that has no convolution to fuse anything with."""
        return exact.copy_exactly(module).to(self.dtype).requires_grad_(False).eval()


class ResidualUnit(nn.Module):
    """See model.resnet, BasicBlock and Bottleneck."""

    def __init__(self, block, copier):
        super().__init__()
        count = 3 if isinstance(block, Bottleneck) else 2
        # The last convolution adds the shortcut before its activation.
        self.convolutions = nn.ModuleList(
            copier.fuse(getattr(block, f"conv{number}"), getattr(block, f"bn{number}"), "relu")
            for number in range(1, count + 1))
        self.downsample = nn.Identity() if block.downsample is None else copier.fuse(*block.downsample)

    def forward(self, x):
        y = x
        for convolution in self.convolutions[:-1]:
            y = convolution(y)
        return self.convolutions[-1](y, self.downsample(x))


def _copy_stage(layer, copier):
    """Return a copy of one of a ResNet's layers."""
    return nn.Sequential(*(ResidualUnit(block, copier) for block in layer))


class KeyEncoder(nn.Module):
    """See model.encoders.KeyEncoder."""

    def __init__(self, encoder, copier):
        super().__init__()
        self.conv1 = copier.fuse(encoder.conv1, encoder.bn1, "relu")
        self.maxpool = copier.copy_module(encoder.maxpool)
        self.res2, self.layer2, self.layer3 = (_copy_stage(layer, copier)
                                               for layer in (encoder.res2, encoder.layer2, encoder.layer3))

    def forward(self, image):
        f4 = self.res2(self.maxpool(self.conv1(image)))
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


class InvertedResidual(nn.Module):
    """See model.efficientnet_lite.InvertedResidual."""

    def __init__(self, block, copier):
        super().__init__()
        # The layers are convolution, norm, ReLU6 and so on, without a ReLU6 at the end.
        convolutions, norms = block.layers[0::3], block.layers[1::3]
        activations = ["relu6"] * (len(convolutions) - 1) + [None]
        self.layers = nn.ModuleList(map(copier.fuse, convolutions, norms, activations))
        self.residual = block.residual

    def forward(self, x):
        y = x
        for layer in self.layers[:-1]:
            y = layer(y)
        return self.layers[-1](y, x) if self.residual else self.layers[-1](y)


class EfficientNet(nn.Module):
    """See model.efficientnet_lite.EfficientNetLite0."""

    def __init__(self, encoder, copier):
        super().__init__()
        self.stem = copier.fuse(*encoder.stem[:2], "relu6")
        self.stages = nn.ModuleList(nn.Sequential(*(InvertedResidual(block, copier) for block in stage))
                                    for stage in encoder.stages)

    def forward(self, image):
        x = self.stages[0](self.stem(image))
        f4 = self.stages[1](x)
        f8 = self.stages[2](f4)
        return self.stages[4](self.stages[3](f8)), f8, f4


def copy_trunk(encoder, copier):
    """Return a copy of a network's key encoder."""
    return (EfficientNet if isinstance(encoder, EfficientNetLite0) else KeyEncoder)(encoder, copier)


class ResBlock(nn.Module):
    """See model.modules.ResBlock. activation: applied to the result."""

    def __init__(self, block, copier, activation=None):
        super().__init__()
        self.conv1 = copier.fuse(block.conv1, activation="relu")
        self.conv2 = copier.fuse(block.conv2, activation=activation)
        self.downsample = nn.Identity() if block.downsample is None else copier.fuse(block.downsample)

    def forward(self, x):
        return self.conv2(self.conv1(F.relu(x)), self.downsample(x))


class SplitResBlock(nn.Module):
    """A ResBlock over the concatenation of an object's features (the first `own` channels) and the image's features."""

    def __init__(self, block, own, copier):
        super().__init__()

        def split(convolution, activation):
            mine, image = convolution.weight.split([own, convolution.in_channels - own], 1)
            return (copier.copy(convolution, mine, None, activation),
                    copier.copy(convolution, image, convolution.bias))

        self.conv1, self.frame_conv1 = split(block.conv1, "relu")
        self.skip, self.frame_skip = split(block.downsample, None)
        self.conv2 = copier.fuse(block.conv2)

    def encode_frame(self, image):
        """Return the image's parts of both convolutions, from the image's features 1×...×h×w."""
        return self.frame_conv1(F.relu(image)), self.frame_skip(image)

    def forward(self, x, frame_conv1, frame_skip):
        """Return the block's result O×out×h×w, from an object's features x and the results of `encode_frame`."""
        return self.conv2(self.conv1(F.relu(x), frame_conv1), self.skip(x, frame_skip))


class CBAM(nn.Module):
    """See model.modules.CBAM."""

    def __init__(self, attention, copier):
        super().__init__()
        self.channel_gate = copier.copy_module(attention.ChannelGate)
        self.spatial_conv = copier.fuse(attention.SpatialGate.spatial.conv)

    def forward(self, x):
        x = self.channel_gate(x)
        summary = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * self.spatial_conv(summary).sigmoid()


class SplitFuser(nn.Module):
    """A FeatureFuser whose first block is split into the object's and the image's part."""

    def __init__(self, fuser, f16_dim, copier):
        super().__init__()
        self.block1 = SplitResBlock(fuser.block1, fuser.block1.conv1.in_channels - f16_dim, copier)
        self.attention = CBAM(fuser.attention, copier)
        self.block2 = ResBlock(fuser.block2, copier)

    def forward(self, x, frame_conv1, frame_skip):
        x = self.block1(x, frame_conv1, frame_skip)
        return self.block2(x + self.attention(x))


class ValueEncoder(nn.Module):
    """See model.encoders.ValueEncoder.

    Its first convolution and its fuser are split into the object's and the image's part.
    """

    def __init__(self, encoder, f16_dim, copier):
        super().__init__()
        weight, bias = fold_norm(encoder.conv1, encoder.bn1)
        self.image_conv = copier.copy(encoder.conv1, weight[:, :3], bias)
        self.conv1 = copier.copy(encoder.conv1, weight[:, 3:], None, "relu")
        self.maxpool = copier.copy_module(encoder.maxpool)
        self.layers = nn.Sequential(*(_copy_stage(layer, copier)
                                      for layer in (encoder.layer1, encoder.layer2, encoder.layer3)))
        self.fuser = SplitFuser(encoder.fuser, f16_dim, copier)

    def forward(self, image, masks, f16):
        """Turn image 1×3×H×W, masks O×2×H×W and f16 1×f16_dim×h×w into values O×value_dim×h×w."""
        x = self.layers(self.maxpool(self.conv1(masks, self.image_conv(image))))
        return self.fuser(x, *self.fuser.block1.encode_frame(f16))


class SplitLightValueEncoder(nn.Module):
    """See model.encoders.LightValueEncoder. It is split in the same way."""

    def __init__(self, encoder, f16_dim, copier):
        super().__init__()
        weight, bias = encoder.conv1.weight, encoder.conv1.bias
        self.image_conv = copier.copy(encoder.conv1, weight[:, :3], bias)
        self.conv1 = copier.copy(encoder.conv1, weight[:, 3:], None, "relu")
        self.conv2 = copier.fuse(encoder.conv2, activation="relu")
        self.conv3 = copier.fuse(encoder.conv3)
        self.block3 = ResBlock(encoder.block3, copier, "relu")
        self.conv4 = copier.fuse(encoder.conv4)
        self.fuser = SplitFuser(encoder.fuser, f16_dim, copier)

    def forward(self, image, masks, f16):
        """Turn image 1×3×H×W, masks O×2×H×W and f16 1×f16_dim×h×w into values O×value_dim×h×w."""
        x = self.conv2(self.conv1(masks, self.image_conv(image)))
        x = self.conv4(self.block3(self.conv3(x)))
        return self.fuser(x, *self.fuser.block1.encode_frame(f16))


class Prediction(nn.Module):
    """A 3×3 convolution to one channel, from O×in×h×w channels_last to O×1×h×w float32.

    It computes the products at all nine places first, and then their sum. OneDNN would compute 16 channels and throw 15
    away.
    """

    def __init__(self, convolution):
        super().__init__()
        self.register_buffer("weight", convolution.weight.detach()[0].flatten(1).t().float().clone())
        self.register_buffer("bias", convolution.bias.detach().float().clone())

    def forward(self, x):
        height, width = x.shape[-2:]
        places = exact.multiply(self.weight, _rows(x.float()).transpose(1, 2)).unflatten(2, (height, width))
        places = F.pad(places, (1, 1, 1, 1))
        total = self.bias.view(1, 1, 1).expand(x.shape[0], height, width)
        for place in range(9):
            row, column = divmod(place, 3)
            total = total + places[:, place, row:row + height, column:column + width]
        return total.unsqueeze(1)


class Decoder(nn.Module):
    """See model.decoder.Decoder.

    Its image part is computed once per frame. The network's `key_comp` belongs to it here.
    """

    def __init__(self, network, copier):
        super().__init__()
        decoder = network.decoder
        self.thin = copier.fuse(network.key_comp)
        self.compress = SplitResBlock(decoder.compress, network.config.value_dim, copier)
        self.skip8, self.skip4 = (copier.fuse(block.skip_conv)
                                  for block in (decoder.up_16_8, decoder.up_8_4))
        self.block8 = ResBlock(decoder.up_16_8.out_conv, copier)
        self.block4 = ResBlock(decoder.up_8_4.out_conv, copier, "relu")
        on_onednn = onednn.can_run(decoder.pred.weight)
        self.pred = Prediction(decoder.pred) if on_onednn else copier.fuse(decoder.pred)

    def encode_frame(self, f16, f8, f4):
        """Return compress, compress_skip, skip8 and skip4 of a Frame."""
        return *self.compress.encode_frame(self.thin(f16)), self.skip8(f8), self.skip4(f4)

    def forward(self, readout, frame):
        """Return mask logits O×H×W, float32."""
        x = self.compress(readout, frame.compress, frame.compress_skip)
        for skip, block in ((frame.skip8, self.block8), (frame.skip4, self.block4)):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x += skip
            x = block(x)
        logits = self.pred(x).float()
        return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)[:, 0]


class Aggregation(nn.Module):
    """One half of SAM, for keys or for values: it makes one entry O×C×h×w of two."""

    def __init__(self, encoder, compress, bounded, copier):
        super().__init__()
        self.bounded = bounded

        def copy_step(convolution, activation=None, time=0):
            bias = convolution.bias if time == 0 else None
            return copier.copy(convolution, convolution.weight[:, :, time], bias, activation)

        non_local, aspp = encoder.non_local, encoder.conv1
        projections = (non_local.theta, non_local.phi[0], non_local.g[0])
        self.inner = non_local.theta.out_channels
        weight, bias = (torch.cat([getattr(each, name) for each in projections]) for name in ("weight", "bias"))
        self.project = copier.copy(non_local.theta, weight[:, :, 0], bias)
        self.W = copy_step(non_local.W)
        self.se_block = copier.copy_module(encoder.se_block)
        self.branches = nn.ModuleList(copy_step(branch.atrous_conv, "relu")
                                      for branch in (aspp.aspp1, aspp.aspp2, aspp.aspp3, aspp.aspp4))
        self.fuse = copy_step(aspp.conv1, "relu")
        self.compress_old, self.compress_new = copy_step(compress, time=0), copy_step(compress, time=1)

    def forward(self, old, new):
        objects = old.shape[0]
        x = torch.cat([old, new]).contiguous(memory_format=torch.channels_last)
        x = self.W(self._attend(x), x)
        if len(self.se_block):
            # The norms and gates of these blocks need both time steps at once.
            x = self.se_block(x.unflatten(0, (2, objects)).permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4).flatten(0, 1)
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.fuse(torch.cat([branch(x) for branch in self.branches], 1)) + x
        result = self.compress_new(x[objects:], self.compress_old(x[:objects]))
        return limit_norms(result, old, new) if self.bounded else result

    def _attend(self, x):
        """Return (g φᵀ / N) θ of every object, as 2O×inner×h×w. See model.sam.NonLocal."""
        height, width = x.shape[-2:]
        theta, pooled = self.project(x).split([self.inner, 2 * self.inner], 1)
        pooled = F.max_pool2d(pooled, (min(2, height), min(2, width)))
        phi, g = _rows(pooled).split(self.inner, 2)
        # Dividing first keeps float16 from overflowing in the sum over positions.
        pairs = exact.multiply((phi / (2 * phi.shape[1])).transpose(1, 2), g)
        pairs = pairs.unflatten(0, (2, -1)).sum(0).repeat(2, 1, 1)
        return exact.multiply(_rows(theta), pairs).unflatten(1, (height, width)).permute(0, 3, 1, 2)


def _rows(x):
    """Turn x B×C×h×w, channels_last, into B×(h·w)×C."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
