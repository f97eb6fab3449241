"""One open project, and everything that the page asks of it. No web in here."""

import inspect
import os
import re
import shlex
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np

from exporting.formats import FORMATS
from interactive import marking
from interactive.messages import check_value, shorten
from interactive.plans import Job, plan_job
from util.errors import InputError
from util.files import temporary_path
from util.progress import SECONDS as PROGRESS_SECONDS

JPEG_QUALITY = 88

MANY_FRAMES = 100
"""When more masks than this have changed, the page is told that any may have."""

PAUSE = 10
"""For so many seconds after a picture, frames are kept for the next one even if nobody listens."""

SCRIPTS = Path(__file__).parents[1]
"""Where export_masks.py is."""


class Room:
    """One open project with its tracker and those who look at it.

    A listener is a function listener(event), with a dict that JSON can hold, called in any thread.
    """

    def __init__(self, name, project, make_tracker, make_clicker):
        self.name, self.project = name, project
        # Browsers keep frames; a video of the same name that was changed has others.
        self._version = _version(Path(project.video[0]))
        self._listeners, self._telling = set(), threading.RLock()
        self._exporting, self._export = threading.Lock(), None
        self._pause = None
        self._make_tracker, self._tracker = make_tracker, None
        self._make_clicker, self._clicker, self._making = make_clicker, None, threading.Lock()

    @property
    def tracker(self):
        """The project's Tracker."""
        with self._making:
            if self._tracker is None:
                self._tracker = self._make_tracker(self.project, self._hear)
            return self._tracker

    @property
    def clicker(self):
        """The project's Clicker."""
        with self._making:
            if self._clicker is None:
                self._clicker = self._make_clicker()
            return self._clicker

    @property
    def job(self):
        """The Job that is under way, or None."""
        return self._tracker and self._tracker.job

    def listen(self, listener):
        """Tell a listener how the project stands, and from then on whatever happens."""
        with self._telling:
            self._listeners.add(listener)
            listener({"event": "changed", "frames": "all", "project": self.describe()})

    def leave(self, listener):
        self._listeners.discard(listener)
        self._rest()

    def tell(self, event):
        """Tell all who look at this project."""
        with self._telling:
            for listener in list(self._listeners):
                listener(event)
        self._rest()

    def _hear(self, event, **values):
        """Tell all what the tracker tells, and, once it has ended, how the project stands."""
        with self._telling:
            if event == "stopped":
                values["project"] = self.describe()
            self.tell({"event": event, **values})

    def _rest(self):
        """Keep no frames while nobody looks and nothing is tracked: rooms stay open until the server ends."""
        if not self._listeners and not self.job:
            self.project.frames.forget()

    def _end_pause(self):
        self._pause = None
        self._rest()

    def close(self):
        if self._tracker:
            self._tracker.close()
        self.project.close()

    def describe(self):
        """Everything but frames, masks and qualities, for the page."""
        project = self.project
        with project.lock:
            undo, redo = project.history
            return {
                "name": self.name, "folder": str(project.folder), "video": project.video, "count": len(project),
                "width": project.size[0], "height": project.size[1], "rate": project.rate,
                "objects": [vars(thing) for thing in project.objects.values()], "next": project.next_id,
                "references": {str(position): ids for position, ids in project.reference_positions().items()},
                "version": self._version, "undo": undo, "redo": redo,
                "job": self.job and self.job._asdict(), "notices": project.notices,
            }

    def picture(self, position, width):
        """A frame as JPEG, no wider than `width` pixels. Raises InputError if it is damaged."""
        image = self.project.frames[position].image
        if not self._listeners and self._pause is None:
            # Who does not listen may ask for the next frame, too.
            self._pause = threading.Timer(PAUSE, self._end_pause)
            self._pause.daemon = True
            self._pause.start()
        scale = min(1, width / image.shape[1])
        if scale < 1:
            size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        assert done
        return data.tobytes()

    def act(self, message):
        """Do what a page asks for, {"do": action, …}, and tell all what has changed. Raises InputError."""
        if not isinstance(message, dict):
            raise InputError("a message is an object of JSON")
        values = dict(message)
        do = values.pop("do", None)
        action = ACTIONS.get(do) if isinstance(do, str) else None
        if action is None:
            raise InputError(f"there is no action {shorten(do)}")
        for name, value in values.items():
            check_value(name, value)
        if "frame" in values and not 0 <= values["frame"] < len(self.project):
            raise InputError(f"there is no frame {shorten(values['frame'])}; there are {len(self.project)}")
        try:
            inspect.signature(action).bind(self, **values)
        except TypeError as error:
            raise InputError(f"{do}: {error}") from None
        changed = action(self, **values)
        quality = {} if changed == "all" else self.project.qualities_at(changed)
        with self._telling:
            # Otherwise a job could end between the description and the message, after its own message.
            self.tell({"event": "changed", "frames": changed, "quality": quality, "project": self.describe()})

    # Actions: each returns the positions whose masks have changed; "all" if that may be any.

    def _draw(self, tool, frame, object, **values):
        image = self.project.frames[frame].image
        tools = {
            "brush": lambda ids: marking.paint(ids, object, values["points"], values["width"]),
            "eraser": lambda ids: marking.erase(ids, object, values["points"], values["width"]),
            "polygon": lambda ids: marking.fill_polygon(ids, object, values["points"]),
            "lasso": lambda ids: marking.fill_polygon(ids, object, values["points"]),
            "box": lambda ids: self.clicker.box(ids, (frame, object), image, values["points"]),
            "click": lambda ids: self.clicker.click(ids, (frame, object), image, values["points"],
                                                    values["positive"]),
            "fill holes": lambda ids: marking.fill_holes(ids, object),
            "drop specks": lambda ids: marking.drop_specks(ids, object),
            "clear": lambda ids: np.where(ids == object, 0, ids),
        }
        if tool not in tools:
            raise InputError(f"there is no tool {tool!r}")
        if object not in self.project.objects:
            raise InputError("choose an object first")
        if self.project.objects[object].locked:
            raise InputError(f"{self.project.objects[object].name} is locked; unlock it to draw")
        try:
            drawn = self.project.draw(frame, tools[tool], tool)
        except (KeyError, TypeError, ValueError) as error:
            raise error if isinstance(error, InputError) else InputError(f"{tool}: {error}") from None
        return [frame] if drawn else []

    def _go(self, step):
        if step is None:
            return []
        label, positions = step
        # What was deleted or merged comes back with its qualities.
        return "all" if label in ("delete object", "merge objects") or len(positions) > MANY_FRAMES else positions

    def _track(self, direction, start, first=None, last=None, objects=None, across_cuts=False):
        project = self.project
        if objects is None:
            objects = [thing.id for thing in project.objects.values() if not thing.locked]
        job = Job(direction, start, 0 if first is None else first, len(project) - 1 if last is None else last,
                  tuple(objects), across_cuts)
        plan_job(project, job)
        self.tracker.start(job)
        return []

    def _stop(self):
        if self.job:
            self.tracker.stop()
        return []

    def export(self, formats, options):
        """Run export_masks.py, and tell how far it is. Returns what it has said, or {"cancelled": True}.

        Raises InputError with its error if it fails.
        """
        words = export_words(self.project.folder, formats, options)
        if not self._exporting.acquire(blocking=False):
            raise InputError("an export is under way already; wait for its end")
        try:
            self._export = process = subprocess.Popen(
                [sys.executable, str(SCRIPTS / words[0]), *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, env={**os.environ, PROGRESS_SECONDS: "0.3"})
            said = []
            for line in process.stderr:
                if found := re.search(r"exporting .* (\d+) of (\d+)", line):
                    self.tell({"event": "exporting", "done": int(found[1]), "total": int(found[2])})
                elif line.strip():
                    said.append(line.strip())
            written = process.stdout.read().strip().splitlines()
            code = process.wait()
        finally:
            cancelled, self._export = self._export is None, None
            self._exporting.release()
        if cancelled:
            return {"cancelled": True}
        if code:
            raise InputError((said or ["the export failed"])[-1])
        return {"text": [*written, *(line for line in said if line.startswith("note"))],
                "files": [FORMATS[name].target for name in formats], "folder": str(self.project.folder / "export")}

    def cancel_export(self):
        """End an export that is under way. What was exported before stays."""
        export, self._export = self._export, None
        if export:
            export.terminate()

    def exported(self, target):
        """(path, name) of an export's file. A folder is packed as a ZIP, for the caller to remove: its name is another.

        Raises InputError if there is none of this name.
        """
        if target not in {row.target for row in FORMATS.values()}:
            raise InputError(f"{target}: no export is called so")
        path = self.project.folder / "export" / target
        if not path.exists():
            raise InputError(f"{target}: not exported yet")
        if not path.is_dir():
            return path, target
        # Not in `export`: export_masks.py clears up there.
        packed = temporary_path(self.project.folder / f"{target}.zip")
        try:
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
                for file in sorted(path.rglob("*")):
                    # A ZIP holds no names that are not text: such bytes of a name are written like %FF.
                    name = re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xdc00:02X}",
                                  str(file.relative_to(path)))
                    archive.write(file, name)
        except BaseException:
            packed.unlink(missing_ok=True)
            raise
        return packed, f"{target}.zip"


def _version(path):
    """A text that is another one when a video file, or an image in a folder, was changed."""
    # A folder's own time tells of files that came or went, but not of those that were written anew.
    files = [path, *(path.iterdir() if path.is_dir() else ())]
    return f"{max(file.stat().st_mtime_ns for file in files if file.exists()):x}-{len(files)}"


def export_words(folder, formats, options):
    """The command line of an export, as a list of words. Raises InputError for what is no format or option."""
    if not formats or not all(isinstance(name, str) and name in FORMATS for name in formats):
        raise InputError("choose a format")
    for name, value in options.items():
        check_value(name, value)
    words = ["export_masks.py", str(folder), "--format", *formats]
    for name in ("largest", "fill_holes"):
        if options.get(name):
            words.append(f"--{name.replace('_', '-')}")
    for name in ("hold", "grow", "feather"):
        if options.get(name):
            words += [f"--{name}", str(options[name])]
    if objects := options.get("objects"):
        words += ["--objects", *map(str, objects)]
    return [*words, "--overwrite"]


def export_command(folder, formats, options):
    """The command line of an export, to be copied into a terminal."""
    return shlex.join(["python", *export_words(folder, formats, options)])


def _object_action(method):
    def act(room, **values):
        method(room.project, **values)
        return []
    return act


ACTIONS = {
    "draw": Room._draw,
    "clear reference": lambda room, frame: room.project.clear_annotation(frame) or [frame],
    "undo": lambda room: room._go(room.project.undo()),
    "redo": lambda room: room._go(room.project.redo()),
    "add object": _object_action(lambda project, name=None: project.add_object(name)),
    "change object": _object_action(lambda project, id, **values: project.change_object(id, **values)),
    "delete object": lambda room, id: room.project.delete_object(id) or "all",
    "merge objects": lambda room, id, into: room.project.delete_object(id, into) or "all",
    "track": Room._track,
    "stop": Room._stop,
    "cancel export": lambda room: room.cancel_export() or [],
}
"""{what "do" may be: function of a Room and the message's values}."""
