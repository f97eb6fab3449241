"""oneDNN's operators, which are private to torch: used where they are right, left alone where they are not."""

import pytest
import torch
import torch.nn.functional as F

from model import onednn

GEOMETRY = ([1, 1], [1, 1], [1, 1], 1)


@pytest.fixture
def anew():
    """The operators are tried once more, also after the test."""
    onednn.supports.cache_clear()
    yield
    onednn.supports.cache_clear()


pytestmark = pytest.mark.skipif(not onednn.can_run(torch.ones(1)), reason="oneDNN is not there")


def example(dtype=torch.float32):
    torch.manual_seed(0)
    x = torch.randn(2, 16, 9, 7).to(dtype).contiguous(memory_format=torch.channels_last)
    return torch.randn(24, 16, 3, 3).to(dtype), torch.randn(24).to(dtype), x


def missing(*arguments):
    raise RuntimeError("no such operator\nand many further lines")


def wrong(*arguments):
    return torch.zeros(5, 24)


@pytest.mark.parametrize("name, replacement, message", [
    ("_reorder_convolution_weight", missing, "no such operator"),
    ("_convolution_pointwise", None, "not callable"),
    ("_linear_pointwise", wrong, "wrong result of product"),
])
def test_operators_that_are_not_what_they_were_are_left_alone(anew, monkeypatch, capsys, name, replacement, message):
    monkeypatch.setattr(torch.ops.mkldnn, name, replacement)
    weight, bias, x = example()
    assert not onednn.can_run(x) and not onednn.can_run(x)
    report = capsys.readouterr().err
    assert message in report and report.count("\n") == 1
    convolution = onednn.Convolution(weight, bias, GEOMETRY, "relu")
    torch.testing.assert_close(convolution(x), F.conv2d(x, weight, bias, padding=1).relu())
    rows, columns, offset = torch.randn(3, 8), torch.randn(8, 5), torch.randn(5)
    torch.testing.assert_close(onednn.multiply(rows, columns, offset), rows @ columns + offset)


def test_trying_them_leaves_random_numbers_as_they_are(anew):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    onednn.supports(torch.float32)
    assert torch.rand(1) == expected


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_comes_back_from_any_layout_as_it_was(dtype):
    """After more sizes than layouts are kept, each of which may want another one."""
    if not onednn.supports(dtype):
        pytest.skip(f"oneDNN does not compute in {dtype} here")
    weight, bias, x = example(dtype)
    for groups in (1, 8):
        original = weight[:, :16 // groups].clone()
        convolution = onednn.Convolution(original.clone(), bias, (*GEOMETRY[:3], groups))
        for size in ((9, 7), (30, 54), (1, 1), (23, 40), (9, 7), (64, 64)):
            x = torch.randn(3, 16, *size).to(dtype).contiguous(memory_format=torch.channels_last)
            again = onednn.Convolution(original.clone(), bias, (*GEOMETRY[:3], groups))
            assert torch.equal(convolution(x), again(x))
        assert convolution.weight is None
        assert torch.equal(convolution.state_dict()["weight"], original)
