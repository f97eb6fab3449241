"""What the system gives to this process."""

import ctypes
import functools
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt (malloc.h)."""


@functools.cache
def keep_freed_memory():
    """Have this process keep what it frees, to use it again, instead of giving it back to the system.

    glibc gives large blocks back at once and fetches them anew, page by page and zeroed, for the next tensor; with
    tensors of tens of megabytes in every frame that is a quarter of the time of tracking on a CPU. Without effect on
    other C libraries. For tensors that come again in the same sizes; ever larger ones would leave unused holes.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def resident():
    """Bytes of RAM that this process occupies; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0
