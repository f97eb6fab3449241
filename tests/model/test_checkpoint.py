import dataclasses
import pickle

import pytest
import torch

from model import PRESETS, RDE, load_network
from model.checkpoint import expected_shapes, preset_name
from tests.conftest import recipe_network
from tests.recipe import recipe_state
from util.errors import InputError


def saved(tmp_path, content):
    path = tmp_path / "w.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("change", [{}, {"repeat": 2}, {"sam": False}, {"sam": False, "single_object": True}])
@pytest.mark.parametrize("wrapped", [False, True])
def test_network_is_recognised_from_keys_and_shapes(tmp_path, change, wrapped):
    config = dataclasses.replace(PRESETS["tiny"], **change)
    state = recipe_state(expected_shapes(config))
    path = saved(tmp_path, {"network": state, "iteration": 7} if wrapped else state)
    network = load_network(path)
    assert network.config == config and preset_name(config) == "tiny"
    assert not network.training
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())


def test_a_network_of_one_s_own_may_have_a_list_of_dimensions():
    assert preset_name(dataclasses.replace(PRESETS["tiny"], decoder_dims=[32, 16, 16])) == "custom"


def test_published_network_has_the_published_keys():
    shapes = expected_shapes(PRESETS["base"])
    assert len(shapes) == 435
    assert sum(shape.numel() for shape in shapes.values()) == 64055966
    assert shapes["value_encoder.layer2.0.downsample.0.bias"] == (128,)
    assert shapes["mem_compress.compress_value.weight"] == (512, 512, 2, 3, 3)


def test_compact_network_without_the_scale_of_its_keys_is_refused(tmp_path):
    """Its masks would be others than those it was trained for."""
    state = recipe_state(expected_shapes(PRESETS["compact"]))
    assert load_network(saved(tmp_path, state)).config == PRESETS["compact"]
    del state["key_proj.scale"]
    with pytest.raises(InputError, match=r"1 missing \(key_proj\.scale\)"):
        load_network(saved(tmp_path, state))


def test_half_precision_weights_are_read_as_float32(tmp_path, tiny_network):
    state = {key: value.half() if value.is_floating_point() else value
             for key, value in tiny_network.state_dict().items()}
    network = load_network(saved(tmp_path, state))
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_no_fractions_are_refused(dtype, tmp_path, tiny_network):
    state = tiny_network.state_dict()
    state["key_comp.bias"] = state["key_comp.bias"].to(dtype)
    with pytest.raises(InputError, match=r"1 other type \(key_comp.bias\)"):
        load_network(saved(tmp_path, state))


def test_every_misfit_is_listed(tmp_path, tiny_network):
    state = tiny_network.state_dict()
    state["key_comp.other"] = state.pop("key_comp.bias")
    state["decoder.pred.weight"] = torch.zeros(2, 2)
    with pytest.raises(InputError) as error:
        load_network(saved(tmp_path, state))
    first, *table = str(error.value).splitlines()
    for part in ("w.pth", "'tiny'", "1 missing (key_comp.bias)", "1 unexpected (key_comp.other)",
                 "1 other shape (decoder.pred.weight)"):
        assert part in first
    assert any(line.split() == ["other", "shape", "decoder.pred.weight", "2×2", "1×16×3×3"] for line in table)


def test_long_lists_are_cut(tmp_path, tiny_network):
    state = {key: value for key, value in tiny_network.state_dict().items() if "key_encoder" not in key}
    with pytest.raises(InputError) as error:
        load_network(saved(tmp_path, state))
    assert "... and " in str(error.value) and len(str(error.value).splitlines()) < 25


def test_named_preset_must_fit(tmp_path, tiny_network):
    path = saved(tmp_path, tiny_network.state_dict())
    assert load_network(path, preset="tiny").config == PRESETS["tiny"]
    with pytest.raises(InputError, match="does not fit the network 'base'"):
        load_network(path, preset="base")
    with pytest.raises(InputError, match="no preset 'huge'"):
        load_network(path, preset="huge")


class Code:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.mark.parametrize("content, message", [
    ({"fc.weight": torch.zeros(3)}, "another network"),
    ({}, "another network"),
    ([1, 2], "something else"),
    ({"a": 1}, "something else"),
    (Code(), "refused"),
])
def test_other_files_are_refused(tmp_path, capsys, content, message):
    with pytest.raises(InputError, match=message):
        load_network(saved(tmp_path, content))
    assert "this must never run" not in capsys.readouterr().out


def test_files_that_are_not_checkpoints(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_network(tmp_path / "none.pth")
    with pytest.raises(InputError, match="a folder"):
        load_network(tmp_path)
    for content in (b"", b"hello", pickle.dumps(Code(), protocol=2), b"PK\x03\x04 cut off"):
        path = tmp_path / "file.pth"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"file\.pth"):
            load_network(path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_of_wrapped_networks(tmp_path, tiny_network, prefix):
    state = {f"{prefix}{name}": value for name, value in tiny_network.state_dict().items()}
    loaded = load_network(saved(tmp_path, state)).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in tiny_network.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, tiny_network, value):
    state = {name: tensor.clone() for name, tensor in tiny_network.state_dict().items()}
    state["key_comp.weight"][0, 0, 0, 0] = value
    with pytest.raises(InputError, match=r"w\.pth: key_comp\.weight has values that are not finite"):
        load_network(saved(tmp_path, state))


def test_flipped_bits_are_noticed(tmp_path, tiny_checkpoint):
    """The archive's checksums tell, wherever the bit is."""
    content = tiny_checkpoint.read_bytes()
    path = tmp_path / "flipped.pth"
    for place in range(20_000, len(content) - 20_000, len(content) // 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:])
        with pytest.raises(InputError, match=r"flipped\.pth: damaged"):
            load_network(path)


def test_truncated_checkpoint(tmp_path, tiny_checkpoint):
    path = tmp_path / "cut.pth"
    path.write_bytes(tiny_checkpoint.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"cut\.pth: damaged"):
        load_network(path)


@pytest.mark.parametrize("change", [{}, {"repeat": 1}, {"sam": False, "single_object": True}])
def test_network_trains_in_every_part(change):
    """Every parameter takes part in a step as training makes it."""
    network = recipe_network(dataclasses.replace(PRESETS["tiny"], **change)).requires_grad_(True)
    images = torch.rand(2, 3, 32, 48)
    key, f16_thin, f16, f8, f4 = network.encode_key(images)
    masks = torch.rand(2, 1 if network.config.single_object else 2, 32, 48)
    value = network.encode_value(images, f16, masks)
    if network.config.sam:
        key = network.mem_compress.aggregate_key(key, key)
        value = network.mem_compress.aggregate_value(*[value.flatten(0, 1)] * 2).unflatten(0, value.shape[:2])
    logits = network.decode(value * key.mean(), f16_thin, f8, f4)
    assert logits.shape == masks.shape
    logits.sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_new_network_is_random_and_reproducible():
    networks = []
    for _ in range(2):
        torch.manual_seed(1)
        networks.append(RDE(PRESETS["tiny"]))
    states = [network.state_dict().values() for network in networks]
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))
