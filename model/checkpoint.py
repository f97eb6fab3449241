"""Read and write checkpoints: find out which network they hold, and whether every tensor fits."""

import dataclasses
import functools
import pickle
import re
import struct
import zipfile
import zlib

import torch

from model.config import PRESETS
from model.network import RDE
from util.errors import InputError
from util.files import atomic_path

DAMAGE = (RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, LookupError, TypeError, AttributeError,
          AssertionError, OverflowError, struct.error)
"""What zipfile, pickle and torch raise for a damaged file."""

WRAPPERS = r"^(module\.|_orig_mod\.)+"
"""What DistributedDataParallel and torch.compile put before the names of a network's tensors."""


def load_network(path, device="cpu", preset="auto"):
    """Return the network stored at `path`, in eval mode on `device`, float32.

    `path` holds a bare state dict, as published, or a training checkpoint of ours, whose entry "network" is one. Keys
    and shapes tell whether the network is single- or multi-object, whether it has SAM, and its `repeat`. They also tell
    its preset, unless `preset` names it. Raises InputError if the file is damaged or no checkpoint, holds values that
    are not finite, or a tensor is missing, unexpected, or of another shape; further lines of the message list these
    tensors.
    """
    return build_network(read_state(path), path, device, preset)


def write_state(path, state):
    """Write a dict of tensors, or of dicts of them, for `read_checkpoint`. Raises InputError if that fails."""
    # Given a file instead of its path, torch says why it cannot go on writing.
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)


def build_network(state, path, device="cpu", preset="auto"):
    """Return the network of a state dict that was read from `path`; otherwise like `load_network`."""
    config = _detect_config(state, path, preset)
    with torch.device("meta"):
        network = RDE(config)
    return give_weights(network, state, path, preset_name(config)).to(device).eval()


def give_weights(network, state, path, name):
    """Return the network, built on the meta device, with the weights of a state dict as float32.

    path, name: the file's and the network's, for messages. Raises InputError that lists tensors that do not fit.
    """
    _check_tensors(state, network.state_dict(), path, name)
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    network.load_state_dict(state, assign=True)
    return network


def preset_name(config):
    """Return the name of the preset whose dimensions a NetworkConfig has, or "custom"."""
    plain = dataclasses.replace(config, sam=True, repeat=0, single_object=False)
    return next((name for name, preset in PRESETS.items()
                 if preset == dataclasses.replace(plain, bounded=preset.bounded)), "custom")


def read_checkpoint(path):
    """Return what is stored at `path`. Raises InputError unless that is only tensors and plain values, undamaged."""
    try:
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder where a checkpoint was expected") from None
    except pickle.UnpicklingError as error:
        # Torch names the first global that it refuses, which tells the user what is wrong with the file.
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it holds code or objects ({refused[1]}), refused" if refused else "not a torch file"
        raise InputError(f"{path}: not a checkpoint of tensors alone: {reason}") from None
    except DAMAGE as error:
        raise InputError(f"{path}: damaged or not a torch file ({_first_line(error)})") from None


def is_whole(path):
    """Return whether the file at `path` is an undamaged file of torch's, of whatever content."""
    try:
        _check_sums(path)
    except (OSError, *DAMAGE):
        return False
    return zipfile.is_zipfile(path)


def _check_sums(path):
    """Raise BadZipFile if a part of the archive at `path` has another checksum than it had when it was written.

    Torch does not look at them: weights with some flipped bits would track other masks without a word. Files of old
    versions of torch are no archives and have no checksums.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} has changed since it was written")


def read_state(path):
    """Return the state dict stored at `path`. Raises InputError if the file holds something else."""
    state = read_checkpoint(path)
    if isinstance(state, dict) and isinstance(state.get("network"), dict):
        state = state["network"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path}: a checkpoint is a state dict of tensors, this file holds something else")
    state = {re.sub(WRAPPERS, "", key): value for key, value in state.items() if isinstance(key, str)}
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{path}: {key} has values that are not finite: this network came out of a training that "
                             "failed; take an earlier checkpoint")
    return state


def _first_line(error):
    return str(error).strip().split("\n")[0][:100] or type(error).__name__


def _detect_config(state, path, preset):
    """Return the NetworkConfig that fits most tensors of a state dict."""
    if preset != "auto" and preset not in PRESETS:
        raise InputError(f"no preset {preset!r}; the presets are {', '.join(PRESETS)}")
    blocks = [re.match(r"mem_compress\.key_encoder\.se_block\.(\d+)\.", key) for key in state]
    first = state.get("value_encoder.conv1.weight")
    variant = {
        "sam": any(key.startswith("mem_compress.") for key in state),
        "bounded": "mem_compress.bounded" in state,
        "repeat": len({block[1] for block in blocks if block}),
        "single_object": first is not None and first.ndim == 4 and first.shape[1] == 4,
    }
    configs = [dataclasses.replace(PRESETS[name], **variant)
               for name in (PRESETS if preset == "auto" else [preset])]
    shapes = {key: value.shape for key, value in state.items()}

    def count_fitting(config):
        return len(shapes.items() & expected_shapes(config).items())

    best = max(configs, key=count_fitting)
    if not count_fitting(best):
        found = ", ".join(list(state)[:3]) or "nothing"
        raise InputError(f"{path}: a checkpoint of another network (it holds {found}, ...)")
    return best


@functools.cache
def expected_shapes(config):
    """Return {key: shape} of a network's state dict, without building its weights."""
    with torch.device("meta"):
        return {key: value.shape for key, value in RDE(config).state_dict().items()}


def _check_tensors(state, expected, path, preset):
    """Raise InputError that lists all tensors of `state` that differ from `expected`, if there are any."""
    rows = [("missing", key, "-", _format_shape(expected[key])) for key in expected if key not in state]
    rows += [("unexpected", key, _format_shape(state[key]), "-") for key in state if key not in expected]
    rows += [("other shape", key, _format_shape(state[key]), _format_shape(expected[key]))
             for key in expected if key in state and state[key].shape != expected[key].shape]
    rows += [("other type", key, str(state[key].dtype), str(expected[key].dtype)) for key in expected
             if key in state and state[key].is_floating_point() != expected[key].is_floating_point()]
    if not rows:
        return
    kinds = ("missing", "unexpected", "other shape", "other type")
    found = {kind: [row[1] for row in rows if row[0] == kind] for kind in kinds}
    summary = "; ".join(f"{len(keys)} {kind} ({', '.join(keys[:2])}{', ...' if len(keys) > 2 else ''})"
                        for kind, keys in found.items() if keys)
    table = [("what", "tensor", "found", "expected"), *rows[:20]]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in table]
    if len(rows) > 20:
        lines.append(f"... and {len(rows) - 20} more")
    raise InputError("\n".join([f"{path}: does not fit the network '{preset}': {summary}", *lines]))


def _format_shape(tensor):
    return "×".join(map(str, tensor.shape)) or "scalar"
