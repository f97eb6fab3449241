"""Downloads published data: fetches, unpacks and resizes it. What an earlier run has finished is not done again.

    ROOT/.downloads/FILE             a fetched archive, removed once it is unpacked
    ROOT/.downloads/FILE.part        the bytes of it that have come so far
    ROOT/.downloads/NAME.unpacked    says that this part need not be fetched again
    ROOT/.downloads/NAME.resized     says that its frames need not be resized again
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
from util.files import atomic_path, flush, name_errors, write_text
from util.progress import progress_bar

TIMEOUT = 60
"""Seconds of silence after which a connection counts as lost."""

USER_AGENT = ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_10_1) AppleWebKit/537.36 (KHTML, like Gecko) "
              "Chrome/39.0.2171.95 Safari/537.36")
"""Google Drive refuses clients that do not look like a browser; gdown calls itself so."""

PAUSE = 1
"""Seconds before a lost connection is tried again."""

NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


@dataclass(frozen=True)
class Part:
    """One file to download, and what is done with it."""

    name: str
    """Its name for --only."""

    url: str

    file: str
    """Name of the fetched file."""

    folder: str
    """Where it goes, relative to the root."""

    holds: tuple = ()
    """The files and folders of an archive to unpack, whatever folders are around them; empty: it is no archive."""

    resized: str = ""
    """Where copies of its videos with a shorter side of 480 go, relative to the root; "": no copies are made."""

    size: int = 0
    """Bytes of the archive, and about as many of its content; 0: not known before the server says it."""


def drive_url(identity):
    """The address of a file of Google Drive."""
    return f"https://drive.google.com/uc?id={identity}"


def list_drive_folder(identity, folder):
    """The files of a public Google Drive folder as Parts, which go below `folder`."""
    import gdown

    page = f"https://drive.google.com/drive/folders/{identity}"
    try:
        files = gdown.download_folder(url=page, quiet=True, skip_download=True, use_cookies=False)
    except Exception as error:
        # gdown has no common class for the errors of a changed page or a lost connection.
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
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"fetch only these: {names} (default: all)")
    parser.add_argument("--yes", action="store_true", help="agree to the terms without being asked (default: ask)")


def agree(terms, yes):
    """Print the terms and, unless `yes`, ask the user to agree. Raises InputError if he does not."""
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

    A part that fails is reported at once and at the end (exit code 1), and the others are still fetched. Raises
    InputError if --only names a part that does not exist, or if the disk is known to be too small.
    """
    names = [part.name for part in parts]
    for name in args.only or ():
        if name not in names:
            raise InputError(f"--only {name}: there are {', '.join(names)}")
    root = Path(args.root)
    chosen = [part for part in parts if not args.only or part.name in args.only]
    waiting = [part for part in chosen if not _finished(part, root)]
    (root / ".downloads").mkdir(parents=True, exist_ok=True)
    # The content of all parts, and one archive, which is removed before the next one is fetched.
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
    """Do what is left to do for a part. Returns what was written where, in words."""
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
        # The disk must hold the archive, its content and the resized copies at the same time.
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
        # The user may have removed the originals once there were copies.
        return _marker(part, root, "resized").exists() and (root / part.resized).is_dir()
    return _unpacked(part, root)


def _unpacked(part, root):
    folder = root / part.folder
    return _marker(part, root, "unpacked").exists() and all((folder / name).exists() for name in part.holds)


def _marker(part, root, step):
    return root / ".downloads" / f"{part.name}.{step}"


def _mark(part, root, step, report):
    # What the mark tells of may be a million files, too many to flush one by one.
    if hasattr(os, "sync"):
        os.sync()
    write_text(_marker(part, root, step), f"{report}\n")


def _archive(part, root):
    return root / ".downloads" / part.file


def _partial(path):
    return path.with_name(f"{path.name}.part")


def fetch(url, path, copies=1):
    """Download `url` to `path`, unless the file is there. What has come so far is kept beside it for the next try.

    A lost connection is tried again as long as each try brings something. If Google Drive sends a page instead of the
    file, its link is followed, or its text is quoted in the error.
    copies: how many files of this size the disk must hold.
    Raises InputError, with what to do, if the server has no file or not all of it, or if the disk is too small.
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
    flush([partial])
    os.replace(partial, path)


class _NoFile(Exception):
    """The server sent a page instead of a file; the message is the page's reason."""


def _transfer(url, partial, label, copies):
    """Append what one connection brings to `partial`. Returns the size of the whole file, None if it is not known."""
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
            # The server sends the file from its beginning.
            offset = 0
        if total is not None:
            check_space(partial.parent, total * copies - offset)
        bar = progress_bar(total, f"fetching {label}", start=offset, size=True)
        try:
            with open(partial, "ab" if offset else "wb") as file:
                while block := response.read(CHUNK):
                    with name_errors(partial):
                        file.write(block)
                    bar.increment(len(block))
        finally:
            bar.finish(dirty=True)
    return total


def _open(url, offset):
    """The server's answer with the bytes of `url` from `offset` on, or from the start if it cannot do that.

    For files that it has not scanned, Google Drive first sends a page with a question; gdown finds the link in it.
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
    """The size of the whole file, which follows the slash of Content-Range; None if it is not known."""
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdecimal() else None
