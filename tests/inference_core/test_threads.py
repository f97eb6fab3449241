"""A core in one thread changes nothing for what other threads do."""

import copy
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from inference_core.core import InferenceCore
from model.inference import PlainEngine, take_snapshot
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def threads_take_turns_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def play(core, clip):
    frames, truth = clip
    core.reset()
    return [core.step(frame, truth[0] if index == 0 else None) for index, frame in enumerate(frames[:4])]


def repeat_meanwhile(work, others):
    """Call each of `others` again and again in a thread of its own while work() runs, and return their results."""
    stop = threading.Event()

    def repeat(other):
        results = [other()]
        while not stop.is_set():
            results.append(other())
        return results

    with ThreadPoolExecutor(len(others)) as pool:
        running = [pool.submit(repeat, other) for other in others]
        try:
            work()
        finally:
            stop.set()
        return [each.result() for each in running]


def make_module_call():
    module, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)).eval(), torch.rand(1, 3, 9, 9)

    def call():
        with torch.no_grad():
            return module(x)

    return call


def test_making_cores_disturbs_no_other_thread(tiny_network, clip):
    core = InferenceCore(tiny_network)
    networks = [copy.deepcopy(tiny_network) for _ in range(4)]
    calls = [make_module_call(), lambda: torch.stack(play(core, clip))]
    alone = [call() for call in calls]
    for expected, results in zip(alone, repeat_meanwhile(lambda: list(map(InferenceCore, networks)), calls),
                                 strict=True):
        assert all(torch.equal(result, expected) for result in results)


def test_cores_are_made_and_stepped_at_once(tiny_network, clip):
    """Of one network, whose snapshot they share, and of two networks."""
    networks = [tiny_network, tiny_network, copy.deepcopy(tiny_network), copy.deepcopy(tiny_network)]
    alone = torch.stack(play(InferenceCore(tiny_network), clip))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda network: torch.stack(play(InferenceCore(network), clip)), networks))
    assert all(torch.equal(result, alone) for result in results)


def correct(core, clip):
    """Track with references, going back to an earlier state in between."""
    frames, truth = clip
    found = [core.step(frames[0], truth[0])]
    state = core.state()
    for masks in ({}, {2: truth[2] * (truth[2] == 1), 3: truth[3]}):
        core.restore(state)
        found += [core.step(frames[index], masks.get(index)) for index in range(1, 6)]
    return torch.cat([prob[1:].flatten() for prob in found])


def test_cores_with_references_share_one_engine_in_several_threads(tiny_network, clip):
    """Each goes through a video of its own."""
    engine = take_snapshot(tiny_network)
    clips = [clip, (clip[0][::-1], clip[1][::-1]), (clip[0][5:], clip[1][5:]), (clip[0][:, ::-1], clip[1][:, ::-1])]
    alone = [correct(InferenceCore(engine), one) for one in clips]
    cores = [InferenceCore(engine) for _ in clips]
    assert all(core.engine is engine for core in cores)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(correct, cores, clips))
    assert all(torch.equal(*pair) for pair in zip(results, alone, strict=True))


class WatchingEngine(PlainEngine):
    """Notes how torch's switches are turned while it works."""

    seen = None

    def encode(self, *arguments):
        self.seen = switches()
        return super().encode(*arguments)


class FailingEngine(PlainEngine):
    def encode(self, *arguments):
        raise RuntimeError("broken")


def switches():
    return (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32,
            torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, torch.get_num_threads(),
            torch.is_grad_enabled(), torch.get_default_dtype())


@pytest.mark.parametrize("allowed", [False, True])
def test_a_step_turns_no_switch_of_the_process(allowed, tiny_network, clip):
    frames, truth = clip
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        at_first = switches()
        engine = WatchingEngine(tiny_network)
        InferenceCore(engine).step(frames[0], truth[0])
        # Gradients are off for this thread alone.
        assert engine.seen == (*at_first[:5], False, at_first[6])
        with pytest.raises(RuntimeError, match="broken"):
            InferenceCore(FailingEngine(tiny_network)).step(frames[0], truth[0])
        InferenceCore(tiny_network).step(frames[0], truth[0])
        assert switches() == at_first
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


COMPILING = """
import sys, threading
import torch
from inference_core.core import InferenceCore
from model import PRESETS
from tests.conftest import recipe_network
from tests.inference_core.test_threads import make_module_call, repeat_meanwhile
sys.setswitchinterval(1e-5)
traced, trace = [], torch.fx.Tracer.trace
def record(self, *arguments, **options):
    traced.append(type(self))
    return trace(self, *arguments, **options)
torch.fx.Tracer.trace = record
network, call = recipe_network(PRESETS["tiny"]), make_module_call()
expected = call()
results, = repeat_meanwhile(lambda: InferenceCore(network, compile=True), [call])
assert all(torch.equal(result, expected) for result in results)
assert traced, "nothing was compiled"
assert torch.fx.Tracer not in traced, "other threads' modules were traced"
"""


@pytest.mark.slow
def test_the_first_compilation_of_a_process_disturbs_no_other_thread():
    environment = {**os.environ, "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    ran = subprocess.run([sys.executable, "-c", COMPILING], cwd=ROOT, capture_output=True, text=True, env=environment,
                         check=False)
    if "nothing can be compiled here" in ran.stderr:
        pytest.skip("there is no compiler")
    assert ran.returncode == 0, ran.stderr
