"""Measure how fast tracking and training are on this machine, and how near to its limit.

    python benchmark.py                                     # base, 480×854, two objects, float32
    python benchmark.py --protocol stcn step phases --precision bfloat16
    python benchmark.py --protocol stcn --reference         # the network as training runs it, on a GPU with TF32
    python benchmark.py --protocol all --precision float16 --compile --json results.json
    python benchmark.py --protocol train --video-root my_videos --workers 8

Protocols:
    stcn        frames per second of the network and upsampling, without input and output (STCN's protocol)
    step        milliseconds per frame, waiting for the device after each: median and 95th percentile
    phases      milliseconds and floating point operations per call of each part
    end-to-end  image files in, mask files out
    memory      peak, and growth in bytes per frame, over 2,000 frames unless --frames is given; and time per frame and
                memory after 100, 1,000, ... frames
    objects     frames per second with 1, 2, 5, 10, 32, 100 objects
    size        frames per second and peak memory with one object, 240p to 4K
    train       milliseconds per step and peak memory, stages 0 and 3, published batch
    all         all of these, and stcn also in float32 and with --reference
    runtimes    milliseconds per frame beside onnxruntime and OpenVINO, if these are installed, on the graphs of
                export_onnx.py; on the CPU, in turns of one memory cycle each, images and masks on the host

The frames are moving smooth noise, and the weights are random unless --model is given: neither changes the time of a
step. The operations counted are those of the convolutions and products that the chosen engine calls. The machine's peak
is that of one large convolution, measured in the same run and precision.
"""

import contextlib
import dataclasses
import functools
import platform
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from dataset.sampler import BatchNumbers, load_batches
from dataset.synthetic import MovingNoise, make_noise_batch
from dataset.training import make_training_dataset
from export_onnx import write_graphs
from inference_core import InferenceCore, track_frames
from inference_core.capture import CompiledEngine
from inference_core.graphs import MODE, Sizes
from model import PRESETS, RDE, load_network
from model.checkpoint import preset_name
from model.inference import InferenceNetwork, PlainEngine, take_snapshot
from model.initialise import make_starting_network
from model.trainer import Trainer
from track_onnx import OnnxTracker, onnxruntime
from util.device import device_name, pick_device
from util.errors import InputError, run_script
from util.files import write_json
from util.hyper_para import (
    BenchmarkSettings,
    DataSettings,
    LossSettings,
    NetworkSettings,
    RecipeSettings,
    RunningSettings,
    TrainingSettings,
    benchmark_settings,
    fill_recipe,
)
from util.image_io import write_mask
from util.machine import computing_threads, keep_freed_memory, resident
from util.options import OptionParser
from util.pipeline import Background
from util.progress import progress_bar
from util.timing import peak_memory_mb
from util.video import ImageFrames

PROTOCOLS = ("stcn", "step", "phases", "end-to-end", "memory", "objects", "size", "train")
"""The protocols that `all` runs, in this order."""

SIZES = {"240p": (240, 427), "480p": (480, 854), "720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
"""{name: (height, width)} of the protocol `size`."""

OBJECTS = (1, 2, 5, 10, 32, 100)
"""The numbers of objects of the protocol `objects`."""

LENGTHS = (100, 1000, 10_000, 100_000)
"""The numbers of frames after which the protocol `memory` says how it stands."""

FRAMES, MEMORY_FRAMES = 30, 2000
"""The numbers of frames to measure unless --frames is given. The second is for the protocol `memory`."""

PARTS = {"encode": "key encoder", "read": "memory read", "decode": "decoder", "distribution": "aggregation",
         "encode_value": "value encoder", "aggregate_key": "SAM, keys", "aggregate_value": "SAM, values"}
"""The methods of an engine, and the names that they are reported under."""

WARM_UP = 8
"""The number of frames before the clock starts. In these every kind of frame comes twice."""


def get_args_parser():
    parser = OptionParser("benchmark.py", __doc__)
    parser.add_settings(BenchmarkSettings, "what is measured")
    parser.add_argument("--json", metavar="FILE", help="also write all figures into this file (default: print them)")
    return parser


def main(args):
    settings = benchmark_settings(args)
    torch.set_num_threads(settings.threads or computing_threads())
    device = pick_device(settings.device)
    if device.type == "cpu" and settings.mode != "stm":
        keep_freed_memory()
    torch.manual_seed(0)
    network = load_network(settings.model, device) if settings.model else \
        RDE(PRESETS[settings.preset]).to(device).eval()
    bench = Bench(settings, network, device)
    chosen = PROTOCOLS if "all" in settings.protocol else settings.protocol
    print(f"{bench.stamp['device']}, torch {torch.__version__}, network {bench.stamp['network']}")
    if "all" in settings.protocol:
        # Also measure what the chosen settings are compared with.
        for precision, reference in dict.fromkeys((("float32", True), (settings.precision, True), ("float32", False))):
            if (precision, reference) != (settings.precision, settings.reference):
                other = dataclasses.replace(settings, precision=precision, reference=reference, compile=False)
                Bench(other, network, device, bench.rows).stcn()
    for protocol in chosen:
        METHODS[protocol](bench)
    if args.json:
        write_json(args.json, bench.rows)
        print(f"wrote {len(bench.rows)} rows to {args.json}")
    return 0


class Bench:
    """The protocols, one method each. The results are `rows`: dicts of settings and figures."""

    def __init__(self, settings, network, device, rows=None):
        self.settings, self.network, self.device = settings, network, device
        self.dtype = getattr(torch, settings.precision)
        self.size = tuple(settings.size)
        self.frames = settings.frames or FRAMES
        self.rows = [] if rows is None else rows
        self.stamp = {
            "device": device_name(device),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cuda": torch.version.cuda if device.type == "cuda" else None,
            "network": preset_name(network.config),
            "mode": settings.mode,
            "precision": settings.precision,
            "compiled": settings.compile,
            "form": "plain" if settings.reference else "inference",
        }
        self._peak = self._core = None

    def report(self, protocol, figures, **other):
        """Print a row and keep it. other: settings of this row that differ from the usual ones."""
        stamp = {**self.stamp, "size": list(self.size), "objects": self.settings.objects, **other}
        self.rows.append({"protocol": protocol, **stamp, **figures})
        settings = f"{stamp['size'][0]}×{stamp['size'][1]}, {stamp['objects']} obj., {stamp['precision']}"
        settings += ", compiled" * stamp["compiled"] + ", plain" * (stamp["form"] == "plain")
        line = ", ".join(f"{name} {_format(value)}" for name, value in figures.items())
        print(f"{protocol:10} {settings:44} {line}", flush=True)

    def core(self):
        """Return the core that all protocols share, so that what is compiled for one serves the next."""
        if self._core is None:
            self._core = self._make_new_core()
        return self._core

    def _make_new_core(self):
        torch.compiler.reset()
        return self._make_core(self._make_engine())

    def _make_engine(self):
        """Return the engine that tracking runs, in the chosen precision."""
        if self.settings.reference:
            engine = PlainEngine(self.network, self.dtype)
        else:
            engine = take_snapshot(self.network, self.dtype, packed=not self.settings.compile)
        return CompiledEngine(engine, growing=self.settings.mode == "stm") if self.settings.compile else engine

    def _make_core(self, engine):
        return InferenceCore(engine, self.settings.mode, self.settings.mem_every, self.settings.top_k)

    def read_peak_memory(self):
        return {f"peak_{kind}_mb": value for kind, value in peak_memory_mb(self.device).items() if value}

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def measure_peak(self):
        """Return the floating point operations per second of one large 3×3 convolution."""
        if self._peak is None:
            images, rounds = (32, 20) if self.device.type == "cuda" else (1, 5)
            x = torch.randn(images, 256, 120, 216, device=self.device, dtype=self.dtype)
            weight = torch.randn(256, 256, 3, 3, device=self.device, dtype=self.dtype)
            x, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, weight))
            with torch.inference_mode(), _search_fastest():
                seconds = self._time_fastest(lambda: F.conv2d(x, weight, padding=1), rounds)
            self._peak = 2 * x.numel() * 256 * 9 / seconds
        return self._peak

    def _time_fastest(self, function, rounds):
        """Return the seconds of the fastest of so many calls, after two that do not count."""
        times = []
        for _ in range(rounds + 2):
            self.wait()
            start = time.perf_counter()
            function()
            self.wait()
            times.append(time.perf_counter() - start)
        return min(times[2:])

    def warm_up(self, core, clip):
        """Reset the core and run the first frames of a clip."""
        core.reset()
        for index in range(WARM_UP):
            core.to_mask(core.step(clip.frame(index), clip.mask if index == 0 else None))
        self.wait()

    def measure_throughput(self, core, clip, frames):
        """Return milliseconds per frame, for memory and other frames. The first frame and its mask are not counted."""
        core.reset()
        core.step(clip.frame(0), clip.mask)
        for index in range(1, 1 + self.settings.mem_every):
            core.step(clip.frame(index))
        images = [clip.frame(index) for index in range(frames)]
        self.wait()
        start = time.perf_counter()
        for image in images:
            core.to_mask(core.step(image))
        self.wait()
        return (time.perf_counter() - start) * 1000 / frames

    def count_flop(self, clip):
        """Return the floating point operations per frame: the mean from one memory frame up to the next."""
        return sum(sum(calls) for calls in self._count_operations(clip).values()) / self.settings.mem_every

    def stcn(self):
        """Measure throughput. The frames lie on the device."""
        clip = MovingNoise(self.size, self.settings.objects, self.device)
        first = self._core is None
        start = time.perf_counter()
        core = self.core()
        self.warm_up(core, clip)
        cold = {"cold_start_s": time.perf_counter() - start} if first else {}
        milliseconds = self.measure_throughput(core, clip, self.frames)
        flop = self.count_flop(clip)
        self.report("stcn", {
            "ms_per_frame": milliseconds, "frames_per_second": 1000 / milliseconds, **cold,
            "gflop_per_frame": flop / 1e9, "peak_gflop_per_s": self.measure_peak() / 1e9,
            "share_of_peak": flop / (milliseconds / 1000) / self.measure_peak(),
        })

    def step(self):
        """Measure latency. The frames come as arrays on the host, and the masks go back there."""
        clip = MovingNoise(self.size, self.settings.objects, torch.device("cpu"))
        core = self.core()
        self.warm_up(core, clip)
        times = []
        for image in [clip.frame(index) for index in range(self.frames)]:
            start = time.perf_counter()
            core.to_mask(core.step(image)).cpu()
            times.append((time.perf_counter() - start) * 1000)
        self.report("step", {"p50_ms": statistics.median(times), "p95_ms": float(np.percentile(times, 95)),
                             "mean_ms": statistics.mean(times)})

    def phases(self):
        """Measure each part on its own, waiting for the device before and after."""
        clip = MovingNoise(self.size, self.settings.objects, self.device)
        operations = self._count_operations(clip)
        measured = MeasuredEngine(self._make_engine())
        core = self._make_core(measured)
        self.warm_up(core, clip)
        rounds = max(1, self.frames // self.settings.mem_every)
        times = self._record_calls(core, measured, clip, self._time_call, rounds)
        for part, calls in operations.items():
            seconds, flop = statistics.median(times[part]), statistics.mean(calls)
            self.report(f"- {part}", {
                "ms_per_call": seconds * 1000, "calls_per_frame": len(calls) / self.settings.mem_every,
                "gflop": flop / 1e9, "share_of_peak": flop / seconds / self.measure_peak(),
            })

    def _count_operations(self, clip):
        """Return {part: floating point operations of each call} over `mem_every` frames."""
        # Torch counts its own operations and not oneDNN's, so oneDNN is switched off. Half precision is then slow on a
        # CPU. So a CPU counts in float32, where the number is the same.
        dtype = torch.float32 if self.device.type == "cpu" else self.dtype
        with warnings.catch_warnings():
            # Torch also sets its TF32 flag here, and warns that only some GPUs have it.
            warnings.simplefilter("ignore")
            with torch.backends.mkldnn.flags(enabled=False):
                engine = (PlainEngine if self.settings.reference else InferenceNetwork)(self.network, dtype)
                measured = MeasuredEngine(engine)
                return self._record_calls(self._make_core(measured), measured, clip, _count_call)

    def _record_calls(self, core, measured, clip, record, rounds=1):
        """Return {part: [what `record` found of each call]} over some rounds of `mem_every` frames."""
        core.reset()
        core.step(clip.frame(0), clip.mask)
        for index in range(1, 1 + 2 * self.settings.mem_every):
            core.step(clip.frame(index))
        measured.record, measured.found = record, {}
        for index in range(rounds * self.settings.mem_every):
            core.step(clip.frame(index))
        return measured.found

    def _time_call(self, function, *inputs):
        """Return a function's result and the seconds that it took."""
        self.wait()
        start = time.perf_counter()
        result = function(*inputs)
        self.wait()
        return result, time.perf_counter() - start

    def end_to_end(self):
        """Measure from JPEG files to PNG files. Threads decode ahead and write behind, as in the evaluation scripts."""
        clip = MovingNoise(self.size, self.settings.objects, torch.device("cpu"))
        core = self.core()
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, f"{index:05d}.jpg") for index in range(self.frames + 1)]
            for index, file in enumerate(files):
                Image.fromarray(clip.frame(index).numpy()).save(file, quality=95)
            self.warm_up(core, clip)
            on_device = MovingNoise(self.size, self.settings.objects, self.device)
            alone = self.measure_throughput(core, on_device, self.frames)
            core.reset()
            writing = Background(threads=2)

            def first_mask(name, image):
                return clip.mask if name == files[0].stem else None

            try:
                for index, frame in enumerate(track_frames(core, ImageFrames(files), first_mask)):
                    if index == 0:
                        start = time.perf_counter()
                    writing.submit(write_mask, Path(folder, f"{frame.name}.png"), frame.ids)
                writing.wait()
                milliseconds = (time.perf_counter() - start) * 1000 / self.frames
            finally:
                writing.close()
        self.report("end-to-end", {"ms_per_frame": milliseconds, "frames_per_second": 1000 / milliseconds,
                                   "share_of_network_only": alone / milliseconds})

    def memory(self):
        """Measure how memory grows over many frames. On the CPU the frames are small: only the growth matters."""
        frames = self.settings.frames or MEMORY_FRAMES
        size = self.size if self.device.type == "cuda" else (96, 160)
        clip = MovingNoise(size, self.settings.objects, self.device)
        core = self.core()
        self.warm_up(core, clip)
        bar = progress_bar(frames, "memory")
        held, process, ended = [], [], [time.perf_counter()]
        for index in range(frames):
            core.step(clip.frame(index))
            self.wait()
            ended.append(time.perf_counter())
            bar.increment()
            held.append(core.memory_bytes)
            process.append(torch.cuda.memory_allocated() if self.device.type == "cuda" else resident())
        bar.finish(dirty=True)
        for count in (count for count in LENGTHS if count <= frames):
            latest = np.diff(ended[count - count // 2:count + 1])
            self.report("memory", {"frames": count, "p50_ms": float(np.median(latest) * 1000),
                                   "core_mb": held[count - 1] / 1e6, "process_mb": process[count - 1] / 1e6},
                        size=list(size))
        half = frames // 2
        slopes = (float(np.polyfit(range(frames - half), series[half:], 1)[0]) for series in (held, process))
        figures = dict(zip(("core_bytes_per_frame", "process_bytes_per_frame"), slopes, strict=True))
        self.report("memory", {"frames": frames, **figures, "core_mb": held[-1] / 1e6, **self.read_peak_memory()},
                    size=list(size))

    def objects(self):
        """Measure throughput by the number of objects."""
        single = None
        for objects in OBJECTS:
            clip = MovingNoise(self.size, objects, self.device)
            core = self.core()
            self.warm_up(core, clip)
            # Many objects take long, and their time varies little.
            frames = self.frames if objects <= 10 else min(self.frames, self.settings.mem_every)
            milliseconds = self.measure_throughput(core, clip, frames)
            single = single or milliseconds
            self.report("objects", {"ms_per_frame": milliseconds, "frames_per_second": 1000 / milliseconds,
                                    "times_one_object": milliseconds / single}, objects=objects)

    def sizes(self, names=None):
        """Measure throughput and peak memory by the size of the frames, with one object. names: some of SIZES."""
        for name in names or SIZES:
            size = SIZES[name]
            clip = MovingNoise(size, 1, self.device)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            core = self._make_new_core()
            self.warm_up(core, clip)
            milliseconds = self.measure_throughput(core, clip, min(self.frames, 2 * self.settings.mem_every))
            self.report("size", {"name": name, "ms_per_frame": milliseconds, "frames_per_second": 1000 / milliseconds,
                                 **self.read_peak_memory()}, size=list(size), objects=1)

    def train(self):
        """Measure stages 0 and 3. With data, also measure the share of the time that a step waits for it."""
        if self.device.type == "cpu":
            keep_freed_memory()
        for stage, root in ((0, self.settings.static_root), (3, self.settings.video_root)):
            for precision, compiled in (("float32", False), ("mixed", False), ("mixed", True)):
                if compiled and not self.settings.compile:
                    continue
                data = DataSettings(workers=self.settings.workers, crop=self.settings.crop)
                if root:
                    data = dataclasses.replace(data, **{"video_root" if stage else "static_root": root})
                settings = TrainingSettings(
                    data, fill_recipe(RecipeSettings(stage=stage)), LossSettings(),
                    NetworkSettings(preset=self.stamp["network"], backbone_weights="none"),
                    RunningSettings(no_amp=precision == "float32", compile=compiled))
                self.measure_training(settings, root)

    def measure_training(self, settings, root=None):
        """Report the time of training steps, on one batch of noise.

        settings: TrainingSettings. root: the data to wait for, None to leave that out.
        """
        recipe, crop = settings.recipe, settings.data.crop
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        torch.manual_seed(0)
        trainer = Trainer(make_starting_network(settings.network, recipe.stage), settings, self.device)
        batch = make_noise_batch(recipe.stage, recipe.batch_size, crop, self.device, recipe.rollout)
        steps = 10 if self.device.type == "cuda" else 1
        start = time.perf_counter()
        for _ in range(3 if self.device.type == "cuda" else 1):
            trainer.step([batch], 0)
        self.wait()
        cold = time.perf_counter() - start
        start = time.perf_counter()
        for _ in range(steps):
            trainer.step([batch], 0)
        self.wait()
        seconds = (time.perf_counter() - start) / steps
        figures = {"ms_per_step": seconds * 1000, "batch": recipe.batch_size, "rollout": recipe.rollout,
                   "samples_per_second": recipe.batch_size / seconds, "cold_start_s": cold, **self.read_peak_memory()}
        if root:
            figures["data_wait"] = self._measure_data_wait(trainer, settings, steps)
        self.report(f"stage {recipe.stage}", figures, size=[crop, crop], objects=2 if recipe.stage else 1,
                    precision=trainer.precision, compiled=settings.running.compile, form="training", mode=None)

    def _measure_data_wait(self, trainer, settings, steps):
        """Return the share of the time that steps wait for their batches."""
        batches = load_batches(make_training_dataset(settings),
                               BatchNumbers(settings.recipe.batch_size, 0, 3 + steps),
                               workers=settings.data.workers, pin_memory=self.device.type == "cuda")
        waited = 0
        for number in range(3 + steps):
            if number == 3:
                start, waited = time.perf_counter(), 0
            began = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - began
            trainer.step([batch], 0)
        self.wait()
        return waited / (time.perf_counter() - start)

    def runtimes(self):
        """Measure each runtime on the same frames. They take turns, so that all have the machine at its best and worst.

        Raises InputError where the protocol does not fit, or no other runtime is installed.
        """
        settings, cycle = self.settings, self.settings.mem_every
        if self.device.type != "cpu" or settings.mode != MODE:
            raise InputError(f"--protocol runtimes is for --device cpu and --mode {MODE}")
        clip, first = MovingNoise(self.size, settings.objects, self.device), -WARM_UP // cycle
        # Another protocol may have used the core before.
        self.core().reset()
        with tempfile.TemporaryDirectory() as folder:
            for path, _ in write_graphs(self.network, Sizes(self.size), Path(folder), settings.top_k):
                print(f"exported {path.name}", flush=True)
            trackers = {"ours": self.core(), **self._open_runtimes(folder)}
            if len(trackers) == 1:
                raise InputError(f"no other runtime computes in {settings.precision} here; pip install onnxruntime "
                                 "openvino")
            times = {name: [] for name in trackers}
            for number in range(first, max(1, self.frames // cycle)):
                for name, tracker in trackers.items():
                    start = time.perf_counter()
                    for index in range(cycle):
                        image = clip.frame(index).numpy()
                        mask = clip.mask if number == first and index == 0 else None
                        ids = tracker.step(image, mask)
                        if name == "ours":
                            ids = tracker.to_mask(ids).numpy()
                    if number >= 0:
                        times[name].append((time.perf_counter() - start) * 1000 / cycle)
        ours = statistics.median(times["ours"])
        for name, found in times.items():
            milliseconds = statistics.median(found)
            self.report("runtimes", {"runtime": name, "ms_per_frame": milliseconds, "best_ms": min(found),
                                     "frames_per_second": 1000 / milliseconds, "times_ours": milliseconds / ours})

    def _open_runtimes(self, folder):
        """Return {name: OnnxTracker} of the runtimes that are installed and compute in the chosen precision."""
        trackers, threads = {}, torch.get_num_threads()
        if onnxruntime is not None and self.dtype == torch.float32:
            trackers[f"onnxruntime {onnxruntime.__version__}"] = OnnxTracker(folder, self.settings.mem_every, threads)
        with contextlib.suppress(ImportError):
            import openvino
            hint = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[self.dtype]
            open_graph = functools.partial(OpenVINOGraph, objects=self.settings.objects, options={
                "INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"})
            name = f"OpenVINO {openvino.__version__.partition('-')[0]}"
            trackers[name] = OnnxTracker(folder, self.settings.mem_every, open_graph=open_graph)
        return trackers


class OpenVINOGraph:
    """An ONNX graph that OpenVINO runs, to be called as a session of onnxruntime is.

    objects: the number of objects, which OpenVINO then takes for fixed. options: of openvino.Core.compile_model.
    """

    def __init__(self, path, objects, options):
        import openvino
        core = openvino.Core()
        graph = core.read_model(path)
        graph.reshape({tensor.any_name: [objects if size.is_dynamic else size.get_length()
                                         for size in tensor.partial_shape] for tensor in graph.inputs})
        self._compiled = core.compile_model(graph, "CPU", options)
        self._request = self._compiled.create_infer_request()

    def get_inputs(self):
        return [GraphTensor(each.any_name, list(each.shape)) for each in self._compiled.inputs]

    def get_outputs(self):
        return [GraphTensor(each.any_name, list(each.shape)) for each in self._compiled.outputs]

    def run(self, _, tensors):
        # What it returns are copies, which later calls do not change.
        results = self._request.infer(tensors, share_inputs=True)
        return [results[each] for each in self._compiled.outputs]


class GraphTensor(NamedTuple):
    """What a graph takes or returns."""

    name: str
    shape: list


class MeasuredEngine:
    """An engine that runs another one, and each of its parts through `record` once that is set.

    record(function, *inputs) returns the function's result and a figure. `found` collects the figures as {part:
    [figures]}.
    """

    def __init__(self, engine):
        self.config, self.dtype, self.device = engine.config, engine.dtype, engine.device
        self.record, self.found = None, {}
        for name, part in PARTS.items():
            if hasattr(engine, name):
                setattr(self, name, functools.partial(self._call, part, getattr(engine, name)))

    def _call(self, part, function, *inputs):
        if self.record is None:
            return function(*inputs)
        result, figure = self.record(function, *inputs)
        self.found.setdefault(part, []).append(figure)
        return result


def _count_call(function, *inputs):
    """Return a function's result and the number of its floating point operations."""
    with FlopCounterMode(display=False) as counter:
        result = function(*inputs)
    return result, counter.get_total_flops()


@contextlib.contextmanager
def _search_fastest():
    """Let cuDNN search for the fastest convolution inside a `with` block."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _format(value):
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


METHODS = {"stcn": Bench.stcn, "step": Bench.step, "phases": Bench.phases, "end-to-end": Bench.end_to_end,
           "memory": Bench.memory, "objects": Bench.objects, "size": Bench.sizes, "train": Bench.train,
           "runtimes": Bench.runtimes}


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
