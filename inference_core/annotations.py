"""Find out which mask belongs to which frame, before anything is computed."""

import re
from pathlib import Path

from util.errors import InputError
from util.image_io import mask_files, read_mask


def find_masks(values, frames):
    """Return {frame's name: mask file} for the values of --mask.

    values: each is a PNG file (for the first frame), a folder of PNG files named after their frames, or FRAME:PNG.
    frames: as `util.video.open_frames` returns them.

    Raises InputError if a mask cannot be read, does not have the frames' size, holds no object, or belongs to no frame.
    """
    masks = {}
    names = set(frames.names or ())
    for key, file in (pair for value in values for pair in _split_value(value)):
        frame = _find_frame(key, file, frames, names)
        if frame in masks:
            raise InputError(f"{file}: frame {frame} already has a mask, {masks[frame]}")
        masks[frame] = file
    for file in masks.values():
        # The masks are only checked here and read again with their frames: those of a long video may not fit into
        # memory.
        if not read_mask(file, frames.size).any():
            raise InputError(f"{file}: this mask holds no object, all of it is 0")
    return masks


def _split_value(value):
    """Return [(key, file)] for one value of --mask.

    The key is a frame's name or number, or None for the first frame.
    """
    path = Path(value)
    if path.is_dir():
        return list(mask_files(path).items())
    named = re.fullmatch(r"([^/\\:]+):(.+)", value)
    if named and not path.exists():
        return [(named[1], Path(named[2]))]
    return [(None, path)]


def _find_frame(key, file, frames, names):
    """Return the name of the frame that a key stands for. Raises InputError if there is none."""
    if names:
        if key is None:
            return frames.first
        if key in names:
            return key
        if key.isdecimal() and int(key) < frames.length and str(int(key)) == key:
            return frames.names[int(key)]
        raise InputError(f"{file}: no frame is called {key}; the frames are {frames.names[0]} to {frames.names[-1]}")
    if key is None:
        return frames.first
    if not key.isdecimal():
        raise InputError(f"{file}: the frames of a video file are numbered from 0, {key} is no such number")
    return frames.name(int(key))
