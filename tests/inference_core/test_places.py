"""Objects that look alike are told apart by where they are."""

import dataclasses

import numpy as np
import pytest
import torch

from inference_core import InferenceCore, load_state, save_state
from model import load_network
from model.memory_reading import affinity, read_top_k, weigh
from util.errors import InputError
from util.hyper_para import COMPACT

COUNT = 24


@pytest.fixture(scope="module")
def network():
    return load_network(COMPACT)


@pytest.fixture(scope="module")
def discs():
    """Three discs of the same looks; 1 and 2 pass above and below 3, which rests: [(image, ids)]."""
    generator = np.random.default_rng(4)
    ground = np.kron(generator.integers(60, 200, (15, 20, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    y, x = np.mgrid[:240, :320]
    frames = []
    for number in range(COUNT):
        image, ids = ground.copy(), np.zeros((240, 320), np.uint8)
        for object_id, across, down in ((1, 50 + 9 * number, 60), (2, 270 - 9 * number, 180), (3, 160, 120)):
            disc = (x - across) ** 2 + (y - down) ** 2 < 22 ** 2
            image[disc] = (220, 40, 30)
            ids[disc] = object_id
        frames.append((image, ids))
    return frames


def track(core, frames, ids=(1, 2)):
    """The masks that a core finds from the first frame's, of these ids."""
    first = np.where(np.isin(frames[0][1], ids), frames[0][1], 0)
    return [core.to_mask(core.step(image, None if number else first)).numpy()
            for number, (image, _) in enumerate(frames)]


def overlap(found, frames):
    """The mean IoU of both objects in the last frame."""
    true = frames[-1][1]
    return np.mean([((found == i) & (true == i)).sum() / ((found == i) | (true == i)).sum() for i in (1, 2)])


def test_alike_objects_keep_their_ids_where_they_pass_each_other(network, discs):
    """The third disc is not marked."""
    by_looks, by_places = (track(InferenceCore(network, size=480, places=on), discs)[-1] for on in (False, True))
    assert overlap(by_looks, discs) < 0.7 < 0.9 < overlap(by_places, discs)


def test_one_object_is_tracked_as_without_places(tiny_network, clip):
    frames = list(zip(*clip, strict=True))
    for without, with_places in zip(*(track(InferenceCore(tiny_network, places=on), frames, [2])
                                      for on in (False, True)), strict=True):
        assert np.array_equal(without, with_places)


@pytest.mark.parametrize("mode", ["two-frames-compress", "stm", "two-frames"])
def test_a_state_from_a_file_goes_on_with_the_same_masks(tiny_network, clip, tmp_path, mode):
    """Another object and a further reference come in between, so that there are several memories."""
    core = InferenceCore(tiny_network, mode, places=True)
    images, masks = clip
    given = {0: np.where(masks[0] == 1, 1, 0), 4: masks[4], 9: np.where(masks[9] == 2, 2, 0)}
    for number in range(8):
        core.step(images[number], given.get(number))
    save_state(tmp_path / "state.npz", core.state())
    other = InferenceCore(tiny_network, mode, places=True)
    other.restore(load_state(tmp_path / "state.npz"))
    for number in range(8, 12):
        pair = [one.step(images[number], given.get(number)) for one in (core, other)]
        assert torch.equal(*pair)
    core.delete_objects([1])
    assert core.to_mask(core.step(images[0])).unique().tolist() in ([0, 2], [0], [2])


def test_a_state_without_places_is_refused(tiny_network, clip):
    core = InferenceCore(tiny_network, places=True)
    core.step(clip[0][0], clip[1][0])
    state = core.state()
    with pytest.raises(InputError, match="places"):
        InferenceCore(tiny_network).restore(state)
    owner, offset = state.places.frames[0]
    for places in (None, state.places._replace(frames={}), state.places._replace(frames={0: (owner + 300, offset)}),
                   state.places._replace(size=owner)):
        with pytest.raises(InputError, match="damaged"):
            core.restore(dataclasses.replace(state, places=places))


def test_what_is_added_to_the_affinities():
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(*shape, generator=generator) for shape in ((16, 30), (16, 75), (75, 8)))
    left, right = (torch.randn(*shape, generator=generator) for shape in ((30, 4), (4, 75)))
    nearest, places = (affinity(query, key) + left @ right).topk(10)
    weight = weigh(nearest, torch.ones(30, 10), 10)
    expected = (weight.unsqueeze(1) @ value[places]).squeeze(1)
    assert torch.allclose(read_top_k(query, key, value, torch.ones(75), 10, (left, right)), expected, atol=1e-5)
