"""The projects that a server has open. No web in here."""

import threading
from pathlib import Path

from interactive.access import confine, plain_file_name
from interactive.project import Project
from interactive.project_files import read_header
from interactive.room import Room
from util.errors import InputError
from util.files import is_hidden, remove_leftovers
from util.image_io import is_image

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".ts", ".gif")
"""Which files are offered as videos; others can be opened by typing their names."""

UPLOADS = "uploads"
"""The folder of uploads, in that of the projects; no project is called so."""

LEFT_BEHIND = 24 * 3600
"""An upload into whose file nothing was written for so many seconds is one that a killed server left."""


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
