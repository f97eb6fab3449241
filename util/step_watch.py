"""A watch over work that is done in steps, for the case that a step hangs in code that no signal gets through to."""

import collections
import contextlib
import os
import select
import signal
import socket
import statistics
import sys
import threading
import time

USUAL_STEPS = 10
"""So many steps must have been seen before one can be unusual."""


class StepWatch:
    """Tells of a step that takes far longer than the others, and ends the process when it is asked to a second time.

        with StepWatch() as watch:
            for number in ...:
                with watch.step(number):
                    ...

    Python runs signal handlers between two instructions of the main thread. While that waits for a kernel that hangs,
    no handler runs, so a thread looks at the signals, too. It leaves the first one to the handlers. A second one ends
    the process at once if it comes more than `patience` seconds later: launchers may send the first one twice.

    It uses `signal.set_wakeup_fd`, so it belongs into a script's main thread.

    unusual: how many times the usual (median) time, and at least how many seconds, a step must take to be told of.
    """

    def __init__(self, patience=5.0, unusual=(50, 30.0)):
        self._patience, (self._times, self._seconds) = patience, unusual
        self._durations = collections.deque(maxlen=100)
        self._current = None  # (number, when it began), while a step is done
        self._asked_at = None

    def __enter__(self):
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._previous = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        signal.set_wakeup_fd(self._previous)
        self._writer.close()
        self._thread.join()
        self._reader.close()

    @contextlib.contextmanager
    def step(self, number):
        """Watch over the step of this number, for the time of the block."""
        began = time.monotonic()
        self._current = number, began
        try:
            yield
        finally:
            self._current = None
            self._durations.append(time.monotonic() - began)

    def _run(self):
        told = None
        while True:
            if select.select([self._reader], [], [], 1.0)[0]:
                numbers = self._reader.recv(64)
                if not numbers:
                    return
                self._look_at(numbers)
            current = self._current
            if current and current != told and len(self._durations) >= USUAL_STEPS:
                usual, so_far = statistics.median(self._durations), time.monotonic() - current[1]
                if so_far > max(self._times * usual, self._seconds):
                    told = current
                    print(f"note: step {current[0]} has taken {so_far:.0f} s so far, usual are {usual:.2g} s: does it "
                          "hang? Ctrl-C asks it to end, and a second one a few seconds later ends it at once",
                          file=sys.stderr)

    def _look_at(self, numbers):
        """End the process if one of these signals asks for it a second time."""
        for number in numbers:
            if number in ENDING:
                now = time.monotonic()
                if self._asked_at is None:
                    self._asked_at = now
                elif now - self._asked_at > self._patience:
                    with contextlib.suppress(OSError):
                        print(f"ended at once by a second {signal.Signals(number).name}", file=sys.stderr)
                    os._exit(128 + number)


ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""The signals that ask a process to end."""
