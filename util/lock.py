"""One run at a time in a folder of results."""

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from util.errors import InputError


@contextlib.contextmanager
def locked(folder, alone=True, together=False):
    """Keep other runs out of `folder` during the block, or until this process ends, however it does.

    alone: nobody else may have the folder. together: other processes may join, with alone=False, together=True; with
    both, once it is seen that nobody has it. Raises InputError where another run has the folder, be it one whose
    launcher was killed while its other processes lived on. Without effect on Windows and on file systems without locks.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        for wanted, kind in ((alone, fcntl.LOCK_EX), (together, fcntl.LOCK_SH)):
            if wanted:
                _lock(descriptor, kind, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor, kind, folder):
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{folder}: another run is writing here; wait for its end, or choose another "
                         "--output") from None
    except OSError:
        # No locks on this file system.
        return
