"""Lists and folders of datasets, as people's editors, systems and archives leave them."""

import os

import pytest
from PIL import Image

from dataset.training_sets import TrainingVideo, find_davis, find_pairs, find_videos, read_excluded
from dataset.trees import find_davis_home, list_folder_names, read_names
from tests.trees import davis_tree, write_sequence
from util.errors import InputError
from util.files import read_text
from util.image_io import natural

NAMES = ["café", "bear", "dog-gooses"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", " \t\n\n"])
def test_lists_of_names_are_read_in_every_encoding(tmp_path, encoding, end):
    (tmp_path / "val.txt").write_bytes(end.join([*NAMES, NAMES[1], ""]).encode(encoding))
    assert read_names(tmp_path / "val.txt") == NAMES


def test_utf_16_of_the_other_byte_order_is_told_by_its_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xfe\xff" + "日本 bear".encode("utf-16-be"))
    assert read_text(tmp_path / "a.txt") == "日本 bear"


@pytest.mark.parametrize("line", ["/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png", "480p/bear/",
                                  "JPEGImages\\480p\\bear\\00000.jpg", "bear,", '"bear"'])
def test_names_are_found_in_paths(tmp_path, line):
    (tmp_path / "val.txt").write_text(f"{line}\n")
    assert read_names(tmp_path / "val.txt") == ["bear"]


@pytest.mark.parametrize("content, message", [
    (b"bear\n..\n", "'..' is no name of a video"), (b"../../x/..\n", "no name of a video"), (b"/\n", "no name"),
    (bytes.fromhex("00051607000200004d6163204f532058") + bytes(25), "not a text file"),
    (b"\xff\xfeb\0e\0a", "not a text file")])
def test_what_is_no_list_of_names_is_refused(tmp_path, content, message):
    (tmp_path / "val.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_names(tmp_path / "val.txt")


def test_a_blank_list_has_no_names_and_a_missing_one_is_named(tmp_path):
    (tmp_path / "blank.txt").write_bytes("\ufeff \n\n".encode())
    assert read_names(tmp_path / "blank.txt") == []
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_names(path)


def test_natural_order_is_one_order_for_all_names():
    names = ["10", "9", "09", "a10", "a9", "a", "1.5", "frame-2", "frame-11", ""]
    expected = ["", "1.5", "09", "9", "10", "a", "a9", "a10", "frame-2", "frame-11"]
    assert [sorted(order, key=natural) for order in (names, names[::-1])] == [expected, expected]


def test_folders_that_systems_leave_behind_are_no_videos(tmp_path):
    for name in ("bear", "__MACOSX", ".ipynb_checkpoints", "@eaDir", "10", "9"):
        (tmp_path / name).mkdir()
    (tmp_path / "a.txt").write_text("")
    assert list_folder_names(tmp_path) == ["10", "9", "bear"]


@pytest.mark.parametrize("given", ["DAVIS", "DAVIS/2017", "DAVIS/2017/trainval"])
def test_davis_is_found_from_each_of_its_folders(clip, tmp_path, given):
    home = davis_tree(tmp_path / "DAVIS" / "2017", clip, ("bear",), 2) / "trainval"
    for year in (2016, 2017):
        found, listing = find_davis_home(tmp_path / given, year, "val", ("JPEGImages", "Annotations"))
        assert os.path.samefile(found, home) and os.path.samefile(listing, home / "ImageSets" / str(year) / "val.txt")
    if given != "DAVIS/2017/trainval":
        found, _ = find_davis_home(tmp_path / given, 2017, "test-dev", ("Annotations",))
        assert os.path.samefile(found, home.with_name("test-dev"))


@pytest.mark.parametrize("place", ["DAVIS", "DAVIS/2016", "DAVIS/2016/DAVIS"])
def test_the_original_davis_2016_is_found(clip, tmp_path, place):
    home = tmp_path / place
    write_sequence(home / "JPEGImages" / "480p", home / "Annotations" / "480p", "bear", clip[0][:2], {0: clip[1][0]})
    (home / "ImageSets" / "480p").mkdir(parents=True)
    (home / "ImageSets" / "480p" / "val.txt").write_text("/JPEGImages/480p/bear/00000.jpg\n")
    found, listing = find_davis_home(tmp_path / "DAVIS", 2016, "val", ("JPEGImages", "Annotations"))
    assert os.path.samefile(found, home) and listing.parent.name == "480p"
    with pytest.raises(InputError, match=r"expected ImageSets/2017/val.txt with JPEGImages/480p beside it"):
        find_davis_home(tmp_path / "DAVIS", 2017, "val", ("JPEGImages",))


def test_sets_that_are_there_are_named_without_hidden_ones(clip, tmp_path):
    davis_tree(tmp_path, clip, ("bear",), 2)
    (tmp_path / "trainval" / "ImageSets" / "2017" / "._val.txt").write_bytes(b"\0\5\x16\7")
    with pytest.raises(InputError, match=r"no such set, .*; sets there: test-dev, val$"):
        find_davis_home(tmp_path, 2017, "train", ("JPEGImages",))


def test_folders_that_lack_beside_a_list_are_named(clip, tmp_path):
    davis_tree(tmp_path, clip, ("bear",), 2)
    with pytest.raises(InputError, match=r"trainval: no Annotations_unsupervised here, where .*/2017/val.txt lists"):
        find_davis_home(tmp_path, 2017, "val", ("JPEGImages", "Annotations_unsupervised"))


def test_images_of_hidden_folders_are_not_trained_on(tmp_path):
    for name in ("a", ".ipynb_checkpoints", "__MACOSX"):
        for part in ("static", "JPEGImages", "Annotations"):
            (tmp_path / part / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "static" / name / "1.jpg")
        Image.new("L", (8, 8)).save(tmp_path / "static" / name / "1.png")
        Image.new("RGB", (8, 8)).save(tmp_path / "JPEGImages" / name / "1.jpg")
    assert [pair.image.parent.name for pair in find_pairs(tmp_path / "static")] == ["a"]
    assert [video.name for video in find_videos(tmp_path)] == ["a"]


@pytest.mark.parametrize("resolution", ["480p", "Full-Resolution", "1080p", "."])
def test_videos_of_every_resolution_are_trained_on(clip, tmp_path, resolution):
    home = tmp_path / "2017" / "trainval"
    write_sequence(home / "JPEGImages" / resolution, home / "Annotations" / resolution, "bear", clip[0][:5],
                   dict(enumerate(clip[1][:5])))
    (home / "ImageSets" / "2017").mkdir(parents=True)
    (home / "ImageSets" / "2017" / "train.txt").write_bytes("bear\r\n".encode("utf-16"))
    assert {(video.name, len(video.frames)) for video in find_davis(tmp_path)} == {("bear", 5)}


@pytest.mark.parametrize("content, said", [
    (b"bear\n", ""), (b"\xef\xbb\xbf \n", "an empty list, no video is excluded"),
    (b"bear ghost\nzebra", "no video has the name ghost, zebra")])
def test_what_a_list_of_excluded_videos_does_not_do_is_said(tmp_path, capsys, content, said):
    (tmp_path / "bad.txt").write_bytes(content)
    videos = [TrainingVideo("bear", tmp_path, tmp_path, ("0.jpg",))]
    assert ("bear" in read_excluded(tmp_path / "bad.txt", videos)) == (b"bear" in content)
    error = capsys.readouterr().err
    assert said in error and bool(error) == bool(said)
    assert read_excluded(None, videos) == []
