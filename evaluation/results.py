"""Read and write the results of one evaluation: masks, and a record of how each video was tracked.

    OUTPUT/[Annotations/]VIDEO/FRAME.png      the masks
    OUTPUT_scores/VIDEO/FRAME.npz             with --save-scores: the probabilities
    OUTPUT/.evaluation/VIDEO.json             the record: settings and, once the video is finished, its files and times
    OUTPUT.zip                                with --zip: the archive for the dataset's server
"""

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np

from util.errors import InputError
from util.files import atomic_path, lock_folder
from util.image_io import write_grey, write_mask, write_scores


class Results:
    """The folder that an evaluation writes into.

    output: the folder. evaluation_set: a dataset.evaluation_sets.EvaluationSet. settings: {name: value} of all that the
    masks depend on, in types that JSON has. save_scores: write probabilities, too.
    """

    def __init__(self, output, evaluation_set, settings, save_scores=False):
        self.output = Path(output)
        self.masks = self.output / evaluation_set.folder
        self.scores = Path(f"{self.output}_scores") if save_scores else None
        self._archive_folder = evaluation_set.folder
        self._binary = evaluation_set.binary
        self._settings = settings
        self._records = self.output / ".evaluation"

    def lock(self, alone=False):
        """Return the lock that keeps other evaluations out of the folder, see `util.files.lock_folder`.

        alone: True in the first process of this evaluation, which takes the lock; False in the others, which share it.
        """
        return lock_folder(self._records, alone, together=True)

    def prepare(self, videos, overwrite):
        """Remove the results of other settings, frames or masks, if `overwrite`.

        Raises InputError, and removes nothing, if there are such results and `overwrite` is False, or if the videos'
        folders hold files that no evaluation has written.
        """
        records = {video.name: self._read(video) for video in videos}
        for name, record in records.items():
            for folder in (self.masks / name, Path(f"{self.output}_scores") / name):
                if record is None and folder.is_dir() and any(folder.iterdir()):
                    raise InputError(f"{folder}: holds files that no evaluation has written; choose another --output")
        for video in videos:
            change = self._find_change(video, records[video.name])
            if change and not overwrite:
                raise InputError(f"{self.output}: {change}; choose another --output, or --overwrite")
            if change:
                self._forget(video)

    def _find_change(self, video, record):
        """Return a sentence about what differs between this evaluation and the one that finished the video, or None."""
        if record is None or "files" not in record:
            return None
        settings = record["settings"]
        for name in settings.keys() | self._settings.keys():
            if settings.get(name) != self._settings.get(name):
                return f"holds results with {name} {settings.get(name)}, this run has {self._settings.get(name)}"
        if record.get("input", "unknown") not in ("unknown", compute_input_digest(video)):
            return f"the results of {video.name} are of other frames or first masks"
        return None

    def read_finished(self, video):
        """Return the record of a video if it is finished and all its files exist, else None."""
        record = self._read(video)
        folder = self.masks / video.name
        if record is None or not folder.is_dir() or not set(record.get("files", [""])) <= set(os.listdir(folder)):
            return None
        if self.scores and not all((self.scores / video.name / f"{Path(file).stem}.npz").exists()
                                   for file in record["files"]):
            return None
        return record

    def begin(self, video):
        """Make empty folders for a video, and a record without files, which marks the folders as an evaluation's."""
        self._forget(video)
        self._write(video, {})
        (self.masks / video.name).mkdir(parents=True)
        if self.scores:
            (self.scores / video.name).mkdir(parents=True)

    def write_frame(self, video, frame, ids, palette, probabilities, objects):
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

    def finish(self, video, **facts):
        """Record that a video is finished. facts: `files`, the names of its mask files, and what else to keep."""
        self._write(video, {"input": compute_input_digest(video), **facts})

    def _forget(self, video):
        for folder in (self.masks, Path(f"{self.output}_scores")):
            shutil.rmtree(folder / video.name, ignore_errors=True)
        (self._records / f"{video.name}.json").unlink(missing_ok=True)

    def _write(self, video, facts):
        self._records.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._records / f"{video.name}.json") as temporary:
            temporary.write_text(json.dumps({"settings": self._settings, **facts}))

    def _read(self, video):
        try:
            return json.loads((self._records / f"{video.name}.json").read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            # The record is damaged, but tells that an evaluation made the video's folders.
            return {}

    def write_archive(self, records):
        """Write the masks of all records {video name: record} into OUTPUT.zip; return its path.

        The same masks always give the same bytes: names are sorted, and times are constant.
        """
        path = Path(f"{self.output}.zip")
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, record in sorted(records.items()):
                for file in sorted(record["files"]):
                    member = Path(self._archive_folder, name, file).as_posix()
                    information = zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0))
                    information.external_attr = 0o644 << 16
                    archive.writestr(information, (self.masks / name / file).read_bytes())
        return path


def compute_input_digest(video):
    """Return the SHA-256, as hexadecimal text, of the input of an EvaluationVideo.

    The input is its given masks, the names of its frames, and the names of the frames whose masks are asked for. The
    images' contents are left out, because reading them takes long.
    """
    digest = hashlib.sha256(json.dumps([[file.stem for file in video.frames], sorted(video.wanted or ()),
                                        list(video.masks)]).encode())
    for file in video.masks.values():
        try:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError:
            # If tracking needs the mask, it reports the error.
            continue
    return digest.hexdigest()
