import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT

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
