"""Measure how fast frames of a long video are found, and how much memory that takes.

    python evaluation/seek_speed.py --folder out/seek_load

Makes an H.264 video of two hours, 1920×1080, with a key frame every 250 frames, unless the folder has it. Of its groups
one is encoded, and the others are copies of it. Then it is indexed, frames anywhere are asked for, and the steps of
somebody who looks around a frame.
"""

import itertools
import random
import statistics
import sys
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.errors import run_script
from util.files import atomic_path
from util.options import OptionParser, positive
from util.pyav import av
from util.timing import peak_memory_mb
from util.video import open_frames

WIDTH, HEIGHT, RATE, GROUP, GROUPS = 1920, 1080, 25, 250, 720


def get_args_parser():
    parser = OptionParser("seek_speed.py", __doc__)
    parser.add_argument("--folder", required=True, help="folder for the video, about 1 GB", metavar="FOLDER")
    parser.add_argument("--rounds", type=positive, default=20, help="frames that are asked for (default: %(default)s)",
                        metavar="N")
    return parser


def main(args):
    path = Path(args.folder) / "long.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_video(path)
    frames = open_frames([str(path)])
    start, used = time.perf_counter(), peak()
    seekable = frames.seekable()
    print(f"index of {len(seekable)} frames, {path.stat().st_size / 1e9:.1f} GB: {time.perf_counter() - start:.1f} s, "
          f"{peak() - used:.0f} MB more at most")
    rng = random.Random(0)
    anywhere = [rng.randrange(len(seekable)) for _ in range(args.rounds)]
    begin = rng.randrange(GROUPS) * GROUP
    seekable[begin]
    report("a frame anywhere", seekable, anywhere)
    report("the last frame of a group", seekable, [rng.randrange(GROUPS) * GROUP + GROUP - 1
                                                   for _ in range(args.rounds)])
    seekable[begin + 100]
    report("the next frame", seekable, range(begin + 101, begin + 101 + args.rounds))
    report("the frame before", seekable, range(begin + 99 + args.rounds, begin + 99, -1))
    start, count = time.perf_counter(), 0
    for _ in seekable.backwards(2 * GROUP - 1):
        count += 1
    print(f"backwards: {count / (time.perf_counter() - start):.0f} frames/s")
    start = time.perf_counter()
    for _ in itertools.islice(seekable.forwards(), 2 * GROUP):
        pass
    print(f"forwards: {2 * GROUP / (time.perf_counter() - start):.0f} frames/s")
    return 0


def peak():
    """Peak memory in MB since the process started."""
    return peak_memory_mb(torch.device("cpu"))["ram"]


def report(what, seekable, positions):
    """Print how long it takes to get frames: in all, and of all cores together."""
    taken, cores = [], []
    for position in positions:
        start, before = time.perf_counter(), time.process_time()
        seekable[position]
        taken.append(1000 * (time.perf_counter() - start))
        cores.append(1000 * (time.process_time() - before))
    print(f"{what}: median {statistics.median(taken):.0f} ms, longest {max(taken):.0f} ms; "
          f"of all cores together {statistics.median(cores):.0f} ms, most {max(cores):.0f} ms")


def write_video(path):
    """Write the video: one group of a pattern that moves, with noise, again and again."""
    rng = np.random.default_rng(0)
    pattern = cv2.normalize(cv2.GaussianBlur(rng.integers(0, 256, (1400, 2600, 3), np.uint8), (0, 0), 3), None, 0, 255,
                            cv2.NORM_MINMAX)
    noise = [rng.integers(0, 8, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(4)]
    options = {"g": str(GROUP), "keyint_min": str(GROUP), "sc_threshold": "0", "bf": "3", "preset": "veryfast",
               "crf": "26"}
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        packets = []
        for number in range(GROUP):
            x, y = int(200 + 150 * np.sin(number / 30)), int(100 + 80 * np.cos(number / 40))
            image = cv2.add(pattern[y:y + HEIGHT, x:x + WIDTH], noise[number % 4])
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            packets += stream.encode(frame)
        packets = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe, packet.time_base)
                   for packet in packets + stream.encode()]
        for group in range(GROUPS):
            for data, pts, dts, key, base in packets:
                packet = av.Packet(data)
                shift = round(Fraction(group * GROUP, RATE) / base)
                packet.pts, packet.dts, packet.is_keyframe = pts + shift, dts + shift, key
                packet.time_base, packet.stream = base, stream
                container.mux(packet)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
