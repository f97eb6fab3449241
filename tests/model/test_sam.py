"""SAM: what happens when it is applied to its own result again and again."""

import dataclasses

import pytest
import torch

from model import PRESETS, load_network
from model.inference import take_snapshot
from model.network import RDE
from tests.conftest import recipe_network
from util.hyper_para import COMPACT

BOUNDED = dataclasses.replace(PRESETS["tiny"], bounded=True)


def longest(x):
    """The norm of the longest vector of channels in B×C×h×w."""
    return x.norm(dim=1).max().item()


def aggregate(sam, part, times):
    """The norm of the longest vector of the embedding relative to those that went in, after each aggregation."""
    function = getattr(sam, f"aggregate_{part}")
    generator = torch.Generator().manual_seed(1)
    dim = PRESETS["tiny"].key_dim if part == "key" else PRESETS["tiny"].value_dim
    embedding = torch.randn(1, dim, 3, 4, generator=generator)
    most, ratios = longest(embedding), []
    for _ in range(times):
        new = torch.randn(1, dim, 3, 4, generator=generator)
        most = max(most, longest(new))
        embedding = function(embedding, new)
        ratios.append(longest(embedding) / most)
    return ratios


def exploding_network(config):
    """A network whose SAM makes long vectors longer."""
    network = recipe_network(config)
    for part in (network.mem_compress.compress_key, network.mem_compress.compress_value):
        part.weight.data *= 20
    return network.eval()


@pytest.mark.parametrize("part", ["key", "value"])
@torch.no_grad()
def test_bounded_embeddings_stay_as_short_as_what_goes_in(part):
    network = exploding_network(BOUNDED)
    assert not aggregate(exploding_network(PRESETS["tiny"]).mem_compress, part, 20)[-1] < 1e3
    ratios = aggregate(network.mem_compress, part, 200)
    assert max(ratios) <= 1.0001
    # It is still an embedding: not zero, not constant.
    assert min(ratios) > 0.5
    assert max(aggregate(take_snapshot(network), part, 200)) <= 1.0001


@torch.no_grad()
def test_what_is_short_enough_stays_as_it_is():
    plain, bounded = recipe_network(PRESETS["tiny"]), recipe_network(BOUNDED)
    old, new = 100 * torch.randn(2, 1, PRESETS["tiny"].key_dim, 3, 4)
    old, new = old.clone(), new.clone()
    for network in (plain, bounded):
        network.mem_compress.compress_key.weight.data *= 1e-6
    assert torch.equal(plain.mem_compress.aggregate_key(old, new), bounded.mem_compress.aggregate_key(old, new))


def test_nothing_stays_nothing():
    nothing = torch.zeros(1, PRESETS["tiny"].value_dim, 3, 4)
    assert recipe_network(BOUNDED).mem_compress.aggregate_value(nothing, nothing).isfinite().all()


def test_checkpoints_tell_whether_sam_is_bounded(tmp_path):
    for config in (BOUNDED, PRESETS["tiny"]):
        torch.save(RDE(config).state_dict(), tmp_path / "network.pth")
        assert load_network(tmp_path / "network.pth").config == config


def test_the_shipped_network_is_bounded():
    assert load_network(COMPACT).config == PRESETS["compact"]
