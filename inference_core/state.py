"""States: what a core needs to go on with a video, in memory and in files."""

import json
import struct
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
import torch

from inference_core.memory import MemoryState
from inference_core.places import Sighting
from util.errors import InputError
from util.files import atomic_path

FORMAT, OLDER = "RDE-VOS state 2", "RDE-VOS state 1"
"""What a file of `save_state` says of itself. Older files fit if they do not say where objects are."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""The dtypes of tensors in a file. numpy does not know bfloat16: its bits are written as int16."""


@dataclass(frozen=True)
class State:
    """A core's memory and counters at one moment. `InferenceCore.state` makes it, `InferenceCore.restore` takes it.

    It does not change when the core goes on. Its tensors are the core's own, on the core's device: states of the same
    core share what did not change between them.
    """

    settings: dict
    """{name: value} of the settings that must be the same in the core that goes on from here."""

    frame_size: tuple | None
    """(height, width) of the video's frames; None before the first one."""

    next_frame: int
    """The index of the next frame, if `step` does not name another."""

    since_memory: int
    """The number of frames since the last memory frame."""

    memories: tuple
    """The MemoryState of each group of objects."""

    last_memory: int = 0
    """The index of the last memory frame."""

    places: dict | None = None
    """{frame's index: Sighting}, where the objects are, of a core with `places`."""

    direction: int = 1
    """The direction of tracking: 1 if the frames' indices grow, else -1."""


def check_state(state):
    """Raise InputError for anything but a State."""
    if not isinstance(state, State):
        raise InputError(f"a state is what InferenceCore.state or load_state returns; this is {type(state).__name__}")


def save_state(path, state):
    """Write a State into a file that holds numbers only, an npz without pickles. The file appears when it is whole."""
    check_state(state)
    tensors = {}

    def number(tensor):
        """The number of a tensor in the file. Groups share keys: each is written once."""
        return tensors.setdefault(id(tensor), (len(tensors), tensor))[0]

    groups = [{
        "ids": memory.ids,
        "references": [[frame, *map(number, entry)] for frame, entry in memory.references.items()],
        **{name: entry and [*map(number, entry)] for name, entry in (
            ("embedding", memory.embedding), ("last", memory.last), ("others", memory.others))},
    } for memory in state.memories]
    places = state.places and [[frame, *map(number, sighting)] for frame, sighting in state.places.items()]
    arrays, layouts = {}, []
    for place, tensor in tensors.values():
        flat, layout = _flatten(tensor)
        arrays[f"tensor{place}"] = flat
        layouts.append(layout)
    header = {"format": FORMAT, "settings": state.settings, "frame_size": state.frame_size,
              "next_frame": state.next_frame, "since_memory": state.since_memory, "groups": groups, "tensors": layouts,
              "last_memory": state.last_memory, "places": places, "direction": state.direction}
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, header=text, **arrays)


def load_state(path):
    """Return the State in a file of `save_state`. Raises InputError if there is none, or if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            if header["format"] != FORMAT and not (header["format"] == OLDER and not header.get("places")):
                raise InputError(f"{path}: holds a {str(header['format'])[:40]!r}, expected a {FORMAT!r}; it is of "
                                 "another version, so begin anew")
            tensors = [_unflatten(file[f"tensor{place}"], *layout) for place, layout in enumerate(header["tensors"])]
        memories = []
        for group in header["groups"]:
            references = {int(frame): (tensors[key], tensors[value]) for frame, key, value in group["references"]}
            entries = [entry and (tensors[entry[0]], tensors[entry[1]])
                       for entry in (group["embedding"], group["last"], group["others"])]
            memories.append(MemoryState([int(object_id) for object_id in group["ids"]], references, *entries))
        places = header.get("places")
        if places:
            places = {int(frame): Sighting(*(tensors[place] for place in sighting)) for frame, *sighting in places}
        size = header["frame_size"]
        return State(dict(header["settings"]), size and (int(size[0]), int(size[1])), int(header["next_frame"]),
                     int(header["since_memory"]), tuple(memories), int(header.get("last_memory", 0)), places,
                     int(header.get("direction", 1)))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, OverflowError,
            zipfile.BadZipFile, zlib.error, struct.error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise InputError(f"{path}: damaged, or no file of save_state ({reason})") from None


def _flatten(tensor):
    """Return a tensor's numbers as a flat array, and [dtype, shape, strides].

    The strides are kept because a convolution rounds differently on another layout.
    """
    tensor = tensor.detach().cpu()
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    if not tensor.permute(order).is_contiguous():
        tensor, order = tensor.contiguous(), list(range(tensor.ndim))
    flat = tensor.permute(order).flatten()
    name = str(tensor.dtype).removeprefix("torch.")
    flat = flat.view(torch.int16) if tensor.dtype == torch.bfloat16 else flat
    return flat.numpy(), [name, list(tensor.shape), list(tensor.stride())]


def _unflatten(array, name, shape, strides):
    """The reverse of `_flatten`."""
    flat = torch.from_numpy(array)
    flat = flat.view(torch.bfloat16) if name == "bfloat16" else flat
    if flat.dtype != DTYPES[name] or flat.numel() != torch.Size(shape).numel():
        raise ValueError(f"a tensor of {flat.numel()} {flat.dtype}, expected {name} of shape {shape}")
    return flat.as_strided(shape, strides)
