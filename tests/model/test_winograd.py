import pytest
import torch
import torch.nn.functional as F

from model import winograd
from model.onednn import can_run

pytestmark = pytest.mark.skipif(not can_run(torch.ones(1)), reason="oneDNN is not there")


@torch.inference_mode()
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 5), (30, 54)])
@pytest.mark.parametrize("tiles", [1, 600])
def test_winograd_is_the_convolution(monkeypatch, size, tiles):
    """Also of images with odd sides, in bands, with a sum and an activation after it."""
    monkeypatch.setattr(winograd, "TILES", tiles)
    torch.manual_seed(0)
    weight, bias = torch.randn(24, 16, 3, 3), torch.randn(24)
    x = torch.randn(2, 16, *size).contiguous(memory_format=torch.channels_last)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    convolution = winograd.Winograd(weight, bias)
    assert (convolution(x) - exact).abs().max() < 1e-4
    other = torch.randn(1, 24, *size)
    activated = winograd.Winograd(weight, bias, "relu")
    assert (activated(x, other) - (exact + other).relu()).abs().max() < 1e-4
    assert (winograd.Winograd(weight, None)(x) - (exact - bias.view(-1, 1, 1))).abs().max() < 1e-4


def test_it_is_used_where_it_gains():
    plain = ([1, 1], [1, 1], [1, 1], 1)
    weight = torch.empty(192, 256, 3, 3)
    assert winograd.is_faster(weight, *plain)
    assert not winograd.is_faster(weight[:64], *plain)
    assert not winograd.is_faster(weight, [2, 2], *plain[1:])
    assert not winograd.is_faster(weight[..., :1, :1], [1, 1], [0, 0], [1, 1], 1)
    assert not winograd.is_faster(weight, [1, 1], [2, 2], [2, 2], 1)
