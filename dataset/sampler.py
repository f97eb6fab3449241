"""Which sample comes when: a function of the seed and of a running number, and of nothing else."""

import functools
import os
import signal

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from util.errors import InputError


def make_sample_generator(seed, number):
    """The random numbers of one sample. Distinct numbers give independent streams, whichever process draws them."""
    return np.random.default_rng((seed, 0, number, 1))


def find_sample_index(seed, number, length):
    """Which of `length` items the sample with this running number shows: every epoch is its own permutation."""
    epoch, position = divmod(number, length)
    return int(_shuffle(seed, epoch, length)[position])


@functools.lru_cache(maxsize=2)
def _shuffle(seed, epoch, length):
    # Not a number that `make_sample_generator` could have; one batch may lie across the border of two epochs.
    return np.random.default_rng((seed, 1, epoch, 1)).permutation(length)


class MixedDataset:
    """`dataset[n]` is that of one of two datasets: of `second` with probability `share`, by the seed and n alone."""

    def __init__(self, first, second, share, seed=0):
        self.first, self.second = first, second
        self.share = share
        self.seed = seed

    def __len__(self):
        """Samples of one epoch of both: either shows a random part of its own epochs."""
        return len(self.first) + len(self.second)

    def __getitem__(self, number):
        # The third kind of stream beside those of `make_sample_generator` and `_shuffle`.
        chosen = np.random.default_rng((self.seed, 2, number, 1)).random() < self.share
        return (self.second if chosen else self.first)[number]


class BatchNumbers:
    """Running numbers of the samples of each batch, from batch `start` up to `stop`; a DataLoader's batch_sampler.

    Batch k of all `world_size` processes together is numbers k·B to (k + 1)·B - 1, with B = batch_size·world_size, so
    that two processes see what one with twice the batch would, and `start` alone resumes a run, across epochs.
    """

    def __init__(self, batch_size, start, stop, rank=0, world_size=1):
        self.batch_size = batch_size
        self.batches = range(start, stop)
        self.rank = rank
        self.world_size = world_size

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            first = (batch * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))


def training_batches(dataset, batch_size, start, stop, *, workers=0, rank=0, world_size=1, pin_memory=False):
    """Yield the collated batches `start` to `stop` - 1 of this process: dicts as the dataset's samples, B first.

    The workers live as long as the iteration does, over all epochs. No global random number is drawn. Raises
    InputError, as the dataset does, when a file cannot be used.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=BatchNumbers(batch_size, start, stop, rank, world_size),
        num_workers=workers,
        worker_init_fn=_start_worker,
        # Seeds of the workers that nothing here uses; by default the global generator would be advanced for them.
        generator=torch.Generator(),
        pin_memory=pin_memory,
    )
    try:
        yield from loader
        return
    except InputError as error:
        # A worker's error comes with its traceback; the message is at the end. The traceback of this process holds
        # the workers, which then are found by the garbage collector only, and each takes five seconds to end.
        message = str(error).strip().rpartition("InputError: ")[2]
        error.with_traceback(None)
    raise InputError(message)


def _start_worker(worker):
    # The processes are the parallelism: threads of each would only compete.
    cv2.setNumThreads(0)
    if hasattr(os, "setpgid"):
        # A signal to the training's process group asks the training to save and end; it still needs its workers then.
        os.setpgid(0, 0)
    # So it does where a batch system signals every process. A second signal, as PyTorch may send at the end, holds.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
