import multiprocessing
import os
import signal
import time

import pytest

from util.errors import InputError
from util.processes import map_in_processes


def square(number):
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def count(method, numbers):
    return list(map_in_processes(square, numbers, 2, method, int))


def test_results_come_in_order():
    assert count("fork", range(20)) == [number**2 for number in range(20)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_killed_process_ends_the_work(method):
    with pytest.raises(InputError, match="one of the 2 processes was ended from outside, as the system does when"):
        count(method, [*range(9), -1, *range(1000)])
    assert not multiprocessing.active_children()


def test_who_stops_early_leaves_no_process():
    results = map_in_processes(square, range(1000), 2, "fork", int)
    assert next(results) == 0
    results.close()
    assert not multiprocessing.active_children()


def sleep_long(number):
    time.sleep(number)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_an_idle_process_may_be_killed_too():
    results = map_in_processes(sleep_long, [0, 60, 0, 0], 2, "fork", int)
    next(results)
    multiprocessing.active_children()[0].kill()
    with pytest.raises(InputError, match="ended from outside"):
        list(results)
