"""At which size a core computes: lines, padding, and the way back to the frame's size."""

import torch.nn.functional as F

STRIDE = 16
"""The sides of an image are padded to multiples of this: keys and values have one position for 16×16 pixels."""

LINES = 480
"""The shorter side of own videos, in pixels, for networks whose configuration has no `lines`."""


def pick_size(size, config, otherwise=LINES):
    """Return the shorter side, in pixels, at which a network is to compute; None keeps the frames' own.

    size: the one that is asked for, 0 keeps the frames' own, None leaves it to the network's `config`, or, where that
    has no `lines`, to `otherwise`.
    """
    return (config.lines or otherwise if size is None else size) or None


def network_size(size, frame_size):
    """Return the `size` for an InferenceCore that tracks frames with these two sides, in pixels; None keeps their own.

    size: the shorter side, see `pick_size`; 0 or None keeps the frames' own. Smaller frames are enlarged to it, at most
    to twice their size: the networks learnt at about 480 lines, and lose small objects in smaller frames.
    """
    shorter = min(frame_size)
    return None if size in (0, None, shorter) else min(size, 2 * shorter)


def scale_size(size, length):
    """Return (height, width) scaled so that the shorter side is `length`, rounded as torchvision's Resize does."""
    height, width = size
    if height <= width:
        return length, int(length * width / height)
    return int(length * height / width), length


def compute_padding(size):
    """Return the padding (left, right, top, bottom) that makes (height, width) multiples of 16."""
    height, width = size
    extra_y, extra_x = -height % STRIDE, -width % STRIDE
    return extra_x // 2, extra_x - extra_x // 2, extra_y // 2, extra_y - extra_y // 2


def restore_size(prob, pad, frame_size):
    """Crop the padding off probabilities and resize them to the frame, a (height, width), or None to leave them so."""
    left, right, top, bottom = pad
    prob = prob[:, top:prob.shape[1] - bottom, left:prob.shape[2] - right]
    if frame_size is not None:
        prob = F.interpolate(prob.unsqueeze(0), size=frame_size, mode="bilinear", align_corners=False).squeeze(0)
    return prob
