"""The network as inference runs it: the same function of the same weights, with less to compute.

`InferenceNetwork` is a snapshot of an `RDE`. The two share no memory, and a change of one does not change the other.
A snapshot is faster than the network because
- batch norms are folded into the convolutions before them, and biases, sums and activations into the same call;
- a convolution over the concatenated features of object and image is split into the sum of two, and the image's part
  is computed once per frame, whatever the number of objects;
- SAM works on 2D images: its two time steps are rows of the batch;
- tensors are channels_last, and weights are converted and laid out once (on the CPU in the blocks that oneDNN wants).

The blocks and how they are rewritten are in `model/fused_blocks.py`.
"""

import contextlib
import threading
import weakref
import zlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from model.encoders import LightValueEncoder
from model.fused_blocks import (
    Aggregation,
    Decoder,
    LayerCopier,
    SplitLightValueEncoder,
    ValueEncoder,
    copy_trunk,
)
from model.memory_reading import read_top_k
from model.network import distribution, image_statistics, normalise


class Frame(NamedTuple):
    """What is computed once per frame, whatever the number of objects."""

    key: torch.Tensor
    """1×key_dim×h×w."""

    f16: torch.Tensor
    """1×f16_dim×h×w, for the value encoder."""

    compress: torch.Tensor
    """1×dims[0]×h×w, the image's part of the first convolution in the decoder's block `compress`."""

    compress_skip: torch.Tensor
    """1×dims[0]×h×w, the image's part of the shortcut convolution in that block."""

    skip8: torch.Tensor
    """1×dims[0]×2h×2w, the skip connection at stride 8."""

    skip4: torch.Tensor
    """1×dims[1]×4h×4w, the skip connection at stride 4."""


class InferenceNetwork(nn.Module):
    """A snapshot of an RDE, which must have been trained for several objects. `take_snapshot` makes and keeps one.

    dtype: the dtype of weights and of all results but affinities and probabilities. The device is that of the RDE.
    `weights` is a text that tells the RDE's weights from others.
    packed: on the CPU, lay out weights as oneDNN wants them. A network that is to be compiled needs packed=False.
    """

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, network, dtype=torch.float32, *, packed=True):
        super().__init__()
        self.config = network.config
        self.dtype = dtype
        self.packed = packed
        self.weights = name_weights(network)
        for name, value in zip(("mean", "std"), image_statistics(_device_of(network)), strict=True):
            self.register_buffer(name, value, persistent=False)
        copier = LayerCopier(dtype, packed)
        f16_dim = network.key_encoder.dims[0]
        self.key_encoder = copy_trunk(network.key_encoder, copier)
        self.key_proj = copier.copy(network.key_proj.key_proj, *network.key_proj.fold_scale())
        self.decoder = Decoder(network, copier)
        light = isinstance(network.value_encoder, LightValueEncoder)
        self.value_encoder = (SplitLightValueEncoder if light else ValueEncoder)(network.value_encoder, f16_dim,
                                                                                 copier)
        if network.config.sam:
            sam = network.mem_compress
            self.aggregate_key = Aggregation(sam.key_encoder, sam.compress_key, self.config.bounded, copier)
            self.aggregate_value = Aggregation(sam.value_encoder, sam.compress_value, self.config.bounded, copier)
        self.eval()

    @property
    def device(self):
        return self.mean.device

    def encode(self, image, size, padding):
        """Return the prepared image 1×3×H'×W', which `encode_value` takes, and its Frame.

        Arguments as for `prepare_image`.
        """
        image = prepare_image(image, size, padding, (self.mean, self.std))
        return image, self.encode_prepared(image)

    def encode_prepared(self, image):
        """Return the Frame of a prepared image 1×3×H'×W'."""
        f16, f8, f4 = self.key_encoder(self._lay_out(image))
        return Frame(self.key_proj(f16), f16, *self.decoder.encode_frame(f16, f8, f4))

    def read(self, query, key, value, copies, top_k, addend=None):
        """See model.memory_reading.read_top_k."""
        return read_top_k(query, key, value, copies, top_k, addend)

    def decode(self, readout, frame):
        """Return mask logits O×H×W, float32, from readout O×value_dim×h×w and a Frame."""
        return self.decoder(readout, frame)

    def distribution(self, logits):
        """Return probabilities (O+1)×H×W, background first, from mask logits O×H×W."""
        return distribution(logits.sigmoid())

    def encode_value(self, image, frame, masks, others):
        """Return values O×value_dim×h×w.

        masks: O×H×W, each object's own. others: O×H×W, for each object the sum of all other objects' masks.
        """
        masks = self._lay_out(torch.stack([masks, others], -1).permute(0, 3, 1, 2))
        return self.value_encoder(self._lay_out(image), masks, frame.f16)

    def _lay_out(self, x):
        return x.to(self.dtype, memory_format=torch.channels_last)

    def _apply(self, fn, *args, **kwargs):
        if fn(torch.empty(0, dtype=self.dtype)).dtype != self.dtype:
            raise TypeError(f"this snapshot is in {self.dtype}; make another one for another dtype")
        return super()._apply(fn, *args, **kwargs)


class PlainFrame(NamedTuple):
    """What PlainEngine computes once per frame; see RDE.encode_key."""

    key: torch.Tensor
    f16_thin: torch.Tensor
    f16: torch.Tensor
    f8: torch.Tensor
    f4: torch.Tensor


class PlainEngine:
    """An engine that runs the trained network itself, under autocast.

    It is not a snapshot but what snapshots are compared with. It has the same methods as an InferenceNetwork.
    On a GPU, its float32 is TF32 unless `model.exact.exact_float32` or torch's switches forbid that.
    """

    def __init__(self, network, dtype=torch.float32):
        self.network = network
        self.config = network.config
        self.dtype = dtype

    @property
    def device(self):
        return _device_of(self.network)

    @property
    def weights(self):
        return name_weights(self.network)

    def encode(self, image, size, padding):
        image = prepare_image(image, size, padding)
        with self._autocast():
            return image, PlainFrame(*self.network.encode_key(image))

    def read(self, query, key, value, copies, top_k, addend=None):
        return read_top_k(query, key, value, copies, top_k, addend)

    def decode(self, readout, frame):
        with self._autocast():
            return self.network.decode(readout[None], frame.f16_thin, frame.f8, frame.f4)[0].float()

    def distribution(self, logits):
        return distribution(logits.sigmoid())

    def encode_value(self, image, frame, masks, others):
        with self._autocast():
            return self.network.encode_value(image, frame.f16, masks[None], others[None])[0]

    def aggregate_key(self, old, new):
        with self._autocast():
            return self.network.mem_compress.aggregate_key(old, new)

    def aggregate_value(self, old, new):
        with self._autocast():
            return self.network.mem_compress.aggregate_value(old, new)

    def _autocast(self):
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def prepare_image(image, size, padding, statistics=None):
    """Return an image normalised, resized and padded with zeros, 1×3×H'×W', channels_last.

    image: 3×H×W, uint8 or float in [0, 1].
    size: (height, width) to resize it to, or None.
    padding: (left, right, top, bottom).
    statistics: as for `normalise`.
    """
    image = normalise(image, statistics).unsqueeze(0)
    if size is not None:
        # There is no antialiasing, as in the environment of the published results.
        image = F.interpolate(image, size=size, mode="bicubic", align_corners=False)
    # Rows of pixels are padded, which the network then need not lay out anew.
    return F.pad(image.permute(0, 2, 3, 1), (0, 0, *padding)).permute(0, 3, 1, 2)


_snapshots = weakref.WeakKeyDictionary()
"""{network: (fingerprint of its weights, {arguments of a snapshot: snapshot})}."""

_snapshot_lock = threading.Lock()
"""Held while a snapshot is looked up or made, since threads may share a network."""


def take_snapshot(network, dtype=torch.float32, *, packed=True):
    """Return the InferenceNetwork of this network's weights as they are now.

    While no weight changes, this is always the same object. It lives as long as the network does or somebody uses it.
    """
    # A snapshot made with oneDNN switched off is another one.
    made_with = (dtype, packed, torch.backends.mkldnn.enabled)
    with _snapshot_lock:
        before, snapshots = _snapshots.get(network, (None, {}))
        now = _compute_fingerprint(network)
        if before != now:
            # Free the outdated snapshots first: the new one can use their memory.
            snapshots.clear()
            _snapshots[network] = now, snapshots
        if made_with not in snapshots:
            snapshots[made_with] = InferenceNetwork(network, dtype, packed=packed)
        return snapshots[made_with]


def _compute_fingerprint(network):
    """Return a list that changes when a weight does.

    Torch counts the changes of a tensor in its version, but does not see those through `.data` or through memory shared
    with numpy. So the list also has a checksum of the bits, which takes a tenth of a second for `base`.
    """
    return [(name, tensor.data_ptr(), None if tensor.is_inference() else tensor._version, tensor.dtype, tensor.device,
             tensor.shape, _compute_checksum(tensor)) for name, tensor in network.state_dict().items()]


def name_weights(network):
    """Return a text that tells a network's weights from others. It is the same in every process."""
    sums = [(name, _compute_checksum(tensor)) for name, tensor in network.state_dict().items()]
    return f"{zlib.crc32(repr(sums).encode()):08x}"


def _compute_checksum(tensor):
    bits = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return zlib.crc32(bits.numpy())


def _device_of(network):
    return next(network.parameters()).device
