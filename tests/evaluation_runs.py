"""Runs of the evaluation scripts in the process of the tests, and what they are to write."""

import numpy as np
from PIL import Image

from inference_core import InferenceCore
from tests.trees import training_tree
from util.errors import run_script


def run(script, *arguments):
    """Run an evaluation script with these arguments, and return its exit code."""
    return run_script(script.get_args_parser(), script.main, [str(argument) for argument in arguments])


def expected(network, files, masks, wanted=None, **settings):
    """{frame: ids} of the core itself."""
    core, results = InferenceCore(network, **settings), {}
    for file in files:
        name = file.stem
        prob = core.step(np.array(Image.open(file)), masks.get(name), end=file == files[-1])
        if core.objects and (wanted is None or name in wanted):
            results[f"{name}.png"] = core.to_mask(prob).numpy()
    return results


def read(folder):
    """{name of a file: ids} of a folder of masks."""
    return {path.name: np.array(Image.open(path)) for path in sorted(folder.iterdir())}


def same(one, other):
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def generic_arguments(clip, checkpoint, root, names=("ant", "bee")):
    """Arguments of eval_generic.py for a dataset of two videos of three frames, made below `root`."""
    training_tree(root / "G", clip, names, length=3)
    return ["--long-video-path", root / "G", "--output", root / "out", "--model", checkpoint, "--size", 0]
