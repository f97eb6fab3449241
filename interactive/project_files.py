"""The folder of a project: what is known of a video and its objects, in files.

    project.json           the video, the objects, and which objects each reference shows
    names.json             {object id: name}, for export_masks.py
    annotations/NAME.png   references: the ids that somebody has drawn in this frame. track.py --mask reads them
    masks/NAME.png         what is known of this frame, drawn or tracked
    quality/ID.u8          one byte for each frame, see UNKNOWN
    journal/NUMBER.zip     one step of the history: the files and objects before and after it

Every change is in its files when its method returns, and outlives a kill; a power cut may take the last seconds. What
is in memory does not grow with the video, but for a byte for each frame and object while somebody asks for it.
"""

import contextlib
import json
import os
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from util.errors import InputError
from util.files import atomic_path, lock_folder, read_json
from util.image_io import mask_files, read_mask, write_mask
from util.video import open_frames

WRITER = "annotate.py"
"""What project.json says of who wrote it."""

UNKNOWN, UNSEEN, GIVEN = 0, 250, 101
"""A byte of quality/ID.u8: 0 where nothing is known; 1 to 101, one more than the quality in percent; 250 where the
object was tracked and is not seen."""

COLOURS = ("#ff5a5f", "#2ec4b6", "#ffbf3c", "#7c6cf2", "#5cb85c", "#f078c8", "#3f9bf5", "#ff8a3d", "#a3d139", "#c17be8",
           "#00b8d9", "#e8d44d")
"""Colours of objects on the page, in the order in which they are added."""


@dataclass
class ProjectObject:
    """An object of a project."""

    id: int
    name: str
    colour: str
    """As CSS writes it: #rrggbb."""

    hidden: bool = False
    """Not shown on the page."""

    locked: bool = False
    """Neither drawing nor tracking changes it."""


class ProjectFiles:
    """What is in the folder of a project, read and written; no change is a step of the history.

    folder: is made if it does not exist. video: what `util.video.open_frames` takes, a list; it is needed for a new
    project only. Raises InputError if the video cannot be read in any order, if the folder holds something else, or the
    project of another video, or if another process has it.

        frames        the video's SeekableFrames; a frame's position counts from 0
        size, rate    (width, height) in pixels; frames per second
        objects       {object id: ProjectObject}
        references    {frame's name: [ids of the objects that were drawn or erased in it]}
    """

    def __init__(self, folder, video=None):
        self.folder = Path(folder)
        self.lock = threading.RLock()
        known = read_header(self.folder)
        if known is None and video is None:
            raise InputError(f"{folder}: no project, and no video to begin one with")
        if known is None and self.folder.exists() and any(self.folder.iterdir()):
            raise InputError(f"{folder}: holds other files; choose another --output")
        video = [str(Path(path).resolve()) for path in video] if video else known["video"]
        if known is not None and video != known["video"]:
            raise InputError(f"{folder}: is the project of {known['video'][0]}; choose another --output")
        opened = open_frames(video)
        self.video, self.size, self.rate = video, tuple(opened.size), float(opened.rate)
        self.frames = opened.seekable()
        self.notices = list(opened.notices)
        with contextlib.ExitStack() as held:
            held.enter_context(lock_folder(self.folder))
            self._held = held.pop_all()
        for name in ("annotations", "masks", "quality"):
            (self.folder / name).mkdir(exist_ok=True)
        known = known or {"objects": [], "references": {}}
        self.objects = {item["id"]: ProjectObject(**item) for item in known["objects"]}
        self.references = known["references"]
        self._take_over_annotations()

    def close(self):
        """Let other processes have the folder."""
        self._held.close()

    def __len__(self):
        return len(self.frames)

    def mask(self, position):
        """The object ids of a frame, uint8 H×W, all 0 where nothing is known."""
        file = self.mask_file(position)
        if not file.exists():
            return np.zeros(self.size[::-1], np.uint8)
        return read_mask(file, self.size)

    def mask_file(self, position):
        """Where the mask of a frame is, or would be."""
        return self.folder / "masks" / f"{self.frames.name(position)}.png"

    def annotation(self, position):
        """(ids uint8 H×W of what was drawn in a frame, [ids drawn or erased in it]); None if nothing was."""
        with self.lock:
            name = self.frames.name(position)
            if name not in self.references:
                return None
            return read_mask(self._annotation_file(name), self.size), list(self.references[name])

    def reference_positions(self):
        """{position: [ids]} of all references, in the order of the frames."""
        with self.lock:
            return dict(sorted((self.frames.position(name), ids) for name, ids in self.references.items()))

    def quality(self, object_id):
        """One byte for each frame, uint8: see UNKNOWN."""
        values = np.zeros(len(self), np.uint8)
        file = self._quality_file(object_id)
        if file.exists():
            found = np.fromfile(file, np.uint8)[:len(self)]
            values[:len(found)] = found
        return values

    def qualities_at(self, positions):
        """{position: {object id: byte}} of some frames, with texts as keys, as JSON has them."""
        found = {str(position): {} for position in positions}
        with self.lock:
            for object_id in self.objects:
                file = self._quality_file(object_id)
                with open(file if file.exists() else os.devnull, "rb") as values:
                    for position in positions:
                        values.seek(position)
                        found[str(position)][str(object_id)] = (values.read(1) or b"\0")[0]
        return found

    def _annotation_file(self, name):
        return self.folder / "annotations" / f"{name}.png"

    def _quality_file(self, object_id):
        return self.folder / "quality" / f"{object_id}.u8"

    def _set_quality(self, position, values):
        """values: {object id: byte}"""
        for object_id, value in values.items():
            descriptor = os.open(self._quality_file(object_id), os.O_CREAT | os.O_WRONLY, 0o666)
            try:
                # Bytes before it that were never written read as 0.
                os.lseek(descriptor, position, os.SEEK_SET)
                os.write(descriptor, bytes([value]))
            finally:
                os.close(descriptor)

    def _write_annotation(self, position, ids):
        """Let a frame's annotation hold what ids uint8 H×W show of the objects drawn in it, and say so in quality."""
        name = self.frames.name(position)
        drawn = self.references[name]
        write_mask(self._annotation_file(name), np.where(np.isin(ids, drawn), ids, 0).astype(np.uint8))
        self._set_quality(position, {number: GIVEN if (ids == number).any() else UNSEEN for number in drawn})

    def _decode(self, content):
        """The ids of a mask file's bytes, all 0 for None."""
        if content is None:
            return np.zeros(self.size[::-1], np.uint8)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "mask.png"
            file.write_bytes(content)
            return read_mask(file, self.size)

    def _write_header(self):
        names = {str(thing.id): thing.name for thing in self.objects.values()}
        header = {"written_by": WRITER, "video": self.video,
                  "objects": [asdict(thing) for thing in self.objects.values()], "references": self.references}
        for name, content in (("names.json", names), ("project.json", header)):
            # Waiting for the disk would be felt at every stroke.
            write_bytes(self.folder / name, f"{json.dumps(content, indent=1)}\n".encode())

    def _take_over_annotations(self):
        """Let project.json know of the annotations that are there: after a kill, or because somebody put them there."""
        folder = self.folder / "annotations"
        files = mask_files(folder) if any(folder.glob("*.png")) else {}
        self.references = {name: ids for name, ids in self.references.items() if name in files}
        for name, file in files.items():
            try:
                position = self.frames.position(name)
            except KeyError:
                raise InputError(f"{file}: the video has no frame of this name") from None
            if name in self.references:
                continue
            ids = read_mask(file, self.size)
            self.references[name] = [number for number in np.unique(ids).tolist() if number]
            for number in self.references[name]:
                self.objects.setdefault(number, ProjectObject(number, f"object {number}",
                                                              COLOURS[(number - 1) % len(COLOURS)]))
            mask = self.mask(position)
            others = np.where(np.isin(mask, self.references[name]), 0, mask)
            write_mask(self.mask_file(position), np.where(ids > 0, ids, others).astype(np.uint8))
            self._set_quality(position, dict.fromkeys(self.references[name], GIVEN))


def read_header(folder):
    """What the project.json of a folder says: {"video", "objects", "references"}; None if there is none.

    Raises InputError if it is damaged, or not ours.
    """
    file = Path(folder) / "project.json"
    if not file.exists():
        return None
    header = read_json(file)
    if not isinstance(header, dict) or header.get("written_by") != WRITER:
        raise InputError(f"{file}: {WRITER} did not write this file; choose another --output")
    try:
        for item in header["objects"]:
            ProjectObject(**item)
        return {"video": list(header["video"]), "objects": header["objects"],
                "references": dict(header["references"])}
    except (LookupError, TypeError) as error:
        raise InputError(f"{file}: damaged, {error}") from None


def write_bytes(file, content):
    """Give a file these bytes; None removes it."""
    if content is None:
        file.unlink(missing_ok=True)
    else:
        with atomic_path(file, flushed=False) as temporary:
            temporary.write_bytes(content)
