"""The processes that a launcher starts together."""

import datetime
import os

import torch.distributed as dist


def join_processes(backend, processes, timeout=datetime.timedelta(days=30)):
    """Form one group with the launcher's other processes; a wait of more than `timeout` for one of them is an error."""
    store, rank, _ = next(dist.rendezvous("env://", timeout=timeout))
    if os.environ.get("LOCAL_WORLD_SIZE") == str(processes):
        # torchrun's store outlives restarts: without a name of its own, a restarted process would find the addresses
        # of those that died. (Several machines do not agree on the count.)
        store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=processes, timeout=timeout)
