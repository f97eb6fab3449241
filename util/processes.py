"""Work in several processes."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from util.errors import InputError


def map_in_processes(function, items, processes, method, initializer):
    """Yield function(item) for each item, in order, computed in several processes.

    method: how processes are started, "fork" or "spawn". initializer: each process calls it first.

    A caller that stops early waits for what is being computed. Raises InputError if a process is killed, which the
    system does when memory runs short.
    """
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context(method), initializer)
    started = pool._processes
    try:
        yield from pool.map(function, items)
    except BrokenProcessPool:
        raise InputError(f"one of the {processes} processes was ended from outside, as the system does when memory "
                         "runs short") from None
    finally:
        pool.shutdown(cancel_futures=True)
        # A process that was started while another one was killed is forgotten by the pool, and would wait for ever.
        for process in list(started.values()):
            process.kill()
            process.join()
