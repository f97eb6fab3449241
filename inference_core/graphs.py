"""Tracking as four functions of tensors whose shapes never change, which `export_onnx.py` writes as ONNX graphs.

They compute what `InferenceCore.step` does in mode `two-frames-compress`. Nobody but the caller holds a state:

    frame ──► Encode ──► features ─┬──────────────► Segment ──► probabilities, ids, masks
                                   │                   ▲                              │
    given ids ──► Give ──► masks ──┤      memory ──────┤         every Nth frame      │
                                   └──► Remember ◄─────┴──────────────────────────────┘
                                           │
                                           └──► memory

The memory is three arrays. It has a slot for each of `SLOTS`, and all three are zero before the first mask:

    keys    3×C×(h·w)
    values  3×(h·w)×O×V
    counts  3, the number of times that each slot counts in the top-k; 0 for a slot that is not in use

Beside the number of objects, O, all sizes are fixed: H×W pixels of the frame, H'×W' what the network computes at,
multiples of 16, and h×w = H'/16×W'/16.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from inference_core.core import keep_finite
from inference_core.memory import READS
from inference_core.sizes import compute_padding, restore_size, scale_size
from model.inference import Frame
from model.memory_reading import find_top_k, weigh
from model.network import distribution, normalise

MODE = "two-frames-compress"
"""The mode of the memory."""

TENSORS = {
    "encode": (("frame",), ("image", *Frame._fields)),
    "give": (("given", "objects"), ("masks",)),
    "segment": (("key", "compress", "compress_skip", "skip8", "skip4", "keys", "values", "counts"),
                ("masks", "probabilities", "ids")),
    "remember": (("image", "key", "f16", "masks", "keys", "values", "counts"),
                 ("new_keys", "new_values", "new_counts")),
}
"""{graph: (names of what it takes, names of what it returns)}. A tensor has the same name wherever it is."""

SLOTS = ("mem", "last", "gt")
"""What the slots of the memory hold; see `inference_core.memory.READS`."""


class Sizes:
    """The sizes that the graphs are made for.

    frame: (height, width) of the frames. shorter: as `size` of InferenceCore.
    """

    def __init__(self, frame, shorter=None):
        self.frame = frame
        self.network = frame if shorter is None else scale_size(frame, shorter)
        self.resized = self.network != frame
        self.padding = compute_padding(self.network)
        left, right, top, bottom = self.padding
        self.padded = self.network[0] + top + bottom, self.network[1] + left + right
        self.cells = self.padded[0] // 16, self.padded[1] // 16


class Encode(nn.Module):
    """frame, uint8 H×W×3 RGB, to the image as the network takes it, 1×3×H'×W', and the fields of a Frame."""

    def __init__(self, engine, sizes):
        super().__init__()
        self.engine, self.sizes = engine, sizes
        if sizes.resized:
            self.rows, self.columns = (BicubicRows(*lengths) for lengths in zip(sizes.frame, sizes.network,
                                                                                strict=True))

    def forward(self, frame):
        image = normalise(frame.permute(2, 0, 1), (self.engine.mean, self.engine.std))
        if self.sizes.resized:
            image = self.columns(self.rows(image.permute(1, 2, 0)).transpose(0, 1)).permute(2, 1, 0)
        image = F.pad(image.unsqueeze(0), self.sizes.padding)
        return image, *self.engine.encode_prepared(image)


class BicubicRows(nn.Module):
    """Resizes `length` rows of anything to `wanted` rows, as torch's bicubic interpolation does.

    The operator that ONNX has for this takes longer than the network in onnxruntime. With fixed sizes, each row is a
    sum of four rows with fixed weights.
    """

    def __init__(self, length, wanted):
        super().__init__()
        weights = F.interpolate(torch.eye(length)[None, ..., None], size=(wanted, 1), mode="bicubic")[0, ..., 0].t()
        taps = min(4, length)
        first = (weights != 0).int().argmax(1).clamp(max=length - taps)
        places = first.unsqueeze(1) + torch.arange(taps)
        self.register_buffer("places", places.t().contiguous(), persistent=False)
        self.register_buffer("weights", weights.gather(1, places).t().contiguous()[..., None, None], persistent=False)

    def forward(self, x):
        """Turn length×W×C into wanted×W×C."""
        return sum(x.index_select(0, places) * weights
                   for places, weights in zip(self.places, self.weights, strict=True))


class Give(nn.Module):
    """given, object ids uint8 H×W, and objects, uint8 O, their ids, to masks O×H'×W'."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes

    def forward(self, given, objects):
        planes = (given.unsqueeze(0) == objects.view(-1, 1, 1)).float()
        if self.sizes.resized:
            planes = F.interpolate(planes.unsqueeze(0), size=self.sizes.network, mode="nearest").squeeze(0)
        return distribution(F.pad(planes, self.sizes.padding))[1:]


class Segment(nn.Module):
    """A frame's features and the memory to the masks of its objects.

    Returns masks O×H'×W', which Remember takes; probabilities (O+1)×H×W, background first; ids uint8 H×W, 0 for
    background and n for the object in row n of the memory's values, from 1 on.
    """

    def __init__(self, engine, sizes, top_k):
        super().__init__()
        self.engine, self.sizes, self.top_k = engine, sizes, top_k

    def forward(self, key, compress, compress_skip, skip8, skip4, keys, values, counts):
        readout = read_slots(key.flatten(2)[0], keys, values, counts, self.top_k)
        readout = readout.permute(1, 2, 0).unflatten(2, self.sizes.cells)
        logits = self.engine.decode(readout, Frame(key, None, compress, compress_skip, skip8, skip4))
        prob = self.engine.distribution(logits)
        restored = restore_size(prob, self.sizes.padding, self.sizes.frame if self.sizes.resized else None)
        return prob[1:], restored, restored.argmax(0).byte()


class Remember(nn.Module):
    """A memory frame's image, key, f16 and masks, and the memory, to the memory with this frame in it.

    Where all counts are 0, the frame becomes the reference.
    """

    def __init__(self, engine, sizes):
        super().__init__()
        self.engine, self.sizes = engine, sizes
        first, later = ([names.count(slot) for slot in SLOTS] for names in READS[MODE])
        self.register_buffer("first_counts", torch.tensor(first, dtype=torch.float32), persistent=False)
        self.register_buffer("later_counts", torch.tensor(later, dtype=torch.float32), persistent=False)

    def forward(self, image, key, f16, masks, keys, values, counts):
        begins = counts.sum() == 0
        frame = Frame(key, f16, None, None, None, None)
        value = self.engine.encode_value(image, frame, masks, masks.sum(0) - masks)
        old_key, old_value = keys[:1].unflatten(2, self.sizes.cells), values[0].permute(1, 2, 0)
        merged = (self.engine.aggregate_key(old_key, key)[0],
                  self.engine.aggregate_value(old_value.unflatten(2, self.sizes.cells), value))
        embedding = keep_finite(merged, (key[0], value))
        new_key, new_value = key[0].flatten(1), value.flatten(2).permute(2, 0, 1)
        merged_key, merged_value = embedding[0].flatten(1), embedding[1].flatten(2).permute(2, 0, 1)

        def arrange(new, merged, old):
            return torch.stack([torch.where(begins, new, merged), torch.where(begins, torch.zeros_like(new), new),
                                torch.where(begins, new, old)])

        return (arrange(new_key, merged_key, keys[2]), arrange(new_value, merged_value, values[2]),
                torch.where(begins, self.first_counts, self.later_counts))


def read_slots(query, keys, values, counts, top_k):
    """Return what `model.memory_reading.read_top_k` does, Q×O×V for a query C×Q, with operators that ONNX has.

    keys, values, counts: the memory.
    """
    slots, channels, cells = keys.shape
    kept = min(top_k, slots * cells)
    # The positions are divided into sets of this many, so it must divide their number.
    groups = max(n for n in range(1, 1 + int(math.sqrt(slots * cells / kept))) if slots * cells % n == 0)
    scale = 1 / math.sqrt(channels)
    columns = keys.transpose(0, 1).flatten(1)
    copies = counts.unsqueeze(1).expand(slots, cells).flatten()
    # What is not in use is never among the nearest.
    negative_norm = torch.where(copies > 0, columns.square().sum(0) * -scale, -math.inf)
    nearest, position = find_top_k((query * (2 * scale)).t() @ columns + negative_norm, kept, groups)
    weight = weigh(nearest, copies.index_select(0, position.flatten()).view(position.shape), top_k)
    found = values.flatten(0, 1).flatten(1).index_select(0, position.flatten()).unflatten(0, position.shape)
    return (weight.unsqueeze(1) @ found).squeeze(1).unflatten(1, values.shape[2:])
