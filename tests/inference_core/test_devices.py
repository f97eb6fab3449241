"""Tracking on a GPU against tracking on the CPU in float32: in every mode, eager and as CUDA graphs."""

import copy
import itertools

import pytest

from dataset.synthetic import MovingNoise
from inference_core import MODES, InferenceCore
from tests.conftest import CHECKED_DEVICE
from util.device import pick_device

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module")
def network_on_device(tiny_network):
    return copy.deepcopy(tiny_network).to(pick_device(CHECKED_DEVICE))


@pytest.fixture(scope="module")
def expected(tiny_network, clip):
    """expected(video, mode): the results of the CPU in float32, each computed once."""
    known = {}

    def compute(video, mode):
        if (video, mode) not in known:
            known[video, mode] = list(video(InferenceCore(tiny_network, mode, mem_every=2), clip))
        return known[video, mode]

    return compute


def late_objects(core, clip):
    """A video in which one object comes late and is corrected, and the other goes and comes back with another id."""
    frames, truth = clip
    first, second = truth * (truth == 1), truth * (truth == 2)
    masks = {1: first[1], 4: second[4], 7: second[7], 11: 9 * first[11]}
    for index, frame in enumerate(frames[:15]):
        if index == 9:
            core.delete_objects([1])
        wanted = index not in (3, 6)
        prob = core.step(frame, masks.get(index), end=index == 14, needs_output=wanted)
        if wanted:
            yield prob


def many_objects(core, clip):
    """A video of more objects than go through the network at a time, then of fewer."""
    noise = MovingNoise((72, 104), 10, "cpu")
    for index in range(8):
        if index == 5:
            core.delete_objects([1, 4, 5])
        yield core.step(noise.frame(index), noise.mask if index == 0 else None)


def other_sizes(core, clip):
    """Two videos of different sizes, and the first one again."""
    frames, truth = clip
    for rows in (slice(None), slice(8, 60), slice(None)):
        core.reset()
        for index, frame in enumerate(frames[:4]):
            yield core.step(frame[rows], truth[0][rows] if index == 0 else None)


def late_objects_by_looks(core, clip):
    """The same objects in a core that tells them apart by their looks alone."""
    core.places = False
    core.reset()
    yield from late_objects(core, clip)


USUAL = "two-frames-compress"


def cases():
    """(video, mode, form, precision): every mode eager and captured, and one compiled, which takes a minute.

    A quick rehearsal leaves out most of what differs in the mode alone.
    """
    for form, precision in itertools.product(("eager", "captured"), ("float32", "float16")):
        for video in (other_sizes, late_objects_by_looks):
            yield pytest.param(video, USUAL, form, precision, id=f"{form}-{precision}-{video.__name__}")
        for video, mode in itertools.product((late_objects, many_objects), MODES):
            quick = (form, precision, video) == ("captured", "float32", late_objects) or (
                mode == USUAL and (form, precision) == ("eager", "float16"))
            yield pytest.param(video, mode, form, precision, id=f"{form}-{precision}-{video.__name__}-{mode}",
                               marks=() if quick else pytest.mark.slow)
    yield pytest.param(late_objects, USUAL, "compiled", "float32", id="compiled-float32-late_objects",
                       marks=pytest.mark.slow)


TOLERANCE = {"float32": 5e-4, "float16": 0.1}
"""The largest difference of a probability. On a CPU they are 1e-5 and 0.03."""


@pytest.mark.parametrize("video, mode, compile_option, precision", list(cases()), indirect=["compile_option"])
def test_a_gpu_tracks_as_the_cpu_does(network_on_device, expected, clip, video, mode, compile_option, precision,
                                      record_property):
    """Another id is right only where the two best probabilities are so near that the tolerance changes their order."""
    amp = precision != "float32" and precision
    core = InferenceCore(network_on_device, mode, mem_every=2, amp=amp, compile=compile_option)
    # All results are kept to the end: no later frame may overwrite them.
    results = list(video(core, clip))
    largest, wrong, tolerance = 0.0, 0, TOLERANCE[precision]
    for prob, reference in zip(results, expected(video, mode), strict=True):
        assert prob.object_ids == reference.object_ids
        largest = max(largest, float((prob.cpu() - reference).abs().max()))
        first, second = reference.topk(2, dim=0).values if len(reference) > 1 else (reference[0], 0)
        other = core.to_mask(prob).cpu() != core.to_mask(reference)
        wrong += int((other & (first - second > 2 * tolerance)).sum())
    record_property("largest difference", largest)
    assert largest <= tolerance
    assert not wrong
