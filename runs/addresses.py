"""Files and folders that are local or have an address such as s3://bucket/clip.mp4, which fsspec reads and writes."""

import hashlib
import json
import os
from pathlib import Path

from util.decoding import public_name
from util.errors import InputError
from util.files import is_hidden, read_json


def is_address(text):
    """Whether a path is an address for fsspec, not a local path."""
    return "://" in str(text)


def join(folder, name):
    """The path of `name` in a folder, which may have an address. A `name` that is absolute or an address stays."""
    if is_address(name):
        return name
    return f"{str(folder).rstrip('/')}/{name}" if is_address(folder) else str(Path(folder) / name)


def replace_all(text, replacements):
    """The text with each key of `replacements` in it replaced by its value."""
    for old in sorted(replacements, key=len, reverse=True):
        text = text.replace(old, replacements[old])
    return text


def open_address(address):
    """Return (the file system of fsspec, path in it). Raises InputError if a package for it is missing."""
    import fsspec
    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise InputError(f"{public_name(address)}: {str(error).splitlines()[0]}") from None


def describe(path):
    """Return what changes when a file, or a file in a folder, does, as JSON can hold it.

    path: local, or an address. Raises InputError if there is nothing.
    """
    if is_address(path):
        files, inside = open_address(path)
        try:
            if files.info(inside)["type"] == "file":
                return files.ukey(inside)
            # What a system says of a folder need not change with the files in it.
            return _digest((name, files.ukey(name)) for name in files.find(inside)
                           if not is_hidden(name.rpartition("/")[2]))
        except Exception as error:
            # Each file system has errors of its own.
            raise InputError(f"{public_name(path)}: cannot be found ({_first_line(error)})") from None
    try:
        status = os.stat(path)
        if not os.path.isdir(path):
            return [status.st_size, status.st_mtime_ns]
        return _digest((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in os.scandir(path)
                       if not is_hidden(entry.name))
    except (OSError, ValueError) as error:
        # What holds a null character is not even looked for.
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def describe_all(paths):
    """Return what changes when one of these files does, or their names or number; paths as for `describe`."""
    return _digest((path.rpartition("/")[2] if is_address(path) else Path(path).name, describe(path)) for path in paths)


def _digest(found):
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()


def fetch(address, folder):
    """Copy a file, or a folder with all in it, from its address into a local folder. Returns its path there."""
    files, inside = open_address(address)
    local = Path(folder) / inside.rstrip("/").rpartition("/")[2]
    try:
        files.get(inside, str(local), recursive=files.isdir(inside))
    except Exception as error:
        raise InputError(f"{public_name(address)}: cannot be read ({_first_line(error)})") from None
    return str(local)


def read_bytes(path):
    """What a file holds; None if there is none, or it cannot be read. path: local, or an address."""
    if not is_address(path):
        try:
            return Path(path).read_bytes()
        except OSError:
            return None
    files, inside = open_address(path)
    try:
        return files.cat_file(inside)
    except Exception:  # Each kind of storage has errors of its own for what is not there.
        return None


SENT = "sent"
"""The field of the file which `send` writes last that lists the names of all files that were sent with it."""


def send(folder, address, last):
    """Copy all files of a local folder to an address, in place of what an earlier call has sent there.

    last: the name of the file in it, a JSON object, that says that all others are there. There it gets a further field,
    SENT, and is written last; until then it has no other field. Files that no call has sent stay, unless they have the
    name of one that is sent now. What was sent before there was such a list is not known, so it stays, too. Raises
    InputError if something cannot be written.
    """
    files, inside = open_address(address)
    folder = Path(folder)
    record = read_json(folder / last)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                   if path.is_file() and path != folder / last)
    marker = f"{inside}/{last}"
    try:
        for parent in sorted({inside, *(f"{inside}/{name}".rpartition("/")[0] for name in names)}):
            files.makedirs(parent, exist_ok=True)
        earlier = _read_sent(files, marker)
        # With all names, so that the call after one that was broken off knows them.
        files.pipe_file(marker, _to_json({SENT: sorted(earlier.union(names))}))
        outdated = {f"{inside}/{name}" for name in earlier.difference(names)}
        for path in outdated.intersection(files.find(inside) if outdated else ()):
            files.rm_file(path)
        if names:
            files.put([str(folder / name) for name in names], [f"{inside}/{name}" for name in names])
        files.pipe_file(marker, _to_json({**record, SENT: names}))
    except Exception as error:
        raise InputError(f"{public_name(address)}: cannot be written ({_first_line(error)})") from None


def _read_sent(files, marker):
    """The names, from the folder of `marker` on, of the files that earlier calls of `send` have sent, a set."""
    try:
        return set(map(str, json.loads(files.cat_file(marker))[SENT])) if files.exists(marker) else set()
    except (ValueError, LookupError, TypeError):
        # Of an earlier version, or not ours.
        return set()


def _to_json(content):
    return (json.dumps(content, indent=1) + "\n").encode()


def _first_line(error):
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
