"""How fast scoring is: milliseconds per frame and object, and memory, on one and the same folder.

    pip install vos-benchmark zlib-ng          # both optional, for the rows that compare with them
    python evaluation/scoring_speed.py --folder out/scoring_load

Makes 10 sequences of 70 frames, 480×854, with two objects each (blobs that move and turn, predictions with
their outlines distorted) unless the folder has them, and measures each way of scoring them in processes of
their own, in turns, several times.
"""

import importlib.util
import os
import statistics
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.errors import InputError, run_script
from util.hyper_para import OptionParser, positive
from util.image_io import write_mask

ROOT = Path(__file__).resolve().parents[1]
SEQUENCES, FRAMES, HEIGHT, WIDTH, OBJECTS = 10, 70, 480, 854, 2
SCORED = SEQUENCES * (FRAMES - 2) * OBJECTS  # frames and objects: the first and the last do not count

DECODE = """
import numpy, pathlib, time
from PIL import Image
start = time.perf_counter()
for path in pathlib.Path({folder!r}).glob("*/*/*.png"):
    if path.stem not in ({first!r}, {last!r}):
        numpy.array(Image.open(path))
print(time.perf_counter() - start)
"""
OURS = """
import sys, time
sys.modules.update({blocked})
sys.path.insert(0, {root!r})
from pathlib import Path
from evaluation.generic import GenericSettings, find_clips, score_objects
folder = Path({folder!r})
settings = GenericSettings(ground_truth=folder / "truth", results=folder / "results", workers={n})
start = time.perf_counter()
score_objects(*find_clips(settings), settings)
print(time.perf_counter() - start)
"""
PEER = """
import time
from vos_benchmark.benchmark import benchmark
start = time.perf_counter()
benchmark([{folder!r} + "/truth"], [{folder!r} + "/results"], num_processes={n}, verbose=False)
print(time.perf_counter() - start)
"""


def get_args_parser():
    parser = OptionParser("scoring_speed.py", __doc__)
    parser.add_argument("--folder", type=Path, required=True, metavar="FOLDER",
                        help="where the masks are or will be")
    parser.add_argument("--rounds", type=positive, default=5, metavar="N",
                        help="measure each way so many times (default: %(default)s)")
    return parser


def blob(centre, size, waves, turn):
    """The outline, int32 180×1×2, of a round shape; waves: complex amplitudes of its harmonics 2, 3, …"""
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    harmonics = np.arange(2, 2 + len(waves))[:, None]
    radius = size * (1 + np.sum((waves[:, None] * np.exp(1j * harmonics * (angle + turn))).imag, axis=0))
    points = np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], 1)
    return np.round(points).astype(np.int32)[:, None]


def make_load(folder):
    """Write truth/SEQUENCE/FRAME.png and results/SEQUENCE/FRAME.png."""
    for s in range(SEQUENCES):
        random = np.random.default_rng(s)
        start = random.uniform((0.2, 0.3), (0.8, 0.7), (OBJECTS, 2)) * (WIDTH, HEIGHT)
        speed = random.uniform(-2, 2, (OBJECTS, 2))
        size = random.uniform(70, 130, OBJECTS)
        waves = random.uniform(0, 0.18, (OBJECTS, 6)) * np.exp(2j * np.pi * random.uniform(size=(OBJECTS, 6)))
        for side in ("truth", "results"):
            (folder / side / f"{s:02d}").mkdir(parents=True, exist_ok=True)
        for t in range(FRAMES):
            truth, result = np.zeros((2, HEIGHT, WIDTH), np.uint8)
            for k in range(OBJECTS):
                centre = start[k] + t * speed[k]
                cv2.fillPoly(truth, [blob(centre, size[k], waves[k], t / 40)], k + 1)
                noise = np.concatenate([waves[k], np.zeros(8)]) + random.normal(0, 0.01, 14)
                shift = random.normal(0, 1, 2)
                cv2.fillPoly(result, [blob(centre + shift, size[k], noise, t / 40)], k + 1)
            write_mask(folder / "truth" / f"{s:02d}" / f"{t:05d}.png", truth)
            write_mask(folder / "results" / f"{s:02d}" / f"{t:05d}.png", result)


def measure(code):
    """Seconds that the code prints and the largest memory in MB of any of its processes."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise InputError(f"{sys.executable}: a measured command failed with status {status}")
    return float(output.split()[-1]), usage.ru_maxrss / 1024


def main(args):
    if not (args.folder / "results" / f"{SEQUENCES - 1:02d}" / f"{FRAMES - 1:05d}.png").exists():
        make_load(args.folder)
    folder = str(args.folder)
    ways = {"decoding alone, PIL": DECODE.format(folder=folder, first="00000", last=f"{FRAMES - 1:05d}")}
    for n in (1, 2):
        without = OURS.format(folder=folder, root=str(ROOT), n=n, blocked="zlib_ng=None")
        ways[f"ours, base requirements, {n}"] = without
    if importlib.util.find_spec("zlib_ng"):
        for n in (1, 2):
            ways[f"ours, zlib-ng, {n}"] = OURS.format(folder=folder, root=str(ROOT), n=n, blocked="{}")
    if importlib.util.find_spec("vos_benchmark"):
        for n in (1, 2):
            ways[f"vos-benchmark, {n}"] = PEER.format(folder=folder, n=n)
    found = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, code in ways.items():
            found[name].append(measure(code))
    print("| way, processes | s, median | ms per frame and object | s, best | ms | MB per process |")
    print("|---|---|---|---|---|---|")
    for name, runs in found.items():
        times = [run[0] for run in runs]
        cells = [name]
        for seconds in (statistics.median(times), min(times)):
            cells += [f"{seconds:.2f}", f"{1000 * seconds / SCORED:.2f}"]
        print(f"| {' | '.join(cells)} | {max(run[1] for run in runs):.0f} |")


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
