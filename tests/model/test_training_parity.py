"""A training step against the published implementation's losses, gradients and updates, with the recipe's weights."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model import NetworkConfig
from model.exact import exact_float32
from model.trainer import learning_rate
from model.training_step import TrainingStep
from tests.conftest import SHARED, recipe_network
from util.hyper_para import LossSettings

EXCERPTS = Path(__file__).parents[1] / "data"
CASES = SHARED / "parity" / "training"
needs_cases = pytest.mark.skipif(not CASES.exists(), reason="reference results are not here")
STAGES = {0: NetworkConfig(single_object=True, sam=False), 3: NetworkConfig()}

# Its gradient is zero by construction: a constant added to all keys changes no affinity's softmax.
ZERO_GRADIENT = "key_proj.key_proj.bias"


@pytest.fixture(autouse=True)
def two_threads(number_of_threads):
    """A single thread adds up in another order: the smallest loss, 3e-4, is then off by more than the tolerance."""
    torch.set_num_threads(2)


def phases():
    """(stage, file, phase) of every reference step. The repository has excerpts, rounded, of those outside of it."""
    for stage in STAGES:
        file = CASES / f"stage{stage}" if CASES.exists() else EXCERPTS / f"training_stage{stage}"
        for phase in json.loads(file.with_suffix(".json").read_text())["results"]:
            yield pytest.param(stage, file, phase, id=f"{file.name}:{phase}")


@functools.cache
def read_case(file):
    """(what was run and its results, arrays, batch)."""
    with np.load(file.with_suffix(".npz")) as arrays:
        golden = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    names = ("gt", "sec_gt", "pgt", "sec_pgt", "cls_gt", "selector")
    batch = {name: golden[name] for name in names if name in golden}
    batch["rgb"] = golden["frames"].permute(0, 1, 4, 2, 3)
    return json.loads(file.with_suffix(".json").read_text()), golden, batch


def training_step(stage, reference, changes=(), device="cpu"):
    options = {**reference["para"], **dict(changes)}
    settings = LossSettings(**{field.name: options[field.name] for field in dataclasses.fields(LossSettings)
                               if field.name in options})
    return TrainingStep(recipe_network(STAGES[stage]).to(device).requires_grad_(True), settings)


def l2(tensor):
    # In float32 the norm of a large tensor alone is off by more than the tolerance.
    return tensor.double().norm().item()


@pytest.mark.slow
@pytest.mark.parametrize("stage, file, phase", list(phases()))
def test_losses_gradients_and_update(stage, file, phase):
    compare(stage, file, phase, "cpu")


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.parametrize("stage, file, phase", list(phases()))
def test_losses_gradients_and_update_on_a_gpu(stage, file, phase, device, record_property):
    """The tolerances are five times those of the CPU: a GPU adds up in another order, and in one that changes."""
    with exact_float32():
        for name, value in compare(stage, file, phase, device, slack=5).items():
            record_property(name, value)


def compare(stage, file, phase, device, slack=1):
    """Hold a step against the published one. Return the largest relative errors. slack: a factor of all tolerances."""
    reference, golden, batch = read_case(file)
    expected = reference["results"][phase]
    step = training_step(stage, reference, expected.get("para_override", {}).items(), device)
    loss, scalars, images = step({name: value.to(device) for name, value in batch.items()}, expected["it"])
    found = {"largest error of a loss": max(abs(float(scalars[name]) / value - 1)
                                            for name, value in expected["losses"].items() if value)}
    for name, value in expected["losses"].items():
        assert float(scalars[name]) == pytest.approx(value, rel=slack * 1e-5), name
    for name, masks in images.items():
        masks = masks.cpu()
        if name in golden:
            assert (masks[:, :1] - golden[name]).abs().max() < slack * 1e-4
        if f"sec_{name}" in golden:
            assert (masks[:, 1:] - golden[f"sec_{name}"]).abs().max() < slack * 1e-4
    if "grad" not in expected:
        return found

    loss.backward()
    parameters = dict(step.network.named_parameters())
    assert parameters.keys() == expected["grad"].keys()
    total = sum(l2(parameter.grad) ** 2 for parameter in parameters.values()) ** 0.5
    found["error of the gradient's norm"] = abs(total / expected["total_grad_l2"] - 1)
    assert total == pytest.approx(expected["total_grad_l2"], rel=slack * 1e-4)
    for name, parameter in parameters.items():
        gradient = expected["grad"][name]
        if gradient["l2"] > 1e-6 and not (stage == 0 and name == ZERO_GRADIENT):
            assert l2(parameter.grad) == pytest.approx(gradient["l2"], rel=slack * 2e-3), name

    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    torch.optim.Adam(step.network.parameters(), lr=1e-4, weight_decay=1e-7).step()
    for name, parameter in parameters.items():
        if expected["grad"][name]["l2"] > 1e-6 and not (stage == 0 and name == ZERO_GRADIENT):
            change = l2(parameter.detach() - before[name])
            assert change == pytest.approx(expected["adam_step_l2"][name], rel=slack * 1e-2), name
    return found


@needs_cases
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_three_steps(stage):
    reference, _, batch = read_case(CASES / f"stage{stage}")
    step = training_step(stage, reference)
    optimizer = torch.optim.Adam(step.network.parameters(), lr=1e-6, weight_decay=1e-7)
    totals = []
    for _ in range(3):
        optimizer.zero_grad()
        loss, _, _ = step(batch, 10)
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert totals == pytest.approx(reference["three_steps"]["lr_1e-06"]["golden"], rel=1e-5)


@needs_cases
def test_learning_rates():
    curves = json.loads((CASES / "lr_curves.json").read_text())
    base, steps, gamma = curves["base_lr"], curves["steps"], curves["gamma"]
    for name, warm_up in (("MultiStepLR", 0), ("WarmupMultiStepLR_warmup_iters_10", 10),
                          ("WarmupMultiStepLR_warmup_iters_20", 20)):
        ours = [learning_rate(iteration, base, steps[::-1], gamma, warm_up) for iteration in range(100)]
        assert ours == pytest.approx(curves[name], rel=1e-9)
