import os
import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from util import machine

FETCHED = """
import resource, torch
from util.machine import keep_freed_memory
keep_freed_memory()
for _ in range(20):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_freed_block_is_used_again():
    """In a process of its own, whose memory it changes for good."""
    pages = subprocess.run([sys.executable, "-c", FETCHED], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    # 64 MiB are 16,384 pages.
    assert int(pages) < 16384


@pytest.mark.parametrize("given, launched, expected", [
    ("3", False, 3), ("4,2", False, 4), ("1", False, 1), ("", False, 5), ("many", False, 5), ("0", False, 5),
    ("1", True, 5), ("3", True, 3)])
def test_omp_num_threads_says_how_many_threads_compute(monkeypatch, given, launched, expected):
    """torchrun sets it to 1 by itself: that says nothing about what the user wants."""
    monkeypatch.setattr(machine, "available_cores", lambda: 5)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert machine.computing_threads() == expected


@pytest.mark.parametrize("script", ["evaluation/generic.py", "evaluation/2017/evaluation_ours.py"])
def test_scoring_takes_as_many_processes_as_omp_num_threads_says(script):
    done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True,
                          env={**os.environ, "OMP_NUM_THREADS": "7", "COLUMNS": "400"})
    assert "here 7)" in done.stdout
