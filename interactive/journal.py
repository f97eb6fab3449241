"""The history of a project on the disk: one ZIP file for each step, with what it changed before and after it."""

import contextlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from util.errors import InputError
from util.files import atomic_path

KEPT = 500
"""So many steps are kept."""

DAMAGE = (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged step may raise."""


class Step(NamedTuple):
    """What has to be written to go one step back or forward."""

    label: str
    values: dict
    """What `Journal.record` was given as "before" or "after"."""

    left: dict
    """The other one of the two: what is left with this step."""

    files: list
    """Paths of files, relative to the project's folder."""

    contents: Iterable
    """(bytes that the step left, bytes that are to be written) of each of them, one after another; None: no file."""


class Journal:
    """The steps in a folder, and how many of them are done.

    `back` and `forward` say what is to be written, and `commit` is called when that is done: a process that is killed
    in between does the same step again. Steps are not flushed, so a power cut may damage the latest ones; the history
    ends at a step that cannot be read.
    """

    def __init__(self, folder):
        self._folder = Path(folder)
        self._folder.mkdir(exist_ok=True)
        self._numbers = sorted(int(file.stem) for file in self._folder.iterdir()
                               if re.fullmatch(r"\d+\.zip", file.name))
        self._done = self._numbers[-1] if self._numbers else 0
        with contextlib.suppress(OSError, ValueError):
            self._done = int((self._folder / "position.txt").read_text())
        self._next = self._done
        self._labels = {}

    @contextlib.contextmanager
    def record(self, folder, files):
        """Record what the block changes as a step behind the done ones; steps that were taken back are forgotten.

        folder: the project's. files: relative paths of those that the block may change. As `with … as step`, the block
        gets a dict, and gives it "label", "before" and "after". Only one file at a time is in memory.
        """
        number, step = self._done + 1, {"files": files}
        with atomic_path(self._file(number), flushed=False) as temporary, zipfile.ZipFile(
                temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
            _put(archive, "before", folder, files)
            yield step
            _put(archive, "after", folder, files)
            archive.writestr("step.json", json.dumps(step))
            for later in [later for later in self._numbers if later >= number]:
                self._file(later).unlink(missing_ok=True)
                self._labels.pop(later, None)
        self._numbers = [*(known for known in self._numbers if known < number), number]
        self._labels[number] = step["label"]
        self._next = number
        self.commit()
        for old in self._numbers[:-KEPT]:
            self._file(old).unlink(missing_ok=True)
        self._numbers = self._numbers[-KEPT:]

    def back(self):
        """The Step that leads one step back, or None. Raises InputError if it is damaged."""
        return self._read(self._done, "before", self._done - 1)

    def forward(self):
        """The Step that leads one step forward, or None. Raises InputError if it is damaged."""
        return self._read(self._done + 1, "after", self._done + 1)

    def commit(self):
        """What `back` or `forward` gave is written."""
        self._done = self._next
        with atomic_path(self._folder / "position.txt", flushed=False) as temporary:
            temporary.write_text(f"{self._done}\n")

    def labels(self):
        """(label of the step that `back` gives, label of the one that `forward` gives), None where none can be read."""
        return self._label(self._done), self._label(self._done + 1)

    def sides(self):
        """Yield "before" and "after" of each step that is done, as `record` was given them; not those of damaged ones.
        """
        for number in [number for number in self._numbers if number <= self._done]:
            with contextlib.suppress(InputError), self._open(number) as archive:
                step = json.loads(archive.read("step.json"))
                yield from (step["before"], step["after"])

    def _file(self, number):
        return self._folder / f"{number:06d}.zip"

    def _label(self, number):
        if number in self._numbers and number not in self._labels:
            with contextlib.suppress(InputError), self._open(number) as archive:
                self._labels[number] = json.loads(archive.read("step.json"))["label"]
        return self._labels.get(number)

    @contextlib.contextmanager
    def _open(self, number):
        """The archive of a step. Raises InputError if it is damaged, and takes it out of the history."""
        try:
            with zipfile.ZipFile(self._file(number)) as archive:
                yield archive
        except DAMAGE as error:
            self._labels[number] = None
            raise InputError(f"{self._file(number)}: damaged step of the history ({error})") from None

    def _read(self, number, side, then):
        if number not in self._numbers:
            return None
        with self._open(number) as archive:
            step = json.loads(archive.read("step.json"))
            # Before anything is written.
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(damaged)
        self._next = then
        left = step["after" if side == "before" else "before"]
        return Step(step["label"], step[side], left, step["files"], self._contents(number, side, step["files"]))

    def _contents(self, number, side, files):
        with zipfile.ZipFile(self._file(number)) as archive:
            names = set(archive.namelist())
            for place, file in enumerate(files):
                # Older steps have the names of the files.
                found = [next((name for name in (f"{part}/{place}", f"{part}/{file}") if name in names), None)
                         for part in ("after" if side == "before" else "before", side)]
                yield tuple(name and archive.read(name) for name in found)


def _put(archive, side, folder, files):
    """Put files into an archive, as they are now; those that are not there are left out.

    They are numbered: a ZIP holds no names that are not text.
    """
    for place, file in enumerate(files):
        path = Path(folder) / file
        if path.exists():
            archive.write(path, f"{side}/{place}")
