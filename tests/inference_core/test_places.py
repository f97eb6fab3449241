"""Objects that look alike are told apart by where they are."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from inference_core import InferenceCore, load_state, save_state, track_frames
from inference_core.annotations import GivenMask
from inference_core.both_ways import track_both_ways
from inference_core.places import Places
from model import PRESETS, RDE, load_network
from model.memory_reading import affinity, read_top_k, weigh
from util.errors import InputError
from util.hyper_para import COMPACT
from util.image_io import write_mask
from util.video import ImageFrames

COUNT = 24


@pytest.fixture(scope="module")
def network():
    return load_network(COMPACT)


def paint(*discs):
    """An image and its ids, with a disc for each (id, x, y, green)."""
    ground = np.random.default_rng(4).integers(60, 200, (15, 20, 3), np.uint8)
    image, ids = np.kron(ground, np.ones((16, 16, 1), np.uint8)), np.zeros((240, 320), np.uint8)
    y, x = np.mgrid[:240, :320]
    for object_id, across, down, green in discs:
        disc = (x - across) ** 2 + (y - down) ** 2 < 22 ** 2
        image[disc], ids[disc] = (220, green, 30), object_id
    return image, ids


def paint_clip(speed, greens=(40, 40, 40)):
    """Three discs; 1 and 2 pass above and below 3, which rests: [(image, ids)]."""
    return [paint((1, 50 + speed * number, 60, greens[0]), (2, 270 - speed * number, 180, greens[1]),
                  (3, 160, 120, greens[2])) for number in range(COUNT)]


@pytest.fixture(scope="module")
def discs():
    """Three discs of the same looks."""
    return paint_clip(9)


def track(core, frames, ids=(1, 2)):
    """The masks that a core finds from the first frame's, of these ids."""
    first = np.where(np.isin(frames[0][1], ids), frames[0][1], 0)
    return [core.to_mask(core.step(image, None if number else first)).numpy()
            for number, (image, _) in enumerate(frames)]


def overlap(found, frames, ids=(1, 2)):
    """The mean IoU of these objects in the last frame."""
    true = frames[-1][1]
    return np.mean([((found == i) & (true == i)).sum() / ((found == i) | (true == i)).sum() for i in ids])


def test_alike_objects_keep_their_ids_where_they_pass_each_other(network, discs):
    """The third disc is not marked."""
    by_looks, by_places = (track(InferenceCore(network, size=480, places=on), discs)[-1] for on in (False, True))
    assert overlap(by_looks, discs) < 0.7 < 0.9 < overlap(by_places, discs)


def test_one_object_is_not_mixed_up_with_alike_ones_that_are_not_marked(network):
    frames = paint_clip(4, (40, 55, 70))
    by_looks, by_places = (track(InferenceCore(network, size=480, places=on), frames, [1])[-1] for on in (False, True))
    assert overlap(by_looks, frames, [1]) < 0.5 < 0.9 < overlap(by_places, frames, [1])


def test_a_mask_of_a_later_frame_does_not_move_the_objects(network):
    """Forwards and backwards: the first, the last and a middle mask are given ahead of all other frames."""
    for frames in (paint_clip(4), paint_clip(4)[::-1]):
        core = InferenceCore(network, size=480)
        masks = {number: np.where(frames[number][1] == 3, 0, frames[number][1]) for number in (0, COUNT - 1, 12)}
        for number, mask in masks.items():
            core.step(frames[number][0], mask, frame=number)
        for number in range(1, COUNT):
            found = core.to_mask(core.step(frames[number][0], masks.get(number), frame=number)).numpy()
            assert all(((found == i) & (frames[number][1] == i)).sum() > 0.8 * (frames[number][1] == i).sum()
                       for i in (1, 2)), number


def test_after_a_cut_an_object_may_be_anywhere(network):
    """With the new shot the disc is in another corner. Where that is not said, it is looked for where it was."""
    def overlap_after(cut):
        core = InferenceCore(network, size=480)
        track(core, [paint((1, 40 + 4 * number, 50, 40)) for number in range(8)], [1])
        image, ids = paint((1, 280, 190, 40))
        return overlap(core.to_mask(core.step(image, cut=cut)).numpy(), [(image, ids)], [1])

    assert overlap_after(False) < 0.1 < 0.9 < overlap_after(True)


def test_a_mask_in_the_next_shot_does_not_count_before_it(network, tmp_path):
    """Tracked both ways, frame 9 is known before frame 8 comes, but another shot begins with it."""
    shots = [paint((1, 40 + 4 * number, 50, 40)) for number in range(9)]
    ground = np.kron(np.random.default_rng(9).integers(0, 60, (15, 20, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    for number in range(4):
        image, ids = paint((1, 280 - 2 * number, 190, 40))
        shots.append((np.where(ids[..., None] > 0, image, ground), ids))
    for number, (image, _) in enumerate(shots):
        Image.fromarray(image).save(tmp_path / f"{number:05}.png")
    for number in (0, 9):
        write_mask(tmp_path / f"mask{number}.png", shots[number][1])
    masks = {f"{number:05}": GivenMask(tmp_path / f"mask{number}.png") for number in (0, 9)}
    frames = ImageFrames(sorted(tmp_path.glob("0*.png"))).seekable()
    core, seen = InferenceCore(network, size=480), {}
    (tmp_path / "work").mkdir()
    for frame in track_both_ways(core, frames, masks, tmp_path / "work"):
        seen[frame.name] = overlap(frame.ids, shots[:int(frame.name) + 1], [1])
    assert len(seen) == len(shots) and min(seen.values()) > 0.95


def test_frames_of_a_video_tell_the_core_where_a_shot_begins(network):
    """An object that is tracked across a cut is looked for everywhere."""
    shots = [paint((1, 40 + 4 * number, 50, 40))[0] for number in range(8)]
    last, ids = paint((1, 280, 190, 40))

    class LastFrame:
        """Finds a cut in the last frame."""

        def is_cut(self, image):
            return image is last

    def mask_of(name, image):
        return np.where(paint((1, 40, 50, 40))[1], 1, 0).astype(np.uint8) if name == "0" else None

    frames = [(str(number), image) for number, image in enumerate([*shots, last])]
    *_, found = track_frames(InferenceCore(network, size=480), frames, mask_of, cuts=LastFrame(), across_cuts=True)
    assert overlap(found.ids, [(last, ids)], [1]) > 0.9


def test_places_of_few_frames_are_kept(tiny_network, clip):
    """Those of the references, and of the two latest memory frames."""
    core, kept = InferenceCore(tiny_network, mem_every=2), []
    for number in range(10):
        core.step(clip[0][number], clip[1][number] if number in (0, 3) else None)
        kept.append(set(core.state().places))
    assert kept == [{0}, {0}, {0, 2}, {0, 2, 3}, {0, 2, 3}, {0, 3, 5}, {0, 3, 5}, {0, 3, 5, 7}, {0, 3, 5, 7},
                    {0, 3, 7, 9}]


def places_of(core, frame):
    return core.state().places[frame]


def test_a_given_mask_is_where_its_object_is_however_small(network):
    core = InferenceCore(network)
    for number, box in enumerate((np.s_[:, :160], np.s_[192:208, 256:272])):
        mask = np.zeros((240, 320), np.uint8)
        mask[box] = 1
        core.step(paint()[0], mask)
        where = places_of(core, number)
    assert where.centre[1].tolist() == [16 - 10, 12 - 7.5] and where.size[1] == 1


def test_what_was_deleted_is_background_even_if_its_id_comes_again(network):
    image, ids = paint((1, 60, 60, 40), (2, 240, 160, 90))
    core = InferenceCore(network)
    core.step(image, ids)
    before = places_of(core, 0)
    core.delete_objects([1])
    core.step(image, paint((1, 200, 60, 40))[1])
    after = places_of(core, 0)
    gone = before.owner == 1
    assert gone.any() and not after.owner[gone].any() and (after.owner == 2).sum() == (before.owner == 2).sum()
    assert torch.allclose(after.offset[gone], before.offset[gone] + before.centre[1])


def test_the_background_of_an_older_memory_frame_counts_less_by_places():
    """It may have moved farther."""
    def strongest(number):
        places = Places(torch.device("cpu"))
        places.remember(0, 1, [1], torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).repeat_interleave(64, 1)
                        .repeat_interleave(64, 2), [1], {0})
        queries, keys = places.penalise(number, 1, 0, [None], (4, 8), 32)
        return (queries @ keys)[:, 0].min()

    assert strongest(1) < strongest(5) < strongest(9) < 0


def test_what_was_never_seen_has_no_place():
    """Two objects share a cell, and neither has half of it."""
    places = Places(torch.device("cpu"))
    places.remember(0, 1, [1, 2], torch.tensor([0.2, 0.45, 0.35]).view(3, 1, 1).expand(3, 16, 16), [], {0})
    assert not places.sightings[0].size.any()


def test_who_decides_whether_places_count(network):
    assert InferenceCore(network).places and not InferenceCore(network, places=False).places
    assert not RDE(PRESETS["base"]).config.places
    with pytest.raises(InputError, match="places is 'off', it must be True, False or None"):
        InferenceCore(network, places="off")


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
        InferenceCore(tiny_network, places=False).restore(state)
    sighting = state.places[0]
    for places in ({0: sighting._replace(owner=sighting.owner + 300)}, {0: sighting._replace(size=sighting.owner)}):
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
