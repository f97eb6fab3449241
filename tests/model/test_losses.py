import pytest
import torch

from dataset.synthetic import make_noise_batch
from model import PRESETS, RDE
from model.losses import (
    IGNORE,
    bootstrap_fraction,
    bootstrapped_cross_entropy,
    consistency,
    dice,
    halving_sum,
    matching,
)
from model.training_step import TrainingStep
from util.hyper_para import LossSettings


def test_bootstrapping_goes_from_all_pixels_to_the_hardest():
    fractions = [bootstrap_fraction(iteration, 20, 70, 0.15) for iteration in (0, 19, 20, 45, 70, 71)]
    assert fractions == pytest.approx([1, 1, 1, 0.575, 0.15, 0.15])
    logits = torch.zeros(1, 2, 1, 4)
    logits[0, 0] = torch.tensor([0.0, 1, 2, 3])
    target = torch.ones(1, 1, 4, dtype=torch.long)
    pixels = torch.nn.functional.softplus(torch.tensor([0.0, 1, 2, 3]))
    assert bootstrapped_cross_entropy(logits, target, 0.5).item() == pytest.approx(pixels[2:].mean().item())
    assert bootstrapped_cross_entropy(logits, target, 1.0).item() == pytest.approx(pixels.mean().item())


def test_missing_second_object_is_no_class():
    logits = torch.randn(1, 3, 2, 2)
    target = torch.zeros(1, 2, 2, dtype=torch.long)
    one = bootstrapped_cross_entropy(logits, target, 1.0, torch.tensor([[1.0, 0.0]]))
    assert one.item() == pytest.approx(bootstrapped_cross_entropy(logits[:, :2], target, 1.0).item())


def test_later_frames_weigh_more():
    assert halving_sum([8, 0, 0]) == 1 and halving_sum([0, 0, 8]) == 4


def test_consistency_moves_both_sides():
    torch.manual_seed(0)
    student, teacher = (torch.randn(1, 2, 4, 1, 1, requires_grad=True) for _ in range(2))
    assert consistency(student, student).item() == pytest.approx(0, abs=1e-6)
    consistency(student, teacher).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad.abs().sum() > 0


def test_consistency_has_gradients_where_probabilities_underflow():
    torch.manual_seed(0)
    student, teacher = ((torch.randn(1, 2, 4, 1, 1) * 200).requires_grad_(True) for _ in range(2))
    consistency(student, teacher).backward()
    assert student.grad.isfinite().all() and teacher.grad.isfinite().all()


def test_bootstrapping_without_a_way_down():
    assert [bootstrap_fraction(iteration, 5, 5, 0.2) for iteration in (4, 5, 6)] == [1, 0.2, 0.2]


def test_matching_counts_the_objects_that_there_are():
    truth = torch.tensor([[[1.0, 0, 0, 0], [0, 0, 0.5, 0]]])
    assert matching(truth, truth).item() < 0.25 < 1 < matching(1 - truth, truth).item()
    wrong = torch.stack([truth[:, 0], torch.ones(1, 4)], 1)
    first = matching(wrong, truth, torch.tensor([[1.0, 0.0]])).item()
    assert first == pytest.approx(matching(truth[:, :1], truth[:, :1]).item())


@pytest.mark.parametrize("loss", [lambda *args: bootstrapped_cross_entropy(args[0], args[1], 0.5), dice])
def test_pixels_to_ignore_move_nothing(loss):
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    target = torch.randint(0, 3, (1, 4, 4))
    target[:, 1:3, 1:3] = IGNORE
    loss(logits, target).backward()
    assert logits.grad[..., 1:3, 1:3].abs().sum() == 0 and logits.grad.abs().sum() > 0
    changed = logits.detach().clone()
    changed[..., 1:3, 1:3] += 5
    assert loss(changed, target).item() == loss(logits, target).item()


def test_matching_leaves_cells_out():
    truth = torch.tensor([[[1.0, 0, 0, 0]]])
    wrong, counts = 1 - truth, torch.tensor([[[0.0, 1, 1, 1]]])
    right_elsewhere = torch.where(counts > 0, truth, wrong)
    assert matching(right_elsewhere, truth, counts=counts).item() < 0.01 < matching(right_elsewhere, truth).item()
    assert matching(wrong, truth, counts=torch.ones_like(counts)).item() == matching(wrong, truth).item()


def test_step_ignores_what_lies_under_pixels_to_ignore():
    """The masks of later frames may say anything there."""
    torch.manual_seed(0)
    step = TrainingStep(RDE(PRESETS["tiny"]), LossSettings(dice_weight=1, match_weight=1))
    batch = make_noise_batch(3, 1, 64, "cpu")
    batch["cls_gt"][:, 1:, 10:30, 40:60] = IGNORE
    first = step(batch, 0)[0].item()
    batch["gt"] = batch["gt"].clone()
    batch["gt"][:, 1:, :, 10:30, 40:60] = 1
    assert step(batch, 0)[0].item() == pytest.approx(first, abs=1e-6)
    batch["cls_gt"][:, 1:, 10:30, 40:60] = 0
    assert step(batch, 0)[0].item() != pytest.approx(first, abs=1e-4)
