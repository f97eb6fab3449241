"""A project on the disk: what is drawn is saved at once, and other programs read it."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from exporting.run import export_folder
from inference_core.annotations import find_masks
from interactive.project import Project
from interactive.project_files import GIVEN, UNKNOWN, UNSEEN
from tests.conftest import ROOT
from tests.interactive.page_steps import COUNT
from tests.interactive.project_steps import contents, fill
from util.errors import InputError
from util.hyper_para import ExportSettings
from util.image_io import read_mask
from util.video import open_frames

STROKES = """
import sys
import numpy as np
from interactive.project import Project
project = Project(sys.argv[1])
number = int(sys.argv[2])
while True:
    def change(ids):
        ids[number % 72] = 1
        return ids
    project.draw(number % 12, change) or project.draw(number % 12, lambda ids: ids * 0)
    print(number, flush=True)
    number += 1
"""



def test_a_stroke_is_on_the_disk_when_draw_returns(project):
    thing = project.add_object("dog")
    assert project.draw(3, fill(thing.id, 5, 5))
    for part in ("annotations", "masks"):
        ids = read_mask(project.folder / part / "00003.png")
        assert (ids == 1).sum() == 100 and ids[5, 5] == 1
    assert project.reference_positions() == {3: [1]}
    assert project.quality(1)[3] == GIVEN and project.quality(1)[4] == UNKNOWN
    assert not project.draw(3, fill(thing.id, 5, 5))


def test_only_what_is_touched_becomes_a_reference(project):
    project.add_object(), project.add_object(), project.add_object()
    ids = fill(3, 60, 60)(fill(2, 0, 50)(np.zeros((72, 100), np.uint8)))
    project.write_tracked(4, ids, [2, 3], {2: 0.5, 3: 0.9})
    project.draw(4, fill(1, 5, 45))
    drawn, touched = project.annotation(4)
    # Object 2 has lost pixels.
    assert touched == [1, 2] and set(np.unique(drawn)) == {0, 1, 2}
    assert set(np.unique(project.mask(4))) == {0, 1, 2, 3}


def test_a_locked_object_neither_loses_nor_gets_pixels(project):
    project.add_object(), project.add_object()
    project.draw(0, fill(1, 5, 5))
    project.change_object(1, locked=True)
    project.draw(0, fill(2, 10, 10))
    project.draw(0, fill(1, 40, 40))
    ids = project.mask(0)
    assert (ids == 1).sum() == 100 and (ids == 2).sum() == 75


def test_tracking_keeps_what_is_drawn_and_what_it_does_not_track(project):
    project.add_object(), project.add_object()
    project.draw(5, fill(1, 5, 5))
    project.write_tracked(6, fill(2, 40, 40)(np.zeros((72, 100), np.uint8)), [2], {2: 0.5})
    everywhere = np.ones((72, 100), np.uint8)
    project.write_tracked(5, everywhere, [1], {1: 0.3})
    assert (project.mask(5) == 1).sum() == 100 and project.quality(1)[5] == GIVEN
    project.write_tracked(6, everywhere, [1], {1: 0.3})
    assert (project.mask(6) == 2).sum() == 100 and project.quality(1)[6] == 31
    project.write_tracked(6, np.zeros((72, 100), np.uint8), [1], {1: 0.6})
    assert project.quality(1)[6] == UNSEEN


def test_delete_and_merge_change_every_mask(project):
    project.add_object("a"), project.add_object("b"), project.add_object("c")
    project.draw(0, fill(1, 5, 5)), project.draw(0, fill(2, 30, 30)), project.draw(0, fill(3, 50, 50))
    project.write_tracked(1, fill(2, 30, 30)(np.zeros((72, 100), np.uint8)), [2], {2: 0.5})
    project.delete_object(2, into=1)
    assert (project.mask(0) == 1).sum() == 200 and (project.mask(1) == 1).sum() == 100
    assert project.references == {"00000": [1, 3]} and project.quality(1)[1] == 51
    project.delete_object(1)
    assert set(np.unique(project.mask(0))) == {0, 3}
    project.undo(), project.undo()
    assert (project.mask(1) == 2).sum() == 100 and project.quality(1)[1] == UNKNOWN


@pytest.mark.parametrize("drawn, into", [(2, 1), (1, 1)])
def test_a_merged_reference_holds_what_was_tracked_of_the_other_object(project, drawn, into):
    project.add_object(), project.add_object(), project.add_object()
    tracked = 3 - drawn
    ids = fill(3, 60, 60)(fill(tracked, 5, 5)(np.zeros((72, 100), np.uint8)))
    project.write_tracked(4, ids, [tracked, 3], {tracked: 0.5, 3: 0.5})
    project.draw(4, fill(drawn, 30, 30))
    before = contents(project.folder)
    project.delete_object(3 - into, into)
    ids, touched = project.annotation(4)
    assert touched == [into] and set(np.unique(ids)) == {0, into} and (ids == into).sum() == 200
    project.undo()
    assert contents(project.folder) == before


def test_other_scripts_read_the_folder(project, video, capsys):
    project.add_object("dog")
    project.draw(2, fill(1, 5, 5))
    frames = open_frames([str(video)])
    assert list(find_masks([str(project.folder / "annotations")], frames)) == ["00002"]
    export_folder(project.folder, ExportSettings(format=["boxes-csv"]))
    assert "dog" in (project.folder / "export" / "boxes.csv").read_text()


def test_annotations_that_somebody_put_there_are_taken_over(project):
    project.close()
    ids = fill(7, 5, 5)(np.zeros((72, 100), np.uint8))
    Image.fromarray(ids).save(project.folder / "annotations" / "00004.png")
    again = Project(project.folder)
    assert again.reference_positions() == {4: [7]} and again.objects[7].name == "object 7"
    assert (again.mask(4) == 7).sum() == 100
    again.close()


def test_a_name_that_is_no_text_can_be_mended(project):
    """Earlier versions took some from the page."""
    project.add_object(5)
    project.change_object(1, name="dog")
    assert project.objects[1].name == "dog"
    for wrong in ({"name": 6}, {"locked": "no"}, {"id": 2}, {"size": 3}):
        with pytest.raises(InputError, match="an object has no"):
            project.change_object(1, **wrong)


@pytest.mark.parametrize("make, message", [
    (lambda folder, video: Project(folder / "no", None), "no video"),
    (lambda folder, video: Project(video, [video]), "holds other files"),
    (lambda folder, video: Project(folder / "project", [folder]), "is the project of"),
    (lambda folder, video: Project(folder / "project", [video]), "another run"),
])
def test_what_is_no_project_is_refused(project, video, tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        make(tmp_path, video)


def test_a_kill_loses_at_most_the_stroke_in_progress(project):
    project.add_object()
    project.close()
    number = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", STROKES, str(project.folder), str(number)], cwd=ROOT,
                                   stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if int(line) >= number + 15:
                break
        os.kill(process.pid, signal.SIGKILL)
        number = [int(line), *map(int, process.communicate()[0].split())][-1]
        again = Project(project.folder)
        for position in {number % COUNT, (number - 5) % COUNT}:
            assert again.annotation(position) is not None and again.mask(position).shape == (72, 100)
        assert again.mask(number % COUNT)[number % 72].all() or not again.mask(number % COUNT).any()
        assert again.undo() is not None
        again.redo()
        again.close()
        number += 1
