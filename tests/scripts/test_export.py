import torch

import export_model
from model import PRESETS, load_network
from tests.conftest import recipe_network
from util.errors import run_script


def export(*arguments):
    return run_script(export_model.get_args_parser(), export_model.main, [str(argument) for argument in arguments])


def test_half_the_size_same_network(tiny_network, tiny_checkpoint, tmp_path, capsys):
    assert export(tiny_checkpoint, "--output", tmp_path / "small.pth") == 0
    assert "tiny" in capsys.readouterr().out
    assert (tmp_path / "small.pth").stat().st_size < 0.6 * tiny_checkpoint.stat().st_size
    small = load_network(tmp_path / "small.pth")
    assert small.config == tiny_network.config
    for key, value in tiny_network.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(small.state_dict()[key], expected)


def test_mean_of_several(tiny_network, tiny_checkpoint, tmp_path):
    state = {key: value * 3 if value.is_floating_point() else value for key, value in tiny_network.state_dict().items()}
    torch.save(state, tmp_path / "other.pth")
    assert export(tiny_checkpoint, tmp_path / "other.pth", "--output", tmp_path / "mean.pth") == 0
    mean = load_network(tmp_path / "mean.pth").state_dict()
    for key, value in tiny_network.state_dict().items():
        expected = (2 * value).half().float() if value.is_floating_point() else value
        assert torch.equal(mean[key], expected), key


def test_mean_of_different_networks(tiny_checkpoint, tmp_path, capsys):
    torch.save(recipe_network(PRESETS["compact"]).state_dict(), tmp_path / "compact.pth")
    assert export(tiny_checkpoint, tmp_path / "compact.pth", "--output", tmp_path / "mean.pth") == 2
    assert "compact.pth: not the same network" in capsys.readouterr().err
    assert not (tmp_path / "mean.pth").exists()


def test_compact_is_recognised(tmp_path):
    torch.save(recipe_network(PRESETS["compact"]).state_dict(), tmp_path / "network.pth")
    assert export(tmp_path / "network.pth", "--output", tmp_path / "compact.pth") == 0
    assert load_network(tmp_path / "compact.pth").config == PRESETS["compact"]
    assert (tmp_path / "compact.pth").stat().st_size < 10e6


def test_what_float16_cannot_hold(tiny_network, tmp_path, capsys):
    state = {**tiny_network.state_dict(), "key_proj.key_proj.bias": torch.full((16,), 1e6)}
    torch.save(state, tmp_path / "large.pth")
    assert export(tmp_path / "large.pth", "--output", tmp_path / "small.pth") == 2
    assert "key_proj.key_proj.bias" in capsys.readouterr().err
    assert not (tmp_path / "small.pth").exists()


def test_where_nothing_can_be_written(tiny_checkpoint, tmp_path, capsys):
    assert export(tiny_checkpoint, "--output", tmp_path / "missing" / "small.pth") == 2
    assert "missing" in capsys.readouterr().err
