"""Track the videos of a list in processes on this machine.

Where the system can, processes are forked: they share the memory of the weights, as they are laid out, and start at
once. A GPU cannot be shared so; there each process opens the network by itself.
"""

import contextlib
import dataclasses
import multiprocessing
import signal
import sys
import time
from multiprocessing.connection import wait

import cv2
import torch

from runs.row import failed_row, told_seldom, track_row
from runs.video import open_model
from util.errors import InputError, catch_end

MOST_ATTEMPTS = 3
"""So many times a video is begun whose process is killed."""

SECONDS_TO_END = 60
"""So long processes may take to keep what is finished, when the run is interrupted."""


def count_workers(tracking, gpus_per_worker, cores):
    """How many processes track where the user does not say it. cores: how many this process may use."""
    if pick_kind(tracking) == "cuda":
        return max(1, torch.cuda.device_count() * int(1 / gpus_per_worker))
    return max(1, cores // tracking.threads)


def pick_kind(tracking):
    """The kind of device that TrackingSettings mean, such as "cpu", found without using it."""
    if tracking.device != "auto":
        try:
            return torch.device(tracking.device).type
        except RuntimeError as error:
            raise InputError(f"device {tracking.device} cannot be used: {str(error).splitlines()[0]}") from None
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def track_in_processes(task, rows, tracking, workers, report):
    """Track Rows in processes, in their order; yield what videos.csv says of each, as they are finished.

    task: a Task. tracking: TrackingSettings, of which the network is opened. report: function of (row's name, frames
    that are done, frames that there are or None), called often. A video whose process is killed is begun again by
    another one, MOST_ATTEMPTS times in all. A caller that stops early, or is interrupted, waits until the processes
    have kept what is finished.
    """
    kind = pick_kind(tracking)
    forked = kind == "cpu" and sys.platform == "linux"
    context = multiprocessing.get_context("fork" if forked else "spawn")
    # With one thread: threads do not live on in a forked process, and those that computed before would be waited for
    # there.
    model = open_model(dataclasses.replace(tracking, threads=1)) if forked else None
    waiting = [(row, 1) for row in reversed(rows)]
    team, free = {}, list(reversed(range(workers)))
    try:
        while waiting or any(worker.row for worker in team.values()):
            # A process that has died is replaced when there is something to do.
            while waiting and free:
                number = free.pop()
                worker = _Worker(context, task, _own_device(tracking, kind, number), model, number, team.values())
                team[worker.connection] = worker
            for worker in team.values():
                if worker.row is None and waiting:
                    worker.begin(*waiting.pop())
            for connection in wait(list(team)):
                worker = team[connection]
                try:
                    topic, content = connection.recv()
                except (EOFError, OSError):
                    del team[connection]
                    free.append(worker.number)
                    row, attempts = worker.row, worker.attempts
                    reason = worker.bury()
                    if row and attempts < MOST_ATTEMPTS:
                        waiting.append((row, attempts + 1))
                    elif row:
                        yield failed_row(row, f"{attempts} processes ended while they tracked this video ({reason})",
                                         attempts)
                    continue
                if topic == "no network":
                    raise InputError(content)
                if topic == "frames":
                    report(worker.row.name, *content)
                else:
                    content["attempts"] = worker.attempts
                    worker.row = None
                    yield content
    finally:
        _dismiss(team.values())


def _own_device(tracking, kind, number):
    """The TrackingSettings for the process of this number: processes take turns at the GPUs."""
    if kind != "cuda" or ":" in tracking.device:
        return tracking
    return dataclasses.replace(tracking, device=f"cuda:{number % torch.cuda.device_count()}")


class _Worker:
    """A process that tracks, and what this process knows of it."""

    def __init__(self, context, task, tracking, model, number, others):
        self.number, self.row, self.attempts = number, None, 0
        self.connection, theirs = context.Pipe()
        # A forked process has the ends of all pipes. It must not hold those of others open.
        inherited = [*(other.connection for other in others), self.connection] if model else []
        # The keyboard's Ctrl-C reaches all processes; only the first one decides what is done then. Until the new
        # process has its own way, it must be told nothing.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM}) if model else None
        try:
            self._process = context.Process(target=_work, args=(theirs, inherited, task, tracking, model), daemon=True)
            self._process.start()
        finally:
            if before is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def begin(self, row, attempts):
        self.row, self.attempts = row, attempts
        # If it has died, the next `recv` tells.
        with contextlib.suppress(OSError):
            self.connection.send(row)

    def bury(self):
        """Forget a process that has ended; return why it ended."""
        self.connection.close()
        self._process.join()
        code = self._process.exitcode
        if code == -signal.SIGKILL:
            return "killed, as the system does when memory runs short"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def end(self):
        """Ask the process to keep what is finished, and to end."""
        self._process.terminate()

    def join(self, seconds):
        """Wait until the process has ended; end it after so many seconds."""
        self._process.join(max(0, seconds))
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _dismiss(workers):
    deadline = time.monotonic() + SECONDS_TO_END
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.join(deadline - time.monotonic())


def _work(connection, inherited, task, tracking, model):
    """What each process does: track the rows that come, until none does."""
    for other in inherited:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    catch_end(signal.default_int_handler)
    if model:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    tell = told_seldom(lambda frames, length: connection.send(("frames", (frames, length))))
    try:
        if model is None:
            try:
                model = open_model(tracking)
            except InputError as error:
                connection.send(("no network", str(error)))
                return
        else:
            torch.set_num_threads(tracking.threads)
            cv2.setNumThreads(tracking.threads)
        while True:
            row = connection.recv()
            connection.send(("row", track_row(task, row, lambda: model, tell)))
    except (EOFError, OSError, KeyboardInterrupt):
        # The first process has ended, or wants this one to.
        return
