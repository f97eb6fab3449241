import itertools
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dataset.sampler import BatchNumbers, find_sample_index, load_batches
from dataset.static import StaticDataset
from dataset.training_sets import TrainingVideo, find_davis, find_pairs, find_videos
from dataset.video import SHOTS, VideoDataset, copy_object, draw_frames, jump_curriculum
from tests.conftest import SHARED
from tests.trees import pairs_tree, training_tree, write_sequence
from util.errors import InputError
from util.image_io import write_grey

SIZE = 64
needs_shared = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="no real data here")


@pytest.fixture(scope="module")
def static(tmp_path_factory, clip):
    return StaticDataset(find_pairs(pairs_tree(tmp_path_factory.mktemp("static"), clip)), seed=7, size=SIZE)


@pytest.fixture(scope="module")
def videos(tmp_path_factory, clip):
    return find_videos(training_tree(tmp_path_factory.mktemp("videos"), clip))


@pytest.fixture(scope="module")
def video(videos):
    return VideoDataset(videos, seed=7, size=SIZE)


def equal(one, other):
    return one.keys() == other.keys() and all(
        one[key] == other[key] if key == "info" else torch.equal(one[key], other[key]) for key in one)


def layout(sample):
    return {key: (tuple(value.shape), value.dtype) for key, value in sample.items() if key != "info"}


def test_static_sample_has_the_declared_arrays(static):
    sample = static[0]
    assert layout(sample) == {
        "rgb": ((3, 3, SIZE, SIZE), torch.uint8), "gt": ((3, 1, SIZE, SIZE), torch.float32),
        "cls_gt": ((3, SIZE, SIZE), torch.uint8), "pgt": ((1, 1, SIZE, SIZE), torch.uint8)}
    assert sample["gt"].min() >= 0 and sample["gt"].max() <= 1
    assert torch.equal(sample["cls_gt"], (sample["gt"][:, 0] > 0.5).byte())


def test_static_masks_stay_grey(static):
    """Quirk of the published pipeline that is kept: masks are resampled bicubically and not thresholded."""
    grey = torch.cat([static[number]["gt"] for number in range(6)])
    assert ((grey > 0.02) & (grey < 0.98)).float().mean() > 0.005


def test_video_sample_has_the_declared_arrays(video):
    sample = video[0]
    plane = ((5, 1, SIZE, SIZE), torch.uint8)
    first = ((1, 1, SIZE, SIZE), torch.uint8)
    assert layout(sample) == {
        "rgb": ((5, 3, SIZE, SIZE), torch.uint8), "gt": plane, "sec_gt": plane, "pgt": first, "sec_pgt": first,
        "cls_gt": ((5, SIZE, SIZE), torch.uint8), "selector": ((2,), torch.float32)}
    assert torch.equal(sample["cls_gt"], (sample["gt"] + 2 * sample["sec_gt"])[:, 0])
    assert sample["info"]["name"] in ("ant", "bee", "cow") and len(sample["info"]["frames"].split()) == 5


@pytest.mark.parametrize("kind", ["static", "video"])
def test_samples_do_not_depend_on_workers_or_history(kind, request):
    dataset = request.getfixturevalue(kind)
    torch.manual_seed(1)
    np.random.seed(1)
    alone = list(load_batches(dataset, BatchNumbers(2, 0, 6)))
    state = torch.get_rng_state()
    several = list(load_batches(dataset, BatchNumbers(2, 0, 6), workers=2))
    assert len(alone) == 6 and all(map(equal, alone, several))
    assert torch.equal(torch.get_rng_state(), state)
    resumed = list(load_batches(dataset, BatchNumbers(2, 4, 6), workers=1))
    assert len(resumed) == 2 and all(map(equal, alone[4:], resumed))
    again = pickle.loads(pickle.dumps(dataset))
    assert equal(again[3], dataset[3]) and not torch.equal(dataset[3]["rgb"], dataset[3 + len(dataset)]["rgb"])


def test_seeds_differ(static):
    other = StaticDataset(static.pairs, seed=8, size=SIZE)
    assert not any(torch.equal(static[number]["rgb"], other[number]["rgb"]) for number in range(3))


def test_every_epoch_shows_every_item_once_in_another_order():
    epochs = [[find_sample_index(3, number, 50) for number in range(50 * epoch, 50 * epoch + 50)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert find_sample_index(3, 120, 50) == epochs[2][20]


def test_two_processes_see_what_one_with_twice_the_batch_sees():
    one = list(BatchNumbers(4, 3, 9))
    ranks = [list(BatchNumbers(2, 3, 9, rank, 2)) for rank in range(2)]
    assert len(one) == 6 == len(BatchNumbers(2, 3, 9))
    assert one == [first + second for first, second in zip(*ranks, strict=True)]
    assert list(itertools.chain(*one)) == list(range(12, 36))


def test_curriculum_reaches_workers_that_live_on(videos):
    """At exactly the sample it is declared for, however far ahead the workers are."""
    dataset = VideoDataset(videos, seed=1, size=SIZE, max_jump=((0, 1), (30, 2)))

    def longest(info):
        return [max(abs(np.diff([int(name[:5]) for name in frames.split()]))) for frames in info["frames"]]

    loader = DataLoader(dataset, batch_sampler=BatchNumbers(5, 0, 12), num_workers=2, persistent_workers=True)
    for _ in range(2):
        gaps = np.concatenate([longest(batch["info"]) for batch in loader])
        assert (gaps[:30] == 1).all() and (gaps[30:] == 2).mean() > 0.7


def test_curriculum_is_the_published_one():
    dataset = VideoDataset([], max_jump=jump_curriculum(1000))
    jumps = [dataset.find_max_jump(number) for number in (0, 99, 100, 200, 300, 399, 400, 899, 900, 5000)]
    assert jumps == [5, 5, 10, 15, 20, 20, 25, 25, 5, 5]
    assert VideoDataset([], max_jump=jump_curriculum(1000, 0.8)).find_max_jump(800) == 5


def test_gaps_of_youtube_are_a_fifth(videos):
    sparse = [TrainingVideo(video.name, video.images, video.annotations, video.frames, step=5) for video in videos]
    dataset = VideoDataset(sparse, size=SIZE, max_jump=((0, 5),))
    for number in range(6):
        frames = [int(name[:5]) for name in dataset[number]["info"]["frames"].split()]
        assert set(np.abs(np.diff(frames))) == {1}


def test_video_samples_of_more_frames(videos):
    dataset = VideoDataset(videos, seed=7, size=SIZE, shots=7, max_jump=((0, 1),))
    sample = dataset[0]
    assert sample["rgb"].shape[0] == sample["gt"].shape[0] == sample["cls_gt"].shape[0] == 7
    assert len(set(sample["info"]["frames"].split())) == 7 and sample["pgt"].shape[0] == 1


@pytest.mark.parametrize(("length", "shots"), [(5, SHOTS), (6, SHOTS), (25, SHOTS), (70, SHOTS), (9, 9), (70, 9)])
@pytest.mark.parametrize("jump", [1, 5, 25])
def test_frames_go_one_way_with_bounded_gaps(length, shots, jump):
    """The published sampling goes to and fro in short videos; this one never does."""
    rng = np.random.default_rng(0)
    seen, backward = set(), 0
    for _ in range(600):
        frames = draw_frames(rng, length, jump, shots)
        gaps = np.diff(frames)
        assert len(frames) == shots and min(frames) >= 0 and max(frames) < length
        assert (gaps > 0).all() or (gaps < 0).all()
        assert np.abs(gaps).max() <= jump
        backward += gaps[0] < 0
        seen.update(frames)
    assert 240 < backward < 360
    assert seen == set(range(length))


def test_half_of_the_samples_are_flipped(tmp_path):
    """An image that is bright on the left, and its mask: on the same side in every view of a sample."""
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:, :48] = 255
    masks = {index: (frame[..., 0] > 0).astype(np.uint8) for index in range(5)}
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "half", [frame] * 5, masks)
    write_sequence(tmp_path / "still", tmp_path / "unused", "half", [frame], {})
    write_grey(tmp_path / "still" / "half" / "00000.png", masks[0] * np.uint8(255))
    for dataset in (VideoDataset(find_videos(tmp_path), size=SIZE),
                    StaticDataset(find_pairs(tmp_path / "still"), size=SIZE)):
        sides = []
        for number in range(80):
            mask = dataset[number]["cls_gt"].float()
            side = mask[..., :SIZE // 2].sum((1, 2)) > mask[..., SIZE // 2:].sum((1, 2))
            if side.all() or not side.any():
                sides.append(bool(side[0]))
        assert len(sides) > 50 and 0.3 < np.mean(sides) < 0.7


@pytest.mark.parametrize("kind", ["static", "video"])
def test_image_and_mask_stay_aligned(kind, tmp_path):
    """A white square on black under the whole augmentation."""
    frame = np.zeros((80, 110, 3), np.uint8)
    frame[20:65, 30:80] = 250
    mask = (frame[..., 0] > 0).astype(np.uint8)
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "square", [frame] * 5,
                   dict.fromkeys(range(5), mask), suffix="bmp")
    if kind == "video":
        dataset = VideoDataset(find_videos(tmp_path), size=SIZE)
    else:
        write_grey(tmp_path / "JPEGImages" / "square" / "00000.png", mask * np.uint8(255))
        pairs = [pair for pair in find_pairs(tmp_path) if pair.mask.exists()]
        dataset = StaticDataset(pairs, size=SIZE)
    for number in range(12):
        sample = dataset[number]
        bright = sample["rgb"].float().mean(1) > 180
        wanted = sample["cls_gt"] > 0
        assert wanted.sum() > 1000
        assert (bright & wanted).sum() / (bright | wanted).sum() > 0.93


def test_fill_is_the_mean_colour_and_no_object(video):
    corners = 0
    for number in range(6):
        sample = video[number]
        fill = ((sample["rgb"].permute(0, 2, 3, 1).float() - torch.tensor([124.0, 116, 104])).abs() < 4).all(-1)
        corners += int(fill[:, 0, 0].sum() + fill[:, -1, -1].sum())
        assert fill.float().mean() < 0.4
    assert corners > 20


def test_two_objects_of_many_are_chosen_at_random(tmp_path):
    ids = np.kron(np.array([[1, 2, 3], [4, 5, 6]], np.uint8), np.ones((40, 40), np.uint8))
    frame = np.repeat(ids[..., None] * np.uint8(40), 3, 2)
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "many", [frame] * 5,
                   dict.fromkeys(range(5), ids), suffix="bmp")
    dataset = VideoDataset(find_videos(tmp_path), size=SIZE)
    shades = []
    for number in range(40):
        sample = dataset[number]
        assert sample["selector"].tolist() == [1, 1]
        shades.append([float(sample["rgb"][0].float().mean(0)[sample[key][0, 0] > 0].median().div(40).round())
                       for key in ("gt", "sec_gt")])
    assert all(first != second for first, second in shades)
    assert {first for first, _ in shades} == {1, 2, 3, 4, 5, 6} == {second for _, second in shades}


def test_other_frames_are_drawn_until_the_first_has_an_object(tmp_path, clip):
    """Only the first half of the video has the object: a single draw would often start without one."""
    frames = clip[0]
    ids = np.zeros((20, 72, 100), np.uint8)
    ids[:10, 20:50, 30:70] = 1
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "half", frames, dict(enumerate(ids)))
    dataset = VideoDataset(find_videos(tmp_path), size=SIZE, max_jump=((0, 1),))
    samples = [dataset[number] for number in range(30)]
    assert np.mean([bool(sample["gt"][0].any()) for sample in samples]) > 0.9
    for sample in samples:
        assert sample["selector"].tolist() == [1, 0] and not sample["sec_gt"].any() and not sample["sec_pgt"].any()


def test_an_object_of_another_video_is_copied_with_its_mask(tmp_path):
    """Grey and white squares on black: what is bright is labelled, and a label keeps to its object."""
    shades = {"grey": 160, "white": 255}
    for name, shade in shades.items():
        frame = np.zeros((80, 110, 3), np.uint8)
        frame[25:60, 35:75] = shade
        write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", name, [frame] * 5,
                       dict.fromkeys(range(5), (frame[..., 0] > 0).astype(np.uint8)), suffix="bmp")
    videos = find_videos(tmp_path)
    dataset = VideoDataset(videos, seed=2, size=SIZE, copy_paste=1)
    pairs = set()
    for number in range(40):
        sample = dataset[number]
        fill = ((sample["rgb"].permute(0, 2, 3, 1).float() - torch.tensor([124.0, 116, 104])).abs() < 8).all(-1)
        bright, labelled = (sample["rgb"].float().mean(1) > 100) & ~fill, (sample["cls_gt"] > 0) & ~fill
        assert (bright & labelled).sum() / (bright | labelled).sum() > 0.9
        if sample["selector"][1]:
            seen = [[float(image.float().mean(0)[mask[0] > 0].median()) > 205
                     for image, mask in zip(sample["rgb"], sample[key], strict=True) if mask.sum() > 100]
                    for key in ("gt", "sec_gt")]
            assert all(len(set(object_)) <= 1 for object_ in seen)
            pairs.add(tuple(object_[0] for object_ in seen if object_))
    assert {(True, False), (False, True)} <= pairs

    some = VideoDataset(videos, seed=2, size=SIZE, copy_paste=0.5)
    assert 0.2 < np.mean([float(some[number]["selector"][1]) for number in range(60)]) < 0.6
    assert not any(VideoDataset(videos, seed=2, size=SIZE)[number]["selector"][1] for number in range(20))


def test_copied_objects_pass_before_and_behind_others():
    shown = np.full((5, SIZE, SIZE, 3), 200, np.uint8), np.ones((5, SIZE, SIZE), np.uint8)
    covered = []
    for seed in range(30):
        rgb, ids = np.full_like(shown[0], 50), np.ones_like(shown[1])
        copy_object(np.random.default_rng(seed), *shown, 1, rgb, ids)
        assert set(np.unique(ids)) <= {1, 2} and ((rgb[..., 0] > 125) == (ids == 2)).mean() > 0.97
        covered.append(bool((ids == 2).any()))
    assert 5 < sum(covered) < 25


def test_tiny_parts_of_bl30k_are_no_objects():
    dataset = VideoDataset([], bl30k=True)
    ids = np.zeros((5, 100, 100), np.uint8)
    ids[0].flat[:100], ids[0].flat[200:301], ids[0].flat[400:1300], ids[0].flat[2000:2901] = 1, 2, 3, 4
    ids[0].flat[3000:3200] = 5
    ids[2].flat[:500] = 3
    ids[2].flat[600:999] = 5
    # 1: not more than 100 pixels; 2, 5: small and stays small; 3: small now, larger later; 4: large.
    assert dataset._find_objects(ids) == [2, 4, 5]
    assert VideoDataset([])._find_objects(ids) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_file_is_named_in_one_line(tmp_path, clip, workers):
    dataset = StaticDataset(find_pairs(pairs_tree(tmp_path, clip, 1)), size=SIZE)
    dataset.pairs[0].mask.unlink()
    with pytest.raises(InputError) as caught:
        next(load_batches(dataset, BatchNumbers(1, 0, 1), workers=workers))
    assert str(caught.value) == f"{dataset.pairs[0].mask}: no such file"


def test_large_frames_are_averaged_before_they_are_shrunk(tmp_path):
    """Stripes of one pixel become grey; bicubic resampling alone would show moiré of the full contrast."""
    frame = np.zeros((600, 600, 3), np.uint8)
    frame[:, ::2] = 255
    mask = np.ones((600, 600), np.uint8)
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "stripes", [frame] * 5,
                   dict.fromkeys(range(5), mask), suffix="bmp")
    write_sequence(tmp_path / "still", tmp_path / "unused", "stripes", [frame], {}, suffix="bmp")
    write_grey(tmp_path / "still" / "stripes" / "00000.png", mask * np.uint8(255))
    pairs = find_pairs(tmp_path / "still")
    for dataset in (VideoDataset(find_videos(tmp_path), size=SIZE), StaticDataset(pairs, size=SIZE)):
        for number in range(4):
            sample = dataset[number]
            assert sample["rgb"].float().mean(1)[sample["cls_gt"] > 0].std() < 20


@needs_shared
def test_real_data_make_samples():
    data = SHARED / "data"
    videos = find_davis(data / "DAVIS")
    pairs = find_pairs(data / "static" / "davis17_testdev_first")
    for dataset in (VideoDataset(videos), StaticDataset(pairs)):
        ious = []
        for number in range(12):
            sample = dataset[number]
            assert sample["rgb"].float().std() > 10
            clean, damaged = sample["cls_gt"][0] == 1, sample["pgt"][0, 0] > 0
            if clean.sum() > 2000:
                ious.append(float((clean & damaged).sum() / (clean | damaged).sum()))
        assert 0.8 < np.mean(ious) < 0.99
