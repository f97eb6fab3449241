"""Several annotated frames of an object: all of them are read, and masks may be known in part."""

import numpy as np
import pytest
import torch

from inference_core import MODES, InferenceCore
from inference_core.capture import can_compile
from util.errors import InputError


def planes_by_id(core, prob):
    return dict(zip((0, *core.objects), prob, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_a_second_reference_is_read_for_the_rest_of_the_video_in_every_mode(tiny_network, clip, mode):
    frames, truth = clip
    both, without = (InferenceCore(tiny_network, mode, mem_every=2) for _ in range(2))
    for index in range(12):
        for core in (both, without):
            prob = core.step(frames[index], truth[index] if index in (0, 5) else None)
            torch.testing.assert_close(prob.sum(0), torch.ones(72, 100))
    assert both.references == {1: [0, 5], 2: [0, 5]}
    for object_id in (1, 2):
        without.forget_reference(object_id, 5)
    assert without.references == {1: [0], 2: [0]}
    assert without.memory_bytes < both.memory_bytes
    assert not torch.equal(both.step(frames[12]), without.step(frames[12]))


@pytest.mark.parametrize("mode", MODES)
def test_forgetting_the_second_reference_leaves_what_the_mode_reads(tiny_network, clip, mode):
    frames, truth = clip
    core, plain = (InferenceCore(tiny_network, mode, mem_every=1) for _ in range(2))
    for index in range(6):
        core.step(frames[index], truth[index] if index in (0, 3) else None)
        plain.step(frames[index], truth[0] if index == 0 else None)
    for object_id in (1, 2):
        core.forget_reference(object_id, 3)
    positions = plain._groups[0]._key.shape[1]
    if mode == "stm":  # There, the frame was a reference and nothing else.
        positions -= positions // 6
    assert [group._key.shape[1] for group in core._groups] == [positions] * 2


def test_a_reference_of_one_object_is_none_of_the_others(tiny_network, clip):
    frames, truth = clip
    kept, replaced = (InferenceCore(tiny_network) for _ in range(2))
    for index in range(5):
        for core in (kept, replaced):
            core.step(frames[index], truth[0] if index == 0 else None)
    only_first = truth[5] * (truth[5] == 1)
    results = [planes_by_id(core, core.step(frames[5], only_first, replace=replace))
               for core, replace in ((kept, False), (replaced, True))]
    # What is kept makes no difference in the frame itself.
    assert all(torch.equal(results[0][object_id], results[1][object_id]) for object_id in (0, 1, 2))
    assert kept.references == {1: [0, 5], 2: [0]} and replaced.references == {1: [5], 2: [0]}
    ids = [core.to_mask(core.step(frames[6])).numpy() for core in (kept, replaced)]
    assert all(set(np.unique(mask)) <= {0, 1, 2} for mask in ids)


@pytest.mark.parametrize("size", [None, 48])
def test_probabilities_follow_their_objects_when_a_group_divides(tiny_network, clip, size):
    frames, truth = clip
    core = InferenceCore(tiny_network, size=size)
    three = truth[0].copy()
    three[:20, :20] = 3
    core.step(frames[0], three)
    core.step(frames[1])
    given = truth[2] * (truth[2] == 1)
    prob = core.step(frames[2], given)
    assert sorted(core.objects) == [1, 2, 3] and core.objects == list(prob.object_ids)
    assert ((core.to_mask(prob).numpy() == 1) == (given == 1)).all()
    assert core.references == {1: [0, 2], 2: [0], 3: [0]}
    # The memory holds the mask in the row of its object.
    group = next(group for group in core._groups if group.ids == [1])
    alone = InferenceCore(tiny_network, size=size)
    alone.step(frames[2], given)
    assert torch.equal(group.references[2][0], alone._groups[0].references[0][0])


def test_the_oldest_reference_but_the_first_goes_when_there_are_too_many(tiny_network, clip):
    frames, truth = clip
    core, growing = InferenceCore(tiny_network, max_references=3), InferenceCore(tiny_network, "stm", max_references=3)
    sizes = []
    for index in range(7):
        core.step(frames[index], truth[index])
        growing.step(frames[index], truth[index])
        sizes.append(core.memory_bytes)
    assert core.references == {1: [0, 5, 6], 2: [0, 5, 6]}
    assert len(set(sizes[2:])) == 1
    assert growing.references[1] == list(range(7))
    with pytest.raises(InputError, match="max_references is 0"):
        InferenceCore(tiny_network, max_references=0)


@pytest.mark.parametrize("mode", ["two-frames-compress", "stm"])
def test_one_reference_is_all_that_max_references_1_keeps(tiny_network, clip, mode):
    frames, truth = clip
    core = InferenceCore(tiny_network, mode, max_references=1)
    for index in range(4):
        core.step(frames[index], truth[index])
    assert core.references == {object_id: [0] if mode != "stm" else [0, 1, 2, 3] for object_id in (1, 2)}


def test_another_mask_for_the_same_frame_takes_the_place_of_its_reference(tiny_network, clip):
    frames, truth = clip
    core = InferenceCore(tiny_network)
    core.step(frames[0], truth[0])
    core.step(frames[4], truth[4], frame=4)
    before = core._groups[0].references[4]
    core.step(frames[4], truth[5], frame=4)
    assert core.references == {1: [0, 4], 2: [0, 4]}
    assert not torch.equal(before[1], core._groups[0].references[4][1])
    core.step(frames[0], truth[0], frame=0)
    assert core.references[1] == [0, 4]


def test_frames_are_counted_from_the_one_that_is_named(tiny_network, clip):
    frames, truth = clip
    core = InferenceCore(tiny_network)
    core.step(frames[9], truth[9], frame=9)
    core.step(frames[3], truth[3], frame=3)
    core.step(frames[4], needs_output=False)
    core.step(frames[5], truth[5])
    assert core.references[2] == [9, 3, 5]
    with pytest.raises(InputError, match="frame is -1"):
        core.step(frames[6], frame=-1)
    core.step(frames[6], truth[6])
    core.reset()
    core.step(frames[0], truth[0])
    assert core.references == {1: [0], 2: [0]}


def test_references_that_cannot_be_forgotten_are_named(tiny_network, clip):
    frames, truth = clip
    core = InferenceCore(tiny_network)
    core.step(frames[0], truth[0])
    core.step(frames[1], truth[1])
    for object_id, frame in ((1, 7), (9, 0)):
        with pytest.raises(InputError, match=f"frame {frame} is no reference of object {object_id}"):
            core.forget_reference(object_id, frame)
    core.forget_reference(1, 0)
    assert core.references == {1: [1], 2: [0, 1]}
    with pytest.raises(InputError, match="frame 1 is the only reference of object 1"):
        core.forget_reference(1, 1)
    assert core.step(frames[2]).isfinite().all()


@pytest.fixture(params=[None, 48, 100])
def tracked(request, tiny_network, clip):
    """A core that has tracked three frames, and the mask that it would give the fourth."""
    frames, truth = clip
    core, other = (InferenceCore(tiny_network, size=request.param) for _ in range(2))
    for index in range(3):
        for each in (core, other):
            each.step(frames[index], truth[0] if index == 0 else None)
    return core, other.to_mask(other.step(frames[3])).numpy()


def strokes_of(*strokes):
    """A partial mask: unknown but for strokes (rows, columns, value)."""
    mask = np.full((72, 100), 255, np.uint8)
    for rows, columns, value in strokes:
        mask[rows, columns] = value
    return mask


def test_strokes_correct_the_prediction_and_only_touched_objects_get_a_reference(tracked, clip):
    core, predicted = tracked
    y, x = np.argwhere(predicted == 0)[0]
    strokes = strokes_of((slice(y, y + 1), slice(x, x + 1), 1))
    ids = core.to_mask(core.step(clip[0][3], strokes, partial=True)).numpy()
    assert ids[y, x] == 1
    assert core.references == {1: [0, 3], 2: [0]}
    if core.size is None:
        assert ((ids != predicted) == (strokes != 255)).all()
    assert core.step(clip[0][4]).isfinite().all()


def test_a_stroke_of_background_touches_the_object_that_loses_pixels(tracked, clip):
    core, predicted = tracked
    assert (predicted == 2).any()
    y, x = np.median(np.argwhere(predicted == 2), 0).astype(int)
    y, x = min(np.argwhere(predicted == 2), key=lambda at: abs(at[0] - y) + abs(at[1] - x))
    strokes = strokes_of((slice(y, y + 3), slice(x, x + 3), 0))
    ids = core.to_mask(core.step(clip[0][3], strokes, partial=True)).numpy()
    assert not ids[strokes == 0].any() and (ids[predicted == 2] == 2).any()
    assert core.references[2] == [0, 3]


def test_a_stroke_of_one_object_touches_the_one_it_takes_pixels_from(tracked, clip):
    core, predicted = tracked
    y, x = np.argwhere(predicted == 2)[len(np.argwhere(predicted == 2)) // 2]
    strokes = strokes_of((slice(y - 1, y + 2), slice(x - 1, x + 2), 1))
    ids = core.to_mask(core.step(clip[0][3], strokes, partial=True)).numpy()
    assert (ids[strokes == 1] == 1).all()
    assert core.references == {1: [0, 3], 2: [0, 3]}


def test_strokes_of_a_new_object_are_its_mask(tracked, clip):
    core, _ = tracked
    strokes = strokes_of((slice(2, 12), slice(3, 23), 9))
    ids = core.to_mask(core.step(clip[0][3], strokes, partial=True)).numpy()
    assert ((ids == 9) == (strokes == 9)).all()
    assert core.references[9] == [3] and core.objects[-1] == 9
    core.reset()
    first = core.to_mask(core.step(clip[0][0], strokes, partial=True)).numpy()
    assert (first == 9 * (strokes == 9)).all() and core.references == {9: [0]}


def test_strokes_may_replace_what_the_memory_held_of_the_objects_they_touch(tracked, clip):
    core, predicted = tracked
    y, x = np.argwhere(predicted == 0)[0]
    prob = core.step(clip[0][3], strokes_of((y, x, 1)), partial=True, replace=True)
    assert core.references == {2: [0], 1: [3]} and core.objects == [2, 1] == list(prob.object_ids)
    assert core.to_mask(prob).numpy()[y, x] == 1


def test_strokes_that_say_nothing_change_nothing(tracked, clip):
    core, predicted = tracked
    assert (core.to_mask(core.step(clip[0][3], strokes_of(), partial=True)).numpy() == predicted).all()
    assert core.references == {1: [0], 2: [0]}
    core.reset()
    assert core.step(clip[0][0], strokes_of((0, 0, 0)), partial=True).shape[0] == 1 and core.objects == []


def test_a_partial_mask_that_knows_every_pixel_is_a_mask(tiny_network, clip):
    frames, truth = clip[0][:, :64, :96], clip[1][:, :64, :96]  # Without padding, where nothing is known.
    partial, whole = InferenceCore(tiny_network), InferenceCore(tiny_network)
    for index in range(8):
        mask = truth[index] if index in (0, 4) else None
        results = [core.step(frames[index], mask, partial=core is partial) for core in (partial, whole)]
        torch.testing.assert_close(*results, atol=1e-4, rtol=0)
    assert partial.references == whole.references == {1: [0, 4], 2: [0, 4]}


@pytest.mark.parametrize("mask, objects", [
    (np.zeros((72, 100), np.int64) + 256, None), (np.zeros((72, 100), np.int64) - 1, None),
    (np.full((72, 100), 0.5), None), (np.ones((1, 72, 100), np.uint8), [1]), (np.ones((72, 100), np.uint8), [1]),
])
def test_partial_masks_that_cannot_be_used_are_named(tiny_network, clip, mask, objects):
    core = InferenceCore(tiny_network)
    with pytest.raises(InputError, match="a partial mask is H×W object ids below 255"):
        core.step(clip[0][0], mask, objects, partial=True)
    assert core.objects == [] and core._next_frame == 0


@pytest.mark.slow
def test_a_compiled_core_reads_references_too(tiny_network, clip):
    if not can_compile("cpu"):
        pytest.skip("there is no compiler")
    frames, truth = clip
    plain, compiled = (InferenceCore(tiny_network, compile=on, max_references=4) for on in (False, True))
    ids = []
    for core in (plain, compiled):
        core.step(frames[0], truth[0])
        for index in range(1, 14):
            mask = truth[index] * (truth[index] != index % 3) if index % 2 else None
            found = core.to_mask(core.step(frames[index], mask))
            ids.append(found.numpy())
    assert plain.references == compiled.references
    assert np.mean(np.stack(ids[:13]) == np.stack(ids[13:])) > 0.999
