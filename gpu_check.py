"""Check and measure on a GPU whatever only a GPU can tell, in a few minutes: to be run first where one is rented.

    python gpu_check.py --rehearse                    # tiny, on the CPU: before a GPU costs money
    python gpu_check.py --davis-path DAVIS/2017       # or: make gpu-check DAVIS=DAVIS/2017
    python gpu_check.py --minutes 3 --json out/gpu_check.json

Parts, in this order:
    tests            the tests marked `cuda`: masks, probabilities and training steps are those of the CPU
    training         samples per second of stage 3's step, on batches of noise
    tracking         benchmark.py's protocols stcn and step, in float16, eager and compiled
    scores           J&F of the compact network on DAVIS's validation set, in float32 and float16; needs --davis-path
    memory           peak memory with one object, 480p and 4K, float16
    faster-training  as training, in all other forms that a step has

Each part runs in a process of its own, so that the others go on even if it crashes. What it found is kept if it fails
or if its time is over. The JSON file is written anew after each part, and a table in Markdown is printed at the end.
The exit code is 0 if all parts passed that were asked for, else 1. The tests also compare with the references in
shared/ beside the repository, or where RDE_SHARED points, if they are there.

A machine needs the packages of requirements.txt without av and gdown, and pytest. For --davis-path, a folder that holds
no other sequences than those of val.txt is enough.
"""

import collections
import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import platform
import signal
import sys
import time
import traceback
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmark import Bench
from evaluation.validation import check_validation, validate
from model import PRESETS, RDE, load_network
from util.device import device_name, pick_device
from util.errors import InputError, run_script
from util.files import write_json
from util.hyper_para import (
    COMPACT,
    BenchmarkSettings,
    DataSettings,
    LossSettings,
    NetworkSettings,
    RecipeSettings,
    RunningSettings,
    TrainingSettings,
    fill_recipe,
)
from util.machine import available_cores
from util.options import OptionParser, positive

ROOT = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large everything is that is checked and measured."""

    device: str

    tests: str
    """Which tests to run, as pytest's option -m takes it."""

    presets: tuple
    """The networks that track."""

    size: tuple
    """(height, width) of the frames."""

    frames: int

    compiled: tuple
    """Whether to measure tracking eager (False), compiled (True) or both."""

    lines: int | None
    """The frames' shorter side, in pixels, at which J&F is measured; 0: their own, None: that of the evaluation."""

    sizes: tuple
    """Names of the sizes whose peak memory is measured."""

    trained: str
    """The network that is trained."""

    crop: int

    batches: tuple
    """The batch sizes of the training."""

    faster: dict
    """{form of a training step other than eager: the RunningSettings that choose it}, the quickest to start first."""


GPU = Scale("cuda", "cuda", ("base", "compact"), (480, 854), 30, (False, True), None, ("480p", "4K"), "compact",
            384, (16, 64, 128), {"captured": {"capture": True}})

REHEARSAL = Scale("cpu", "cuda and not slow", ("tiny",), (64, 96), 3, (False,), 0, ("240p",), "tiny", 32, (1,), {})
"""Compiling is not rehearsed: on a CPU it takes minutes."""

ROLLOUT = 9
"""The number of frames of the rollouts that are measured."""

LARGEST_DIFFERENCE = 0.3
"""The points of J&F, in percent, by which float16 may differ from float32."""


class CheckFailed(Exception):
    """A part found something wrong."""


def get_args_parser():
    parser = OptionParser("gpu_check.py", __doc__)
    parser.add_argument("--rehearse", action="store_true",
                        help="run all of it on the CPU, with tiny networks and frames (default: on a GPU)")
    parser.add_argument("--minutes", type=positive, default=9, metavar="M",
                        help="leave out what does not fit into M minutes (default: %(default)s)")
    parser.add_argument("--davis-path", metavar="FOLDER",
                        help="DAVIS, DAVIS/2017, or the folder in it that holds JPEGImages; the sequences of its "
                             "val.txt are scored (default: no scores)")
    parser.add_argument("--json", default="out/gpu_check.json", metavar="FILE",
                        help="write all results into this file (default: %(default)s)")
    return parser


def main(args):
    scale = REHEARSAL if args.rehearse else GPU
    end = time.monotonic() + 60 * args.minutes
    if not (args.rehearse or torch.cuda.is_available()):
        raise InputError("there is no GPU here that torch can use; --rehearse runs all of this on the CPU, in small")
    device = pick_device(scale.device)
    if args.davis_path:
        check_validation(args.davis_path)
    Path(args.json).parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": describe_machine(device), "rehearsal": args.rehearse, "parts": {}}
    for name, (part, least, most) in PARTS.items():
        left = end - time.monotonic()
        print(f"\n--- {name}", flush=True)
        if name == "scores" and not args.davis_path:
            outcome = {"state": "not asked for", "why": "--davis-path was not given"}
        elif name == "faster-training" and not scale.faster:
            outcome = {"state": "not asked for", "why": "a rehearsal compiles nothing"}
        elif left < least:
            outcome = {"state": "left out", "why": f"{left:.0f} s are left, and it needs {least} s"}
        else:
            outcome = run_part(part, scale, args.davis_path, min(left, most))
        print(f"--- {name}: {outcome['state']}{': ' * bool(outcome['why'])}{outcome['why']}", flush=True)
        results["parts"][name] = outcome
        write_json(args.json, results)
    print(f"\n{make_table(results)}\nwrote {args.json}")
    return int(any(outcome["state"] not in ("passed", "not asked for") for outcome in results["parts"].values()))


def check_tests(scale, davis_path, rows):
    """Run the tests marked `cuda`; each is a row."""
    import pytest

    class Results:
        def pytest_collection_modifyitems(self, items):
            """Let those be the last that compile, since that takes longest."""
            items.sort(key=lambda item: "compiled" in item.name)

        def pytest_runtest_logreport(self, report):
            if report.when == "call" or report.outcome != "passed":
                row = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2)}
                if report.outcome != "passed":
                    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longreprtext
                    row["why"] = reason.strip().splitlines()[-1]
                rows.append({**row, **dict(report.user_properties)})

    os.chdir(ROOT)
    os.environ["RDE_CHECK_DEVICE"] = scale.device
    # Other files import packages that are not on every machine.
    files = sorted(str(file) for file in Path("tests").rglob("test_*.py") if "mark.cuda" in file.read_text())
    code = pytest.main(["-m", scale.tests, "--tb=short", "-p", "no:cacheprovider", *files], plugins=[Results()])
    if code:
        raise CheckFailed(f"pytest ended with exit code {int(code)}")


def measure_training(scale, davis_path, rows):
    """Measure stage 3's step, of five frames and of rollouts."""
    for rollout, precision, batch in itertools.product((0, ROLLOUT), ("bfloat16", "float32"), scale.batches):
        measure_step(scale, rows, "eager", {}, precision, batch, rollout)


def measure_faster_training(scale, davis_path, rows):
    """Measure stage 3's step of five frames in its other forms."""
    for (form, chosen), batch in itertools.product(scale.faster.items(), scale.batches):
        measure_step(scale, rows, form, chosen, "bfloat16", batch)


def measure_step(scale, rows, form, chosen, precision, batch, rollout=0):
    """Measure a training step. form: its name. chosen: the RunningSettings that choose this form."""
    running = RunningSettings(no_amp=precision == "float32", amp_dtype=None if precision == "float32" else precision,
                              **chosen)
    settings = TrainingSettings(
        DataSettings(crop=scale.crop), fill_recipe(RecipeSettings(stage=3, batch_size=batch, rollout=rollout)),
        LossSettings(), NetworkSettings(preset=scale.trained, backbone_weights="none"), running)
    bench = make_bench(scale, rows, preset=scale.trained)
    bench.stamp["step"] = form
    try:
        bench.measure_training(settings)
    except torch.cuda.OutOfMemoryError:
        # This is a result, too.
        rows.append({**bench.stamp, "protocol": "stage 3", "precision": precision, "batch": batch, "rollout": rollout,
                     "why": "out of memory"})


def measure_tracking(scale, davis_path, rows):
    """Measure throughput and latency of each network; compiled last, since that takes longest to start."""
    for compiled, preset in itertools.product(scale.compiled, scale.presets):
        bench = make_bench(scale, rows, preset=preset, compile=compiled)
        bench.stcn()
        bench.step()


def measure_scores(scale, davis_path, rows):
    """Compare the compact network's J&F in float32 and float16."""
    network = load_network(COMPACT, pick_device(scale.device))
    scores = []
    for precision in ("float32", "float16"):
        start = time.perf_counter()
        figures = validate(network, davis_path, amp=precision != "float32" and precision, lines=scale.lines)
        rows.append({"network": "compact", "precision": precision, "seconds": time.perf_counter() - start, **figures})
        scores.append(figures["J&F"])
    if not abs(scores[0] - scores[1]) <= LARGEST_DIFFERENCE:
        raise CheckFailed(f"J&F is {scores[0]:.2f} in float32 and {scores[1]:.2f} in float16")


def measure_memory(scale, davis_path, rows):
    """Measure peak memory by the size of the frames."""
    for preset in scale.presets:
        make_bench(scale, rows, preset=preset).sizes(scale.sizes)


PARTS = {
    "tests": (check_tests, 60, 300),
    "training": (measure_training, 30, 120),
    "tracking": (measure_tracking, 30, 180),
    "scores": (measure_scores, 20, 90),
    "memory": (measure_memory, 15, 60),
    "faster-training": (measure_faster_training, 30, 200),
}
"""{name: (function, seconds that must be left for it to start, seconds after which it is stopped)}."""


def make_bench(scale, rows, preset, **options):
    """Return the Bench of a network with random weights, in float16. Its rows go into `rows`."""
    device = pick_device(scale.device)
    torch.manual_seed(0)
    settings = BenchmarkSettings(preset=preset, precision="float16", size=scale.size, frames=scale.frames, **options)
    return Bench(settings, RDE(PRESETS[preset]).to(device).eval(), device, rows)


class SentRows:
    """Rows that go to the process that prints and keeps them, one by one."""

    def __init__(self, connection):
        self._connection = connection

    def append(self, row):
        self._connection.send(("row", row))


def run_part(part, scale, davis_path, limit):
    """Run a part in a process of its own, for at most `limit` seconds. Return {"state", "why", "seconds", "rows"}."""
    start = time.monotonic()
    connection, other_end = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=be_part, args=(part, scale, davis_path, other_end))
    process.start()
    other_end.close()
    rows, ending = [], None
    try:
        while ending is None and connection.poll(max(0, start + limit - time.monotonic())):
            kind, content = connection.recv()
            if kind == "row":
                rows.append(content)
            else:
                ending = kind, content
        ending = ending or ("stopped", f"after {limit:.0f} s")
    except EOFError:
        process.join()
        ending = "failed", f"its process ended with exit code {process.exitcode}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            # The part's own processes end with it.
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
    return {"state": ending[0], "why": ending[1], "seconds": round(time.monotonic() - start, 1), "rows": rows}


def be_part(part, scale, davis_path, connection):
    """Run a part as the only thing that this process does."""
    os.setpgid(0, 0)
    try:
        part(scale, davis_path, SentRows(connection))
        connection.send(("passed", ""))
    except Exception as error:
        # Whatever stops a part is its result.
        if not isinstance(error, CheckFailed):
            traceback.print_exc()
        connection.send(("failed", f"{type(error).__name__}: {error}".splitlines()[0]))


def describe_machine(device):
    """Return {what: value} of the machine and of all that computes on it."""
    on_gpu = device.type == "cuda"
    return {
        "device": device_name(device),
        "gpu_memory_gb": round(torch.cuda.mem_get_info(device)[1] / 1e9, 1) if on_gpu else None,
        "processor": device_name(torch.device("cpu")), "cores": available_cores(), "system": platform.platform(),
        "date": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "torch": torch.__version__,
        "cuda": torch.version.cuda if on_gpu else None, "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "torchvision": metadata.version("torchvision"), "numpy": np.__version__, "opencv": cv2.__version__,
    }


def make_table(results):
    """Return the results as a table in Markdown, a line for each measurement and for each test with its cases."""
    machine = results["machine"]
    lines = [f"{machine['device']}, torch {machine['torch']}, CUDA {machine['cuda']}, {machine['cores']} cores, "
             f"{machine['date']}" + ", rehearsal: no figure means anything" * results["rehearsal"], "",
             "| part | what | result |", "|---|---|---|"]
    for name, outcome in results["parts"].items():
        seconds = f", {outcome['seconds']} s" if "seconds" in outcome else ""
        lines.append(f"| {name} | | **{outcome['state']}**{seconds} {outcome['why']} |")
        rows = outcome.get("rows", [])
        lines += [f"| {name} | {what} | {result} |" for what, result in
                  (summarise_tests(rows) if name == "tests" else map(summarise_row, rows))]
    return "\n".join(lines)


def summarise_tests(rows):
    """Yield (test, how many of its cases ended how and the largest of each of its figures)."""
    tests = {}
    for row in rows:
        tests.setdefault(row["test"].partition("[")[0].removeprefix("tests/"), []).append(row)
    for test, cases in tests.items():
        counts = collections.Counter(case["outcome"] for case in cases)
        parts = [f"{count} {outcome}" for outcome, count in counts.items()]
        for name in dict.fromkeys(name for case in cases for name in case):
            if name not in ("test", "outcome", "seconds", "why"):
                parts.append(f"{name} {max(case.get(name, 0) for case in cases):.2g}")
        yield test.replace("::", ": "), ", ".join(parts)


def summarise_row(row):
    """Return (what was measured, its figures)."""
    what = [row[name] for name in ("protocol", "network", "precision", "step") if row.get(name)]
    what += ["compiled"] * (row.get("compiled", False) and "step" not in row)
    what += [f"{name} {row[name]}" for name in ("batch", "rollout") if row.get(name)]
    if row.get("size"):
        what.append(f"{row['size'][0]}×{row['size'][1]}, objects {row['objects']}")
    figures = [f"{name.replace('_', ' ')} {row[name]:.4g}" for name in FIGURES if name in row]
    return ", ".join(what), row.get("why") or ", ".join(figures)


FIGURES = ("frames_per_second", "ms_per_frame", "p50_ms", "p95_ms", "share_of_peak", "samples_per_second",
           "ms_per_step", "cold_start_s", "peak_gpu_mb", "J&F", "J", "F")
"""The figures of a row that the table shows."""


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
