"""Tests of model.norm_folding, and of the activations between such convolutions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from model.efficientnet_lite import ReLU6
from model.norm_folding import convolve_and_norm, fold_norm

KINDS = {
    "plain": {"bias": True, "stride": 2},
    "channel by channel": {"groups": 6, "stride": 2, "bias": False},
    "channel by channel, large": {"groups": 6, "kernel_size": 5, "padding": 2, "bias": False},
}


def make_layers(dtype=torch.float64, kernel_size=3, padding=1, **options):
    """Return a convolution and a norm with statistics, and an image that shall have a gradient."""
    torch.manual_seed(1)
    convolution, norm = nn.Conv2d(6, 6, kernel_size, padding=padding, **options), nn.BatchNorm2d(6).eval()
    for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(value, 0.5, 2)
    x = torch.randn(3, 6, 12, 14).contiguous(memory_format=torch.channels_last)
    return convolution.to(dtype), norm.to(dtype), x.to(dtype).requires_grad_()


def list_gradients(convolution, norm, x, function):
    """Return {name: gradient} after the backward pass of function(x, convolution, norm)."""
    result = function(x, convolution, norm)
    (result * torch.linspace(-1, 1, result.numel()).view(result.shape)).sum().backward()
    named = {"x": x, **dict(convolution.named_parameters()), **{f"norm {k}": v for k, v in norm.named_parameters()}}
    gradients = {name: value.grad.clone() for name, value in named.items()}
    for value in named.values():
        value.grad = None
    return result.detach(), gradients


@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradients_are_those_of_convolution_and_norm(kind):
    layers = make_layers(**KINDS[kind])
    ours, our_gradients = list_gradients(*layers, convolve_and_norm)
    theirs, their_gradients = list_gradients(*layers, lambda x, convolution, norm: norm(convolution(x)))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(our_gradients, their_gradients, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_half_precision_are_near_those_in_float32(kind):
    layers = make_layers(torch.float32, **KINDS[kind])
    exact, exact_gradients = list_gradients(*layers, convolve_and_norm)
    with torch.autocast("cpu", torch.bfloat16):
        ours, gradients = list_gradients(*layers, convolve_and_norm)
    assert ours.dtype == torch.bfloat16
    # bfloat16 has eight bits.
    for name, value in {"result": exact, **exact_gradients}.items():
        mine = {"result": ours.float(), **gradients}[name]
        assert mine.dtype == torch.float32
        assert (mine - value).abs().max() < 0.02 * value.abs().max(), name


def test_a_norm_that_learns_statistics_still_does():
    convolution, norm, x = make_layers(torch.float32)
    norm.train()
    before = norm.running_mean.clone()
    convolve_and_norm(x, convolution, norm)
    assert not torch.equal(norm.running_mean, before)


@pytest.mark.parametrize("kind", KINDS)
def test_folded_weights_have_the_bits_of_torchs(kind):
    convolution, norm, _ = make_layers(torch.float32, **KINDS[kind])
    theirs = fuse_conv_bn_weights(convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps,
                                  norm.weight, norm.bias)
    assert all(map(torch.equal, fold_norm(convolution, norm), theirs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu6_is_torchs_and_keeps_its_result_alone(dtype):
    x = torch.tensor([-1.0, 0, 1e-3, 3, 5.9, 6, 7], dtype=dtype, requires_grad=True)
    (theirs,) = torch.autograd.grad(F.relu6(x).sum(), x)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value) or value, lambda value: value):
        y = ReLU6()(x)
    assert torch.equal(y, F.relu6(x)) and torch.equal(torch.autograd.grad(y.sum(), x)[0], theirs)
    assert [value.data_ptr() for value in kept] == [y.data_ptr()]
