"""Unpacks archives from elsewhere, without trusting anything in them."""

import functools
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

from util.errors import InputError
from util.files import name_errors
from util.progress import progress_bar

CHUNK = 1 << 20

ARCHIVE_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError,
                  RuntimeError)
"""What zipfile and tarfile raise for damaged or unusual archives."""


def unpack(path, folder, holds):
    """Unpack the files and folders `holds` of a zip or tar archive into `folder`; returns the number of files.

    Folders of the archive around them are left out, and so is everything beside them. All names are read before
    anything is written. Raises InputError if the archive is damaged, does not hold them, or holds more than fits on the
    disk, and if it has absolute paths, "..", links or devices inside.
    """
    folder = Path(folder)
    try:
        tops, found, count, need = set(), {}, 0, 0
        for name, size, _ in _members(path):
            parts = inside(path, name)
            tops.add(parts[0])
            count, need = count + 1, need + size
            at = next((index for index, part in enumerate(parts) if part in holds), None)
            if at is not None:
                found.setdefault(parts[:at], set()).add(parts[at])
                # What an interrupted run has unpacked is overwritten.
                need -= min(size, size_of(folder.joinpath(*parts[at:])))
        complete = [around for around, names in found.items() if names.issuperset(holds)]
        if not complete:
            there = ", ".join(sorted(tops)[:8]) or "nothing"
            raise InputError(f"{path}: expected {', '.join(holds)}, but it holds {there}; if it is the right archive "
                             f"all the same, unpack it into {folder} by hand")
        folder.mkdir(parents=True, exist_ok=True)
        check_space(folder, need)
        return _write_members(path, folder, min(complete, key=len), count)
    except InputError:
        raise
    except ARCHIVE_ERRORS as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); delete it and run this again") from error


def _write_members(path, folder, around, count):
    written = 0
    bar = progress_bar(count, f"unpacking {path.name}")
    try:
        for name, _, open_member in _members(path):
            bar.increment()
            parts = inside(path, name)
            if parts[:len(around)] != around:
                continue
            target = folder.joinpath(*parts[len(around):])
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as source, name_errors(target), open(target, "wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
            written += 1
    finally:
        bar.finish(dirty=True)
    return written


def _members(path):
    """Yield (name, size, function that opens it) for every file of a zip or tar archive."""
    # In this order, because a zip as the last file of a tar makes the tar look like a zip.
    if tarfile.is_tarfile(path):
        yield from _tar_members(path)
    elif zipfile.is_zipfile(path):
        yield from _zip_members(path)
    else:
        raise InputError(f"{path}: neither a zip nor a tar archive, or cut short; delete it and run this again")


def _tar_members(path):
    with tarfile.open(path) as archive:
        while (member := archive.next()) is not None:
            # It would keep all members, and BL30K has millions.
            archive.members.clear()
            if member.isdir():
                continue
            if not member.isreg():
                raise _no_file(path, member.name, member.islnk() or member.issym())
            yield member.name, member.size, functools.partial(archive.extractfile, member)
        # A tar that was cut between two files, or is damaged there, would seem to end.
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("its end is missing")


def _zip_members(path):
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise _no_file(path, member.filename, kind == stat.S_IFLNK)
            yield member.filename, member.file_size, functools.partial(archive.open, member)


def _no_file(path, name, link):
    return InputError(f"{path}: {name!r} is {'a link' if link else 'a device or the like'}, which is never unpacked; "
                      "do not trust this file")


def inside(source, name):
    """The parts of a path relative to its folder. Raises InputError for a path that leads out of it."""
    # A Windows path takes both kinds of slashes, and has drives.
    path = PureWindowsPath(name)
    if not path.parts or path.anchor or ".." in path.parts or "\0" in name:
        raise InputError(f"{source}: {name!r} would be written outside of the folder; do not trust this file")
    return path.parts


def check_space(folder, need, about=""):
    """Raise InputError if the folder's disk has fewer than `need` bytes free."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise InputError(f"{folder}: {about}{amount(need)} are needed, {amount(free)} are free; make room, or "
                         "choose another --root")


def amount(count):
    """A number of bytes in words: "1.5 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def size_of(path):
    """Bytes of a file; 0 if there is no such file."""
    return path.stat().st_size if path.exists() else 0


def first_line(error):
    """The message of an error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
