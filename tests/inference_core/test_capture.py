"""Replaying, on a graph that is none: a Replay of tests/replay.py."""

from typing import NamedTuple

import pytest
import torch

from inference_core.capture import CapturedFunction
from tests.replay import record_replay


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@pytest.fixture
def captures(monkeypatch):
    """Functions that were captured, in order."""
    made = []

    def record(self, arguments):
        made.append(self._function)
        return record_replay(self, arguments)

    monkeypatch.setattr(CapturedFunction, "_record", record)
    return made


def split(x, offset):
    return x + offset, Pair(x * 2, x * 3)


def test_nested_results_travel_from_graph_to_graph_without_a_copy(captures):
    static = set()
    first = CapturedFunction(split, static, reused=True)
    given = []
    second = CapturedFunction(lambda pair, factor: given.append(pair) or (pair.first + pair.second) * factor, static)
    for number in range(3):
        total, pair = first(torch.full((2,), float(number)), 1)
        assert torch.equal(total, torch.full((2,), number + 1.0)) and isinstance(pair, Pair)
        assert torch.equal(second(pair, 2), torch.full((2,), 10.0 * number))
        assert given[-1].first is pair.first and given[-1].second is pair.second
    assert len(captures) == 2


def test_results_are_copies_unless_they_may_be_overwritten(captures):
    function = CapturedFunction(split, set())
    _, before = function(torch.zeros(2), 0)
    function(torch.ones(2), 0)
    assert not before.first.any()


def test_the_graph_used_longest_ago_goes_and_its_results_are_no_longer_static(captures):
    static = set()
    function = CapturedFunction(split, static, reused=True, kept=2)
    results = [function(torch.ones(length), 0) for length in (1, 2)]
    function(torch.ones(1), 0)
    assert len(captures) == 2 and len(static) == 6
    _, pair = function(torch.ones(3), 0)
    assert len(captures) == 3 and len(static) == 6
    assert pair.first.data_ptr() in static and results[1][0].data_ptr() not in static
    function(torch.ones(1), 0)
    assert len(captures) == 3
    function(torch.ones(2), 0)
    assert len(captures) == 4
