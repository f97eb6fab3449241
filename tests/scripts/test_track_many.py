"""track_many.py through its command line."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from unittest.mock import Mock

import fsspec
import numpy as np
import pytest
from PIL import Image

import runs.row
from runs.addresses import send
from runs.row import RECORD
from tests import tracking_runs
from tests.conftest import ROOT
from tests.many_videos import read_table, run, write_list, write_videos
from tests.painted_network import PaintedNetwork
from tests.tracking_runs import one_line_error
from tests.trees import folder_bytes
from util.errors import InputError
from util.image_io import read_image, read_mask, write_mask
from util.video import open_frames

NAMES = ("ant", "bee", "cow", "dog")


@pytest.fixture(scope="module")
def videos(clip, tmp_path_factory):
    """Four videos of five frames, each with its mask."""
    return write_videos(tmp_path_factory.mktemp("many") / "videos", clip, NAMES)


@pytest.fixture
def own_videos(videos, tmp_path):
    """The same videos, for a test that changes them."""
    return shutil.copytree(videos, tmp_path / "videos")


@pytest.fixture(scope="module")
def expected(videos, tiny_checkpoint, tmp_path_factory):
    """{video's name: its masks' bytes, as track.py writes them}."""
    folder = tmp_path_factory.mktemp("expected")
    for name in NAMES:
        assert tracking_runs.run(videos / f"{name}.mp4", videos / f"{name}.png", "--model", tiny_checkpoint,
                                 "--threads", 1, "--no-overlay", "--output", folder / name) == 0
    return {name: folder_bytes(folder / name) for name in NAMES}


@pytest.mark.parametrize("workers", [1, 3])
def test_results_are_those_of_track_py_whatever_the_number_of_workers(videos, expected, tiny_checkpoint, tmp_path,
                                                                      workers):
    assert run(videos, tmp_path, tiny_checkpoint, "--workers", workers, overlay=True) == 0
    assert {name: folder_bytes(tmp_path / name) for name in NAMES} == expected
    table = read_table(tmp_path)
    assert list(table) == list(NAMES)
    for name, row in table.items():
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert (row["status"], row["frames"], row["objects"], row["complete"]) == ("done", "5", "2", "true")
        assert float(row["quality"]) == summary["quality"] and summary["written_by"] == "track.py"
        assert (tmp_path / name / "overlay.mp4").exists()
        assert read_image(tmp_path / name / "thumbnail.jpg").shape[1] == 320
    page = (tmp_path / "index.html").read_text()
    assert page.count("<img") == 4 and "ant/thumbnail.jpg" in page


def test_a_bad_video_is_a_row_and_nothing_more(videos, own_videos, expected, tiny_checkpoint, tmp_path, capsys):
    (own_videos / "ant.mp4").write_bytes(b"no video")
    write_mask(own_videos / "cow.png", np.ones((8, 8), np.uint8))
    assert run(own_videos, tmp_path / "out", tiny_checkpoint, "--workers", 2, "--worst-first") == 1
    table = read_table(tmp_path / "out")
    assert [(name, row["status"]) for name, row in table.items()][:2] == [("ant", "failed"), ("cow", "failed")]
    qualities = [float(row["quality"]) for row in table.values() if row["status"] == "done"]
    assert len(qualities) == 2 and qualities == sorted(qualities)
    assert "ant.mp4: not a readable video" in table["ant"]["error"] and "8×8 pixels" in table["cow"]["error"]
    told = capsys.readouterr()
    assert "tracked 2 of 4 videos" in told.out and "ant.mp4: not a readable video" in told.err
    assert folder_bytes(tmp_path / "out" / "dog") == expected["dog"]
    # Mended, only these two are tracked.
    written = (tmp_path / "out" / "dog" / "summary.json").stat().st_mtime_ns
    for name in ("ant.mp4", "cow.png"):
        shutil.copy(videos / name, own_videos / name)
    assert run(own_videos, tmp_path / "out", tiny_checkpoint, "--workers", 2) == 0
    assert (tmp_path / "out" / "dog" / "summary.json").stat().st_mtime_ns == written
    assert {row["attempts"] for row in read_table(tmp_path / "out").values()} == {"0", "1"}
    assert {name: folder_bytes(tmp_path / "out" / name) for name in NAMES} == expected


def changed_mask(videos, output):
    write_mask(videos / "ant.png", np.roll(read_mask(videos / "ant.png"), 9, 1))


def lost_result(videos, output):
    (output / "ant" / "masks" / "00002.png").unlink()


@pytest.mark.parametrize("change, options, tracked", [
    (changed_mask, [], ["ant"]), (lost_result, [], ["ant"]), (None, ["--size", "32"], list(NAMES)), (None, [], [])])
def test_only_what_has_changed_is_tracked_again(own_videos, tiny_checkpoint, tmp_path, change, options, tracked):
    output = tmp_path / "out"
    assert run(own_videos, output, tiny_checkpoint, "--workers", 1) == 0
    before = {name: (output / name / "summary.json").stat().st_mtime_ns for name in NAMES}
    if change:
        change(own_videos, output)
    assert run(own_videos, output, tiny_checkpoint, "--workers", 1, *options) == 0
    assert [name for name in NAMES if (output / name / "summary.json").stat().st_mtime_ns != before[name]] == tracked
    assert all(len(folder_bytes(output / name)) == 5 for name in NAMES)


def test_rows_have_the_options_of_track_py(videos, tiny_checkpoint, tmp_path, monkeypatch):
    # Forked processes have the same.
    monkeypatch.setattr("runs.video.load_clicks", lambda device: PaintedNetwork())
    ant = str(videos / "ant.mp4")
    rows = [{"video": ant, "masks": f"{videos / 'ant.png'}", "start": 1, "end": "3", "name": "part"},
            {"video": ant, "masks": [f"0:{videos / 'ant.png'}", f"4:{videos / 'dog.png'}:2"], "both_ways": True,
             "name": "both"},
            {"video": ant, "clicks": ["50,36:7"], "size": 48, "places": "off", "name": "clicked"},
            {"video": ant, "masks": f"{videos / 'ant.png'}", "no-overlay": False, "name": "shown"}]
    write_mask(tmp_path / "dog.png", (read_mask(videos / "dog.png") == 2).astype(np.uint8))
    rows[1]["masks"][1] = f"4:{tmp_path / 'dog.png'}:2"
    assert run(write_list(tmp_path / "list.jsonl", rows), tmp_path / "out", tiny_checkpoint, "--workers", 1) == 0
    assert sorted(folder_bytes(tmp_path / "out" / "part")) == [f"masks/0000{number}.png" for number in (1, 2, 3)]
    both, clicked = (json.loads((tmp_path / "out" / name / "summary.json").read_text()) for name in ("both", "clicked"))
    assert both["both_ways"] and list(both["annotated"]) == ["00000", "00004"]
    assert clicked["settings"]["size"] == 48 and clicked["settings"]["places"] is False
    assert [(tmp_path / "out" / name / "overlay.mp4").exists() for name in ("clicked", "shown")] == [False, True]
    assert list(clicked["frames"][0]["objects"]) == ["7"]


@pytest.mark.parametrize("text", [
    "video,masks,name\nant.mp4,ant.png,\nbee.mp4,0:bee.png; 2:cow.png,\n",
    "Video;Masks\nant.mp4;ant.png\nbee.mp4;\"0:bee.png; 2:cow.png\"\n",
    "\ufeffvideo\tmask\r\nant.mp4\tant.png\r\nbee.mp4\t0:bee.png;2:cow.png\r\n"])
def test_tables_of_spreadsheets(own_videos, tiny_checkpoint, tmp_path, text):
    """Paths are relative to the table."""
    (own_videos / "list.csv").write_bytes(text.encode())
    assert run(own_videos / "list.csv", tmp_path / "out", tiny_checkpoint, "--workers", 1) == 0
    assert list(read_table(tmp_path / "out")) == ["ant", "bee"]
    summary = json.loads((tmp_path / "out" / "bee" / "summary.json").read_text())
    assert list(summary["annotated"]) == ["00000", "00002"]


def test_parquet(own_videos, expected, tiny_checkpoint, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"video": ["ant.mp4", "bee.mp4"], "masks": [["ant.png"], ["bee.png"]]}),
                        own_videos / "list.parquet")
    assert run(own_videos / "list.parquet", tmp_path / "out", tiny_checkpoint, "--workers", 1) == 0
    assert folder_bytes(tmp_path / "out" / "bee") == expected["bee"]
    rows = parquet.read_table(tmp_path / "out" / "videos.parquet").to_pylist()
    assert [(row["name"], row["frames"], row["complete"]) for row in rows] == [("ant", 5, True), ("bee", 5, True)]


@pytest.mark.parametrize("rows, parts", [
    ([{"video": "ant.mp4", "masks": "ant.png", "colour": "red"}], ["line 1", "no column colour", "both-ways"]),
    ([{"video": "ant.mp4", "masks": "gone.png"}], ["line 1", "gone.png", "No such file"]),
    ([{"video": "gone.mp4", "masks": "ant.png"}], ["line 1", "gone.mp4"]),
    ([{"video": "ant.mp4", "masks": "a" * 300}], ["line 1", "aaa", "name too long"]),
    ([{"video": "ant.mp4", "masks": ["ant\0.png"]}], ["line 1", "null"]),
    ([{"video": "ant.mp4", "masks": ["memory://gone/\nant.png"]}], ["line 1", "memory://gone/"]),
    ([{"video": "ant.mp4", "masks": [""]}], ["line 1", "no masks"]),
    ([{"video": "ant.mp4"}], ["line 1", "no masks, clicks or boxes"]),
    ([{"masks": "ant.png"}], ["line 1", "no video"]),
    ([{"video": "ant.mp4", "masks": "ant.png", "size": "large"}], ["line 1", "--size", "large"]),
    ([{"video": "ant.mp4", "masks": "ant.png", "stamp": "perhaps"}], ["stamp", "perhaps", "true or false"]),
    ([{"video": "ant.mp4", "masks": "ant.png", "backward": True, "both-ways": True}], ["leave out --backward"]),
    ([{"video": "ant.mp4", "masks": "ant.png", "name": "../ant"}], ["../ant", "without slashes"]),
    ([{"video": "ant.mp4", "masks": "ant.png", "name": "index.html"}], ["index.html", "column name"]),
    ([{"video": "ant.mp4", "masks": "ant.png"}, {"video": "ant.mp4", "masks": "ant.png"}],
     ["line 2", "ant", "line 1", "column name"]),
    ([{"video": "ant.mp4", "masks": "gone.png"}, {"video": "bee.mp4"}], ["2 rows", "nothing was computed"]),
    ([{"video": "ant.mp4", "masks": "ant.png", "output": "elsewhere"}], ["no column output"]),
    ([["ant.mp4"]], ["line 1", "object was expected"]),
    ([], ["no video"]),
])
def test_the_whole_list_is_checked_first(own_videos, tiny_checkpoint, tmp_path, capsys, rows, parts):
    good = [{"video": "dog.mp4", "masks": "dog.png"}] if len(rows) == 2 else []
    path = write_list(own_videos / "list.jsonl", rows + good)
    assert run(path, tmp_path / "out", tiny_checkpoint, "--workers", 1) == 2
    assert one_line_error(capsys, *parts) and not (tmp_path / "out").exists()


def test_a_video_without_a_mask_in_a_folder(own_videos, tiny_checkpoint, tmp_path, capsys):
    (own_videos / "ant.png").unlink()
    assert run(own_videos, tmp_path / "out", tiny_checkpoint) == 2
    assert one_line_error(capsys, "ant.mp4", "no masks")


def test_other_results_are_not_replaced_without_being_told(videos, own_videos, tiny_checkpoint, tmp_path):
    assert run(videos, tmp_path / "out", tiny_checkpoint, "--workers", 1) == 0
    before = folder_bytes(tmp_path / "out" / "ant")
    assert run(own_videos, tmp_path / "out", tiny_checkpoint, "--workers", 1) == 1
    assert "--overwrite" in read_table(tmp_path / "out")["ant"]["error"]
    assert folder_bytes(tmp_path / "out" / "ant") == before
    # The first list still finds its results.
    assert run(videos, tmp_path / "out", tiny_checkpoint, "--workers", 1) == 0
    assert read_table(tmp_path / "out")["ant"]["attempts"] == "0"
    assert run(own_videos, tmp_path / "out", tiny_checkpoint, "--workers", 1, "--overwrite") == 0


def test_parts_of_a_list(videos, expected, tiny_checkpoint, tmp_path, capsys):
    for part in (1, 2):
        assert run(videos, tmp_path, tiny_checkpoint, "--workers", 1, "--shard", f"{part}/2") == 0
        assert list(read_table(tmp_path, f"videos-{part}-of-2.csv")) == list(NAMES[part - 1::2])
    assert run(videos, tmp_path, tiny_checkpoint, "--workers", 1) == 0
    assert "4 of 4 videos are finished already" in capsys.readouterr().err
    assert list(read_table(tmp_path)) == list(NAMES)
    assert {name: folder_bytes(tmp_path / name) for name in NAMES} == expected


@pytest.mark.skipif(sys.platform != "linux", reason="forked processes have what the test has replaced")
@pytest.mark.parametrize("kills", [1, 3])
def test_a_killed_process_costs_the_frames_since_the_last_state(videos, expected, tiny_checkpoint, tmp_path,
                                                                monkeypatch, kills):
    monkeypatch.setattr("runs.video.KEEP_SECONDS", 0)
    monkeypatch.setattr("runs.row.TELL_EVERY", 0)
    count = runs.row._RowWatcher.count
    marks = tmp_path / "marks"
    marks.mkdir()

    def die(self, name=None, image=None):
        count(self, name, image)
        done = len(list(marks.iterdir()))
        state = tmp_path / "out" / "cow" / ".state.npz"
        if name == "00003" and self._row == "cow" and done < kills and state.exists():
            (marks / str(done)).write_text(str((tmp_path / "out" / "cow" / "masks" / "00000.png").stat().st_mtime_ns))
            os.kill(os.getpid(), signal.SIGKILL)

    def remember(task, row, find_model, watcher):
        watcher._row = row.name
        track(task, row, find_model, watcher)

    track = runs.row._track
    monkeypatch.setattr("runs.row._track", remember)
    monkeypatch.setattr("runs.row._RowWatcher.count", die)
    assert run(videos, tmp_path / "out", tiny_checkpoint, "--workers", 2) == (1 if kills == 3 else 0)
    table = read_table(tmp_path / "out")
    assert table["cow"]["attempts"] == str(min(kills + 1, 3))
    assert [row["status"] for name, row in table.items() if name != "cow"] == ["done"] * 3
    if kills == 3:
        assert "3 processes" in table["cow"]["error"] and "killed" in table["cow"]["error"]
        assert run(videos, tmp_path / "out", tiny_checkpoint, "--workers", 2) == 0
    # Frames before the state were not computed again.
    first = (tmp_path / "out" / "cow" / "masks" / "00000.png").stat().st_mtime_ns
    assert str(first) == (marks / "0").read_text()
    assert {name: folder_bytes(tmp_path / "out" / name) for name in NAMES} == expected


def test_addresses_are_read_from_and_written_to(videos, expected, tiny_checkpoint, tmp_path):
    rows = [{"video": f"file://{videos}/{name}.mp4", "masks": f"0:file://{videos}/{name}.png"} for name in NAMES]
    path = write_list(tmp_path / "list.jsonl", rows)
    output = f"file://{tmp_path}/out"
    for _ in range(2):
        assert run(f"file://{path}", output, tiny_checkpoint, "--workers", 2, "--export", "mot") == 0
        assert {name: folder_bytes(tmp_path / "out" / name) for name in NAMES} == expected
        assert len(list((tmp_path / "out" / "ant" / "export").iterdir())) > 0
    assert {row["attempts"] for row in read_table(tmp_path / "out").values()} == {"0"}
    summary = json.loads((tmp_path / "out" / "ant" / "summary.json").read_text())
    assert summary["video"] == [f"file://{videos}/ant.mp4"]
    assert summary["annotated"] == {"00000": f"file://{videos}/ant.png"}


def test_a_changed_frame_in_a_folder_at_an_address_is_noticed(videos, tiny_checkpoint, tmp_path):
    frames = tmp_path / "ant"
    frames.mkdir()
    for frame in open_frames([str(videos / "ant.mp4")]):
        Image.fromarray(frame.image).save(frames / f"{frame.name}.png")
    path = write_list(tmp_path / "list.jsonl", [{"video": f"file://{frames}", "masks": f"file://{videos}/ant.png"}])
    for attempts in ("1", "0"):
        assert run(path, tmp_path / "out", tiny_checkpoint, "--workers", 1) == 0
        assert read_table(tmp_path / "out")["ant"]["attempts"] == attempts
    shutil.copy(frames / "00000.png", frames / "00003.png")
    assert run(path, tmp_path / "out", tiny_checkpoint, "--workers", 1) == 0
    assert read_table(tmp_path / "out")["ant"]["attempts"] == "1"


@pytest.fixture
def remote():
    """The path of a folder in fsspec's memory that is not there yet; it is removed after the test."""
    path = "/sent/ant"
    yield path
    files = fsspec.filesystem("memory")
    if files.exists(path):
        files.rm(path, recursive=True)


def send_those(folder, remote, *names):
    """Send a local folder with files of these names, and a record, to a folder in fsspec's memory."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / RECORD).write_text('{"identity": "ant"}')
    send(folder, f"memory:/{remote}", RECORD)


def record_at(remote):
    return json.loads(fsspec.filesystem("memory").cat_file(f"{remote}/{RECORD}"))


def test_sending_removes_what_was_sent_before_and_nothing_else(tmp_path, remote):
    files = fsspec.filesystem("memory")
    files.pipe_file(f"{remote}/mine.txt", b"not sent")
    send_those(tmp_path / "local", remote, "a", "masks/0.png", "masks/1.png")
    files.pipe_file(f"{remote}/masks/mine.png", b"not sent")
    for _ in range(2):
        send_those(tmp_path / "local", remote, "b", "masks/1.png")
        assert files.find(remote) == [f"{remote}/{name}" for name in (RECORD, "b", "masks/1.png", "masks/mine.png",
                                                                      "mine.txt")]
    assert record_at(remote) == {"identity": "ant", "sent": ["b", "masks/1.png"]}


@pytest.mark.parametrize("record", [b"", b"rubbish", b'{"identity": "ant"}', b'{"sent": 5}', b'{"sent": [[], 3]}',
                                    b'{"sent": ["../bee"]}'])
def test_where_it_is_not_known_what_was_sent_nothing_is_removed(record, tmp_path, remote):
    files = fsspec.filesystem("memory")
    files.pipe_file("/sent/bee", b"of another video")
    files.pipe_file(f"{remote}/{RECORD}", record)
    files.pipe_file(f"{remote}/a", b"perhaps sent by an earlier version")
    send_those(tmp_path / "local", remote, "b")
    assert files.find("/sent") == [f"{remote}/{RECORD}", f"{remote}/a", f"{remote}/b", "/sent/bee"]
    assert record_at(remote) == {"identity": "ant", "sent": ["b"]}
    files.rm_file("/sent/bee")


def test_of_a_sending_that_was_broken_off_nothing_is_left(tmp_path, remote, monkeypatch):
    files = fsspec.filesystem("memory")
    send_those(tmp_path / "local", remote, "a")
    for names in (["a", "b"], ["a", "c"]):
        with monkeypatch.context() as patch, pytest.raises(InputError, match="no answer"):
            patch.setattr(files, "put", Mock(side_effect=OSError("no answer")))
            send_those(tmp_path / "local", remote, *names)
        # Nobody takes it for finished.
        assert list(record_at(remote)) == ["sent"]
        files.pipe_file(f"{remote}/{names[1]}", b"sent before it was broken off")
    send_those(tmp_path / "local", remote, "a", "d")
    assert files.find(remote) == [f"{remote}/{name}" for name in (RECORD, "a", "d")]
    assert record_at(remote) == {"identity": "ant", "sent": ["a", "d"]}


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="the package is there")
def test_the_package_for_an_address_is_named(videos, tiny_checkpoint, tmp_path, capsys):
    path = write_list(tmp_path / "list.jsonl", [{"video": "s3://bucket/clip.mp4", "masks": str(videos / "ant.png")}])
    assert run(path, tmp_path / "out", tiny_checkpoint) == 2
    assert one_line_error(capsys, "s3://bucket/clip.mp4", "s3fs")


def test_ray_is_named_where_it_is_missing(videos, tiny_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(videos, tmp_path, tiny_checkpoint, "--ray", "local") == 2
    assert one_line_error(capsys, "requirements-cluster.txt")


def processes_of(output):
    """The ids of the processes whose command line names a folder."""
    found = []
    for folder in (entry for entry in os.scandir("/proc") if entry.name.isdecimal()):
        try:
            with open(f"{folder.path}/cmdline", "rb") as file:
                found += [int(folder.name)] if str(output).encode() in file.read() else []
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_end_from_outside_leaves_no_process_and_nothing_is_lost(clip, tiny_checkpoint, tmp_path, number):
    frames, truth = (np.concatenate([part] * 8) for part in clip)
    videos = write_videos(tmp_path / "videos", (frames, truth), NAMES, length=150)
    output = tmp_path / "out"
    command = [sys.executable, "track_many.py", str(videos), "--output", str(output), "--model", str(tiny_checkpoint),
               "--workers", "2", "--threads", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(output.glob("*/masks/00020.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), told
    assert number == signal.SIGKILL or "the same command goes on" in told
    while processes_of(output) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(output)
    assert run(videos, output, tiny_checkpoint, "--workers", 2) == 0
    assert run(videos, tmp_path / "plain", tiny_checkpoint, "--workers", 2) == 0
    for name in NAMES:
        assert folder_bytes(output / name) == folder_bytes(tmp_path / "plain" / name)
