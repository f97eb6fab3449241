"""The folder of a training, and its checkpoints: they hold everything that the next iteration depends on."""

import datetime
import glob
import random
import re
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from model.checkpoint import DAMAGE, is_whole, read_checkpoint, write_state
from util.errors import InputError
from util.hyper_para import NO_RUN
from util.notices import tell


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
    if running.id == NO_RUN:
        return None
    if checkpoint is not None:
        return Path(checkpoint).parent
    folder = Path(running.out_root) / f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_{running.id}"
    folder.mkdir(parents=True)
    return folder


def save(folder, iteration, trainer, skipped, network_too=True):
    """Write model_N_checkpoint.pth, and drop the oldest such files beyond --keep.

    iteration: the number of iterations that are done. skipped: how many of them made no update.
    network_too: first write model_N.pth, the bare network; if the Trainer has an average, that.
    """
    state = {
        "network": _dense(trainer.network.state_dict()),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        # The next samples and the schedules follow from these numbers.
        "iteration": iteration,
        "samples": trainer.samples,
        "skipped": skipped,
        # For whoever reads the file.
        "options": trainer.settings.options(),
        "rng": get_rng_state(),
    }
    files = {}
    if trainer.average:
        state["average"] = trainer.average.state_dict()
    if network_too:
        averaged = state["average"]["weights"] if trainer.average else {}
        files[f"model_{iteration}.pth"] = {**state["network"], **_dense(averaged)}
    files[f"model_{iteration}_checkpoint.pth"] = state
    for name, content in files.items():
        write_state(folder / name, content)
    for _, old in list_checkpoints(folder)[:-trainer.settings.running.keep]:
        old.unlink()


def _dense(weights):
    """Return weights as ordinary tensors, whatever their layout in training."""
    return {name: value.contiguous() for name, value in weights.items()}


def list_checkpoints(folder):
    """Return [(iteration, checkpoint file)] of a run's folder, the earliest first."""
    files = [(re.fullmatch(r"model_(\d{1,18})_checkpoint\.pth", file.name), file) for file in folder.glob("*.pth")]
    return sorted((int(match[1]), file) for match, file in files if match)


def find_latest(out_root, name):
    """Return the newest undamaged checkpoint of the runs called <date>_<name> below `out_root`, None if there is none.

    Says which newer ones are damaged. Raises InputError if there are checkpoints, but only damaged ones.
    """
    runs = [run for run in out_root.glob(f"*_{glob.escape(name)}")
            if re.fullmatch(r"[\d-]+_[\d-]+_" + re.escape(name), run.name)]
    checkpoints = sorted((run.name, iteration, file) for run in runs for iteration, file in list_checkpoints(run))
    for _, _, file in reversed(checkpoints):
        if is_whole(file):
            return file
        tell([f"{file}: damaged or not all there, so an earlier checkpoint is looked for"])
    if checkpoints:
        raise InputError(f"{checkpoints[-1][2]}: this checkpoint and all earlier ones are damaged; move "
                         f"{checkpoints[-1][2].parent} away to start anew")
    return None


def restore(path, trainer):
    """Load a checkpoint into a Trainer. Return its iteration and the number of steps that were skipped up to it.

    Raises InputError if the file is no checkpoint of a training, or belongs to another network.
    """
    state = read_checkpoint(path)
    lacking = {"network", "optimizer", "scaler", "iteration", "rng"} - set(state if isinstance(state, dict) else ())
    if lacking:
        raise InputError(f"{path}: this file is no checkpoint of a training ({', '.join(sorted(lacking))} missing); "
                         "--load-network starts a new training from it")
    try:
        return _restore(state, trainer)
    except DAMAGE as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else str(error)
        raise InputError(f"{path}: a checkpoint of another network, or a damaged one "
                         f"({reason.splitlines()[0][:200] if reason else type(error).__name__})") from None


def _restore(state, trainer):
    """Do what `restore` does, with the content of a checkpoint. Raises an error of DAMAGE where a part does not fit."""
    iteration, skipped = _find_count(state, "iteration"), _find_count(state, "skipped", 0)
    recipe = trainer.settings.recipe
    trainer.samples = _find_count(state, "samples",
                                  iteration * recipe.batch_size * recipe.accumulate * trainer.processes)
    trainer.network.load_state_dict(state["network"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    _fit_optimizer(trainer.optimizer)
    if iteration and not trainer.optimizer.state:
        raise ValueError("the optimizer's state is empty")
    if trainer.average and "average" in state:
        trainer.average.load_state_dict(state["average"])
    if state["scaler"]:
        # The scaler's state is empty if that run's precision needed none; this run's precision may differ.
        trainer.scaler.load_state_dict(state["scaler"])
    set_rng_state(state["rng"])
    return iteration, skipped


def _find_count(state, name, default=None):
    """Return the whole number of this name in a checkpoint's content. Raises ValueError if it is anything else."""
    count = state.get(name, default)
    if type(count) is not int or not 0 <= count < 2**53:
        raise ValueError(f"its {name} is {count!r}")
    return count


def _fit_optimizer(optimizer):
    """Give the optimizer's moments the layout of their weights: the fused step takes it for granted.

    Raises ValueError if a moment has another shape than its weight, or the number of steps is no number.
    """
    for weight, moments in optimizer.state.items():
        for name, like in (("exp_avg", weight), ("exp_avg_sq", weight), ("step", torch.zeros(()))):
            if moments[name].shape != like.shape or moments[name].dtype != like.dtype:
                raise ValueError(f"the optimizer's state has a {moments[name].dtype} tensor of shape "
                                 f"{tuple(moments[name].shape)} where {like.dtype} {tuple(like.shape)} is expected")
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(weight).copy_(moments[name])


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
