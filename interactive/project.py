"""A project: somebody makes masks of a video, step by step. It needs no torch and no web."""

import contextlib
from dataclasses import asdict, fields

import numpy as np

from interactive.journal import Journal
from interactive.project_files import (
    COLOURS,
    UNKNOWN,
    UNSEEN,
    ProjectFiles,
    ProjectObject,
    write_bytes,
)
from util.errors import InputError
from util.image_io import read_mask, write_mask

MOST_OBJECTS = 255


class Project(ProjectFiles):
    """A project that is open. One process at a time has it; any thread may call its methods.

    folder, video: as for ProjectFiles, whose attributes it has, and this one:

        next_id       the id of the object that is added next, above 255 if only ids that were used before are left
    """

    def __init__(self, folder, video=None):
        super().__init__(folder, video)
        self._journal = Journal(self.folder / "journal")
        # The history of another run can bring back objects, too.
        self.next_id = 1 + max({*self.objects, *self._ids_in_history()}, default=0)
        self._write_header()

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
                self.references[name] = drawn
                self._write_annotation(position, after)
                write_mask(self.mask_file(position), after)
            return True

    def clear_annotation(self, position):
        """Forget what was drawn in a frame. Its mask stays, until it is tracked again."""
        with self.lock:
            name = self.frames.name(position)
            if name in self.references:
                files = [self._annotation_file(name), self.mask_file(position)]
                with self._step("remove reference", files, [name], [position]):
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
            kinds = {field.name: field.type for field in fields(thing) if field.name != "id"}
            for name, value in values.items():
                if name not in kinds or not isinstance(value, kinds[name]):
                    raise InputError(f"an object has no {name} {value!r}")
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
            files = self._files_with(object_id, into)
            names = [name for name, ids in self.references.items() if object_id in ids]
            quality = [self._quality_file(number) for number in (object_id, into) if number is not None]
            with self._step("delete object" if into is None else "merge objects", files + quality, names):
                self._take_out(object_id, into)

    def undo(self):
        """Take back the latest step. Returns its label and the positions that changed, or None if there is none.

        What was tracked since stays, but for what the step itself drew or erased, and for an object whose adding is
        taken back.
        """
        return self._go(self._journal.back)

    def redo(self):
        """Make the step again that was taken back last. Returns as `undo`.

        An object that was added comes back without its tracked masks. What was deleted or merged takes along what was
        tracked of it since.
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

    def _files_with(self, object_id, into):
        """The masks, and behind them the annotations, that change where an object becomes part of another, or None."""
        masks = [self.mask_file(position) for position in np.flatnonzero(self.quality(object_id)).tolist()]
        masks = [file for file in masks if file.exists()]
        names = {file.stem for file in masks}
        drawn = [self._annotation_file(name) for name, ids in self.references.items()
                 if object_id in ids or (name in names and into in ids)]
        return masks + drawn

    def _take_out(self, object_id, into):
        """Take an object out of all files, and give its pixels to another, or to None. Returns the frames' names."""
        files = self._files_with(object_id, into)
        for file in files:
            if file.parent.name == "masks":
                ids = read_mask(file, self.size)
                ids[ids == object_id] = into or 0
                write_mask(file, ids)
        if into is not None:
            values, other = self.quality(into), self.quality(object_id)
            unseen = np.isin(values, [UNKNOWN, UNSEEN]) & (other != UNKNOWN)
            np.where(unseen, other, values).tofile(self._quality_file(into))
        # A reference is complete: what was tracked of either object belongs to it.
        for name in {file.stem for file in files if file.parent.name == "annotations"}:
            left = {into or number if number == object_id else number for number in self.references[name]}
            if into is None:
                left.discard(object_id)
            if left:
                self.references[name] = sorted(left)
                position = self.frames.position(name)
                self._write_annotation(position, self.mask(position))
            else:
                del self.references[name]
                self._annotation_file(name).unlink(missing_ok=True)
        self._quality_file(object_id).unlink(missing_ok=True)
        # After a kill, the same step is done again.
        self.objects.pop(object_id, None)
        return {file.stem for file in files}

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
            objects = {item["id"]: ProjectObject(**item) for item in step.values["objects"]}
            if gone := {item["id"] for item in step.left["objects"]} - set(objects):
                # The step does not know the masks that were tracked since. A merge has the qualities of both objects.
                files = {self.folder / file for file in step.files}
                into = [number for number in objects if self._quality_file(number) in files]
                names = self._take_out(*gone, *into or [None])
                self.objects = objects
            else:
                self.objects = objects
                names = self._merge(step)
            self._write_header()
            self._journal.commit()
            return step.label, sorted(self.frames.position(name) for name in names)

    def _merge(self, step):
        """Change the files as a Step does that takes no object away. Returns the names of the frames.

        Where pixels and qualities are as the step left them, they become what it says; what was tracked since stays.
        But objects that are drawn in a frame because of the step are there as they were drawn.
        """
        for name, ids in step.values["references"].items():
            if ids is None:
                self.references.pop(name, None)
            else:
                self.references[name] = ids
        # {position: {object id: quality until now}} of the frames that were tracked since, or have other references
        names, since = set(), {self.frames.position(name): {} for name in step.values["references"]}
        for path, (was, then) in zip(step.files, step.contents, strict=True):
            file = self.folder / path
            now = file.read_bytes() if file.exists() else None
            if file.parent.name == "quality":
                now, was, then = (np.frombuffer((content or b"").ljust(len(self), b"\0"), np.uint8)
                                  for content in (now, was, then))
                write_bytes(file, np.where(now == was, then, now).tobytes())
                for position in np.flatnonzero((now != was) & (was != then)).tolist():
                    since.setdefault(position, {})
                continue
            names.add(file.stem)
            if now == was:
                write_bytes(file, then)
                continue
            position = self.frames.position(file.stem)
            since[position] = self.qualities_at([position])[str(position)]
            left, drawn = (side["references"].get(file.stem) or [] for side in (step.left, step.values))
            now, was, then = map(self._decode, (now, was, then))
            ids = np.where((was != then) & ((now == was) | (now == 0)), then, now)
            fresh = sorted(set(drawn) - set(left))
            ids = np.where(np.isin(then, fresh), then, np.where(np.isin(ids, fresh), 0, ids))
            write_mask(file, ids.astype(np.uint8))
        for position, values in step.values["quality"].items():
            now, was = self.qualities_at([int(position)])[position], step.left["quality"][position]
            self._set_quality(int(position), {int(number): value for number, value in values.items()
                                              if now[number] == was[number]})
        for position, before in since.items():
            self._settle(position, before)
        return names

    def _settle(self, position, before):
        """Let a frame's annotation and qualities be those of its mask. before: {object id: quality} if it has none"""
        ids = self.mask(position)
        name, seen = self.frames.name(position), {str(number) for number in np.unique(ids).tolist()}
        values = {int(number): value and UNSEEN if number not in seen
                  else before.get(number, value) if value in (UNKNOWN, UNSEEN) else value
                  for number, value in self.qualities_at([position])[str(position)].items()}
        self._set_quality(position, values)
        if name in self.references:
            self._write_annotation(position, ids)
        else:
            self._annotation_file(name).unlink(missing_ok=True)
