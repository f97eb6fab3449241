"""Choose the samples of each batch. Every choice is a function of the seed and of the sample's running number alone."""

import atexit
import functools
import multiprocessing.connection
import os
import signal
import threading

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from util.errors import InputError


def make_sample_generator(seed, number):
    """Return the random generator of the sample with this running number. The samples' streams are independent."""
    return np.random.default_rng((seed, 0, number, 1))


def find_sample_index(seed, number, length):
    """Return the index, below `length`, of the item that a sample shows. Each epoch orders all items anew."""
    epoch, position = divmod(number, length)
    return int(_shuffle(seed, epoch, length)[position])


# Two epochs are kept because one batch may have samples of both.
@functools.lru_cache(maxsize=2)
def _shuffle(seed, epoch, length):
    """Return the order of an epoch's items: a permutation of 0 … length - 1."""
    # The 1 keeps this stream apart from those of `make_sample_generator`, which have a 0 in its place.
    return np.random.default_rng((seed, 1, epoch, 1)).permutation(length)


class MixedDataset:
    """`dataset[n]` is sample n of `second` with probability `share`, else of `first`. The seed and n alone decide."""

    def __init__(self, first, second, share, seed=0):
        self.first, self.second = first, second
        self.share = share
        self.seed = seed

    def __len__(self):
        """Return the number of samples in one epoch of both. Such an epoch has only a random part of each dataset."""
        return len(self.first) + len(self.second)

    def __getitem__(self, number):
        # The 2 keeps this stream apart from those of `make_sample_generator` (0) and `_shuffle` (1).
        chosen = np.random.default_rng((self.seed, 2, number, 1)).random() < self.share
        return (self.second if chosen else self.first)[number]


class BatchNumbers:
    """Iterates over batches `start` to `stop` - 1 and yields the running numbers of their samples: a batch_sampler.

    Batch k of all `world_size` processes together has the numbers k·B to (k + 1)·B - 1, B being batch_size·world_size.
    So two processes see the same samples as one process with twice the batch size, and a run is resumed, even in the
    middle of an epoch, with `start` alone.

    shift: is added to all numbers.
    """

    def __init__(self, batch_size, start, stop, rank=0, world_size=1, shift=0):
        self.shift = shift
        self.batch_size = batch_size
        self.batches = range(start, stop)
        self.rank = rank
        self.world_size = world_size

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            first = (batch * self.world_size + self.rank) * self.batch_size + self.shift
            yield list(range(first, first + self.batch_size))


def load_batches(dataset, numbers, *, workers=0, pin_memory=False):
    """Yield a batch for each list of running numbers in `numbers`: dicts like the dataset's samples, with B in front.

    The workers live as long as the iteration, over all epochs. However it ends, also by an error or by `close`, they
    end with it. Global random generators are not touched. Raises InputError, as the dataset does, naming a file that
    cannot be used, and if a worker is killed or lacks memory.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=numbers,
        num_workers=workers,
        worker_init_fn=_start_worker,
        # DataLoader draws seeds for its workers, which nothing here uses. By default the global generator draws them.
        generator=torch.Generator(),
        pin_memory=pin_memory,
    )
    batches, processes = _start_loader(loader)
    end_workers = functools.partial(_kill, processes)
    # At the program's end, Python waits for child processes that are left, even if an error left this iteration open.
    atexit.register(end_workers)
    try:
        yield from batches
        return
    except InputError as error:
        # A worker's error has the worker's traceback as its text, with the message at the end.
        message = str(error).strip().rpartition("InputError: ")[2]
        # A traceback refers to the loader, which would then keep its memory and its files until the error is forgotten.
        error.with_traceback(None)
    except (RuntimeError, OSError, EOFError) as error:
        message = _explain_loss(error, processes)
        if message is None:
            raise
        error.with_traceback(None)
    finally:
        end_workers()
        atexit.unregister(end_workers)
        # By this event torch tells workers to end. A killed one may have held its lock, and torch would wait for ever.
        batches._workers_done_event = threading.Event()
    raise InputError(message)


def _kill(processes):
    for process in processes:
        process.kill()


def _start_loader(loader):
    """Return a DataLoader's iterator and its worker processes.

    At its first iteration, DataLoader installs a handler for the whole process that raises an error wherever the main
    thread is when a worker dies, also in the middle of an update of the weights. It is removed again: the iterator
    itself notices within seconds that a worker is gone.
    """
    others = multiprocessing.active_children()
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    iterator = iter(loader)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler)
    return iterator, [process for process in multiprocessing.active_children() if process not in others]


def _explain_loss(error, processes):
    """Return in one line what befell the worker processes, or None if the error has another cause."""
    # A worker's connections may break a moment before it is known to be dead.
    ending = multiprocessing.connection.wait([process.sentinel for process in processes], timeout=1)
    for process in processes:
        if process.sentinel in ending:
            process.join()
    dead = [process.exitcode for process in processes if process.exitcode]
    if "/torch_" in str(error) or (dead and dead[0] == -getattr(signal, "SIGBUS", 0)):
        return ("the shared memory, /dev/shm, is too small for the processes that prepare samples; fewer --workers "
                "need less, and a container gets more with --shm-size or --ipc=host")
    if dead:
        how = f"by {signal.Signals(-dead[0]).name}" if dead[0] < 0 else f"with exit code {dead[0]}"
        return (f"a process that prepares samples was ended {how}, as the system does when memory runs short; fewer "
                "--workers need less")
    return None


def _start_worker(worker):
    """Set up a worker process."""
    # The workers already use all cores: threads in each would only compete.
    cv2.setNumThreads(0)
    # A signal asks the training to save and end, and until then it needs its workers. A group of its own protects a
    # worker from signals to the training's process group.
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    # A batch system may signal every process, so a worker ignores SIGTERM. `load_batches` ends it in another way.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
