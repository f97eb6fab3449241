"""Full float32 precision is chosen for each call; no switch of the process is turned."""

import pytest
import torch

from inference_core.capture import can_compile
from inference_core.core import InferenceCore
from model import exact
from model.sam import SEBlock

CONVOLUTIONS = [
    ((2, 6, 9, 7), (4, 6, 3, 3), ([2, 1], [1, 1], [1, 1], 1)),
    ((2, 6, 9, 7), (6, 1, 3, 3), ([1, 1], [2, 2], [2, 2], 6)),
    ((1, 6, 2, 9, 7), (4, 6, 1, 3, 3), ((1, 1, 1), (0, 1, 1), (1, 1, 1), 1)),
]


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Compute on the CPU as on a GPU in a process that allows TF32 everywhere."""
    monkeypatch.setattr(exact, "_may_round", lambda x: x.dtype == torch.float32)
    monkeypatch.setattr(exact, "_rounds_products", lambda: True)


@torch.no_grad()
@pytest.mark.parametrize("shape, weight, geometry", CONVOLUTIONS)
@pytest.mark.parametrize("biased", [False, True])
def test_convolutions_are_those_of_torch(shape, weight, geometry, biased, as_on_a_gpu):
    x, weight = torch.randn(shape), torch.randn(weight)
    bias = torch.randn(weight.shape[0]) if biased else None
    torch_s = torch.conv2d if x.ndim == 4 else torch.conv3d
    wanted = torch_s(x.double(), weight.double(), None if bias is None else bias.double(), *geometry)
    torch.testing.assert_close(exact.convolve(x, weight, bias, *geometry).double(), wanted, atol=1e-5, rtol=1e-5)


def test_convolutions_ask_for_full_precision(as_on_a_gpu, monkeypatch):
    asked = []
    call = torch._convolution
    monkeypatch.setattr(torch, "_convolution", lambda *a, **options: (asked.append(options), call(*a, **options))[1])
    exact.convolve(torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3), None, [1, 1], [1, 1], [1, 1], 1)
    assert asked == [{"allow_tf32": False}]


@pytest.mark.parametrize("rounded", [False, True])
def test_products_are_those_of_torch(rounded, monkeypatch):
    monkeypatch.setattr(exact, "_may_round", lambda x: rounded)
    monkeypatch.setattr(exact, "_rounds_products", lambda: rounded)
    x, y, bias = torch.randn(3, 4, 5), torch.randn(3, 5, 6), torch.randn(6)
    assert exact.multiply(x, y).dtype == exact.multiply_add(bias, x[0], y[0]).dtype == torch.float32
    torch.testing.assert_close(exact.multiply(x, y), x @ y, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(exact.multiply_add(bias, x[0], y[0]), bias + x[0] @ y[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_copied_layers_compute_the_same(as_on_a_gpu):
    block, x = SEBlock(8), torch.randn(1, 8, 2, 6, 5)
    copied = exact.copy_exactly(block)
    assert type(copied.conv1) is exact.Conv3d and type(copied.ses.fc[0]) is exact.Linear
    assert type(block.conv1) is torch.nn.Conv3d
    torch.testing.assert_close(copied(x), block(x), atol=1e-5, rtol=1e-5)


def play(core, clip):
    frames, truth = clip
    return [core.step(frame, truth[0] if index == 0 else None) for index, frame in enumerate(frames[:5])]


def test_tracking_in_full_precision_is_the_same(tiny_network, clip, monkeypatch):
    """And every convolution and every product of a step goes through here: none is left to torch's switches."""
    plain = play(InferenceCore(tiny_network), clip)
    with torch.backends.mkldnn.flags(enabled=False):
        core = InferenceCore(tiny_network)
        monkeypatch.setattr(exact, "_may_round", lambda x: x.dtype == torch.float32)
        monkeypatch.setattr(exact, "_rounds_products", lambda: True)
        watch = Float32Calls()
        with watch:
            ours = play(core, clip)
    assert watch.convolutions == {False} and not watch.products
    for pair in zip(ours, plain, strict=True):
        torch.testing.assert_close(*pair, atol=1e-4, rtol=0)


class Float32Calls(torch.utils._python_dispatch.TorchDispatchMode):
    """Records which convolutions and products of float32 tensors are called."""

    def __init__(self):
        super().__init__()
        self.convolutions, self.products = set(), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if "convolution" in name and args[0].dtype == torch.float32:
            # The last argument of _convolution is whether TF32 may be used; convolution has no such argument.
            self.convolutions.add(args[12] if name == "_convolution" else name)
        if name in ("mm", "bmm", "addmm", "baddbmm") and args[-1].dtype == torch.float32:
            self.products.append(name)
        return function(*args, **kwargs or {})


@pytest.mark.slow
@torch.no_grad()
def test_compiled_in_full_precision_is_the_same(as_on_a_gpu):
    if not can_compile("cpu"):
        pytest.skip("there is no compiler")
    shape, weight, geometry = CONVOLUTIONS[0]
    x, weight, bias = torch.randn(shape), torch.randn(weight), torch.randn(4)

    def compute(x):
        y = exact.convolve(x, weight, bias, *geometry).relu().flatten(2)
        return exact.multiply(y.transpose(1, 2), y), exact.multiply_add(y[0, 0], y[0].t(), y[0])

    torch.compiler.reset()
    results = exact.compile_function(compute, fullgraph=True)(x)
    torch.compiler.reset()
    for pair in zip(results, compute(x), strict=True):
        torch.testing.assert_close(*pair, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("shape, weight, geometry", CONVOLUTIONS)
def test_the_compiler_s_convolution_is_well_defined(shape, weight, geometry):
    stride, padding, dilation, groups = geometry
    torch.library.opcheck(exact._convolve_compiled, (torch.randn(shape), torch.randn(weight), list(stride),
                                                     list(padding), list(dilation), groups),
                          test_utils=("test_schema", "test_faketensor"))


@pytest.mark.cuda
def test_full_precision_on_a_gpu_that_may_use_tf32(monkeypatch, device):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    before, matmul.allow_tf32 = matmul.allow_tf32, True
    try:
        x, weight = torch.randn(1, 256, 30, 54, device=device), torch.randn(256, 256, 3, 3, device=device)
        wanted = torch.conv2d(x.double(), weight.double(), padding=1)
        found = exact.convolve(x, weight, None, [1, 1], [1, 1], [1, 1], 1)
        assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
        x, y = torch.randn(500, 256, device=device), torch.randn(256, 500, device=device)
        wanted = x.double() @ y.double()
        for found in (exact.multiply(x, y), exact.multiply_add(torch.zeros(500, device=device), x, y)):
            assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    finally:
        matmul.allow_tf32 = before
