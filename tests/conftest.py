import ctypes
import gc
import os
import signal
import sys
from pathlib import Path

import numpy as np
import progressbar
import pytest
import torch

from dataset.synthetic import render_clip
from inference_core import capture
from model import PRESETS, RDE
from model.checkpoint import expected_shapes
from tests.recipe import recipe_state
from tests.replay import record_replay
from tests.trees import davis_tree, photograph, youtube_tree
from util.device import pick_device
from util.machine import available_cores

ROOT = Path(__file__).resolve().parents[1]

# Reference results too large for the repository; tests that need them are skipped without.
SHARED = Path(os.environ.get("RDE_SHARED", ROOT.parent / "shared"))

CHECKED_DEVICE = os.environ.get("RDE_CHECK_DEVICE", "cuda")
"""The device that the tests marked `cuda` run on: with RDE_CHECK_DEVICE=cpu they are rehearsed without a GPU."""


def pytest_collection_modifyitems(items):
    """Skip the tests marked `cuda` where there is no GPU."""
    if CHECKED_DEVICE.startswith("cuda") and not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="there is no GPU here"))


def pytest_sessionstart(session):
    """Let Ctrl-C end the whole suite, also in a script, which reports it and would let the next test begin."""
    def interrupt(*_):
        session.shouldstop = "interrupted"
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


@pytest.fixture(autouse=True)
def number_of_threads(request, monkeypatch):
    """One for the quick tests, whose networks are so small that threads mostly wait for one another.

    For the others all cores, shared among the processes of pytest: more threads than cores are many times slower, since
    each waits actively for those that have no core.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    count = max(1, available_cores() // processes) if request.node.get_closest_marker("slow") else 1
    torch.set_num_threads(count)
    # Scripts set the number by themselves; some tests start two of them at once.
    monkeypatch.setenv("OMP_NUM_THREADS", str(count))
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")


@pytest.fixture
def device():
    """The torch.device of a test marked `cuda`."""
    return pick_device(CHECKED_DEVICE)


@pytest.fixture
def compile_option(request, device, monkeypatch):
    """The option `compile` of an InferenceCore for the form of tracking that the test's parameter names.

    eager; captured: CUDA graphs of what eager runs; compiled: CUDA graphs of what torch.compile makes. In a rehearsal
    on the CPU, nothing but the graph itself is replaced in "captured".
    """
    if request.param == "compiled":
        if not capture.can_compile(device.type):
            pytest.skip("torch.compile does not work here")
        torch.compiler.reset()
    elif request.param == "captured":
        monkeypatch.setattr(capture, "can_compile", lambda device_type: False)
        if not capture.can_capture(device.type):
            monkeypatch.setattr(capture, "can_capture", lambda device_type: True)
            monkeypatch.setattr(capture.CapturedFunction, "_record", record_replay)
    return request.param != "eager"


@pytest.fixture(autouse=True)
def no_memory_is_kept(monkeypatch):
    """In one process for all tests, memory that scripts keep for their next frame would add up to gigabytes."""
    for module in ("inference_core.tracking", "train", "benchmark"):
        monkeypatch.setattr(f"{module}.keep_freed_memory", lambda: None)


@pytest.fixture(autouse=True, scope="module")
def freed_memory_goes_back():
    yield
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(autouse=True)
def progress_on_the_test_s_standard_error(monkeypatch):
    """progressbar2 writes to the standard error of the time of its import, which pytest may have closed since."""
    monkeypatch.setattr(progressbar.utils.streams, "original_stderr", sys.stderr)


def recipe_network(config):
    with torch.device("meta"):
        network = RDE(config)
    network.load_state_dict(recipe_state(expected_shapes(config)), assign=True)
    return network.eval()


@pytest.fixture(scope="module")
def base_network():
    """The published network with the recipe's weights; not kept longer, since it and its snapshot take 700 MB."""
    return recipe_network(PRESETS["base"])


@pytest.fixture(scope="session")
def tiny_network():
    network = recipe_network(PRESETS["tiny"])
    # Otherwise objects die out after a few frames in a network this narrow.
    network.decoder.pred.bias.data += 2
    return network


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(tiny_network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def clip():
    """(frames uint8 T×H×W×3, ids uint8 T×H×W) of two moving objects, 20 frames of 72×100."""
    pairs = list(render_clip(photograph(1), [photograph(2), photograph(3)], (72, 100), 20, seed=4))
    return np.stack([frame for frame, _ in pairs]), np.stack([ids for _, ids in pairs])


@pytest.fixture(scope="session")
def davis(clip, tmp_path_factory):
    return davis_tree(tmp_path_factory.mktemp("davis"), clip)


@pytest.fixture(scope="session")
def youtube(clip, tmp_path_factory):
    return youtube_tree(tmp_path_factory.mktemp("youtube"), clip)
