"""Runs of track.py in the process of the tests, what is given to them and what they write."""

import av
import numpy as np
from PIL import Image

import track
from util.errors import run_script


def run(*arguments):
    """Run track.py with these arguments, and return its exit code."""
    return run_script(track.get_args_parser(), track.main, [str(argument) for argument in arguments])


def one_line_error(capsys, *parts):
    """Whether one error was told, in one line that holds these parts."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1 and all(str(part) in lines[0] for part in parts), lines
    return True


def names(folder):
    """The names of the files of a folder, hidden ones left out."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def decoded(path):
    """The frames of a video, H×W×3."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def written(folder):
    """{name of a frame: ids} of a folder of masks."""
    return {path.stem: np.array(Image.open(path)) for path in folder.iterdir()}


def grey(path, mask):
    """Write a mask as a grey image, and return its path."""
    Image.fromarray(mask).save(path)
    return path


def frames_named(folder, frames, stems):
    """Write the first frames as images of these names into a new folder, and return it."""
    folder.mkdir()
    for frame, stem in zip(frames[:len(stems)], stems, strict=True):
        Image.fromarray(frame).save(folder / f"{stem}.png")
    return folder
