"""The configuration of a network: its dimensions, all in one place."""

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkConfig:
    """Dimensions of a network. The defaults are the published network of the paper, preset `base`."""

    key_trunk: str = "resnet50"
    """Image trunk of the key encoder: a name in `model.resnet.LAYERS`, or efficientnet_lite0."""

    value_trunk: str = "resnet18"
    """Image-and-mask trunk of the value encoder: a name in `model.resnet.LAYERS`, here with biases, or light."""

    key_dim: int = 64
    """Channels of keys and queries."""

    key_scale: float = 1
    """Keys are multiplied by this. Affinities grow with its square: if they are large, the softmax over the memory
    takes one position alone and lets no gradient through to the keys."""

    value_dim: int = 512
    """Channels of values, and of the image features the decoder reads beside them."""

    decoder_dims: tuple = (512, 256, 256)
    """Channels of the decoder at strides 16, 8, 4."""

    skip_kernel: int = 3
    """The kernel size of the shortcut convolution in a residual block that changes the width."""

    sam: bool = True
    """Whether there is a Spatio-temporal Aggregation Module. STCN checkpoints and stage 0 have none."""

    repeat: int = 0
    """Squeeze-and-excitation blocks in each half of SAM."""

    bounded: bool = False
    """Whether SAM's results are never longer than what goes into it, see `model.sam.limit_norms`. Without that, they
    may grow with every frame until they are infinite."""

    places: bool = False
    """Whether objects are told from others that look alike also by where they are, see `inference_core.places`, where
    nobody asks for anything else."""

    lines: int | None = None
    """The shorter side of a frame, in pixels, at which the network is to compute where nobody asks for anything else;
    None: that is for the dataset to say."""

    single_object: bool = False
    """Whether the input channel for the other objects' masks is missing, as in stage 0."""


def stage_config(preset, stage, repeat=0):
    """Return the NetworkConfig of a training stage. Stage 0 has one object and no SAM."""
    if stage == 0:
        return dataclasses.replace(PRESETS[preset], single_object=True, sam=False, bounded=False)
    return dataclasses.replace(PRESETS[preset], repeat=repeat)


PRESETS = {
    "base": NetworkConfig(),
    "compact": NetworkConfig(key_trunk="efficientnet_lite0", value_trunk="light", key_scale=0.17,
                             value_dim=128, decoder_dims=(96, 48, 32), skip_kernel=1, bounded=True,
                             places=True, lines=560),
    # This preset is for tests: it has every part of the network and takes milliseconds a frame.
    "tiny": NetworkConfig(key_trunk="resnet18", value_trunk="resnet18", key_dim=16, value_dim=32,
                          decoder_dims=(32, 16, 16), places=True),
}
