import dataclasses

import pytest
import torch

from inference_core import InferenceCore
from model import PRESETS
from model.training_step import DAMAGE_DRAWS, SUPERVISED, Draws, TrainingStep, damage_masks, rollout_step
from tests.conftest import recipe_network
from util.hyper_para import LossSettings

SIZE = 64


def drawn(share, seed=3, batch=200):
    """(masks B×2×H×W of two rectangles, the second there in half of the images; selector; the damaged masks)."""
    masks = torch.zeros(batch, 2, SIZE, SIZE)
    masks[:, 0, 10:40, 5:25], masks[::2, 1, 20:50, 30:60] = 1, 1
    selector = torch.ones(batch, 2)
    selector[1::2, 1] = 0
    draws = torch.rand(batch, DAMAGE_DRAWS, generator=torch.Generator().manual_seed(seed))
    return masks, selector, damage_masks(masks, selector, share, draws)


def test_damaged_masks_lack_a_part_or_hold_some_background():
    masks, selector, damaged = drawn(0.6)
    less, more = (change(damaged, masks).flatten(1).any(1) for change in (torch.lt, torch.gt))
    assert not (less & more).any()
    assert 0.2 < less.float().mean() < 0.4 and 0.2 < more.float().mean() < 0.4
    assert ((damaged == masks) | (damaged == 0))[less].all()
    left = damaged[less][:, 0].sum((1, 2)) / masks[less][:, 0].sum((1, 2))
    assert left.min() < 0.45 and left.max() > 0.9 and 0.5 < left.mean() < 0.9
    assert (damaged.sum(1) <= 1.0001).all() and not damaged[selector == 0].any()
    # What is added lies in the background.
    assert torch.equal(damaged[more][masks[more] > 0], masks[more][masks[more] > 0])


def test_damage_is_drawn_anew_and_its_share_holds():
    masks, _, damaged = drawn(0.6)
    assert torch.equal(drawn(0)[2], masks)
    assert not torch.equal(drawn(0.6, seed=4)[2], damaged) and torch.equal(drawn(0.6)[2], damaged)


def test_gradients_pass_what_is_kept():
    masks, selector, _ = drawn(1)
    damaged = damage_masks(masks.requires_grad_(), selector, 1, torch.rand(len(masks), DAMAGE_DRAWS))
    damaged.sum().backward()
    assert masks.grad.isfinite().all() and masks.grad[damaged.detach() > 0].any()


def test_an_object_out_of_sight_does_no_harm():
    nothing = torch.zeros(20, 2, SIZE, SIZE)
    assert damage_masks(nothing, torch.ones(20, 2), 1, torch.rand(20, DAMAGE_DRAWS)).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("single", [True, False], ids=["images", "videos"])
def test_matching_loss_teaches_the_keys_which_object_is_which(single):
    """Two patches of noise move over a third; the keys learn to carry their masks along."""
    torch.manual_seed(5)
    frames = 3 if single else 5
    rgb = torch.randint(0, 100, (1, 1, 3, SIZE, SIZE), dtype=torch.uint8).repeat(1, frames, 1, 1, 1)
    masks = torch.zeros(1, frames, 2, SIZE, SIZE, dtype=torch.uint8)
    for time in range(frames):
        for number, (top, left) in enumerate(((4 * time, 0), (0, SIZE - 24 - 4 * time))):
            masks[0, time, number, top:top + 32, left:left + 24] = 1
            rgb[0, time, number, top:top + 32, left:left + 24] += 120
    batch = {"rgb": rgb, "gt": masks[:, :, :1], "pgt": masks[:, :1, :1]}
    if single:
        batch["cls_gt"] = masks[:, :, 0]
    else:
        batch.update(sec_gt=masks[:, :, 1:], sec_pgt=masks[:, :1, 1:], cls_gt=masks[:, :, 0] + 2 * masks[:, :, 1],
                     selector=torch.ones(1, 2))
    config = dataclasses.replace(PRESETS["tiny"], single_object=single, sam=not single)
    network = recipe_network(config).requires_grad_(True)
    step, plain = (TrainingStep(network, LossSettings(match_weight=weight)) for weight in (1, 0))
    total, scalars, _ = step(batch, 0)
    without, names, _ = plain(batch, 0)
    assert "match_loss" not in names
    assert (total - without).item() == pytest.approx(scalars["match_loss"].item(), rel=1e-3)

    keys = list(network.key_proj.parameters())
    alone = TrainingStep(network, LossSettings(match_weight=1), keys_only=True)
    for found, expected in zip(*(torch.autograd.grad(loss, keys) for loss in (alone(batch, 0)[0], total - without)),
                               strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    optimizer = torch.optim.Adam(keys, lr=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        alone(batch, 0)[0].backward()
        optimizer.step()
    assert step(batch, 0)[1]["match_loss"] < 0.8 * scalars["match_loss"]


def clip_batch(clip, frames=7):
    """A batch of one sample: the first frames of the clip, its sides cut to multiples of 16."""
    rgb, ids = (torch.from_numpy(part[:frames, :64, :96]) for part in clip)
    planes = [(ids == known).byte()[None, :, None] for known in (1, 2)]
    return {"rgb": rgb.permute(0, 3, 1, 2)[None], "gt": planes[0], "sec_gt": planes[1], "cls_gt": ids[None],
            "selector": torch.ones(1, 2)}


@pytest.mark.slow
def test_a_rollout_tracks_as_inference_does(tiny_network, clip):
    batch = clip_batch(clip)
    core = InferenceCore(tiny_network, "two-frames-compress", mem_every=1, top_k=1000, places=False)
    rgb = batch["rgb"][0]
    core.step(rgb[0], batch["cls_gt"][0, 0])
    tracked = {time: core.step(rgb[time]) for time in range(1, len(rgb))}
    step = TrainingStep(tiny_network, LossSettings(), rollout=True)
    assert {step.draw(batch).before for _ in range(50)} == {0, 1, 2, 3}
    for before in range(4):
        with torch.no_grad():
            logits = rollout_step(tiny_network, batch, Draws(before)).logits
        assert list(logits) == list(range(before + 1, before + 1 + SUPERVISED))
        for time, each in logits.items():
            torch.testing.assert_close(each[0].softmax(0), tracked[time], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rollout_teaches_everything(clip, dtype):
    """Also in mixed precision: weights converted in the frames without gradients must not serve for the rest."""
    network = recipe_network(PRESETS["tiny"]).requires_grad_(True)
    step = TrainingStep(network, LossSettings(dice_weight=1), rollout=True)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss, scalars, _ = step(clip_batch(clip), 0, Draws(before=3))
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
    frames = [scalars[f"loss_{frame}"] + scalars[f"dice_{frame}"] for frame in (4, 5, 6)]
    assert loss.item() == pytest.approx(sum(frames).item() / 3, rel=1e-3)
