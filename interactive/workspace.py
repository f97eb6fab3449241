"""The projects that a server has open, and everything that the page asks of one of them. No web in here."""

import inspect
import json
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
from interactive.access import confine, plain_file_name
from interactive.plans import Job, plan_job
from interactive.project import Project, read_header
from util.errors import InputError
from util.files import is_hidden, remove_leftovers, temporary_path
from util.image_io import is_image
from util.progress import SECONDS as PROGRESS_SECONDS

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".ts", ".gif")
"""Which files are offered as videos; others can be opened by typing their names."""

JPEG_QUALITY = 88

MANY_FRAMES = 100
"""When more masks than this have changed, the page is told that any may have."""

PAUSE = 10
"""For so many seconds after a picture, frames are kept for the next one even if nobody listens."""

MOST_WIDTH = 10000
"""Pixels; the widest brush."""

UPLOADS = "uploads"
"""The folder of uploads, in that of the projects; no project is called so."""

LEFT_BEHIND = 24 * 3600
"""An upload into whose file nothing was written for so many seconds is one that a killed server left."""

SCRIPTS = Path(__file__).parents[1]
"""Where export_masks.py is."""


class Workspace:
    """All projects of a server. Methods may be called in any thread.

    output: the folder in which each project is a folder. root: videos must lie below it. make_tracker: function of a
    project and a function `tell` that returns a `jobs.Tracker`; it is called when something is tracked first.
    make_clicker: function that returns a `clicking.Clicker`; it is called with the first click.
    """

    def __init__(self, output, root, make_tracker, make_clicker):
        self.output, self.root = Path(output), Path(root).resolve()
        self._make_tracker, self._make_clicker = make_tracker, make_clicker
        self._rooms, self._lock = {}, threading.Lock()
        uploads = self.output / UPLOADS
        for folder in (uploads, *uploads.glob("*")):
            if folder.is_dir() and (folder == uploads or not folder.is_symlink()):
                # Other servers may be taking uploads into it.
                remove_leftovers(folder, age=LEFT_BEHIND)

    def uploads(self):
        """The folder of uploads. It is made if need be."""
        folder = self.output / UPLOADS
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def open(self, video=None, name=None):
        """Open a project, and return its Room. Raises InputError.

        video: the path of a video, wherever it lies; see `confine` for paths that come from a page. name: the project's
        name; by default that of the video, or the one that the video has already.
        """
        with self._lock:
            if video is not None and not Path(video).exists():
                raise InputError(f"{video}: no such file or folder")
            name = plain_file_name(name or self._name_for(Path(video)))
            room = self._rooms.get(name)
            if room is None:
                project = Project(self.output / name, [video] if video else None)
                room = self._rooms[name] = Room(name, project, self._make_tracker, self._make_clicker)
                for part in ("annotations", "masks", "journal"):
                    remove_leftovers(project.folder / part)
            elif video is not None and room.project.video != [str(Path(video).resolve())]:
                raise InputError(f"{room.project.folder}: is the project of {room.project.video[0]}; choose another "
                                 "--output")
            return room

    def room(self, name):
        """The Room of this name, which is opened if it is not yet. Raises InputError if there is none."""
        room = self._rooms.get(name)
        if room is None:
            if plain_file_name(name) != name or not (self.output / name / "project.json").is_file():
                raise InputError(f"{name}: there is no such project")
            room = self.open(name=name)
        return room

    def list_projects(self):
        """The names of all projects in the output folder, the latest first."""
        files = self.output.glob("*/project.json")
        return [file.parent.name for file in sorted(files, key=lambda file: -file.stat().st_mtime)]

    def browse(self, folder=""):
        """What there is in a folder below the root: {"folder", "parent", "folders", "videos", "images"}."""
        path = confine(self.root, folder)
        if not path.is_dir():
            raise InputError(f"{folder}: no such folder")
        try:
            items = sorted(item for item in path.iterdir() if not is_hidden(item.name))
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror}") from None
        return {
            "folder": "" if path == self.root else str(path.relative_to(self.root)),
            "parent": None if path == self.root else str(path.parent.relative_to(self.root)).removeprefix("."),
            "folders": [item.name for item in items if item.is_dir()],
            "videos": [item.name for item in items if item.suffix.lower() in VIDEO_SUFFIXES and item.is_file()],
            "images": sum(is_image(item) for item in items),
        }

    def close(self):
        """Stop all tracking and let go of all folders."""
        for room in self._rooms.values():
            room.close()

    def _name_for(self, path):
        """The project's name for a video: that of its file, with a number behind it if another video has this one."""
        stem = plain_file_name(path.stem)
        for number in range(1, 1000):
            name = stem if number == 1 else plain_file_name(f"{stem}-{number}")
            # Not all file systems tell upper case from lower.
            free = name.lower() != UPLOADS and not (self.output / name).exists()
            if free or self._is_of(name, path):
                return name
        raise InputError(f"{self.output}: holds a thousand projects called {stem}")

    def _is_of(self, name, path):
        try:
            header = read_header(self.output / name)
        except InputError:
            return False
        return header is not None and header["video"] == [str(path.resolve())]


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
                self._tracker = self._make_tracker(self.project,
                                                   lambda event, **values: self.tell({"event": event, **values}))
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
        self._listeners.add(listener)

    def leave(self, listener):
        self._listeners.discard(listener)
        self._rest()

    def tell(self, event):
        """Tell all who look at this project."""
        with self._telling:
            for listener in list(self._listeners):
                listener(event)
        self._rest()

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
            raise InputError(f"there is no action {_shorten(do)}")
        for name, value in values.items():
            check_value(name, value)
        if "frame" in values and not 0 <= values["frame"] < len(self.project):
            raise InputError(f"there is no frame {_shorten(values['frame'])}; there are {len(self.project)}")
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


def _is_whole(value):
    # Python takes true for 1.
    return type(value) is int


def _is_text(value):
    return isinstance(value, str)


def _is_bool(value):
    return isinstance(value, bool)


def _is_list_of(test, value):
    return isinstance(value, list) and all(map(test, value))


_TEXT, _BOOL, _WHOLE = ("a text", _is_text), ("true or false", _is_bool), ("a whole number", _is_whole)
_WHOLE_OR_NONE = ("a whole number or null", lambda value: value is None or _is_whole(value))

VALUES = {
    **dict.fromkeys(("tool", "direction"), _TEXT),
    **dict.fromkeys(("frame", "object", "id", "into", "start", "hold", "grow", "feather"), _WHOLE),
    **dict.fromkeys(("first", "last"), _WHOLE_OR_NONE),
    **dict.fromkeys(("hidden", "locked", "across_cuts", "largest", "fill_holes"), _BOOL),
    "name": ("a text or null", lambda value: value is None or _is_text(value)),
    "colour": ("a colour like #ff5a5f", lambda value: _is_text(value) and re.fullmatch("#[0-9a-fA-F]{6}", value)),
    "points": ("a list of points [x, y]", lambda value: isinstance(value, list)),
    "positive": ("a list of true and false", lambda value: _is_list_of(_is_bool, value)),
    "width": (f"a number from 0 to {MOST_WIDTH}", lambda value: (
        isinstance(value, (int, float)) and not _is_bool(value) and 0 <= value <= MOST_WIDTH)),
    "objects": ("a list of ids or null", lambda value: value is None or _is_list_of(_is_whole, value)),
}
"""{what a message or an export's options may hold: (what is expected there, whether a value is such)}."""


def check_value(name, value):
    """Raise InputError if a value of this name, read from JSON, is not of the kind that VALUES says."""
    if name not in VALUES:
        raise InputError(f"there is no value {_shorten(name)}")
    expected, test = VALUES[name]
    if not test(value):
        raise InputError(f"{name}: {_shorten(value)}; {expected} was expected")


def _shorten(value):
    """A value as messages show it."""
    return json.dumps(value)[:40]


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
