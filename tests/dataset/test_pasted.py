import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dataset import cuttings, layers
from dataset.augmentation import IMAGE_MEAN
from dataset.cuttings import Cuttings
from dataset.layers import Layer, add_limb, compose, cut_out
from dataset.pasted import PastedVideoDataset
from dataset.sampler import BatchNumbers, MixedDataset, load_batches
from dataset.training_sets import Pair, find_pairs, find_videos
from dataset.video import VideoDataset
from tests.trees import photograph, training_tree
from util.errors import InputError
from util.image_io import write_grey, write_mask

SIZE = 64


def scene(root, number, size=(90, 120)):
    """A photograph with two discs of plain colours, as NUMBER.jpg with instance masks."""
    height, width = size
    image, ids = photograph(number, size).copy(), np.zeros(size, np.uint8)
    for object_id, (x, y) in enumerate(((0.3, 0.4), (0.7, 0.6)), 1):
        centre, radius = (round(x * width), round(y * height)), max(1, round(0.18 * min(size)))
        cv2.circle(image, centre, radius, (40 * number % 256, 250, 120 * object_id), -1)
        cv2.circle(ids, centre, radius, object_id, -1)
    for folder in ("park", "park_instances"):
        (root / folder).mkdir(exist_ok=True)
    Image.fromarray(image).save(root / "park" / f"{number}.jpg", quality=95)
    write_mask(root / "park_instances" / f"{number}.png", ids)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    for number in range(5):
        scene(root, number)
    return find_pairs(root, instances=True)


@pytest.fixture(scope="module")
def samples(pairs):
    dataset = pasted_dataset(pairs, seed=2)
    return [dataset[number] for number in range(40)]


def pasted_dataset(pairs, **options):
    return PastedVideoDataset(Cuttings(pairs, SIZE), **options)


def equal(one, other):
    return all(one[key] == other[key] if key == "info" else torch.equal(one[key], other[key]) for key in one)


def test_samples_have_the_arrays_of_video_samples(samples):
    plane, first = ((5, 1, SIZE, SIZE), torch.uint8), ((1, 1, SIZE, SIZE), torch.uint8)
    layout = {"rgb": ((5, 3, SIZE, SIZE), torch.uint8), "gt": plane, "sec_gt": plane, "pgt": first, "sec_pgt": first,
              "cls_gt": ((5, SIZE, SIZE), torch.uint8), "selector": ((2,), torch.float32)}
    for sample in samples:
        assert {key: (tuple(sample[key].shape), sample[key].dtype) for key in layout} == layout
        assert torch.equal(sample["cls_gt"], (sample["gt"] + 2 * sample["sec_gt"])[:, 0])
        assert sample["info"]["name"].endswith(".jpg") and len(sample["info"]["frames"].split()) == 5


def test_samples_of_more_frames(pairs):
    dataset = PastedVideoDataset(Cuttings(pairs, SIZE, 8), seed=2, hide=1)
    for number in range(10):
        sample = dataset[number]
        assert sample["rgb"].shape[0] == sample["gt"].shape[0] == sample["cls_gt"].shape[0] == 8
        assert not torch.equal(sample["rgb"][6], sample["rgb"][7])
        assert sample["info"]["frames"] == "0 1 2 3 4 5 6 7"


def test_followed_objects_are_seen_in_the_first_frame(samples):
    for sample in samples:
        assert sample["gt"][0].sum() >= SIZE ** 2 / 500
        second = bool(sample["selector"][1])
        assert (sample["sec_gt"][0].sum() >= SIZE ** 2 / 500) if second else not sample["sec_gt"].any()
        # The damage may take all of a tiny object.
        assert sample["pgt"].any() or sample["gt"][0].sum() < 100
        assert sample["sec_pgt"].any() == second or (second and sample["sec_gt"][0].sum() < 100)
    assert 0.3 < np.mean([float(sample["selector"][1]) for sample in samples]) < 0.8


def test_objects_move_and_some_leave(samples):
    steps = [sample["gt"][:-1].ne(sample["gt"][1:]).float().mean() for sample in samples]
    assert np.median(steps) > 0.002
    assert any(not sample["gt"][4].any() for sample in samples)


def test_objects_stay_in_sight_in_long_samples(pairs):
    dataset = PastedVideoDataset(Cuttings(pairs, SIZE, 25), seed=4)
    seen = np.array([dataset[number]["gt"][12:].any((1, 2, 3)) for number in range(40)])
    assert seen.mean() > 0.8


def test_samples_do_not_depend_on_workers_or_history(pairs):
    dataset = pasted_dataset(pairs, seed=2)
    alone = list(load_batches(dataset, BatchNumbers(2, 0, 6)))
    assert all(map(equal, alone, load_batches(dataset, BatchNumbers(2, 0, 6), workers=2)))
    assert all(map(equal, alone[4:], load_batches(pickle.loads(pickle.dumps(dataset)), BatchNumbers(2, 4, 6))))
    assert not torch.equal(dataset[3]["rgb"], dataset[3 + len(dataset)]["rgb"])
    assert not torch.equal(dataset[3]["rgb"], pasted_dataset(pairs, seed=3)[3]["rgb"])


def painted(layer):
    """The layer with each object in a grey of its own, on black."""
    picture = np.zeros_like(layer.picture)
    for number, mask in layer.masks.items():
        picture = np.maximum(picture, (mask[..., None] * (40 * number / 255)).round().astype(np.uint8))
    return replace(layer, picture=picture)


@pytest.mark.parametrize("kind", ["_make_pasted", "_make_in_place"])
def test_masks_are_where_the_objects_are_seen(pairs, kind, monkeypatch):
    """Under occlusion, deformation, in place and pasted: away from borders a pixel is what its label says.

    But for things thinner than a pixel, which are seen and yet cover less than half of it.
    """
    monkeypatch.setattr(layers, "IMAGE_MEAN", (0, 0, 0))
    monkeypatch.setattr(cuttings, "OCCLUDER", 1)
    dataset = pasted_dataset(pairs)
    right = wrong = 0
    for number in range(30):
        rng = np.random.default_rng(number)
        scenery = [replace(painted(layer), shutter=0) for layer in getattr(dataset, kind)(rng, number % len(pairs))]
        rgb, ids = compose(scenery, SIZE)
        for frame, labels in zip(rgb, ids, strict=True):
            error = np.abs(frame[..., 0] - 40.0 * labels)
            element = np.ones((9, 9), np.uint8)
            inner = cv2.erode(labels, element) == cv2.dilate(labels, element)
            right += np.count_nonzero(inner & (labels > 0) & (error <= 2))
            wrong += np.count_nonzero(inner & (error > 2))
    assert right > 10000 and wrong < 0.01 * right


def test_masks_are_exact_to_half_a_pixel():
    """A white disc on black, in place and cut out: white is where the mask is, under any affine map."""
    disc = cv2.circle(np.zeros((50, 60), np.uint8), (30, 25), 18, 1, -1)
    white = cv2.merge([disc * np.uint8(255)] * 3)
    matrix = np.array([[0.9, 0.3, 6.3], [-0.2, 1.1, 9.8], [0, 0, 1]])
    back = Layer(np.zeros((50, 60, 3), np.uint8), {}, [matrix] * 5, opaque=True)
    picture, opacity = cut_out(white, disc, 0)
    front = Layer(picture, {3: opacity}, [matrix] * 5)
    own = Layer(white, {3: disc * np.uint8(255)}, [matrix] * 5, opaque=True)
    for scenery in ([back, front], [own]):
        rgb, ids = compose(scenery, SIZE)
        shown = ids[2] == 3
        assert 700 < np.count_nonzero(shown) < 1400
        seen = rgb[2, ..., 0] if len(scenery) == 2 else np.where(rgb[2, ..., 0] == IMAGE_MEAN[0], 0, rgb[2, ..., 0])
        assert ((seen > 127) == shown).mean() > 0.999


def test_nearer_objects_hide_farther_ones(pairs, monkeypatch):
    dataset = pasted_dataset(pairs)
    rng = np.random.default_rng(1)
    thing = np.full((20, 20, 3), 200, np.uint8), np.ones((20, 20), np.uint8)
    still = [np.eye(3)] * 5
    monkeypatch.setattr(cuttings, "LIMB", 0)
    one, two = (replace(layer, matrices=still, waves=None)
                for number in (1, 2) for layer in dataset.cuttings.make_object_layers(rng, thing, number, still))
    back = Layer(np.zeros((SIZE, SIZE, 3), np.uint8), {}, [np.eye(3)] * 5, opaque=True)
    small = replace(one, masks={1: one.masks[1][:12, :12]}, picture=one.picture[:12, :12])
    assert set(np.unique(compose([back, two, small], SIZE)[1])) == {0, 1, 2}
    hidden = compose([back, small, replace(two, masks={0: two.masks[2]})], SIZE)[1]
    assert 1 not in np.unique(hidden[0][3:10, 3:10])


def test_a_limb_turns_and_the_rest_stays():
    """A disc in a photograph's colours: in two parts it looks like one, until the limb turns."""
    disc = cv2.circle(np.zeros((50, 60), np.uint8), (30, 25), 18, 1, -1)
    picture, opacity = cut_out(photograph(3, (50, 60)), disc, 0)
    back = Layer(np.zeros((SIZE, SIZE, 3), np.uint8), {}, [np.eye(3)] * 5, opaque=True)
    whole = Layer(picture, {7: opacity}, [np.array([[1, 0, 10], [0, 1, 10], [0, 0, 1.0]])] * 5)
    shown, there = compose([back, whole], SIZE)
    orders = []
    for number in range(30):
        parts = add_limb(np.random.default_rng(number), whole)
        body, limb = sorted(parts, key=lambda part: part.matrices is not whole.matrices)
        orders.append(parts[0] is limb)
        rgb, ids = compose([back, *(replace(part, matrices=whole.matrices) for part in parts)], SIZE)
        assert (ids == there).all() and np.abs(rgb.astype(int) - shown).max() <= 6

        rgb, ids = compose([back, *parts], SIZE)
        assert set(np.unique(ids)) == {0, 7}
        assert 0.45 < np.count_nonzero(ids[4]) / np.count_nonzero(there[4]) < 1.3
        assert (ids[4] != ids[0]).any()
        stays = compose([back, body], SIZE)[1] == 7
        assert stays.any() and (ids[stays] == 7).all()
        if parts[0] is limb:
            assert (rgb[stays] == shown[stays]).all(-1).mean() > 0.9
    assert 5 < sum(orders) < 25


def test_hidden_objects_vanish_after_the_first_frame(pairs):
    """What is not painted over keeps its label, what is painted over is background; some objects come back."""
    pieces = Cuttings(pairs, SIZE)
    shown = np.stack([photograph(9, (SIZE, SIZE))] * 5)
    labels = np.zeros((5, SIZE, SIZE), np.uint8)
    labels[:, 20:40, 15:45] = 3
    gone = back = right = wrong = 0
    kept = []
    for number in range(150):
        rgb, ids = shown.copy(), labels.copy()
        pieces.hide(np.random.default_rng(number), rgb, ids, [3])
        assert (rgb[0] == shown[0]).all() and (ids[0] == labels[0]).all()
        painted = (rgb != shown).any(-1)
        assert (ids[~painted] == labels[~painted]).all()
        # A soft border belongs to what covers more than half of it.
        changed = ids[(np.abs(rgb.astype(int) - shown) > 100).any(-1)]
        wrong += np.count_nonzero(changed)
        right += np.count_nonzero(changed == 0)
        left = np.count_nonzero(ids, (1, 2)) / np.count_nonzero(labels[0])
        kept.append(left.min())
        gone += bool((left == 0).any())
        back += bool(((left[:-1] == 0) & (left[1:] > 0.3)).any())
    assert right > 10000 and wrong < 0.02 * right
    assert gone > 30 and back > 10 and np.mean(np.array(kept) < 0.95) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pasted", "video"])
def test_the_declared_share_of_samples_is_hidden(pairs, kind, tmp_path, clip):
    if kind == "pasted":
        datasets = [pasted_dataset(pairs, seed=4, hide=share) for share in (0, 0.4, 1)]
    else:
        videos = find_videos(training_tree(tmp_path, clip))
        datasets = [VideoDataset(videos, seed=4, size=SIZE, cuttings=Cuttings(pairs, SIZE), hide=share)
                    for share in (0, 0.4, 1)]
    seen = np.array([[float(dataset[number]["cls_gt"][1:].bool().float().mean()) for dataset in datasets]
                     for number in range(60)])
    none, some, all_of_them = seen.mean(0)
    assert none > some > all_of_them and all_of_them < 0.85 * none
    assert 0.2 < np.mean(seen[:, 1] == seen[:, 2]) < 0.7


def test_hiding_needs_something_to_hide_behind():
    with pytest.raises(InputError, match="needs the cuttings"):
        VideoDataset([], hide=0.1)


def test_look_alikes_are_as_frequent_as_declared(pairs, monkeypatch):
    """A copy is the very same cut-out: its pixels are read once."""
    dataset = pasted_dataset(pairs)
    shown = []
    monkeypatch.setattr(Cuttings, "make_object_layers", lambda self, rng, thing, number, camera: (
        shown.append((number, thing)) or [Layer(thing[0], {number: thing[1]}, [np.eye(3)] * 5)]))
    further = copies = 0
    for number in range(250):
        shown.clear()
        dataset._make_pasted(np.random.default_rng(number), number % len(pairs))
        assert 1 <= len(shown) <= 4
        further += len(shown) - 1
        copies += sum(thing is shown[0][1] for _, thing in shown[1:])
    assert 0.13 < copies / further < 0.27
    assert 1 < further / 250 < 1.6


def test_whatever_is_pasted_may_be_tiny_or_large(tmp_path, monkeypatch):
    """Images of a few pixels, and objects larger than the frame."""
    for number in range(3):
        scene(tmp_path, number, [(9, 12), (300, 40), (64, 64)][number])
    monkeypatch.setattr(cuttings, "ROOT", (1.5, 4))
    dataset = pasted_dataset(find_pairs(tmp_path, instances=True))
    for number in range(12):
        sample = dataset[number]
        assert sample["cls_gt"].max() <= 2 and sample["rgb"].float().std() > 0


def test_without_any_object_there_is_nothing_to_follow(tmp_path):
    (tmp_path / "empty").mkdir()
    Image.fromarray(photograph(1)).save(tmp_path / "empty" / "1.jpg")
    write_grey(tmp_path / "empty" / "1.png", np.zeros((120, 160), np.uint8))
    sample = pasted_dataset(find_pairs(tmp_path))[0]
    assert not sample["cls_gt"].any() and sample["selector"].tolist() == [1, 0]


def test_scattered_and_cut_objects_are_not_cut_out():
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 5:25] = 1
    mask[20:40, 40:60] = mask[45:55, 62:72] = 2
    mask[0:18, 30:60] = 3
    mask[50:52, 5:7] = 4
    mask[42:60, 10:50] = 255
    assert cuttings.find_usable_objects(mask, cuttings.CUT_OUT_SHARE, cut=0.12, connected=0.9) == [1]
    assert cuttings.find_usable_objects(mask, (0, 1), cut=0.4, connected=0) == [1, 2, 3, 4]


def test_parts_are_not_cut_out_but_regions_of_a_map_are():
    """Trousers below a shirt are a part of someone; where each pixel has a label, every region has neighbours."""
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 30:50] = 1
    mask[30:34, 28:52] = 2
    mask[34:54, 30:50] = 3
    mask[15:25, 65:75] = 4
    assert cuttings.find_usable_objects(mask, (0.01, 0.5), cut=0.4, connected=0.8) == [1, 3, 4]
    mask[mask == 0] = 6
    assert cuttings.find_usable_objects(mask, (0.01, 0.5), cut=0.4, connected=0.8) == [1, 2, 3, 4]


def test_bad_files_are_named(tmp_path):
    scene(tmp_path, 1)
    pair, = find_pairs(tmp_path, instances=True)
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        for number in range(8):
            pasted_dataset([Pair(pair.image, tmp_path / "gone.png")])[number]
    write_grey(tmp_path / "narrow.png", np.full((90, 60), 255, np.uint8))
    with pytest.raises(InputError, match=r"narrow\.png: the mask has 60×90 pixels"):
        pasted_dataset([Pair(pair.image, tmp_path / "narrow.png")])[0]


def test_a_mixture_is_the_declared_share_of_both():
    videos, images = range(0, 4000), range(10000, 14000)
    mixed = MixedDataset(videos, images, 0.3, seed=5)
    shown = [mixed[number] for number in range(4000)]
    assert all(value in (number, 10000 + number) for number, value in enumerate(shown))
    assert 0.27 < np.mean([value >= 10000 for value in shown]) < 0.33
    assert len(mixed) == 8000 and shown != [MixedDataset(videos, images, 0.3, seed=6)[n] for n in range(4000)]
