"""Direct calls of oneDNN: products, and convolutions that are fused with what follows and lay out their weights once.

The operators in `torch.ops.mkldnn` are private to torch. So they are tried on a small example before their first use in
a dtype. If one is missing or gives a wrong result, torch's own convolution does all the work.
"""

import functools
import sys
import threading

import torch
import torch.nn.functional as F
from torch import nn

from model import exact

_ACTIVATIONS = {None: ("none", [], ""), "relu": ("relu", [], ""), "relu6": ("hardtanh", [0.0, 6.0], "")}
"""{activation: (name, scalars, algorithm) as oneDNN's operators take them}."""

KEPT = 2
"""The number of layouts kept for each weight. Most weights need one for all batches of a frame size."""

SHAPES = 100
"""The number of input shapes for which each weight remembers the layout."""

_packing_lock = threading.Lock()
"""Held while a weight changes its layout, since threads may share a network."""


def can_run(tensor):
    """Return whether oneDNN computes with tensors of this one's device and dtype."""
    return tensor.device.type == "cpu" and torch.backends.mkldnn.enabled and supports(tensor.dtype)


@functools.cache
def supports(dtype):
    """Return whether oneDNN can compute in `dtype` here. Torch's private operators must work as expected, too."""
    if not torch.backends.mkldnn.is_available():
        return False
    supported = {torch.float32: lambda: True, torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
                 torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported}
    if dtype not in supported or not supported[dtype]():
        return False
    try:
        with torch.no_grad():
            fault = _find_fault(dtype)
    except Exception as error:
        fault = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
    if fault:
        print(f"oneDNN's operators in {dtype} are not used, torch's own are: {fault}", file=sys.stderr)
    return not fault


def _find_fault(dtype):
    """Return what is wrong with the operators in `dtype`, or None if nothing is."""
    def make_example(*shape):
        # These numbers are not random because torch's generator belongs to the user.
        return torch.arange(torch.Size(shape).numel()).mul(0.7).sin().view(shape).to(dtype)

    weight, bias = make_example(24, 16, 3, 3), make_example(24)
    x, other = (tensor.contiguous(memory_format=torch.channels_last)
                for tensor in (make_example(2, 16, 9, 7), make_example(2, 24, 9, 7)))
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    convolution = Convolution(weight, bias, ([1, 1], [1, 1], [1, 1], 1))
    total = other.clone()
    convolution.add_packed(total, x)
    rows = make_example(5, 16)
    pairs = {
        "convolution": (convolution.run_packed(x, None, None), exact),
        "convolution with ReLU": (convolution.run_packed(x, None, "relu"), exact.relu()),
        "convolution with ReLU6": (convolution.run_packed(x, None, "relu6"), exact.clamp(0, 6)),
        "convolution and sum": (convolution.run_packed(x, other, "relu"), (exact + other.double()).relu()),
        "convolution into a sum": (total, exact + other.double()),
        "product": (torch.ops.mkldnn._linear_pointwise(rows, weight[:, :, 0, 0], bias, "none", [], ""),
                    rows.double() @ weight[:, :, 0, 0].double().t() + bias.double()),
    }
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    for name, (ours, wanted) in pairs.items():
        if not (ours.double() - wanted).abs().max() <= tolerance * wanted.abs().max():
            return f"wrong result of {name}"
    return None if torch.equal(convolution.unpack(), weight) else "a weight does not come back from its layout"


class Convolution(nn.Module):
    """A module that computes activation(convolution(x) + other) in as few passes over the memory as the device allows.

    weight, bias: become buffers. The bias may be None.
    geometry: stride, padding, dilation, groups; all but groups are lists.
    activation: None, "relu" or "relu6".
    packed: on the CPU, keep the weight only in the layout that oneDNN wants. The fastest layout depends on the input's
        shape. With another one, oneDNN would lay out the weight in every call, which can take several times as long as
        the convolution.
    """

    def __init__(self, weight, bias, geometry, activation=None, *, packed=True):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.geometry = geometry
        self.activation = activation
        self.packed = packed
        self._shape = weight.shape
        self._layouts = {}  # {description: weight in this layout}, the one chosen longest ago first
        self._prepared = {}  # {shape of the input: the layout for it and the operators' other arguments}

    def forward(self, x, other=None):
        """x: B×in×h×w.

        other: None, or of the output's shape, or with one row for all of the batch. All are channels_last.
        """
        if self.packed and can_run(x):
            return self.run_packed(x, other, self.activation)
        y = self._run_plain(x)
        if other is not None:
            y += other
        if self.activation == "relu":
            y = y.relu_()
        elif self.activation == "relu6":
            y = y.clamp_(0, 6)
        return y

    def add_to(self, total, x):
        """Add convolution(x) to `total` in place."""
        if self.packed and can_run(x):
            self.add_packed(total, x)
        else:
            total += self._run_plain(x)

    def unpack(self):
        """Return the weight as an ordinary tensor out×in×k×k, and drop its layouts."""
        weight = self.weight
        if weight is None:
            with _packing_lock:
                weight = self.weight = self._copy_dense()
                self._layouts, self._prepared = {}, {}
        return weight

    def _run_plain(self, x):
        stride, padding, dilation, groups = self.geometry
        return exact.convolve(x, self.unpack(), self.bias, stride, padding, dilation, groups)

    def run_packed(self, x, other=None, activation=None):
        """Run oneDNN's convolution, fused with the sum and the activation where it can."""
        arguments = self._make_arguments(x)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *arguments, *_ACTIVATIONS[activation])
        if activation == "relu6":
            return self.run_packed(x, other, None).clamp_(0, 6)
        other = other.expand(x.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, other, *arguments, "add", 1.0, activation, [], "")

    def add_packed(self, total, x):
        torch.ops.mkldnn._convolution_pointwise_.binary(total, x, *self._make_arguments(x), "add", 1.0, None, [], None)

    def _make_arguments(self, x):
        """Return the arguments of oneDNN's operators for the input x, with the weight in the right layout."""
        arguments = self._prepared.get(x.shape)
        if arguments is None:
            with _packing_lock:
                arguments = self._pack(x.shape)
        return arguments

    def _pack(self, shape):
        """Lay the weight out for inputs of this shape, in place of the ordinary tensor; return the arguments."""
        stride, padding, dilation, groups = self.geometry
        dense = self._copy_dense()
        layout = torch.ops.mkldnn._reorder_convolution_weight(dense, padding, stride, dilation, groups, list(shape))
        description = _describe(layout, shape)
        layout = self._layouts.pop(description, layout)
        if len(self._prepared) == SHAPES:
            self._prepared = {}
        if len(self._layouts) == KEPT:
            oldest = self._layouts.pop(next(iter(self._layouts)))
            self._prepared = {of: kept for of, kept in self._prepared.items() if kept[0] is not oldest}
        self._layouts[description] = layout
        self._prepared[shape] = arguments = (layout, self.bias, padding, stride, dilation, groups)
        self.weight = None
        return arguments

    def _copy_dense(self):
        """Return the weight as an ordinary tensor, and leave the layouts as they are."""
        if self.weight is not None:
            return self.weight
        # This is exact, because a layout is the same numbers in another order.
        dense = next(iter(self._layouts.values())).to_dense().reshape(self._shape)
        return dense.contiguous(memory_format=torch.channels_last)

    def _apply(self, *args, **kwargs):
        self.unpack()
        result = super()._apply(*args, **kwargs)
        self._layouts, self._prepared = {}, {}
        return result

    def _save_to_state_dict(self, *args, **kwargs):
        self.unpack()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):
        self.unpack()
        super()._load_from_state_dict(*args, **kwargs)


def _describe(layout, shape):
    """Return what equal layouts of one weight have in common.

    Torch before 2.6 does not tell it: then the input's shape.
    """
    try:
        return bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(layout).numpy())
    except (AttributeError, RuntimeError):
        return shape


def multiply(rows, columns, bias):
    """Return rows Q×C @ columns C×N + bias N, as Q×N float32.

    OneDNN is twice as fast as torch.addmm on AMD's processors.
    """
    if not torch.compiler.is_compiling() and can_run(rows):
        return torch.ops.mkldnn._linear_pointwise(rows, columns.t(), bias, "none", [], "")
    return exact.multiply_add(bias, rows, columns)
