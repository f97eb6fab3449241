"""Write a network as ONNX graphs, with which other programs and browsers track without torch.

    pip install -r requirements-onnx.txt
    python export_onnx.py --frame-size 1280x720 --output out/graphs
    python export_onnx.py --frame-size 854x480 --model pretrain/model_s012_final.pth --output out/graphs
    python track_onnx.py out/graphs clip.mp4 mask.png

The four graphs are for frames of one size and any number of objects, in mode two-frames-compress. If onnxruntime is
installed, the script then tracks a few frames with the graphs, and compares with torch. docs/ONNX.md says what the
graphs take and return, and how to track with them.
"""

import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from dataset.synthetic import MovingNoise
from inference_core import InferenceCore
from inference_core.graphs import MODE, TENSORS, Encode, Give, Remember, Segment, Sizes
from inference_core.sizes import network_size
from model import load_network
from model.checkpoint import preset_name
from model.inference import take_snapshot
from track_onnx import OnnxTracker, onnxruntime
from util.errors import InputError, pixels, run_script
from util.files import atomic_path
from util.hyper_para import COMPACT
from util.options import OptionParser, frame_size, whole

OPSET = 18
"""The version of ONNX's operators."""

TOP_K = 40
"""The number of memory positions that each query reads, as by default in track.py."""

TOLERANCE = 1e-3
"""Where probabilities differ by more than this, they are different."""

FEW = 0.01
"""The share of pixels in which they may be different. In a few, the last bit may decide, see docs/ONNX.md."""

CHECKED_FRAMES = 8
"""The comparison with torch takes so many frames."""


def get_args_parser():
    parser = OptionParser("export_onnx.py", __doc__)
    parser.add_argument("--model", default=COMPACT, metavar="FILE",
                        help="checkpoint of the network (default: the compact network that comes with the repository)")
    parser.add_argument("--frame-size", type=frame_size, required=True, metavar="WIDTHxHEIGHT",
                        help="size of the frames that the graphs will take")
    parser.add_argument("--size", type=whole, default=480, metavar="PIXELS",
                        help="let the graphs bring the shorter side of the frames to so many pixels for the "
                             "network, at most to twice its size; 0 keeps the frames' own size (default: %(default)s)")
    parser.add_argument("--output", default="out/graphs", metavar="FOLDER",
                        help="folder for the graphs (default: %(default)s)")
    return parser


def main(args):
    network, folder = load_network(args.model), Path(args.output)
    # As in tracking, a network that cannot track ends the script here.
    width, height = args.frame_size
    core = InferenceCore(network, MODE, top_k=TOP_K, size=network_size(args.size, args.frame_size), places=False)
    sizes = Sizes((height, width), core.size)
    print(f"frames of {pixels((width, height))}, computed at {pixels(sizes.network[::-1])}; ONNX opset {OPSET}")
    operators = Counter()
    for path, model in write_graphs(network, sizes, folder):
        operators.update(node.op_type for node in model.graph.node)
        print(f"wrote {path}: {len(model.graph.node)} operators, {path.stat().st_size / 1e6:.2f} MB", flush=True)
    print(f"kinds of operators: {', '.join(sorted(operators))}")
    if onnxruntime is None:
        print("not checked: onnxruntime is not installed")
        return 0
    difference, share, others = compare(core, OnnxTracker(folder))
    if not share <= FEW:
        raise InputError(f"{folder}: in {share:.0%} of the pixels, probabilities differ from torch's by more than "
                         f"{TOLERANCE}, in all by up to {difference:.1e}; do not use these graphs")
    print(f"checked with onnxruntime on {CHECKED_FRAMES} frames of noise: probabilities differ from torch's by up to "
          f"{difference:.1e}; {others} pixels have another id")
    return 0


def write_graphs(network, sizes, folder, top_k=TOP_K):
    """Write a network's graphs into a folder, and yield (path, model) of each, with the model as onnx.ModelProto.

    sizes: Sizes. Raises InputError if torch cannot export here.
    """
    try:
        import onnxscript  # noqa: F401 (torch needs it)
    except ImportError:
        raise InputError("torch needs onnx and onnxscript for this: pip install -r requirements-onnx.txt") from None
    folder.mkdir(parents=True, exist_ok=True)
    engine = take_snapshot(network, packed=False)
    height, width = sizes.frame
    described = {"network": preset_name(network.config), "weights": engine.weights, "mode": MODE,
                 "frame_size": f"{width}x{height}", "top_k": str(top_k), "made_by": "RDE-VOS, export_onnx.py"}
    for name, program in export_graphs(engine, sizes, top_k):
        program.model.metadata_props.update(described)
        model, path = program.model_proto, folder / f"{name}.onnx"
        with atomic_path(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
        yield path, model


@torch.no_grad()
def export_graphs(engine, sizes, top_k):
    """Yield (name, torch.onnx.ONNXProgram) of each graph.

    engine: a model.inference.InferenceNetwork made with packed=False. sizes: Sizes. top_k: as for InferenceCore.
    """
    modules = {"encode": Encode(engine, sizes), "give": Give(sizes), "segment": Segment(engine, sizes, top_k),
               "remember": Remember(engine, sizes)}
    tensors = make_example(modules, engine.config, sizes)
    objects = torch.export.Dim("objects", min=1, max=255)
    varying = {"objects": {0: objects}, "masks": {0: objects}, "values": {2: objects}}
    for name, module in modules.items():
        inputs, outputs = TENSORS[name]
        with warnings.catch_warnings():
            # Torch warns of its own doings, such as that two axes have one name.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, tuple(tensors[each] for each in inputs), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=list(inputs), output_names=list(outputs),
                dynamic_shapes={each: varying.get(each) for each in inputs})
        yield name, program


def make_example(modules, config, sizes):
    """Return {name: tensor} of inputs for all graphs, with two objects: torch follows the graphs' work on them."""
    height, width = sizes.frame
    cells = sizes.cells[0] * sizes.cells[1]
    tensors = {"frame": torch.zeros(height, width, 3, dtype=torch.uint8),
               "given": torch.zeros(height, width, dtype=torch.uint8),
               "objects": torch.tensor([1, 2], dtype=torch.uint8),
               "keys": torch.zeros(3, config.key_dim, cells), "values": torch.zeros(3, cells, 2, config.value_dim),
               "counts": torch.ones(3)}
    for name in ("encode", "give"):
        inputs, outputs = TENSORS[name]
        results = modules[name](*(tensors[each] for each in inputs))
        tensors |= zip(outputs, results if isinstance(results, tuple) else (results,), strict=True)
    return tensors


def compare(core, tracker):
    """Track a few frames with both, and see how their results differ.

    Returns the largest difference of a probability, the share of pixels in which one differs by more than TOLERANCE
    or is no number, and the number of pixels in which ids differ.
    """
    video = MovingNoise(tracker.frame_size, 2, "cpu")
    largest, different, others = [], [], 0
    for number in range(CHECKED_FRAMES):
        frame, mask = video.frame(number).numpy(), video.mask if number == 0 else None
        prob, ids = core.step(frame, mask), tracker.step(frame, mask)
        if mask is None:
            difference = np.abs(prob.numpy() - tracker.probabilities).max(0)
            largest.append(difference.max())
            different.append(1 - np.mean(difference <= TOLERANCE))
            others += int((core.to_mask(prob).numpy() != ids).sum())
    return max(largest), np.mean(different), others


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
