"""What `benchmark.py` measures with: clips and batches that need no files, the plain network, memory held."""

import contextlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from model.inference import Frame


def training_batch(args, device):
    """Numbers in the shapes of a batch; see model.training_step."""
    batch, frames, side = args.batch_size, 5 if args.stage else 3, args.crop
    generator = torch.Generator().manual_seed(0)
    rgb = F.interpolate(torch.rand(batch * frames, 3, 12, 12, generator=generator), size=(side, side), mode="bilinear")
    first = torch.zeros(batch, frames, 1, side, side)
    first[..., side // 4:side // 2, side // 4:side // 2] = 1
    second = first.flip(-1)
    result = {"rgb": (rgb * 255).byte().unflatten(0, (batch, frames)), "gt": first, "pgt": first[:, :1].clone(),
              "cls_gt": first[:, :, 0].byte()}
    if args.stage:
        result |= {"sec_gt": second, "sec_pgt": second[:, :1].clone(), "selector": torch.ones(batch, 2),
                   "cls_gt": (first + 2 * second)[:, :, 0].byte()}
    return {name: value.to(device) for name, value in result.items()}


class Clip:
    """Frames H×W×3 uint8 of smooth noise that moves, and a mask H×W with as many objects as asked for."""

    def __init__(self, size, objects, device):
        generator = torch.Generator().manual_seed(1)
        coarse = torch.rand(1, 3, 20, 30, generator=generator)
        fine = torch.rand(1, 3, *size, generator=generator)
        image = 0.9 * F.interpolate(coarse, size=size, mode="bicubic", align_corners=False) + 0.1 * fine
        self._image = (image[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).contiguous().to(device)
        self.mask = np.zeros(size, np.uint8)
        across = int(np.ceil(objects ** 0.5))
        height, width = size[0] // across, size[1] // across
        for number in range(objects):
            top, left = number // across * height, number % across * width
            self.mask[top + height // 5:top + 4 * height // 5, left + width // 5:left + 4 * width // 5] = number + 1

    def frame(self, index):
        return self._image.roll((index % 50, 2 * (index % 50)), (0, 1))


class PlainNetwork(torch.nn.Module):
    """The network as training runs it, under autocast, in the place of an InferenceNetwork."""

    def __init__(self, network, dtype):
        super().__init__()
        self.network = network
        self.autocast = contextlib.nullcontext
        if dtype != torch.float32:
            self.autocast = lambda: torch.autocast(next(network.parameters()).device.type, dtype=dtype)

    def encode_key(self, image):
        with self.autocast():
            key, f16_thin, f16, f8, f4 = self.network.encode_key(image)
        return Frame(key, f16, f16_thin, None, f8, f4)

    def decode(self, readout, frame):
        with self.autocast():
            return self.network.decode(readout[None], frame.compress, frame.skip8, frame.skip4)[0].float()

    def encode_value(self, image, frame, masks, others):
        with self.autocast():
            return self.network.encode_value(image, frame.f16, masks[None], others[None])[0]

    def aggregate_key(self, old, new):
        with self.autocast():
            return self.network.mem_compress.aggregate_key(old, new)

    def aggregate_value(self, old, new):
        with self.autocast():
            return self.network.mem_compress.aggregate_value(old, new)


def held_by(core):
    """Bytes of the tensors that the core's memory holds."""
    tensors = {}
    for group in core._groups:
        entries = [tensor for entry in group._entries.values() for tensor in entry]
        for thing in (group._key, group._value, group._copies, *entries):
            tensors[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(tensors.values())


def resident():
    """Bytes of RAM that this process occupies; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0
