"""oneDNN called directly: convolutions with what follows fused into them and weights laid out once, and products."""

import torch

_ACTIVATIONS = {None: ("none", [], ""), "relu": ("relu", [], ""), "relu6": ("hardtanh", [0.0, 6.0], "")}
KEPT = 4
"""Layouts kept of one weight: as many as there are sizes of batches in turn, whole chunks of objects and the rest."""


def takes(tensor):
    """Does oneDNN compute with tensors on this one's device, of its dtype?"""
    if tensor.device.type != "cpu" or not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    supported = {torch.float32: lambda: True, torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
                 torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported}
    return supported[tensor.dtype]()


class PackedWeight:
    """A convolution's weight in the layouts that oneDNN wants.

    Which one is the fastest depends on the input's shape; with another one oneDNN would lay the weight out in every
    call, which can take several times as long as the convolution. geometry: stride, padding, dilation, groups.
    """

    def __init__(self, weight, bias, geometry):
        self._weight, self._bias = weight, bias
        self._stride, self._padding, self._dilation, self._groups = geometry
        self._layouts = {}

    def __call__(self, x, other=None, activation=None):
        """activation(convolution(x) + other), channels_last; activation None, "relu" or "relu6"."""
        arguments = self._arguments(x)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *arguments, *_ACTIVATIONS[activation])
        if activation == "relu6":
            return self(x, other).clamp_(0, 6)
        other = other.expand(x.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, other, *arguments, "add", 1.0, activation, [], "")

    def add_to(self, total, x):
        """total += convolution(x)."""
        torch.ops.mkldnn._convolution_pointwise_.binary(total, x, *self._arguments(x), "add", 1.0, None, [], None)

    def _arguments(self, x):
        if x.shape not in self._layouts:
            if len(self._layouts) == KEPT:
                self._layouts.clear()
            self._layouts[x.shape] = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight, self._padding, self._stride, self._dilation, self._groups, list(x.shape))
        return self._layouts[x.shape], self._bias, self._padding, self._stride, self._dilation, self._groups


def product(rows, columns, bias):
    """rows Q×C @ columns C×N + bias N, float32. Q×N; on AMD's processors twice as fast as torch.addmm."""
    if takes(rows) and not torch.compiler.is_compiling():
        return torch.ops.mkldnn._linear_pointwise(rows, columns.t(), bias, "none", [], "")
    return torch.addmm(bias, rows, columns)
