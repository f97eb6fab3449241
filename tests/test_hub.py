"""hubconf.py in somebody else's program."""

import ast
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.test_floors import BELOW


@pytest.fixture
def project(tmp_path):
    """A folder with packages model, util and dataset of its own."""
    folder = tmp_path / "project"
    for name in ("model", "util", "dataset"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"OWNER = 'the caller, {name}'\n")
        (folder / name / "network.py").write_text(f"OWNER = 'the caller, {name}.network'\n")
    return folder


def run(project, code, *arguments):
    """Run code as a file of the project, from another folder, and return what it prints."""
    (project / "program.py").write_text(code)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, str(project / "program.py"), *map(str, arguments)], cwd=project.parent,
                          env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


TRACK = """
import sys
import model
import numpy as np
import torch

repository, checkpoint = sys.argv[1:]
core = torch.hub.load(repository, "tracker", "gt-compress", source="local", checkpoint=checkpoint,
                      device="cpu")
frame = np.arange(48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
mask = np.zeros((48, 64), np.uint8)
mask[10:30, 20:40] = 5
core.step(frame, mask)
ids = core.to_mask(core.step(frame))
assert ids.shape == (48, 64) and core.mode == "gt-compress" and core.objects == [5] and core.size == "auto"
assert type(torch.hub.load(repository, "rde", checkpoint, source="local", device="cpu")).__name__ == "RDE"
assert torch.hub.load(repository, "compact", source="local", device="cpu").config.key_trunk == "efficientnet_lite0"
try:
    torch.hub.load(repository, "clicks", checkpoint + ".clicks", "cpu", source="local")
    raise SystemExit("no error")
except ValueError as error:
    assert str(error).startswith(checkpoint + ".clicks: ") and "\\n" not in str(error)

import dataset.network
import model.network
import util
from rde_vos.exporting.formats import FORMATS
from rde_vos.util.video import open_frames

for module in (model, model.network, util, dataset, dataset.network):
    assert module.OWNER == f"the caller, {module.__name__}", module
assert callable(open_frames) and FORMATS
assert not {"inference_core", "exporting", "evaluation"} & set(sys.modules)
print("done")
"""


@pytest.mark.slow
def test_caller_and_repository_each_keep_their_model_and_util(project, tiny_checkpoint):
    assert run(project, TRACK, ROOT, tiny_checkpoint).endswith("done\n")


LAZY = """
import sys
import torch
import util

print(torch.hub.load(sys.argv[1], "rde", "a.pth", "cpu", source="local")())
print(util.OWNER)
try:
    torch.hub.load(sys.argv[2], "rde", "a.pth", "cpu", source="local")
except ImportError as error:
    print(error)
"""


def test_imports_inside_functions_find_the_repository_and_two_copies_are_refused(project, tmp_path):
    copies = []
    for name in ("repository", "other"):
        copy = tmp_path / name
        for package in ("model", "util"):
            (copy / package).mkdir(parents=True)
        shutil.copy(ROOT / "hubconf.py", copy)
        (copy / "model" / "__init__.py").write_text("def load_network(path, device):\n"
                                                    "    def find():\n"
                                                    "        from util.late import OWNER\n"
                                                    "        return OWNER\n"
                                                    "    return find\n")
        (copy / "util" / "device.py").write_text("def pick_device(name):\n    return name\n")
        (copy / "util" / "late.py").write_text("OWNER = 'the repository'\n")
        copies.append(copy)
    lazy, own, refused = run(project, LAZY, *copies).splitlines()[-3:]
    assert (lazy, own) == ("the repository", "the caller, util")
    assert str(copies[0]) in refused and str(copies[1]) in refused


def test_our_files_import_one_another_in_the_form_that_is_renamed():
    packages = next(node.value for node in ast.parse((ROOT / "hubconf.py").read_text()).body
                    if isinstance(node, ast.Assign) and node.targets[0].id == "PACKAGES")
    assert set(ast.literal_eval(packages)) == set(BELOW)
    for package in BELOW:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                plain = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                assert not {name.partition(".")[0] for name in plain} & set(BELOW), f"{file}: {plain}"
