"""Options that several scripts share, and what they stand for."""

import os
import sys
from pathlib import Path

from inference_core import MODES
from model import load_network
from util.device import pick_device

COMPACT = Path(__file__).parents[1] / "weights" / "compact.pth"
"""The network that comes with the repository, see docs/COMPACT.md."""


def add_inference_options(parser, mem_every=3, top=40):
    """The options of every script that tracks; the defaults are the benchmark's."""
    parser.add_argument("--model", default=str(COMPACT),
                        help="checkpoint of the network (the compact one in weights)")
    parser.add_argument("--mode", choices=MODES, default="two-frames-compress", metavar="MODE",
                        help=f"what the memory holds: {', '.join(MODES)} (%(default)s)")
    parser.add_argument("--mem_every", type=positive, default=mem_every, metavar="N",
                        help="every Nth frame becomes a memory frame (%(default)s)")
    parser.add_argument("--include_last", action="store_true", help="every frame becomes a memory frame")
    parser.add_argument("--top", type=positive, default=top, metavar="K",
                        help="memory positions that each pixel reads (%(default)s)")
    parser.add_argument("--amp", nargs="?", const=True, default=False, choices=("float16", "bfloat16"),
                        help="half precision (float16, on the CPU bfloat16); faster, masks differ slightly")
    parser.add_argument("--compile", action="store_true",
                        help="compile the network, on a GPU as CUDA graphs; faster after a minute or so")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")


def add_evaluation_options(parser, size=0, **defaults):
    """The options of every script that evaluates on a benchmark."""
    add_inference_options(parser, **defaults)
    parser.add_argument("--output", required=True, help="folder for the results")
    parser.add_argument("--size", type=int, default=size, metavar="PIXELS",
                        help="compute with the shorter side at this; 0: frames as they are (%(default)s)")
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of each process on the CPU (all cores)")
    parser.add_argument("--save-scores", action="store_true",
                        help="write probabilities, uint8, one npz a frame, into OUTPUT_scores")
    parser.add_argument("--zip", action="store_true", help="write OUTPUT.zip for the benchmark's server")
    parser.add_argument("--overwrite", action="store_true", help="replace results of other settings")


def core_settings(args):
    """The arguments of InferenceCore that `add_inference_options` asked for."""
    return {"mode": args.mode, "mem_every": args.mem_every, "top_k": args.top,
            "include_last": args.include_last, "amp": args.amp, "compile": args.compile}


def network_for(args):
    """The network of --model on --device. Raises InputError where there is none."""
    if args.model == str(COMPACT) and os.environ.get("RANK", "0") == "0":
        print("the compact network of weights/compact.pth; --model takes another", file=sys.stderr)
    return load_network(args.model, pick_device(args.device))


def positive(text):
    """An argparse type: a whole number from 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def whole(text):
    """An argparse type: a whole number from 0."""
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def fraction(text):
    """An argparse type: a number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError
    return number
