"""The folder of a training, and its checkpoints: they hold everything that the next iteration depends on."""

import datetime
import random
import re
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from model.checkpoint import read_checkpoint
from util.errors import InputError
from util.files import atomic_path


def find_checkpoint(running, rank=0, processes=1):
    """Return (checkpoint to continue from, whether it is this run's own). The checkpoint is None for a new training.

    running: RunningSettings of util.hyper_para. All processes get the same result.
    """
    found = None
    if running.resume:
        found = find_latest(Path(running.out_root), running.id) if rank == 0 else None
        if processes > 1:
            # Only the first process looks: another machine may not see its files, and would start anew.
            shared = [found]
            dist.broadcast_object_list(shared)
            found = shared[0]
    return (found, True) if found else (running.load_model, False)


def make_run_folder(running, checkpoint=None):
    """Return the folder that a run writes into, or None for a run without an id.

    It is the folder of the run's own checkpoint, or a new one OUT_ROOT/DATE_ID. running: RunningSettings of
    util.hyper_para.
    """
    if running.id == "NULL":
        return None
    if checkpoint is not None:
        return Path(checkpoint).parent
    folder = Path(running.out_root) / f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_{running.id}"
    folder.mkdir(parents=True)
    return folder


def save(folder, iteration, network, optimizer, scaler, skipped, options, *, keep):
    """Write model_N.pth (the bare network) and model_N_checkpoint.pth, of which only the last `keep` stay.

    iteration: the number of iterations that are done. skipped: how many of them made no update. options: {name: value},
        for whoever reads the file.
    """
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        # The next sample and the schedules follow from this number.
        "iteration": iteration,
        "skipped": skipped,
        "options": options,
        "rng": get_rng_state(),
    }
    for name, content in ((f"model_{iteration}.pth", state["network"]), (f"model_{iteration}_checkpoint.pth", state)):
        try:
            with atomic_path(folder / name) as temporary:
                torch.save(content, temporary)
        except RuntimeError as error:
            raise InputError(f"{folder / name}: cannot be written ({str(error).splitlines()[0]})") from None
    for _, old in list_checkpoints(folder)[:-keep]:
        old.unlink()


def list_checkpoints(folder):
    """Return [(iteration, checkpoint file)] of a run's folder, the earliest first."""
    files = [(re.fullmatch(r"model_(\d+)_checkpoint\.pth", file.name), file) for file in folder.glob("*.pth")]
    return sorted((int(match[1]), file) for match, file in files if match)


def find_latest(out_root, name):
    """Return the newest checkpoint of the runs called <date>_<name> below `out_root`, or None."""
    runs = [run for run in out_root.glob(f"*_{name}") if re.fullmatch(r"[\d-]+_[\d-]+_" + re.escape(name), run.name)]
    checkpoints = [(run.name, iteration, file) for run in runs for iteration, file in list_checkpoints(run)]
    return max(checkpoints)[2] if checkpoints else None


def restore(path, network, optimizer, scaler):
    """Load a checkpoint's content. Return its iteration and the number of steps that were skipped up to it.

    Raises InputError if the file is no checkpoint of a training, or belongs to another network.
    """
    state = read_checkpoint(path)
    lacking = {"network", "optimizer", "scaler", "iteration", "rng"} - set(state if isinstance(state, dict) else ())
    if lacking:
        raise InputError(f"{path}: this file is no checkpoint of a training ({', '.join(sorted(lacking))} missing); "
                         "--load-network starts a new training from it")
    try:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: a checkpoint of another network ({str(error).splitlines()[0]})") from None
    if state["scaler"]:
        # The scaler's state is empty if that run's precision needed none; this run's precision may differ.
        scaler.load_state_dict(state["scaler"])
    set_rng_state(state["rng"])
    return state["iteration"], state.get("skipped", 0)


def get_rng_state():
    """Return the states of all global random generators, as plain values and tensors."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def set_rng_state(state):
    """Set all global random generators to the states that `get_rng_state` returned."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
