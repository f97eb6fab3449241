"""Weights that are a function of their names, so that reference results need no 250 MB checkpoint beside them.

Each tensor is drawn from numpy's legacy generator, seeded with the CRC-32 of its key, then scaled and given
enough structure for masks to follow objects: sixteen channels ("lanes") carry the mask from the value encoder
through the readout to the prediction, and SAM is a leaky average plus mixing. Untrained all the same.
"""

import re
import zlib

import numpy as np
import torch

LANES = 16

# Variance of a convolution's or linear layer's weight times its fan-in; the first match counts.
GAINS = (
    (r"key_proj\.key_proj\.weight", 1.25),
    (r"key_comp\.weight", 0.1),
    (r"decoder\.pred\.weight", 1.0),
    (r"mem_compress\.key_encoder\.non_local\..*", 0.1),
    (r"mem_compress\.value_encoder\.non_local\..*", 0.04),
    (r"mem_compress\.compress_key\..*", 0.015),
    (r"mem_compress\.compress_value\..*", 0.05),
    (r"mem_compress\.(key|value)_encoder\.conv1\.conv1\..*", 0.3),
    (r".*\.attention\.SpatialGate\..*", 1.0),
    (r"(value_encoder\.fuser|decoder)\..*conv2\.weight", 0.5),
    (r"(value_encoder\.fuser|decoder)\..*downsample\.weight", 0.7),
    (r"decoder\..*skip_conv\.weight", 0.25),
    (r".*", 2.0),
)
LANE_KEYS = re.compile(
    r"(value_encoder\.layer[123]\.0\.downsample\.0|value_encoder\.fuser\.block1\.downsample"
    r"|decoder\.compress\.downsample|decoder\.up_16_8\.out_conv\.downsample)\.weight"
)


def recipe_state(shapes):
    """A state dict for {key: shape}."""
    norms = {key.rsplit(".", 1)[0] for key in shapes if key.endswith(".running_mean")}
    return {key: torch.from_numpy(_tensor(key, tuple(shape), norms)) for key, shape in shapes.items()}


def _tensor(key, shape, norms):
    stem, leaf = key.rsplit(".", 1)
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(int(np.prod(shape))).reshape(shape)
    if stem in norms:
        tensor = _norm(stem, leaf, normal, closing=_closes_a_block(stem, norms))
    elif leaf == "bias":
        tensor = 0.05 * normal - (6.2 if key == "decoder.pred.bias" else 0)
    else:
        tensor = _weight(key, shape, normal)
    return np.asarray(tensor, np.float32)


def _closes_a_block(stem, norms):
    """Is this the last norm of a residual branch: bn3 of a bottleneck, bn2 of a basic block?"""
    return stem.endswith(".bn3") or (stem.endswith(".bn2") and f"{stem[:-1]}3" not in norms)


def _norm(stem, leaf, normal, closing):
    if leaf == "weight":
        scale = 0.25 if closing else 0.7 if "downsample" in stem else 1.0
        return scale * np.exp(0.15 * normal)
    return np.exp(0.2 * normal) if leaf == "running_var" else 0.1 * normal


def _weight(key, shape, normal):
    gain = next(gain for pattern, gain in GAINS if re.fullmatch(pattern, key))
    weight = normal * np.sqrt(gain / int(np.prod(shape[1:])))
    lanes = np.arange(LANES)
    if key == "key_proj.key_proj.weight":
        weight -= weight.mean(axis=(1, 2, 3), keepdims=True)
    elif key == "value_encoder.conv1.weight":
        weight[:, 3:] *= 3
        weight[:LANES, :3] *= 0.3
        weight[:LANES, 3] += 4 / 49
        weight[:LANES, 4:] -= 3 / 49
    elif key.startswith("value_encoder.fuser.block1.") and shape[1] > shape[0]:
        weight[:, 256:] *= 0.35
    elif key == "decoder.pred.weight":
        weight[0, :LANES, 1, 1] += 1.25 / LANES
    elif re.fullmatch(r"mem_compress\.compress_(key|value)\.weight", key):
        every = np.arange(shape[0])
        weight[every, every, 0, 1, 1] += 0.30
        weight[every, every, 1, 1, 1] += 0.67
    if LANE_KEYS.fullmatch(key):
        weight[lanes, lanes, shape[2] // 2, shape[3] // 2] += 1
    return weight
