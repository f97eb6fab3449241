"""StepWatch, with short times."""

import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from util.step_watch import StepWatch


def test_a_step_that_takes_unusually_long_is_told_of(capsys):
    with StepWatch(unusual=(2, 0.3)) as watch:
        for number in range(12):
            with watch.step(number):
                time.sleep(2.5 if number == 10 else 0.001)
    told = capsys.readouterr().err
    assert told.count("has taken") == 1 and "step 10 has taken" in told


def test_slow_first_steps_are_not_unusual(capsys):
    with StepWatch(unusual=(2, 0.1)) as watch, watch.step(0):
        time.sleep(1.5)
    assert not capsys.readouterr().err


HANGING = """
import signal, sys, threading
sys.path.insert(0, {root!r})
from util.step_watch import StepWatch
signal.signal(signal.{name}, lambda *_: print("asked", flush=True))
with StepWatch(patience=0.5):
    print("ready", flush=True)
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_second_signal_ends_what_hangs(name):
    with subprocess.Popen([sys.executable, "-c", HANGING.format(root=str(ROOT), name=name)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        number = getattr(signal, name)
        # The second one of a launcher, right after the first, does not count.
        process.send_signal(number)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(number)
        assert process.stdout.readline() == "asked\n"
        assert process.poll() is None
        time.sleep(0.7)
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert f"ended at once by a second {name}" in process.stderr.read()
