"""Trainer: one update after the other."""

import dataclasses
import itertools

import pytest
import torch

from model.exact import exact_float32
from model.initialise import make_starting_network
from model.trainer import Trainer, merge_scalars
from model.training_log import Means
from util.errors import InputError
from util.hyper_para import (
    DataSettings,
    LossSettings,
    NetworkSettings,
    RecipeSettings,
    RunningSettings,
    TrainingSettings,
)

CPU = torch.device("cpu")


def trainer_of(running=None, losses=None, network_seed=0, device=CPU, **recipe):
    """A Trainer of the tests' network."""
    recipe = RecipeSettings(**{"stage": 3, "lr": 1e-4, "batch_size": 1, "iterations": 10, "steps": (), **recipe})
    settings = TrainingSettings(DataSettings(crop=64), recipe, losses or LossSettings(),
                                NetworkSettings(preset="tiny", backbone_weights="none"),
                                running or RunningSettings(no_amp=True))
    torch.manual_seed(network_seed)
    return Trainer(make_starting_network(settings.network, recipe.stage), settings, device)


def batch_of(clip, start=0, frames=5):
    """One sample of two objects, frames 64×96."""
    rgb, ids = (torch.from_numpy(part[start:start + frames, :64, :96]) for part in clip)
    planes = [(ids == known).byte()[None, :, None] for known in (1, 2)]
    return {"rgb": rgb.permute(0, 3, 1, 2)[None], "gt": planes[0], "sec_gt": planes[1], "cls_gt": ids[None],
            "pgt": planes[0][:, :1], "sec_pgt": planes[1][:, :1], "selector": torch.ones(1, 2), "name": ["clip"]}


def weights_of(trainer):
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_random_draws_follow_from_seed_and_iteration_alone(clip):
    """Not from torch's global generator, nor from the steps before."""
    batch = batch_of(clip)
    results = {}
    cases = {"first": (1, 3, 0), "again": (1, 3, 1), "later": (1, 4, 0), "seed": (2, 3, 0)}
    for name, (seed, iteration, earlier) in cases.items():
        trainer = trainer_of(RunningSettings(no_amp=True, seed=seed), damage=1, lr=0)
        torch.manual_seed(earlier)
        before = torch.get_rng_state()
        for _ in range(earlier):
            trainer.step([batch], 9)
        results[name] = float(trainer.step([batch], iteration).scalars["total_loss"])
        assert torch.equal(torch.get_rng_state(), before)
    assert results["first"] == results["again"]
    assert len(set(results.values())) == 3


@pytest.mark.slow
def test_parts_of_a_step_draw_anew(clip):
    batch = batch_of(clip, frames=8)
    trainer = trainer_of(rollout=8, lr=0)

    def learns_from(iteration):
        """The number of frames."""
        return len([name for name in trainer.step([batch, batch], iteration).scalars if name.startswith("loss_")])

    # Both parts are of the same frames now and then, and mostly not.
    assert any(learns_from(iteration) > 3 for iteration in range(6))


@pytest.mark.slow
def test_a_step_reports_the_mean_of_its_parts(clip):
    batches = [batch_of(clip), batch_of(clip, 9)]
    alone = [trainer_of().step([batch], 0).scalars for batch in batches]
    both = trainer_of().step(batches, 0).scalars
    for name, value in both.items():
        first, second = float(alone[0][name]), float(alone[1][name])
        expected = first + second if name.startswith("hide_iou/") else (first + second) / 2
        assert float(value) == pytest.approx(expected, rel=1e-5), name
    assert float(alone[0]["total_loss"]) != float(alone[1]["total_loss"])


def test_reports_with_other_names():
    assert merge_scalars([{"loss_1": 1.0, "hide_iou/i": 3}, {"loss_2": 4.0, "loss_1": 2.0, "hide_iou/i": 4}]) == {
        "loss_1": 1.5, "hide_iou/i": 7, "loss_2": 4.0}
    means = Means()
    means.add({"loss_1": 1.0, "hide_iou/i": 3, "hide_iou/u": 6})
    means.add({"loss_2": 4.0, "hide_iou/i": 1, "hide_iou/u": 2})
    assert means.read() == {"loss_1": 1.0, "loss_2": 4.0, "iou": 0.5}
    assert means.read() == {}


@pytest.mark.parametrize("train", ["all", *(pytest.param(train, marks=pytest.mark.slow) for train in ("keys", "rest"))])
def test_save_and_restore_go_on_bit_for_bit(clip, tmp_path, train):
    changes = {"train": train, "trunk_lr": 0.5, "damage": 0 if train == "keys" else 0.5}
    losses = LossSettings(match_weight=1)
    whole, broken = (trainer_of(losses=losses, **changes) for _ in range(2))
    for iteration in range(2):
        whole.step([batch_of(clip)], iteration)
        broken.step([batch_of(clip)], iteration)
    broken.save(tmp_path, 2, 1)
    resumed = trainer_of(losses=losses, network_seed=5, **changes)
    assert not same(weights_of(resumed), weights_of(whole))
    assert resumed.restore(tmp_path / "model_2_checkpoint.pth") == (2, 1)
    for trainer in (whole, resumed):
        trainer.step([batch_of(clip)], 2)
    assert same(weights_of(resumed), weights_of(whole))


def test_average_of_the_weights(clip, tmp_path):
    """The plain mean at first, then one that forgets; in the files it is the network."""
    trainer = trainer_of(lr=1e-3, ema=3)
    seen = []
    for iteration in range(5):
        trainer.step([batch_of(clip)], iteration)
        seen.append(weights_of(trainer))
    name = "decoder.pred.weight"
    mean = sum(weights[name] for weights in seen[:3]) / 3
    for weights in seen[3:]:
        mean = mean + (weights[name] - mean) / 3
    trainer.save(tmp_path, 5, 0)
    saved = torch.load(tmp_path / "model_5.pth", weights_only=True)
    torch.testing.assert_close(saved[name], mean)
    assert not torch.equal(saved[name], seen[-1][name]) and saved.keys() == seen[-1].keys()
    # A resumed training goes on with it.
    resumed = trainer_of(lr=1e-3, ema=3, network_seed=5)
    resumed.restore(tmp_path / "model_5_checkpoint.pth")
    for each in (trainer, resumed):
        each.step([batch_of(clip)], 5)
        each.save(tmp_path, 6, 0)
        each.last = torch.load(tmp_path / "model_6.pth", weights_only=True)
    assert same(trainer.last, resumed.last) and resumed.samples == 6


def test_frozen_trunk_computes_the_same(clip):
    """With the batch norms folded, in the rows of all frames at once."""
    frozen, trained = (trainer_of(trunk_lr=factor) for factor in (0, 1))
    scalars = [trainer.step([batch_of(clip)], 0).scalars for trainer in (frozen, trained)]
    for name, value in scalars[0].items():
        assert float(value) == pytest.approx(float(scalars[1][name]), rel=1e-3, abs=1e-5), name
    before = {name: value for name, value in weights_of(trainer_of()).items() if name.startswith("key_encoder.")}
    assert all(torch.equal(value, frozen.network.state_dict()[name]) for name, value in before.items())
    assert not all(torch.equal(value, trained.network.state_dict()[name]) for name, value in before.items())


def test_frozen_trunk_is_that_of_the_checkpoint(clip, tmp_path):
    trainer = trainer_of(trunk_lr=0)
    trainer.save(tmp_path, 0, 0)
    resumed = trainer_of(trunk_lr=0, network_seed=5)
    resumed.restore(tmp_path / "model_0_checkpoint.pth")
    losses = [float(each.step([batch_of(clip)], 1).scalars["total_loss"]) for each in (trainer, resumed)]
    assert losses[0] == losses[1]


def test_checkpoints_of_other_shapes_are_refused(clip, tmp_path):
    """The optimizer would read beyond the end of its state."""
    trainer = trainer_of()
    trainer.step([batch_of(clip)], 0)
    trainer.save(tmp_path, 1, 0)
    file = tmp_path / "model_1_checkpoint.pth"
    state = torch.load(file, weights_only=True)
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(1)
    torch.save(state, file)
    with pytest.raises(InputError, match=r"has a torch.float32 tensor of shape \(1,\) where"):
        trainer_of().restore(file)


def test_moments_of_another_layout_are_the_same(clip, tmp_path):
    """Checkpoints of other machines and versions may hold them in another order."""
    trainer = trainer_of()
    trainer.step([batch_of(clip)], 0)
    trainer.save(tmp_path, 1, 0)
    file = tmp_path / "model_1_checkpoint.pth"
    state = torch.load(file, weights_only=True)
    for moments in state["optimizer"]["state"].values():
        moments.update({name: value.contiguous() for name, value in moments.items()})
    torch.save(state, file)
    resumed = trainer_of()
    resumed.restore(file)
    for each in (trainer, resumed):
        each.step([batch_of(clip)], 1)
    assert same(weights_of(trainer), weights_of(resumed))


def test_capturing_is_refused_where_there_is_no_gpu():
    with pytest.raises(InputError, match="CUDA graphs need an NVIDIA GPU, and this runs on cpu"):
        trainer_of(RunningSettings(no_amp=True, capture=True))


def test_nothing_of_the_process_changes(clip):
    before = (torch.get_rng_state(), torch.backends.cudnn.benchmark, torch.get_num_threads())
    trainer = trainer_of(RunningSettings(no_amp=True, benchmark=True))
    state = torch.get_rng_state()
    trainer.step([batch_of(clip)], 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.backends.cudnn.benchmark, torch.get_num_threads()) == before[1:]


def test_a_stop_that_is_asked_for_is_in_the_result(clip):
    trainer = trainer_of()
    assert trainer.step([batch_of(clip)], 0).stop is None
    trainer.ask_to_stop(143)
    assert trainer.step([batch_of(clip)], 1).stop == 143


def test_a_step_without_a_finite_loss_changes_nothing(clip):
    trainer = trainer_of()
    batch = batch_of(clip)
    before = weights_of(trainer)
    result = trainer.step([{**batch, "pgt": batch["pgt"].float() * float("nan")}], 0)
    assert not result.finite and same(before, weights_of(trainer))
    assert trainer.step([batch], 1).finite and not same(before, weights_of(trainer))


RECIPES = {"published": {}, "rollout": {"rollout": 8, "damage": 0.5}, "rest": {"train": "rest", "trunk_lr": 0}}


@pytest.mark.cuda
@pytest.mark.parametrize("name, precision", [
    pytest.param(*case, marks=() if case in (("rollout", "float32"), ("rest", "bfloat16")) else pytest.mark.slow)
    for case in (*itertools.product(RECIPES, ("float32", "bfloat16")), ("published", "float16"))])
def test_steps_on_a_gpu_are_those_of_the_cpu(clip, device, name, precision, record_property):
    """Losses to 1e-4, in half precision to 2 %; changes of the weights to 2 %, in half precision to a half.

    Adam makes the first changes of all weights equally large, also of those whose gradient is only rounding errors. In
    float16, the scaler may pass over the first steps, so only the losses are compared.
    """
    recipe, exact = RECIPES[name], precision == "float32"
    batch = batch_of(clip, frames=8 if "rollout" in recipe else 5)
    start = weights_of(trainer_of(**recipe))
    running = RunningSettings(no_amp=True) if exact else RunningSettings(amp_dtype=precision)
    losses, changes = [], []
    with exact_float32():
        for trainer in (trainer_of(**recipe), trainer_of(running, device=device, **recipe)):
            losses.append([float(trainer.step([batch], iteration).scalars["total_loss"]) for iteration in range(2)])
            changes.append({name: value.cpu() - start[name] for name, value in weights_of(trainer).items()})
    expected, found = changes
    apart, whole = (sum(change.square().sum() for change in each).sqrt() for each in (
        [found[name] - expected[name] for name in expected], expected.values()))
    record_property("largest error of a loss", max(abs(one / other - 1) for one, other in zip(*losses, strict=True)))
    record_property("error of the weights' change", float(apart / whole))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if exact else 0.02)
    assert precision == "float16" or apart < (0.02 if exact else 0.5) * whole


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RecipeSettings().lr = 1
