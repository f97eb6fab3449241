"""What the inference core promises beyond the published masks."""

import collections
import dataclasses

import numpy as np
import pytest
import torch

from inference_core import MODES, InferenceCore, save_state
from inference_core.capture import can_compile
from inference_core.memory import MemoryState, ObjectMemory, needs_sam
from model import PRESETS
from model.inference import PlainEngine, take_snapshot
from tests.conftest import recipe_network
from util.errors import InputError


def play(core, frames, masks, **options):
    """Ids of every frame; masks {index: mask}."""
    return [core.to_mask(core.step(frame, masks.get(index), **options)).numpy()
            for index, frame in enumerate(frames)]


@pytest.mark.parametrize("mode", MODES)
def test_memory_does_not_grow_with_the_video_except_in_stm(tiny_network, clip, mode):
    frames, truth = clip
    core = InferenceCore(tiny_network, mode)
    sizes = []
    for index in range(24):
        core.step(frames[index % len(frames)], truth[0] if index == 0 else None)
        sizes.append(core.memory_bytes)
    assert (sizes[-1] > sizes[12]) == (mode == "stm")
    if mode != "stm":
        assert len(set(sizes[3:])) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(16, 64), (64, 16), (16, 16), (7, 40)])
def test_sides_of_one_cell_and_memories_smaller_than_top_k(tiny_network, mode, size):
    rng = np.random.default_rng(0)
    core = InferenceCore(tiny_network, mode, mem_every=1, top_k=40)
    mask = np.zeros(size, np.uint8)
    mask[:4, :5] = 1
    for index in range(5):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        prob = core.step(image, mask if index == 0 else None)
        assert prob.shape == (2, *size)
        assert torch.allclose(prob.sum(0), torch.ones(size))


def test_ids_are_kept_apart_from_places(tiny_network, clip):
    frames, truth = clip
    ids = np.array([0, 200, 7], np.uint8)
    plain, renamed = InferenceCore(tiny_network), InferenceCore(tiny_network)
    for index, frame in enumerate(frames):
        prob = plain.step(frame, truth[0] if index == 0 else None)
        other = renamed.step(frame, ids[truth[0]] if index == 0 else None)
        assert renamed.objects == [7, 200]
        # Another order of the objects rounds differently on some processors.
        torch.testing.assert_close(other[[0, 2, 1]], prob, atol=1e-4, rtol=0)
        first, second = prob.topk(2, dim=0).values
        wrong = ids[plain.to_mask(prob).numpy()] != renamed.to_mask(other).numpy()
        assert not (wrong & (first - second > 1e-3).numpy()).any()


def test_late_object_gets_its_own_memory_and_overrides_there(tiny_network, clip):
    frames, truth = clip
    first, second = truth * (truth == 1), truth * (truth == 2)
    core = InferenceCore(tiny_network)
    ids = play(core, frames[:6], {0: first[0], 4: second[4]})
    assert core.objects == [1, 2]
    assert all(2 not in mask for mask in ids[:4])
    assert (ids[4][second[4] == 2] == 2).all()
    groups = core._groups
    assert [group.ids for group in groups] == [[1], [2]]
    # Objects that start together share one affinity.
    core = InferenceCore(tiny_network)
    core.step(frames[0], truth[0])
    assert [group.ids for group in core._groups] == [[1, 2]]


def test_before_the_first_mask_all_is_background(tiny_network, clip):
    frames, truth = clip
    core = InferenceCore(tiny_network)
    ids = play(core, frames[:5], {2: truth[2]})
    assert not ids[0].any() and not ids[1].any() and ids[2].any()


def test_waiting_for_the_first_mask_changes_nothing(tiny_network, clip):
    frames, truth = clip
    late = play(InferenceCore(tiny_network), frames, {5: truth[5]})
    fresh = play(InferenceCore(tiny_network), frames[5:], {0: truth[5]})
    assert all((one == other).all() for one, other in zip(late[5:], fresh, strict=True))


def test_replaced_objects_start_anew(tiny_network, clip):
    """Masks for all known objects make a fresh start: nothing of the memory that went astray is left."""
    frames, truth = clip
    core = InferenceCore(tiny_network)
    corrected = play(core, frames[:7], {0: truth[0]})
    corrected += play(core, frames[7:8], {0: truth[7]}, replace=True) + play(core, frames[8:], {})
    assert core.references == {1: [7], 2: [7]}
    fresh = play(InferenceCore(tiny_network), frames[7:], {0: truth[7]})
    assert all((one == other).all() for one, other in zip(corrected[7:], fresh, strict=True))


def test_correcting_one_object_replaces_its_mask_and_keeps_the_other(tiny_network, clip):
    frames, truth = clip
    core = InferenceCore(tiny_network)
    ids = play(core, frames[:6], {0: truth[0], 5: truth[5] * (truth[5] == 2)})
    assert sorted(core.objects) == [1, 2]
    assert ((ids[5] == 2) == (truth[5] == 2)).all()
    assert (ids[5] == 1).any()


class CountingEngine:
    """An engine that runs another one and counts the calls of its parts."""

    def __init__(self, engine):
        self.engine = engine
        self.calls = collections.Counter()

    def __getattr__(self, name):
        part = getattr(self.engine, name)
        if not callable(part):
            return part
        return lambda *inputs: self.calls.update([name]) or part(*inputs)


def test_skipped_frames_cost_nothing_and_change_nothing(tiny_network, clip):
    frames, truth = clip
    full = play(InferenceCore(tiny_network), frames, {0: truth[0]})
    engine = CountingEngine(take_snapshot(tiny_network))
    core = InferenceCore(engine)
    for index, frame in enumerate(frames):
        wanted = index % 5 == 0
        prob = core.step(frame, truth[0] if index == 0 else None, needs_output=wanted)
        assert (prob is not None) == wanted
        if wanted:
            assert (core.to_mask(prob).numpy() == full[index]).all()
    assert engine.calls["encode"] == sum(index % 5 == 0 or index % 3 == 0 for index in range(len(frames)))


def test_last_frame_is_not_remembered(tiny_network, clip):
    frames, truth = clip
    engine = CountingEngine(take_snapshot(tiny_network))
    core = InferenceCore(engine)
    for index, frame in enumerate(frames[:4]):
        core.step(frame, truth[0] if index == 0 else None, end=index == 3)
    assert engine.calls["encode_value"] == 1


def test_chunks_of_objects_give_the_same(tiny_network, clip):
    frames, truth = clip
    whole, chunked = (InferenceCore(tiny_network, chunk_size=size) for size in (8, 1))
    for index, frame in enumerate(frames):
        mask = truth[0] if index == 0 else None
        assert torch.allclose(whole.step(frame, mask), chunked.step(frame, mask), atol=1e-5)


def test_images_as_bytes_and_floats_and_masks_as_ids_and_planes_are_one(tiny_network, clip):
    frames, truth = clip
    image = torch.from_numpy(frames[0].copy())
    planes = torch.stack([torch.from_numpy(truth[0]) == object_id for object_id in (1, 2)])
    inputs = [(frames[0], truth[0], None), (image, truth[0], [1, 2]),
              (image.permute(2, 0, 1), torch.from_numpy(truth[0]), None),
              (image.permute(2, 0, 1) / 255, planes, [1, 2]), (image.permute(2, 0, 1) / 255, planes.float(), (1, 2))]
    results = []
    for first_image, mask, objects in inputs:
        core = InferenceCore(tiny_network)
        core.step(first_image, mask, objects)
        results.append(core.step(frames[1]))
    assert all(torch.allclose(results[0], other, atol=1e-6) for other in results[1:])


def test_deleted_object_is_gone_and_the_other_goes_on(tiny_network, clip):
    frames, truth = clip
    core = InferenceCore(tiny_network)
    play(core, frames[:5], {0: truth[0]})
    core.delete_objects([1])
    assert core.objects == [2]
    prob = core.step(frames[5])
    assert prob.shape[0] == 2 and set(np.unique(core.to_mask(prob))) <= {0, 2}
    play(core, frames[6:12], {})
    with pytest.raises(InputError, match="no object 1"):
        core.delete_objects([1])
    core.delete_objects([2])
    assert not core.to_mask(core.step(frames[12])).any()


def test_reset_makes_it_new(tiny_network, clip):
    frames, truth = clip
    core = InferenceCore(tiny_network)
    once = play(core, frames, {0: truth[0]})
    core.reset()
    again = play(core, frames, {0: truth[0]})
    assert all((one == other).all() for one, other in zip(once, again, strict=True))


def test_computing_at_another_size_gives_probabilities_at_the_frame_s(tiny_network, clip):
    frames, truth = clip
    core = InferenceCore(tiny_network, size=48)
    for index, frame in enumerate(frames[:5]):
        prob = core.step(frame, truth[0] if index == 0 else None)
        assert prob.shape == (3, 72, 100)
        assert torch.allclose(prob.sum(0), torch.ones(72, 100), atol=1e-5)
    assert core._groups[0]._key.shape[1] == 3 * (48 // 16) * (80 // 16)  # 48×66, padded to 48×80


def test_mixed_precision_stays_close(tiny_network, clip):
    frames, truth = clip
    exact, mixed = (play(InferenceCore(tiny_network, amp=amp), frames, {0: truth[0]}) for amp in (False, True))
    assert np.mean(np.stack(exact) == np.stack(mixed)) > 0.95


@pytest.mark.parametrize("part", ["key", "value"])
def test_an_embedding_that_is_not_finite_gives_way_to_the_last_frame(clip, part):
    frames, truth = clip
    network = recipe_network(PRESETS["tiny"])
    getattr(network.mem_compress, f"compress_{part}").weight.data *= 1e38
    cores = [InferenceCore(network, mode, mem_every=2, places=False) for mode in ("compress", "last")]
    for index, frame in enumerate(frames):
        prob, expected = (core.step(frame, truth[0] if index == 0 else None) for core in cores)
        torch.testing.assert_close(prob, expected, atol=1e-5, rtol=0)


def test_extreme_affinities_stay_finite(tiny_network, clip):
    """The published softmax does not subtract the maximum and overflows above 88."""
    frames, truth = clip
    network = recipe_network(tiny_network.config)
    with torch.no_grad():
        network.key_proj.key_proj.weight *= 100
    core = InferenceCore(network)
    for index, frame in enumerate(frames[:6]):
        assert core.step(frame, truth[0] if index == 0 else None).isfinite().all()


def test_annotated_frame_counts_twice_in_two_frames_modes():
    """The published results have this: its positions take two of the top-k places and twice the weight."""
    key = torch.zeros(1, 1, 1)
    memory = ObjectMemory("two-frames", None, MemoryState([1], {0: (key, torch.ones(1, 1, 1, 1))}))
    memory.add(key, torch.zeros(1, 1, 1, 1))
    assert memory.read(key, 40).item() == pytest.approx(2 / 3)
    assert memory.read(key, 2).item() in (0.5, 1)


def test_of_several_references_the_nearest_in_time_counts_twice():
    key, one, zero = torch.zeros(1, 1, 1), torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    memory = ObjectMemory("two-frames", None, MemoryState([1], {0: (key, one), 10: (key, zero)}, last=(key, zero)))
    for frame, share in ((3, 2 / 4), (6, 1 / 4), (4, 2 / 4), (20, 1 / 4)):
        memory.face(frame)
        assert memory.read(key, 40).item() == pytest.approx(share)


def test_every_mode_that_compresses_says_so():
    assert [mode for mode in MODES if needs_sam(mode)] == [
        "compress", "gt-compress", "last-compress", "two-frames-compress"]


def test_networks_that_cannot_track_are_refused():
    config = dataclasses.replace(PRESETS["tiny"], single_object=True, sam=False)
    with pytest.raises(InputError, match="single-object"):
        InferenceCore(recipe_network(config), "stm")
    without_sam = recipe_network(dataclasses.replace(PRESETS["tiny"], sam=False))
    with pytest.raises(InputError, match="needs SAM"):
        InferenceCore(without_sam)
    for mode in ("stm", "gt", "last", "two-frames"):
        InferenceCore(without_sam, mode)


@pytest.mark.parametrize("options", [{"mode": "fast"}, {"mem_every": 0}, {"top_k": 0}, {"chunk_size": 0}, {"size": 0}])
def test_impossible_settings_are_refused(tiny_network, options):
    with pytest.raises(InputError):
        InferenceCore(tiny_network, **options)


@pytest.mark.parametrize("lines, expected", [(None, 144), (48, 48), (72, None)])
def test_size_auto_is_what_track_py_takes(clip, lines, expected):
    """The network's own number of lines or else 480, but at most twice the frames'."""
    engine = take_snapshot(recipe_network(dataclasses.replace(PRESETS["tiny"], lines=lines)))
    core, other = (InferenceCore(engine, size=size) for size in ("auto", expected))
    assert InferenceCore(engine).size is None
    for index, frame in enumerate(clip[0][:5]):
        assert torch.equal(*(each.step(frame, clip[1][0] if index == 0 else None) for each in (core, other)))
    again = InferenceCore(engine, size="auto")
    again.restore(core.state())
    assert torch.equal(again.step(clip[0][5]), other.step(clip[0][5]))


@pytest.mark.parametrize("plane", [
    lambda one: one, lambda one: one.astype(np.float32), lambda one: one * np.uint8(255), lambda one: one[None],
    lambda one: one.astype(np.uint8)[None] * 255, lambda one: torch.from_numpy(one), lambda one: one * np.uint8(7),
    lambda one: one * 255.0,
])
def test_one_plane_for_one_id(tiny_network, clip, plane):
    one = clip[1][0] == 2
    core = InferenceCore(tiny_network)
    ids = core.to_mask(core.step(clip[0][0], plane(one), objects=[7])).numpy()
    assert core.objects == [7] and (ids == 7 * one).all()


def test_soft_plane_of_one_id_is_that_of_planes(tiny_network, clip):
    soft = (clip[1][0] == 2) * np.float32(0.9) + (clip[1][0] == 1) * np.float32(0.2)
    flat, stacked = (InferenceCore(tiny_network).step(clip[0][0], mask, objects=[7]) for mask in (soft, soft[None]))
    assert torch.equal(flat, stacked)


def test_mask_of_0_and_255_is_object_1(tiny_network, clip):
    core = InferenceCore(tiny_network)
    ids = core.to_mask(core.step(clip[0][0], (clip[1][0] > 0) * np.uint8(255))).numpy()
    assert core.objects == [1] and (ids == (clip[1][0] > 0)).all()
    core.reset()
    core.step(clip[0][0], (clip[1][0] > 0) * np.uint8(255), objects=[255])
    assert core.objects == [255]


@pytest.mark.parametrize("nothing", [{"mask": np.zeros((72, 100), np.uint8)},
                                     {"mask": np.zeros((72, 100), bool), "objects": [1]},
                                     {"mask": np.zeros((2, 72, 100)), "objects": [1, 4]}])
def test_mask_without_objects_says_nothing_new(tiny_network, clip, undisturbed, nothing):
    frames, truth = clip
    core = InferenceCore(tiny_network)
    assert core.step(frames[0], **nothing).shape == (1, 72, 100) and core.objects == []
    core.reset()
    ids = [core.to_mask(core.step(frame, **({"mask": truth[0]} if index == 0 else nothing))).numpy()
           for index, frame in enumerate(frames[:7])]
    assert all((one == other).all() for one, other in zip(undisturbed, ids, strict=True))


def test_id_without_a_pixel_is_no_new_object(tiny_network, clip):
    core = InferenceCore(tiny_network)
    core.step(clip[0][0], clip[1][0], objects=[1, 2, 9])
    assert core.objects == [1, 2]


def test_frames_of_three_rows_are_no_channels(tiny_network):
    image = np.zeros((3, 40, 3), np.uint8)
    image[:, 20:] = 200
    mask = np.zeros((3, 40), np.uint8)
    mask[:, 20:] = 1
    core = InferenceCore(tiny_network)
    assert core.step(image, mask).shape == (2, 3, 40)
    channels = InferenceCore(tiny_network)
    assert torch.equal(channels.step(image.transpose(2, 0, 1).astype(np.float32) / 255, mask),
                       InferenceCore(tiny_network).step(image, mask))


def test_given_mask_comes_back_as_it_was_at_any_size(tiny_network, clip):
    frames, truth = clip
    for size in (48, 24):
        core, published = (InferenceCore(tiny_network, size=size, keep_given=keep) for keep in (True, False))
        first, blunt = (one.to_mask(one.step(frames[0], truth[0])).numpy() for one in (core, published))
        assert (first == truth[0]).all() and not (blunt == truth[0]).all()
        # What is remembered is the same.
        assert torch.equal(core.step(frames[1]), published.step(frames[1]))
        prob = core.step(frames[2], truth[2] * (truth[2] == 2))
        assert ((core.to_mask(prob).numpy() == 2) == (truth[2] == 2)).all()
        torch.testing.assert_close(prob.sum(0), torch.ones(72, 100))


IMAGE = np.zeros((72, 100, 3), np.uint8)
MASK = np.ones((72, 100), np.uint8)


@pytest.fixture(scope="module")
def undisturbed(tiny_network, clip):
    """Ids of seven frames."""
    frames, truth = clip
    return play(InferenceCore(tiny_network), frames[:7], {0: truth[0]})


@pytest.mark.parametrize("inputs, message", [
    ((np.zeros((72, 100), np.uint8),), "an image is 3×H×W"),
    ((np.zeros((72, 100, 3), np.int64),), "float in"),
    ((torch.full((3, 72, 100), 255.0),), r"lies in \[0, 1\]"),
    ((torch.full((3, 72, 100), -0.5),), r"lies in \[0, 1\]"),
    ((torch.full((3, 72, 100), torch.nan),), r"lies in \[0, 1\]"),
    ((np.zeros((60, 100, 3), np.uint8),), "a frame of 100×60 in a video of 100×72"),
    ((IMAGE, MASK[:50]), "a mask of shape"),
    ((IMAGE, MASK * 3, [7]), "object 7 is not in the mask, its values are 3"),
    ((IMAGE, MASK * 0.5), "plane of one object"),
    ((IMAGE, MASK[None] * 3, [7]), r"a plane lies in \[0, 1\]"),
    ((IMAGE, np.arange(7200, dtype=np.uint8).reshape(72, 100)), "without any solid area: soft edges"),
    ((IMAGE, MASK.astype(np.int64) * 256), "from 1 to 255"),
    ((IMAGE, MASK, [1, 1]), "distinct"),
    ((IMAGE, MASK, [0]), "from 1 to 255"),
    ((IMAGE, MASK[None]), "needs `objects`"),
    ((IMAGE, MASK[None], [1, 2]), "1 mask planes for 2 objects"),
    ((np.zeros((0, 0, 3), np.uint8),), "an image is 3×H×W"),
    ((np.zeros((3, 0, 0), np.float32),), "an image is 3×H×W"),
    ((np.zeros((72, 100, 3), object),), "numbers; this is ndarray of object"),
    ((IMAGE, MASK[..., None]), "frame of 100×72; H×W or O×H×W was expected"),
    ((IMAGE, np.where(IMAGE[..., 0] == 0, np.nan, MASK)), "finite numbers"),
    ((IMAGE, np.array([[np.nan, 2]] * 3600).reshape(72, 100), [2]), "finite numbers"),
    ((IMAGE, np.array([[np.inf, 1]] * 3600).reshape(1, 72, 100), [2]), "finite numbers"),
    ((None,), "an image is an array or a tensor of numbers; this is NoneType"),
    ((IMAGE, "mask.png"), "a mask is an array or a tensor of numbers; this is str"),
    ((IMAGE, MASK * 1j), "a mask is an array or a tensor of numbers; these are torch.complex"),
    ((IMAGE, MASK, 1), "a list of whole numbers"),
    ((IMAGE, MASK, ["dog"]), "a list of whole numbers"),
    ((IMAGE, MASK, [1.5]), "a list of whole numbers"),
    ((IMAGE, MASK, [float("inf")]), "a list of whole numbers"),
])
def test_unusable_input_is_named_and_changes_nothing(tiny_network, clip, undisturbed, inputs, message):
    frames, truth = clip
    core = InferenceCore(tiny_network)
    before = play(core, frames[:3], {0: truth[0]})
    with pytest.raises(InputError, match=message):
        core.step(*inputs)
    after = play(core, frames[3:7], {})
    assert all((one == other).all() for one, other in zip(undisturbed, before + after, strict=True))


@pytest.mark.parametrize("part", ["encode", "decode", "encode_value", "aggregate_value"])
@pytest.mark.parametrize("options", [{}, {"replace": True}, {"partial": True}, {"cut": True, "frame": 7}])
def test_a_step_that_runs_out_of_memory_changes_nothing(tiny_network, clip, part, options):
    class FullEngine(CountingEngine):
        def __getattr__(self, name):
            if name == part and self.calls["full"]:
                raise torch.OutOfMemoryError
            return super().__getattr__(name)

    frames, truth = clip
    engine = FullEngine(take_snapshot(tiny_network))
    core, other = InferenceCore(engine), InferenceCore(tiny_network)
    # Object 1 comes two frames later than object 2, so each has a memory of its own.
    masks = {0: truth[0] * (truth[0] == 2), 2: truth[2] * (truth[2] == 1)}
    for index in range(4):
        core.step(frames[index], masks.get(index))
        other.step(frames[index], masks.get(index))
    engine.calls["full"] = 1
    # In this step object 2 is given, and object 1 is only remembered.
    with pytest.raises(torch.OutOfMemoryError):
        core.step(frames[4], masks[0], **options)
    assert core.references == other.references and core.objects == other.objects
    engine.calls["full"] = 0
    for index in range(4, 8):
        assert torch.equal(core.step(frames[index]), other.step(frames[index]))


@pytest.mark.parametrize("mode", ["stm", "two-frames-compress"])
def test_a_failed_step_is_undone_where_no_memory_is_left(tiny_network, clip, monkeypatch, mode):
    def fail(*inputs):
        raise torch.OutOfMemoryError

    frames, truth = clip
    core, other = InferenceCore(tiny_network, mode), InferenceCore(tiny_network, mode)
    for index in range(4):
        core.step(frames[index], truth[index] if index == 3 else None)
        other.step(frames[index], truth[index] if index == 3 else None)
    with monkeypatch.context() as full, pytest.raises(torch.OutOfMemoryError):
        full.setattr(torch, "cat", fail)
        core.step(frames[4], cut=True)
    assert core.given == other.given == [1, 2]
    for index in range(4, 8):
        assert torch.equal(core.step(frames[index]), other.step(frames[index]))


def test_a_step_does_not_compute_checksums_of_the_weights(tiny_network):
    """An engine may compute them whenever it is asked, as the trained network itself does."""
    asked = []

    class Engine(PlainEngine):
        @property
        def weights(self):
            asked.append(True)
            return super().weights

    core = InferenceCore(Engine(tiny_network))
    core.step(IMAGE, MASK)
    core.step(IMAGE)
    assert not asked


def test_settings_and_numbers_of_other_types_are_refused(tiny_network):
    for name, value in (("size", "480"), ("size", 480.0), ("top_k", None), ("mem_every", "a"), ("chunk_size", 0)):
        with pytest.raises(InputError, match=f"{name} is {value!r}"):
            InferenceCore(tiny_network, **{name: value})
    core = InferenceCore(tiny_network)
    core.step(IMAGE, MASK)
    for frame in ("a", 1.5, -1):
        with pytest.raises(InputError, match=f"frame is {frame!r}"):
            core.step(IMAGE, frame=frame)
    with pytest.raises(InputError, match="a list of whole numbers"):
        core.delete_objects(1)
    assert core.objects == [1]


@pytest.mark.parametrize("call, message", [
    (lambda core, path: InferenceCore("weights/compact.pth"), "as load_network returns it, or an engine; this is str"),
    (lambda core, path: InferenceCore(core), "this is InferenceCore"),
    (lambda core, path: core.restore("at.npz"), "a state is what .* returns; this is str"),
    (lambda core, path: save_state(core.state(), path), "a state is what .* returns; this is PosixPath"),
    (lambda core, path: core.to_mask(core.step(IMAGE, needs_output=False)), "as `step` returns them; this is NoneType"),
    (lambda core, path: core.to_mask(np.zeros((2, 72, 100))), "this is ndarray$"),
    (lambda core, path: core.to_mask(torch.zeros(2)), r"this is Tensor of shape \(2,\)"),
    (lambda core, path: core.forget_reference([1], 0), r"no reference of object \[1\]"),
])
def test_what_is_no_network_no_state_and_no_probabilities_is_named(tiny_network, tmp_path, call, message):
    core = InferenceCore(tiny_network)
    core.step(IMAGE, MASK)
    with pytest.raises(InputError, match=message):
        call(core, tmp_path / "at.npz")
    assert core.references == {1: [0]} and not list(tmp_path.iterdir())


def test_probabilities_keep_the_ids_of_their_own_step(tiny_network, clip):
    frames, truth = clip
    core = InferenceCore(tiny_network)
    first = core.step(frames[0], truth[0])
    core.delete_objects([1])
    assert set(np.unique(core.to_mask(first))) == {0, 1, 2}
    second = core.step(frames[1], 5 * (truth[1] == 1))
    assert second.shape == first.shape
    assert set(np.unique(core.to_mask(second))) == {0, 2, 5} and set(np.unique(core.to_mask(first))) == {0, 1, 2}
    core.reset()
    assert set(np.unique(core.to_mask(second))) == {0, 2, 5}


def test_what_is_computed_from_probabilities_is_of_the_latest_step(tiny_network, clip):
    frames, truth = clip
    core = InferenceCore(tiny_network)
    prob = core.step(frames[0], 7 * truth[0])
    assert set(np.unique(core.to_mask(prob.clone()))) == {0, 7, 14}
    core.delete_objects([7])
    assert set(np.unique(core.to_mask(prob * 1))) == {0, 7, 14}
    core.step(frames[1])
    with pytest.raises(InputError, match="latest step"):
        core.to_mask(prob * 1)


def test_cores_of_one_network_share_its_snapshot(tiny_network, clip):
    """And a snapshot in the place of the network gives the same; so does the plain network, nearly."""
    frames, truth = clip
    engines = [tiny_network, take_snapshot(tiny_network), PlainEngine(tiny_network)]
    ours, same, plain = ([core.step(frame, truth[0] if index == 0 else None) for index, frame in enumerate(frames[:5])]
                         for core in map(InferenceCore, engines))
    assert all(torch.equal(*pair) for pair in zip(ours, same, strict=True))
    for pair in zip(ours, plain, strict=True):
        torch.testing.assert_close(*pair, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_compiled_is_the_same_and_is_not_compiled_again_while_a_video_runs(tiny_network, clip):
    if not can_compile("cpu"):
        pytest.skip("there is no compiler")
    frames, truth = clip
    masks = {0: truth[0] * (truth[0] == 1), 6: truth[6] * (truth[6] == 2)}
    plain = play(InferenceCore(tiny_network), frames, masks)
    core = InferenceCore(tiny_network, compile=True)
    compiled = play(core, frames, masks)
    assert np.mean(np.stack(plain) == np.stack(compiled)) > 0.999
    core.reset()
    with torch.compiler.set_stance("fail_on_recompile"):
        again = play(core, frames, masks)
    assert all((one == other).all() for one, other in zip(compiled, again, strict=True))


@pytest.mark.parametrize("tiles, amp, precision", [
    (True, "auto", "bfloat16"), (False, "auto", "float32"), (True, "float32", "float32"), (True, False, "float32")])
def test_bfloat16_is_chosen_where_it_is_fast(tiny_network, clip, monkeypatch, tiles, amp, precision):
    monkeypatch.setattr("inference_core.core.has_bfloat16_tiles", lambda: tiles)
    core, other = (InferenceCore(tiny_network, amp=amp) for amp in (amp, precision))
    assert core.state().settings["precision"] == precision
    found, expected = (each.step(clip[0][0], clip[1][0]) for each in (core, other))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("amp", ["float16", "bfloat16"])
def test_precisions_by_name(tiny_network, clip, amp):
    frames, truth = clip
    core = InferenceCore(tiny_network, amp=amp)
    for index, frame in enumerate(frames[:5]):
        assert core.step(frame, truth[0] if index == 0 else None).dtype == torch.float32
    with pytest.raises(InputError, match="amp is"):
        InferenceCore(tiny_network, amp="float8")


def test_masks_of_16_bits(tiny_network, clip):
    frames, truth = clip
    one, other = (InferenceCore(tiny_network).step(frames[0], mask) for mask in (truth[0], truth[0].astype(np.uint16)))
    assert torch.equal(one, other)


def test_views_of_arrays_may_run_backwards(clip, tiny_network):
    """OpenCV's BGR is turned into RGB by a view with negative strides."""
    frames, truth = clip
    prob = [InferenceCore(tiny_network).step(frame, mask) for frame, mask in
            ((frames[0], truth[0]), (frames[0][..., ::-1].copy()[..., ::-1], truth[0][::-1].copy()[::-1]))]
    assert torch.equal(*prob)
