"""oneDNN called directly: convolutions with what follows fused into them and weights laid out once, and products.

The operators in `torch.ops.mkldnn` are private to torch. Before the first use in a dtype they are tried on a small
example; where one is missing or wrong, torch's own convolution does all the work.
"""

import functools
import sys
import threading

import torch
import torch.nn.functional as F
from torch import nn

_ACTIVATIONS = {None: ("none", [], ""), "relu": ("relu", [], ""), "relu6": ("hardtanh", [0.0, 6.0], "")}
KEPT = 2
"""Layouts kept of one weight. For most, one serves all batches of a frame size; another size brings another one."""

SHAPES = 100
"""Shapes of inputs of which each weight remembers the layout."""

_packing = threading.Lock()
"""Held while a weight changes its layout: threads may share a network."""


def takes(tensor):
    """Does oneDNN compute with tensors on this one's device, of its dtype?"""
    return tensor.device.type == "cpu" and torch.backends.mkldnn.enabled and works(tensor.dtype)


@functools.cache
def works(dtype):
    """Can this processor's oneDNN compute in `dtype`, and are torch's private operators for it what they were?"""
    if not torch.backends.mkldnn.is_available():
        return False
    supported = {torch.float32: lambda: True, torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
                 torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported}
    if dtype not in supported or not supported[dtype]():
        return False
    try:
        with torch.no_grad():
            fault = _fault(dtype)
    except Exception as error:
        fault = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
    if fault:
        print(f"oneDNN's operators in {dtype} are not used, torch's own are: {fault}", file=sys.stderr)
    return not fault


def _fault(dtype):
    """What is wrong with the operators, None if nothing is."""
    def example(*shape):
        # Not random: torch's generator is the user's.
        return torch.arange(torch.Size(shape).numel()).mul(0.7).sin().view(shape).to(dtype)

    weight, bias = example(24, 16, 3, 3), example(24)
    x, other = (tensor.contiguous(memory_format=torch.channels_last)
                for tensor in (example(2, 16, 9, 7), example(2, 24, 9, 7)))
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    convolution = Convolution(weight, bias, ([1, 1], [1, 1], [1, 1], 1))
    total = other.clone()
    convolution._add_packed(total, x)
    rows = example(5, 16)
    pairs = {
        "convolution": (convolution._packed(x, None, None), exact),
        "convolution with ReLU": (convolution._packed(x, None, "relu"), exact.relu()),
        "convolution with ReLU6": (convolution._packed(x, None, "relu6"), exact.clamp(0, 6)),
        "convolution and sum": (convolution._packed(x, other, "relu"), (exact + other.double()).relu()),
        "convolution into a sum": (total, exact + other.double()),
        "product": (torch.ops.mkldnn._linear_pointwise(rows, weight[:, :, 0, 0], bias, "none", [], ""),
                    rows.double() @ weight[:, :, 0, 0].double().t() + bias.double()),
    }
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    for name, (ours, wanted) in pairs.items():
        if not (ours.double() - wanted).abs().max() <= tolerance * wanted.abs().max():
            return f"wrong result of {name}"
    return None if torch.equal(convolution.dense(), weight) else "a weight does not come back from its layout"


class Convolution(nn.Module):
    """activation(convolution(x) + other), in as few passes over the memory as the device allows.

    weight, bias: become buffers; the bias may be None. geometry: stride, padding, dilation, groups, as lists.
    activation: None, "relu" or "relu6".
    packed: on the CPU, keep the weight in the layout that oneDNN wants, and nothing else of it. Which layout is the
        fastest depends on the input's shape; with another one oneDNN would lay the weight out in every call, which
        can take several times as long as the convolution.
    """

    def __init__(self, weight, bias, geometry, activation=None, *, packed=True):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.geometry = geometry
        self.activation = activation
        self.packed = packed
        self._shape = weight.shape
        self._layouts = {}  # by their descriptions, the one chosen longest ago first
        self._prepared = {}  # by the shape of the input: the layout for it and the other arguments of the operators

    def forward(self, x, other=None):
        """x B×in×h×w, other with the output's shape or one row for all of the batch; channels_last."""
        if self.packed and takes(x):
            return self._packed(x, other, self.activation)
        y = self._plain(x)
        if other is not None:
            y += other
        if self.activation == "relu":
            y = y.relu_()
        elif self.activation == "relu6":
            y = y.clamp_(0, 6)
        return y

    def add_to(self, total, x):
        """total += convolution(x)."""
        if self.packed and takes(x):
            self._add_packed(total, x)
        else:
            total += self._plain(x)

    def dense(self):
        """The weight as an ordinary tensor out×in×k×k; layouts are dropped."""
        weight = self.weight
        if weight is None:
            with _packing:
                weight = self.weight = self._dense_copy()
                self._layouts, self._prepared = {}, {}
        return weight

    def _plain(self, x):
        stride, padding, dilation, groups = self.geometry
        return F.conv2d(x, self.dense(), self.bias, stride, padding, dilation, groups)

    def _packed(self, x, other, activation):
        arguments = self._arguments(x)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *arguments, *_ACTIVATIONS[activation])
        if activation == "relu6":
            return self._packed(x, other, None).clamp_(0, 6)
        other = other.expand(x.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, other, *arguments, "add", 1.0, activation, [], "")

    def _add_packed(self, total, x):
        torch.ops.mkldnn._convolution_pointwise_.binary(total, x, *self._arguments(x), "add", 1.0, None, [], None)

    def _arguments(self, x):
        arguments = self._prepared.get(x.shape)
        if arguments is None:
            with _packing:
                arguments = self._pack(x.shape)
        return arguments

    def _pack(self, shape):
        """Lay the weight out for inputs of this shape; the dense one goes."""
        stride, padding, dilation, groups = self.geometry
        dense = self._dense_copy()
        layout = torch.ops.mkldnn._reorder_convolution_weight(dense, padding, stride, dilation, groups, list(shape))
        description = _description(layout, shape)
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

    def _dense_copy(self):
        if self.weight is not None:
            return self.weight
        # Exact: a layout is another order of the same numbers.
        dense = next(iter(self._layouts.values())).to_dense().reshape(self._shape)
        return dense.contiguous(memory_format=torch.channels_last)

    def _apply(self, *args, **kwargs):
        self.dense()
        result = super()._apply(*args, **kwargs)
        self._layouts, self._prepared = {}, {}
        return result

    def _save_to_state_dict(self, *args, **kwargs):
        self.dense()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):
        self.dense()
        super()._load_from_state_dict(*args, **kwargs)


def _description(layout, shape):
    """What equal layouts of one weight have in common; where torch does not tell (before 2.6), the input's shape."""
    try:
        return bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(layout).numpy())
    except (AttributeError, RuntimeError):
        return shape


def product(rows, columns, bias):
    """rows Q×C @ columns C×N + bias N, float32. Q×N; on AMD's processors twice as fast as torch.addmm."""
    if not torch.compiler.is_compiling() and takes(rows):
        return torch.ops.mkldnn._linear_pointwise(rows, columns.t(), bias, "none", [], "")
    return torch.addmm(bias, rows, columns)
