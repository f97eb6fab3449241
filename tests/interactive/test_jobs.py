"""Tracking for the page: where it begins, what it leaves alone, how it ends."""

import contextlib
import queue

import numpy as np
import pytest
from PIL import Image

from inference_core import InferenceCore
from interactive.jobs import Tracker
from interactive.plans import BACKWARD, BOTH, FORWARD, Job, plan_job
from interactive.project_files import GIVEN
from tests.interactive.page_steps import COUNT
from tests.tiny_engines import TinyEngines
from util.errors import InputError


@pytest.fixture
def project(project):
    project.add_object("one"), project.add_object("two")
    return project


@pytest.fixture
def events():
    return queue.Queue()


@pytest.fixture
def tracker(project, tiny_network, events):
    tracker = Tracker(project, TinyEngines(tiny_network), lambda event, **values: events.put((event, values)))
    yield tracker
    tracker.close()


def draw_truth(project, clip, position, *objects):
    truth = clip[1][position]
    project.draw(position, lambda ids: np.where(np.isin(truth, objects), truth, ids))


def run(tracker, events, job):
    """Run a job to its end; return (positions in the order in which they came, reason of the end)."""
    tracker.start(job)
    positions = []
    while True:
        event, values = events.get(timeout=60)
        if event == "stopped":
            return positions, values["reason"]
        if event == "tracking":
            positions.append(values["position"])


def masks(project):
    return {position: project.mask_file(position).read_bytes() for position in range(COUNT)
            if project.mask_file(position).exists()}


def test_forwards_gives_the_masks_that_the_core_gives(project, tracker, events, clip, tiny_network):
    draw_truth(project, clip, 0, 1, 2)
    assert run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1, 2))) == ([*range(COUNT)], "done")
    core = InferenceCore(tiny_network)
    for position in range(COUNT):
        prob = core.step(clip[0][position], clip[1][0] if position == 0 else None, end=position == COUNT - 1)
        np.testing.assert_array_equal(project.mask(position), core.to_mask(prob).numpy())
    assert project.quality(1)[0] == GIVEN and (project.quality(1)[1:] > 0).all()


def test_backwards_and_both(project, tracker, events, clip):
    draw_truth(project, clip, 5, 1, 2)
    assert run(tracker, events, Job(BACKWARD, 5, 2, COUNT - 1, (1, 2)))[0] == [5, 4, 3, 2]
    before = masks(project)
    assert sorted(before) == [2, 3, 4, 5]
    assert run(tracker, events, Job(BOTH, 5, 0, COUNT - 1, (1, 2)))[0] == [5, *range(6, COUNT), 5, 4, 3, 2, 1, 0]
    # Backwards from the same reference again: the same masks.
    assert {position: masks(project)[position] for position in before} == before


def test_a_correction_changes_nothing_before_it(project, tracker, events, clip):
    draw_truth(project, clip, 0, 1, 2)
    run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1, 2)))
    before = masks(project)
    draw_truth(project, clip, 6, 1, 2)
    corrected = project.mask(6)
    run(tracker, events, Job(FORWARD, 6, 6, COUNT - 1, (1, 2)))
    after = masks(project)
    assert all(after[position] == before[position] for position in range(6))
    np.testing.assert_array_equal(project.mask(6), corrected)
    assert any(after[position] != before[position] for position in range(7, COUNT))


def test_what_is_left_as_it_is_in_a_corrected_frame_is_tracked_from_there(project, tracker, events, clip, tiny_network):
    draw_truth(project, clip, 0, 1, 2)
    run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1, 2)))
    # Object 1 was tracked to where it would not be found again from its reference.
    elsewhere = np.roll(clip[1][6] == 1, 40, axis=1)
    project.write_tracked(6, elsewhere.astype(np.uint8), [1, 2], {1: 0.5})
    draw_truth(project, clip, 6, 2)
    mask, quality = project.mask(6), project.quality(1)[6]
    run(tracker, events, Job(FORWARD, 6, 6, COUNT - 1, (1, 2)))
    np.testing.assert_array_equal(project.mask(6), mask)
    assert project.quality(1)[6] == quality
    core = InferenceCore(tiny_network)
    core.step(clip[0][0], clip[1][0], frame=0)
    for position in (6, 7):
        prob = core.step(clip[0][position], mask if position == 6 else None, frame=position)
    np.testing.assert_array_equal(project.mask(7), core.to_mask(prob).numpy())


def test_a_reference_ahead_is_known_beforehand(project, tracker, events, clip):
    draw_truth(project, clip, 0, 1)
    run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1,)))
    before = masks(project)
    draw_truth(project, clip, COUNT - 1, 1)
    run(tracker, events, Job(FORWARD, 0, 0, COUNT - 2, (1,)))
    assert any(masks(project)[position] != before[position] for position in range(1, COUNT - 1))


def test_objects_that_are_not_tracked_keep_their_pixels(project, tracker, events, clip):
    draw_truth(project, clip, 0, 1, 2)
    run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1, 2)))
    before = [project.mask(position) == 1 for position in range(COUNT)]
    project.change_object(1, locked=True)
    run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1, 2)))
    for position in range(COUNT):
        np.testing.assert_array_equal(project.mask(position) == 1, before[position])


def test_an_object_that_is_drawn_later_is_tracked_from_there(project, tracker, events, clip):
    draw_truth(project, clip, 0, 1)
    draw_truth(project, clip, 4, 2)
    run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1, 2)))
    assert not any((project.mask(position) == 2).any() for position in range(4))
    assert project.quality(2)[3] == 0 and (project.quality(2)[4:] > 0).all()


def test_it_stops_within_a_frame_and_goes_on(project, tracker, events, clip):
    draw_truth(project, clip, 0, 1, 2)
    tracker.start(Job(FORWARD, 0, 0, COUNT - 1, (1, 2)))
    with pytest.raises(InputError, match="under way"):
        tracker.start(Job(FORWARD, 0, 0, COUNT - 1, (1, 2)))
    assert events.get(timeout=60)[0] == "tracking"
    tracker.stop()
    while (event := events.get(timeout=60))[0] != "stopped":
        pass
    assert event[1]["reason"] == "cancelled" and len(masks(project)) == event[1]["done"] < COUNT
    assert len(run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1, 2)))[0]) == COUNT


def test_a_new_object_gets_nothing_of_a_deleted_one_that_is_still_tracked(project, clip, events, tiny_network):
    draw_truth(project, clip, 0, 1, 2)
    new = []

    def replace_object(event, **values):
        if event == "tracking" and not new:
            project.delete_object(2)
            new.append(project.add_object("three").id)
        events.put((event, values))

    with contextlib.closing(Tracker(project, TinyEngines(tiny_network), replace_object)) as tracker:
        assert run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1, 2)))[1] == "done"
    assert not any((project.mask(position) == new[0]).any() for position in range(COUNT))


def test_an_object_that_is_locked_during_a_job_keeps_its_masks(project, clip, events, tiny_network):
    draw_truth(project, clip, 0, 1, 2)
    seen = np.full((72, 100), 2, np.uint8)
    project.write_tracked(COUNT - 1, seen, [2], {2: 0.4})

    def lock(event, **values):
        if event == "tracking" and not project.objects[2].locked:
            project.change_object(2, locked=True)
        events.put((event, values))

    with contextlib.closing(Tracker(project, TinyEngines(tiny_network), lock)) as tracker:
        assert run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1, 2)))[1] == "done"
    np.testing.assert_array_equal(project.mask(COUNT - 1), seen)
    assert project.quality(2)[COUNT - 1] == 41 and project.quality(1)[COUNT - 1] > 0


@pytest.mark.parametrize("job, message", [
    (Job(FORWARD, 3, 0, COUNT - 1, (1,)), "in this frame or before it"),
    (Job(FORWARD, 3, 0, COUNT, (1,)), "no such range"),
    (Job("sideways", 3, 0, 5, (1,)), "no such range"),
    (Job(BACKWARD, 8, 0, 9, ()), "no object is chosen"),
])
def test_jobs_that_would_do_nothing_are_refused(project, clip, job, message):
    draw_truth(project, clip, 5, 2)
    with pytest.raises(InputError, match=message):
        plan_job(project, job)


def test_an_error_ends_the_job_and_not_the_thread(project, tracker, events, clip):
    draw_truth(project, clip, 0, 1)
    file = project.folder.parent / "frames" / "00001.png"
    content = file.read_bytes()
    file.write_bytes(b"no image")
    file2 = project.folder.parent / "frames" / "00002.png"
    _, reason = run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1,)))
    assert file2.exists() and "00001" in reason
    file.write_bytes(content)
    assert run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1,)))[1] == "done"


@pytest.mark.parametrize("across, last", [(False, 5), (True, COUNT - 1)])
def test_a_new_shot_ends_tracking_unless_it_is_to_go_on(project, video, tracker, events, clip, across, last):
    other = np.random.default_rng(0).integers(0, 60, clip[0][0].shape, np.uint8)
    for position in range(6, COUNT):
        Image.fromarray(other).save(video / f"{position:05d}.png")
    draw_truth(project, clip, 0, 1, 2)
    positions, reason = run(tracker, events, Job(FORWARD, 0, 0, COUNT - 1, (1, 2), across))
    assert positions == [*range(last + 1)] and reason == "done"
