"""What this process has of the machine: cores and memory. Without torch, since scoring needs none."""

import ctypes
import functools
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt (malloc.h)."""


def available_cores():
    """How many cores this process may use: those that the system, a container or a batch system leaves it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
