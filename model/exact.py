"""Convolutions and products in full float32 precision, whatever the process allows others.

By default, torch on a GPU rounds the inputs of float32 convolutions to the ten bits of TF32, and a program may allow it
for products, too. Tracking feeds its own results back, frame after frame, so these errors add up: with TF32 the
probabilities of the parity tests move by 4e-3 instead of 8e-6. Torch's switches for this are those of the whole
process, so a part of a program must not turn them: other threads would compute otherwise meanwhile. Here the precision
is chosen for each call. On other devices than NVIDIA's, and in half precision, these are torch's own functions.
"""

import contextlib
import copy

import torch
import torch.nn.functional as F
from torch import nn


def convolve(x, weight, bias, stride, padding, dilation, groups):
    """Return the convolution of x B×in×… with weight out×in/groups×…, over two or three dimensions.

    stride, padding, dilation: a number for each of these dimensions.
    """
    if not _may_round(x):
        function = F.conv2d if x.ndim == 4 else F.conv3d
        return function(x, weight, bias, stride, padding, dilation, groups)
    if not torch.compiler.is_compiling():
        return _convolve_exactly(x, weight, bias, stride, padding, dilation, groups)
    y = torch.ops.rde_vos.convolve(x, weight, list(stride), list(padding), list(dilation), groups)
    return y if bias is None else y + bias.view(-1, *[1] * (x.ndim - 2))


def multiply(x, y):
    """Return the product x @ y of matrices, or of batches of matrices."""
    if _may_round(x) and _rounds_products():
        return (x.double() @ y.double()).float()
    return x @ y


def multiply_add(bias, x, y):
    """Return bias + x @ y for matrices. See torch.addmm."""
    if _may_round(x) and _rounds_products():
        return torch.addmm(bias.double(), x.double(), y.double()).float()
    return torch.addmm(bias, x, y)


def copy_exactly(module):
    """Return a copy of a module whose linear layers and 3D convolutions are those of this file."""
    module = copy.deepcopy(module)
    for layer in module.modules():
        layer.__class__ = {nn.Linear: Linear, nn.Conv3d: Conv3d}.get(type(layer), type(layer))
    return module


class Linear(nn.Linear):
    """An nn.Linear over rows B×in."""

    def forward(self, x):
        return multiply(x, self.weight.t()) if self.bias is None else multiply_add(self.bias, x, self.weight.t())


class Conv3d(nn.Conv3d):
    """An nn.Conv3d that pads with zeros."""

    def forward(self, x):
        return convolve(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


@contextlib.contextmanager
def exact_float32():
    """Compute in full float32 precision inside a `with` block, in the whole process: only for scripts and tests.

    It is for what does not use this file's functions: the network as it is trained.
    """
    settings = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [setting.allow_tf32 for setting in settings]
    for setting in settings:
        setting.allow_tf32 = False
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.allow_tf32 = value


def _may_round(x):
    """Return whether torch may round the inputs of convolutions or products of this tensor."""
    return x.is_cuda and x.dtype == torch.float32


def _convolve_exactly(x, weight, bias, stride, padding, dilation, groups):
    """Return what `convolve` does.

    F.conv2d makes this same call, with the process's switches as the last four arguments.
    """
    cudnn = torch.backends.cudnn
    return torch._convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups,
                              cudnn.benchmark, cudnn.deterministic, cudnn.enabled, allow_tf32=False)


@torch.library.custom_op("rde_vos::convolve", mutates_args=())
def _convolve_compiled(x: torch.Tensor, weight: torch.Tensor, stride: list[int], padding: list[int],
                       dilation: list[int], groups: int) -> torch.Tensor:
    """`_convolve_exactly` as the compiler takes it, which knows no precision for a call of torch's own convolution.

    The result is in channels_last, or contiguous over three dimensions: the compiler must know that ahead.
    """
    return _lay_out(_convolve_exactly(x, weight, None, stride, padding, dilation, groups))


@_convolve_compiled.register_fake
def _(x, weight, stride, padding, dilation, groups):
    return _lay_out(torch.ops.aten.convolution(x, weight, None, stride, padding, dilation, False, [0] * len(stride),
                                               groups))


def _lay_out(y):
    return y.contiguous(memory_format=torch.channels_last if y.ndim == 4 else torch.contiguous_format)


def compile_function(function, **options):
    """Return torch.compile(function, **options), which then may use what is in this file.

    The compiler must know that `_rounds_products` is a constant. It is not told so before somebody compiles: that loads
    the compiler, which takes two seconds and 150 MB.
    """
    torch.compiler.assume_constant_result(_rounds_products)
    return torch.compile(function, **options)


def _rounds_products():
    """Return whether the process lets torch round the inputs of float32 products. By default it does not.

    In compiled code this is a constant: torch compiles anew when the switch is turned.
    """
    matmul = torch.backends.cuda.matmul
    try:
        return matmul.fp32_precision == "tf32"
    except AttributeError:  # before torch 2.9
        return matmul.allow_tf32
