"""Running a network over a benchmark: resumable, in one process or under torchrun, each sequence on its own.

    OUTPUT/[Annotations/]SEQUENCE/FRAME.png   the masks
    OUTPUT/.evaluation/SEQUENCE.json          settings; of a finished sequence also its masks and times
    OUTPUT/speed.json                         times of all
    OUTPUT.zip                                with --zip, what the benchmark's server takes
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from inference_core import InferenceCore, precision_name
from util.device import device_name, join_processes
from util.errors import InputError, pixels
from util.files import atomic_path, file_sha256, locked
from util.hyper_para import core_settings, network_for
from util.image_io import of_size, read_image, read_mask, read_palette, write_grey, write_mask, write_scores
from util.pipeline import Background, read_ahead
from util.progress import progress_bar
from util.timing import Latencies, peak_memory_mb

DECODING_THREADS = 2
WRITING_THREADS = 2


def evaluate(args, benchmark, root, split, everything=False):
    """Track all sequences of `benchmark` (dataset.evaluation_sets) below `root`; returns the exit code of the script.

    args: add_evaluation_options. everything: write all frames from the first mask on, whatever is asked for.
    A sequence that cannot be tracked is reported at the end (exit code 1); the others are not lost.
    """
    rank, processes = _join()
    try:
        with contextlib.ExitStack() as lock:
            return _evaluate(args, benchmark, root, split, everything, rank, processes, lock)
    finally:
        if processes > 1:
            dist.destroy_process_group()


def _evaluate(args, benchmark, root, split, everything, rank, processes, lock):
    network = network_for(args)
    device = next(network.parameters()).device
    if device.type == "cpu":
        # torchrun gives each process one thread; another number of threads would round differently.
        torch.set_num_threads(args.threads or os.cpu_count())
    if getattr(args, "repeat", None) not in (None, network.config.repeat):
        raise InputError(f"{args.model}: has repeat {network.config.repeat}, --repeat says {args.repeat}")
    sequences = benchmark.find(root, split)
    settings = {**core_settings(args), "size": args.size or None, "benchmark": benchmark.title, "split": split,
                "all_frames": everything, "device": device.type, "model_sha256": file_sha256(args.model)}
    run = Run(args, benchmark, settings)
    core = InferenceCore(network, **core_settings(args), size=args.size or None)

    todo = [None]
    if rank == 0:
        lock.enter_context(run.locked(alone=True))
        run.prepare(sequences, args.overwrite)
        todo[0] = share([sequence for sequence in sequences if run.finished(sequence) is None], processes)
        done = len(sequences) - sum(map(len, todo[0]))
        if done:
            print(f"{done} of {len(sequences)} sequences are finished already")
    if processes > 1:
        dist.broadcast_object_list(todo)
    if rank > 0:
        lock.enter_context(run.locked())
    mine = [sequence for sequence in sequences if sequence.name in todo[0][rank]]
    failures = _run_all(run, core, mine, everything, quiet=rank > 0)

    memory = peak_memory_mb(device)
    if processes > 1:
        gathered = [None] * processes
        dist.all_gather_object(gathered, (failures, memory))
        failures = [failure for one, _ in gathered for failure in one]
        memory = {kind: max((one[kind] or 0 for _, one in gathered)) or None for kind in memory}
    if rank == 0:
        complete = _finish(run, sequences, args, device, memory, processes, failures)
        return 0 if complete else 1
    return 1 if failures else 0


def share(sequences, processes):
    """Names of the sequences for each process: the most expensive first, each to the one with least to do."""
    loads, shares = [0] * processes, [[] for _ in range(processes)]
    for sequence in sorted(sequences, key=lambda one: (-cost(one), one.name)):
        least = loads.index(min(loads))
        loads[least] += cost(sequence)
        shares[least].append(sequence.name)
    return shares


def cost(sequence):
    """Expected cost: the objects of the first mask, and the frame itself, for every frame."""
    try:
        first = read_mask(next(iter(sequence.masks.values())))
    except InputError:
        return len(sequence.frames)
    return len(sequence.frames) * len(np.unique(first))


def input_digest(sequence):
    """What a sequence's results depend on, in short: the masks, which frames are asked for, and the frames' names."""
    digest = hashlib.sha256(json.dumps([[file.stem for file in sequence.frames],
                                        sorted(sequence.wanted or ()), list(sequence.masks)]).encode())
    for file in sequence.masks.values():
        try:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError:
            # Whether it is needed will be seen.
            continue
    return digest.hexdigest()


class Run:
    """The results of one evaluation on disk: what is finished, with which settings, and of which input."""

    def __init__(self, args, benchmark, settings):
        self.output = Path(args.output)
        self.benchmark = benchmark
        self.settings = settings
        self.masks = self.output / benchmark.folder
        self.save_scores = args.save_scores
        self.scores = Path(f"{self.output}_scores")
        self._records = self.output / ".evaluation"

    def locked(self, alone=False):
        """Keeps other runs out of the folder, see `util.files.locked`; alone: this is the run's first process."""
        return locked(self._records, alone, together=True)

    def prepare(self, sequences, overwrite):
        """Make the folders. Raises InputError, and removes nothing, if they hold what this run would destroy.

        That is files that no run has written, and, unless `overwrite`, results of other settings or another input.
        """
        records = {sequence.name: self._read(sequence) for sequence in sequences}
        for name, record in records.items():
            for folder in (self.masks / name, self.scores / name):
                if record is None and folder.is_dir() and any(folder.iterdir()):
                    raise InputError(f"{folder}: holds files that no evaluation has written; choose another --output")
        for sequence in sequences:
            change = self._change(sequence, records[sequence.name])
            if change and not overwrite:
                raise InputError(f"{self.output}: {change}; choose another --output, or --overwrite")
            if change:
                self.forget(sequence)

    def _change(self, sequence, record):
        """What differs between this run and the one that has finished this sequence; None if nothing does."""
        if record is None or "files" not in record:
            return None
        settings = record["settings"]
        for name in settings.keys() | self.settings.keys():
            if settings.get(name) != self.settings.get(name):
                return f"holds results with {name} {settings.get(name)}, this run has {self.settings.get(name)}"
        if record.get("input", "unknown") not in ("unknown", input_digest(sequence)):
            return f"the results of {sequence.name} are of other frames or first masks"
        return None

    def finished(self, sequence):
        """The record of a finished sequence whose masks are all there, else None."""
        record = self._read(sequence)
        folder = self.masks / sequence.name
        if record is None or not folder.is_dir() or not set(record.get("files", [""])) <= set(os.listdir(folder)):
            return None
        if self.save_scores and not all((self.scores / sequence.name / f"{Path(file).stem}.npz").exists()
                                        for file in record["files"]):
            return None
        return record

    def begin(self, sequence):
        """Empty folders for a sequence, which from here on are known as ours."""
        self.forget(sequence)
        self.record(sequence)
        (self.masks / sequence.name).mkdir(parents=True)
        if self.save_scores:
            (self.scores / sequence.name).mkdir(parents=True)

    def forget(self, sequence):
        """Remove what there is of a sequence."""
        for folder in (self.masks, self.scores):
            shutil.rmtree(folder / sequence.name, ignore_errors=True)
        (self._records / f"{sequence.name}.json").unlink(missing_ok=True)

    def record(self, sequence, **facts):
        self._records.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._records / f"{sequence.name}.json") as temporary:
            temporary.write_text(json.dumps({"settings": self.settings, **facts}))

    def _read(self, sequence):
        try:
            return json.loads((self._records / f"{sequence.name}.json").read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            # Damaged, but ours.
            return {}


def _run_all(run, core, sequences, everything, quiet):
    """Track the sequences; returns [(name, what went wrong)]."""
    failures, done = [], 0
    bar = None if quiet else progress_bar(sum(len(sequence.frames) for sequence in sequences), run.benchmark.title)
    count = bar.increment if bar else lambda: None
    try:
        for sequence in sequences:
            try:
                _run_sequence(run, core, sequence, everything, count)
            except InputError as error:
                failures.append((sequence.name, str(error).splitlines()[0]))
            done += len(sequence.frames)
            if bar:
                bar.update(done)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("finished sequences are kept; the same command goes on from here") from None
    finally:
        if bar:
            bar.finish(dirty=True)
    return failures


def _run_sequence(run, core, sequence, everything, count):
    """Track one sequence and write its masks; `count` is called after each frame."""
    core.reset()
    folder = run.masks / sequence.name
    # What an interrupted run left of this sequence may not be what this one writes.
    run.begin(sequence)
    palette = read_palette(next(iter(sequence.masks.values())))
    names = [file.stem for file in sequence.frames]
    wanted = set(names) if everything or sequence.wanted is None else sequence.wanted
    last = max(index for index, name in enumerate(names) if name in wanted)
    latencies, files, size, started = Latencies(), [], None, time.perf_counter()
    writing = Background(threads=WRITING_THREADS)
    try:
        images = read_ahead(read_image, sequence.frames[:last + 1], threads=DECODING_THREADS)
        for index, image in enumerate(images):
            size = size or image.shape[1::-1]
            of_size(size, image, sequence.frames[index])
            mask, new = _new_objects(run, sequence, names[index], image, core)
            start = time.perf_counter()
            prob = core.step(image, mask, new, end=index == last, needs_output=names[index] in wanted)
            count()
            if prob is None or not core.objects:
                # Also what only the memory needs takes the network's time.
                latencies.total += time.perf_counter() - start
                continue
            # Copying to the host waits for the device.
            ids = core.to_mask(prob).cpu().numpy()
            latencies.add(time.perf_counter() - start)
            files.append(f"{names[index]}.png")
            if run.benchmark.binary:
                writing.submit(write_grey, folder / files[-1], ids * np.uint8(255))
            else:
                writing.submit(write_mask, folder / files[-1], ids, palette)
            if run.save_scores:
                scores = (prob * 255).round().byte().cpu().numpy()
                writing.submit(write_scores, run.scores / sequence.name / f"{names[index]}.npz", scores, core.objects)
        writing.wait()
    finally:
        writing.close()
    if not files:
        raise InputError("no object in its masks")
    run.record(sequence, input=input_digest(sequence), files=files, objects=len(core.objects), width=size[0],
               height=size[1], seconds=time.perf_counter() - started, latencies=latencies.state())


def _new_objects(run, sequence, name, image, core):
    """Mask and ids of the objects that have their first mask in this frame, else (None, None)."""
    if name not in sequence.masks:
        return None, None
    mask = read_mask(sequence.masks[name], image.shape[1::-1])
    if run.benchmark.binary:
        mask = (mask > 0).astype(np.uint8)
    new = [int(known) for known in np.unique(mask) if known and known not in core.objects]
    return (mask, new) if new else (None, None)


def _finish(run, sequences, args, device, memory, processes, failures):
    """Report, speed.json and archive, from what is on disk. Returns whether every sequence is there."""
    records = {sequence.name: run.finished(sequence) for sequence in sequences}
    records = {name: record for name, record in records.items() if record}
    for name, message in failures:
        print(f"{name}: {message}", file=sys.stderr)
    if records:
        speed = speed_report(records.values(), args, device, memory, processes)
        with atomic_path(run.output / "speed.json") as temporary:
            temporary.write_text(json.dumps(speed, indent=1) + "\n")
        network, whole = speed["network"], speed["end_to_end"]
        print(f"network {network['frames_per_second']} frames/s (p50 {network['p50_ms']} ms, p95 {network['p95_ms']} "
              f"ms), end to end {whole['frames_per_second']} frames/s a process; {speed['device']}, "
              f"{speed['precision']}, {speed['frame_size']}, {speed['objects']} objects, torch {speed['torch']}")
    print(f"wrote {len(records)} of {len(sequences)} sequences to {run.masks}")
    if args.zip and len(records) < len(sequences):
        print(f"no archive: {len(sequences) - len(records)} sequences are not there", file=sys.stderr)
    elif args.zip:
        archive = write_archive(run, records)
        print(f"wrote {archive}")
    return len(records) == len(sequences)


def speed_report(records, args, device, memory, processes):
    """Speed of the network alone (with upsampling, without input and output, synchronised), and of everything."""
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
        "processes": processes,
        "device": device_name(device),
        "precision": precision_name(args.amp, device),
        "compiled": args.compile,
        "frame_size": pixels(sizes[0]) if len(sizes) == 1 else f"{pixels(sizes[0])} to {pixels(sizes[-1])}",
        "computed_at": args.size or "frame size",
        "objects": str(objects[0]) if len(objects) == 1 else f"{objects[0]} to {objects[-1]}",
        "torch": torch.__version__,
        "peak_memory_mb": memory,
    }


def write_archive(run, records):
    """OUTPUT.zip with all masks as the server wants them; the same masks give the same bytes."""
    path = Path(f"{run.output}.zip")
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, record in sorted(records.items()):
            for file in sorted(record["files"]):
                member = zipfile.ZipInfo(str(Path(run.benchmark.folder, name, file).as_posix()), (1980, 1, 1, 0, 0, 0))
                member.external_attr = 0o644 << 16
                archive.writestr(member, (run.masks / name / file).read_bytes())
    return path


def _join():
    """(rank, number of processes); under torchrun, wait for the others."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1:
        # The fastest process waits at the end for the slowest, however long that takes.
        join_processes("gloo", processes)
    return int(os.environ.get("RANK", 0)), processes
