"""Compare the ways of tracking many videos: the same bytes, what is lost when processes are killed, time, memory.

    python -m tests.many_speed --folder out/many_speed
    unshare -n sh -c 'ip link set lo up && python -m tests.many_speed --folder out/many_speed'   # with Ray, if there

200 rendered videos, five of which cannot be tracked, each with the compact network and one thread a worker: in a loop,
by two processes, on two nodes of Ray, and again while a process or a node is killed. A run prints

    frames/s         counted from when a quarter of the videos is finished: by then each worker has started, and has
                     tracked its first video, which takes longer
    workers busy     so many on average in that time; if it is less than there are, the speeds cannot be compared
    first video      seconds from the start until it is finished

The ways take turns, --rounds times, each in a process of its own, so that none finds memory or threads of another. The
end compares their medians.
"""

import contextlib
import functools
import importlib.util
import multiprocessing
import os
import shutil
import signal
import statistics
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from dataset.synthetic import render_clip
from runs.manifest import read_manifest
from runs.processes import track_in_processes
from runs.row import Task, track_row
from runs.video import open_model
from tests.many_videos import write_list, write_videos
from tests.trees import folder_bytes, photograph
from util.errors import run_script
from util.files import file_sha256
from util.hyper_para import ManySettings, TrackingSettings, VideoResultSettings
from util.image_io import write_mask
from util.options import OptionParser, positive

BAD = 5
"""So many videos cannot be tracked."""

SIZE = (120, 212)
"""Height and width of a frame."""


def get_args_parser():
    parser = OptionParser("many_speed", __doc__)
    parser.add_argument("--folder", required=True, metavar="FOLDER", help="where videos and results are written")
    parser.add_argument("--videos", type=positive, default=200, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--frames", type=positive, default=16, metavar="N", help="of a video (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="(default: %(default)s)")
    return parser


def main(args):
    folder = Path(args.folder)
    manifest = write_load(folder / "videos", args.videos, args.frames)
    tracking = TrackingSettings(threads=1, size=480)
    task = Task("", file_sha256(tracking.model))
    rows = read_manifest(str(manifest), tracking, VideoResultSettings())
    ways = {"loop": in_a_loop, "two processes": in_processes}
    killed = {"two processes, one killed": functools.partial(in_processes, kill=True)}
    if importlib.util.find_spec("ray"):
        ways["Ray, two nodes"] = on_ray
        killed["Ray, one of two nodes killed"] = functools.partial(on_ray, kill=True)
    speeds = {way: [] for way in ways}
    first = None
    for way, run in [*ways.items()] * args.rounds + [*killed.items()]:
        output = folder / "out"
        shutil.rmtree(output, ignore_errors=True)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            start, records, memory = fresh.submit(run, Task(str(output), task.weights), rows, tracking).result()
        # By their files: whoever collects the records may hear of many at once.
        finished = sorted(((output / record["name"] / "summary.json").stat().st_mtime, record["frames"],
                           record["seconds"]) for record in records if record["status"] != "failed")
        speed, busy = measure_speed(finished)
        if way in speeds:
            speeds[way].append(speed)
        bad = sorted(record["name"] for record in records if record["status"] == "failed")
        results = {row.name: folder_bytes(output / row.name) for row in rows if row.name not in bad}
        first = first or (results, bad)
        again = sum(record["attempts"] > 1 for record in records)
        same = "the same masks" if (results, bad) == first else "OTHER MASKS"
        wait = finished[0][0] - start
        print(f"{way}: {speed:.1f} frames/s, {busy:.2f} workers busy, first video after {wait:.1f} s, "
              f"{len(results)} done, {len(bad)} failed, {again} begun again, {same}{memory}; "
              f"load {os.getloadavg()[0]:.1f}", flush=True)
    for way, rounds in speeds.items():
        ratio = statistics.median(other / one for one, other in zip(speeds["loop"], rounds, strict=True))
        print(f"{way}: median {statistics.median(rounds):.1f} frames/s, {ratio:.2f} times as fast as the loop")


def measure_speed(finished):
    """Return (frames a second, workers that were busy on average) after the first quarter of the videos.

    finished: [(when, frames, seconds of work)] of each, in the order of the first.
    """
    skipped = len(finished) // 4
    seconds = finished[-1][0] - finished[skipped - 1][0]
    return tuple(sum(column) / seconds for column in list(zip(*finished[skipped:], strict=True))[1:])


def write_load(folder, count, frames):
    """Write videos, some of them bad, with masks; return the list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        name = f"video{number:03d}"
        pairs = list(render_clip(photograph(number), [photograph(number + 1000), photograph(number + 2000)], SIZE,
                                 frames + number % 5, seed=number))
        clip = tuple(np.stack(part) for part in zip(*pairs, strict=True))
        write_videos(folder, clip, [name], len(pairs), size=SIZE[::-1])
        rows.append({"video": f"{name}.mp4", "masks": f"{name}.png"})
    bad = np.linspace(0, count - 1, BAD).astype(int).tolist()
    (folder / rows[bad[0]]["video"]).write_bytes(b"no video")
    (folder / rows[bad[1]]["video"]).write_bytes((folder / rows[bad[1]]["video"]).read_bytes()[:200])
    write_mask(folder / rows[bad[2]]["masks"], np.ones((8, 8), np.uint8))
    write_mask(folder / rows[bad[3]]["masks"], np.zeros(SIZE, np.uint8))
    rows[bad[4]]["masks"] = f"999:{rows[bad[4]]['masks']}"
    return write_list(folder / "list.jsonl", rows)


def collect(records, after=None):
    """Return (when it began, in seconds since 1970, [record of each video]).

    after: (number of videos, function to call then).
    """
    start, finished = time.time(), []
    with contextlib.closing(records):
        for record in records:
            finished.append(record)
            if after and len(finished) == after[0]:
                after[1]()
    return start, finished


def in_a_loop(task, rows, tracking):
    def track():
        model = open_model(tracking)
        for row in rows:
            yield track_row(task, row, lambda: model)

    return *collect(track()), ""


def in_processes(task, rows, tracking, kill=False):
    def end_one():
        os.kill(children()[0], signal.SIGKILL)

    # Looking into the processes takes time; so not while their speed counts.
    seen = []
    records = track_in_processes(task, rows, tracking, 2, lambda *given: seen.append(measure_children())
                                 if kill and len(seen) < 20 else None)
    start, finished = collect(records, (len(rows) // 2, end_one) if kill else None)
    memory = ", a process has {:.0f} MB, {:.0f} of them for itself alone".format(*max(seen)) if kill else ""
    return start, finished, memory


def children():
    """The ids of this process's children."""
    return [int(number) for task in os.listdir("/proc/self/task")
            for number in Path(f"/proc/self/task/{task}/children").read_text().split()]


def measure_children():
    """(MB resident, MB that no other process has) of the child that has most of its own."""
    found = [(0, 0)]
    for child in children():
        with contextlib.suppress(OSError):
            lines = dict(line.split(":") for line in Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()[1:])
            own = int(lines["Private_Clean"].split()[0]) + int(lines["Private_Dirty"].split()[0])
            found.append((int(lines["Rss"].split()[0]) / 1000, own / 1000))
    return max(found, key=lambda pair: pair[1])


def on_ray(task, rows, tracking, kill=False):
    from ray.cluster_utils import Cluster

    from runs.cluster import track_on_ray
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)

    def end_one():
        threading.Thread(target=lambda: cluster.remove_node(node, allow_graceful=False)).start()

    try:
        many = ManySettings(ray=cluster.address)
        return *collect(track_on_ray(task, rows, tracking, many, lambda *given: None),
                        (len(rows) // 2, end_one) if kill else None), ""
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
