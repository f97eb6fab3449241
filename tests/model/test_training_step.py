import torch

from model.training_step import damaged_masks

SIZE = 64


def drawn(share, seed=3, batch=200):
    """(masks B×2×H×W of two rectangles, the second there in half of the images; selector; the damaged masks)."""
    masks = torch.zeros(batch, 2, SIZE, SIZE)
    masks[:, 0, 10:40, 5:25], masks[::2, 1, 20:50, 30:60] = 1, 1
    selector = torch.ones(batch, 2)
    selector[1::2, 1] = 0
    torch.manual_seed(seed)
    return masks, selector, damaged_masks(masks, selector, share)


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
    torch.manual_seed(3)
    damaged = damaged_masks(masks.requires_grad_(), selector, 1)
    damaged.sum().backward()
    assert masks.grad.isfinite().all() and masks.grad[damaged.detach() > 0].any()


def test_an_object_out_of_sight_does_no_harm():
    nothing = torch.zeros(20, 2, SIZE, SIZE)
    assert damaged_masks(nothing, torch.ones(20, 2), 1).isfinite().all()
