"""Track the videos of a list on a Ray cluster. Ray decides where, this module what."""

import contextlib
import os
import signal
import socket
from pathlib import Path

import torch

from inference_core import open_engine
from model.checkpoint import read_state
from runs.processes import MOST_ATTEMPTS, SECONDS_TO_END
from runs.row import TELL_EVERY, failed_row, told_seldom, track_row
from runs.video import Model
from util.errors import InputError, catch_end
from util.machine import available_cores

CODE = Path(__file__).parents[1]
"""The folder of this repository, which each node gets a copy of."""

NOT_NEEDED = ["/tests/", "/docs/", "/.git", "/out/", "/.venv/"]
"""Files that nodes get no copy of, beside those in .gitignore."""

MOST_SUBMITTED = 10000
"""So many videos wait in Ray at once, for it to see how many nodes are wanted."""

SECONDS_TO_ANSWER = 10
"""So long a cluster may take to answer."""

_models = {}
"""{SHA-256 of weights: Model} of this process. Ray lets a process track one video after another."""


def track_on_ray(task, rows, tracking, many, report):
    """Track Rows on a cluster, begun in their order; yield what videos.csv says of each, as they are finished.

    many: ManySettings. The other arguments are those of `runs.processes.track_in_processes`. A video whose process or
    node dies is begun again elsewhere, MOST_ATTEMPTS times in all. Raises InputError if there is no Ray, or no cluster.
    """
    ray = _join_cluster(many.ray, tracking)
    try:
        # An object is sent once to each node, and all processes there read the same memory.
        weights = ray.put({name: value.numpy() for name, value in read_state(tracking.model).items()})
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False)
        counter = ray.remote(num_cpus=0, scheduling_strategy=here)(_Counter).remote()
        gpus = many.gpus_per_worker if ray.cluster_resources().get("GPU") and tracking.device != "cpu" else 0
        # Each attempt is one of ours, so that it can be counted.
        remote = ray.remote(num_cpus=tracking.threads, num_gpus=gpus, max_retries=0)(_track_on_node)
        yield from _Submissions(ray, remote, (task, tracking, weights, counter)).run(rows, counter, report)
    finally:
        ray.shutdown()


class _Submissions:
    """The videos that Ray has. arguments: those of `_track_on_node` before the row."""

    def __init__(self, ray, remote, arguments):
        self._ray, self._remote, self._arguments = ray, remote, arguments
        self._running = {}  # {what will be the result: (row, attempts)}

    def run(self, rows, counter, report):
        waiting = [(row, 1) for row in reversed(rows)]
        try:
            while waiting or self._running:
                while waiting and len(self._running) < MOST_SUBMITTED:
                    row, attempts = waiting.pop()
                    self._running[self._remote.remote(*self._arguments, row)] = row, attempts
                done, _ = self._ray.wait(list(self._running), timeout=TELL_EVERY)
                with contextlib.suppress(self._ray.exceptions.RayError):
                    for name, counts in self._ray.get(counter.take.remote()).items():
                        report(name, *counts)
                for result in done:
                    row, attempts = self._running.pop(result)
                    try:
                        yield {**self._ray.get(result), "attempts": attempts}
                    except self._ray.exceptions.RayTaskError as error:
                        # No video is at fault: the node has no network, or not these packages.
                        raise InputError(f"on a node of the cluster: {str(error.cause).splitlines()[0]}") from None
                    except self._ray.exceptions.RayError as error:
                        if attempts < MOST_ATTEMPTS:
                            waiting.append((row, attempts + 1))
                        else:
                            reason = type(error).__name__
                            yield failed_row(row, f"{attempts} processes or nodes ended while they tracked this video "
                                                  f"({reason})", attempts)
        finally:
            self._cancel()

    def _cancel(self):
        """Let the videos that are being tracked keep what is finished."""
        for result in self._running:
            self._ray.cancel(result)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=SECONDS_TO_END)


def _join_cluster(address, tracking):
    """Return Ray, connected. Raises InputError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise InputError("--ray needs the package ray: pip install -r requirements-cluster.txt") from None
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address not in ("local", "auto"):
            # Ray itself would try for minutes.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
        if address == "local":
            # Nobody else is to reach what listens there.
            ray.init("local", num_cpus=max(tracking.threads, available_cores()), include_dashboard=False,
                     _node_ip_address="127.0.0.1", **quiet)
        else:
            ray.init(address, runtime_env={"working_dir": str(CODE), "excludes": NOT_NEEDED}, **quiet)
        # Ray takes SIGTERM for itself, and exits.
        catch_end(signal.default_int_handler)
    except SystemExit:
        raise KeyboardInterrupt from None
    except Exception as error:
        # Ray raises many kinds, plain ones too, as when its own processes do not start in time.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"--ray {address}: no cluster there ({reason})") from None
    return ray


class _Counter:
    """Knows how many frames of each video are done. It runs in a process beside the one that reports them."""

    def __init__(self):
        self._frames = {}

    def add(self, name, *counts):
        self._frames[name] = counts

    def take(self):
        """{row's name: (frames done, frames in all)} of what has changed since the last time."""
        frames, self._frames = self._frames, {}
        return frames


def _track_on_node(task, tracking, weights, counter, row):
    """What a process of the cluster does for each video: `track_row`."""
    tell = told_seldom(lambda frames, length: counter.add.remote(row.name, frames, length))
    return track_row(task, row, lambda: _open_model(task, tracking, weights), tell)


def _open_model(task, tracking, weights):
    """The Model of these weights, {name: array}; opened once in each process."""
    if task.weights not in _models:
        # The arrays are memory that all share, and may not be written: nothing here does.
        state = {name: torch.tensor(value) for name, value in weights.items()}
        _models[task.weights] = Model(open_engine(tracking, state), task.weights)
    return _models[task.weights]
