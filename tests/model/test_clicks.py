"""The click network and its training step."""

import copy

import numpy as np
import pytest
import torch

from model import load_clicks
from model.click_step import ClickDraws, ClickStep, add_clicks, losses
from model.clicks import CLICK_PRESETS, REACH, ClickNetwork, nearness
from model.losses import IGNORE
from tests.trees import photograph
from util.errors import InputError


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ClickNetwork(CLICK_PRESETS["tiny"]).eval()


@pytest.fixture
def batch():
    rgb = torch.stack([torch.from_numpy(photograph(seed, (64, 96)).copy()).permute(2, 0, 1) for seed in (1, 2)])
    truth = torch.zeros(2, 1, 64, 96, dtype=torch.uint8)
    truth[:, :, 10:40, 20:70] = 1
    truth[:, :, :, :8] = IGNORE
    hints = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
    hints[:, 0, 20:30, 40:50] = 1
    return {"rgb": rgb.unsqueeze(1), "cls_gt": truth, "hints": hints, "previous": torch.zeros_like(truth)}


def test_shipped_size_is_at_most_4_mb():
    assert 2 * sum(value.numel() for value in ClickNetwork().state_dict().values()) < 4e6


def test_every_part_gets_a_gradient(network, batch):
    loss, _, _ = ClickStep(network)(batch, 0, ClickDraws(0, np.zeros((0, 2, 2))))
    loss.backward()
    without = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert not without


def test_loaded_network_computes_the_same_as_the_trained_one(network, batch, tmp_path):
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
    torch.save(network.state_dict(), tmp_path / "clicks.pth")
    loaded = load_clicks(tmp_path / "clicks.pth")
    hints = torch.cat([batch["hints"], batch["previous"]], 1).float()
    with torch.no_grad():
        expected, found = (each.segment(each.encode_image(batch["rgb"][:, 0]), hints) for each in (network, loaded))
    assert expected.shape == (2, 1, 16, 24)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_likeness_finds_the_texture_that_was_clicked(network):
    features = torch.zeros(1, 112, 2, 4)
    features[:, 0, :, :2], features[:, 1, :, 2:] = 1, 1
    clicked = torch.zeros(1, 2, 2, 4)
    clicked[0, 0, 0, 0] = 1
    alike = network.likeness(features, clicked)
    assert (alike[0, 0, :, :2] > alike[0, 0, :, 2:].max()).all() and (alike[0, 1] == -1).all()


def test_nearness_falls_with_the_distance_to_the_nearest_click():
    clicked = torch.zeros(1, 2, 4, 9)
    clicked[0, 0, 1, 2] = clicked[0, 0, 1, 8] = 1
    near = nearness(clicked)
    expected = np.exp(-np.array([2, 1, 0, 1, 2, 3, 2, 1, 0]) / REACH)
    np.testing.assert_allclose(near[0, 0, 1], expected, rtol=1e-5)
    assert not near[0, 1].any()


@pytest.mark.parametrize("name", ["tracking", "strange"])
def test_other_checkpoints_are_refused(name, tmp_path):
    content = {"key_proj.key_proj.weight": torch.zeros(1)} if name == "tracking" else {"hint4.weight": torch.zeros(1)}
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth"):
        load_clicks(tmp_path / "w.pth")


def test_simulated_click_lands_in_the_largest_error(batch):
    hints, prob = batch["hints"].clone() * 0, torch.zeros(2, 1, 64, 96)
    prob[1] = 1
    add_clicks(hints, prob, batch["cls_gt"][:, 0], np.zeros((2, 2)))
    assert hints[0, 0].any() and not hints[0, 1].any()
    assert (batch["cls_gt"][0, 0][hints[0, 0] > 0] == 1).all()
    assert hints[1, 1].any() and not hints[1, 0].any()
    assert (batch["cls_gt"][1, 0][hints[1, 1] > 0] == 0).all()


def test_step_is_a_function_of_its_draws_and_leaves_the_batch_alone(network, batch):
    step, before = ClickStep(network), copy.deepcopy(batch)
    draws = [step.draw(batch, torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert {each.rounds for each in draws} >= {0, 1, 2}
    chosen = next(each for each in draws if each.rounds == 2)
    first, second = (step(batch, 0, chosen)[0] for _ in range(2))
    assert torch.equal(first, second) and all(torch.equal(batch[key], before[key]) for key in batch)


def test_pixels_that_are_not_known_have_no_loss():
    truth = torch.zeros(1, 8, 8, dtype=torch.uint8)
    truth[:, 2:5] = 1
    truth[:, :, :3] = IGNORE
    logits = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = logits.clone()
    changed[:, :, :3] = 9
    assert all(torch.equal(one, other) for one, other in zip(losses(logits, truth), losses(changed, truth),
                                                               strict=True))
    right = torch.where(truth == 1, 20.0, -20.0)
    assert sum(losses(right, truth)) < 1e-3 < sum(losses(-right, truth))
