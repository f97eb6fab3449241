"""The results of one evaluation on disk: what is finished, with which settings, and of which frames and masks.

    OUTPUT/[Annotations/]VIDEO/FRAME.png      the masks
    OUTPUT_scores/VIDEO/FRAME.npz             with --save-scores, the probabilities
    OUTPUT/.evaluation/VIDEO.json             settings; of a finished video also its masks and times
    OUTPUT.zip                                with --zip, what the dataset's server takes
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

    output: the folder. evaluation_set: a dataset.evaluation_sets.EvaluationSet. settings: {name: value} that the
    masks depend on, as JSON can hold them. save_scores: are probabilities written, too?
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
        """Keep other evaluations out of the folder, see `util.files.lock_folder`.

        alone: for the first process of this evaluation; the others join it.
        """
        return lock_folder(self._records, alone, together=True)

    def prepare(self, videos, overwrite):
        """Forget the results that `overwrite` allows to replace.

        Raises InputError, and removes nothing, if the folders hold what this evaluation would destroy: files that no
        evaluation has written, or, unless `overwrite`, results of other settings, frames or masks.
        """
        records = {video.name: self._read(video) for video in videos}
        for name, record in records.items():
            for folder in (self.masks / name, Path(f"{self.output}_scores") / name):
                if record is None and folder.is_dir() and any(folder.iterdir()):
                    raise InputError(f"{folder}: holds files that no evaluation has written; choose another --output")
        for video in videos:
            change = self._change(video, records[video.name])
            if change and not overwrite:
                raise InputError(f"{self.output}: {change}; choose another --output, or --overwrite")
            if change:
                self._forget(video)

    def _change(self, video, record):
        """What differs between this evaluation and the one that has finished this video; None if nothing does."""
        if record is None or "files" not in record:
            return None
        settings = record["settings"]
        for name in settings.keys() | self._settings.keys():
            if settings.get(name) != self._settings.get(name):
                return f"holds results with {name} {settings.get(name)}, this run has {self._settings.get(name)}"
        if record.get("input", "unknown") not in ("unknown", input_digest(video)):
            return f"the results of {video.name} are of other frames or first masks"
        return None

    def finished(self, video):
        """The record of a finished video whose files are all there, else None."""
        record = self._read(video)
        folder = self.masks / video.name
        if record is None or not folder.is_dir() or not set(record.get("files", [""])) <= set(os.listdir(folder)):
            return None
        if self.scores and not all((self.scores / video.name / f"{Path(file).stem}.npz").exists()
                                   for file in record["files"]):
            return None
        return record

    def begin(self, video):
        """Make empty folders for a video. A record without files says from here on that they are ours."""
        self._forget(video)
        self._write(video, {})
        (self.masks / video.name).mkdir(parents=True)
        if self.scores:
            (self.scores / video.name).mkdir(parents=True)

    def write_frame(self, video, frame, ids, palette, probabilities, objects):
        """Write one frame's mask and, if they are wanted, its probabilities.

        ids uint8 H×W, palette uint8 256×3, probabilities uint8 (objects + 1)×H×W or None.
        """
        path = self.masks / video.name / f"{frame}.png"
        if self._binary:
            write_grey(path, ids * np.uint8(255))
        else:
            write_mask(path, ids, palette)
        if self.scores:
            write_scores(self.scores / video.name / f"{frame}.npz", probabilities, objects)

    def finish(self, video, **facts):
        """Record that all of a video is written. facts: `files`, the names of its masks, and what else to keep."""
        self._write(video, {"input": input_digest(video), **facts})

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
            # Damaged, but ours.
            return {}

    def write_archive(self, records):
        """Write OUTPUT.zip with the masks of all records {video name: record}; the same masks give the same bytes."""
        path = Path(f"{self.output}.zip")
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, record in sorted(records.items()):
                for file in sorted(record["files"]):
                    member = Path(self._archive_folder, name, file).as_posix()
                    information = zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0))
                    information.external_attr = 0o644 << 16
                    archive.writestr(information, (self.masks / name / file).read_bytes())
        return path


def input_digest(video):
    """SHA-256 of what a video's results depend on: its masks, which frames are asked for, and the frames' names."""
    digest = hashlib.sha256(json.dumps([[file.stem for file in video.frames], sorted(video.wanted or ()),
                                        list(video.masks)]).encode())
    for file in video.masks.values():
        try:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError:
            # Tracking will tell whether it is needed.
            continue
    return digest.hexdigest()
