"""A state holds everything that a video needs to go on."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from inference_core import MODES, InferenceCore, load_state, save_state
from model import PRESETS
from tests.conftest import ROOT, recipe_network
from util.errors import InputError


def begin(core, clip):
    """Track seven frames: two objects, one of them corrected, and one that comes late."""
    frames, truth = clip
    late = np.zeros_like(truth[0])
    late[:12, :30] = 7
    masks = {0: truth[0], 3: truth[3] * (truth[3] == 2), 4: late}
    for index in range(7):
        core.step(frames[index], masks.get(index))
    return core


def go_on(core, clip, until=14):
    """The probabilities of the frames that follow, in one of which all objects are corrected."""
    frames, truth = clip
    return [core.step(frames[index], truth[index] if index == 9 else None) for index in range(7, until)]


def same(one, other):
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_a_core_goes_on_from_a_state_as_if_nothing_had_been(tiny_network, clip, tmp_path, mode):
    core = begin(InferenceCore(tiny_network, mode, mem_every=2), clip)
    state = core.state()
    save_state(tmp_path / "at.npz", state)
    expected = go_on(core, clip)
    references, size = core.references, core.memory_bytes
    for again in (state, load_state(tmp_path / "at.npz")):
        for other in (core, InferenceCore(tiny_network, mode, mem_every=2)):
            other.restore(again)
            assert other.objects == [1, 2, 7] and other.references == {1: [0], 2: [0, 3], 7: [4]}
            assert same(go_on(other, clip), expected)
            assert other.references == references and other.memory_bytes <= size


@pytest.mark.parametrize("options", [{"amp": "bfloat16"}, {"amp": "float16"}, {"size": 48}])
def test_half_precision_and_sizes_of_their_own_go_on_bit_by_bit(tiny_network, clip, tmp_path, options):
    core = begin(InferenceCore(tiny_network, **options), clip)
    save_state(tmp_path / "at.npz", core.state())
    other = InferenceCore(tiny_network, **options)
    other.restore(load_state(tmp_path / "at.npz"))
    assert same(go_on(other, clip), go_on(core, clip))


def test_half_precision_takes_half_the_place_in_a_file(tiny_network, clip, tmp_path):
    sizes = {}
    for amp in (False, "bfloat16"):
        save_state(tmp_path / "at.npz", begin(InferenceCore(tiny_network, amp=amp, places=False), clip).state())
        with np.load(tmp_path / "at.npz", allow_pickle=False) as file:
            sizes[amp] = sum(file[name].nbytes for name in file if name != "header")
    assert sizes["bfloat16"] * 2 == sizes[False]


def test_states_do_not_change_and_are_a_history_to_go_back_in(tiny_network, clip):
    frames, truth = clip
    core = InferenceCore(tiny_network)
    states, found = [], []
    for index in range(10):
        states.append(core.state())
        found.append(core.step(frames[index], truth[index] if index in (0, 4) else None))
    core.delete_objects([1])
    for index in reversed(range(10)):
        core.restore(states[index])
        assert torch.equal(core.step(frames[index], truth[index] if index in (0, 4) else None), found[index])


def test_files_of_before_fit_if_they_do_not_say_where_objects_are(tiny_network, clip, tmp_path):
    for places in (False, True):
        core = begin(InferenceCore(tiny_network, places=places), clip)
        save_state(tmp_path / "new.npz", core.state())
        with np.load(tmp_path / "new.npz", allow_pickle=False) as file:
            arrays = dict(file)
        header = json.loads(arrays["header"].tobytes()) | {"format": "RDE-VOS state 1"}
        del header["direction"], header["settings"]["places"]
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        np.savez(tmp_path / "old.npz", **arrays)
        if places:
            with pytest.raises(InputError, match=r"old.npz: holds a 'RDE-VOS state 1', expected a 'RDE-VOS state 2'"):
                load_state(tmp_path / "old.npz")
            continue
        other = InferenceCore(tiny_network, places=False)
        other.restore(load_state(tmp_path / "old.npz"))
        assert same(go_on(other, clip), go_on(core, clip))
        with pytest.raises(InputError, match="a core with places False; this core has places True"):
            InferenceCore(tiny_network).restore(other.state())


def test_tracking_goes_on_backwards_from_a_state(tiny_network, clip, tmp_path):
    """Frames 9, 8, 7, with a mask of frame 0 that is given ahead just after the state."""
    frames, truth = clip
    core = InferenceCore(tiny_network, mem_every=2)
    for number in (12, 11, 10):
        core.step(frames[number], truth[12] if number == 12 else None, frame=number)
    save_state(tmp_path / "at.npz", core.state())
    other = InferenceCore(tiny_network, mem_every=2)
    other.restore(load_state(tmp_path / "at.npz"))
    assert other.state().direction == -1
    for number, mask in ((0, truth[0]), (9, None), (8, None), (7, None)):
        one, again = (each.step(frames[number], mask, frame=number) for each in (core, other))
        assert torch.equal(one, again)


def test_two_cores_go_on_from_one_state_in_different_ways(tiny_network, clip):
    core = begin(InferenceCore(tiny_network), clip)
    branch = InferenceCore(core.engine)
    branch.restore(core.state())
    branch.delete_objects([2])
    assert branch.objects == [1, 7]
    alone = begin(InferenceCore(tiny_network), clip)
    assert same(go_on(core, clip), go_on(alone, clip))


def test_the_state_of_a_core_that_has_seen_nothing(tiny_network, clip, tmp_path):
    save_state(tmp_path / "new.npz", InferenceCore(tiny_network).state())
    core = begin(InferenceCore(tiny_network), clip)
    core.restore(load_state(tmp_path / "new.npz"))
    assert core.objects == [] and core.references == {}
    assert core.step(clip[0][0, :40]).shape == (1, 40, 100)


def test_settings_that_are_numpy_s_numbers_can_be_saved(tiny_network, clip, tmp_path):
    options = {"mem_every": np.int64(2), "top_k": np.uint8(30), "size": np.int32(48), "max_references": np.int64(4),
               "keep_given": np.True_, "mode": np.str_("gt")}
    core = begin(InferenceCore(tiny_network, **options), clip)
    save_state(tmp_path / "at.npz", core.state())
    other = InferenceCore(tiny_network, "gt", mem_every=2, top_k=30, size=48, max_references=4)
    other.restore(load_state(tmp_path / "at.npz"))
    assert same(go_on(other, clip), go_on(core, clip))


@pytest.mark.parametrize("options, message", [
    ({"mode": "two-frames"}, "of a core with mode two-frames-compress; this core has mode two-frames"),
    ({"mem_every": 5}, "with mem_every 3; this core has mem_every 5"), ({"top_k": 20}, "top_k 40"),
    ({"size": 48}, "size None; this core has size 48"), ({"amp": "bfloat16"}, "precision float32"),
    ({"max_references": 2}, "max_references 8"), ({"keep_given": False}, "keep_given True"),
])
def test_a_core_with_other_settings_does_not_go_on(tiny_network, clip, options, message):
    state = begin(InferenceCore(tiny_network), clip).state()
    core = begin(InferenceCore(tiny_network, **options), clip)
    with pytest.raises(InputError, match=message):
        core.restore(state)
    assert core.step(clip[0][7]).shape == (4, 72, 100)


def test_a_core_with_other_weights_does_not_go_on(tiny_network, clip):
    state = begin(InferenceCore(tiny_network), clip).state()
    with pytest.raises(InputError, match=r"weights [0-9a-f]{8}; this core has weights [0-9a-f]{8}$"):
        InferenceCore(recipe_network(PRESETS["tiny"])).restore(state)


@pytest.fixture(scope="module")
def state_file(tiny_network, clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "at.npz"
    save_state(path, begin(InferenceCore(tiny_network), clip).state())
    return path.read_bytes()


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_files_that_are_cut_short_are_named(state_file, tmp_path, share):
    path = tmp_path / "cut.npz"
    path.write_bytes(state_file[:int(share * len(state_file))])
    with pytest.raises(InputError, match=r"cut\.npz: damaged, or no file of save_state"):
        load_state(path)


def test_a_flipped_bit_is_found(state_file, tmp_path):
    path = tmp_path / "flipped.npz"
    data = bytearray(state_file)
    for place in range(300, len(data) // 2, len(data) // 20):
        data[place] ^= 4
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"flipped\.npz"):
            load_state(path)
        data[place] ^= 4


@pytest.mark.parametrize("arrays", [
    {"prob": np.zeros(3)}, {"header": np.zeros(3)}, {"header": np.array([{}], object)},
    {"header": np.frombuffer(b"[]", np.uint8)}, {"header": np.frombuffer(b"{}", np.uint8)},
    {"header": np.frombuffer(json.dumps({"format": "RDE-VOS state 7"}).encode(), np.uint8)},
])
def test_other_files_are_named(tmp_path, arrays):
    path = tmp_path / "other.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"other\.npz: (damaged, or no file of save_state|holds a 'RDE-VOS state 7')"):
        load_state(path)


@pytest.mark.parametrize("write, message", [
    (lambda path: None, "cannot be read"), (lambda path: path.mkdir(), "cannot be read"),
    (lambda path: path.write_text("a text"), "damaged"), (lambda path: path.write_bytes(b""), "damaged"),
    (lambda path: np.save(path.open("wb"), np.zeros(3)), "damaged"),
])
def test_what_is_no_archive_is_named(tmp_path, write, message):
    path = tmp_path / "state.npz"
    write(path)
    with pytest.raises(InputError, match=rf"state\.npz: {message}"):
        load_state(path)


@pytest.mark.parametrize("change", [
    lambda header: header["groups"][0]["ids"].append(9), lambda header: header.update(frame_size=[500, 400]),
    lambda header: header["groups"][1].update(references=[]), lambda header: header.update(tensors=[]),
    lambda header: header["tensors"][0][1].append(2), lambda header: header["tensors"][0].__setitem__(0, "float64"),
    lambda header: header["tensors"][0].__setitem__(2, [10**6] * 3), lambda header: header.update(next_frame="soon"),
    lambda header: header.update(frame_size=None), lambda header: header.pop("settings"),
])
def test_files_that_were_tampered_with_are_refused(state_file, tiny_network, tmp_path, change):
    path = tmp_path / "changed.npz"
    path.write_bytes(state_file)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    change(header)
    np.savez(path, **{**arrays, "header": np.frombuffer(json.dumps(header).encode(), np.uint8)})
    with pytest.raises(InputError, match="damaged"):
        InferenceCore(tiny_network).restore(load_state(path))


def test_a_state_that_cannot_be_written_leaves_the_one_before(tiny_network, clip, tmp_path):
    core = begin(InferenceCore(tiny_network), clip)
    path = tmp_path / "at.npz"
    save_state(path, core.state())
    before = path.read_bytes()
    state = core.state()
    state.settings["mode"] = object()
    with pytest.raises(TypeError):
        save_state(path, state)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


GOING_ON = """
import sys
import numpy as np, torch
from inference_core import InferenceCore, load_state
from model import load_network
torch.set_num_threads(1)
checkpoint, state, frames, results = sys.argv[1:]
core = InferenceCore(load_network(checkpoint, "cpu"), amp="bfloat16")
core.restore(load_state(state))
np.save(results, np.stack([core.step(frame).numpy() for frame in np.load(frames)]))
"""


@pytest.mark.slow
def test_another_process_goes_on_with_the_same_masks(tiny_checkpoint, tiny_network, clip, tmp_path):
    torch.set_num_threads(1)
    core = begin(InferenceCore(tiny_network, amp="bfloat16"), clip)
    save_state(tmp_path / "at.npz", core.state())
    np.save(tmp_path / "frames.npy", clip[0][7:12])
    subprocess.run([sys.executable, "-c", GOING_ON, tiny_checkpoint, tmp_path / "at.npz", tmp_path / "frames.npy",
                    tmp_path / "results.npy"], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    expected = np.stack([core.step(frame).numpy() for frame in clip[0][7:12]])
    assert (np.load(tmp_path / "results.npy") == expected).all()
