"""Find out which mask belongs to which frame, before anything is computed."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from inference_core.sizes import scale_size
from util.errors import InputError
from util.image_io import find_numbers, mask_files, open_mask
from util.mask_rule import VOID


@dataclass(frozen=True)
class GivenMask:
    """A mask file that the user has given. As a path or a text, it is its file."""

    file: Path

    object_id: int | None = None
    """The id of its only object; None: the ids that the file says."""

    colours: dict = field(default_factory=dict)
    """{24-bit RGB: object id}, one for all masks of a video."""

    from_folder: bool = False
    """Whether the folder that it is in was given, not the file itself."""

    def __fspath__(self):
        return str(self.file)

    def __str__(self):
        return str(self.file)

    def read(self, size):
        """Return the object ids, uint8 H×W. size: (width, height) of the frames. Raises InputError."""
        return self.open(size).ids

    def open(self, size):
        """Return the `util.mask_rule.Mask`; otherwise like `read`."""
        mask = open_mask(self.file, size, self.colours)
        if self.object_id is None:
            return mask
        found = np.unique(mask.ids)
        if np.count_nonzero(found) > 1:
            raise InputError(f"{self.file}: holds objects {', '.join(map(str, found[found > 0]))}; FRAME:PNG:ID, here "
                             f"with ID {self.object_id}, is for a mask of one object")
        return mask._replace(ids=(mask.ids > 0) * np.uint8(self.object_id), numbered=True)


def find_masks(values, frames, shorter=None, notices=None, last=None):
    """Return {frame's name: GivenMask} for the values of --mask, in the order in which the frames are tracked.

    values: each is a mask file (for the first frame), a folder of mask files named after their frames, FRAME:PNG or
    FRAME:PNG:ID. frames: as `util.video.open_frames` returns them. shorter: the shorter side to which frames are
    reduced, None for none. notices: a list that gets (file, sentence) for what may not be as it was meant. last: if
    frames are tracked backwards, the name of the last one, to which a mask file alone then belongs; None: forwards.

    An empty mask in a folder gives nothing new, and is left out. Raises InputError if a mask cannot be read, does not
    have the frames' size, holds no object, or belongs to no frame.
    """
    notices = [] if notices is None else notices
    masks = place_masks(values, frames, notices, last)
    places = {name: place for place, name in enumerate(frames.names or ())}
    masks = dict(sorted(masks.items(), key=lambda item: places[item[0]] if places else int(item[0]),
                        reverse=last is not None))

    # The masks are only checked here and read again with their frames: those of a long video may not fit into memory.
    known = set()
    for frame, given in list(masks.items()):
        mask = given.open(frames.size)
        found = set(np.unique(mask.ids).tolist()) - {0}
        if not found and given.from_folder:
            notices.append((given, "an empty mask, which gives nothing new"))
            del masks[frame]
            continue
        if not found:
            raise InputError(f"{given}: this mask holds no object, all of it is 0")
        notices += [(given, notice) for notice in mask.notices]
        if not mask.numbered and 1 in known:
            notices.append((given, "does not say which object it shows: it corrects object 1; for another one, give "
                                   "FRAME:PNG:ID"))
        if VOID in found and len(found) > 1:
            notices.append((given, f"object {VOID} is tracked, too; if {VOID} means \"do not care\" there, write 0"))
        notices += [(given, notice) for notice in find_erased(mask.ids, shorter)]
        known |= found
    if not masks:
        raise InputError(f"{values[0]}: no mask in this folder holds an object")
    return masks


def place_masks(values, frames, notices=None, last=None):
    """Return {frame's name: GivenMask} as `find_masks` does, in the order of `values`; no mask is opened."""
    masks, colours = {}, {}
    for value in values:
        pairs, from_folder = _split_value(value)
        for key, file, object_id in pairs:
            if key is None and last is not None:
                frame, notice = last, f"taken for the mask of frame {last}, the last one, since no frame is given"
            else:
                frame, notice = find_frame(key, file, frames, from_folder)
            if frame in masks:
                raise InputError(f"{file}: frame {frame} already has a mask, {masks[frame]}")
            masks[frame] = GivenMask(file, object_id, colours, from_folder)
            if notice and notices is not None:
                notices.append((file, notice))
    return masks


def find_erased(ids, shorter):
    """Return sentences that name the objects of a mask, uint8 H×W, of which nothing is left at the network's size.

    shorter: the shorter side of what the network sees, None for the frame's own size.
    """
    if shorter is None:
        return []
    reduced = F.interpolate(torch.from_numpy(ids)[None, None].float(), size=scale_size(ids.shape, shorter))
    return [f"object {object_id} is so small that nothing is left of it at --size {shorter}; give a larger --size, or 0"
            for object_id in sorted(set(np.unique(ids).tolist()) - {0} - set(reduced.unique().int().tolist()))]


def list_given_files(values):
    """Return the mask files that the values of --mask stand for."""
    return [file for value in values for _, file, _ in _split_value(value)[0]]


def _split_value(value):
    """Return ([(key, file, object id)], whether it is a folder) for one value of --mask.

    The key is a frame's name or number, or None for the first frame. The object id is None if it is not given.
    """
    path = Path(value)
    if path.is_dir():
        return [(key, file, None) for key, file in mask_files(path).items()], True
    if path.exists():
        return [(None, path, None)], False
    object_id = None
    start, _, end = value.rpartition(":")
    if (end.isdecimal() and ":" in start) or Path(start).is_file():
        if not 1 <= int(end) <= 255:
            raise InputError(f"{value}: object id {end}, ids go from 1 to 255")
        value, object_id = start, int(end)
        if Path(value).is_file():
            return [(None, Path(value), object_id)], False
    named = re.fullmatch(r"([^/\\:]+):(.+)", value)
    return [(named[1], Path(named[2]), object_id) if named else (None, path, None)], False


def find_frame(key, file, frames, from_folder=False):
    """Return the name of the frame that a key stands for, and a notice or None. Raises InputError if there is none.

    key: a frame's name or number; None for the first frame. file: what gives the key, for messages. from_folder:
    whether the key is the name of a file in a folder, and so never a place in an order.
    """
    if key is None:
        return frames.first, None
    if frames.names:
        return frames.find(key, file, counts=not from_folder)
    numbers = find_numbers(key)
    if not key.isdecimal() and not (from_folder and len(numbers) == 1):
        raise InputError(f"{file}: the frames of a video file are numbered from 0, {key} is no such number")
    if not frames.holds(numbers[0]):
        count = "" if frames.length is None else f", and there are {frames.length} frames"
        raise InputError(f"{file}: no frame {key} is tracked; the first is {frames.first}{count}")
    return frames.name(numbers[0]), None
