"""Track one video of a list into its folder, and record what became of it. All engines call `track_row`."""

import contextlib
import dataclasses
import io
import json
import os
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2

from runs.addresses import fetch, is_address, join, read_bytes, replace_all, send
from runs.manifest import CHECKING_THREADS, split_mask
from runs.video import Watcher, track_video
from util.decoding import public_name
from util.errors import InputError
from util.files import atomic_path, write_json
from util.image_io import read_mask
from util.overlay import draw_ids, draw_overlay

RECORD = ".video.json"
"""The file in a video's folder that says that all of it is there, and what it was made from."""

THUMBNAIL = "thumbnail.jpg"

THUMBNAIL_WIDTH = 320
"""Pixels."""

COLUMNS = {"name": str, "video": str, "status": str, "frames": int, "objects": int, "quality": float, "worst": float,
           "worst_frames": str, "cuts": str, "complete": bool, "seconds": float, "attempts": int, "error": str,
           "notes": str}
"""{column of videos.csv: type}; docs/SCALE.md explains them."""

TELL_EVERY = 0.5
"""Seconds between two messages of a process about its frames."""

DONE, FAILED = "done", "failed"
"""What `status` says."""


@dataclass(frozen=True)
class Task:
    """What is the same for all videos of a run."""

    output: str
    """Folder or address in which each video gets a folder."""

    weights: str
    """SHA-256 of the network's file."""

    overwrite: bool = False


def find_finished(task, rows):
    """Return {video's name: what videos.csv says of it} of those Rows that are finished."""
    with ThreadPoolExecutor(CHECKING_THREADS) as pool:
        records = list(pool.map(lambda row: _read_finished(task, row), rows))
    return {row.name: record for row, record in zip(rows, records, strict=True) if record}


def _read_finished(task, row):
    """Return what videos.csv says of a video that is finished, or None if it is not, or its inputs are others."""
    data = read_bytes(join(join(task.output, row.name), RECORD))
    try:
        record = json.loads(data or b"{}")
        same = record["identity"] == row.identity(task.weights)
        if not same or (not is_address(task.output) and record["size"] != _measure(Path(task.output) / row.name)):
            return None
        return {**record["row"], "attempts": 0}
    except (ValueError, LookupError, TypeError, OSError, RecursionError):
        return None


def track_row(task, row, find_model, report=lambda frames, length: None):
    """Track a Row's video into its folder, exactly as track.py does; return what videos.csv says of it.

    find_model: as for `track_video`. report: is called after each frame with how many frames are done, and how many
    there are (None: unknown). What is wrong with a video is in the `error` of what is returned; only an interruption is
    raised.
    """
    watcher = _RowWatcher(report)
    error, shown = "", io.StringIO()
    try:
        # What exports print is for whoever tracks a single video.
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            _track(task, row, find_model, watcher)
    except InputError as problem:
        error = str(problem).splitlines()[0]
    except Exception as problem:
        # One video must not end the run of thousands, whatever is wrong with it.
        error = f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0]}"
        if os.environ.get("RDE_TRACEBACK") == "1":
            traceback.print_exc()
    return watcher.describe(row, error)


def told_seldom(report):
    """A `report` for `track_row` that passes on what it is told every TELL_EVERY seconds, not after each frame."""
    told = 0.0

    def tell(frames, length):
        nonlocal told
        if time.monotonic() - told >= TELL_EVERY:
            report(frames, length)
            told = time.monotonic()

    return tell


def failed_row(row, error, attempts):
    """What videos.csv says of a video that could not be tracked."""
    return {**_RowWatcher().describe(row, error), "seconds": None, "attempts": attempts}


def _track(task, row, find_model, watcher):
    """Track, and write the record. Raises InputError."""
    with contextlib.ExitStack() as stack:
        addresses = {path for path in [*row.job.video, *(split_mask(value)[1] for value in row.job.mask or ())]
                     if is_address(path)}
        fetched, folder = {}, join(task.output, row.name)
        for number, address in enumerate(sorted(addresses)):
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rde-vos-"))) / str(number)
            place.mkdir()
            fetched[address] = fetch(address, place)
            watcher.names[fetched[address]] = public_name(address)
        local = folder
        if is_address(folder):
            local = str(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rde-vos-"))) / row.name)
            watcher.names[local] = public_name(folder)
        job = dataclasses.replace(row.job, output=local, overwrite=task.overwrite, resume=not row.job.both_ways)
        track_video(row.tracking, job, find_model, watcher, fetched=fetched, begin_anew=True)
        _write_thumbnail(watcher, Path(local))
        _write_record(task, row, watcher, Path(local))
        if local != folder:
            send(local, folder, RECORD)


def _write_record(task, row, watcher, folder):
    """Write the file that says that a video is finished."""
    write_json(folder / RECORD, {"identity": row.identity(task.weights), "row": watcher.describe(row, ""),
                                 "size": _measure(folder)})


def _measure(folder):
    """Return the number of masks in a folder of results, their bytes, and those of the summary."""
    sizes = [entry.stat().st_size for entry in os.scandir(folder / "masks")]
    return [len(sizes), sum(sizes), (folder / "summary.json").stat().st_size]


def _write_thumbnail(watcher, folder):
    """Write a small picture of the middle of the video with its objects drawn in."""
    name, image = watcher.middle
    if image is None:
        return
    mask = folder / "masks" / f"{name}.png"
    if mask.exists():
        ids = read_mask(mask)
        image = draw_overlay(image, ids)
        draw_ids(image, ids)
    height = max(1, round(image.shape[0] * THUMBNAIL_WIDTH / image.shape[1]))
    small = cv2.resize(image, (THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)
    with atomic_path(folder / THUMBNAIL, flushed=False) as temporary:
        temporary.write_bytes(cv2.imencode(".jpg", small[..., ::-1])[1].tobytes())


class _RowWatcher(Watcher):
    """Counts a video's frames, and keeps what videos.csv says of it and the frame for its thumbnail."""

    def __init__(self, report=None):
        """report: as for `track_row`."""
        self._report, self._frames, self._length, self._notes, self._tracked = report, 0, None, [], None
        self._start = time.perf_counter()
        self.names = {}  # {local path: the address that it stands for}
        self.middle = None, None

    def begin(self, length):
        self._length = length

    def count(self, name=None, image=None):
        if image is not None and self._frames <= (self._length or 1) // 2:
            self.middle = name, image
        self._frames += 1
        self._report(self._frames, self._length)

    def note(self, line):
        self._notes.append(line)

    def done(self, tracked, job):
        self._tracked = tracked

    def describe(self, row, error):
        """{column: value}; None is empty."""
        output = self._tracked and self._tracked.output
        values = {"name": row.name, "video": " ".join(map(public_name, row.job.video)),
                  "status": FAILED if error else DONE, "frames": self._frames, "error": replace_all(error, self.names),
                  "notes": replace_all("; ".join(self._notes), self.names), "attempts": 1,
                  "seconds": round(time.perf_counter() - self._start, 2)}
        if output:
            values |= {"frames": output.finished, "objects": len(output.objects), "quality": output.quality,
                       "worst": output.doubtful[0].quality if output.doubtful else None,
                       "worst_frames": "; ".join(map(str, output.doubtful)), "complete": output.complete,
                       "cuts": "; ".join(self._tracked.shots)}
        return {name: values.get(name) for name in COLUMNS}
