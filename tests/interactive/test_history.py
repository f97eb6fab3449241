"""Undo and redo: every step can be taken back, in another process, too, and what was tracked since stays."""

import json
import zipfile

import numpy as np
import pytest

from interactive.project import MOST_OBJECTS, Project
from interactive.project_files import GIVEN, UNKNOWN, UNSEEN
from tests.interactive.project_steps import contents, fill
from util.errors import InputError


def test_hundred_steps_back_and_forward_end_where_they_began(project):
    project.add_object("dog"), project.add_object("cat")
    states = [contents(project.folder)]
    for number in range(100):
        if number == 50:
            project.delete_object(2)
        elif number == 51:
            project.add_object("bird")
        else:
            project.draw(number % 7, fill(1 + (number % 2 if number < 50 else 0), number % 60, number % 90))
        states.append(contents(project.folder))
    for state in reversed(states[:-1]):
        assert project.undo() is not None
        assert contents(project.folder) == state
    for state in states[1:]:
        assert project.redo() is not None
        assert contents(project.folder) == state
    assert project.redo() is None and project.history[1] is None


def test_history_goes_on_in_another_process(project, video):
    project.add_object("dog")
    project.draw(0, fill(1, 5, 5))
    project.draw(0, fill(1, 30, 30))
    project.undo()
    project.close()
    again = Project(project.folder)
    assert again.history == ("draw", "draw")
    again.redo()
    assert (again.mask(0) == 1).sum() == 200
    again.undo(), again.undo()
    assert not again.mask_file(0).exists() and not again.references
    again.close()


def test_history_of_frames_whose_names_are_no_text(video, tmp_path):
    for file in video.iterdir():
        file.rename(video / f"\udcff{file.name}")
    project = Project(tmp_path / "project", [video])
    project.add_object()
    project.draw(3, fill(1, 5, 5))
    assert project.undo() == ("draw", [3]) and not project.mask(3).any()
    assert project.redo() == ("draw", [3]) and (project.mask(3) == 1).sum() == 100
    project.close()


def test_steps_of_earlier_versions_are_read(project):
    """Their files have names, and not numbers."""
    project.add_object()
    project.draw(3, fill(1, 5, 5)), project.draw(3, fill(1, 30, 30))
    for step in (project.folder / "journal").glob("*.zip"):
        with zipfile.ZipFile(step) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        files = json.loads(parts["step.json"])["files"]
        with zipfile.ZipFile(step, "w") as archive:
            for name, content in parts.items():
                side, _, place = name.partition("/")
                archive.writestr(f"{side}/{files[int(place)]}" if place else name, content)
    project.undo()
    assert (project.mask(3) == 1).sum() == 100
    project.redo(), project.undo(), project.undo()
    assert not project.mask_file(3).exists() and project.redo() and (project.mask(3) == 1).sum() == 100


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:100], lambda data: bytes(len(data)),
                                    lambda data: data[:60] + b"\xff" * 8 + data[68:]])
def test_the_history_ends_at_a_damaged_step(project, damage):
    """Such as a power cut leaves."""
    project.add_object()
    for number in range(3):
        project.draw(0, fill(1, 5, 20 * number))
    project.undo()
    project.close()
    for number in (2, 4):
        file = project.folder / "journal" / f"{number:06d}.zip"
        file.write_bytes(damage(file.read_bytes()))
    again = Project(project.folder)
    with pytest.raises(InputError, match=r"000004\.zip: damaged step"):
        again.redo()
    again.undo()
    with pytest.raises(InputError, match=r"000002\.zip: damaged step"):
        again.undo()
    assert again.history == (None, "draw") and (again.mask(0) == 1).sum() == 100
    again.redo()
    again.draw(1, fill(1, 5, 5))
    assert again.history == ("draw", None)
    again.undo()
    assert again.history == ("draw", "draw") and not again.mask(1).any()
    again.close()


def test_a_new_step_forgets_those_that_were_taken_back(project):
    project.add_object()
    project.draw(0, fill(1, 5, 5))
    project.undo()
    project.draw(0, fill(1, 30, 30))
    assert project.redo() is None
    assert project.undo()[1] == [0]


def test_an_object_whose_adding_is_undone_is_in_no_mask(project):
    project.add_object(), project.add_object()
    project.draw(0, fill(2, 5, 5))
    ids = fill(1, 30, 30)(fill(2, 5, 5)(np.zeros((72, 100), np.uint8)))
    project.write_tracked(3, ids, [1, 2], {1: 0.5, 2: 0.5})
    assert project.undo()[1] == [0] and project.undo()[1] == [3]
    assert set(np.unique(project.mask(3))) == {0, 1} and set(project.objects) == {1}
    assert project.undo()[1] == [3]
    assert not project.mask(3).any() and not project.objects
    project.redo(), project.redo(), project.redo()
    assert (project.mask(0) == 2).sum() == 100 and not project.mask(3).any() and project.quality(2)[3] == UNKNOWN


@pytest.mark.parametrize("reopen", [False, True])
def test_a_new_object_gets_no_id_that_undo_brings_back(project, video, reopen):
    project.add_object("cat"), project.add_object("dog")
    project.draw(0, fill(2, 5, 5))
    project.delete_object(2)
    if reopen:
        project.close()
        project = Project(project.folder)
    assert project.next_id == project.add_object("bird").id == 3
    project.undo(), project.undo()
    assert project.objects[2].name == "dog" and project.add_object("bird").id not in (1, 2)
    assert (project.mask(0) == 2).sum() == 100 and project.references == {"00000": [2]}
    project.close()


def test_ids_come_again_when_no_step_can_bring_back_theirs(project, monkeypatch):
    monkeypatch.setattr("interactive.journal.KEPT", 10)
    for number in range(1, MOST_OBJECTS + 1):
        assert project.add_object().id == number
    with pytest.raises(InputError, match="255 objects"):
        project.add_object()
    project.delete_object(7)
    with pytest.raises(InputError, match=r"remove .*journal"):
        project.add_object()
    project.undo()
    assert project.objects[7].name == "object 7"
    project.redo()
    for number in range(10):
        project.change_object(1, name=f"name {number}")
    assert project.add_object().id == 7


def test_a_deletion_that_is_made_again_takes_away_what_was_tracked_since(project):
    project.add_object()
    project.draw(0, fill(1, 5, 5))
    project.delete_object(1)
    project.undo()
    project.write_tracked(1, fill(1, 5, 5)(np.zeros((72, 100), np.uint8)), [1], {1: 0.5})
    assert project.redo()[1] == [0, 1]
    assert not project.mask(0).any() and not project.mask(1).any()


@pytest.mark.parametrize("into", [None, 2])
def test_what_was_tracked_since_outlives_undo_and_redo_of_a_deletion(project, into):
    project.add_object(), project.add_object()
    nothing = np.zeros((72, 100), np.uint8)
    project.draw(0, fill(1, 5, 5)), project.draw(1, fill(1, 5, 5)), project.draw(0, fill(2, 30, 30))
    project.write_tracked(3, fill(1, 5, 5)(fill(2, 30, 30)(nothing.copy())), [1, 2], {1: 0.5, 2: 0.5})
    project.delete_object(1, into)
    tracked = fill(2, 10, 5)(nothing.copy())
    for position in (1, 3, 4):
        project.write_tracked(position, tracked, [2], {2: 0.8})
    project.undo()
    assert (project.mask(0) == 1).sum() == (project.mask(1) == 1).sum() == 100
    # The object takes back what it gave to the other one, but nothing that was tracked as such since.
    expected = fill(2, 10, 5)(fill(1, 5, 5)(nothing.copy())) if into is None else fill(1, 5, 5)(tracked.copy())
    np.testing.assert_array_equal(project.mask(3), expected)
    np.testing.assert_array_equal(project.mask(4), tracked)
    assert project.quality(1)[3] == 51 and project.quality(2)[3] == project.quality(2)[4] == 81
    project.redo()
    assert set(project.objects) == {2} and not any((project.mask(position) == 1).any() for position in range(5))
    assert (project.mask(3) == 2)[10:20, 5:15].all() and project.quality(2)[3] == project.quality(2)[4] == 81


def test_a_merge_that_is_made_again_merges_what_was_tracked_since(project):
    project.add_object(), project.add_object()
    nothing = np.zeros((72, 100), np.uint8)
    project.draw(0, fill(1, 5, 5)), project.draw(0, fill(2, 30, 30)), project.draw(2, fill(1, 5, 5))
    project.delete_object(2, into=1)
    project.undo()
    tracked = fill(2, 30, 30)(fill(1, 5, 5)(nothing.copy()))
    for position in (1, 2):
        project.write_tracked(position, tracked, [1, 2], {1: 0.5, 2: 0.8})
    project.write_tracked(3, fill(2, 30, 30)(nothing.copy()), [1, 2], {1: 0.5, 2: 0.8})
    assert project.redo()[1] == [0, 1, 2, 3]
    assert [np.bincount(project.mask(position).ravel()).tolist() for position in range(4)] == [
        [7000, 200]] * 3 + [[7100, 100]]
    assert (project.annotation(2)[0] == 1).sum() == 200
    assert project.quality(1)[:4].tolist() == [GIVEN, 51, GIVEN, 81]


def test_what_was_tracked_since_outlives_undo_and_redo_of_a_stroke(project):
    project.add_object(), project.add_object()
    nothing = np.zeros((72, 100), np.uint8)
    project.draw(0, fill(1, 5, 5)), project.draw(0, fill(2, 30, 30)), project.draw(3, fill(1, 5, 8))
    project.write_tracked(3, fill(2, 30, 30)(nothing.copy()), [1, 2], {1: 0.9, 2: 0.9})
    project.undo()
    assert set(np.unique(project.mask(3))) == {0, 2} and not project.annotation(3)
    assert [project.quality(number)[3] for number in (1, 2)] == [UNKNOWN, 91]
    # What is drawn is there as it was drawn, whatever was tracked there.
    project.write_tracked(3, fill(2, 10, 5)(fill(1, 40, 40)(nothing.copy())), [1, 2], {1: 0.5, 2: 0.7})
    project.redo()
    np.testing.assert_array_equal(project.mask(3), fill(1, 5, 8)(fill(2, 10, 5)(nothing.copy())))
    assert [project.quality(number)[3] for number in (1, 2)] == [GIVEN, 71]


def test_a_reference_that_is_brought_back_is_as_it_was_drawn(project):
    project.add_object()
    project.draw(3, fill(1, 5, 5))
    drawn = project.mask(3)
    project.clear_annotation(3)
    project.write_tracked(3, fill(1, 30, 30)(np.zeros((72, 100), np.uint8)), [1], {1: 0.5})
    project.undo()
    np.testing.assert_array_equal(project.mask(3), drawn)
    np.testing.assert_array_equal(project.annotation(3)[0], drawn)
    assert project.quality(1)[3] == GIVEN


def test_an_object_that_did_not_come_back_in_a_frame_is_not_seen_there(project):
    project.add_object(), project.add_object()
    nothing = np.zeros((72, 100), np.uint8)
    project.draw(0, fill(1, 5, 5)), project.draw(0, fill(2, 30, 30))
    project.write_tracked(1, fill(2, 30, 30)(nothing.copy()), [1, 2], {1: 0.5, 2: 0.8})
    project.delete_object(2)
    project.write_tracked(1, fill(1, 30, 30)(nothing.copy()), [1], {1: 0.6})
    project.undo()
    assert (project.mask(1) == 1).sum() == 100 and not (project.mask(1) == 2).any()
    assert [project.quality(number)[1] for number in (1, 2)] == [61, UNSEEN]


@pytest.mark.parametrize("seed", range(3))
def test_masks_annotations_and_qualities_agree_whatever_is_done(project, seed):
    random = np.random.default_rng(seed)

    def pick(items):
        return int(random.choice(list(items)))

    def track():
        ids = np.zeros((72, 100), np.uint8)
        for number in project.objects:
            fill(number, pick(range(60)), pick(range(90)))(ids)
        quality = dict.fromkeys(project.objects, random.choice([0.5, 0.6]))
        project.write_tracked(pick(range(3)), ids, project.objects, quality)

    for _ in range(150):
        action = pick(range(9)) if len(project.objects) > 2 else 0
        if action == 0:
            project.add_object()
        elif action == 1:
            one, other = random.choice(list(project.objects), 2, replace=False).tolist()
            project.delete_object(one, random.choice([None, other]))
        elif action == 2:
            project.clear_annotation(pick(range(3)))
        elif action in (3, 4):
            project.draw(pick(range(3)), fill(pick([0, *project.objects]), pick(range(60)), pick(range(90)), 30))
        elif action in (5, 6):
            track()
        else:
            for _ in range(pick(range(1, 4))):
                project.undo() if action == 7 else project.redo()
        for position in range(3):
            ids, (drawn, touched) = project.mask(position), project.annotation(position) or (0, [])
            np.testing.assert_array_equal(drawn, np.where(np.isin(ids, touched), ids, 0))
            assert set(touched) | set(np.unique(ids).tolist()) <= {0, *project.objects}
            for number in project.objects:
                quality, seen = project.quality(number)[position], (ids == number).any()
                assert 1 <= quality <= GIVEN if seen else quality in (UNKNOWN, UNSEEN)
                assert number not in touched or quality == (GIVEN if seen else UNSEEN)


@pytest.mark.parametrize("change, redone", [
    (lambda project: project.add_object("cat"), False),
    (lambda project: project.delete_object(2), True),
    (lambda project: project.delete_object(2, into=1), True),
])
def test_a_step_that_was_broken_off_at_its_end_is_done_again(project, monkeypatch, change, redone):
    for _ in range(2):
        project.add_object()
    for number, rows in ((1, slice(0, 10)), (2, slice(20, 30))):
        project.draw(0, lambda ids, number=number, rows=rows: paint(ids, number, rows))
    change(project)
    if redone:
        project.undo()
    go = project.redo if redone else project.undo
    with monkeypatch.context() as patch:
        patch.setattr(project._journal, "commit", fail)
        with pytest.raises(OSError):
            go()
    assert go() is not None
    assert set(project.objects) == ({1} if redone else {1, 2})
    assert set(np.unique(project.mask(0))) <= {0, *project.objects}


def fail():
    raise OSError("no space left")


def paint(ids, number, rows):
    ids[rows] = number
    return ids
