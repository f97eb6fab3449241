"""Check the images and masks that are given to `InferenceCore.step`, and bring them into one form."""

import math

import numpy as np
import torch

from util.errors import InputError, pixels
from util.mask_rule import MANY_IDS, refuse_soft_edges

UNKNOWN = 255
"""What a partial mask says of a pixel of which nothing is known."""


def check_image(image, frame_size=None):
    """Return an image as a tensor 3×H×W.

    frame_size: (height, width) of the video's other frames, None if there are none. Raises InputError for anything that
    is not an image of this video.
    """
    image = _to_tensor(image, "an image")
    last_is_colour = image.dtype == torch.uint8 and image.ndim == 3 and image.shape[-1] == 3
    # Three rows are no colours either, unless only that fits the frames before.
    if last_is_colour and (image.shape[0] != 3 or frame_size != tuple(image.shape[1:])):
        image = image.movedim(-1, 0)
    right_type = image.dtype == torch.uint8 or image.is_floating_point()
    if image.ndim != 3 or image.shape[0] != 3 or not image.numel() or not right_type:
        raise InputError("an image is 3×H×W, float in [0, 1] or uint8, or H×W×3, uint8; this one is "
                         f"{image.dtype} of shape {tuple(image.shape)}")
    # Only checked on the CPU: reading a value from another device would wait for it.
    if image.is_floating_point() and image.device.type == "cpu":
        low, high = (float(value) for value in image.aminmax())
        if not (low >= 0 and high <= 2):
            raise InputError(f"a float image lies in [0, 1]; the values here go from {low:g} to {high:g}")
    if frame_size not in (None, tuple(image.shape[-2:])):
        raise InputError(f"a frame of {pixels(image.shape[:-3:-1])} in a video of {pixels(frame_size[::-1])}")
    return image


def check_mask(mask, objects, frame_size, partial=False):
    """Return a mask as planes O×H×W, and their ids; no ids if it says nothing new.

    A partial mask has a plane of the background before them. Raises InputError for a mask that cannot be used.
    """
    mask = _to_tensor(mask, "a mask")
    if mask.dtype in (torch.uint16, torch.uint32, torch.uint64):
        # Torch can store these types, but can do little else with them.
        mask = mask.long()
    if tuple(mask.shape[-2:]) != frame_size or mask.ndim not in (2, 3):
        raise InputError(f"a mask of shape {tuple(mask.shape)} for a frame of {pixels(frame_size[::-1])}; H×W or O×H×W "
                         "was expected")
    if partial:
        return _split_strokes(mask, objects)
    objects = None if objects is None else check_ids(objects)
    if objects is None and mask.ndim == 3:
        raise InputError("a mask of O×H×W planes needs `objects`, the id of each plane")
    if mask.ndim == 3 and len(mask) != len(objects):
        raise InputError(f"{len(mask)} mask planes for {len(objects)} objects")

    # Is it one plane for one id, or are the values ids?
    values = [value for value in mask.unique().tolist() if value]
    if not all(map(math.isfinite, values)):
        raise InputError("a mask holds finite numbers; in this one, some are not")
    if objects is None:
        objects = [1] if values == [255] else values
        if any(value % 1 for value in values):
            raise InputError("a mask with fractions is the plane of one object, and needs `objects`, with its id")
    ids = [int(object_id) for object_id in objects]
    wrong = [object_id for object_id in ids if not 1 <= object_id <= 255]
    if wrong or len(set(ids)) < len(ids):
        raise InputError(f"object ids must be distinct and from 1 to 255; these are {ids}")
    if not values:
        return mask, []
    if not ids:
        raise InputError("`objects` is empty, but the mask is not")
    is_plane = values in ([1], [255]) or (all(0 < value < 1 for value in values[:-1]) and 0 < values[-1] <= 1)
    if mask.ndim == 2 and len(ids) == 1 and is_plane:
        mask = mask[None]
    elif mask.ndim == 2:
        known = [object_id for object_id in ids if object_id in values]
        if not known:
            raise InputError(f"object {ids[0]} is not in the mask, its values are "
                             f"{', '.join(f'{value:g}' for value in values[:4])}{', …' * (len(values) > 4)}")
        if len(values) > MANY_IDS:
            refuse_soft_edges(mask.cpu().numpy().astype(np.uint8), "mask")
        return mask == torch.tensor(known, device=mask.device).view(-1, 1, 1), known
    if not is_plane:
        raise InputError(f"a plane lies in [0, 1]; the values here go from {min(values):g} to {max(values):g}")
    mask = mask > 0 if values == [255] else mask
    shown = (mask != 0).flatten(1).any(1).tolist()
    return mask[torch.tensor(shown, device=mask.device)], [i for i, seen in zip(ids, shown, strict=True) if seen]


def check_ids(objects):
    """Return object ids as a list of int. Raises InputError for what is no list of whole numbers."""
    try:
        given = list(objects)
        ids = [int(object_id) for object_id in given]
        if ids == given:
            return ids
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"object ids are a list of whole numbers like [1, 2]; these are {objects!r}")


def _to_tensor(values, what):
    """Return an array of any library as a tensor. Raises InputError for what is no array of numbers."""
    if not isinstance(values, torch.Tensor):
        try:
            values = torch.tensor(np.ascontiguousarray(values))
        except (TypeError, ValueError):
            kind = f"ndarray of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
            raise InputError(f"{what} is an array or a tensor of numbers; this is {kind}") from None
    if values.is_complex():
        raise InputError(f"{what} is an array or a tensor of numbers; these are {values.dtype}")
    return values


def _split_strokes(mask, objects):
    """Return a partial mask as planes (number of ids + 1)×H×W, background first, and its ids. Raises InputError."""
    values = mask.unique().tolist()
    if objects is not None or mask.ndim != 2 or any(value % 1 or not 0 <= value <= UNKNOWN for value in values):
        raise InputError(f"a partial mask is H×W object ids below {UNKNOWN}, 0 for background and {UNKNOWN} for "
                         "unknown, without `objects`")
    ids = [int(value) for value in values if value not in (0, UNKNOWN)]
    return mask == torch.tensor([0, *ids], device=mask.device).view(-1, 1, 1), ids
