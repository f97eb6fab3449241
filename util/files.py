"""Files of results: written whole or not at all, into a folder that one run at a time may write into."""

import contextlib
import hashlib
import json
import os
import re
import secrets
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from util.errors import InputError

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.part")
"""The names that `atomic_path` gives."""

_locks = set()
"""The descriptors of the folders that this process holds, see `lock_folder`."""


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path` that takes its place when the block ends without an error.

    No other process or thread gets the same temporary path. One that a killed process left is removed by the next run
    that has its folder to itself, see `lock_folder`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def file_sha256(path):
    """The SHA-256 of a file's bytes in hexadecimal, which tells one file of weights from another."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


SYSTEM_NAMES = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini")
"""Files and folders that systems leave in folders and archives without being asked."""


def is_hidden(name):
    """Whether a file or folder of this name is none of the user's: a hidden one, or one of SYSTEM_NAMES."""
    return name.startswith(".") or name in SYSTEM_NAMES


def read_text(path):
    """The text of a file that somebody wrote with any editor: UTF-8, UTF-16, or else the Western code page of Windows.

    Byte order marks are left out. Raises InputError if the file cannot be read.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    encodings = ["utf-8-sig", "cp1252", "latin-1"]
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16", *encodings]
    elif data and len(data) % 2 == 0:
        # Without a mark: in a text of names, nearly every second byte of UTF-16 is 0.
        for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            if data[start::2].count(0) * 4 > len(data):
                encodings = [encoding, *encodings]
    for encoding in encodings:
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode(encoding).removeprefix("\ufeff")
    raise AssertionError("latin-1 decodes everything")


def write_json(path, content):
    """Write `content` (whatever `json.dumps` takes) as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


class JsonWriter:
    """Writes one JSON object to a text file piece by piece, so that a long list in it need not be held in memory.

        writer = JsonWriter(file)
        writer.add("width", 854)
        writer.begin_list("frames")
        writer.append({"name": "00000"})        # as often as there are items
        writer.end_list()
        writer.close()

    A field or an item is a line of the file.
    """

    def __init__(self, file):
        self._file = file
        self._file.write("{")
        self._start = "\n "

    def add(self, name, value):
        """Write a field of the object; value: whatever `json.dumps` takes."""
        self._next(f"{json.dumps(name)}: {json.dumps(value)}")

    def begin_list(self, name):
        """Begin a field that is a list; `append` adds its items."""
        self._next(f"{json.dumps(name)}: [")
        self._start = "\n  "

    def append(self, value):
        """Write an item of the list that was begun."""
        self._file.write(f"{self._start}{json.dumps(value)}")
        self._start = ",\n  "

    def end_list(self):
        """End the list that was begun."""
        self._file.write("\n ]")
        self._start = ",\n "

    def close(self):
        """End the object; the file stays open."""
        self._file.write("\n}\n")

    def _next(self, text):
        self._file.write(self._start + text)
        self._start = ",\n "


@contextlib.contextmanager
def lock_folder(folder, alone=True, together=False, cure="choose another --output"):
    """Keep other runs out of `folder` during the block. The lock ends with the process, even if it is killed.

    alone: fail if any process holds the folder. together: let processes of the same run hold it, too. The first process
    of a run of several gives both, and lets the others in once it has seen that nobody else is there; they give
    alone=False, together=True. cure: what else the user can do than wait, for the message.

    A run that is alone removes temporary files of `atomic_path` that an earlier run left in the folder when it was
    killed.

    Raises InputError if another run holds the folder, which may be a run whose launcher was killed while its other
    processes live on. Without effect on Windows and on file systems without locks.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    _locks.add(descriptor)
    try:
        held = [_lock(descriptor, kind, folder, cure)
                for wanted, kind in ((alone, fcntl.LOCK_EX), (together, fcntl.LOCK_SH)) if wanted]
        if alone and all(held):
            for path in folder.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    path.unlink()
        yield
    finally:
        if descriptor in _locks:
            _locks.remove(descriptor)
            os.close(descriptor)


def _lock(descriptor, kind, folder, cure):
    """Return whether the folder is locked. It is not where the file system has no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{folder}: another run is writing here; wait for its end, or {cure}") from None
    except OSError:
        return False
    return True


def _leave_locks():
    """In a forked process: let go of the locks. Otherwise it would hold them on when its parent is killed."""
    while _locks:
        os.close(_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks)
