"""The network as inference runs it: the same function of the same weights, with less to compute.

`InferenceNetwork` is a snapshot of an `RDE`. The two share no memory, and a change of one does not change the other.
A snapshot is faster than the network because
- batch norms are folded into the convolutions before them, and biases, sums and activations into the same call;
- a convolution over the concatenated features of object and image is split into the sum of two, and the image's part
  is computed once per frame, whatever the number of objects;
- SAM works on 2D images: its two time steps are rows of the batch;
- tensors are channels_last, and weights are converted and laid out once (on the CPU in the blocks that oneDNN wants).

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

import contextlib
import copy
import threading
import weakref
import zlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.resnet import Bottleneck

from model import onednn, winograd
from model.efficientnet_lite import EfficientNetLite0
from model.encoders import LightValueEncoder
from model.memory_reading import read_top_k
from model.network import distribution, image_statistics, normalise


class Frame(NamedTuple):
    """What is computed once per frame, whatever the number of objects."""

    key: torch.Tensor
    """1×key_dim×h×w."""

    f16: torch.Tensor
    """1×f16_dim×h×w, for the value encoder."""

    compress: torch.Tensor
    """1×dims[0]×h×w, the image's part of the first convolution in the decoder's block `compress`."""

    compress_skip: torch.Tensor
    """1×dims[0]×h×w, the image's part of the shortcut convolution in that block."""

    skip8: torch.Tensor
    """1×dims[0]×2h×2w, the skip connection at stride 8."""

    skip4: torch.Tensor
    """1×dims[1]×4h×4w, the skip connection at stride 4."""


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
        return copy.deepcopy(module).to(self.dtype).requires_grad_(False).eval()


def fold_norm(convolution, norm):
    """Return weight and bias of the one convolution that does what `convolution` and the batch norm after it do."""
    return fuse_conv_bn_weights(convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps,
                                norm.weight, norm.bias)


class ResidualUnit(nn.Module):
    """A BasicBlock or Bottleneck of torchvision's ResNet."""

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
        places = (self.weight @ _rows(x.float()).transpose(1, 2)).unflatten(2, (height, width))
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

    def __init__(self, encoder, compress, copier):
        super().__init__()

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
        return self.compress_new(x[objects:], self.compress_old(x[:objects]))

    def _attend(self, x):
        """Return (g φᵀ / N) θ of every object, as 2O×inner×h×w. See model.sam.NonLocal."""
        height, width = x.shape[-2:]
        theta, pooled = self.project(x).split([self.inner, 2 * self.inner], 1)
        pooled = F.max_pool2d(pooled, (min(2, height), min(2, width)))
        phi, g = _rows(pooled).split(self.inner, 2)
        # Dividing first keeps float16 from overflowing in the sum over positions.
        pairs = (phi / (2 * phi.shape[1])).transpose(1, 2) @ g
        pairs = pairs.unflatten(0, (2, -1)).sum(0).repeat(2, 1, 1)
        return (_rows(theta) @ pairs).unflatten(1, (height, width)).permute(0, 3, 1, 2)


class InferenceNetwork(nn.Module):
    """A snapshot of an RDE, which must have been trained for several objects. `take_snapshot` makes and keeps one.

    dtype: the dtype of weights and of all results but affinities and probabilities. The device is that of the RDE.
    packed: on the CPU, lay out weights as oneDNN wants them. A network that is to be compiled needs packed=False.
    """

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, network, dtype=torch.float32, *, packed=True):
        super().__init__()
        self.config = network.config
        self.dtype = dtype
        self.packed = packed
        for name, value in zip(("mean", "std"), image_statistics(_device_of(network)), strict=True):
            self.register_buffer(name, value, persistent=False)
        copier = LayerCopier(dtype, packed)
        f16_dim = network.key_encoder.dims[0]
        efficient = isinstance(network.key_encoder, EfficientNetLite0)
        self.key_encoder = (EfficientNet if efficient else KeyEncoder)(network.key_encoder, copier)
        self.key_proj = copier.copy(network.key_proj.key_proj, *network.key_proj.fold_scale())
        self.decoder = Decoder(network, copier)
        light = isinstance(network.value_encoder, LightValueEncoder)
        self.value_encoder = (SplitLightValueEncoder if light else ValueEncoder)(network.value_encoder, f16_dim,
                                                                                 copier)
        if network.config.sam:
            sam = network.mem_compress
            self.aggregate_key = Aggregation(sam.key_encoder, sam.compress_key, copier)
            self.aggregate_value = Aggregation(sam.value_encoder, sam.compress_value, copier)
        self.eval()

    @property
    def device(self):
        return self.mean.device

    def encode(self, image, size, padding):
        """Return the prepared image 1×3×H'×W', which `encode_value` takes, and its Frame.

        Arguments as for `prepare_image`.
        """
        image = prepare_image(image, size, padding, (self.mean, self.std))
        f16, f8, f4 = self.key_encoder(self._lay_out(image))
        return image, Frame(self.key_proj(f16), f16, *self.decoder.encode_frame(f16, f8, f4))

    def read(self, query, key, value, copies, top_k):
        """See model.memory_reading.read_top_k."""
        return read_top_k(query, key, value, copies, top_k)

    def decode(self, readout, frame):
        """Return mask logits O×H×W, float32, from readout O×value_dim×h×w and a Frame."""
        return self.decoder(readout, frame)

    def distribution(self, logits):
        """Return probabilities (O+1)×H×W, background first, from mask logits O×H×W."""
        return distribution(logits.sigmoid())

    def encode_value(self, image, frame, masks, others):
        """Return values O×value_dim×h×w.

        masks: O×H×W, each object's own. others: O×H×W, for each object the sum of all other objects' masks.
        """
        masks = self._lay_out(torch.stack([masks, others], 1))
        return self.value_encoder(self._lay_out(image), masks, frame.f16)

    def _lay_out(self, x):
        return x.to(self.dtype, memory_format=torch.channels_last)

    def _apply(self, fn, *args, **kwargs):
        if fn(torch.empty(0, dtype=self.dtype)).dtype != self.dtype:
            raise TypeError(f"this snapshot is in {self.dtype}; make another one for another dtype")
        return super()._apply(fn, *args, **kwargs)


class PlainFrame(NamedTuple):
    """What PlainEngine computes once per frame; see RDE.encode_key."""

    key: torch.Tensor
    f16_thin: torch.Tensor
    f16: torch.Tensor
    f8: torch.Tensor
    f4: torch.Tensor


class PlainEngine:
    """An engine that runs the trained network itself, under autocast.

    It is not a snapshot but what snapshots are compared with. It has the same methods as an InferenceNetwork.
    """

    def __init__(self, network, dtype=torch.float32):
        self.network = network
        self.config = network.config
        self.dtype = dtype

    @property
    def device(self):
        return _device_of(self.network)

    def encode(self, image, size, padding):
        image = prepare_image(image, size, padding)
        with self._autocast():
            return image, PlainFrame(*self.network.encode_key(image))

    def read(self, query, key, value, copies, top_k):
        return read_top_k(query, key, value, copies, top_k)

    def decode(self, readout, frame):
        with self._autocast():
            return self.network.decode(readout[None], frame.f16_thin, frame.f8, frame.f4)[0].float()

    def distribution(self, logits):
        return distribution(logits.sigmoid())

    def encode_value(self, image, frame, masks, others):
        with self._autocast():
            return self.network.encode_value(image, frame.f16, masks[None], others[None])[0]

    def aggregate_key(self, old, new):
        with self._autocast():
            return self.network.mem_compress.aggregate_key(old, new)

    def aggregate_value(self, old, new):
        with self._autocast():
            return self.network.mem_compress.aggregate_value(old, new)

    def _autocast(self):
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def prepare_image(image, size, padding, statistics=None):
    """Return an image normalised, resized and padded with zeros, 1×3×H'×W'.

    image: 3×H×W, uint8 or float in [0, 1].
    size: (height, width) to resize it to, or None.
    padding: (left, right, top, bottom).
    statistics: as for `normalise`.
    """
    image = normalise(image, statistics).unsqueeze(0)
    if size is not None:
        # There is no antialiasing, as in the environment of the published results.
        image = F.interpolate(image, size=size, mode="bicubic", align_corners=False)
    return F.pad(image, padding)


_snapshots = weakref.WeakKeyDictionary()
"""{network: (fingerprint of its weights, {arguments of a snapshot: snapshot})}."""

_snapshot_lock = threading.Lock()
"""Held while a snapshot is looked up or made, since threads may share a network."""


def take_snapshot(network, dtype=torch.float32, *, packed=True):
    """Return the InferenceNetwork of this network's weights as they are now.

    While no weight changes, this is always the same object. It lives as long as the network does or somebody uses it.
    """
    # A snapshot made with oneDNN switched off is another one.
    made_with = (dtype, packed, torch.backends.mkldnn.enabled)
    with _snapshot_lock:
        before, snapshots = _snapshots.get(network, (None, {}))
        now = _compute_fingerprint(network)
        if before != now:
            # Free the outdated snapshots first: the new one can use their memory.
            snapshots.clear()
            _snapshots[network] = now, snapshots
        if made_with not in snapshots:
            snapshots[made_with] = InferenceNetwork(network, dtype, packed=packed)
        return snapshots[made_with]


def _compute_fingerprint(network):
    """Return a list that changes when a weight does.

    Torch counts the changes of a tensor in its version, but does not see those through `.data` or through memory shared
    with numpy. So the list also has a checksum of the bits, which takes a tenth of a second for `base`.
    """
    return [(name, tensor.data_ptr(), None if tensor.is_inference() else tensor._version, tensor.dtype, tensor.device,
             tensor.shape, _compute_checksum(tensor)) for name, tensor in network.state_dict().items()]


def _compute_checksum(tensor):
    bits = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return zlib.crc32(bits.numpy())


def _device_of(network):
    return next(network.parameters()).device


def _rows(x):
    """Turn x B×C×h×w, channels_last, into B×(h·w)×C."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
