"""The history of a project on the disk: one ZIP file for each step, with what it changed before and after it."""

import contextlib
import json
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from util.errors import InputError
from util.files import atomic_path

KEPT = 500
"""So many steps are kept."""


class Step(NamedTuple):
    """What has to be written to go one step back or forward."""

    label: str
    values: dict
    """What `Journal.add` was given as "before" or "after"."""

    files: list
    """Paths of files, relative to the project's folder."""

    contents: list
    """The bytes that each of them is to have; None if it is to be removed."""


class Journal:
    """The steps in a folder, and how many of them are done.

    `back` and `forward` say what is to be written, and `commit` is called when that is done: a process that is killed
    in between does the same step again.
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

    def add(self, step, before, after):
        """Add a step behind the done ones; steps that were taken back are forgotten.

        step: {"label", "before", "after", "files"}. before, after: lists with the bytes of each file, or None.
        """
        for number in [number for number in self._numbers if number > self._done]:
            self._file(number).unlink(missing_ok=True)
            self._labels.pop(number, None)
        self._numbers = [number for number in self._numbers if number <= self._done]
        number = self._done + 1
        with atomic_path(self._file(number), flushed=False) as temporary, \
                zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("step.json", json.dumps(step))
            for side, contents in (("before", before), ("after", after)):
                for file, content in zip(step["files"], contents, strict=True):
                    if content is not None:
                        archive.writestr(f"{side}/{file}", content)
        self._numbers.append(number)
        self._labels[number] = step["label"]
        self._next = number
        self.commit()
        for old in self._numbers[:-KEPT]:
            self._file(old).unlink(missing_ok=True)
        self._numbers = self._numbers[-KEPT:]

    def back(self):
        """The Step that leads one step back, or None."""
        return self._read(self._done, "before", self._done - 1)

    def forward(self):
        """The Step that leads one step forward, or None."""
        return self._read(self._done + 1, "after", self._done + 1)

    def commit(self):
        """What `back` or `forward` gave is written."""
        self._done = self._next
        with atomic_path(self._folder / "position.txt", flushed=False) as temporary:
            temporary.write_text(f"{self._done}\n")

    def labels(self):
        """(label of the step that `back` gives, label of the one that `forward` gives), None where there is none."""
        return self._label(self._done), self._label(self._done + 1)

    def _file(self, number):
        return self._folder / f"{number:06d}.zip"

    def _label(self, number):
        if number in self._numbers and number not in self._labels:
            self._labels[number] = self._open(number)[0]["label"]
        return self._labels.get(number)

    def _open(self, number):
        """(step.json, {name: bytes}) of a step. Raises InputError if its file is damaged."""
        try:
            with zipfile.ZipFile(self._file(number)) as archive:
                names = set(archive.namelist()) - {"step.json"}
                return json.loads(archive.read("step.json")), {name: archive.read(name) for name in names}
        except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
            raise InputError(f"{self._file(number)}: damaged step of the history ({error})") from None

    def _read(self, number, side, then):
        if number not in self._numbers:
            return None
        step, contents = self._open(number)
        self._next = then
        return Step(step["label"], step[side], step["files"],
                    [contents.get(f"{side}/{file}") for file in step["files"]])
