"""Track all videos of a dataset, each by itself, in one process or, under torchrun, in several.

The scripts eval_….py call `evaluate`. An interrupted evaluation, started again, goes on with the videos that are not
finished. `evaluation.results` lists the files that are written; in addition, there is OUTPUT/speed.json.
"""

import contextlib
import errno
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from dataset.evaluation_sets import find_lost_objects, list_video_notices
from evaluation.results import Results
from inference_core import InferenceCore, open_engine, precision_name, track_frames
from inference_core.annotations import find_erased
from inference_core.sizes import pick_size
from inference_core.tracking import name_objects
from util.device import device_name, join_processes
from util.errors import InputError, pixels
from util.files import file_sha256
from util.image_io import read_mask, read_palette
from util.notices import list_notices, tell
from util.pipeline import Background
from util.progress import progress_bar
from util.timing import Latencies, peak_memory_mb
from util.video import ImageFrames

WRITING_THREADS = 2
"""Number of threads that write masks while the next frames are tracked."""


def evaluate(tracking, results, evaluation_set, root, split, *, all_frames=False, repeat=None):
    """Track all videos of a dataset; return the script's exit code: 0, or 1 if a video could not be tracked.

    tracking: TrackingSettings, results: ResultSettings, both of util.hyper_para. evaluation_set: an EvaluationSet of
    dataset.evaluation_sets. root: the dataset's folder. split: the name of a split. all_frames: write masks for all
    frames from the first mask on, not only for those that the dataset asks for. repeat: the number of
    squeeze-and-excitation blocks that the network must have, None for any.

    A video that cannot be tracked is reported at the end, and the others are tracked all the same. Raises InputError if
    no video can be tracked, or if the results would replace others.
    """
    rank, processes, store = _join_launcher()
    try:
        with contextlib.ExitStack() as lock:
            engine = open_engine(tracking)
            if repeat not in (None, engine.config.repeat):
                raise InputError(f"{tracking.model}: has repeat {engine.config.repeat}, --repeat says {repeat}; leave "
                                 "--repeat out, or choose another --model")
            run = _Run(tracking, results, evaluation_set, split, engine, all_frames, rank, processes, store)
            return run.execute(evaluation_set.find(root, split), lock)
    finally:
        if processes > 1:
            dist.destroy_process_group()


def _join_launcher():
    """Return (rank, number of processes, their store or None). Under torchrun, wait for the other processes."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    # The default timeout is long: at the end, the fastest process waits for the slowest.
    store = join_processes("gloo", processes) if processes > 1 else None
    return int(os.environ.get("RANK", 0)), processes, store


class _Run:
    """One process's part of an evaluation. The process of rank 0 also lists the videos to track, and reports.

    result_settings: the ResultSettings. store: torch's store that all processes share, None if there is only one. The
    other arguments are those of `evaluate`.
    """

    def __init__(self, tracking, result_settings, evaluation_set, split, engine, all_frames, rank, processes, store):
        self.tracking, self.result_settings, self.evaluation_set = tracking, result_settings, evaluation_set
        self.all_frames, self.rank, self.processes, self.store = all_frames, rank, processes, store
        self.device = engine.device
        size = pick_size(tracking.size, engine.config, evaluation_set.size)
        # The published evaluation resizes given masks, too.
        self.core = InferenceCore(engine, **tracking.core(), size=size, keep_given=False)
        self.notices = {}  # {video name: its notices}
        self.results = Results(result_settings.output, evaluation_set, {
            **tracking.core(), "size": size, "places": self.core.places, "benchmark": evaluation_set.title,
            "split": split, "all_frames": all_frames, "device": self.device.type,
            "model_sha256": file_sha256(tracking.model),
        }, result_settings.save_scores)

    def execute(self, videos, lock):
        """Track `videos` together with the other processes, and report. Returns the exit code.

        lock: ExitStack that takes the lock of the output folder.
        """
        # Rank 0 takes the folder, removes old results and lists the videos that are not finished.
        names = [None]
        if self.rank == 0:
            lock.enter_context(self.results.lock(alone=True))
            self.results.prepare(videos, self.result_settings.overwrite, self.result_settings.zip)
            waiting = [video for video in videos if self.read_finished(video) is None]
            if len(waiting) < len(videos):
                print(f"{len(videos) - len(waiting)} of {len(videos)} videos are finished already")
            lost = list_notices(notice for video in videos for notice in find_lost_objects(video))
            tell([*list_video_notices(videos), *lost])
            if self.processes > 1:
                # The longest first, so that no process is still busy long after the others.
                waiting.sort(key=estimate_cost, reverse=True)
            names[0] = [video.name for video in waiting]
        if self.processes > 1:
            dist.broadcast_object_list(names)
        if self.rank > 0:
            lock.enter_context(self.results.lock())

        # Track.
        named = {video.name: video for video in videos}
        failures = self.track([named[name] for name in names[0]])

        # Collect failures and memory from all processes, and report.
        memory = peak_memory_mb(self.device)
        if self.processes > 1:
            gathered = [None] * self.processes
            dist.all_gather_object(gathered, (failures, memory, self.notices))
            failures = {name: message for theirs, _, _ in gathered for name, message in theirs.items()}
            memory = {kind: max((theirs[kind] or 0 for _, theirs, _ in gathered)) or None for kind in memory}
            self.notices = {name: notices for _, _, theirs in gathered for name, notices in theirs.items()}
        complete = self.report(videos, memory, failures) if self.rank == 0 else not failures
        return 0 if complete else 1

    def read_finished(self, video):
        """Return the record of a video if it is finished, with all that `summarise_speed` needs, else None."""
        record = self.results.read_finished(video) or {}
        numbers = [record.get(name) for name in ("seconds", "width", "height", "objects")]
        whole = all(type(number) in (int, float) and 0 < number < 1e12 for number in numbers)
        return record if whole and Latencies().can_merge(record.get("latencies")) else None

    def track(self, videos):
        """Track videos one after the other, as long as there is one that no other process has taken.

        Returns {video name: error message} of those that this process could not track.
        """
        failures = {}
        frames = sum(len(video.frames) for video in videos)
        bar = progress_bar(frames, self.evaluation_set.title) if frames and self.rank == 0 else None
        try:
            for number in take_numbers(len(videos), self.store):
                video = videos[number]
                if bar:
                    # Videos that other processes have begun count as done.
                    bar.update(sum(len(earlier.frames) for earlier in videos[:number]))
                try:
                    self.track_video(video, bar.increment if bar else lambda: None)
                except InputError as error:
                    failures[video.name] = str(error).splitlines()[0]
                except OSError as error:
                    # A name that cannot be a file's is this video's fault; a full disk is everyone's.
                    if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ):
                        raise
                    failures[video.name] = f"{error.filename}: {error.strerror}"
            if bar:
                bar.update(frames)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("finished videos are kept; the same command goes on from here") from None
        finally:
            if bar:
                bar.finish(dirty=True)
        return failures

    def track_video(self, video, count):
        """Track one video and write its masks. Call `count()` after each frame.

        Raises InputError if a frame or a mask cannot be read, or if there is no object.
        """
        self.core.reset()
        self._colours = {}
        notices = self.notices[video.name] = []
        # Remove the masks that an interrupted run has written: its settings may have been others.
        self.results.begin(video)
        palette = read_palette(next(iter(video.masks.values())))
        names = [file.stem for file in video.frames]
        asked = set(names) if self.all_frames or video.wanted is None else video.wanted
        last = max(index for index, name in enumerate(names) if name in asked)

        # Track up to the last frame that is asked for; threads write the masks.
        latencies, files, started = Latencies(), [], time.perf_counter()
        images = ImageFrames(video.frames[:last + 1])
        notices += [(video.name, notice) for notice in images.notices]
        writing = Background(threads=WRITING_THREADS)
        try:
            for frame in track_frames(self.core, images, lambda name, image: self.find_first_masks(video, name, image),
                                      wanted=asked.__contains__):
                count()
                if frame.ids is None:
                    # Nobody asked for this frame's mask, but the network's time on it counts.
                    latencies.total += frame.seconds
                    continue
                latencies.add(frame.seconds)
                files.append(f"{frame.name}.png")
                scores = None
                if self.results.scores:
                    scores = (frame.probabilities * 255).round().byte().cpu().numpy()
                writing.submit(self.results.write_frame, video, frame.name, frame.ids, palette, scores, frame.objects)
            writing.wait()
        finally:
            writing.close()

        # Record that the video is finished.
        if not files:
            raise InputError("no object in its masks")
        self.results.finish(video, files=files, objects=len(self.core.objects), width=images.size[0],
                            height=images.size[1], model=Path(self.tracking.model).name,
                            seconds=time.perf_counter() - started, latencies=latencies.state())

    def find_first_masks(self, video, name, image):
        """Return the mask of the objects whose first mask is that of frame `name`, and their ids, or None.

        image: uint8 H×W×3.
        """
        if name not in video.masks:
            return None
        mask = read_mask(video.masks[name], image.shape[1::-1], self._colours, self.notices[video.name])
        if self.evaluation_set.binary:
            mask = (mask > 0).astype(np.uint8)
        new = mask * ~np.isin(mask, self.core.objects)
        self.notices[video.name] += [(video.masks[name], notice) for notice in find_erased(new, self.core.size)]
        return name_objects(new) if new.any() else None

    def report(self, videos, memory, failures):
        """Print what was done, and write speed.json and the archive. Return whether every video is finished.

        memory: {kind: megabytes}. failures: {video name: error message}.
        """
        records = {video.name: self.read_finished(video) for video in videos}
        records = {name: record for name, record in records.items() if record}
        missing = len(videos) - len(records)
        tell(list_notices(notice for video in videos for notice in self.notices.get(video.name, [])))
        for video in videos:
            if video.name in failures:
                print(f"{video.name}: {failures[video.name]}", file=sys.stderr)
        if records:
            # Everything is written before anything is printed: standard output may be closed, or full.
            speed = self.summarise_speed(records.values(), memory)
            self.results.write_speed(speed)
            if self.result_settings.zip and not missing:
                archive = self.results.write_archive(records)
            network, whole = speed["network"], speed["end_to_end"]
            print(f"network {network['frames_per_second']} frames/s (p50 {network['p50_ms']} ms, p95 "
                  f"{network['p95_ms']} ms), end to end {whole['frames_per_second']} frames/s a process; "
                  f"{speed['device']}, {speed['precision']}, {speed['frame_size']}, {speed['objects']} objects, "
                  f"torch {speed['torch']}")
        print(f"wrote {len(records)} of {len(videos)} videos to {self.results.masks}")
        if self.result_settings.zip and missing:
            print(f"no archive: {missing} videos are not there", file=sys.stderr)
        elif self.result_settings.zip:
            print(f"wrote {archive}")
        return not missing

    def summarise_speed(self, records, memory):
        """Return the contents of speed.json, from the records of all finished videos.

        "network" is the time of the network with upsampling, without reading and writing files, synchronised with the
        device; "end_to_end" is all time.
        """
        latencies = Latencies()
        for record in records:
            latencies.merge(record["latencies"])
        seconds = sum(record["seconds"] for record in records)
        sizes = sorted({(record["width"], record["height"]) for record in records})
        objects = sorted({record["objects"] for record in records})
        return {
            "network": latencies.summary(),
            "end_to_end": {"frames_per_second": round(latencies.count / seconds, 2), "seconds": round(seconds, 2)},
            "frames": latencies.count,
            "sequences": len(records),
            "processes": self.processes,
            "device": device_name(self.device),
            "precision": precision_name(self.tracking.amp, self.device),
            "compiled": self.tracking.compile,
            "frame_size": pixels(sizes[0]) if len(sizes) == 1 else f"{pixels(sizes[0])} to {pixels(sizes[-1])}",
            "computed_at": self.core.size or "frame size",
            "objects": str(objects[0]) if len(objects) == 1 else f"{objects[0]} to {objects[-1]}",
            "torch": torch.__version__,
            "peak_memory_mb": memory,
        }


def take_numbers(count, store):
    """Yield the numbers from 0 to count - 1. Of processes that share a store, whoever asks first gets the next one."""
    if store is None:
        yield from range(count)
        return
    while (number := store.add("numbers taken", 1) - 1) < count:
        yield number


def estimate_cost(video):
    """Return about how long tracking a video takes, relative to others: frames × (1 + objects in the first mask)."""
    try:
        first = read_mask(next(iter(video.masks.values())))
    except InputError:
        return len(video.frames)
    return len(video.frames) * len(np.unique(first))
