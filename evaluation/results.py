"""Read and write the results of one evaluation: masks, and a record of how each video was tracked.

    OUTPUT/[Annotations/]VIDEO/FRAME.png      the masks
    OUTPUT_scores/VIDEO/FRAME.npz             with --save-scores: the probabilities
    OUTPUT/.evaluation/VIDEO.json             the record: settings and, once the video is finished, its files and times
    OUTPUT/speed.json                         how fast all videos were tracked
    OUTPUT.zip                                with --zip: the archive for the dataset's server
    OUTPUT/.evaluation/written.txt            which of the last two an evaluation has written

Files are on the disk before the record says that they are there, and only files that a record names are ever removed.
"""

import hashlib
import json
import os
import zipfile
from datetime import datetime
from pathlib import Path

import numpy as np

from util.errors import InputError
from util.files import (
    atomic_path,
    flush,
    lock_folder,
    read_json,
    read_text,
    refuse_special_file,
    remove_files,
    remove_leftovers,
    write_json,
    write_text,
)
from util.image_io import write_grey, write_mask, write_scores

LONGEST_NAME = 255
"""Bytes that a file's name may have on the usual file systems."""


class Results:
    """The folder that an evaluation writes into.

    output: the folder. evaluation_set: a dataset.evaluation_sets.EvaluationSet. settings: {name: value} of all that the
    masks depend on, in types that JSON has. save_scores: write probabilities, too.
    """

    def __init__(self, output, evaluation_set, settings, save_scores=False):
        self.output = Path(output)
        self.masks = self.output / evaluation_set.folder
        self._scores_folder = Path(f"{self.output}_scores")
        self.scores = self._scores_folder if save_scores else None
        self._archive_folder = evaluation_set.folder
        self._binary = evaluation_set.binary
        self._settings = settings
        self._records = self.output / ".evaluation"
        self._written = self._records / "written.txt"
        self._speed = self.output / "speed.json"
        self._archive = Path(f"{self.output}.zip")

    def lock(self, alone=False):
        """Return the lock that keeps other evaluations out of the folder, see `util.files.lock_folder`.

        alone: True in the first process of this evaluation, which takes the lock; False in the others, which share it.
        """
        return lock_folder(self._records, alone, together=True)

    def prepare(self, videos, overwrite, archive=False):
        """Remove the results of other settings, frames or masks, if `overwrite`.

        archive: OUTPUT.zip is going to be written, too. Raises InputError, and removes nothing, if there are such
        results and `overwrite` is False, or if files that no evaluation has written are where results are to be.
        """
        records = {video.name: self._read(video) for video in videos}
        for name, record in records.items():
            for folder in (self.masks / name, self._scores_folder / name):
                self._check_folder(folder, record)
        self._check_files([self._speed] + [self._archive] * archive, records)
        if archive:
            self._check_names(records)
        for video in videos:
            change = self._find_change(video, records[video.name])
            if change and not overwrite:
                raise InputError(f"{self.output}: {change}; choose another --output, or --overwrite")
            if change:
                self._forget(video)
        for path in (self._speed, self._archive):
            remove_leftovers(path.parent, path.name)

    def _check_folder(self, folder, record):
        """Raise InputError if a video's results cannot be written into a folder without touching what is not ours."""
        if os.path.islink(folder):
            raise InputError(f"{folder}: a link, and results are only written into folders of their own; remove it, or "
                             "choose another --output")
        if record is None and os.path.isdir(folder) and os.listdir(folder):
            raise InputError(f"{folder}: holds files that no evaluation has written; choose another --output")

    def _check_files(self, paths, records):
        """Raise InputError if one of these files, which are written at the end, is not an evaluation's."""
        written = self._read_written()
        if written is None and any(record is not None for record in records.values()):
            # An earlier version has made this folder; it did not list these files.
            return
        for path in paths:
            if os.path.lexists(path) and path.name not in (written or ()):
                raise InputError(f"{path}: no evaluation has written this file; move it away, or choose another "
                                 "--output")

    def _check_names(self, names):
        """Raise InputError if the name of a video cannot be in an archive."""
        for name in names:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise InputError(f"{self._archive}: an archive cannot hold the name {name!r}, which is not UTF-8; "
                                 "rename this video, or leave out --zip") from None

    def _find_change(self, video, record):
        """Return a sentence about what differs between this evaluation and the one that finished the video, or None."""
        if not record or "files" not in record:
            return None
        settings = record["settings"]
        for name in settings.keys() | self._settings.keys():
            if settings.get(name) != self._settings.get(name):
                return f"holds results with {name} {settings.get(name)}, this run has {self._settings.get(name)}"
        if record.get("input", "unknown") not in ("unknown", compute_input_digest(video)):
            return f"the results of {video.name} are of other frames or first masks"
        return None

    def read_finished(self, video):
        """Return the record of a video if it is finished and all its files are there, of the size that it says."""
        record = self._read(video)
        if not record or "files" not in record:
            return None
        if not _all_there(self.masks / video.name, record["files"]):
            return None
        if self.scores and not _all_there(self.scores / video.name, record.get("scores", [""])):
            return None
        return record

    def begin(self, video):
        """Make empty folders for a video, and a record that says which files are going to be in them."""
        self._forget(video)
        for folder in (self.masks, self.scores):
            if folder:
                (folder / video.name).mkdir(parents=True, exist_ok=True)

    def write_frame(self, video, frame, ids, palette, probabilities=None, objects=()):
        """Write one frame's mask and, with save_scores, its probabilities.

        ids: uint8 H×W. palette: uint8 256×3. probabilities: uint8 (O + 1)×H×W, the background first, or None without
        save_scores. objects: the object ids, O of them.
        """
        path = self.masks / video.name / f"{frame}.png"
        if self._binary:
            write_grey(path, ids * np.uint8(255))
        else:
            write_mask(path, ids, palette)
        if self.scores:
            write_scores(self.scores / video.name / f"{frame}.npz", probabilities, objects)

    def finish(self, video, files, **facts):
        """Record that a video is finished. files: the names of its mask files. facts: what else to keep."""
        masks = [self.masks / video.name / file for file in files]
        scores = [self.scores / video.name / f"{Path(file).stem}.npz" for file in files] if self.scores else []
        # A power cut must not leave a record without its files.
        flush(masks + scores)
        sizes = {"files": _sizes(masks), **({"scores": _sizes(scores)} if self.scores else {})}
        self._write(video, {"input": compute_input_digest(video), **sizes, **facts})

    def write_speed(self, speed):
        """Write speed.json, and return its path. speed: {name: value}."""
        self._list_as_written(self._speed)
        write_json(self._speed, speed)
        return self._speed

    def _forget(self, video):
        """Record that a video is not finished, and remove the files that its record names, and nothing else."""
        record = self._read(video)
        names = dict.fromkeys(f"{file.stem}.png" for file in video.frames)
        if record is not None:
            names |= dict.fromkeys([*record.get("files", ()), *record.get("expected", ())])
        # Until all of them are removed, the record must know them.
        self._write(video, {"expected": list(names)})
        if record is not None:
            remove_files(self.masks / video.name, names)
            remove_files(self._scores_folder / video.name, {f"{Path(name).stem}.npz" for name in names})

    def _record(self, video):
        return self._records / f"{video.name}.json"

    def _write(self, video, facts):
        self._records.mkdir(parents=True, exist_ok=True)
        write_text(self._record(video), json.dumps({"settings": self._settings, **facts}))

    def _read(self, video):
        """Return a video's record, None if there is none, and {} if it is damaged.

        Even then it tells that an evaluation made the video's folders.
        """
        path = self._record(video)
        if _is_long_name(path) or not os.path.lexists(path):
            return None
        try:
            record = read_json(path)
        except InputError:
            return {}
        return record if _is_record(record) else {}

    def _read_written(self):
        """Return the names of the files beside the masks that evaluations have written; None if there is no list."""
        try:
            return read_text(self._written).splitlines() if self._written.exists() else None
        except InputError:
            return []

    def _list_as_written(self, path):
        """Before a file beside the masks is written: list it as an evaluation's."""
        written = self._read_written() or []
        if path.name not in written:
            write_text(self._written, "".join(f"{name}\n" for name in [*written, path.name]))

    def write_archive(self, records):
        """Write the masks of all records {video name: record} into OUTPUT.zip; return its path.

        The same masks always give the same bytes: names are sorted, and times are constant.
        """
        self._list_as_written(self._archive)
        with atomic_path(self._archive) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, record in sorted(records.items()):
                for file in sorted(record["files"]):
                    member = Path(self._archive_folder, name, file).as_posix()
                    information = zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0))
                    information.external_attr = 0o644 << 16
                    archive.writestr(information, (self.masks / name / file).read_bytes())
        return self._archive


def describe_run(folder):
    """Return {name: text} of what an evaluation's records in a folder say of it; {} where there are none."""
    # The masks of YouTube-VOS lie in a folder of their own, beside the records.
    paths = next((found for place in (Path(folder), Path(folder).parent)
                  if (found := sorted(place.glob(".evaluation/*.json")))), [])
    record = read_json(paths[0]) if paths else None
    if not _is_record(record):
        return {}
    settings = record["settings"]
    network = [record["model"]] if "model" in record else []
    network += [f"SHA-256 {settings['model_sha256'][:12]}…"] if "model_sha256" in settings else []
    tracked = datetime.fromtimestamp(max(path.stat().st_mtime for path in paths)).astimezone()
    shown = {name: settings[name] for name in ("method", "mode", "mem_every", "top_k", "size", "amp", "device")
             if settings.get(name) not in (None, False)}
    return {"tracked": tracked.strftime("%Y-%m-%d %H:%M %Z"), **({"network": ", ".join(network)} if network else {}),
            **{name.replace("_", " "): str(value) for name, value in shown.items()}}


def _sizes(paths):
    return {path.name: path.stat().st_size for path in paths}


def _all_there(folder, sizes):
    """Return whether all files that a record names are in a folder, and none is empty or cut.

    sizes: {name: bytes}, or a list of names in the records of earlier versions.
    """
    for name in sizes:
        try:
            size = (folder / name).stat().st_size
        except OSError:
            return False
        if not size or (isinstance(sizes, dict) and size != sizes[name]):
            return False
    return True


def _is_record(content):
    """Return whether the content of a JSON file has the form of a record; what is missing is only not finished."""
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        return False
    for name in ("files", "scores", "expected"):
        files = content.get(name, [])
        if not isinstance(files, (list, dict)) or not all(_is_file_name(file) for file in files):
            return False
    return True


def _is_file_name(name):
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _is_long_name(path):
    """Return whether a name is longer than file systems allow, so that there can be no such file."""
    return len(os.fsencode(path.name)) > LONGEST_NAME


def compute_input_digest(video):
    """Return the SHA-256, as hexadecimal text, of the input of an EvaluationVideo.

    The input is its given masks, the names of its frames, and the names of the frames whose masks are asked for. The
    images' contents are left out, because reading them takes long.
    """
    digest = hashlib.sha256(json.dumps([[file.stem for file in video.frames], sorted(video.wanted or ()),
                                        list(video.masks)]).encode())
    for file in video.masks.values():
        try:
            refuse_special_file(file)
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        except (OSError, InputError):
            # If tracking needs the mask, it reports the error.
            continue
    return digest.hexdigest()
