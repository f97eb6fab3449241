"""Measure how fast scoring is, in milliseconds for each frame and object, and how much memory it needs.

    pip install vos-benchmark zlib-ng          # both optional: without them, the table has fewer rows
    python evaluation/scoring_speed.py --folder out/scoring_load

Makes 10 videos of 70 frames, 480×854, with two objects each, unless the folder has them. The objects are blobs that
move and turn, and the predictions are the same blobs with distorted outlines. Each way of scoring runs several times,
in turns with the others and in processes of its own.
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
from util.image_io import write_mask
from util.options import OptionParser, positive

ROOT = Path(__file__).resolve().parents[1]

VIDEOS, FRAMES, HEIGHT, WIDTH, OBJECTS = 10, 70, 480, 854, 2

SCORED = VIDEOS * (FRAMES - 2) * OBJECTS
"""Number of scored pairs of frame and object. The first and the last frame are not scored."""

DECODE = """
import numpy, pathlib, time
from PIL import Image
start = time.perf_counter()
for path in pathlib.Path({folder!r}).glob("*/*/*.png"):
    if path.stem not in ({first!r}, {last!r}):
        numpy.array(Image.open(path))
print(time.perf_counter() - start)
"""
"""Code that decodes the masks that are scored, and prints the seconds."""

OURS = """
import sys, time
sys.modules.update({blocked})
sys.path.insert(0, {root!r})
from pathlib import Path
from evaluation.generic import GenericSettings, find_videos, score_objects
folder = Path({folder!r})
settings = GenericSettings(ground_truth=folder / "truth", results=folder / "results", workers={n})
start = time.perf_counter()
score_objects(*find_videos(settings), settings)
print(time.perf_counter() - start)
"""
"""Code that scores with this repository, and prints the seconds."""

PEER = """
import time
from vos_benchmark.benchmark import benchmark
start = time.perf_counter()
benchmark([{folder!r} + "/truth"], [{folder!r} + "/results"], num_processes={n}, verbose=False)
print(time.perf_counter() - start)
"""
"""Code that scores with vos-benchmark, and prints the seconds."""


def get_args_parser():
    parser = OptionParser("scoring_speed.py", __doc__)
    parser.add_argument("--folder", type=Path, required=True, metavar="FOLDER",
                        help="folder with the masks; they are made if it has none")
    parser.add_argument("--rounds", type=positive, default=5, metavar="N",
                        help="measure each way so many times (default: %(default)s)")
    return parser


def make_blob(centre, size, waves, turn):
    """Return the outline of a round shape: int32 180×1×2, 180 points (x, y).

    centre: (x, y). size: radius. waves: complex amplitudes of the radius's harmonics 2, 3, … as shares of it. turn:
    radians by which the shape is turned.
    """
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    harmonics = np.arange(2, 2 + len(waves))[:, None]
    radius = size * (1 + np.sum((waves[:, None] * np.exp(1j * harmonics * (angle + turn))).imag, axis=0))
    points = np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], 1)
    return np.round(points).astype(np.int32)[:, None]


def make_load(folder):
    """Write truth/VIDEO/FRAME.png and results/VIDEO/FRAME.png below `folder`."""
    for s in range(VIDEOS):
        # Each object has a place, a speed, a size and a shape.
        random = np.random.default_rng(s)
        start = random.uniform((0.2, 0.3), (0.8, 0.7), (OBJECTS, 2)) * (WIDTH, HEIGHT)
        speed = random.uniform(-2, 2, (OBJECTS, 2))
        size = random.uniform(70, 130, OBJECTS)
        waves = random.uniform(0, 0.18, (OBJECTS, 6)) * np.exp(2j * np.pi * random.uniform(size=(OBJECTS, 6)))
        for side in ("truth", "results"):
            (folder / side / f"{s:02d}").mkdir(parents=True, exist_ok=True)
        # The prediction's objects are shifted by about a pixel and have distorted outlines.
        for t in range(FRAMES):
            truth, result = np.zeros((2, HEIGHT, WIDTH), np.uint8)
            for index in range(OBJECTS):
                centre = start[index] + t * speed[index]
                cv2.fillPoly(truth, [make_blob(centre, size[index], waves[index], t / 40)], index + 1)
                noise = np.concatenate([waves[index], np.zeros(8)]) + random.normal(0, 0.01, 14)
                shift = random.normal(0, 1, 2)
                cv2.fillPoly(result, [make_blob(centre + shift, size[index], noise, t / 40)], index + 1)
            write_mask(folder / "truth" / f"{s:02d}" / f"{t:05d}.png", truth)
            write_mask(folder / "results" / f"{s:02d}" / f"{t:05d}.png", result)


def measure(code):
    """Run code in a new interpreter. Return the seconds that it prints, and its largest process's peak memory in MB."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise InputError(f"{sys.executable}: the code to be measured ended with status {status}, 0 was expected")
    return float(output.split()[-1]), usage.ru_maxrss / 1024


def main(args):
    # The last file tells whether the masks are there.
    if not (args.folder / "results" / f"{VIDEOS - 1:02d}" / f"{FRAMES - 1:05d}.png").exists():
        make_load(args.folder)

    # Collect the ways of scoring.
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

    # Measure.
    measured = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, code in ways.items():
            measured[name].append(measure(code))

    # Print the table.
    print("| way, processes | s, median | ms per frame and object | s, best | ms | MB per process |")
    print("|---|---|---|---|---|---|")
    for name, runs in measured.items():
        times = [run[0] for run in runs]
        cells = [name]
        for seconds in (statistics.median(times), min(times)):
            cells += [f"{seconds:.2f}", f"{1000 * seconds / SCORED:.2f}"]
        print(f"| {' | '.join(cells)} | {max(run[1] for run in runs):.0f} |")


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
