"""Imports go down only, and what needs no torch does without it.

The floors, from the ground up: util; model, dataset and exporting, which do not know one another; inference_core;
evaluation; runs, what a video becomes in its folder; interactive, the page of annotate.py; the scripts at the top.
"""

import ast
import itertools
import subprocess
import sys

import pytest

from tests.conftest import ROOT

BELOW = {
    "util": set(),
    "model": {"util"},
    "dataset": {"util"},
    "exporting": {"util"},
    "inference_core": {"util", "model", "dataset"},
    "evaluation": {"util", "model", "dataset", "inference_core"},
    "runs": {"util", "model", "dataset", "exporting", "inference_core"},
    "interactive": {"util", "model", "dataset", "exporting", "inference_core", "evaluation"},
}
"""{floor: the floors that its files may import, beside itself}; scripts may import all of them, and one another."""

WITHOUT_TORCH = ["evaluation/2016/evaluation.py", "evaluation/check.py", "evaluation/generic.py",
                 "evaluation/youtube/evaluation.py", "download_bl30k.py", "download_datasets.py", "download_models.py",
                 "annotate.py", "export_masks.py", "import_masks.py", "track_onnx.py",
                 *(f"evaluation/2017/evaluation_{name}.py" for name in ("codalab", "method", "ours"))]


def imported(file):
    """The first parts of the names of all modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are absolute here"
            yield node.module.partition(".")[0]


def arrows():
    """(file, what it imports of the repository), each once."""
    scripts = {file.stem for file in ROOT.glob("*.py")}
    for floor, below in BELOW.items():
        for file in sorted((ROOT / floor).rglob("*.py")):
            known = {*BELOW, *scripts, "tests"}
            for name in sorted(known.intersection(imported(file)) - below - {floor}):
                yield str(file.relative_to(ROOT)), name


def test_no_import_runs_up():
    assert not set(arrows())


def test_floors_have_an_order():
    """No two floors import one another, not even by way of a third."""
    for one, other in itertools.combinations(BELOW, 2):
        assert one not in BELOW[other] or other not in BELOW[one]
    assert all(lower in BELOW[floor] for floor, below in BELOW.items() for middle in below for lower in BELOW[middle])


def test_tracking_loads_neither_torchvision_nor_the_compiler():
    """Both would add seconds to the start of every script, and 150 MB."""
    code = "import inference_core, sys; sys.exit(', '.join({'torchvision', 'torch._dynamo'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


BLOCKED = """
import runpy, sys
sys.modules["torch"] = sys.modules["torchvision"] = None
runpy.run_path(sys.argv[1], run_name="imported")["get_args_parser"]()
"""


@pytest.mark.parametrize("script", WITHOUT_TORCH)
def test_scoring_exporting_downloading_and_the_page_need_no_torch(script):
    done = subprocess.run([sys.executable, "-c", BLOCKED, str(ROOT / script)], cwd=ROOT, capture_output=True, text=True,
                          check=False, timeout=60)
    assert done.returncode == 0, done.stderr
