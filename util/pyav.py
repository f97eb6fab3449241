"""PyAV, which reads and writes video files. Everything else works without it."""

from util.errors import InputError

try:
    import av
except ImportError:
    av = None


def need_pyav():
    """Raise InputError if PyAV is not installed."""
    if av is None:
        raise InputError("video files are read and written with PyAV, which is not installed here: pip install av")
