import importlib.util
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import progressbar
import pytest
from PIL import Image

from util.errors import run_script

ROOT = Path(__file__).resolve().parents[2]
SHARED_SCORES = Path(os.environ.get("RDE_SHARED", ROOT.parent / "shared")) / "parity" / "scores"
EXCERPT = ROOT / "tests" / "data" / "scores"  # one case of SHARED_SCORES


def scores_root(name):
    """The folder with a reference case; skips the test where it is not there."""
    if (EXCERPT / "golden" / name).exists():
        return EXCERPT
    if not (SHARED_SCORES / "golden" / name).exists():
        pytest.skip("the shared reference scores are not here")
    return SHARED_SCORES


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a scoring script in this process: run("2017/evaluation_ours", *arguments) -> (code, out, err)."""

    def call(script, *arguments):
        monkeypatch.setattr(progressbar.utils.streams, "original_stderr", sys.stderr)
        path = ROOT / "evaluation" / f"{script}.py"
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        capsys.readouterr()
        code = run_script(module.get_args_parser(), module.main, [str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def copy_results(tmp_path):
    """A writable copy of reference predictions."""

    def copy(source):
        target = tmp_path / "results"
        shutil.copytree(source, target, copy_function=shutil.copyfile)
        return target

    return copy


def write_masks(folder, masks):
    """Write uint8 H×W masks as folder/00000.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for t, mask in enumerate(masks):
        write_indexed(folder / f"{t:05d}.png", mask)


def write_indexed(path, mask):
    image = Image.fromarray(np.asarray(mask, np.uint8))
    image.putpalette(list(range(256)) * 3)
    image.save(path)


def square(top, left, size=6, value=1, shape=(32, 48)):
    """A mask with one square of one id."""
    mask = np.zeros(shape, np.uint8)
    mask[top : top + size, left : left + size] = value
    return mask


class DavisTree:
    """A small DAVIS tree with results beside it, both to be filled by the test."""

    def __init__(self, folder):
        self.root, self.results = folder / "DAVIS", folder / "results"
        self.results.mkdir()
        (self.root / "ImageSets" / "2017").mkdir(parents=True)
        (self.root / "ImageSets" / "2016").mkdir(parents=True)

    def add(self, sequence, truth, prediction, sets=("2017/val",), annotations="Annotations"):
        write_masks(self.root / annotations / "480p" / sequence, truth)
        write_masks(self.results / sequence, prediction)
        for name in sets:
            with open(self.root / "ImageSets" / f"{name}.txt", "a") as file:
                file.write(f"{sequence}\n")

    def arguments(self, *more):
        return ["--davis_path", self.root, "--results_path", self.results, *more]

    def csv(self, kind="global", name="val"):
        """The rows below the header, split at the commas."""
        lines = (self.results / f"{kind}_results-{name}.csv").read_text().splitlines()
        return [line.split(",") for line in lines[1:]]


@pytest.fixture
def davis(tmp_path):
    return DavisTree(tmp_path)
