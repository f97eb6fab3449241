"""A snapshot of a network against the network itself."""

import dataclasses
import gc
import weakref

import pytest
import torch

from model import PRESETS
from model.inference import InferenceNetwork, PlainEngine, take_snapshot
from tests.conftest import recipe_network


@pytest.fixture(params=[pytest.param("base", marks=pytest.mark.slow), "compact", "tiny"], scope="module")
def network(request):
    return recipe_network(PRESETS[request.param])


@pytest.fixture(params=["with oneDNN", "without"])
def layout(request):
    with torch.backends.mkldnn.flags(enabled=request.param == "with oneDNN"):
        yield


def close(ours, plain):
    assert ours.shape == plain.shape
    assert (ours - plain).abs().max() <= 1e-4 * plain.abs().max()


PADDING = (5, 5, 4, 4)


def parts(engine):
    """What each part of an engine makes of an image of 40×70 and three objects; all parts have the same inputs."""
    torch.manual_seed(0)
    image, frame = engine.encode(torch.randint(0, 256, (3, 40, 70), dtype=torch.uint8), None, PADDING)
    masks = torch.rand(3, *image.shape[-2:])
    value_dim, (height, width) = engine.config.value_dim, frame.key.shape[-2:]
    value = torch.randn(3, value_dim, height, width).to(engine.dtype, memory_format=torch.channels_last)
    return {
        "image": image, "key": frame.key, "f16": frame.f16,
        "value": engine.encode_value(image, frame, masks, masks.sum(0) - masks),
        "logits": engine.decode(value, frame),
        "prob": engine.distribution(engine.decode(value, frame)),
        "key embedding": engine.aggregate_key(frame.key, frame.key.roll(1, 2)),
        "value embedding": engine.aggregate_value(value.roll(1, 2), value),
    }


@torch.inference_mode()
def test_every_part_is_the_same_function(network, layout):
    plain, ours = parts(PlainEngine(network)), parts(InferenceNetwork(network))
    for name, result in plain.items():
        close(ours[name], result)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(3, 5), (1, 4)])
def test_sam_with_squeeze_and_excitation_is_the_same_function(size):
    network = recipe_network(dataclasses.replace(PRESETS["tiny"], repeat=2))
    old, new = torch.randn(2, 3, 32, *size)
    close(InferenceNetwork(network).aggregate_value(old, new), network.mem_compress.aggregate_value(old, new))


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(network, dtype):
    exact, half = (parts(InferenceNetwork(network, each))["f16"].float() for each in (torch.float32, dtype))
    # Each of some fifty layers rounds to 8 bits in bfloat16.
    assert (exact - half).norm() < 0.05 * exact.norm()


def test_the_network_itself_is_left_as_it_is(tiny_network):
    before = {name: tensor.clone() for name, tensor in tiny_network.state_dict().items()}
    InferenceNetwork(tiny_network, torch.bfloat16)
    after = tiny_network.state_dict()
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)


@pytest.fixture
def own_network(tiny_network):
    """One that a test may change."""
    network = recipe_network(tiny_network.config)
    network.load_state_dict(tiny_network.state_dict())
    return network


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_snapshot_shares_nothing_with_the_network(own_network, dtype):
    with torch.inference_mode(False):
        snapshot = InferenceNetwork(own_network.to(dtype), dtype)
    before = {name: tensor.clone() for name, tensor in snapshot.state_dict().items()}
    result = parts(snapshot)
    for tensor in own_network.state_dict().values():
        tensor.data.add_(1)
    after = snapshot.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(result[name], again) for name, again in parts(snapshot).items())


@torch.inference_mode()
def test_weights_are_seen_from_outside_also_when_they_are_packed(tiny_network):
    """state_dict, load_state_dict and to() work before and after the first frame."""
    one, other = InferenceNetwork(tiny_network), InferenceNetwork(recipe_network(PRESETS["tiny"]))
    names = one.state_dict().keys()
    result = parts(one)
    parts(other)
    other.load_state_dict(one.state_dict())
    assert one.state_dict().keys() == names
    for snapshot in (one, other, one.to("cpu")):
        assert all(torch.equal(result[name], again) for name, again in parts(snapshot).items())
    with pytest.raises(TypeError, match="make another one"):
        one.to(torch.bfloat16)


@pytest.mark.slow
@torch.inference_mode()
def test_a_packed_snapshot_also_runs_where_onednn_is_switched_off_later(base_network):
    snapshot = InferenceNetwork(base_network)
    packed = parts(snapshot)
    with torch.backends.mkldnn.flags(enabled=False):
        for name, result in parts(snapshot).items():
            close(result, packed[name])


def test_a_network_has_one_snapshot_for_each_dtype(own_network):
    snapshot = take_snapshot(own_network)
    assert take_snapshot(own_network) is snapshot
    half = take_snapshot(own_network, torch.bfloat16)
    assert half is not snapshot and take_snapshot(own_network, torch.bfloat16) is half
    assert take_snapshot(own_network) is snapshot


CHANGES = {
    "in place": lambda network: network.decoder.pred.bias.detach().add_(1),
    "through .data": lambda network: network.decoder.pred.bias.data.add_(1),
    "through numpy": lambda network: network.decoder.pred.weight.detach().numpy().fill(0),
    "two weights exchanged": lambda network: network.decoder.pred.weight.data.copy_(
        network.decoder.pred.weight.data.flip(1)),
    "a norm's statistics": lambda network: network.key_encoder.bn1.running_mean.data.add_(1),
    "loaded": lambda network: network.load_state_dict(
        {name: tensor + 1 for name, tensor in network.state_dict().items()}),
}


@torch.inference_mode()
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_gets_a_new_snapshot_and_the_old_one_stays_as_it_was(own_network, change):
    with torch.inference_mode(False):
        old = take_snapshot(own_network)
        before = parts(old)
        CHANGES[change](own_network)
    new = take_snapshot(own_network)
    assert new is not old and take_snapshot(own_network) is new
    assert all(torch.equal(before[name], again) for name, again in parts(old).items())
    assert any(not torch.equal(before[name], again) for name, again in parts(new).items())


def test_a_network_that_is_gone_takes_its_snapshot_along(tiny_network):
    network = recipe_network(tiny_network.config)
    snapshot = weakref.ref(take_snapshot(network))
    del network
    gc.collect()
    assert snapshot() is None
