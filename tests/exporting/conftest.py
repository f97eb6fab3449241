"""A small video with masks that has what formats stumble over."""

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import export_masks
from tests.trees import photograph
from util.errors import run_script
from util.files import JsonWriter
from util.image_io import write_mask
from util.video_writer import Look, VideoWriter

TIMES = [0, 40, 80, 200, 240, 300, 340, 1000]
"""When the frames are shown, in milliseconds."""

SIZE = (160, 120)

LOOK = Look(Fraction(1, 1000), Fraction(4, 3), matrix=1, primaries=1, transfer=1)


class Inputs(NamedTuple):
    video: Path
    masks: Path

    ids: np.ndarray
    """uint8 T×H×W"""


def draw_masks():
    """uint8 T×H×W: object 1 with a hole and a second part, 3 in a corner and away in frames 3 and 4, 200 late and tiny.

    In the last frame is no object.
    """
    rows, columns = np.mgrid[:SIZE[1], :SIZE[0]]
    ids = np.zeros((len(TIMES), SIZE[1], SIZE[0]), np.uint8)
    for number, frame in enumerate(ids[:-1]):
        distance = np.hypot(rows - 60, columns - 70 - 3 * number)
        frame[(distance < 30) & (distance > 8)] = 1
        frame[100:106, 20 + number:30] = 1
        if number not in (3, 4):
            frame[:25 + number, :20] = 3
        if number > 4:
            frame[110, 150 + number] = 200
    return ids


def write_clip(path, count=None):
    writer = VideoWriter(path, SIZE, 25, LOOK)
    for number, time in enumerate(TIMES[:count]):
        writer.write(np.roll(photograph(5), 3 * number, 1), Fraction(time, 1000))
    writer.close()
    return path


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked") / "clip"
    (folder / "masks").mkdir(parents=True)
    ids = draw_masks()
    for number, mask in enumerate(ids):
        write_mask(folder / "masks" / f"{number:05d}.png", mask)
    return Inputs(write_clip(folder / "clip.mp4"), folder / "masks", ids)


def export(*arguments):
    """The exit code of export_masks.py."""
    return run_script(export_masks.get_args_parser(), export_masks.main, [str(argument) for argument in arguments])


@contextlib.contextmanager
def no_larger_files(size):
    """Instead of a full disk, files of more than so many bytes are refused."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def iou(one, other):
    one, other = one > 0, other > 0
    union = (one | other).sum()
    return (one & other).sum() / union if union else 1.0


def write_summary(path, video, ids, finished=True, **header):
    """The summary.json of a track.py run on the first frames of `video`, a list."""
    with open(path, "w") as file:
        writer = JsonWriter(file)
        for name, value in {"written_by": "track.py", "video": list(map(str, video)), **header}.items():
            writer.add(name, value)
        writer.begin_list("frames")
        for number, mask in enumerate(ids):
            objects = {str(object_id): {} for object_id in np.unique(mask[mask > 0])}
            writer.append({"name": f"{number:05d}", "time": TIMES[number] / 1000, "objects": objects})
        writer.end_list()
        if finished:
            writer.add("speed", {})
        writer.add("complete", finished)
        writer.close()
