"""The cores and the memory that this process uses. Free of torch, since scoring is."""

import ctypes
import functools
import os
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""Parameters of glibc's mallopt (malloc.h)."""


def available_cores():
    """How many cores this process may use: those that the system, a container or a batch system leaves it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def computing_threads():
    """How many threads, or processes of one thread, a script computes with where it is not told: OMP_NUM_THREADS, or
    one for each core.

    torchrun sets OMP_NUM_THREADS to 1 by itself. Under it, a 1 does not count, so that results, which depend a little
    on the number of threads, are those of a single process.
    """
    text = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    count = int(text) if text.isdecimal() else 0
    if count == 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        count = 0
    return count or available_cores()


@functools.cache
def has_bfloat16_tiles():
    """Whether this machine's cores multiply matrices in bfloat16 in hardware (AMX), so that it is faster than float32.

    Known of Linux only; elsewhere False.
    """
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False


@functools.cache
def keep_freed_memory(for_threads=False):
    """Let this process keep the memory that it frees, for its next tensors, instead of giving it back to the system.

    By default glibc gives large blocks back at once and fetches new ones, page by page and zeroed, for the next tensor.
    Tracking on a CPU frees tens of megabytes in every frame, and spends a quarter of its time on that. The setting is
    for tensors that come again in the same sizes: ever larger ones would leave holes that nothing fits into. It has no
    effect with other C libraries than glibc.

    for_threads: do so also for threads that are started later. glibc gives each of them memory of its own, from which
    it takes what is freed all the same; so let all share the main thread's.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    if for_threads:
        mallopt(M_ARENA_MAX, 1)
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)


def resident():
    """Bytes of RAM that this process occupies; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0
