"""Write the results of tracking one video: masks, overlay, scores, summary."""

import contextlib
import json
import os
import shutil
import zipfile
from pathlib import Path

from inference_core.quality import Doubts, QualityMeter, measure_objects
from inference_core.results_folder import (
    EARLIER,
    FINISHED,
    FRAMES,
    INTERRUPTED,
    MANIFEST,
    STATE,
    UNFINISHED,
    WRITER,
    find_earlier_results,
    find_run,
    list_frames,
    read_items,
    read_manifest,
    remove_earlier_results,
    write_frame_list,
)
from inference_core.state import load_state, save_state
from util.errors import InputError
from util.files import (
    JsonWriter,
    atomic_path,
    flush,
    lock_folder,
    name_errors,
    temporary_path,
    write_json,
)
from util.image_io import is_whole_png, read_mask, write_mask, write_scores
from util.overlay import draw_ids, draw_overlay, draw_stamp
from util.pipeline import Background
from util.video_writer import VideoWriter

ANNOUNCED = 1000
"""Of frames that have numbers for names, so many are listed at once."""

FLUSHED_AT_ONCE = 200
"""So many files of frames are flushed at once."""


class TrackOutput:
    """Writes the results of one video into a folder, frame by frame, in threads. It is a context manager.

        masks/NAME.png    object ids, indexed with the DAVIS palette
        scores/NAME.npz   `prob` uint8 (objects + 1)×H×W, 255 is certain, background first; `objects`
        overlay.mp4       every frame with its objects drawn in
        summary.json      `header`, the frames' statistics, and what `finish` gives

    A file gets its name only when it is whole, and summary.json says `"complete": true` only when all files are on the
    disk. If the block ends with an error, the finished masks and the overlay so far stay, and summary.json says
    `"complete": false`. Results of an earlier run on the same video are removed first; the file .track.json tells that
    a folder holds results of ours, and of which video, and .track_frames.txt of which frames.

    frames: what is tracked, as `util.video.open_frames` returns it. header: {name: value} for the summary. video: what
    is the same for two runs on the same frames, whatever JSON can hold; None: no other run is on these. overwrite:
    replace results of another video, too. stamp: write names and times into the overlay. threads: how many encode it,
    None for all cores. run: {name: value} of what is the same in the run that goes on from this one. resume: go on from
    an interrupted run in this folder: entering the block then sets `state` to the core's State there, and the frames
    before `state.next_frame` are to be given to `take_over`; None if there is nothing to go on from. begin_anew: if the
    run in the folder was another one, or its state is damaged, begin anew instead of refusing. position: if the frames
    do not come in their order, the function that gives the place in the video of the frame of a name; the overlay is
    then drawn by `draw`.

    After `finish`, `doubtful` lists the runs of frames that are most worth a look, see `inference_core.quality.Doubts`;
    `quality` is the mean quality of all masks that were not given, None if there are none; `objects` are the ids of all
    objects, a set; `complete` says whether every frame of the video could be tracked.
    """

    def __init__(self, folder, frames, header, *, video=None, overwrite=False, overlay=True, stamp=False, scores=False,
                 threads=None, run=None, resume=False, begin_anew=False, position=None):
        self.folder = Path(folder)
        self.masks = self.folder / "masks"
        self.scores = self.folder / "scores" if scores else None
        self.summary = self.folder / "summary.json"
        self.overlay = self.folder / "overlay.mp4" if overlay else None
        self.finished = 0
        self.state = None
        self.doubtful, self.quality, self.objects, self.complete = [], None, set(), False
        self._run, self._resume, self._begin_anew, self._whole = run, resume, begin_anew, False
        self._items = self._item = None
        self._draw_at_once = overlay and position is None
        self._frames, self._header = frames, header
        self._video_id, self._overwrite, self._stamp, self._threads = video, overwrite, stamp, threads
        self._report = {}
        self._summary_part, self._video_part = self.folder / UNFINISHED, temporary_path(self.folder / "overlay.mp4")
        self._meter, self._doubts = QualityMeter(), Doubts(position)
        self._quality_sum = self._quality_count = 0

    def __enter__(self):
        with contextlib.ExitStack() as lock:
            lock.enter_context(lock_folder(self.folder))
            self._begin()
            self._lock = lock.pop_all()
        return self

    def _begin(self):
        """Clear the folder, unless a run in it goes on, and open the summary."""
        try:
            self.state = self._find_state() if self._resume else None
        except InputError:
            if not self._begin_anew:
                raise
        self._frame_list = self.folder / FRAMES
        self._announced = set()
        self._unflushed = []
        if self.state is None:
            earlier = find_earlier_results(self.folder, self._video_id, self._overwrite)
            names = set(self._frames.names or ())
            # The manifest of this run must never stand beside the state of another one.
            for name in (STATE, EARLIER, UNFINISHED):
                (self.folder / name).unlink(missing_ok=True)
            # From here on the folder is recognised as ours, with what is in it, even if the process is killed or the
            # power fails.
            write_frame_list(self._frame_list, names | earlier)
            self._write_manifest(finished=None)
            write_json(self.summary, {**self._header, "complete": False})
            remove_earlier_results(self.folder, earlier)
            write_frame_list(self._frame_list, names)
        else:
            if self.overlay is None:
                (self.folder / "overlay.mp4").unlink(missing_ok=True)
            self._items = read_items(self.folder / EARLIER)
            self._item = next(self._items, None)
            if self._frames.names is None:
                self._announced = {int(name) // ANNOUNCED for name in list_frames(self.folder)}
        self.masks.mkdir(exist_ok=True)
        if self.scores:
            self.scores.mkdir(exist_ok=True)
        # It is a new file, never one that somebody else has put there, or a link.
        self._summary_part.unlink(missing_ok=True)
        self._summary_file = open(self._summary_part, "x", encoding="utf-8")  # noqa: SIM115 (closed by _close_summary)
        self._json = JsonWriter(self._summary_file)
        for name, value in self._header.items():
            self._json.add(name, value)
        self._json.begin_list("frames")
        self._files, self._drawing = Background(), Background()
        self._video = None

    def _write_manifest(self, finished):
        """finished: the number of masks once the run has come to its end, else None."""
        write_json(self.folder / MANIFEST, {"written_by": WRITER, "video": self._video_id, "run": self._run,
                                            "finished": finished})

    @property
    def is_finished(self):
        """Whether this very run is in the folder already, and none of its files is missing, empty or cut.

        Raises InputError if the run in the folder was another one.
        """
        if find_run(self.folder, self._run) != FINISHED or not self.summary.exists():
            return False
        names = [frame.get("name") for frame in read_items(self.summary)]
        return (len(names) == read_manifest(self.folder)["finished"]
                and all(is_whole_png(self.masks / f"{name}.png") for name in names)
                and (self.scores is None or all(zipfile.is_zipfile(self.scores / f"{name}.npz") for name in names))
                and (self.overlay is None or (self.overlay.exists() and self.overlay.stat().st_size > 0)))

    def _find_state(self):
        """Return the State that an interrupted run has left, or None; keep what its summary says of the frames.

        Raises InputError if the run in the folder, interrupted or finished, was another one.
        """
        if find_run(self.folder, self._run) != INTERRUPTED:
            return None
        state = load_state(self.folder / STATE)
        if not (self.folder / EARLIER).exists():
            if self._summary_part.exists():
                os.replace(self._summary_part, self.folder / EARLIER)
            else:
                with atomic_path(self.folder / EARLIER) as temporary:
                    shutil.copyfile(self.summary, temporary)
        return state

    def take_over(self, name, frame, time=None):
        """Take one frame's results from the run that was interrupted.

        name, frame, time: as `util.video.open_frames` yields them.
        """
        ids = quality = None
        if self._item is not None and self._item["name"] == name:
            ids = read_mask(self.masks / f"{name}.png")
            objects = {int(object_id): found for object_id, found in self._item["objects"].items()}
            quality = self._list(name, time, objects, self._item.get("given", []))
            self._item = next(self._items, None)
            self.finished += 1
        if self._draw_at_once:
            self._drawing.submit(self._draw, name, frame, ids, time, lambda: quality)

    @property
    def can_go_on(self):
        """Whether a later run could go on from this one, as it is on disk."""
        return (self.folder / STATE).exists()

    def keep(self, state):
        """Write the core's State after the frames so far, for a run that goes on from here."""
        self._files.submit(self._keep, state)

    def add(self, frame, confidence=None, totals=None, prob=None):
        """Write one frame.

        frame: a TrackedFrame; where its ids are None, there is only an overlay. confidence, totals: as for
        `measure_objects`. prob: uint8 (objects + 1)×H×W if scores are written.
        """
        quality = None
        if frame.ids is not None:
            quality = self._files.submit(self._write_frame, frame, confidence, totals, prob).result
        if self._draw_at_once:
            self._drawing.submit(self._draw, frame.name, frame.image, frame.ids, frame.time, quality)

    def draw(self, frames):
        """Draw the overlay of these frames with the masks that are written. frames: yields (name, image, time)."""
        if not self.overlay:
            return
        self._files.wait()
        for name, image, time in frames:
            file = self.masks / f"{name}.png"
            ids = read_mask(file) if file.exists() else None
            self._drawing.submit(self._draw, name, image, ids, time, lambda: None)

    def finish(self, report):
        """Wait until everything is written. report: {name: value} to add to the summary."""
        self._files.wait()
        self._drawing.wait()
        flush(self._unflushed)
        self.doubtful = self._doubts.finish()
        self.quality = round(self._quality_sum / self._quality_count, 3) if self._quality_count else None
        self._report = {**report, "quality": self.quality, "doubtful": [doubt._asdict() for doubt in self.doubtful],
                        "notices": self._frames.notices}
        self._whole = True

    def __exit__(self, kind, error, traceback):
        self._files.close()
        self._drawing.close()
        # Only the first error is raised. Others may follow from it, for instance when the disk is full.
        failure = error
        try:
            self._close_video()
        except (OSError, InputError) as problem:
            failure = failure or problem
        try:
            self.complete = failure is None and self._frames.complete
            self._close_summary()
            if self._whole and failure is None:
                self._drop_earlier()
                self._write_manifest(finished=self.finished)
                (self.folder / STATE).unlink(missing_ok=True)
        except OSError as problem:
            failure = failure or problem
        self._lock.close()
        if failure is not error:
            raise failure

    def _write_frame(self, frame, confidence, totals, prob):
        """Write the files of one frame, and add it to the summary. Returns {object id: quality}."""
        name = frame.name
        self._announce(name)
        write_mask(self.masks / f"{name}.png", frame.ids)
        self._unflushed.append(self.masks / f"{name}.png")
        if prob is not None:
            write_scores(self.scores / f"{name}.npz", prob, frame.objects)
            self._unflushed.append(self.scores / f"{name}.npz")
        if len(self._unflushed) >= FLUSHED_AT_ONCE:
            flush(self._unflushed)
            self._unflushed = []
        quality = self._list(name, frame.time, measure_objects(frame.ids, confidence, totals, frame.objects),
                             frame.given)
        self.finished += 1
        return quality

    def _list(self, name, time, objects, given):
        """Add a frame to the summary, and return {object id: quality}. objects: as `measure_objects` returns them."""
        quality = self._meter.measure(objects, given)
        self._doubts.add(name, quality)
        found = [value for object_id, value in quality.items() if object_id not in given]
        self.objects |= set(quality)
        self._quality_sum += sum(found)
        self._quality_count += len(found)
        item = {"name": name, **({} if time is None else {"time": round(float(time), 6)}),
                **({"given": given} if given else {}),
                "objects": {str(object_id): {**found, "quality": round(quality[object_id], 3)}
                            for object_id, found in objects.items()}}
        with name_errors(self.summary):
            self._json.append(item)
        return quality

    def _keep(self, state):
        """Write a State, once the masks and the summary of the frames before it are on disk."""
        with name_errors(self._summary_part):
            self._summary_file.flush()
        flush([*self._unflushed, self._summary_part])
        self._unflushed = []
        self._drop_earlier()
        save_state(self.folder / STATE, state)

    def _drop_earlier(self):
        """Remove the summary of the interrupted run, whose frames are all taken over."""
        if self._items is not None:
            self._items.close()
        (self.folder / EARLIER).unlink(missing_ok=True)

    def _announce(self, name):
        """List the frame of this name and the next ones, if it is not listed and they have numbers for names."""
        if self._frames.names is None and int(name) // ANNOUNCED not in self._announced:
            block = int(name) // ANNOUNCED
            self._announced.add(block)
            names = [self._frames.name(number) for number in range(block * ANNOUNCED, (block + 1) * ANNOUNCED)]
            with name_errors(self._frame_list), open(self._frame_list, "a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps(name)}\n" for name in names)
            flush([self._frame_list])

    def _draw(self, name, frame, ids, time, quality):
        """Add a frame to the overlay. quality: function that returns {object id: quality}; None where ids are."""
        if self._video is None:
            frames = self._frames
            with name_errors(self.overlay):
                self._video = VideoWriter(self._video_part, frames.size, frames.rate, frames.look, self._threads)
        image = frame.copy() if ids is None else draw_overlay(frame, ids)
        if ids is not None:
            # Without a stamp there is no need to wait for the quality.
            draw_ids(image, ids, quality() if self._stamp else None)
        if self._stamp:
            draw_stamp(image, name, time)
        with name_errors(self.overlay):
            self._video.write(image, time)

    def _close_video(self):
        """Finish the overlay and give it its name."""
        if self._video is None:
            return
        try:
            with name_errors(self.overlay):
                self._video.close()
                flush([self._video_part])
                os.replace(self._video_part, self.overlay)
        finally:
            self._video_part.unlink(missing_ok=True)

    def _close_summary(self):
        """Finish the summary and give it its name."""
        try:
            with name_errors(self.summary):
                self._json.end_list()
                for name, value in {**self._report, "complete": self.complete}.items():
                    self._json.add(name, value)
                self._json.close()
                self._summary_file.close()
                flush([self._summary_part])
                os.replace(self._summary_part, self.summary)
                flush([self.summary])
        finally:
            with contextlib.suppress(OSError):
                self._summary_file.close()
            self._summary_part.unlink(missing_ok=True)
