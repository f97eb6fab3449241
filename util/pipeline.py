"""Decoding ahead and writing behind: threads that overlap with the computation, each with a bounded queue."""

import contextlib
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Queue

_END = object()


def prefetch(items, depth=4):
    """Yield the items of an iterable, which a thread produces up to `depth` items ahead (2 or more).

    An exception of the iterable is raised here, after the items before it. A caller that stops early does not wait for
    the item that is being produced: it may never come, from a camera that has fallen silent, say.
    """
    # The thread itself holds one more item.
    queue, stopped = Queue(max(1, depth - 1)), threading.Event()

    def produce():
        try:
            for item in items:
                queue.put((item, None))
                if stopped.is_set():
                    return
            queue.put((_END, None))
        except BaseException as error:
            queue.put((_END, error))

    threading.Thread(target=produce, daemon=True).start()
    try:
        while True:
            item, error = queue.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        # The thread may be waiting for room.
        with contextlib.suppress(Empty):
            while True:
                queue.get_nowait()


def read_ahead(function, items, threads, depth=8):
    """Yield function(item) for each item, in order, computed up to `depth` ahead in several threads."""
    with ThreadPoolExecutor(threads) as pool:
        ahead = deque()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > depth:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()


def mark_last(items):
    """Yield (item, True for the last item). An exception of the iterable is raised after the items before it."""
    iterator = iter(items)
    item = next(iterator, _END)
    while item is not _END:
        try:
            following = next(iterator, _END)
        except Exception:
            # Raised again, once the item before it has been worked on.
            yield item, False
            raise
        yield item, following is _END
        item = following


class Background:
    """Runs jobs in a thread, one after the other, or in several threads.

    A job's exception is raised by a later `submit` or by `wait`; jobs queued after it are dropped.
    """

    def __init__(self, depth=4, threads=1):
        self._pool = ThreadPoolExecutor(threads)
        self._depth = depth
        self._jobs = deque()
        self._failed = False

    def submit(self, job, *args):
        """Queue job(*args), waiting while `depth` jobs are queued. Returns its future."""
        while len(self._jobs) >= self._depth:
            self._jobs.popleft().result()
        self._jobs.append(self._pool.submit(self._run, job, args))
        return self._jobs[-1]

    def wait(self):
        """Wait until every job is done."""
        while self._jobs:
            self._jobs.popleft().result()

    def close(self):
        """Wait until every job is done, and drop their exceptions."""
        self._pool.shutdown()

    def _run(self, job, args):
        if self._failed:
            return None
        try:
            return job(*args)
        except BaseException:
            self._failed = True
            raise
