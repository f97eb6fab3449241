"""Time and memory of a run, in constant space."""

import math
import sys

import numpy as np
import torch

try:
    import resource
except ImportError:  # Windows
    resource = None


class Latencies:
    """Percentiles of any number of durations, exact to 1 %: a histogram with logarithmic bins."""

    SHORTEST = 1e-6
    """Seconds of the first bin."""

    RATIO = 1.01
    """Of a bin's duration to that of the bin before it."""

    def __init__(self):
        self._bins = np.zeros(2500, np.int64)
        self.count = 0
        self.total = 0.0

    def add(self, seconds):
        position = int(math.log(max(seconds, self.SHORTEST) / self.SHORTEST) / math.log(self.RATIO))
        self._bins[min(position, len(self._bins) - 1)] += 1
        self.count += 1
        self.total += seconds

    def state(self):
        """Everything that was added, as values that JSON can hold; `merge` takes them."""
        return {"count": self.count, "total": self.total,
                "bins": {int(position): int(self._bins[position]) for position in np.flatnonzero(self._bins)}}

    def can_merge(self, state):
        """Whether this is what `state` returns, and not a damaged file's content."""
        try:
            bins = {int(position): times for position, times in state["bins"].items()}
            return (type(state["count"]) is int and all(type(times) is int and times > 0 for times in bins.values())
                    and sum(bins.values()) == state["count"] < 2**53 and 0 <= state["total"] < math.inf
                    and set(bins) <= set(range(len(self._bins))))
        except (TypeError, ValueError, KeyError, AttributeError):
            return False

    def merge(self, state):
        """Add the `state` of other Latencies, which may have been read from JSON."""
        self.count += state["count"]
        self.total += state["total"]
        for position, times in state["bins"].items():
            self._bins[int(position)] += times

    def percentile(self, percent):
        """The seconds that `percent` of all durations are below; 0 if there are none."""
        if not self.count:
            return 0.0
        position = int(np.searchsorted(self._bins.cumsum(), self.count * percent / 100))
        return self.SHORTEST * self.RATIO ** (position + 0.5)

    def summary(self):
        """Frames per second, p50 and p95 in milliseconds."""
        return {
            "frames_per_second": round(self.count / self.total, 2) if self.total else None,
            "p50_ms": round(self.percentile(50) * 1000, 2),
            "p95_ms": round(self.percentile(95) * 1000, 2),
        }


def peak_memory_mb(device):
    """Peak memory in MB since the process started: {"ram": ..., "gpu": ...}, None if it is not known."""
    ram = None
    if resource is not None:
        # Kilobytes on Linux, bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        ram = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
    gpu = round(torch.cuda.max_memory_allocated(device) / 1e6, 1) if device.type == "cuda" else None
    return {"ram": ram, "gpu": gpu}
