"""The device that torch computes on, and the processes that a launcher starts together."""

import datetime
import os
import platform
import re

import torch
import torch.distributed as dist

from util.errors import InputError


def pick_device(name):
    """The torch.device called `name`; "auto" is the fastest one here. Raises InputError if it cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
        if device.type == "cuda":
            # Streams and graphs are made on the current device.
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def device_name(device):
    """The name that its maker gave to a torch.device, and the number of threads if it is the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        try:
            with open("/proc/cpuinfo") as file:
                name = re.search(r"model name\s*: (.*)", file.read())[1]
        except (OSError, TypeError):
            name = platform.processor() or platform.machine()
        return f"{name}, {torch.get_num_threads()} threads"
    return device.type


LONG = datetime.timedelta(days=30)
"""A wait for another process that is no error."""


def join_processes(backend, processes, timeout=LONG):
    """Join the other processes of a launcher (torchrun) in one group, as late as they may come.

    timeout: a process that later waits longer than this for another one ends with an error; None is what torch sets
    for the backend. Returns the store that they share, in which one can leave a value for the others.
    """
    store, rank, _ = next(dist.rendezvous("env://", timeout=LONG))
    if os.environ.get("LOCAL_WORLD_SIZE") == str(processes):
        # torchrun's store outlives restarts: without a name of its own, a restarted process would find the addresses
        # of those that died. (Several machines do not agree on the count.)
        store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    # Whoever has more to do first, as to look at the data, is waited for here, where `timeout` does not hold yet.
    store.set(f"process {rank}", "here")
    store.wait([f"process {number}" for number in range(processes)], LONG)
    dist.init_process_group(backend, store=store, rank=rank, world_size=processes, timeout=timeout)
    return store


def patient_group():
    """A further group of the same processes, in which one may wait for another as long as it takes.

    Made by all processes alike. It lives on the CPU: GPUs wait for nothing meanwhile.
    """
    return dist.new_group(backend="gloo", timeout=LONG)
