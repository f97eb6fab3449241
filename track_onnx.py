"""Track a video with the graphs of export_onnx.py, with onnxruntime and without torch: an example to copy from.

    pip install onnxruntime
    python track_onnx.py out/graphs clip.mp4 mask.png --output out/clip-onnx

It writes masks/NAME.png, as track.py does. `OnnxTracker` is all there is to it; it needs numpy and onnxruntime alone.
docs/ONNX.md says what the graphs take and return.
"""

import functools
import sys
from pathlib import Path

import numpy as np

from util.errors import InputError, pixels, run_script
from util.image_io import read_mask, write_mask
from util.machine import computing_threads
from util.options import OptionParser, few
from util.progress import progress_bar
from util.video import open_frames

try:
    import onnxruntime
except ImportError:
    onnxruntime = None


def get_args_parser():
    parser = OptionParser("track_onnx.py", __doc__)
    parser.add_argument("graphs", metavar="GRAPHS", help="folder that export_onnx.py has written (default: none)")
    parser.add_argument("video", metavar="VIDEO", help="video file or folder of images, in frames of the size that the "
                                                       "graphs are made for (default: none)")
    parser.add_argument("mask", metavar="MASK", help="mask of the first frame, an indexed or grey PNG (default: none)")
    parser.add_argument("--output", default="out/onnx", metavar="FOLDER",
                        help="folder for the masks (default: %(default)s)")
    parser.add_argument("--threads", type=few, metavar="N",
                        help="number of CPU threads (default: OMP_NUM_THREADS, else all cores that it may use)")
    return parser


def main(args):
    tracker = OnnxTracker(args.graphs, threads=args.threads or computing_threads())
    frames = open_frames([args.video], [Path(args.mask)])
    size = tracker.frame_size[::-1]
    if frames.size != size:
        raise InputError(f"{args.video}: frames of {pixels(frames.size)}, but the graphs in {args.graphs} are made for "
                         f"{pixels(size)}; export others with --frame-size {'x'.join(map(str, frames.size))}")
    given = read_mask(args.mask, frames.size)
    if not given.any():
        raise InputError(f"{args.mask}: this mask holds no object, all of it is 0")
    folder = Path(args.output) / "masks"
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InputError(f"{folder}: there are masks already; give another --output")
    with progress_bar(frames.length, "tracking") as progress:
        for frame in frames:
            write_mask(folder / f"{frame.name}.png", tracker.step(frame.image, given))
            given = None
            progress.increment()
    print(f"wrote the masks to {folder}")
    return 0


class OnnxTracker:
    """Tracks objects through one video.

        tracker = OnnxTracker("out/graphs")
        for frame, given in frames:                # given is None, but for the first frame
            ids = tracker.step(frame, given)

    folder: what export_onnx.py has written. mem_every: every Nth frame goes into the memory. threads: the number of CPU
    threads, 0 for all cores. providers: what onnxruntime is to compute on, such as ["CUDAExecutionProvider"].
    open_graph: for another runtime, a function of a graph's file that returns what `get_inputs`, `get_outputs` and
    `run` can be called on, as on onnxruntime's sessions.
    """

    def __init__(self, folder, mem_every=3, threads=0, providers=("CPUExecutionProvider",), open_graph=None):
        if open_graph is None and onnxruntime is None:
            raise InputError("onnxruntime is not installed; pip install onnxruntime")
        open_graph = open_graph or functools.partial(_open_session, threads=threads, providers=list(providers))
        self.graphs = {}
        for name in ("encode", "give", "segment", "remember"):
            path = Path(folder) / f"{name}.onnx"
            if not path.exists():
                raise InputError(f"{path}: no such file; {folder} is to be the folder that export_onnx.py has written")
            self.graphs[name] = open_graph(path)
        self.mem_every = mem_every
        self.frame_size = tuple(self.graphs["encode"].get_inputs()[0].shape[:2])
        """(height, width) of the frames."""
        self.objects = np.zeros(0, np.uint8)
        """The ids of the tracked objects."""
        self.probabilities = None
        """Of the latest frame, float32 (objects + 1)×H×W, background first; None where a mask was given."""

    def step(self, frame, given=None):
        """Return the object ids uint8 H×W of the next frame, uint8 H×W×3 RGB.

        given: object ids uint8 H×W, in the first frame. In a later frame, all objects start anew from it.
        """
        features = self._run("encode", {"frame": frame})
        if given is not None:
            self._begin(np.unique(given[given > 0]))
            features |= self._run("give", {"given": given, "objects": self.objects})
            self.probabilities = None
            ids = given
        else:
            features |= self._run("segment", features | self._memory)
            self.probabilities = features["probabilities"]
            ids = np.array([0, *self.objects], np.uint8)[features["ids"]]
        self._since_memory += 1
        if given is not None or self._since_memory == self.mem_every:
            self._memory = self._run("remember", features | self._memory)
            self._since_memory = 0
        return ids

    def _begin(self, objects):
        """Begin with an empty memory for these ids."""
        self.objects, self._since_memory = objects, 0
        self._memory = {}
        for tensor in self.graphs["segment"].get_inputs():
            if tensor.name in ("keys", "values", "counts"):
                # In the shape, a text stands for the number of objects.
                shape = [len(objects) if isinstance(size, str) else size for size in tensor.shape]
                self._memory[tensor.name] = np.zeros(shape, np.float32)

    def _run(self, name, tensors):
        """Run a graph with those of the tensors that it takes, and return {name: tensor} of its results."""
        graph = self.graphs[name]
        results = graph.run(None, {each.name: tensors[each.name] for each in graph.get_inputs()})
        names = [each.name.removeprefix("new_") for each in graph.get_outputs()]
        return dict(zip(names, results, strict=True))


def _open_session(path, threads, providers):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # The threads of one graph would otherwise wait busily while the next one needs the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's errors have nothing else in common
        raise InputError(f"{path}: damaged, or no graph that onnxruntime can open ({error})") from error


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
