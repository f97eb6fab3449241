"""Fetching from a server on this machine, and unpacking archives made for the purpose, hostile ones among them."""

import gzip
import inspect
import io
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import time
import urllib.error
import zipfile
from collections import namedtuple

import gdown
import pytest

from tests.conftest import ROOT
from tests.server import serving
from util.download import parts as download
from util.download.archives import unpack
from util.download.parts import Part, fetch, list_drive_folder
from util.errors import InputError

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as running:
        yield running


def set_free_space(monkeypatch, count):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(count, 0, count))


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_a_file_is_fetched_once(server, tmp_path):
    url = server.url("a.zip", CONTENT)
    fetch(url, tmp_path / "new" / "a.zip")
    fetch(url, tmp_path / "new" / "a.zip")
    assert (tmp_path / "new" / "a.zip").read_bytes() == CONTENT
    assert names(tmp_path) == ["new/a.zip"] and server.requests == [("a.zip", 0)]


def test_a_lost_connection_is_taken_up_where_it_was_lost(server, tmp_path):
    server.cuts["a"] = [30_000, 50_000]
    fetch(server.url("a", CONTENT), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.requests == [("a", 0), ("a", 30_000), ("a", 80_000)]


def test_a_later_run_goes_on_where_an_earlier_one_failed(server, tmp_path):
    server.cuts["a"] = [30_000, 0]
    with pytest.raises(InputError, match=r"30000 of 102400 bytes came, then the connection was lost; run this again"):
        fetch(server.url("a", CONTENT), tmp_path / "a")
    assert names(tmp_path) == ["a.part"]
    fetch(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT and names(tmp_path) == ["a"]
    assert server.requests[-1] == ("a", 30_000)


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "a.part").write_bytes(b"x" * 500)
    fetch(server.url("a", CONTENT), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_complete_part_file_needs_nothing_more(server, tmp_path):
    (tmp_path / "a.part").write_bytes(CONTENT)
    fetch(server.url("a", CONTENT), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT and server.requests == [("a", len(CONTENT))]


def test_a_part_file_longer_than_the_file_is_not_of_it(server, tmp_path):
    (tmp_path / "a.part").write_bytes(b"x" * (len(CONTENT) + 1))
    fetch(server.url("a", CONTENT), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_fewer_bytes_than_announced_are_no_file(server, tmp_path):
    server.announced["a"] = len(CONTENT) + 10
    with pytest.raises(InputError, match="102400 of 102410 bytes came"):
        fetch(server.url("a", CONTENT), tmp_path / "a")
    assert names(tmp_path) == ["a.part"]


def test_empty_file(server, tmp_path):
    fetch(server.url("a", b""), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b""


@pytest.mark.parametrize("here", [0, 1000])
def test_a_server_that_does_not_tell_the_size(server, tmp_path, here):
    server.announced["a"] = None
    (tmp_path / "a.part").write_bytes(CONTENT[:here])
    fetch(server.url("a", CONTENT), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT and server.requests == [("a", here)]


def test_bytes_that_were_not_asked_for_are_not_taken(server, tmp_path):
    server.shift = 1
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    with pytest.raises(InputError, match="1000 bytes came, then other bytes than those asked for"):
        fetch(server.url("a", CONTENT), tmp_path / "a")
    assert (tmp_path / "a.part").read_bytes() == CONTENT[:1000]


def test_a_killed_download_is_resumed(server, tmp_path):
    content = os.urandom(4_000_000)
    server.stalls["a"] = 3_000_000
    url = server.url("a", content)
    code = "import sys; from util.download.parts import fetch; fetch(*sys.argv[1:])"
    child = subprocess.Popen([sys.executable, "-c", code, url, str(tmp_path / "a")], cwd=ROOT,
                             stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "a.part").exists() or (tmp_path / "a.part").stat().st_size < 2_000_000:
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
    del server.stalls["a"]
    fetch(url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content
    assert server.requests[0] == ("a", 0) and server.requests[1][1] >= 2_000_000


def test_missing_file_says_what_to_do(server, tmp_path):
    with pytest.raises(InputError, match=f"404.*browser, save the file as {tmp_path / 'a'}, and run this again"):
        fetch(server.url("a"), tmp_path / "a")


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as gone:
        url = gone.url("a")
    with pytest.raises(InputError, match=r"0 bytes came, then .*refused"):
        fetch(url, tmp_path / "a")


def test_the_disk_must_take_archive_and_content(server, tmp_path, monkeypatch):
    url = server.url("a", CONTENT)
    set_free_space(monkeypatch, 2 * len(CONTENT) - 1)
    with pytest.raises(InputError, match=r"0.2 MB are needed, 0.2 MB are free"):
        fetch(url, tmp_path / "a", copies=2)
    assert names(tmp_path) == []
    (tmp_path / "a.part").write_bytes(CONTENT[:1])
    fetch(url, tmp_path / "a", copies=2)
    assert (tmp_path / "a").exists()


WARNING = """<html><body><form id="download-form" action="{url}" method="get">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="1"></form></body></html>"""

QUOTA = """<html><body>
<p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></body></html>"""


def test_google_drive_s_question_about_unscanned_files_is_answered(server, tmp_path):
    server.cuts["file"] = [10_000]
    url = server.url("uc", WARNING.format(url=server.url("file", CONTENT)))
    fetch(url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.requests[-2:] == [("uc", 10_000), ("file", 10_000)]


@pytest.mark.parametrize("page, reason", [
    (QUOTA, "Too many users have viewed or downloaded this file recently"),
    ("<html>sign in, please</html>", "Cannot retrieve the public link"),
    (WARNING.format(url="file:///etc/passwd"), "a link to file:///etc/passwd"),
    (WARNING.format(url="uc"), "one page after another"),
    ('<form id="download-form"></form>', "an unknown one"),
])
def test_a_page_instead_of_a_file_is_quoted(server, tmp_path, page, reason):
    with pytest.raises(InputError, match=f"{reason}.*quota.*browser, save the file as"):
        fetch(server.url("uc", page), tmp_path / "a")
    assert names(tmp_path) == []


def test_drive_folder_becomes_parts(monkeypatch):
    listed, listing = [], inspect.signature(gdown.download_folder)
    File = namedtuple("File", "id path local_path")

    def answer(*args, **options):
        listing.bind(*args, **options)
        assert options["skip_download"]
        return listed

    monkeypatch.setattr(gdown, "download_folder", answer)
    with pytest.raises(InputError, match="lists no file"):
        list_drive_folder("F", "pretrain")
    listed += [File("1", "a.pth", "x"), File("2", os.path.join("s0", "b.pth"), "x")]
    assert list_drive_folder("F", "pretrain") == [
        Part("a.pth", "https://drive.google.com/uc?id=1", "a.pth", "pretrain"),
        Part("s0/b.pth", "https://drive.google.com/uc?id=2", "s0/b.pth", "pretrain")]
    listed.append(File("3", "../c.pth", "x"))
    with pytest.raises(InputError, match="outside"):
        list_drive_folder("F", "pretrain")


def test_drive_folder_that_cannot_be_listed(monkeypatch):
    def fail(**_):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(gdown, "download_folder", fail)
    with pytest.raises(InputError, match=r"drive/folders/F: .*no network.*save its files into pretrain"):
        list_drive_folder("F", "pretrain")


def make_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path, members, mode="w"):
    """members: {name: bytes, or attributes of the TarInfo}"""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(member, key, value)
                archive.addfile(member)
    return path


GOOD = {"images/a/0.jpg": b"one" * 1000, "images/b/0.jpg": b"two", "masks/a/0.png": b"three"}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("around", ["", "./", "DAVIS/", "some/where/"])
def test_what_is_expected_lies_in_the_folder(tmp_path, kind, around):
    files = {around + name: content for name, content in GOOD.items()}
    files["beside/images.txt"] = b"x"
    path = tmp_path / "archive"
    make_zip(path, files) if kind == "zip" else make_tar(path, files, "w:gz" if kind == "tar.gz" else "w")
    beside = around.strip("./") == ""
    assert unpack(path, tmp_path / "to", ("images", "masks")) == 3 + beside
    assert {name: (tmp_path / "to" / name).read_bytes() for name in GOOD} == GOOD
    assert names(tmp_path / "to") == sorted([*GOOD, *["beside/images.txt"] * beside])


def test_of_two_folders_with_what_is_expected_the_outer_one_counts(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"x/backup/images/0": b"inner", "x/images/0": b"outer"})
    assert unpack(path, tmp_path / "to", ("images",)) == 2
    assert (tmp_path / "to" / "images" / "0").read_bytes() == b"outer"


def test_unpacking_again_replaces_what_was_cut(tmp_path):
    path = make_zip(tmp_path / "a.zip", GOOD)
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "0.jpg").write_bytes(b"on")
    (tmp_path / "images" / "mine.txt").write_bytes(b"kept")
    unpack(path, tmp_path, ("images",))
    assert (tmp_path / "images" / "a" / "0.jpg").read_bytes() == GOOD["images/a/0.jpg"]
    assert (tmp_path / "images" / "mine.txt").read_bytes() == b"kept"


def test_an_archive_of_something_else(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"top/images/0.jpg": b"", "readme": b""})
    with pytest.raises(InputError, match="expected images, masks, but it holds readme, top"):
        unpack(path, tmp_path / "to", ("images", "masks"))
    with pytest.raises(InputError, match="holds nothing"):
        unpack(make_zip(path, {}), tmp_path / "to", ("images",))


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../evil", "images/../../evil", "/evil", "images/../../../tmp/evil", "..\\evil",
                                  "C:\\evil", "\\\\host\\evil", "images/.."])
def test_paths_out_of_the_folder_are_refused(tmp_path, kind, name):
    files = {**GOOD, name: b"evil"}
    path = (make_zip if kind == "zip" else make_tar)(tmp_path / "archive", files)
    with pytest.raises(InputError, match="outside of the folder; do not trust"):
        unpack(path, tmp_path / "deep" / "to", ("images",))
    # Not even what comes before it was written.
    assert names(tmp_path) == ["archive"]


@pytest.mark.parametrize("attributes", [
    {"type": tarfile.SYMTYPE, "linkname": "../../../etc"},
    {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    {"type": tarfile.SYMTYPE, "linkname": "a"},
    {"type": tarfile.LNKTYPE, "linkname": "../outside"},
    {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
    {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
    {"type": tarfile.BLKTYPE, "devmajor": 8},
    {"type": tarfile.FIFOTYPE},
])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, attributes):
    (tmp_path / "outside").write_bytes(b"mine")
    path = make_tar(tmp_path / "a.tar", {**GOOD, "images/x": attributes, "images/x/evil": b"evil"})
    with pytest.raises(InputError, match=r"'images/x' is a (link|device or the like), which is never unpacked"):
        unpack(path, tmp_path / "to", ("images",))
    assert names(tmp_path) == ["a.tar", "outside"] and (tmp_path / "outside").read_bytes() == b"mine"


@pytest.mark.parametrize("kind, what", [(stat.S_IFLNK, "link"), (stat.S_IFCHR, "device"), (stat.S_IFIFO, "device")])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, kind, what):
    link = zipfile.ZipInfo("images/x")
    link.create_system = 3
    link.external_attr = (kind | 0o777) << 16
    path = make_zip(tmp_path / "a.zip", GOOD)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(InputError, match=f"'images/x' is a {what}"):
        unpack(path, tmp_path / "to", ("images",))
    assert names(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("make", [
    lambda path: make_zip(path, {"images/0": bytes(50_000_000)}),
    lambda path: make_tar(path, {"images/0": bytes(50_000_000)}, "w:gz"),
])
def test_a_bomb_is_refused_before_anything_is_written(tmp_path, monkeypatch, make):
    path = make(tmp_path / "archive")
    assert path.stat().st_size < 100_000
    set_free_space(monkeypatch, 49_000_000)
    with pytest.raises(InputError, match=r"50.0 MB are needed, 49.0 MB are free"):
        unpack(path, tmp_path / "to", ("images",))
    assert names(tmp_path) == ["archive"]


def test_a_zip_that_announces_less_than_it_holds_writes_no_more_than_announced(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"images/0": bytes(1_000_000)})
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    for at in (data.index(b"PK\x03\x04") + 22, directory + 24):
        assert struct.unpack_from("<I", data, at) == (1_000_000,)
        struct.pack_into("<I", data, at, 1000)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged \(Bad CRC-32"):
        unpack(path, tmp_path / "to", ("images",))
    assert (tmp_path / "to" / "images" / "0").stat().st_size <= 1000


def test_what_an_interrupted_run_has_unpacked_needs_no_more_room(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "a.zip", {"x/images/0": bytes(3_000_000), "x/images/1": bytes(3_000_000)})
    set_free_space(monkeypatch, 3_000_000)
    with pytest.raises(InputError, match=r"6.0 MB are needed, 3.0 MB are free"):
        unpack(path, tmp_path, ("images",))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0").write_bytes(bytes(3_000_000))
    assert unpack(path, tmp_path, ("images",)) == 2


def tar_cut_between_files(path):
    make_tar(path, GOOD)
    os.truncate(path, 512 + 3072 + 512 + 512)


def tar_with_damaged_header(path):
    make_tar(path, GOOD)
    with open(path, "r+b") as file:
        file.seek(512 + 3072)
        file.write(b"broken")


def tar_cut_in_a_file(path):
    make_tar(path, GOOD)
    os.truncate(path, 512 + 1000)


def gzip_cut(path):
    make_tar(path, {"images/0": os.urandom(100_000)}, "w:gz")
    os.truncate(path, path.stat().st_size // 2)


def zip_cut(path):
    make_zip(path, GOOD)
    os.truncate(path, path.stat().st_size - 30)


def zip_with_damaged_content(path):
    make_zip(path, {"images/0": bytes(range(256))}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(bytes(range(100)), bytes(100)))


def zip_with_a_password(path):
    make_zip(path, GOOD)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def not_an_archive(path):
    path.write_bytes(b"<html>")


def gzip_of_something(path):
    path.write_bytes(gzip.compress(b"no tar"))


@pytest.mark.parametrize("make", [tar_cut_between_files, tar_with_damaged_header, tar_cut_in_a_file, gzip_cut, zip_cut,
                                  zip_with_damaged_content, zip_with_a_password, not_an_archive, gzip_of_something])
def test_damaged_archives_are_named(tmp_path, make):
    path = tmp_path / "archive"
    make(path)
    with pytest.raises(InputError, match=rf"{path}: (damaged \(|neither a zip nor a tar).*delete it"):
        unpack(path, tmp_path / "to", ("images",))


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", {"images/inner": b"x"}, zipfile.ZIP_STORED).read_bytes()
    path = make_tar(tmp_path / "a.tar", {"images/last.zip": inner})
    unpack(path, tmp_path / "to", ("images",))
    assert names(tmp_path / "to") == ["images/last.zip"]


def test_modes_of_the_archive_are_not_taken_over(tmp_path):
    path = make_tar(tmp_path / "a.tar", GOOD)
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("images/root")
        member.mode = 0o6777
        archive.addfile(member)
    unpack(path, tmp_path / "to", ("images",))
    assert not (tmp_path / "to" / "images" / "root").stat().st_mode & 0o6111
