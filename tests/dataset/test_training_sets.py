import os

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dataset.check import check_data
from dataset.training_sets import count_object_pixels, find_davis, find_pairs, find_videos, find_youtube, usable_videos
from dataset.video import VideoDataset
from tests.trees import pairs_tree, training_tree, write_sequence
from util.errors import InputError
from util.image_io import read_grey, read_image, read_mask, write_grey, write_mask


def test_pairs_are_found_in_published_trees_and_any_other(tmp_path, clip):
    pairs = find_pairs(pairs_tree(tmp_path, clip))
    assert len(pairs) == 6 and all(pair.image.exists() and pair.mask.exists() for pair in pairs)
    assert find_pairs(tmp_path / "fss" / "class_0")[0].image.name == "1.jpg"


def test_exactly_labelled_images_count_five_times(tmp_path, clip):
    (tmp_path / "DUTS-TR").mkdir(parents=True)
    pairs_tree(tmp_path, clip, 2)
    (tmp_path / "DUTS-TR").rename(tmp_path / "BIG_small")
    assert [pair.image.parent.name for pair in find_pairs(tmp_path)] == ["BIG_small"] * 5 + ["class_0"]


def test_davis_is_read_by_its_list_and_counts_five_times(tmp_path, clip):
    home = training_tree(tmp_path / "2017" / "trainval", clip)
    for part in ("JPEGImages", "Annotations"):
        (home / part).rename(home / "480p")
        (home / part).mkdir()
        (home / "480p").rename(home / part / "480p")
    with pytest.raises(InputError, match=r"train\.txt"):
        find_davis(tmp_path)
    listing = home / "ImageSets" / "2017" / "train.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("ant\ncow\n")
    videos = find_davis(tmp_path)
    assert [video.name for video in videos] == ["ant", "cow"] * 5
    assert videos == find_davis(home) and videos[0].mask(3).exists() and videos[0].step == 1
    listing.write_text("ant\nghost\n")
    with pytest.raises(InputError, match="ghost"):
        find_davis(tmp_path)


def test_youtube_counts_every_fifth_frame(tmp_path, clip):
    training_tree(tmp_path / "train_480p", clip)
    assert {video.step for video in find_youtube(tmp_path)} == {5}
    assert {video.step for video in find_videos(tmp_path / "train_480p")} == {1}


def test_void_is_no_object():
    assert count_object_pixels(np.array([[0, 3, 3, 255]], np.uint8)) == {3: 2}


def test_videos_that_cannot_be_used_are_left_out_and_named(tmp_path, clip):
    frames, truth = clip
    training_tree(tmp_path, clip)
    images, annotations = tmp_path / "JPEGImages", tmp_path / "Annotations"
    write_sequence(images, annotations, "short", frames[:4], dict(enumerate(truth[:4])))
    write_sequence(images, annotations, "empty", frames[:6], dict(enumerate(np.zeros_like(truth[:6]))))
    late = np.zeros_like(truth[:6])
    late[5] = truth[5]
    write_sequence(images, annotations, "late", frames[:6], dict(enumerate(late)))
    videos, faults = usable_videos(find_videos(tmp_path) * 2, {"bee"})
    assert [video.name for video in videos] == ["ant", "cow", "late"] * 2
    assert set(faults) == {"bee", "short", "empty"}
    assert "4 frames" in faults["short"] and "no object" in faults["empty"] and "excluded" in faults["bee"]


def test_sound_data_pass(tmp_path, clip):
    pairs = find_pairs(pairs_tree(tmp_path / "static", clip))
    videos = find_videos(training_tree(tmp_path / "videos", clip))
    assert check_data(pairs, videos) == 6 + 3 * 12
    assert check_data(pairs, videos * 5, thorough=False) == 6 + 3


def test_one_report_names_every_bad_file(tmp_path, clip):
    pairs = find_pairs(pairs_tree(tmp_path / "static", clip))
    videos = find_videos(training_tree(tmp_path / "videos", clip))
    pairs[0].mask.unlink()
    write_grey(pairs[1].mask, np.zeros((10, 20), np.uint8))
    pairs[2].image.write_bytes(pairs[2].image.read_bytes()[:200])
    pairs[3].mask.write_bytes(b"no image")
    videos[0].mask(4).unlink()
    # A frame and its mask fit each other, but not the video's other frames.
    Image.new("RGB", (40, 44)).save(videos[1].image(7))
    write_mask(videos[1].mask(7), np.zeros((44, 40), np.uint8))
    Image.new("RGB", (30, 30)).save(videos[2].image(5))
    with pytest.raises(InputError) as caught:
        check_data(pairs, videos)
    first, *details = str(caught.value).splitlines()
    bad = [pairs[0].mask, pairs[1].mask, pairs[2].image, pairs[3].mask, videos[0].mask(4), videos[1].image(7),
           videos[2].image(5)]
    assert len(details) == len(bad) and all(any(str(file) in line for line in details) for file in bad)
    assert details[0] in first and "6 more" in first
    report = "\n".join(details)
    for words in ("is missing", "20×10", "damaged", "not a readable image", "the frame has 40×44 pixels, the first one",
                  "30×30"):
        assert words in report


def test_quick_check_finds_missing_masks_anywhere(tmp_path, clip):
    videos = find_videos(training_tree(tmp_path, clip))
    videos[0].mask(9).unlink()
    with pytest.raises(InputError, match=r"00009\.png: this mask is missing"):
        check_data(videos=videos, thorough=False)


def test_masks_of_every_kind_become_grey(tmp_path):
    ids = np.zeros((20, 30), np.uint8)
    ids[5:9, 4:20] = 3
    write_mask(tmp_path / "indexed.png", ids)
    write_grey(tmp_path / "ids.png", ids)
    write_grey(tmp_path / "binary.png", (ids > 0).astype(np.uint8) * 255)
    Image.fromarray((ids > 0).astype(np.uint8) * 255).convert("RGB").save(tmp_path / "colour.png")
    for name in ("indexed", "ids", "binary", "colour"):
        assert (read_grey(tmp_path / f"{name}.png") == (ids > 0) * np.uint8(255)).all()
    soft = np.linspace(0, 255, 600).reshape(20, 30).astype(np.uint8)
    write_grey(tmp_path / "soft.png", soft)
    assert (read_grey(tmp_path / "soft.png") == soft).all()


def test_large_photograph_is_decoded_at_a_fraction(tmp_path):
    Image.linear_gradient("L").resize((2000, 1600)).convert("RGB").save(tmp_path / "large.jpg", quality=95)
    reduced = read_image(tmp_path / "large.jpg", shorter=384)
    assert reduced.shape == (400, 500, 3)
    whole = read_image(tmp_path / "large.jpg")
    assert np.abs(whole.reshape(400, 4, 500, 4, 3).mean((1, 3)) - reduced).max() < 4


def test_masks_that_tell_objects_apart_come_as_pairs_of_their_own(tmp_path, clip):
    frames, truth = clip
    for folder in ("park", "park_instances", "park_other"):
        (tmp_path / folder).mkdir()
    for index in range(3):
        Image.fromarray(frames[index]).save(tmp_path / "park" / f"{index}.jpg")
    write_grey(tmp_path / "park" / "0.png", (truth[0] > 0).astype(np.uint8) * 255)
    for index in range(2):
        write_mask(tmp_path / "park_instances" / f"{index}.png", truth[index])

    def found(*arguments):
        return [str(pair.mask.relative_to(tmp_path)) for pair in find_pairs(*arguments)]

    assert found(tmp_path, True) == ["park/0.png", "park_instances/0.png", "park_instances/1.png", "park/2.png"]
    assert found(tmp_path / "park", True) == found(tmp_path, True)
    # Image 1 has no mask of its own, which is no fault; image 2 has none at all, which is one.
    assert found(tmp_path) == ["park/0.png", "park/2.png"]
    assert [len(count_object_pixels(read_mask(pair.mask))) for pair in find_pairs(tmp_path, True)[:3]] == [1, 2, 2]


def test_soft_masks_are_one_object(tmp_path):
    write_grey(tmp_path / "soft.png", np.array([[0, 100, 128, 255]], np.uint8))
    assert read_mask(tmp_path / "soft.png").tolist() == [[0, 0, 1, 1]]
    write_grey(tmp_path / "ids.png", np.array([[0, 1, 3, 3]], np.uint8))
    assert read_mask(tmp_path / "ids.png").tolist() == [[0, 1, 3, 3]]
    Image.fromarray(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)).save(tmp_path / "colour.png")
    assert read_mask(tmp_path / "colour.png").tolist() == [[0, 1]]


def test_videos_with_soft_masks_have_one_object_which_is_said(tmp_path, clip, capsys):
    """Their fringes would be objects otherwise, and the object itself, 255, would not count."""
    _, truth = clip
    training_tree(tmp_path, clip)
    for index in range(12):
        soft = Image.fromarray((truth[index] == 1) * np.uint8(255)).filter(ImageFilter.GaussianBlur(2))
        soft.save(tmp_path / "Annotations" / "bee" / f"{index:05d}.png")
    notices = []
    videos, _ = usable_videos(find_videos(tmp_path), notices=notices)
    assert [str(file)[-13:] for file, text in notices] == ["bee/00000.png"] and "cut at half" in notices[0][1]
    check_data(videos=videos)
    assert "00000.png and 11 more: grey levels, taken as one object, cut at half" in capsys.readouterr().err
    sample = VideoDataset([video for video in videos if video.name == "bee"], size=48)[0]
    assert set(np.unique(sample["cls_gt"])) == {0, 1}


def test_colours_are_the_same_objects_in_all_frames_of_a_sample(tmp_path, clip):
    training_tree(tmp_path, clip, names=("ant",))
    palette = np.array([(0, 0, 0), (250, 0, 0), (0, 250, 0)], np.uint8)
    for index in range(12):
        # The first object is not in every frame.
        ids = clip[1][index] * (clip[1][index] > index % 2)
        Image.fromarray(palette[ids]).save(tmp_path / "Annotations" / "ant" / f"{index:05d}.png")
    dataset = VideoDataset(find_videos(tmp_path), size=48)
    for number in range(8):
        ids = dataset._read_masks(np.random.default_rng(number), dataset.videos[0], [4, 5, 6, 7, 8])[1]
        assert set(np.unique(ids[1])) <= {0, 2} and set(np.unique(ids[0])) <= {0, 1, 2}


@pytest.mark.parametrize("write", [write_mask, write_grey])
def test_255_is_read_as_do_not_care_beside_ids(tmp_path, clip, write):
    training_tree(tmp_path, clip, names=("ant",))
    ids = clip[1][0].copy()
    ids[:9] = 255
    write(tmp_path / "Annotations" / "ant" / "00000.png", ids)
    video = find_videos(tmp_path)[0]
    assert (read_mask(video.mask(0)) == ids).all() and set(count_object_pixels(read_mask(video.mask(0)))) == {1, 2}
    # Neither the check nor a sample takes it for background.
    check_data(videos=[video])
    for index in range(1, len(video.frames)):
        write(video.mask(index), ids)
    classes = VideoDataset([video], size=64)[0]["cls_gt"]
    assert set(classes.unique().tolist()) == {0, 1, 2, 255}


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_links_that_lead_back_are_refused(tmp_path):
    """Otherwise the walk through them would not end in a lifetime; also where only two links together lead back."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "a").symlink_to(tmp_path / "two")
    (tmp_path / "two" / "b").symlink_to(tmp_path / "one")
    with pytest.raises(InputError, match="remove the link"):
        find_pairs(tmp_path)
