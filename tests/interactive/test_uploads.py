"""Videos that are uploaded, and the names of projects."""

import io
import os
import shutil
import time

import pytest
from PIL import Image

from tests.interactive.server_steps import COUNT, open_video, video_bytes
from util.files import temporary_path


def test_a_video_called_uploads_leaves_uploads_alone(make_client, root, clip, tmp_path):
    client = make_client()
    for name in ("uploads", "Uploads"):
        (root / "one").rename(root / name)
        assert open_video(client, name) == open_video(client, name) == f"{name}-2"
        (root / name).rename(root / "one")
    assert client.post("/api/upload?name=a.mp4", content=video_bytes(clip)).json() == {"project": "a"}
    assert client.post("/api/folder?name=images").json() == {"folder": "images"}
    assert sorted(file.name for file in (tmp_path / "out" / "uploads").iterdir()) == ["a.mp4", "images"]


def test_videos_with_long_names_have_projects_of_their_own(client, root):
    """Only the ends of their names are kept."""
    ends = ["x" * 100, "x" * 99, "." + "x" * 99, "-2" + "x" * 98]
    videos = [folder / f"video {end}" for folder in (root, root / "more") for end in ends]
    videos += [root / ("x" * 99), root / "more" / ("x" * 99)]
    for number, video in enumerate(videos):
        video.mkdir(parents=True)
        for frame in range(number + 1):
            Image.new("RGB", (16, 16)).save(video / f"{frame}.png")
    names = [open_video(client, str(video)) for video in videos]
    assert len(set(names)) == len(videos) and max(map(len, names)) <= 100
    assert [client.get(f"/api/p/{name}").json()["count"] for name in names] == [*range(1, len(videos) + 1)]
    assert [open_video(client, str(video)) for video in videos] == names
    folders = [client.post("/api/folder", params={"name": "x" * 120}).json()["folder"] for _ in range(3)]
    assert len(set(folders)) == 3 and max(map(len, folders)) <= 100


def test_a_project_that_was_removed_is_not_taken_for_that_of_another_video(client, root, tmp_path):
    name = open_video(client)
    shutil.rmtree(tmp_path / "out" / name)
    (root / "more").mkdir()
    (root / "two").rename(root / "more" / name)
    assert "is the project of" in client.post("/api/open", json={"video": f"more/{name}"}).json()["error"]


def test_upload(client, clip, tmp_path):
    data = video_bytes(clip)
    assert client.post("/api/upload?name=my clip.mp4", content=data).json() == {"project": "my clip"}
    assert client.get("/api/p/my clip").json()["count"] == COUNT
    assert client.post("/api/upload?name=my clip.mp4", content=data).json() == {"project": "my clip"}
    assert sorted(file.name for file in (tmp_path / "out" / "uploads").iterdir()) == ["my clip.mp4"]


def test_upload_of_a_folder(client, clip, tmp_path):
    for name in ("frames", "frames-2"):
        assert client.post("/api/folder?name=frames").json() == {"folder": name}
        for number, image in enumerate(clip[0][:3]):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "png")
            answer = client.post(f"/api/upload?folder={name}&name={number}.png", content=file.getvalue())
            assert answer.json() == {"folder": name}
        assert client.post("/api/open", json={"uploaded": name}).json() == {"project": name}
        assert client.get(f"/api/p/{name}").json()["count"] == 3
    for folder in ("nowhere", "../out", "frames/../.."):
        answer = client.post("/api/upload", params={"folder": folder, "name": "a.png"}, content=b"x")
        assert answer.status_code == 400
    assert not (tmp_path / "a.png").exists() and not (tmp_path / "out" / "a.png").exists()


@pytest.mark.parametrize("name, content", [("a.mp4", b"rubbish" * 1000), ("", b"x"), ("a.mp4", b""),
                                           ("../a.mp4", b"x")])
def test_upload_of_rubbish_is_one_message(client, tmp_path, name, content):
    answer = client.post("/api/upload", params={"name": name}, content=content)
    assert answer.status_code == 400 and "\n" not in answer.json()["error"]
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize("name, text", [
    ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"),
    ("a.txt", "ffconcat version 1.0\nfile secret.ts\n"),
    ("a.mp4", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"),
])
def test_a_file_that_names_others_is_no_video(client, clip, tmp_path, root, name, text):
    folder = tmp_path / "out" / "uploads"
    folder.mkdir(parents=True)
    secret = folder / "secret.ts"
    secret.write_bytes(video_bytes(clip, "mpegts"))
    text = text.format(secret)
    for answer in (client.post("/api/upload", params={"name": name}, content=text.encode()),
                   (root / name).write_text(text) and client.post("/api/open", json={"video": name})):
        assert answer.status_code == 400 and "another file that names others is not read" in answer.json()["error"]
    assert list(folder.iterdir()) == [secret]


def test_what_killed_servers_left_is_removed_and_nothing_of_other_servers(make_client, clip, tmp_path):
    client = make_client()
    name = open_video(client)
    client.post("/api/upload?name=a.mp4", content=video_bytes(clip))
    client.post("/api/folder?name=images")
    uploads, project = tmp_path / "out" / "uploads", tmp_path / "out" / name
    left = [temporary_path(path) for path in (uploads / "b.mp4", uploads / "images" / "c.png",
                                              project / "masks" / "0.png", project / "annotations" / "0.png",
                                              project / "journal" / "000001.zip")]
    for path in left:
        path.write_bytes(b"half")
    other = make_client()
    assert all(path.exists() for path in left)
    for each in (client, other):
        each.__exit__(None, None, None)
    make_client().__exit__(None, None, None)
    assert all(path.exists() for path in left)
    for path in left:
        os.utime(path, (0, time.time() - 25 * 3600))
    client = make_client()
    assert [path.exists() for path in left] == [False, False, True, True, True]
    open_video(client)
    assert not any(path.exists() for path in left) and (uploads / "a.mp4").exists()


def test_upload_is_limited(make_client, clip, tmp_path):
    client = make_client(largest_upload=1000)
    assert "larger than" in client.post("/api/upload?name=a.mp4", content=video_bytes(clip)).json()["error"]
    assert not list((tmp_path / "out" / "uploads").iterdir())
