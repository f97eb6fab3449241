"""The click network: from clicks, a box, strokes and an earlier mask to the mask of one object in one image.

What the user gives are planes beside the image. They meet the image's features behind the trunk, so that the trunk
runs once for all clicks on a view, and its features can be those of the compact tracking network:

    image --> trunk --> f16, f8, f4 --+
                                      +--> blocks at stride 16 --> up to 8 --> up to 4 --> mask logits
    hints --> convolutions -----------+

Layouts: B images, H×W pixels, multiples of 16; h×w = H/16×W/16.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from model.checkpoint import give_weights, read_state
from model.efficientnet_lite import EfficientNetLite0
from model.fused_blocks import LayerCopier, copy_trunk
from model.modules import ResBlock, conv3x3
from model.network import normalise
from util.errors import InputError

CLICKS = Path(__file__).parents[1] / "weights" / "clicks.pth"
"""The click network that comes with the repository."""

HINTS = 4
"""Planes of hints: discs of positive clicks, of negative clicks, the filled box, and the mask so far."""

KEY_DIM = 64
"""Channels in which positions are compared with those that were clicked."""

REACH = 6
"""Positions at stride 16 over which the nearness to a click falls to 1/e."""

HEADS = 4
"""Heads of attention, in each block of it."""


@dataclass(frozen=True)
class ClickConfig:
    """Dimensions of a click network."""

    dim: int = 128
    """Channels at stride 16."""

    blocks: int = 2
    """At stride 16 there are so many times a block of convolutions, one of attention, and one of convolutions."""

    decoder_dims: tuple = (64, 32)
    """Channels at strides 8 and 4."""


CLICK_PRESETS = {
    "compact": ClickConfig(),
    # For tests.
    "tiny": ClickConfig(dim=32, blocks=1, decoder_dims=(16, 16)),
}


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each position of B×C×h×w."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MixBlock(nn.Module):
    """A residual block: each channel is filtered by itself, then channels are mixed (Liu et al., ConvNeXt, 2022)."""

    def __init__(self, dim):
        super().__init__()
        self.filter = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = ChannelNorm(dim)
        self.expand = nn.Conv2d(dim, 4 * dim, kernel_size=1)
        self.project = nn.Conv2d(4 * dim, dim, kernel_size=1)

    def forward(self, x):
        return x + self.project(F.relu(self.expand(self.norm(self.filter(x)))))


class AttentionBlock(nn.Module):
    """A residual block of self-attention over all positions."""

    def __init__(self, dim):
        super().__init__()
        self.norm = ChannelNorm(dim)
        self.project_in = nn.Conv2d(dim, 3 * dim, kernel_size=1)
        self.project_out = nn.Conv2d(dim, dim, kernel_size=1)

    def forward(self, x):
        height, width = x.shape[-2:]
        rows = self.project_in(self.norm(x)).flatten(2).unflatten(1, (3, HEADS, -1)).transpose(-1, -2)
        query, key, value = rows.unbind(1)
        y = F.scaled_dot_product_attention(query, key, value).transpose(-1, -2).flatten(1, 2)
        return x + self.project_out(y.unflatten(2, (height, width)).contiguous(memory_format=torch.channels_last))


class Likeness(nn.Module):
    """How much each position is like the positive and the negative clicks: the largest similarity to one of them."""

    def __init__(self, in_dim):
        super().__init__()
        self.key = nn.Conv2d(in_dim, KEY_DIM, kernel_size=1)

    def forward(self, features, clicked):
        """Return B×2×h×w in [-1, 1], -1 where there is no click. clicked: B×2×h×w, 1 where a click is near."""
        keys = F.normalize(self.key(features).flatten(2).float(), dim=1)
        similarity = keys.transpose(1, 2) @ keys
        near = clicked.flatten(2).unsqueeze(2) > 0
        return similarity.unsqueeze(1).masked_fill(~near, -1).amax(3).unflatten(2, features.shape[-2:])


def nearness(clicked):
    """Return exp(-d / REACH) for the distance d of each position to the nearest one that was clicked, 0 without any.

    clicked: B×K×h×w, above 0 where a click is near. Returns B×K×h×w. Without this, the network takes long to learn that
    what looks like the object elsewhere is another object.
    """
    height, width = clicked.shape[-2:]
    rows, columns = torch.arange(height, device=clicked.device), torch.arange(width, device=clicked.device)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1).float()
    near = torch.exp(-torch.cdist(places, places) / REACH)
    return near.masked_fill(clicked.flatten(2).unsqueeze(2) <= 0, 0).amax(3).unflatten(2, (height, width))


class ClickNetwork(nn.Module):
    """The network; its weights are random until a checkpoint is loaded. `load_clicks` does both."""

    def __init__(self, config=CLICK_PRESETS["compact"]):
        super().__init__()
        self.config = config
        dim, (dim8, dim4) = config.dim, config.decoder_dims
        self.key_encoder = EfficientNetLite0()
        f16_dim, f8_dim, f4_dim = self.key_encoder.dims
        self.hint4 = nn.Conv2d(HINTS, dim4, kernel_size=4, stride=4)
        self.hint8 = nn.Conv2d(dim4, dim8, kernel_size=3, stride=2, padding=1)
        self.hint16 = nn.Conv2d(dim8, dim, kernel_size=3, stride=2, padding=1)
        self.norm16, self.norm8, self.norm4 = (ChannelNorm(each) for each in (f16_dim, f8_dim, f4_dim))
        self.likeness = Likeness(f16_dim)
        self.skip16 = nn.Conv2d(f16_dim + 4, dim, kernel_size=1)
        parts = (MixBlock, AttentionBlock, MixBlock) * config.blocks
        self.blocks = nn.Sequential(*(part(dim) for part in parts), ChannelNorm(dim))
        self.up8, self.skip8 = nn.Conv2d(dim, dim8, kernel_size=1), nn.Conv2d(f8_dim, dim8, kernel_size=1)
        self.block8 = ResBlock(dim8, dim8)
        self.up4, self.skip4 = nn.Conv2d(dim8, dim4, kernel_size=1), nn.Conv2d(f4_dim, dim4, kernel_size=1)
        self.block4 = ResBlock(dim4, dim4)
        self.pred = conv3x3(dim4, 1)

    @property
    def device(self):
        return self.pred.weight.device

    def encode_image(self, image, trunk=None):
        """Return the features (f16, f8, f4) of images B×3×H×W, uint8 RGB. trunk: run instead of the network's own."""
        return (trunk or self.key_encoder)(normalise(image).contiguous(memory_format=torch.channels_last))

    def segment(self, features, hints):
        """Return mask logits B×1×H/4×W/4.

        features: of `encode_image`. hints: B×4×H×W in [0, 1], see HINTS.
        """
        f16, f8, f4 = (norm(each) for norm, each in zip((self.norm16, self.norm8, self.norm4), features, strict=True))
        h4 = self.hint4(hints)
        h8 = self.hint8(F.relu(h4))
        h16 = self.hint16(F.relu(h8))
        clicked = F.max_pool2d(hints[:, :2], 16)
        f16 = torch.cat([f16, self.likeness(f16, clicked).to(f16.dtype), nearness(clicked).to(f16.dtype)], 1)
        x = self.blocks(self.skip16(f16) + h16)
        x = self.block8(_double(self.up8(x)) + self.skip8(f8) + h8)
        x = self.block4(_double(self.up4(F.relu(x))) + self.skip4(f4) + h4)
        return self.pred(F.relu(x))


def _double(x):
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def upsample(logits):
    """Return logits of a quarter of the image's sides, B×1×h×w, at its full size, float32."""
    return F.interpolate(logits.float(), scale_factor=4, mode="bilinear", align_corners=False)


def load_clicks(path=CLICKS, device="cpu"):
    """Return the click network stored at `path`, ready to run: for `inference_core.ClickSession`, not to be trained.

    Its image trunk is a copy that has less to compute. Sessions and threads may share it. Raises InputError as
    `model.load_network` does.
    """
    network = load_click_network(path).requires_grad_(False).eval().to(device, memory_format=torch.channels_last)
    network.key_encoder = copy_trunk(network.key_encoder, LayerCopier(torch.float32, packed=True))
    return network


def load_click_network(path):
    """Return the ClickNetwork of a checkpoint, to be trained. The shapes of its weights tell its preset."""
    state = read_state(path)
    if not is_click_state(state):
        raise InputError(f"{path}: no click network but another one; see docs/CLICKS.md")
    with torch.device("meta"):
        networks = {name: ClickNetwork(config) for name, config in CLICK_PRESETS.items()}
    shapes = {key: value.shape for key, value in state.items()}

    def count_fitting(name):
        return len(shapes.items() & {key: value.shape for key, value in networks[name].state_dict().items()}.items())

    best = max(networks, key=count_fitting)
    return give_weights(networks[best], state, path, f"clicks, {best}")


def click_preset_name(config):
    """Return the name of the preset that a ClickConfig is."""
    return next(name for name, preset in CLICK_PRESETS.items() if preset == config)


def is_click_state(state):
    """Return whether a state dict is that of a click network."""
    return "hint4.weight" in state
