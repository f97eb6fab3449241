"""Whole videos against the published implementation's probabilities and masks, with the recipe's weights."""

import copy
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from inference_core import InferenceCore
from tests.conftest import CHECKED_DEVICE, SHARED
from util.device import pick_device

EXCERPT = Path(__file__).parents[1] / "data" / "parity_excerpt.npz"
CASES = SHARED / "parity" / "inference"


def runs():
    """(file, run) of every reference video; those outside the repository only where they exist."""
    files = [EXCERPT, *sorted(CASES.glob("[abc]_*.npz"))]
    for file in files:
        for run, settings in json.loads(file.with_suffix(".json").read_text())["runs"].items():
            if "crash" not in settings:
                # Half an hour of one core in all; the excerpt stands for them in the quick tests.
                marks = () if file == EXCERPT else pytest.mark.slow
                yield pytest.param(file, run, id=f"{file.stem}:{run}", marks=marks)


@pytest.mark.parametrize("file, run", list(runs()))
def test_masks_are_the_published_ones(base_network, file, run):
    compare(base_network, file, run)


@pytest.fixture(scope="module")
def base_on_device(base_network):
    """The base network on the device of the tests marked `cuda`; one for all of them, so that they share snapshots."""
    return copy.deepcopy(base_network).to(pick_device(CHECKED_DEVICE))


def cuda_runs():
    """(form, precision, file, run): all videos eager and captured, and one compiled, which takes a minute.

    In a rehearsal, one of them is quick.
    """
    for (precision, form), case in itertools.product((("float32", "eager"), ("float32", "captured"),
                                                      ("float16", "eager"), ("float16", "captured"),
                                                      ("float16", "compiled")), runs()):
        file, run = case.values
        if form != "compiled" or file == EXCERPT:
            quick = (precision, form, file) == ("float32", "captured", EXCERPT)
            yield pytest.param(form, precision, file, run, id=f"{form}-{precision}-{case.id}",
                               marks=() if quick else pytest.mark.slow)


@pytest.mark.cuda
@pytest.mark.parametrize("compile_option, precision, file, run", list(cuda_runs()), indirect=["compile_option"])
def test_masks_on_a_gpu_are_the_published_ones(base_on_device, file, run, precision, compile_option, record_property):
    amp = precision != "float32" and precision
    found = compare(base_on_device, file, run, amp=amp, compile=compile_option)
    for name, value in found.items():
        record_property(name, value)


def compare(network, file, run, amp=False, **options):
    """Track a reference video and hold probabilities and masks against the published ones.

    Return {"largest difference": of a probability, "share of other ids": of all pixels}. In half precision, the first
    may be 0.05 and the second 0.5 %, which is six times what float16 on a CPU has.
    """
    case = json.loads(file.with_suffix(".json").read_text())
    settings = case["runs"][run]
    with np.load(file) as arrays:
        frames, truth, masks = arrays["frames"], arrays["gt_masks"], arrays[f"index:{run}"]
        exact = dict(zip(settings["f32_frames"], arrays[f"prob_f32:{run}"].swapaxes(0, 1), strict=True))
        coarse = arrays[f"prob_f16:{run}"].astype(np.float32) if f"prob_f16:{run}" in arrays else None
    core = InferenceCore(network, settings["mode"], settings["mem_every"], settings["top"],
                         include_last=settings.get("include_last", False), amp=amp, **options)
    largest, others, pixels = 0.0, 0, 0
    labels = settings.get("labels", {"0": list(range(1, case["objects"] + 1))})
    wanted = settings.get("req_frames", range(len(frames)))

    for index, frame in enumerate(frames):
        labelled = labels.get(str(index))
        mask = np.where(np.isin(truth[index], labelled), truth[index], 0) if labelled else None
        prob = core.step(frame, mask, end=index == len(frames) - 1, needs_output=index in wanted)
        if index not in wanted:
            continue
        ours = np.zeros((case["objects"] + 1, *frame.shape[:2]), np.float32)
        ours[[0, *core.objects]] = prob.cpu().numpy()
        if index in exact:
            largest = max(largest, float(np.abs(ours - exact[index]).max()))
            assert largest <= (0.05 if amp else 1e-4)
        if coarse is not None:
            assert np.abs(ours - coarse[:, index]).max() <= (0.05 if amp else 1e-3)
        second, first = np.sort(ours, axis=0)[-2:]
        other = core.to_mask(prob).cpu().numpy() != masks[index]
        others, pixels = others + int(other.sum()), pixels + other.size
        assert amp or not (other & (first - second > 1e-3)).any()
    assert others <= 0.005 * pixels
    return {"largest difference": largest, "share of other ids": others / pixels}


@pytest.mark.slow
@pytest.mark.skipif(not CASES.exists(), reason="reference results are not here")
def test_where_the_published_code_crashes_ours_tracks(base_network):
    """A top-k larger than the memory: ours lets every position count."""
    file = CASES / "a_topk_too_large.npz"
    case = json.loads(file.with_suffix(".json").read_text())
    with np.load(file) as arrays:
        frames, truth = arrays["frames"], arrays["gt_masks"]
    for settings in case["runs"].values():
        core = InferenceCore(base_network, settings["mode"] or "two-frames-compress", settings["mem_every"],
                             settings["top"])
        for index, frame in enumerate(frames):
            prob = core.step(frame, truth[0] if index == 0 else None)
        assert prob.isfinite().all()
        assert set(np.unique(core.to_mask(prob))) <= {0, 1}
