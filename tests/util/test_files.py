import io
import json
import os

import numpy as np
import pytest
import torch

from evaluation.decoding import read_scored_mask
from evaluation.tables import write_csv
from util.errors import InputError
from util.files import JsonWriter, atomic_path, flush, read_json, read_text, remove_files, write_json, write_text
from util.image_frames import write_image
from util.image_io import read_image, read_mask, write_grey, write_mask, write_scores
from util.video import open_frames


@pytest.mark.parametrize("items", [[], [{"name": "a\"b"}], [{"n": 1}, None, [2.5, "ü"]]])
def test_a_list_written_item_by_item_is_the_same_json(items):
    file = io.StringIO()
    writer = JsonWriter(file)
    writer.add("first", {"x": [1, None]})
    writer.begin_list("items")
    for item in items:
        writer.append(item)
    writer.end_list()
    writer.add("complete", True)
    writer.close()
    assert json.loads(file.getvalue()) == {"first": {"x": [1, None]}, "items": items, "complete": True}


def test_an_object_may_begin_with_a_list_or_hold_nothing():
    file = io.StringIO()
    writer = JsonWriter(file)
    writer.begin_list("items")
    writer.end_list()
    writer.close()
    assert json.loads(file.getvalue()) == {"items": []}
    file = io.StringIO()
    JsonWriter(file).close()
    assert json.loads(file.getvalue()) == {}


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("name"), replace(*paths)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append(os.readlink(f"/proc/self/fd/{descriptor}")),
                                                         fsync(descriptor)))
    write_text(tmp_path / "a.txt", "text")
    at = events.index("name")
    assert ".a.txt." in events[at - 1] and str(tmp_path) in events[at + 1:]


def test_many_files_are_flushed_together_with_their_folders(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    paths = [tmp_path / "sub" / f"{number}.png" for number in range(20)]
    for path in paths:
        write_mask(path, np.zeros((4, 4), np.uint8))
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    flush(paths)
    assert {str(path) for path in (*paths, tmp_path / "sub", tmp_path)} <= set(flushed)
    monkeypatch.undo()
    with pytest.raises(OSError, match=r"none\.png"):
        flush([*paths, tmp_path / "none.png"])


def test_of_many_files_that_are_flushed_few_are_held(tmp_path, monkeypatch):
    (tmp_path / "a").touch()
    flushed, waiting = [], []
    monkeypatch.setattr(os, "fsync", flushed.append)

    def list_them():
        for count in range(200):
            waiting.append(count - len(flushed))
            yield tmp_path / "a"

    flush(list_them())
    assert len(flushed) >= 200 and max(waiting) < 20


def save_network(path):
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save({"weight": torch.zeros(5000)}, file)


WRITERS = {
    "mask.png": lambda path: write_mask(path, NOISE),
    "grey.png": lambda path: write_grey(path, NOISE),
    "frame.png": lambda path: write_image(path, np.repeat(NOISE[..., None], 3, 2)),
    "scores.npz": lambda path: write_scores(path, NOISE[None], [1]),
    "summary.json": lambda path: write_json(path, list(range(5000))),
    "table.csv": lambda path: write_csv(path, ("a",), [["x" * 9999]]),
    "report.html": lambda path: write_text(path, "x" * 9999),
    "network.pth": save_network,
}
NOISE = np.random.default_rng(0).integers(0, 255, (100, 100), np.uint8)


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk_names_the_file(tmp_path, name):
    """Instead of a full disk, files of more than 1000 bytes are refused."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            WRITERS[name](tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_names_of_every_length_can_be_written(tmp_path):
    for name in ("x" * 251 + ".txt", "ü" * 125, "s\udcff.txt"):
        write_text(tmp_path / name, "s\udcff")
        assert (tmp_path / name).read_text() == "s\\udcff"


def test_temporary_files_that_are_links_are_not_followed(tmp_path):
    (tmp_path / "mine").write_text("of the user")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / ".a.png.01234567.part").symlink_to(tmp_path / "mine")
    (tmp_path / "masks" / "b.png").symlink_to(tmp_path / "mine")
    remove_files(tmp_path / "masks", {"b.png", "c.png"})
    assert not (tmp_path / "masks").exists() and (tmp_path / "mine").read_text() == "of the user"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (read_text, read_json, read_image, read_mask, read_scored_mask, lambda path: open_frames([str(path)]),
                 lambda path: open_frames([str(path.parent)])):
        with pytest.raises(InputError, match=r"a\.png: a pipe"):
            read(tmp_path / "a.png")
