"""Single modules against the published implementation's outputs."""

import json

import numpy as np
import pytest
import torch

from model import NetworkConfig
from model.inference import prepare_image
from model.memory_reading import read_top_k
from model.network import aggregate, distribution
from tests.conftest import SHARED, recipe_network

CASE = SHARED / "parity" / "inference" / "d_modules.npz"
pytestmark = pytest.mark.skipif(not CASE.exists(), reason="reference results are not here")


@pytest.fixture(scope="module")
def golden():
    with np.load(CASE) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def encoded(base_network, golden):
    """Per frame: normalised image, key, f16_thin, f16, f8, f4; and the values of frames 0 and 1."""
    with torch.inference_mode():
        images = [prepare_image(frame.permute(2, 0, 1), None, (0, 0, 0, 0)) for frame in golden["frames"]]
        features = [base_network.encode_key(image) for image in images]
        values = []
        for index in (0, 1):
            planes = torch.stack([golden["gt_masks"][index] == object_id for object_id in (1, 2)]).float()
            masks = aggregate(planes).softmax(0)[1:]
            values.append(base_network.encode_value(images[index], features[index][2], masks[None])[0])
    return features, values


def close(ours, reference):
    error = (ours - reference.reshape(ours.shape)).abs()
    assert (error <= 2e-4 + 1e-4 * reference.reshape(ours.shape).abs()).all(), f"largest error {error.max():.1e}"


def test_key_encoder(golden, encoded):
    key, f16_thin, f16, f8, f4 = encoded[0][0]
    for name, ours in (("k16", key), ("f16_thin", f16_thin), ("f16", f16), ("f8", f8), ("f4", f4)):
        close(ours, golden[name])


def test_value_encoder(golden, encoded):
    close(encoded[1][0], golden["value_frame0"])
    close(encoded[1][1], golden["value_frame1"])


@pytest.mark.parametrize("repeat", [0, 2])
def test_sam(base_network, golden, repeat):
    prefix = f"repeat{repeat}_" if repeat else ""
    network = base_network
    if repeat:
        network = recipe_network(NetworkConfig(repeat=repeat))
    keys = [golden[f"key_frame{frame}"].squeeze(2) for frame in (0, 1)]
    values = [golden[f"value_frame{frame}"].squeeze(2) for frame in (0, 1)]
    with torch.inference_mode():
        close(network.mem_compress.aggregate_key(*keys), golden[prefix + "compress_key"])
        close(network.mem_compress.aggregate_value(*values), golden[prefix + "compress_value"])


@pytest.mark.parametrize("mode, parts", [
    ("stm", ["frame0", "frame1"]),
    ("two-frames-compress", ["compressed", "frame1", "frame0", "frame0"]),
])
def test_readout(golden, mode, parts):
    keys = {f"frame{n}": golden[f"key_frame{n}"] for n in (0, 1)} | {"compressed": golden["compress_key"]}
    values = {f"frame{n}": golden[f"value_frame{n}"] for n in (0, 1)} | {"compressed": golden["compress_value"]}
    key = torch.cat([keys[part].reshape(64, -1) for part in parts], 1)
    value = torch.cat([values[part].reshape(2 * 512, -1).T for part in parts])
    top = json.loads(CASE.with_suffix(".json").read_text())["top"]
    query = golden["query_k16"][0].flatten(1)
    close(read_top_k(query, key, value, torch.ones(key.shape[1]), top).T, golden[f"readout:{mode}"])
    if parts[-1] == parts[-2]:
        # One copy that counts twice is the same.
        size = key.shape[1] // len(parts)
        copies = torch.ones(3 * size)
        copies[-size:] = 2
        close(read_top_k(query, key[:, :-size], value[:-size], copies, top).T, golden[f"readout:{mode}"])


def test_decoder(base_network, golden, encoded):
    _, f16_thin, _, f8, f4 = encoded[0][2]
    readout = golden["readout:two-frames-compress"]
    with torch.inference_mode():
        close(base_network.decode(readout[None], f16_thin, f8, f4)[0], golden["decoder_logits"])


def test_soft_aggregation_also_at_its_clamps(golden):
    sigmoid = golden["decoder_logits"].sigmoid().squeeze(1)
    edge = golden["aggregate_edge_in"].squeeze(1)
    for aggregated in (lambda prob: aggregate(prob).softmax(0), distribution):
        close(aggregated(sigmoid), golden["aggregate"])
        close(aggregated(edge), golden["aggregate_edge_out"])
