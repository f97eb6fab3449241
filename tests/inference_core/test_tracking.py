"""track_frames, the loop over a video's frames, against a core that is stepped by hand."""

import numpy as np
import pytest

from inference_core import InferenceCore, track_frames
from inference_core.sizes import network_size, pick_size
from model import PRESETS
from util.errors import InputError


def named(frames):
    return [(f"f{number}", frame) for number, frame in enumerate(frames)]


def test_it_does_what_stepping_by_hand_does(tiny_network, clip):
    frames, truth = clip[0][:9], clip[1][:9]
    given = {"f1": truth[1] * (truth[1] == 1), "f4": truth[4] * (truth[4] == 2)}
    core = InferenceCore(tiny_network)
    tracked = list(track_frames(core, named(frames), lambda name, image: given.get(name)))
    assert [frame.name for frame in tracked] == [f"f{number}" for number in range(9)]
    assert [frame.objects for frame in tracked] == [[]] + 3 * [[1]] + 5 * [[1, 2]]
    assert tracked[0].ids is None and tracked[0].probabilities is None
    other = InferenceCore(tiny_network)
    for number, frame in enumerate(tracked):
        prob = other.step(frames[number], given.get(frame.name), end=number == 8)
        assert (frame.image == frames[number]).all() and frame.seconds > 0
        if number:
            assert (frame.ids == other.to_mask(prob).numpy()).all()
            assert (frame.probabilities == prob).all()


@pytest.mark.parametrize("form, expected", [
    (lambda ids: ids, [1, 2]), (lambda ids: ids.tolist(), [1, 2]), (lambda ids: 5.0 * ids, [5, 10]),
    (lambda ids: (ids > 0) * np.uint8(255), [1]), (lambda ids: ids > 0, [1]), (lambda ids: 0 * ids, []),
    (lambda ids: (ids, [2, 9]), [2]), (lambda ids: (ids, np.array([1, 2])), [1, 2]),
    (lambda ids: (ids, (number for number in (1, 2))), [1, 2]), (lambda ids: (ids == 1, [7]), [7]),
    (lambda ids: (np.stack([ids == 1, ids == 3]), [4, 5]), [4]),
])
def test_the_given_objects_are_those_that_the_core_has_taken(tiny_network, clip, form, expected):
    given = {"f0": form(clip[1][0])}
    first, second = track_frames(InferenceCore(tiny_network), named(clip[0][:2]), lambda name, image: given.get(name))
    assert list(first.given) == first.objects == expected and not second.given
    assert all(type(number) is int for number in first.given)


def test_frames_that_nobody_wants_have_no_mask_and_change_no_other(tiny_network, clip):
    frames, truth = clip[0][:8], clip[1][:8]
    first = {"f0": truth[0]}
    every, some = ({frame.name: frame.ids for frame in track_frames(
        InferenceCore(tiny_network), named(frames), lambda name, image: first.get(name), wanted=wanted)}
        for wanted in (None, lambda name: name in ("f0", "f5", "f7")))
    assert [name for name, ids in some.items() if ids is not None] == ["f0", "f5", "f7"]
    assert all((some[name] == every[name]).all() for name in ("f0", "f5", "f7"))


def test_frames_before_a_damaged_one_are_not_lost(tiny_network, clip):
    frames, truth = clip

    def damaged():
        yield from named(frames[:4])
        raise InputError("frame 4 is damaged")

    names = []
    with pytest.raises(InputError, match="frame 4 is damaged"):
        for frame in track_frames(InferenceCore(tiny_network), damaged(),
                                  lambda name, image: truth[0] if name == "f0" else None):
            names.append(frame.name)
    assert names == ["f0", "f1", "f2", "f3"]


def test_only_a_few_frames_are_read_ahead(tiny_network, clip):
    read = []

    def counted():
        for name, frame in named(np.concatenate([clip[0]] * 3)):
            read.append(name)
            yield name, frame

    tracked = track_frames(InferenceCore(tiny_network), counted(),
                           lambda name, image: clip[1][0] if name == "f0" else None)
    next(tracked)
    assert len(read) < 10
    tracked.close()


@pytest.mark.parametrize("asked, frame_size, expected", [
    (480, (854, 480), None), (480, (1920, 1080), 480), (480, (640, 360), 480), (480, (240, 427), 480),
    (480, (100, 72), 144), (0, (100, 72), None), (0, (1920, 1080), None),
])
def test_small_frames_are_enlarged_to_twice_their_size_at_most(asked, frame_size, expected):
    assert network_size(asked, frame_size) == expected


@pytest.mark.parametrize("asked, preset, dataset, expected", [
    (None, "compact", 480, 560), (None, "compact", 0, 560), (None, "base", 480, 480), (None, "base", 0, None),
    (480, "compact", 0, 480), (0, "compact", 480, None), (720, "base", 0, 720),
])
def test_the_network_says_at_which_size_it_computes_unless_somebody_asks(asked, preset, dataset, expected):
    assert pick_size(asked, PRESETS[preset], dataset) == expected
