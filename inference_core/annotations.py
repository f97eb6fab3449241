"""Finds out which mask belongs to which frame, before anything is computed."""

import re
from pathlib import Path

from util.errors import InputError
from util.image_io import mask_files, read_mask


def find_masks(values, frames):
    """{frame's name: mask file} for the values of --mask.

    values: PNG files (for the first frame), folders of PNGs named after their frames, or FRAME:PNG.
    frames: an ImageFrames or VideoFrames of util.video. Raises InputError if a mask cannot be read, has another size,
    holds no object, or belongs to no frame.
    """
    masks = {}
    names = set(frames.names or ())
    for key, file in (pair for value in values for pair in _split_value(value)):
        frame = _find_frame(key, file, frames, names)
        if frame in masks:
            raise InputError(f"{file}: frame {frame} has a mask already, {masks[frame]}")
        masks[frame] = file
    for file in masks.values():
        # Masks are read again when their frame comes, since those of a long video may not fit into memory.
        if not read_mask(file, frames.size).any():
            raise InputError(f"{file}: no object in this mask, all of it is 0")
    return masks


def _split_value(value):
    """[(key, file)] of one value of --mask; key: a frame's name or number, None for the first frame."""
    path = Path(value)
    if path.is_dir():
        return list(mask_files(path).items())
    named = re.fullmatch(r"([^/\\:]+):(.+)", value)
    if named and not path.exists():
        return [(named[1], Path(named[2]))]
    return [(None, path)]


def _find_frame(key, file, frames, names):
    if names:
        if key is None:
            return frames.names[0]
        if key in names:
            return key
        if key.isdecimal() and int(key) < frames.length and str(int(key)) == key:
            return frames.names[int(key)]
        raise InputError(f"{file}: no frame is called {key}; they go from {frames.names[0]} to {frames.names[-1]}")
    if key is None:
        return frames.name(0)
    if not key.isdecimal():
        raise InputError(f"{file}: frames of a video have numbers from 0, {key} is none")
    return frames.name(int(key))
