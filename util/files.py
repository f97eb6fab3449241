"""Files of results: written whole or not at all, into a folder that one run at a time may write into."""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from util.errors import InputError
from util.pipeline import read_ahead

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.part")
"""The names that `temporary_path` gives."""

SHOWN_OF_NAME = 50
"""So many characters of a file's name are in that of its temporary file."""

FLUSHING_THREADS = 8
"""Threads that wait for the disk at once."""

_CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)
"""Errors of file systems that cannot flush a file or a folder, and of folders that may not be read."""

_locks = set()
"""The descriptors of the folders that this process holds, see `lock_folder`."""


@contextlib.contextmanager
def atomic_path(path, flushed=True):
    """Yield a temporary path beside `path` that takes its place when the block ends without an error.

    flushed: wait until the file is on the disk, so that it outlives a power cut. For one of many small files, give
    False, and `flush` them together before anything says that they are there.

    No other process or thread gets the same temporary path. One that a killed process left is removed by the next run
    that has its folder to itself, see `lock_folder`. Errors of the operating system name `path`.
    """
    path = Path(path)
    with name_errors(path):
        temporary = temporary_path(path)
        try:
            yield temporary
            if flushed:
                _flush(temporary)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if flushed:
            _flush_folders({path.parent, path.parent.parent})


def temporary_path(path):
    """A new name beside `path`, hidden, that is no longer than file systems allow."""
    path = Path(path)
    # A character has up to four bytes, and a name 255.
    return path.with_name(f".{path.name[:SHOWN_OF_NAME]}.{secrets.token_hex(4)}.part")


@contextlib.contextmanager
def name_errors(path):
    """Make errors of the operating system in the block name the file that is being written, `path`."""
    try:
        yield
    except OSError as error:
        # An error while writing names no file, one while renaming the temporary file.
        if error.filename is not None and not _LEFTOVER.fullmatch(Path(os.fsdecode(error.filename)).name):
            raise
        if error.errno is None:
            raise InputError(f"{path}: cannot be written ({error})") from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    except RuntimeError as error:
        # What torch.save raises where it cannot go on writing. Only given a path it does not know why.
        if "inline_container" not in str(error):
            raise
        cause = error.__context__
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise InputError(f"{path}: cannot be written; the disk may be full") from error


def flush(paths):
    """Wait until files, and their names in their folders, are on the disk, so that they outlive a power cut.

    paths: any iterable; of an iterator, only a few are held at a time.

    Whatever says that files are there (a record, a summary) is written after this. Raises OSError, which names the
    file, if the disk does not take it.
    """
    folders = set()

    def go_through():
        for path in map(Path, paths):
            folders.update((path.parent, path.parent.parent))
            yield path

    # A disk takes many files that wait for it at once nearly as fast as one.
    for _ in read_ahead(_flush, go_through(), FLUSHING_THREADS):
        pass
    _flush_folders(folders)


def _flush(path):
    try:
        # Windows flushes only what is open for writing.
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise OSError(error.errno, error.strerror, str(path)) from error


def _flush_folders(folders):
    """Flush the names of what is in folders."""
    if os.name != "nt":
        for folder in folders:
            _flush(folder)


def file_sha256(path):
    """The SHA-256 of a file's bytes in hexadecimal, which tells one file of weights from another."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


SYSTEM_NAMES = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini", ".DS_Store", ".directory", ".AppleDouble",
                ".localized")
"""Files and folders that systems leave in folders and archives without being asked. Other names of such files begin
with "._", ".nfs" or ".fuse_hidden"."""


def is_hidden(name):
    """Whether a file or folder of this name is passed over where data is looked for: it is hidden, or of the system.

    It may be the user's all the same: what may be removed, `is_of_the_system` says.
    """
    return name.startswith(".") or name in SYSTEM_NAMES


def is_of_the_system(path):
    """Whether a system has left this file or folder without being asked, so that nobody misses it.

    path: from a folder that nobody else but the system writes into.
    """
    path = Path(path)
    return path.name.startswith(("._", ".nfs", ".fuse_hidden")) or not set(path.parts).isdisjoint(SYSTEM_NAMES)


def refuse_special_file(path):
    """Raise InputError if a pipe, a socket or a device is at `path`: whoever reads it may wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        # Whoever opens it says why he cannot.
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{path}: a pipe, a socket or a device, a file was expected")


def read_text(path):
    """The text of a file that somebody wrote with any editor: UTF-8, UTF-16, or else the Western code page of Windows.

    Byte order marks are left out. Raises InputError if the file cannot be read.
    """
    refuse_special_file(path)
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


def read_json(path):
    """What a JSON file holds. Raises InputError if it cannot be read, or is none."""
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file, or damaged ({error})") from None
    except RecursionError:
        raise InputError(f"{path}: not a JSON file of ours, lists in lists without end") from None


def write_text(path, text):
    """Write a text file, UTF-8 with line feeds on every system, atomically. What UTF-8 cannot hold is escaped."""
    with atomic_path(path) as temporary:
        # A name of a file need not be text. It is part of results that took hours.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path, content):
    """Write `content` (whatever `json.dumps` takes) as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=1) + "\n")


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
            remove_leftovers(folder)
        yield
    finally:
        if descriptor in _locks:
            _locks.remove(descriptor)
            os.close(descriptor)


def remove_leftovers(folder, name="", age=0):
    """Remove the temporary files that killed runs left in a folder. Links are removed, not followed.

    name: only those of the file of this name. age: only those that nobody has written to for so many seconds; without
    a lock of the folder, others may be in use.
    """
    begin = f".{name[:SHOWN_OF_NAME]}." if name else "."
    for path in Path(folder).iterdir():
        if _LEFTOVER.fullmatch(path.name) and path.name.startswith(begin) and (path.is_symlink() or path.is_file()):
            with contextlib.suppress(FileNotFoundError):  # another run may remove it, too
                if not age or path.lstat().st_mtime < time.time() - age:
                    path.unlink()


def remove_files(folder, names):
    """Remove the files of these names from a folder, and the folder if nothing else is in it.

    names: a set or dict. What killed runs left there is removed, too, and nothing else. Links are not followed.
    """
    folder = Path(folder)
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name in names and (path.is_symlink() or not path.is_dir()):
            path.unlink()
    remove_leftovers(folder)
    if not any(folder.iterdir()):
        folder.rmdir()


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
