"""The network as inference runs it: the same function of the same weights, with less to compute.

`InferenceNetwork` is made from a loaded `RDE`, whose parameters and names stay as they are. Against the plain form
- batch norms are folded into the convolutions before them, biases, sums and activations into the same call;
- a convolution over a concatenation of an object's and the image's features is the sum of two, of which the image's
  is computed once per frame, whatever the number of objects;
- SAM works on images, its two time steps being two rows of the batch;
- tensors are channels_last, weights are converted and laid out once (on the CPU in the blocks that oneDNN wants).

Layouts: B is 1 for what belongs to the frame, O objects for what belongs to them, h×w = H/16×W/16.
"""

import copy
import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from model import onednn, winograd
from model.modules import FeatureFuser

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_ACTIVATIONS = {"relu": (nn.ReLU, F.relu, torch.relu), "relu6": (nn.ReLU6, F.relu6)}


class Frame(NamedTuple):
    """What is computed once per frame, however many objects there are."""

    key: torch.Tensor
    """1×key_dim×h×w"""

    f16: torch.Tensor
    """1×f16_dim×h×w, for the value encoder."""

    compress: torch.Tensor
    """1×dims[0]×h×w, the frame's share in the first convolution of the decoder's `compress`."""

    compress_skip: torch.Tensor
    """1×dims[0]×h×w, that in the one beside it."""

    skip8: torch.Tensor
    """1×dims[0]×2h×2w"""

    skip4: torch.Tensor
    """1×dims[1]×4h×4w"""


class Convolution(nn.Module):
    """activation(convolution(x) + other), in as few passes over the memory as the device allows.

    convolution: an nn.Conv2d, or an nn.Conv3d that is to work on images, of which stride, padding, dilation and
        groups are taken.
    activation: None, "relu" or "relu6".
    """

    def __init__(self, convolution, dtype, activation, weight, bias):
        super().__init__()
        stride, padding, dilation = (list(each[-2:]) for each in
                                     (convolution.stride, convolution.padding, convolution.dilation))
        self.geometry = (stride, padding, dilation, convolution.groups)
        self.activation = activation
        self.weight = weight.detach().to(dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self._packed = None
        if not onednn.takes(self.weight):
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)
        elif dtype == torch.float32 and winograd.fits(self.weight, *self.geometry):
            self._packed = winograd.Winograd(self.weight, self.bias)
        else:
            self._packed = onednn.PackedWeight(self.weight, self.bias, self.geometry)

    def forward(self, x, other=None):
        """x O×in×h×w, other with the output's shape or one row for all objects."""
        if self._packed is not None and not torch.compiler.is_compiling():
            return self._packed(x, other, self.activation)
        stride, padding, dilation, groups = self.geometry
        y = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
        if other is not None:
            y += other
        if self.activation == "relu":
            y = y.relu_()
        elif self.activation == "relu6":
            y = y.clamp_(0, 6)
        return y


def _whole(convolution, dtype):
    return Convolution(convolution, dtype, None, convolution.weight, convolution.bias)


class Prediction(nn.Module):
    """A 3×3 convolution to one channel, x O×in×h×w channels_last to O×1×h×w float32.

    First the products at all nine places, then their sum: oneDNN would compute 16 channels and throw 15 away.
    """

    def __init__(self, convolution):
        super().__init__()
        self.weight = convolution.weight.detach()[0].flatten(1).t().float()
        self.bias = convolution.bias.detach().float()

    def forward(self, x):
        height, width = x.shape[-2:]
        places = (self.weight @ _rows(x.float()).transpose(1, 2)).unflatten(2, (height, width))
        places = F.pad(places, (1, 1, 1, 1))
        total = self.bias.view(1, 1, 1).expand(x.shape[0], height, width)
        for place in range(9):
            row, column = divmod(place, 3)
            total = total + places[:, place, row:row + height, column:column + width]
        return total.unsqueeze(1)


class SplitResBlock(nn.Module):
    """A ResBlock over the concatenation of an object's features (the first `own` channels) and the image's."""

    def __init__(self, block, own, dtype):
        super().__init__()

        def split(convolution, activation):
            mine, image = convolution.weight.split([own, convolution.in_channels - own], 1)
            return (Convolution(convolution, dtype, activation, mine, None),
                    Convolution(convolution, dtype, None, image, convolution.bias))

        self.conv1, self.frame_conv1 = split(block.conv1, "relu")
        self.skip, self.frame_skip = split(block.downsample, None)
        self.conv2 = _whole(block.conv2, dtype)

    def frame(self, image):
        """The frame's share, from the image's features 1×...×h×w."""
        return self.frame_conv1(F.relu(image)), self.frame_skip(image)

    def forward(self, x, frame_conv1, frame_skip):
        return self.conv2(self.conv1(F.relu(x), frame_conv1), self.skip(x, frame_skip))


class SplitFuser(nn.Module):
    """FeatureFuser, the image's share in it apart."""

    def __init__(self, fuser, f16_dim, dtype):
        super().__init__()
        self.block1 = SplitResBlock(fuser.block1, fuser.block1.conv1.in_channels - f16_dim, dtype)
        self.attention = fused(fuser.attention, dtype)
        self.block2 = fused(fuser.block2, dtype)

    def forward(self, x, frame_conv1, frame_skip):
        x = self.block1(x, frame_conv1, frame_skip)
        return self.block2(x + self.attention(x))


class SplitDecoder(nn.Module):
    """Decoder, the image's share in it apart."""

    def __init__(self, network, dtype):
        super().__init__()
        decoder = network.decoder
        self.thin = _whole(network.key_comp, dtype)
        self.compress = SplitResBlock(decoder.compress, network.config.value_dim, dtype)
        self.skip8, self.skip4 = (_whole(block.skip_conv, dtype)
                                  for block in (decoder.up_16_8, decoder.up_8_4))
        self.block8 = fused(decoder.up_16_8.out_conv, dtype)
        self.block4 = fused(nn.Sequential(decoder.up_8_4.out_conv, nn.ReLU()), dtype)
        self.pred = Prediction(decoder.pred) if onednn.takes(decoder.pred.weight) else _whole(decoder.pred, dtype)

    def frame(self, f16, f8, f4):
        return *self.compress.frame(self.thin(f16)), self.skip8(f8), self.skip4(f4)

    def forward(self, readout, compress, compress_skip, skip8, skip4):
        """Mask logits O×H×W, float32."""
        x = self.compress(readout, compress, compress_skip)
        for skip, block in ((skip8, self.block8), (skip4, self.block4)):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x += skip
            x = block(x)
        logits = self.pred(x).float()
        return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)[:, 0]


class Aggregation(nn.Module):
    """One half of SAM, for keys or for values: two entries O×C×h×w become one."""

    def __init__(self, encoder, compress, dtype):
        super().__init__()
        def per_image(convolution, activation=None, time=0):
            weight = convolution.weight[:, :, time]
            return Convolution(convolution, dtype, activation, weight, convolution.bias if time == 0 else None)

        non_local, aspp = encoder.non_local, encoder.conv1
        projections = (non_local.theta, non_local.phi[0], non_local.g[0])
        self.inner = non_local.theta.out_channels
        weight, bias = (torch.cat([getattr(each, name) for each in projections]) for name in ("weight", "bias"))
        self.project = Convolution(non_local.theta, dtype, None, weight[:, :, 0], bias)
        self.W = per_image(non_local.W)
        self.se_block = copy.deepcopy(encoder.se_block).to(dtype)
        self.branches = nn.ModuleList(per_image(branch.atrous_conv, "relu")
                                      for branch in (aspp.aspp1, aspp.aspp2, aspp.aspp3, aspp.aspp4))
        self.fuse = per_image(aspp.conv1, "relu")
        self.compress_old, self.compress_new = per_image(compress, time=0), per_image(compress, time=1)

    def forward(self, old, new):
        objects = old.shape[0]
        x = torch.cat([old, new]).contiguous(memory_format=torch.channels_last)
        x = self.W(self._attend(x), x)
        if len(self.se_block):
            # Its norms and gates go over both time steps.
            x = self.se_block(x.unflatten(0, (2, objects)).permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4).flatten(0, 1)
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.fuse(torch.cat([branch(x) for branch in self.branches], 1)) + x
        return self.compress_new(x[objects:], self.compress_old(x[:objects]))

    def _attend(self, x):
        """(g φᵀ / N) θ of every object, as 2O×inner×h×w; see NonLocal."""
        height, width = x.shape[-2:]
        theta, pooled = self.project(x).split([self.inner, 2 * self.inner], 1)
        pooled = F.max_pool2d(pooled, (min(2, height), min(2, width)))
        phi, g = _rows(pooled).split(self.inner, 2)
        # Dividing first keeps float16 from overflowing in the sum over positions.
        pairs = (phi / (2 * phi.shape[1])).transpose(1, 2) @ g
        pairs = pairs.unflatten(0, (2, -1)).sum(0).repeat(2, 1, 1)
        return (_rows(theta) @ pairs).unflatten(1, (height, width)).permute(0, 3, 1, 2)


class InferenceNetwork(nn.Module):
    """The inference form of an RDE, which must have been trained for several objects.

    dtype: in which everything but affinities and probabilities is computed and kept. Lives on the RDE's device.
    """

    def __init__(self, network, dtype=torch.float32):
        super().__init__()
        self.dtype = dtype
        f16_dim = network.key_encoder.dims[0]
        self.key_encoder = fused(network.key_encoder, dtype)
        self.key_proj = Convolution(network.key_proj.key_proj, dtype, None, *network.key_proj.folded())
        self.decoder = SplitDecoder(network, dtype)
        self.image_conv, self.value_trunk, self.fuser = _split_value_encoder(network.value_encoder, f16_dim, dtype)
        if network.config.sam:
            sam = network.mem_compress
            self.aggregate_key = Aggregation(sam.key_encoder, sam.compress_key, dtype)
            self.aggregate_value = Aggregation(sam.value_encoder, sam.compress_value, dtype)

    def encode_key(self, image):
        """image 1×3×H×W, normalised, to a Frame."""
        f16, f8, f4 = self.key_encoder(self._laid_out(image))
        return Frame(self.key_proj(f16), f16, *self.decoder.frame(f16, f8, f4))

    def decode(self, readout, *frame):
        """Mask logits O×H×W, float32, from readout O×value_dim×h×w and the last four of a Frame."""
        return self.decoder(readout, *frame)

    def encode_value(self, image, f16, masks, others):
        """Values O×value_dim×h×w from the frame and masks O×H×W, each object's own and the sum of all others'."""
        masks = self._laid_out(torch.stack([masks, others], 1))
        x = self.value_trunk(masks, self.image_conv(self._laid_out(image)))
        return self.fuser(x, *self.fuser.block1.frame(f16))

    def _laid_out(self, x):
        return x.to(self.dtype, memory_format=torch.channels_last)


def fused(module, dtype):
    """`module` with every convolution, its batch norm, a sum after them and an activation as one Convolution.

    Works on any module that torch.fx can trace.
    """
    return _rewritten(module, fx.Tracer().trace(module), dtype)


def _split_value_encoder(encoder, f16_dim, dtype):
    """(Convolution of the image, trunk from masks and that one's result to features, SplitFuser)."""
    graph = _TrunkTracer().trace(encoder)
    nodes = {node.name: node for node in graph.nodes}
    fuser = next(node for node in graph.nodes if node.target == "fuser")
    features, f16 = fuser.args
    nodes["output"].args = (features,)
    graph.erase_node(fuser)
    graph.erase_node(f16)
    masks = next(node for node in graph.nodes if node.op == "placeholder")
    (first,) = masks.users
    with graph.inserting_after(masks):
        image_part = graph.placeholder("image_part")
    apart = []

    def split(node, convolution, weight, bias):
        if node is not first:
            return weight, bias, None
        apart.append(Convolution(convolution, dtype, None, weight[:, :3], bias))
        return weight[:, 3:], None, image_part

    trunk = _rewritten(encoder, graph, dtype, split)
    return apart[0], trunk, SplitFuser(encoder.fuser, f16_dim, dtype)


class _TrunkTracer(fx.Tracer):
    """Leaves the fuser of a value encoder whole."""

    def is_leaf_module(self, module, name):
        return isinstance(module, FeatureFuser) or super().is_leaf_module(module, name)


def _rewritten(module, graph, dtype, split=lambda node, convolution, weight, bias: (weight, bias, None)):
    """The GraphModule of `graph`, a trace of `module`, with its convolutions as `Convolution`.

    split(node, convolution, weight, bias): weight and bias to use for it, and the node to add to its result or None.
    """
    modules = dict(module.named_modules())
    parts = {}
    for node in [node for node in graph.nodes if isinstance(modules.get(node.target), nn.Conv2d)]:
        part = modules[node.target]
        chain, weight, bias = [node], part.weight, part.bias
        norm = _follower(chain[-1], modules, (nn.BatchNorm2d,))
        if norm is not None:
            chain.append(norm)
            norm = modules[norm.target]
            weight, bias = fuse_conv_bn_weights(weight, bias, norm.running_mean, norm.running_var, norm.eps,
                                                norm.weight, norm.bias)
        weight, bias, other = split(node, part, weight, bias)
        addition = _follower(chain[-1], modules, _ADDITIONS)
        if addition is not None and other is None:
            (other,) = [value for value in addition.args if value is not chain[-1]]
            chain.append(addition)
        activation = None
        for name, kinds in _ACTIVATIONS.items():
            follower = _follower(chain[-1], modules, kinds)
            if follower is not None:
                activation = name
                chain.append(follower)
                break
        name = f"{node.target.replace('.', '_')}_fused"
        parts[name] = Convolution(part, dtype, activation, weight, bias)
        with graph.inserting_before(chain[-1]):
            whole = graph.create_node("call_module", name, node.args if other is None else (*node.args, other))
        chain[-1].replace_all_uses_with(whole)
        for old in reversed(chain):
            graph.erase_node(old)
    for node in graph.nodes:
        if node.target in modules:
            parts[node.target] = copy.deepcopy(modules[node.target]).to(dtype)
    return fx.GraphModule(parts, graph).eval()


def _follower(node, modules, kinds):
    """The only user of a node, if it is a call of one of these functions or modules."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    called = type(modules.get(user.target)) if user.op == "call_module" else user.target
    if called not in kinds or (called in _ADDITIONS and not all(isinstance(x, fx.Node) for x in user.args)):
        return None
    return user


def _rows(x):
    """B×C×h×w, channels_last, to B×(h·w)×C."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
