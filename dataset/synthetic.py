"""Render videos from photographs, with exact masks, and make noise in the shape of videos and batches to time with."""

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from util.errors import InputError
from util.files import atomic_path
from util.image_io import write_mask


def render_clip(background, textures, size, length, seed=0):
    """Yield `length` pairs of frame, uint8 height×width×3, and mask, uint8 height×width, that show moving objects.

    background: uint8 H×W×3, a photograph over which the camera pans. textures: one photograph uint8 H×W×3 for each
    object. Objects have ids from 1 in this order, and later ones are in front. size: (height, width). The same seed
    gives the same video.
    """
    rng = np.random.default_rng(seed)
    height, width = size
    objects = [_random_object(rng, texture, size) for texture in textures]
    zoom = 1.2 * max(height / background.shape[0], width / background.shape[1])
    background = cv2.resize(background, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    room = np.array(background.shape[:2]) - size
    pan = rng.uniform(0.2, 0.8, (2, 2)) * room
    for time in np.linspace(0, 1, length):
        top, left = (pan[0] + (pan[1] - pan[0]) * time).round().astype(int)
        frame = background[top:top + height, left:left + width].copy()
        ids = np.zeros(size, np.uint8)
        for object_id, thing in enumerate(objects, 1):
            _paste(frame, ids, object_id, thing, time)
        yield frame, ids


def _random_object(rng, texture, size):
    """Return an object for `_paste`: a random outline filled with part of a photograph, and a random motion.

    size: (height, width) of the frame.
    """
    side = int(0.45 * min(size))
    zoom = side / min(texture.shape[:2])
    patch = cv2.resize(texture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    top, left = (np.array(patch.shape[:2]) - side) // 2
    shape = random_outline(rng, side)
    return {
        "patch": patch[top:top + side, left:left + side],
        "shape": shape,
        "path": rng.uniform(0.25, 0.75, (3, 2)) * (size[1], size[0]),
        "turn": rng.uniform(-40, 40),
        "growth": rng.uniform(0.85, 1.2),
    }


def random_outline(rng, side):
    """Return a random round shape with a wavy outline, filled: uint8 side×side, 0 and 255."""
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    radius = np.full_like(angle, 0.36)
    for wave in (2, 3, 4):
        radius += rng.uniform(0.01, 0.045) * np.sin(wave * angle + rng.uniform(0, 2 * np.pi))
    outline = side * (0.5 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1))
    shape = np.zeros((side, side), np.uint8)
    cv2.fillPoly(shape, [outline.round().astype(np.int32)], 255)
    return shape


def _paste(frame, ids, object_id, thing, time):
    """Draw an object of `_random_object` into a frame and its mask; in place. time: from 0 to 1."""
    side = thing["patch"].shape[0]
    start, middle, end = thing["path"]
    # The path is a quadratic Bézier curve: it is smooth, and stays in the frame because its three points are there.
    x, y = (1 - time) ** 2 * start + 2 * time * (1 - time) * middle + time ** 2 * end
    scale = 1 + (thing["growth"] - 1) * time
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), thing["turn"] * time, scale)
    matrix[:, 2] += (x - side / 2, y - side / 2)
    width_height = frame.shape[1::-1]
    patch = cv2.warpAffine(thing["patch"], matrix, width_height, flags=cv2.INTER_LINEAR,
                           borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(thing["shape"], matrix, width_height, flags=cv2.INTER_LINEAR)
    weight = alpha[..., None].astype(np.float32) / 255
    frame[:] = (frame + weight * (patch.astype(np.float32) - frame)).round()
    ids[alpha > 127] = object_id


def write_example(folder, size=(240, 427), length=24):
    """Render the built-in example as frames/NAME.png and truth/NAME.png below `folder`. Return the folder `truth`.

    size: (height, width). length: number of frames. Raises InputError if scikit-image is not installed, which has the
    photographs.
    """
    try:
        from skimage import data
    except ImportError:
        raise InputError("the example uses photographs of scikit-image: pip install scikit-image") from None
    frames, truth = Path(folder) / "frames", Path(folder) / "truth"
    frames.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    video = render_clip(data.coffee(), [data.chelsea(), data.astronaut()], size, length, seed=3)
    for number, (frame, ids) in enumerate(video):
        with atomic_path(frames / f"{number:05d}.png", flushed=False) as temporary:
            Image.fromarray(frame).save(temporary, format="PNG")
        write_mask(truth / f"{number:05d}.png", ids)
    return truth


class MovingNoise:
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


def make_noise_batch(stage, batch_size, side, device, frames=None):
    """A batch of noise as a stage of training takes it (see model.training_step), side×side pixels, on `device`.

    frames: how many frames a sample has, if not 3 in stage 0 and 5 in the others.
    """
    batch, frames = batch_size, frames or (5 if stage else 3)
    generator = torch.Generator().manual_seed(0)
    rgb = F.interpolate(torch.rand(batch * frames, 3, 12, 12, generator=generator), size=(side, side), mode="bilinear")
    first = torch.zeros(batch, frames, 1, side, side)
    first[..., side // 4:side // 2, side // 4:side // 2] = 1
    second = first.flip(-1)
    result = {"rgb": (rgb * 255).byte().unflatten(0, (batch, frames)), "gt": first, "pgt": first[:, :1].clone(),
              "cls_gt": first[:, :, 0].byte()}
    if stage:
        result |= {"sec_gt": second, "sec_pgt": second[:, :1].clone(), "selector": torch.ones(batch, 2),
                   "cls_gt": (first + 2 * second)[:, :, 0].byte()}
    return {name: value.to(device) for name, value in result.items()}
