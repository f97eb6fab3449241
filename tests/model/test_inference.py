"""The inference form of a network against the network itself."""

import dataclasses

import pytest
import torch

from model import PRESETS
from model.inference import InferenceNetwork
from tests.conftest import recipe_network


@pytest.fixture(params=list(PRESETS), scope="module")
def network(request):
    return recipe_network(PRESETS[request.param])


@pytest.fixture(params=["prepared for the device", "plain"])
def layout(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr("model.onednn.takes", lambda tensor: False)


def close(ours, plain):
    assert ours.shape == plain.shape
    assert (ours - plain).abs().max() <= 1e-4 * plain.abs().max()


@torch.inference_mode()
def test_every_part_is_the_same_function(network, layout):
    torch.manual_seed(0)
    form = InferenceNetwork(network)
    image = torch.randn(1, 3, 48, 80)
    key, f16_thin, f16, f8, f4 = network.encode_key(image)
    frame = form.encode_key(image)
    close(frame.key, key)
    close(frame.f16, f16)

    masks = torch.rand(3, 48, 80)
    others = masks.sum(0) - masks
    value = network.encode_value(image, f16, masks[None])[0]
    close(form.encode_value(image, frame, masks, others), value)
    close(form.decode(value, frame), network.decode(value[None], f16_thin, f8, f4)[0])

    sam, old = network.mem_compress, value.roll(1, 2)
    close(form.aggregate_key(key, key.roll(1, 2)), sam.aggregate_key(key, key.roll(1, 2)))
    close(form.aggregate_value(old, value), sam.aggregate_value(old, value))


@torch.inference_mode()
@pytest.mark.parametrize("size", [(3, 5), (1, 4)])
def test_sam_with_squeeze_and_excitation_is_the_same_function(size):
    network = recipe_network(dataclasses.replace(PRESETS["tiny"], repeat=2))
    old, new = torch.randn(2, 3, 32, *size)
    close(InferenceNetwork(network).aggregate_value(old, new), network.mem_compress.aggregate_value(old, new))


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(network, dtype):
    image = torch.randn(1, 3, 48, 80)
    exact, half = (InferenceNetwork(network, each).encode_key(image).f16.float() for each in (torch.float32, dtype))
    # Each of some fifty layers rounds to 8 bits in bfloat16.
    assert (exact - half).norm() < 0.05 * exact.norm()


def test_the_network_itself_is_left_as_it_is(tiny_network):
    before = {name: tensor.clone() for name, tensor in tiny_network.state_dict().items()}
    InferenceNetwork(tiny_network, torch.bfloat16)
    after = tiny_network.state_dict()
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
