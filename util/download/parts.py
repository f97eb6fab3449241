"""Bringing published data here: fetching, unpacking, resizing; what an earlier run finished is not done again.

    ROOT/.downloads/FILE             a fetched archive, removed once it is unpacked
    ROOT/.downloads/FILE.part        as much of it as there is
    ROOT/.downloads/NAME.unpacked    this part need not be fetched again
    ROOT/.downloads/NAME.resized     nor its frames resized
"""

import http.client
import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from util.download.archives import CHUNK, amount, check_space, first_line, inside, size_of, unpack
from util.download.resize import resize_videos
from util.errors import InputError
from util.files import atomic_path
from util.progress import progress_bar

# A server that says nothing for this many seconds is taken for dead.
TIMEOUT = 60

# Google Drive refuses what does not look like a browser; this is what gdown says it is.
USER_AGENT = ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_10_1) AppleWebKit/537.36 (KHTML, like Gecko) "
              "Chrome/39.0.2171.95 Safari/537.36")

# Seconds before a lost connection is taken up again.
PAUSE = 1

NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


@dataclass(frozen=True)
class Part:
    """One file to download, and what becomes of it."""

    name: str
    """What --only takes."""

    url: str

    file: str
    """Name of the fetched file."""

    folder: str
    """Where it goes, relative to the root."""

    holds: tuple = ()
    """What an archive brings into the folder, whatever folders it has around it; nothing: a file of its own."""

    resized: str = ""
    """Where copies of its videos with a shorter side of 480 go, relative to the root; "": nowhere."""

    size: int = 0
    """About as many bytes has an archive, and its content again; 0: as the server says."""


def drive_url(identity):
    """Where Google Drive gives the file of this id."""
    return f"https://drive.google.com/uc?id={identity}"


def list_drive_folder(identity, folder):
    """The files of a public Google Drive folder as Parts, each its own file below `folder`."""
    import gdown

    page = f"https://drive.google.com/drive/folders/{identity}"
    try:
        files = gdown.download_folder(url=page, quiet=True, skip_download=True, use_cookies=False)
    except Exception as error:
        # gdown has no base class of its own for what a changed page or a lost connection raises.
        raise InputError(f"{page}: Google Drive does not list this folder ({first_line(error)}); try again later, or "
                         f"save its files into {folder} with a browser") from error
    if not files:
        raise InputError(f"{page}: Google Drive lists no file in this folder; look at it with a browser")
    return [Part(name, drive_url(file.id), name, folder)
            for file in files for name in ["/".join(inside(page, file.path))]]


def add_download_options(parser, names):
    """The options of every script that downloads. names: what --only takes, for the help."""
    parser.add_argument("--root", default=".", metavar="FOLDER",
                        help="where the folders go (default: the current folder)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"fetch some of it: {names} (default: all)")
    parser.add_argument("--yes", action="store_true", help="agree to the terms without being asked (default: ask)")


def agree(terms, yes):
    """Print the terms and ask for a yes, unless it is given. Raises InputError without one."""
    print(terms.strip(), flush=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError("nobody here can be asked; --yes says that you have read these terms and agree")
    try:
        answer = input("Type yes if you agree: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise InputError("you did not agree to these terms; nothing was downloaded")


def download_parts(parts, args):
    """Complete all parts, or those of --only, below --root; returns the exit code of the script.

    A part that fails is reported, also at the end (exit code 1); the others are not lost. Raises InputError if
    --only names what is not there, or if it is known before that the disk is too small.
    """
    names = [part.name for part in parts]
    for name in args.only or ():
        if name not in names:
            raise InputError(f"--only {name}: there are {', '.join(names)}")
    root = Path(args.root)
    chosen = [part for part in parts if not args.only or part.name in args.only]
    waiting = [part for part in chosen if not _finished(part, root)]
    (root / ".downloads").mkdir(parents=True, exist_ok=True)
    # All of their content, and one archive, which is removed before the next one comes.
    sizes = [part.size for part in waiting if not _archive(part, root).exists()]
    here = sum(size_of(_partial(_archive(part, root))) for part in waiting)
    check_space(root, sum(sizes) + max(sizes, default=0) - here, "about ")

    failed = {}
    for part in chosen:
        if part not in waiting:
            print(f"{part.name}: already in {root / (part.resized or part.folder)}")
            continue
        try:
            print(f"{part.name}: {_complete(part, root)}", flush=True)
        except (InputError, OSError) as error:
            failed[part.name] = first_line(error)
            print(f"{part.name}: {failed[part.name]}", file=sys.stderr)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("run the same command again to go on") from None
    folders = dict.fromkeys(part.folder.split("/")[0] for part in chosen if part.name not in failed)
    print(f"{len(chosen) - len(failed)} of {len(chosen)} parts are complete"
          + (f": {', '.join(str(root / folder) for folder in folders)}" if folders else ""))
    if failed:
        print(f"failed: {', '.join(failed)}; run the same command again to go on", file=sys.stderr)
    return 1 if failed else 0


def _complete(part, root):
    """Do what is left to do for a part; what was written where, in words."""
    folder, archive = root / part.folder, _archive(part, root)
    if not part.holds:
        fetch(part.url, archive)
        target = folder / part.file
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            shutil.move(archive, temporary)
        return f"{amount(size_of(target))} in {target}"
    report = f"already in {folder}"
    if not _unpacked(part, root):
        # The archive lies there together with its content and the resized copies.
        fetch(part.url, archive, copies=3 if part.resized else 2)
        report = f"{unpack(archive, folder, part.holds)} files in {folder}"
        _mark(part, root, "unpacked", report)
        archive.unlink()
    if part.resized:
        resized = f"{resize_videos(folder, root / part.resized)} frames and masks in {root / part.resized}"
        _mark(part, root, "resized", resized)
        report += f", {resized}"
    return report


def _finished(part, root):
    if not part.holds:
        return (root / part.folder / part.file).is_file()
    if part.resized:
        # Who has the copies may have removed what they were made of.
        return _marker(part, root, "resized").exists() and (root / part.resized).is_dir()
    return _unpacked(part, root)


def _unpacked(part, root):
    folder = root / part.folder
    return _marker(part, root, "unpacked").exists() and all((folder / name).exists() for name in part.holds)


def _marker(part, root, step):
    return root / ".downloads" / f"{part.name}.{step}"


def _mark(part, root, step, report):
    with atomic_path(_marker(part, root, step)) as temporary:
        temporary.write_text(f"{report}\n")


def _archive(part, root):
    return root / ".downloads" / part.file


def _partial(path):
    return path.with_name(f"{path.name}.part")


def fetch(url, path, copies=1):
    """Download `url` to `path`, unless it is there. What has come so far is kept beside it, and built upon.

    A lost connection is taken up again as long as it brings anything. copies: how many files of this size the
    disk must take. Raises InputError that says what to do if the server has no file, or not all of it, or if the
    disk is too small; a page of Google Drive in its place is followed or quoted.
    """
    path = Path(path)
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    by_hand = f"or open {url} in a browser, save the file as {path}, and run this again"
    while True:
        before = size_of(partial)
        try:
            total, problem = _transfer(url, partial, path.name, copies), "the connection was lost"
        except _NoFile as error:
            raise InputError(f"Google Drive gives a page, not the file: {error}; if its quota is used up, "
                             f"try again tomorrow, {by_hand}") from None
        except urllib.error.HTTPError as error:
            raise InputError(f"{url}: the server answers {error.code} {error.reason}; try again later, "
                             f"{by_hand}") from None
        except NETWORK_ERRORS as error:
            total, problem = -1, first_line(getattr(error, "reason", error))
        have = size_of(partial)
        if total in (None, have):
            break
        if have <= before:
            of = f" of {total}" if total >= 0 else ""
            raise InputError(f"{url}: {have}{of} bytes came, then {problem}; run this again to go on, {by_hand}")
        time.sleep(PAUSE)
    os.replace(partial, path)


class _NoFile(Exception):
    """A page where a file was expected; says why, in the words of the page."""


def _transfer(url, partial, label, copies):
    """Append what one connection gives to `partial`; the size of the whole file, None if the server does not say."""
    offset = size_of(partial)
    try:
        response = _open(url, offset)
    except urllib.error.HTTPError as error:
        # "Range not satisfiable": there is nothing after these bytes.
        if error.code != 416 or not offset:
            raise
        if _total(error.headers) == offset:
            return offset
        partial.unlink()
        return _transfer(url, partial, label, copies)
    with response:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        if response.status == 206:
            total = _total(response.headers)
            if not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                raise http.client.HTTPException("other bytes than those asked for")
        else:
            # The server does not go on where we were.
            offset = 0
        if total is not None:
            check_space(partial.parent, total * copies - offset)
        bar = progress_bar(total, f"fetching {label}", start=offset, size=True)
        try:
            with open(partial, "ab" if offset else "wb") as file:
                while block := response.read(CHUNK):
                    file.write(block)
                    bar.increment(len(block))
        finally:
            bar.finish(dirty=True)
    return total


def _open(url, offset):
    """The server's answer with the bytes of `url` from `offset` on, if it can do that, else from the start.

    Google Drive first asks whether to download what it has not scanned; gdown finds the link in its page.
    """
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    for _ in range(3):
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
        if response.headers.get_content_type() != "text/html" or "Content-Disposition" in response.headers:
            return response
        with response:
            url = urllib.parse.urljoin(response.url, _link_in_page(response.read(CHUNK).decode(errors="replace")))
        if not url.startswith(("https://", "http://")):
            raise _NoFile(f"a link to {url}")
    raise _NoFile("one page after another")


def _link_in_page(page):
    from gdown.download import get_url_from_gdrive_confirmation
    from gdown.exceptions import FileURLRetrievalError

    try:
        return get_url_from_gdrive_confirmation(page)
    except FileURLRetrievalError as error:
        raise _NoFile(first_line(error).rstrip(".")) from None
    except (LookupError, AssertionError):
        raise _NoFile("an unknown one") from None


def _total(headers):
    """The size of the whole file after the slash of Content-Range; None if unknown."""
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdecimal() else None
