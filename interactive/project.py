"""A project: the folder in which somebody makes masks of a video. It needs no torch and no web.

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

from interactive.journal import Journal
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

MOST_OBJECTS = 255


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


class Project:
    """A project that is open. One process at a time has it; any thread may call its methods.

    folder: is made if it does not exist. video: what `util.video.open_frames` takes, a list; it is needed for a new
    project only. Raises InputError if the video cannot be read in any order, if the folder holds something else, or the
    project of another video, or if another process has it.

        frames        the video's SeekableFrames; a frame's position counts from 0
        size, rate    (width, height) in pixels; frames per second
        objects       {object id: ProjectObject}
        references    {frame's name: [ids of the objects that were drawn or erased in it]}
        next_id       the id of the object that is added next, above 255 if only ids that were used before are left
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
        self._journal = Journal(self.folder / "journal")
        known = known or {"objects": [], "references": {}}
        self.objects = {item["id"]: ProjectObject(**item) for item in known["objects"]}
        self.references = known["references"]
        self._take_over_annotations()
        # The history of another run can bring back objects, too.
        self.next_id = 1 + max({*self.objects, *self._ids_in_history()}, default=0)
        self._write_header()

    def close(self):
        """Let other processes have the folder."""
        self._held.close()

    def __len__(self):
        return len(self.frames)

    # What is known of a frame.

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

    # Changes, each a step of the history.

    def draw(self, position, change, label="draw"):
        """Change the mask of a frame by hand: change(ids uint8 H×W) returns the new ids.

        Every object that gains or loses pixels becomes part of the frame's annotation. Locked objects stay as they are.
        Returns whether anything changed. Raises InputError for an id that is no object.
        """
        with self.lock:
            name, before = self.frames.name(position), self.mask(position)
            locked = [thing.id for thing in self.objects.values() if thing.locked]
            after = change(before.copy())
            # A locked object neither loses pixels nor gets any.
            fixed = np.isin(before, locked) | np.isin(after, locked)
            after = np.where(fixed, before, after)
            changed = before != after
            touched = {*np.unique(before[changed]).tolist(), *np.unique(after[changed]).tolist()} - {0}
            if not touched:
                return False
            if not touched <= set(self.objects):
                raise InputError(f"there is no object {min(touched - set(self.objects))}")
            with self._step(label, [self._annotation_file(name), self.mask_file(position)], [name], [position]):
                drawn = sorted(touched | set(self.references.get(name, [])))
                write_mask(self._annotation_file(name), np.where(np.isin(after, drawn), after, 0).astype(np.uint8))
                write_mask(self.mask_file(position), after)
                self.references[name] = drawn
                self._set_quality(position, {object_id: GIVEN for object_id in drawn if (after == object_id).any()} |
                                  {object_id: UNSEEN for object_id in drawn if not (after == object_id).any()})
            return True

    def clear_annotation(self, position):
        """Forget what was drawn in a frame. Its mask stays, until it is tracked again."""
        with self.lock:
            name = self.frames.name(position)
            if name in self.references:
                with self._step("remove reference", [self._annotation_file(name)], [name], [position]):
                    del self.references[name]
                    self._annotation_file(name).unlink(missing_ok=True)

    def add_object(self, name=None, colour=None):
        """Add an object, and return it. Raises InputError if no id is left.

        Its id is that of no object that `undo` could bring back, whose masks it would take over. As long as there is
        one, it was not used since the project was opened: a job that is still running may track a deleted object, and
        would write it as the new one.
        """
        with self.lock:
            object_id = self.next_id
            if object_id > MOST_OBJECTS:
                free = {*range(1, MOST_OBJECTS + 1)} - {*self.objects}
                if not free:
                    raise InputError(f"there are {MOST_OBJECTS} objects, and a mask can hold no more")
                free -= self._ids_in_history()
                if not free:
                    raise InputError(f"all {MOST_OBJECTS} ids are used, by objects or by steps that can be taken back; "
                                     f"to free the latter, close the project and remove {self.folder / 'journal'}")
                object_id = min(free)
            thing = ProjectObject(object_id, name or f"object {object_id}",
                                  colour or COLOURS[(object_id - 1) % len(COLOURS)])
            with self._step("add object", [self._quality_file(object_id)]):
                self._quality_file(object_id).unlink(missing_ok=True)
                self.objects[object_id] = thing
            self.next_id = max(self.next_id, object_id + 1)
            return thing

    def change_object(self, object_id, **values):
        """Change name, colour, hidden or locked of an object. Raises InputError for anything else."""
        with self.lock:
            thing = self._find_object(object_id)
            for field, value in values.items():
                kind = type(asdict(thing).get(field))
                if field == "id" or kind is type(None) or not isinstance(value, kind):
                    raise InputError(f"an object has no {field} {value!r}")
            if "name" in values and not values["name"].strip():
                raise InputError("a name has at least one letter")
            with self._step("change object"):
                self.objects[object_id] = ProjectObject(**asdict(thing) | values)

    def delete_object(self, object_id, into=None):
        """Take an object out of all masks; into: the id of the object that gets its pixels, None for the background."""
        with self.lock:
            self._find_object(object_id)
            if into is not None:
                self._find_object(into)
            if into == object_id:
                raise InputError("an object cannot be merged with itself")
            files = self._files_with(object_id)
            names = [name for name, ids in self.references.items() if object_id in ids]
            quality = [self._quality_file(object_id), *([] if into is None else [self._quality_file(into)])]
            if into is not None:
                masks = {file.stem for file in files}
                files += [self._annotation_file(name) for name, ids in self.references.items()
                          if name in masks and name not in names and into in ids]
            with self._step("delete object" if into is None else "merge objects", files + quality, names):
                for file in files:
                    ids = read_mask(file, self.size)
                    ids[ids == object_id] = into or 0
                    if into is not None and file.parent.name == "annotations":
                        # A reference is complete. What was tracked of either object belongs to it; masks come first.
                        ids[(ids == 0) & (self.mask(self.frames.position(file.stem)) == into)] = into
                    write_mask(file, ids)
                for name in names:
                    left = {into or number if number == object_id else number for number in self.references[name]}
                    if into is None:
                        left.discard(object_id)
                    self.references[name] = sorted(left)
                    if not left:
                        del self.references[name]
                        self._annotation_file(name).unlink(missing_ok=True)
                if into is not None:
                    values, other = self.quality(into), self.quality(object_id)
                    np.where((values == UNKNOWN) | (values == UNSEEN), other, values).tofile(quality[1])
                quality[0].unlink(missing_ok=True)
                del self.objects[object_id]

    def undo(self):
        """Take back the latest step. Returns its label and the positions that changed, or None if there is none."""
        return self._go(self._journal.back)

    def redo(self):
        """Make the step again that was taken back last. Returns as `undo`.

        An object that was added comes back without its tracked masks.
        """
        return self._go(self._journal.forward)

    @property
    def history(self):
        """(label of the step that `undo` takes back or None, the same for `redo`)"""
        with self.lock:
            return self._journal.labels()

    # What tracking writes is no step of the history.

    def write_tracked(self, position, ids, tracked, quality):
        """Write a frame's result of tracking: ids uint8 H×W, the ids that were tracked, {object id: quality 0 to 1}.

        What was drawn in this frame stays, and so do locked objects and all that were not tracked. An object with a
        quality that has no pixel is taken as not seen. Returns {object id: its byte in quality/ID.u8}.
        """
        with self.lock:
            drawn = self.references.get(self.frames.name(position), [])
            # An object may have been deleted or locked while it is tracked.
            tracked = [object_id for object_id in tracked if object_id in self.objects and object_id not in drawn
                       and not self.objects[object_id].locked]
            file = self.mask_file(position)
            if file.exists():
                before = self.mask(position)
                keep = (before > 0) & ~np.isin(before, tracked)
                ids = np.where(keep, before, np.where(np.isin(ids, tracked), ids, 0)).astype(np.uint8)
            else:
                ids = np.where(np.isin(ids, tracked), ids, 0).astype(np.uint8)
            write_mask(file, ids)
            seen = np.bincount(ids.ravel(), minlength=256)
            values = {object_id: 1 + round(100 * quality[object_id]) if seen[object_id] else UNSEEN
                      for object_id in tracked if object_id in quality}
            self._set_quality(position, values)
            return values

    # Inside.

    def _find_object(self, object_id):
        if object_id not in self.objects:
            raise InputError(f"there is no object {object_id}")
        return self.objects[object_id]

    def _ids_in_history(self):
        """The ids of all objects that there were before or after a step that can be taken back."""
        return {item["id"] for side in self._journal.sides() for item in side["objects"]}

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

    def _files_with(self, object_id):
        """The masks and annotations that show an object."""
        drawn = [self._annotation_file(name) for name, ids in self.references.items() if object_id in ids]
        return self._masks_with(object_id) + [file for file in drawn if file.exists()]

    def _masks_with(self, object_id):
        masks = [self.mask_file(position) for position in np.flatnonzero(self.quality(object_id)).tolist()]
        return [file for file in masks if file.exists()]

    def _describe(self, names, positions):
        """What a step remembers beside files."""
        return {"objects": [asdict(thing) for thing in self.objects.values()],
                "references": {name: self.references.get(name) for name in names},
                "quality": self.qualities_at(positions)}

    @contextlib.contextmanager
    def _step(self, label, files=(), names=(), positions=()):
        """Write the block's changes into the journal as one step.

        files: those that it may change; names: the frames whose references it may change; positions: where it may
        change the quality.
        """
        with self._journal.record(self.folder, [str(file.relative_to(self.folder)) for file in files]) as step:
            step.update(label=label, before=self._describe(names, positions))
            yield
            self._write_header()
            step["after"] = self._describe(names, positions)

    def _go(self, move):
        with self.lock:
            step = move()
            if step is None:
                return None
            left, there = ({item["id"] for item in side["objects"]} for side in (step.left, step.values))
            gone, back = left - there, there - left
            # The step does not know the masks that were tracked since. They are found by the quality, which goes below.
            tracked = sorted({file for object_id in gone for file in self._masks_with(object_id)}
                             - {self.folder / file for file in step.files})
            for file in tracked:
                ids = read_mask(file, self.size)
                write_mask(file, np.where(np.isin(ids, list(gone)), 0, ids).astype(np.uint8))
            for name, (was, content) in zip(step.files, step.contents, strict=True):
                file = self.folder / name
                # Where something was tracked since an object was deleted or merged, whole files would take it back.
                now = file.read_bytes() if (gone or back) and file.exists() else None
                if now in (None, was) or name.startswith("annotations") or file in map(self._quality_file, gone | back):
                    _write(file, content)
                elif name.startswith("quality"):
                    _write(file, _change_bytes(now, was, content))
                else:
                    drawn = step.values["references"].get(file.stem) or []
                    self._change_mask(file, self._decode(was), self._decode(content), gone, back, drawn)
            self.objects = {item["id"]: ProjectObject(**item) for item in step.values["objects"]}
            for name, ids in step.values["references"].items():
                if ids is None:
                    self.references.pop(name, None)
                else:
                    self.references[name] = ids
            for position, values in step.values["quality"].items():
                self._set_quality(int(position), {int(object_id): value for object_id, value in values.items()})
            self._write_header()
            self._journal.commit()
            names = {Path(file).stem for file in step.files if file.startswith(("masks", "annotations"))}
            names |= {file.stem for file in tracked}
            return step.label, sorted(self.frames.position(name) for name in names)

    def _decode(self, content):
        """The ids of a mask file's bytes."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "mask.png"
            file.write_bytes(content)
            return read_mask(file, self.size)

    def _change_mask(self, file, was, then, gone, back, drawn):
        """Change a mask that was tracked since as the step changes it from `was` to `then`, and keep what was tracked.

        gone, back: ids of the objects that the step takes away and brings back. drawn: ids that are drawn in this frame
        then, and take precedence over what was tracked.
        """
        now = read_mask(file, self.size)
        free = (now == was) | (now == 0) & np.isin(then, list(back))
        ids = np.where((was != then) & free | np.isin(then, drawn), then, now)
        write_mask(file, np.where(np.isin(ids, list(gone)), 0, ids).astype(np.uint8))

    def _write_header(self):
        names = {str(thing.id): thing.name for thing in self.objects.values()}
        header = {"written_by": WRITER, "video": self.video,
                  "objects": [asdict(thing) for thing in self.objects.values()], "references": self.references}
        for name, content in (("names.json", names), ("project.json", header)):
            # Waiting for the disk would be felt at every stroke.
            _write(self.folder / name, f"{json.dumps(content, indent=1)}\n".encode())

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
            if not self.mask_file(position).exists():
                write_mask(self.mask_file(position), ids)
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


def _change_bytes(now, was, then):
    """Bytes of a quality file: those that differ between `was` and `then` as in `then`, unless they changed since."""
    size = max(map(len, (now, was or b"", then or b"")))
    now, was, then = (np.frombuffer((content or b"").ljust(size, b"\0"), np.uint8) for content in (now, was, then))
    return np.where((was != then) & (now == was), then, now).tobytes()


def _write(file, content):
    """Give a file these bytes; None removes it."""
    if content is None:
        file.unlink(missing_ok=True)
    else:
        with atomic_path(file, flushed=False) as temporary:
            temporary.write_bytes(content)
