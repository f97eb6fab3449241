"""Track the objects of many videos, one folder of results for each.

    python track_many.py videos.csv --output out/many
    python track_many.py folder/ --output out/many                      # clip.mp4 with clip.png or clip/, and so on
    python track_many.py videos.csv --workers 8 --threads 1
    python track_many.py videos.jsonl --output s3://bucket/results --shard 3/16
    python track_many.py videos.parquet --output /shared/results --ray  # on a Ray cluster
    python track_many.py videos.csv --ray local

The list is CSV, JSON lines or Parquet with a row for each video, or a folder. Its columns are

    video    a video file, a folder of images, or an address that fsspec can read (s3://, gs://, https://)
    masks    as track.py takes them; or clicks and boxes
    name     of the folder of results (default: that of the video)

and options of track.py: start, end, backward, both-ways, across-cuts, stamp, no-overlay, save-scores, export, mode,
mem-every, include-last, top, size, places. Several values in a cell of text are separated by ";". Paths are relative
to the list. An option on the command line holds for all rows that do not say otherwise.

The whole list is checked before anything is computed. Each video is then tracked just as track.py does it, with the
same masks whatever the number of workers. The results are OUTPUT/NAME, videos.csv (videos.parquet, too, where pyarrow
is installed), and the page index.html. A video that cannot be tracked is a row in them with its reason; the exit code
is then 1. The same command, given again, goes on: what is finished is not computed again, failed videos are tried
again, and where something has changed, the video is tracked anew.

docs/SCALE.md tells more: columns of videos.csv, clusters, Slurm, costs.
"""

import contextlib
import dataclasses
import os
import sys
from pathlib import Path

from runs.addresses import is_address
from runs.manifest import count_frames, read_manifest
from runs.processes import count_workers, track_in_processes
from runs.row import FAILED, Task, find_finished
from runs.table import order_rows, write_table
from util.errors import run_script
from util.files import file_sha256, lock_folder
from util.hyper_para import ManySettings, TrackingSettings, VideoResultSettings, many_settings
from util.machine import available_cores, computing_threads
from util.options import OptionParser, settings_from
from util.progress import progress_bar

THREADS = 2
"""Threads of a worker. Not what a machine happens to have: masks depend a little on it, and are to be the same
everywhere."""

SHOWN_FAILURES = 20
"""So many failed videos are told at the end."""


def get_args_parser():
    parser = OptionParser("track_many.py", __doc__)
    parser.add_argument("manifest", metavar="LIST", help="a file .csv, .jsonl or .parquet, or a folder, see above "
                                                         "(default: none, it must be given)")
    parser.add_settings(ManySettings, "list and results")
    parser.add_settings(VideoResultSettings, "each video, where its row does not say otherwise")
    parser.add_settings(TrackingSettings, "tracking", amp="auto")
    return parser


def main(args):
    tracking, results, many = (settings_from(TrackingSettings, args), settings_from(VideoResultSettings, args),
                               many_settings(args))
    threads = tracking.threads or (computing_threads() if os.environ.get("OMP_NUM_THREADS") else THREADS)
    tracking = dataclasses.replace(tracking, threads=threads)
    output = many.output if is_address(many.output) else str(Path(many.output).absolute())
    rows = read_manifest(args.manifest, tracking, results)
    part, parts = many.shard
    rows = rows[part - 1::parts]
    task = Task(output, file_sha256(tracking.model), results.overwrite)
    with _take_folder(output, many.shard):
        found = find_finished(task, rows)
        if found:
            print(f"{len(found)} of {len(rows)} videos are finished already", file=sys.stderr)
        waiting = [row for row in rows if row.name not in found]
        try:
            for record in track(task, waiting, tracking, many):
                found[record["name"]] = record
        finally:
            suffix = f"-{part}-of-{parts}" if parts > 1 else ""
            table = order_rows([found[row.name] for row in rows if row.name in found], many.worst_first)
            names = write_table(output, table, suffix, f"{Path(args.manifest).stem}{suffix}")
    return report(table, output, names)


def track(task, rows, tracking, many):
    """Track Rows, the longest first; yield what videos.csv says of each as it is finished."""
    if not rows:
        return
    rows = sorted(count_frames(rows), key=lambda row: -row.frames)
    progress = _Progress(rows)
    try:
        if many.ray:
            from runs.cluster import track_on_ray
            records = track_on_ray(task, rows, tracking, many, progress.report)
        else:
            workers = many.workers or count_workers(tracking, many.gpus_per_worker, available_cores())
            records = track_in_processes(task, rows, tracking, min(workers, len(rows)), progress.report)
        with contextlib.closing(records):
            for record in records:
                progress.finish(record["name"])
                yield record
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{progress.finished} of {len(rows)} videos are finished; the same command goes on "
                                "from here") from None
    finally:
        progress.end()


class _Progress:
    """A bar over the frames of all videos."""

    def __init__(self, rows):
        self._expected = {row.name: max(row.frames, 1) for row in rows}
        self._done = {}
        self._total = 0
        self.finished = 0
        self._bar = progress_bar(sum(self._expected.values()), f"frames of {len(rows)} videos")

    def report(self, name, frames, length=None):
        """So many frames of a video are done. length: how many it has, where that is known by now."""
        if length:
            self._bar.max_value += length - self._expected[name]
            self._expected[name] = length
        # A header may promise fewer frames than there are, and a video that is begun again has been counted.
        frames = max(min(frames, self._expected[name]), self._done.get(name, 0))
        self._total += frames - self._done.get(name, 0)
        self._done[name] = frames
        self._bar.update(self._total)

    def finish(self, name):
        """A video is finished, or has failed."""
        self.finished += 1
        self.report(name, self._expected[name])

    def end(self):
        self._bar.finish(dirty=True)


@contextlib.contextmanager
def _take_folder(output, shard):
    """Keep other runs of the same part of the list out of the folder of results."""
    if is_address(output):
        yield
        return
    part, parts = shard
    with contextlib.ExitStack() as locks:
        # The parts of a list are tracked by several runs at once.
        locks.enter_context(lock_folder(output, alone=parts == 1, together=parts > 1))
        if parts > 1:
            locks.enter_context(lock_folder(Path(output) / f".part-{part}-of-{parts}"))
        yield


def report(table, output, names):
    """Say what came out; return the exit code."""
    failed = [row for row in table if row["status"] == FAILED]
    for row in failed[:SHOWN_FAILURES]:
        print(f"{row['name']}: {row['error']}", file=sys.stderr)
    if len(failed) > SHOWN_FAILURES:
        print(f"… and {len(failed) - SHOWN_FAILURES} more, see {names[0]}", file=sys.stderr)
    print(f"tracked {len(table) - len(failed)} of {len(table)} videos; {', '.join(names)} are in {output}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
