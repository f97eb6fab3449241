"""Tracking for the page: one thread for each project owns its core, and can be stopped between two frames."""

import contextlib
import dataclasses
import queue
import threading
import time
import traceback

import numpy as np

from inference_core.core import InferenceCore
from inference_core.quality import QualityMeter, measure_objects
from inference_core.sizes import network_size, pick_size
from inference_core.tracking import open_engine, track_frames
from interactive.plans import plan_job
from util.cuts import CutFinder
from util.errors import InputError
from util.pipeline import Background


class Engines:
    """Opens the network at the first job, and makes cores that share its weights. tracking: TrackingSettings."""

    def __init__(self, tracking):
        self._tracking, self._engine, self._lock = tracking, None, threading.Lock()

    def core(self, size):
        """A new InferenceCore for frames of this size (width, height). The first call takes seconds."""
        with self._lock:
            if self._engine is None:
                self._engine = open_engine(self._tracking)
        lines = pick_size(self._tracking.size, self._engine.config)
        return InferenceCore(self._engine, **self._tracking.core(), size=network_size(lines, size))


class Tracker:
    """Runs one job after another on a Project in a thread of its own.

    engines: an Engines. tell: tell(event, **values) is called in any thread:
        tracking    position, quality {id: byte}, done, total, rate: a mask is written; rate in frames per second
        stopped     done, reason: "done", "cancelled", or a sentence that says why
        notice      text: what the user should know
    """

    def __init__(self, project, engines, tell):
        self._project, self._engines, self._tell = project, engines, tell
        self._jobs, self._cancelled = queue.Queue(), threading.Event()
        self._busy = threading.Lock()
        self.job = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def start(self, job):
        """Begin a Job. Raises InputError if one is running, or there is nothing that it could begin with."""
        with self._busy:
            if self.job is not None:
                raise InputError("tracking is under way already; stop it first")
            plan_job(self._project, job)
            self._cancelled.clear()
            self.job = job
        self._jobs.put(job)

    def stop(self):
        """Let the job end after the frame that is being tracked."""
        self._cancelled.set()

    def close(self):
        """End the thread; a job ends after the frame that is being tracked."""
        self.stop()
        self._jobs.put(None)
        self._thread.join()

    def _run(self):
        while (job := self._jobs.get()) is not None:
            written, reason = [0], "done"
            try:
                with contextlib.closing(self._track(job, written)) as frames:
                    for _ in frames:
                        if self._cancelled.is_set():
                            reason = "cancelled"
                            break
            except (InputError, OSError) as error:
                reason = str(error).splitlines()[0]
            except Exception as error:
                # The page says that something went wrong; the terminal says where.
                traceback.print_exc()
                reason = f"tracking failed: {error}"
            self.job = None
            self._tell("stopped", done=written[0], reason=reason)

    def _track(self, job, written):
        """Track, and yield after each frame. written: [the number of masks that are written], counted up here."""
        passes = plan_job(self._project, job)
        core = self._engines.core(self._project.size)
        total = sum(abs(end - start) + 1 for start, end, _ in passes)
        began = time.perf_counter()

        def tell_written(position, quality):
            written[0] += 1
            self._tell("tracking", position=position, quality=quality, done=written[0], total=total,
                       rate=round(written[0] / (time.perf_counter() - began), 2))

        for start, end, seeds in passes:
            core.reset()
            yield from self._track_pass(core, start, end, seeds, job, tell_written)

    def _track_pass(self, core, start, end, seeds, job, tell_written):
        """Track from one position to another, and yield after each frame.

        seeds: {position: [ids]} of the references that are given before the first frame. tell_written(position, {id:
        byte of its quality}) is called in another thread, once a frame's mask is there.
        """
        project, step, count = self._project, 1 if start <= end else -1, len(self._project)

        def index(position):
            """The core counts frames in the order of tracking."""
            return position if step == 1 else count - 1 - position

        def mask_of(position, among):
            given = project.annotation(position)
            if given is None:
                return None
            ids, touched = given
            if position == start:
                # Whoever draws in a frame has seen it: what was left as it is there is right, too.
                ids, touched = project.mask(position), project.objects
            among = [number for number in touched if number in among and (ids == number).any()]
            return (np.where(np.isin(ids, among), ids, 0), among) if among else None

        # References that come later, or came earlier, are given first: every frame profits from all of them.
        for position, ids in seeds.items():
            if self._cancelled.is_set():
                return
            given = mask_of(position, ids)
            if given is not None:
                core.step(project.frames[position].image, *given, frame=index(position), needs_output=False)
        core.restore(dataclasses.replace(core.state(), next_frame=index(start)))

        frames = project.frames.forwards(start) if step == 1 else project.frames.backwards(start)
        meter, writing = QualityMeter(), Background()
        tracked = track_frames(core, frames, lambda name, image: mask_of(project.frames.position(name), job.objects),
                               cuts=CutFinder(), across_cuts=True, started=True)

        def write(position, frame, confidence, totals):
            quality = meter.measure(measure_objects(frame.ids, confidence, totals, frame.objects), frame.given)
            tracked = [number for number in frame.objects if number not in frame.given]
            tell_written(position, project.write_tracked(position, frame.ids, tracked, quality))

        try:
            for frame in tracked:
                position = project.frames.position(frame.name)
                if frame.cut and not job.across_cuts:
                    self._tell("notice", text=f"a new shot begins {'with' if step == 1 else 'after'} frame {position}, "
                                              "and tracking ends there; draw the objects in it to go on")
                    break
                confidence = frame.probabilities.amax(0).cpu().numpy()
                totals = frame.probabilities[1:].sum((1, 2)).tolist()
                # A frame is written while the next one is tracked.
                writing.submit(write, position, frame, confidence, totals)
                yield
                if position == end:
                    break
            writing.wait()
        finally:
            tracked.close()
            writing.close()
