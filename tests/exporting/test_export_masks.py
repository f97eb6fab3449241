"""export_masks.py: what folders it takes, what it refuses, and that it leaves nothing half-written."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from exporting import formats
from tests.conftest import ROOT
from tests.exporting.conftest import LOOK, SIZE, TIMES, draw_masks, export, no_larger_files, write_clip, write_summary
from util.image_io import write_mask
from util.video_writer import VideoWriter


@pytest.fixture
def tracked(inputs, tmp_path):
    """A folder like track.py's."""
    folder = tmp_path / "tracked"
    folder.mkdir()
    (folder / "masks").symlink_to(inputs.masks)
    write_summary(folder / "summary.json", [inputs.video], inputs.ids)
    return folder


def refused(capsys, *parts):
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if "error:" in line]
    assert len(errors) == 1 and all(str(part) in errors[0] for part in parts), lines
    return True


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def frame_count(path):
    return len(json.loads(path.read_text())["images"])


def test_a_tracked_folder_knows_its_video(tracked, capsys):
    assert export(tracked, "--format", "coco", "prores") == 0
    assert files(tracked / "export") == [".exports.json", "coco.json", "prores.mov"]
    written = capsys.readouterr().out.splitlines()
    assert written == [f"wrote 8 frames of tracked as coco to {tracked / 'export' / 'coco.json'}",
                       f"wrote 8 frames of tracked as prores to {tracked / 'export' / 'prores.mov'}"]


def test_a_part_of_a_video_keeps_its_numbers_and_begins_at_its_start(inputs, tmp_path):
    (tmp_path / "masks").mkdir()
    for number in range(2, 6):
        write_mask(tmp_path / "masks" / f"{number:05d}.png", inputs.ids[number])
    write_summary(tmp_path / "summary.json", [inputs.video], [], start="2", end="5")
    assert export(tmp_path, "--format", "mot", "images", "boxes-csv") == 0
    rows = (tmp_path / "export" / "mot" / "gt" / "gt.txt").read_text().splitlines()
    assert sorted({int(row.split(",")[0]) for row in rows}) == [3, 4, 5, 6]
    assert len(list((tmp_path / "export" / "images").iterdir())) == 4


def test_many_tracked_videos_are_exported_each_into_its_folder(inputs, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "many" / name / "clicked").mkdir(parents=True)
        write_mask(tmp_path / "many" / name / "clicked" / "00000.png", inputs.ids[0])
        (tmp_path / "many" / name / "masks").symlink_to(inputs.masks)
        write_summary(tmp_path / "many" / name / "summary.json", [inputs.video], inputs.ids)
    assert export(tmp_path / "many", "--format", "images") == 0
    assert export(tmp_path / "many", "--format", "coco", "--output", tmp_path / "out") == 0
    for name in ("a", "b"):
        assert len(files(tmp_path / "many" / name / "export" / "images")) == 8
        assert frame_count(tmp_path / "out" / name / "coco.json") == 8
    write_summary(tmp_path / "many" / "b" / "summary.json", [inputs.video], inputs.ids, finished=False)
    capsys.readouterr()
    assert export(tmp_path / "many", "--format", "mot") == 2
    assert refused(capsys, tmp_path / "many" / "b", "interrupted")
    assert not (tmp_path / "many" / "a" / "export" / "mot").exists()


def test_tracked_videos_that_were_moved_are_found_by_name(inputs, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "many" / name).mkdir(parents=True)
        (tmp_path / "many" / name / "masks").symlink_to(inputs.masks)
        write_summary(tmp_path / "many" / name / "summary.json", [f"gone/{name}.mp4"], inputs.ids)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").symlink_to(inputs.video)
    command = (tmp_path / "many", "--format", "images", "--video", tmp_path / "videos")
    assert export(*command) == 2
    assert refused(capsys, "gone/b.mp4 is not there any more: say with --video which folder holds b")
    (tmp_path / "videos" / "b.mp4").symlink_to(inputs.video)
    assert export(*command) == 0
    assert all(len(files(tmp_path / "many" / name / "export" / "images")) == 8 for name in ("a", "b"))


def test_a_summary_beside_masks_does_not_keep_them_from_being_exported(inputs, tmp_path):
    for name in ("other", ".old"):
        (tmp_path / "results" / name).mkdir(parents=True)
    (tmp_path / "results" / "other" / "summary.json").write_text('{"accuracy": 0.9}')
    write_summary(tmp_path / "results" / ".old" / "summary.json", [inputs.video], inputs.ids)
    (tmp_path / "results" / "clip").symlink_to(inputs.masks)
    assert export(tmp_path / "results", "--format", "coco") == 0
    assert frame_count(tmp_path / "results_export" / "coco.json") == 8

    (tmp_path / "masks" / "run").mkdir(parents=True)
    write_mask(tmp_path / "masks" / "00000.png", inputs.ids[0])
    write_summary(tmp_path / "masks" / "run" / "summary.json", [inputs.video], inputs.ids, finished=False)
    assert export(tmp_path / "masks", "--format", "coco") == 0
    assert frame_count(tmp_path / "masks_export" / "coco.json") == 1


@pytest.mark.parametrize("backward", [False, True])
def test_times_come_from_the_summary_where_no_frames_are_read(tracked, backward):
    if backward:
        lines = (tracked / "summary.json").read_text().splitlines()
        frames = [line.rstrip(",") for line in lines if line.startswith("  {")]
        begin = lines.index(' "frames": [') + 1
        lines[begin:begin + len(frames)] = ",\n".join(reversed(frames)).splitlines()
        (tracked / "summary.json").write_text("\n".join(lines))
    assert export(tracked, "--format", "boxes-csv") == 0
    rows = [line.split(",") for line in (tracked / "export" / "boxes.csv").read_text().splitlines()[1:]]
    assert all(float(row[2]) == TIMES[int(row[0])] / 1000 for row in rows) and len(rows) == 14


def test_names_are_in_a_file_or_given(tracked, capsys):
    (tracked / "names.json").write_text('{"1": "dog", "3": "cat"}')
    assert export(tracked, "--format", "coco", "--names", "3=lynx") == 0
    assert "--names" not in capsys.readouterr().err
    content = json.loads((tracked / "export" / "coco.json").read_text())
    assert [kind["name"] for kind in content["categories"]] == ["dog", "lynx", "object"]
    assert export(tracked, "--format", "boxes-csv", "--names", "9=bear") == 0
    assert "--names 9: no mask shows this object" in capsys.readouterr().err
    assert export(tracked, "--format", "yolo", "--objects", "1", "--names", "1=dog", "3=lynx") == 0
    assert "--names" not in capsys.readouterr().err


@pytest.mark.parametrize("names", ["1", "0=dog", "256=dog", "x=dog", "1=", "1=d\udcff", "1=a\u2028b", "1=a\x7f"])
def test_bad_names(tracked, names, capsys):
    assert export(tracked, "--format", "coco", "--names", names) == 2
    assert refused(capsys, "--names")


@pytest.mark.parametrize("content", ['["dog"]', '{"1": 3}', '{"0": "dog"}', "{"])
def test_bad_names_in_the_file(tracked, content, capsys):
    (tracked / "names.json").write_text(content)
    assert export(tracked, "--format", "coco") == 2
    assert refused(capsys, "names.json") and not (tracked / "export").exists()


def test_evaluations_and_davis_trees(davis, tmp_path):
    home = davis / "trainval"
    assert export(home, "--format", "coco", "cutout-png", "--output", tmp_path / "a") == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["bear", "camel", "dog"]
    assert frame_count(tmp_path / "a" / "dog" / "coco.json") == 6
    # An evaluation's output holds masks alone.
    assert export(home / "Annotations" / "480p", "--video", home / "JPEGImages" / "480p", "--format", "gif",
                  "--output", tmp_path / "b") == 0
    assert (tmp_path / "b" / "bear" / "cutout.gif").exists()
    assert export(home / "Annotations" / "480p" / "dog", "--format", "gif", "--output", tmp_path / "c") == 0
    assert (tmp_path / "c" / "cutout.gif").exists()


def test_exports_are_not_taken_for_masks(davis, tmp_path):
    masks = tmp_path / "prediction"
    shutil.copytree(davis / "trainval" / "Annotations" / "480p", masks)
    for _ in range(2):
        assert export(masks, "--format", "indexed-png", "mattes", "--output", masks / "export", "--overwrite") == 0
    assert sorted(path.name for path in (masks / "export").iterdir()) == ["bear", "camel", "dog"]


def test_output_beside_a_plain_folder_of_masks(inputs, tmp_path):
    (tmp_path / "masks").symlink_to(inputs.masks)
    assert export(tmp_path / "masks", "--format", "coco") == 0
    assert (tmp_path / "masks_export" / "coco.json").exists()


def test_frames_without_masks(youtube, tmp_path, capsys):
    """Every fifth frame has a mask: annotations have those, pictures have all frames."""
    valid, every = youtube / "valid", youtube / "all_frames" / "valid_all_frames" / "JPEGImages"
    masks = valid / "Annotations" / "00f88c4f0a"
    assert export(masks, "--video", every / "00f88c4f0a", "--format", "coco", "mattes", "--output", tmp_path) == 0
    assert frame_count(tmp_path / "coco.json") == 2
    assert len(list((tmp_path / "mattes" / "009").iterdir())) == 16
    assert "14 of 16 frames have no mask" in capsys.readouterr().err


def test_masks_of_images_are_found_by_number(inputs, tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(8, 12):
        Image.new("RGB", SIZE).save(tmp_path / "frames" / f"img_{number}.jpg")
    write_mask(tmp_path / "masks" / "00010.png", inputs.ids[0])
    assert export(tmp_path / "masks", "--video", tmp_path / "frames", "--format", "mot", "coco", "--output",
                  tmp_path / "out") == 0
    assert (tmp_path / "out" / "mot" / "gt" / "gt.txt").read_text().startswith("3,1,")
    assert json.loads((tmp_path / "out" / "coco.json").read_text())["images"][0]["file_name"] == "img_10.jpg"


def test_guessed_numbers_of_frames_are_said(tracked, inputs, tmp_path, capsys):
    """Masks of a part, whose frames are images that are gone: 00005.png may be the fifth or the sixth."""
    masks = tmp_path / "part" / "masks"
    masks.mkdir(parents=True)
    for number in (5, 6):
        write_mask(masks / f"{number:05d}.png", inputs.ids[number])
    write_summary(tmp_path / "part" / "summary.json", [tmp_path / "gone"], [])
    for folder, number in ((masks, 0), (masks.parent, 5)):
        assert export(folder, "--format", "mot", "mots", "--output", tmp_path / str(number)) == 0
        notes = [line for line in capsys.readouterr().err.splitlines() if "note: " in line]
        assert len(notes) == 1 and f"mot: frame 00005 is taken for number {number} of" in notes[0]
        assert (tmp_path / str(number) / "mot" / "gt" / "gt.txt").read_text().startswith(f"{number + 1},1,")
    # Frames of video files are named after their numbers, and no part begins with 0.
    write_summary(tracked / "summary.json", ["gone.mp4"], inputs.ids)
    (tmp_path / "frames").mkdir()
    for number in range(8):
        Image.new("RGB", SIZE).save(tmp_path / "frames" / f"{number:05d}.jpg")
    (tmp_path / "named").mkdir()
    write_mask(tmp_path / "named" / "clip2_00000.png", inputs.ids[0])
    for command in ((tracked, ), (inputs.masks, "--output", tmp_path / "b"),
                    (tmp_path / "named", "--output", tmp_path / "d"),
                    (masks, "--video", tmp_path / "frames", "--output", tmp_path / "c")):
        assert export(*command, "--format", "mot", "coco", "cvat", "boxes-csv") == 0
        assert "taken for" not in capsys.readouterr().err


def test_no_video_where_one_is_needed(inputs, tracked, tmp_path, capsys):
    assert export(inputs.masks, "--format", "prores", "--output", tmp_path / "a") == 2
    assert refused(capsys, "prores needs", "--video") and not (tmp_path / "a").exists()
    write_summary(tracked / "summary.json", ["gone.mp4"], inputs.ids)
    assert export(tracked, "--format", "coco", "gif") == 2
    assert refused(capsys, "gif needs", "gone.mp4 is not there", "--video") and not (tracked / "export").exists()
    write_summary(tracked / "summary.json", ["-"], inputs.ids)
    assert export(tracked, "--format", "gif") == 2
    assert refused(capsys, "gif needs", "- was a stream", "--video")
    assert export(tracked, "--format", "coco", "labelme") == 0
    assert "labelme: without the images" in capsys.readouterr().err


def test_wrong_folders(tmp_path, inputs, tracked, capsys):
    assert export(tmp_path / "nothing", "--format", "coco") == 2
    assert refused(capsys, "no such folder")
    assert export(inputs.video, "--format", "coco") == 2
    assert refused(capsys, "a file")
    (tmp_path / "empty").mkdir()
    assert export(tmp_path / "empty", "--format", "coco") == 2
    assert refused(capsys, "no masks here")
    assert export(inputs.masks, "--video", tmp_path / "gone.mp4", "--format", "coco") == 2
    assert refused(capsys, "gone.mp4", "no such video")
    (tracked / "summary.json").write_text("{}")
    assert export(tracked, "--format", "coco") == 2
    assert refused(capsys, "not written by track.py")
    (tracked / "summary.json").write_text("{")
    assert export(tracked, "--format", "coco") == 2
    assert refused(capsys, "damaged")


def test_interrupted_tracking(tracked, inputs, capsys):
    write_summary(tracked / "summary.json", [inputs.video], inputs.ids[:3], finished=False)
    assert export(tracked, "--format", "coco") == 2
    assert refused(capsys, "interrupted", f"export_masks.py {tracked / 'masks'} --video")


def test_sizes_that_do_not_agree(inputs, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    for number, ids in enumerate(inputs.ids):
        write_mask(tmp_path / "masks" / f"{number:05d}.png", ids[:, :100] if number == 5 else ids)
    assert export(tmp_path / "masks", "--video", inputs.video, "--format", "coco", "images",
                  "--output", tmp_path / "a") == 2
    assert refused(capsys, "00005.png", "100×120", "160×120") and files(tmp_path / "a") == []


def test_masks_without_a_frame(inputs, tmp_path, capsys):
    write_clip(tmp_path / "short.mp4", 5)
    assert export(inputs.masks, "--video", tmp_path / "short.mp4", "--format", "images", "coco",
                  "--output", tmp_path / "a") == 2
    assert refused(capsys, "00005.png", "no frame", "5 frames") and files(tmp_path / "a") == []


def test_masks_that_were_guessed_are_said(tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    for number in range(3):
        image = np.zeros((40, 40, 3), np.uint8)
        image[5:15, 5:15], image[20:30, 20:30] = (250, 10, 90), (10, 200, 30)
        Image.fromarray(image).save(tmp_path / "masks" / f"{number}.png")
    assert export(tmp_path / "masks", "--format", "coco") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and "0.png" in notes[0] and "#fa0a5a is object" in notes[0]


def test_objects_that_are_in_no_mask(inputs, tmp_path, capsys):
    assert export(inputs.masks, "--format", "coco", "--objects", "1", "2", "--output", tmp_path / "a") == 2
    assert refused(capsys, "--objects 2") and files(tmp_path / "a") == []


def test_earlier_exports_and_files_of_others(inputs, tmp_path, capsys):
    command = (inputs.masks, "--format", "coco", "indexed-png", "--output", tmp_path / "a")
    assert export(*command) == 0
    before = (tmp_path / "a" / "coco.json").read_bytes()
    capsys.readouterr()
    assert export(*command) == 2
    assert refused(capsys, "coco.json", "--overwrite")
    assert export(*command, "--overwrite", "--objects", "3") == 0
    assert (tmp_path / "a" / "coco.json").read_bytes() != before
    (tmp_path / "a" / "masks" / "mine.txt").write_text("mine")
    capsys.readouterr()
    assert export(*command, "--overwrite") == 2
    assert refused(capsys, "mine.txt: not written by an export")
    (tmp_path / "b" / "masks").mkdir(parents=True)
    (tmp_path / "b" / "masks" / "mine.png").write_text("mine")
    capsys.readouterr()
    assert export(inputs.masks, "--format", "indexed-png", "--output", tmp_path / "b", "--overwrite") == 2
    assert refused(capsys, "not written by an export") and files(tmp_path / "b") == ["masks/mine.png"]


def test_what_systems_leave_in_folders_is_replaced_with_them(inputs, tmp_path, capsys):
    command = (inputs.masks, "--format", "indexed-png", "mot", "--output", tmp_path / "a", "--overwrite")
    assert export(*command) == 0
    before = files(tmp_path / "a")
    (tmp_path / "a" / "masks" / "@eaDir" / "00000.png").mkdir(parents=True)
    for name in ("masks/.DS_Store", "masks/@eaDir/00000.png/thumbnail.jpg", "mot/gt/._gt.txt"):
        (tmp_path / "a" / name).write_text("of the system")
    assert export(*command) == 0 and files(tmp_path / "a") == before


@pytest.mark.parametrize("name", [".notes", "masks.txt~", ".git/HEAD", ".git/.config", "sub/.notes", "..."])
def test_hidden_files_of_the_user_are_never_removed(name, inputs, tmp_path, capsys):
    command = (inputs.masks, "--format", "indexed-png", "--output", tmp_path / "a", "--overwrite")
    assert export(*command) == 0
    file = tmp_path / "a" / "masks" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    before = files(tmp_path / "a")
    capsys.readouterr()
    assert export(*command) == 2 and refused(capsys, f"{file}: not written by an export")
    assert file.read_text() == "mine" and files(tmp_path / "a") == before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_names_of_files_that_are_no_text(inputs, tmp_path):
    masks = tmp_path / os.fsdecode(b"\xff_masks")
    masks.mkdir()
    write_mask(masks / os.fsdecode(b"\xff1.png"), inputs.ids[0])
    # What was written is known for an export again.
    for _ in range(2):
        assert export(masks, "--output", tmp_path / "a", "--overwrite", "--format", "boxes-csv", "coco", "cvat", "mot",
                      "mots", "sa-v", "labelme", "yolo", "indexed-png", "mattes") == 0
    rows = list(csv.DictReader((tmp_path / "a" / "boxes.csv").open(encoding="utf-8")))
    assert [row["name"] for row in rows] == ["\\udcff1"] * 2


def test_an_error_leaves_earlier_exports_as_they_were(inputs, tmp_path, monkeypatch):
    command = (inputs.masks, "--format", "coco", "indexed-png", "--output", tmp_path / "a")
    assert export(*command) == 0
    before = {name: (tmp_path / "a" / name).read_bytes() for name in files(tmp_path / "a")}

    def write(path, video):
        path.mkdir()
        (path / "half.txt").write_text("half")
        yield
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setitem(formats.FORMATS, "mot", formats.FORMATS["mot"]._replace(write=write))
    assert export(*command, "mot", "--overwrite") == 2
    assert {name: (tmp_path / "a" / name).read_bytes() for name in files(tmp_path / "a")} == before


@pytest.mark.parametrize("name", list(formats.FORMATS))
def test_a_full_disk_names_the_export(inputs, tmp_path, capsys, name):
    with no_larger_files(100):
        assert export(inputs.masks, "--video", inputs.video, "--format", name, "--output", tmp_path / "a") == 2
    assert refused(capsys, tmp_path / "a", formats.FORMATS[name].target, "File too large")
    assert files(tmp_path / "a") == []


def test_a_video_that_cannot_be_encoded(tmp_path, capsys):
    (tmp_path / "frames").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (20000, 16)).save(tmp_path / "frames" / "0.png")
    write_mask(tmp_path / "masks" / "0.png", np.ones((16, 20000), np.uint8))
    assert export(tmp_path / "masks", "--video", tmp_path / "frames", "--format", "matte-video",
                  "--output", tmp_path / "a") == 2
    assert refused(capsys, "20000×16", "leave this format out") and files(tmp_path / "a") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", list(formats.FORMATS))
def test_memory_does_not_grow_with_the_video(name, tmp_path):
    peaks = []
    for count in (300, 1500):
        folder = tmp_path / str(count)
        (folder / "masks").mkdir(parents=True)
        writer = VideoWriter(folder / "clip.mp4", SIZE, 25, LOOK)
        ids = draw_masks()
        for number in range(count):
            writer.write(np.full((*SIZE[::-1], 3), number % 256, np.uint8))
            write_mask(folder / "masks" / f"{number:05d}.png", ids[number % len(ids)])
        writer.close()
        command = [sys.executable, str(ROOT / "export_masks.py"), str(folder / "masks"), "--video",
                   str(folder / "clip.mp4"), "--format", name]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
        error = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, error
        peaks.append(usage.ru_maxrss / 1024)
    # 1200 frames of 58 kB would be 69 MB.
    assert peaks[1] - peaks[0] < 30, peaks


def test_the_document_has_a_row_for_each_format():
    text = (ROOT / "docs" / "EXPORTS.md").read_text()
    assert re.findall(r"^\| `([^`]+)`", text, re.M)[:len(formats.FORMATS)] == list(formats.FORMATS)
