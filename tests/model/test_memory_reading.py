import pytest
import torch

from model import memory_reading
from model.memory_reading import affinity, read_all, read_top_k


@pytest.fixture
def memory():
    torch.manual_seed(0)
    return torch.randn(8, 30), torch.randn(8, 50), torch.randn(50, 6), torch.ones(50)


def test_affinity_is_the_negative_squared_distance_up_to_a_term_per_query(memory):
    query, key, *_ = memory
    distance = torch.cdist(query.T, key.T).square() / 8 ** 0.5
    difference = affinity(query, key) + distance
    assert torch.allclose(difference, difference[:, :1].expand_as(difference), atol=1e-4)


def test_reading_everything_is_reading_the_top_k_of_all(memory):
    query, key, value, copies = memory
    everything = read_all(query[None], key[None], value.T[None, None])[0, 0].T
    assert torch.allclose(read_top_k(query, key, value, copies, 50), everything, atol=1e-5)
    assert torch.allclose(read_top_k(query, key, value, copies, 1000), everything, atol=1e-5)


def test_only_the_top_k_are_read(memory):
    query, key, value, copies = memory
    nearest, position = affinity(query, key).topk(3)
    expected = (nearest.softmax(-1)[..., None] * value[position]).sum(1)
    assert torch.allclose(read_top_k(query, key, value, copies, 3), expected, atol=1e-5)


def test_tiles_change_nothing(memory, monkeypatch):
    query, key, value, copies = memory
    whole = read_top_k(query, key, value, copies, 5)
    monkeypatch.setitem(memory_reading.TILES, "cpu", 100)
    assert torch.allclose(read_top_k(query, key, value, copies, 5), whole, atol=1e-6)


@pytest.mark.parametrize("top_k", [1, 2, 7, 8, 60, 100])
def test_a_position_that_counts_twice_is_two(memory, top_k):
    """Also where only one of the two has a place in the top-k."""
    query, key, value, copies = memory
    twice = torch.cat([copies[:30], copies[30:] + 1])
    expected = read_top_k(query, torch.cat([key, key[:, 30:]], 1), torch.cat([value, value[30:]]),
                          torch.ones(70), top_k)
    assert torch.allclose(read_top_k(query, key, value, twice, top_k), expected, atol=1e-5)


@pytest.mark.parametrize("positions", [50, 400, 4001])
def test_long_memories_are_searched_in_groups_with_the_same_result(positions):
    torch.manual_seed(0)
    query, key, value = torch.randn(8, 30), torch.randn(8, positions), torch.randn(positions, 6)
    nearest, position = affinity(query, key).topk(5)
    expected = (nearest.softmax(-1)[..., None] * value[position]).sum(1)
    assert torch.allclose(read_top_k(query, key, value, torch.ones(positions), 5), expected, atol=1e-5)
