"""Masks of a video's frames from clicks and boxes that the user gives, where there are no mask files."""

import re
from dataclasses import dataclass

import numpy as np

from inference_core.annotations import find_frame
from inference_core.clicks import ClickSession
from util.errors import InputError
from util.files import file_sha256, flush, read_json, write_json
from util.image_io import read_mask, write_mask

CLICK, BOX = "--click", "--box"

NUMBERS = {CLICK: 2, BOX: 4}
"""So many coordinates belong to a click and to a box."""

MADE = ".made.json"
"""The file that tells masks made from clicks from those that somebody has changed since: {file name: SHA-256}."""

FORMS = {CLICK: "FRAME:X,Y:ID was expected, like 0:250,120 or 0:250,120:2; 0:250,120:-2 is a pixel that is not of "
                "object 2",
         BOX: "FRAME:LEFT,TOP,RIGHT,BOTTOM:ID was expected, like 0:180,60,330,200 or 0:180,60,330,200:2"}


@dataclass(frozen=True)
class GivenHint:
    """A click or a box of the command line."""

    text: str
    """The option and its value, for messages."""

    frame: str | None
    """The frame's name or number; None: the one where tracking begins."""

    object_id: int

    positive: bool
    """Whether it is on the object."""

    numbers: tuple
    """x and y, or left, top, right and bottom, in pixels of the frame."""


def read_hints(clicks, boxes):
    """Return the GivenHints that the values of --click and --box stand for, boxes first. Raises InputError."""
    return [_read_hint(option, text) for option, texts in ((BOX, boxes), (CLICK, clicks)) for text in texts or ()]


def _read_hint(option, text):
    number = r"(\d+(?:\.\d+)?)"
    found = re.fullmatch(rf"(?:(.+):)?{','.join([number] * NUMBERS[option])}(?::(-?)(\d+))?", text)
    frame, *numbers, minus, object_id = found.groups() if found else (None, None, None)
    if not found or (minus and option == BOX):
        raise InputError(f"{option} {text}: {FORMS[option]}")
    object_id = int(object_id or 1)
    if not 1 <= object_id <= 255:
        raise InputError(f"{option} {text}: object id {object_id}, ids go from 1 to 255")
    return GivenHint(f"{option} {text}", frame, object_id, not minus, tuple(map(float, numbers)))


def find_hint_frames(hints, frames, last=None):
    """Return {frame's name: its GivenHints}. Raises InputError if there is no such frame.

    frames: of `util.video.open_frames`. last: the frame where tracking begins, if it goes backwards.
    """
    found = {}
    for hint in hints:
        name = last if hint.frame is None and last else find_frame(hint.frame, hint.text, frames)[0]
        found.setdefault(name, []).append(hint)
    for given in found.values():
        missing = {hint.object_id for hint in given} - {hint.object_id for hint in given if hint.positive}
        for hint in given:
            if hint.object_id in missing:
                raise InputError(f"{hint.text}: says what is not object {hint.object_id}; say also what is, by a "
                                 "--click on it in this frame")
    return found


def mark_objects(network, image, hints):
    """Return the object ids, uint8 H×W, of all objects that GivenHints of one frame mark.

    network: of `model.load_clicks`. image: uint8 H×W×3, RGB. A click on one object says that the pixel is in no other
    one. Where two masks meet, the smaller object keeps the pixels: it probably lies on the larger one. Raises
    InputError if a hint is outside of the image, or nothing is found.
    """
    masks = {}
    for object_id in sorted({hint.object_id for hint in hints}):
        own = [hint for hint in hints if hint.object_id == object_id]
        session = ClickSession(network, image)
        for hint in sorted(own, key=lambda hint: not hint.positive):
            _give(session, hint, hint.positive)
        for hint in hints:
            if hint.object_id != object_id and hint.positive and len(hint.numbers) == NUMBERS[CLICK]:
                x, y = (min(round(value), side - 1) for value, side in zip(hint.numbers, image.shape[1::-1],
                                                                          strict=True))
                if session.mask[y, x]:
                    _give(session, hint, False)
        masks[object_id] = session.mask
    ids = np.zeros(image.shape[:2], np.uint8)
    for object_id, mask in sorted(masks.items(), key=lambda item: -np.count_nonzero(item[1])):
        ids[mask] = object_id
    for hint in hints:
        if hint.positive and not (ids == hint.object_id).any():
            raise InputError(f"{hint.text}: nothing was found there; click at the middle of the object, or draw a "
                             "mask")
    return ids


def write_clicked(folder, masks, overwrite=False, resume=False):
    """Write masks that were made from clicks into a folder, and return {frame's name: file}.

    masks: {frame's name: object ids, uint8 H×W}. A file with another mask that clicks have not made is somebody's work:
    unless `overwrite` is given, it is not replaced, and InputError is raised. resume: a run goes on that was tracked
    from the files in the folder; then none of them is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = _read_made(folder / MADE)
    files = {name: folder / f"{name}.png" for name in masks}
    new = {name: file for name, file in files.items() if not _shows(file, masks[name])}
    for file in new.values():
        if file.exists() and file_sha256(file) != made.get(file.name) and not overwrite:
            raise InputError(f"{file}: was changed since it was made from clicks, or made otherwise; to track from it, "
                             "give it with --mask instead of clicks in this frame, else replace it with --overwrite")
        if resume and file.exists():
            raise InputError(f"{file}: was made from other clicks or boxes; --resume goes on with what is the same: "
                             "give the earlier command, or leave --resume out to begin anew")
    for name, file in new.items():
        write_mask(file, masks[name])
    flush(new.values())
    write_json(folder / MADE, {**made, **{file.name: file_sha256(file) for file in files.values()}})
    return files


def _shows(file, ids):
    """Return whether a file holds this mask."""
    try:
        return file.exists() and np.array_equal(read_mask(file), ids)
    except InputError:
        # It is damaged.
        return False


def _read_made(path):
    """What MADE holds; nothing if there is no such file, or it is damaged: then no mask counts as made from clicks."""
    try:
        return dict(read_json(path))
    except (TypeError, ValueError):
        return {}


def _give(session, hint, positive):
    try:
        if len(hint.numbers) == NUMBERS[BOX]:
            session.box(*hint.numbers)
        else:
            session.click(*hint.numbers, positive)
    except InputError as error:
        raise InputError(f"{hint.text}: {error}") from None
