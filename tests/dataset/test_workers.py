"""The processes that prepare training samples: whatever happens, they end, and so does who waits for them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from dataset.sampler import BatchNumbers, load_batches
from tests.conftest import ROOT
from util.errors import InputError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals")


class Samples:
    """Sample n is {"n": n}. At sample `bad`, `fail()` is called first."""

    def __init__(self, bad=None, fail=None):
        self.bad, self.fail = bad, fail

    def __getitem__(self, number):
        if number == self.bad:
            self.fail()
        return {"n": torch.tensor(number)}

    def __len__(self):
        return 100


def numbers_of(batches):
    return [int(batch["n"]) for batch in batches]


def start(dataset, count=10):
    """Return the batches of two new workers, after one of each, and the workers."""
    batches = load_batches(dataset, BatchNumbers(1, 0, count), workers=2)
    assert [int(next(batches)["n"]) for _ in range(2)] == [0, 1]
    return batches, multiprocessing.active_children()


def die_of(number):
    return lambda: os.kill(os.getpid(), number)


def raise_error():
    raise RuntimeError("unable to write to file </torch_12_34_0>: No space left on device (28)")


@pytest.mark.parametrize("fail, message", [
    (die_of(signal.SIGKILL), "ended by SIGKILL, as the system does when memory runs short; fewer --workers"),
    (die_of(signal.SIGBUS), "the shared memory, /dev/shm, is too small"),
    (raise_error, "the shared memory, /dev/shm, is too small"),
    (lambda: os._exit(3), "ended with exit code 3"),
])
def test_a_worker_that_dies_ends_the_batches(fail, message, monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    batches, workers = start(Samples(5, fail))
    assert len(workers) == 2
    with pytest.raises(InputError, match=message) as caught:
        numbers_of(batches)
    assert "\n" not in str(caught.value)
    for worker in workers:
        worker.join(10)
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_interrupts_nothing_else():
    """Torch's own handler would raise an error wherever the main thread is."""
    before = signal.getsignal(signal.SIGCHLD)
    batches, workers = start(Samples())
    assert signal.getsignal(signal.SIGCHLD) is before
    workers[0].kill()
    workers[0].join()
    time.sleep(0.1)
    batches.close()


def test_a_killed_worker_may_hold_the_lock_by_which_torch_ends_workers():
    batches, workers = start(Samples())
    batches.gi_yieldfrom._workers_done_event._cond.acquire()
    ending = threading.Thread(target=batches.close, daemon=True)
    ending.start()
    ending.join(20)
    assert not ending.is_alive()
    for worker in workers:
        worker.join(10)
    assert not multiprocessing.active_children()


def test_workers_end_with_who_waits_for_them():
    batches, workers = start(Samples())
    batches.close()
    for worker in workers:
        worker.join(10)
        assert worker.exitcode is not None


def test_workers_survive_sigterm():
    """It may be a batch system's, which sends it to all processes to ask the training to save."""
    batches, workers = start(Samples(), count=30)
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGTERM)
    assert numbers_of(batches) == list(range(2, 30))


LEFT_OPEN = """
from tests.dataset.test_workers import Samples, start
batches, workers = start(Samples())
raise MemoryError("left open")
"""


@pytest.mark.slow
def test_a_program_ends_though_an_error_leaves_batches_open():
    ended = subprocess.run([sys.executable, "-c", LEFT_OPEN], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 1 and b"left open" in ended.stderr
