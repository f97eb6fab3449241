"""track.py --both-ways through its command line, and merging."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from inference_core import InferenceCore
from inference_core.both_ways import BOTH_WAYS, merge
from model import load_network
from tests.tracking_runs import run

COUNT = 9


@pytest.fixture(scope="module")
def inputs(clip, tmp_path_factory):
    """frames/ and, for each frame, a mask of the same name in masks/."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, pictures in (("frames", clip[0]), ("masks", clip[1])):
        (folder / name).mkdir()
        for number in range(COUNT):
            Image.fromarray(pictures[number]).save(folder / name / f"{number:05d}.png")
    return folder


def track_both_ways(inputs, checkpoint, output, *numbers):
    """Track with the masks of these frames; returns {number: ids} and the summary."""
    given = [f"{number}:{inputs / 'masks' / f'{number:05d}.png'}" for number in numbers]
    assert run("--video", inputs / "frames", "--mask", *given, "--both-ways", "--model", checkpoint, "--output",
               output) == 0
    masks = {int(path.stem): np.array(Image.open(path)) for path in (output / "masks").iterdir()}
    assert sorted(masks) == list(range(COUNT)) and not (output / BOTH_WAYS).exists()
    return masks, json.loads((output / "summary.json").read_text())


def step_through(core, inputs, order, given):
    """{number: probabilities} of a core that is given the masks of `given` when it comes to their frames."""
    pictures = {number: np.array(Image.open(inputs / "frames" / f"{number:05d}.png")) for number in order}
    masks = {number: np.array(Image.open(inputs / "masks" / f"{number:05d}.png")) for number in given}
    return {number: core.step(pictures[number], masks.get(number), frame=number, end=number == order[-1])
            for number in order}


def test_one_mask_is_tracked_to_both_ends(inputs, tiny_checkpoint, tmp_path):
    masks, summary = track_both_ways(inputs, tiny_checkpoint, tmp_path, 4)
    network = load_network(tiny_checkpoint)
    for order in (range(4, COUNT), range(4, -1, -1)):
        core = InferenceCore(network, amp="auto", size=2 * 72)
        for number, prob in step_through(core, inputs, order, [4]).items():
            assert np.array_equal(masks[number], core.to_mask(prob).numpy()), number
    assert summary["complete"] and summary["both_ways"] and len(summary["frames"]) == COUNT


def test_frames_between_two_masks_are_merged_from_both(inputs, tiny_checkpoint, tmp_path):
    masks, _ = track_both_ways(inputs, tiny_checkpoint, tmp_path, 1, 7)
    network, found = load_network(tiny_checkpoint), []
    for order, first, second in ((range(1, COUNT), 1, 7), (range(7, -1, -1), 7, 1)):
        core = InferenceCore(network, amp="auto", size=2 * 72)
        image, mask = (np.array(Image.open(inputs / kind / f"{second:05d}.png")) for kind in ("frames", "masks"))
        core.step(image, mask, frame=second)
        found.append(step_through(core, inputs, order, [first, second]))
    for number in (2, 4, 6):
        # What is kept on disk has eight bits.
        ahead, back = (found[0][number] * 255).round() / 255, found[1][number]
        mean = ((7 - number) * ahead + (number - 1) * back) / 6
        assert np.array_equal(masks[number], mean.argmax(0).numpy()), number
    for number in (1, 7):
        assert np.array_equal(masks[number], np.array(Image.open(inputs / "masks" / f"{number:05d}.png")))
    assert np.array_equal(masks[0], found[1][0].argmax(0).numpy())
    assert np.array_equal(masks[8], found[0][8].argmax(0).numpy())


def test_an_object_counts_only_where_it_comes_from():
    ahead, back = torch.zeros(2, 1, 2), torch.zeros(3, 1, 2)
    ahead[1], ahead[0] = torch.tensor([[0.9, 0.2]]), torch.tensor([[0.1, 0.8]])
    back[2], back[0] = torch.tensor([[0.2, 0.7]]), torch.tensor([[0.8, 0.3]])
    ids, prob = merge([([1], ahead, {1: 1.0}), ([1, 2], back, {2: 0.5})])
    assert ids == [1, 2] and torch.allclose(prob.sum(0), torch.ones(1, 2))
    # Background (2 × 0.1 + 0.8) / 3, objects 0.9 and 0.2; then (2 × 0.8 + 0.3) / 3, 0.2 and 0.7.
    assert prob.argmax(0).tolist() == [[1, 2]]
    assert prob[1, 0, 0] == pytest.approx(0.9 / (0.9 + 0.2 + 1 / 3))


def test_without_any_object_all_is_background():
    ids, prob = merge([([1], torch.rand(2, 3, 4), {}), ([], torch.ones(1, 3, 4), {1: 1.0})])
    assert ids == [] and torch.equal(prob, torch.ones(1, 3, 4))


@pytest.mark.parametrize("option", ["--backward", "--resume"])
def test_options_that_do_not_go_together(inputs, tmp_path, capsys, option):
    assert run("--video", inputs / "frames", "--mask", inputs / "masks" / "00000.png", "--both-ways", "--output",
               tmp_path / "o", option) == 2
    assert f"leave out {option}" in capsys.readouterr().err and not (tmp_path / "o").exists()

