"""The server, without a browser: what the page asks for, and who gets nothing."""

import asyncio
import gc
import io
import json
import os
import shutil
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from interactive.clicking import Clicker
from interactive.jobs import Tracker
from interactive.server import make_app
from interactive.workspace import Workspace
from tests.painted_network import PaintedNetwork
from tests.tiny_engines import TinyEngines
from tests.trees import write_frames
from util.files import temporary_path

COUNT = 8


@pytest.fixture
def root(clip, tmp_path):
    """A folder with two videos as folders of images."""
    for name, frames in (("one", clip[0][:COUNT]), ("two", 255 - clip[0][:COUNT])):
        write_frames(tmp_path / "root" / name, frames)
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "root"


@pytest.fixture
def make_client(root, tiny_network, tmp_path):
    def make(**options):
        engines = TinyEngines(tiny_network)
        workspace = Workspace(tmp_path / "out", root, lambda project, tell: Tracker(project, engines, tell),
                              lambda: Clicker(PaintedNetwork))
        clients.append(TestClient(make_app(workspace, **options), raise_server_exceptions=False))
        clients[-1].__enter__()
        return clients[-1]

    clients = []
    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client):
    return make_client()


def open_video(client, video="one"):
    return client.post("/api/open", json={"video": video}).json()["project"]


def until(line, event):
    """The next event of this kind."""
    while (found := line.receive_json())["event"] != event:
        assert found["event"] != "error", found
    return found


def act(line, **message):
    """Send an action, and return the state afterwards."""
    line.send_json(message)
    return until(line, "changed")


def mask_of(client, name, position):
    answer = client.get(f"/api/p/{name}/mask/{position}")
    return None if answer.status_code == 204 else np.array(Image.open(io.BytesIO(answer.content)))


def draw_dog(line):
    """Add an object, and draw it in the second frame."""
    act(line, do="add object", name="dog")
    act(line, do="draw", tool="brush", frame=1, object=1, points=[[20, 20]], width=9)


def test_page_and_its_files_are_there_and_name_no_other_host(client):
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    for file in ("main.js", "style.css"):
        text = client.get(f"/static/{file}").text
        assert "https://" not in text.replace("https://developer", "")


def test_frames_come_in_the_size_asked_for(client, clip):
    name = open_video(client)
    answer = client.get(f"/api/p/{name}/frame/3")
    image = np.array(Image.open(io.BytesIO(answer.content)))
    assert "immutable" in answer.headers["cache-control"]
    assert np.abs(image.astype(int) - clip[0][3]).mean() < 12
    assert Image.open(io.BytesIO(client.get(f"/api/p/{name}/frame/3?w=50").content)).size == (50, 36)
    assert "no frame 8" in client.get(f"/api/p/{name}/frame/8").json()["error"]


def test_strokes_track_and_undo(client):
    name = open_video(client)
    assert client.get(f"/api/p/{name}/mask/0").status_code == 204
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        until(line, "changed")
        assert act(line, do="add object", name="dog")["project"]["objects"][0]["name"] == "dog"
        changed = act(line, do="draw", tool="polygon", frame=0, object=1,
                      points=[[20, 20], [60, 20], [60, 50], [20, 50]])
        assert changed["frames"] == [0] and changed["project"]["references"] == {"0": [1]}
        assert (mask_of(client, name, 0) == 1).sum() == 41 * 31
        act(line, do="track", direction="forward", start=0)
        assert until(line, "stopped") == {"event": "stopped", "done": COUNT, "reason": "done"}
        assert mask_of(client, name, COUNT - 1).shape == (72, 100)
        assert len(client.get(f"/api/p/{name}/quality").content) == COUNT
        assert act(line, do="undo")["frames"] == [0]
        assert mask_of(client, name, 0) is None
        assert act(line, do="redo")["project"]["redo"] is None


@pytest.mark.parametrize("values", [
    {"tool": "brush", "points": [[20, 20], [60, 30]], "width": 8},
    {"tool": "lasso", "points": [[20, 20], [60, 30], [40, 50]]},
    {"tool": "box", "points": [[20, 20], [60, 50]]},
    {"tool": "click", "points": [[50, 36]], "positive": [True]},
])
def test_every_tool_draws(client, values):
    name = open_video(client)
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        until(line, "changed")
        act(line, do="add object")
        assert act(line, do="draw", frame=2, object=1, **values)["frames"] == [2]
        assert (mask_of(client, name, 2) == 1).any()
        act(line, do="draw", frame=2, object=1, tool="eraser", points=[[50, 36]], width=500)
        assert not mask_of(client, name, 2).any()


@pytest.mark.parametrize("message", [
    "no JSON", "[]", "{}", json.dumps({"do": "explode"}), json.dumps({"do": "draw"}),
    json.dumps({"do": "draw", "tool": "brush", "frame": 0, "object": 9, "points": [[1, 1]], "width": 3}),
    json.dumps({"do": "draw", "tool": "brush", "frame": 99, "object": 1, "points": [[1, 1]], "width": 3}),
    json.dumps({"do": "draw", "tool": "brush", "frame": 0, "object": 1, "points": [["x", 1]], "width": 3}),
    json.dumps({"do": "draw", "tool": "brush", "frame": 0, "object": 1, "points": [[1, 1]], "width": None}),
    json.dumps({"do": "track", "direction": "forward", "start": 0}),
    json.dumps({"do": "change object", "id": 1, "colour": 3}),
    json.dumps({"do": "merge objects", "id": 1, "into": 1}),
    "[" * 100000,
    *map(json.dumps, [
        {"do": ["x"]}, {"do": "add object", "name": 5}, {"do": "add object", "size": 5},
        {"do": "change object", "id": 1, "colour": "red"}, {"do": "change object", "id": [1], "locked": True},
        {"do": "change object", "id": 1, "locked": 1}, {"do": "change object", "id": 1, "name": None},
        {"do": "clear reference", "frame": -1}, {"do": "clear reference", "frame": "a"},
        {"do": "clear reference", "frame": COUNT}, {"do": "clear reference", "frame": True},
        {"do": "delete object", "id": True}, {"do": "merge objects", "id": 1, "into": None},
        {"do": "track", "direction": "forward", "start": "a"}, {"do": "track", "direction": ["forward"], "start": 0},
        {"do": "track", "direction": "forward", "start": 0, "objects": 5},
        {"do": "track", "direction": "forward", "start": 0, "objects": [[1]]},
        *({"do": "draw", "tool": "brush", "frame": 0, "object": 1, "points": [[1, 1]], "width": 3, **wrong}
          for wrong in ({"object": [1]}, {"frame": 0.5}, {"width": 1e9}, {"width": float("inf")}, {"width": "3"},
                        {"points": 5}, {"points": [[10**400, 1]]}, {"points": {}}, {"tool": ["brush"]})),
        {"do": "draw", "tool": "click", "frame": 0, "object": 1, "points": [[1, 1]], "positive": 1},
    ]),
])
def test_messages_that_make_no_sense_are_answered_and_the_line_stays(client, message):
    name = open_video(client)
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        until(line, "changed")
        act(line, do="add object")
        line.send_text(message)
        assert line.receive_json() == {"event": "done"}  # this answers the first one
        answer = line.receive_json()
        assert answer["event"] == "error" and answer["text"] and "\n" not in answer["text"]
        assert "this did not work" not in answer["text"] and "Errno" not in answer["text"]
        assert act(line, do="undo")["project"]["objects"] == []
        act(line, do="add object")


def test_requests_that_make_no_sense_are_one_message(client):
    name = open_video(client)
    for position in ("9" * 5000, str(COUNT), "-1", "x"):
        for kind in ("frame", "mask"):
            answer = client.get(f"/api/p/{name}/{kind}/{position}")
            assert answer.status_code == 400 and "there is no frame" in answer.json()["error"]
    assert client.get(f"/api/p/{name}/frame/0?w={'9' * 5000}").status_code == 200
    for asked in ({"formats": [["coco"]]}, {"formats": ["coco"], "options": {"objects": ["x"]}},
                  {"formats": ["coco"], "options": {"objects": 5}}, {"formats": ["coco"], "options": {"grow": "x"}},
                  {"formats": ["coco"], "options": {"hold": True}}, {"formats": ["coco"], "options": {"largest": "no"}},
                  {"formats": ["coco"], "options": {"objects": [True]}}):
        for action in ("command", "export"):
            answer = client.post(f"/api/p/{name}/{action}", json=asked)
            assert answer.status_code == 400 and answer.json()["error"]


def test_names_that_are_no_text(client, root):
    (root / "\udcff").mkdir()
    assert "\udcff" in client.get("/api/browse").json()["folders"]
    with client.websocket_connect(f"/api/p/{open_video(client)}/events") as line:
        until(line, "changed")
        assert act(line, do="add object", name="\ud800")["project"]["objects"][0]["name"] == "\ud800"


def test_a_download_of_files_whose_names_are_no_text(client, root, tmp_path):
    for file in (root / "one").iterdir():
        file.rename(file.with_name(f"\udcff{file.name}"))
    name = open_video(client)
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        until(line, "changed")
        draw_dog(line)
    assert client.post(f"/api/p/{name}/export", json={"formats": ["indexed-png"]}).json()["files"] == ["masks"]
    with zipfile.ZipFile(io.BytesIO(client.get(f"/api/p/{name}/download/masks").content)) as archive:
        assert archive.testzip() is None and "%FF00001.png" in archive.namelist()


def test_a_mask_has_a_revision(client):
    name = open_video(client)
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        until(line, "changed")
        act(line, do="add object")
        act(line, do="draw", tool="brush", frame=1, object=1, points=[[20, 20]], width=9)
        tag = client.get(f"/api/p/{name}/mask/1").headers["etag"]
        assert client.get(f"/api/p/{name}/mask/1", headers={"If-None-Match": tag}).status_code == 304
        act(line, do="draw", tool="brush", frame=1, object=1, points=[[50, 20]], width=9)
        assert client.get(f"/api/p/{name}/mask/1", headers={"If-None-Match": tag}).status_code == 200


def test_the_page_knows_the_id_of_the_next_object(client):
    """It draws on an object before the server has said that it is there."""
    name = open_video(client)
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        assert until(line, "changed")["project"]["next"] == 1
        act(line, do="add object")
        assert act(line, do="delete object", id=1)["project"]["next"] == 2
        act(line, do="add object")
        assert act(line, do="draw", tool="brush", frame=1, object=2, points=[[20, 20]], width=9)["frames"] == [1]


def test_two_projects_do_not_mix(client):
    one, two = open_video(client, "one"), open_video(client, "two")
    with client.websocket_connect(f"/api/p/{one}/events") as first, \
            client.websocket_connect(f"/api/p/{two}/events") as second:
        until(first, "changed"), until(second, "changed")
        act(first, do="add object", name="dog")
        act(first, do="draw", tool="brush", frame=0, object=1, points=[[20, 20]], width=9)
        state = act(second, do="add object", name="cat")["project"]
        assert [thing["name"] for thing in state["objects"]] == ["cat"] and not state["references"]
        assert mask_of(client, two, 0) is None
        act(first, do="track", direction="forward", start=0)
        act(second, do="draw", tool="brush", frame=3, object=1, points=[[20, 20]], width=9)
        act(second, do="track", direction="backward", start=3)
        assert until(first, "stopped")["done"] == COUNT and until(second, "stopped")["done"] == 4
    assert mask_of(client, two, 5) is None


def test_export_and_its_command_line(client, root):
    name = open_video(client)
    assert "no frame of this project has a mask" in client.post(
        f"/api/p/{name}/export", json={"formats": ["boxes-csv"]}).json()["error"]
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        until(line, "changed")
        draw_dog(line)
    asked = {"formats": ["boxes-csv", "indexed-png"], "options": {"fill_holes": True, "grow": 2}}
    words = client.post(f"/api/p/{name}/command", json=asked).json()["command"].split()
    assert words[:2] == ["python", "export_masks.py"] and words[3:] == [
        "--format", "boxes-csv", "indexed-png", "--fill-holes", "--grow", "2", "--overwrite"]
    assert client.post(f"/api/p/{name}/export", json=asked).json()["files"] == ["boxes.csv", "masks"]
    assert "dog" in client.get(f"/api/p/{name}/download/boxes.csv").text
    assert client.get(f"/api/p/{name}/download/masks").content[:2] == b"PK"
    for wrong in ("coco.json", "..%2fproject.json", "project.json"):
        assert client.get(f"/api/p/{name}/download/{wrong}").status_code in (400, 404)


def test_a_folder_that_changes_while_it_is_downloaded(client, tmp_path):
    name = open_video(client)
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        until(line, "changed")
        draw_dog(line)
    client.post(f"/api/p/{name}/export", json={"formats": ["images"]})
    files = sorted(tmp_path.rglob("*"))
    scope = {"type": "http", "method": "GET", "path": f"/api/p/{name}/download/images", "query_string": b"",
             "headers": [(b"host", b"localhost")]}

    async def download(meanwhile=None):
        """Download as a ZIP; while it is sent, call `meanwhile`. Returns (headers, content)."""
        async def send(message):
            nonlocal headers, content
            content += message.get("body", b"")
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                if meanwhile:
                    await meanwhile()

        headers, content = {}, b""
        await client.app(scope, asyncio.Event().wait, send)
        return headers, content

    async def change():
        gone.unlink()
        with zipfile.ZipFile(io.BytesIO((await download())[1])) as archive:
            assert len(archive.namelist()) == COUNT - 1

    gone = next((tmp_path / "out" / name / "export" / "images").iterdir())
    headers, content = client.portal.call(download, change)
    assert b"images.zip" in headers[b"content-disposition"] and len(content) == int(headers[b"content-length"])
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None and len(archive.namelist()) == COUNT
    assert sorted([*tmp_path.rglob("*"), gone]) == files


def test_export_tells_how_far_it_is_and_can_be_cancelled(client, root):
    name = open_video(client)
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        until(line, "changed")
        draw_dog(line)
        assert client.post(f"/api/p/{name}/export", json={"formats": ["images"]}).json()["files"] == ["images"]
        line.send_json({"do": "clear reference", "frame": 5})
        said = []
        while (event := line.receive_json())["event"] != "changed":
            said += [event] if event["event"] != "done" else []
        assert said and all(event["event"] == "exporting" and event["total"] == COUNT for event in said)
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(client.post, f"/api/p/{name}/export", json={"formats": ["boxes-csv"]})
            while not asked.done():
                line.send_json({"do": "cancel export"})
                until(line, "changed")
        assert asked.result().json() == {"cancelled": True}
    assert client.get(f"/api/p/{name}/download/boxes.csv").status_code == 400
    assert client.get(f"/api/p/{name}/download/images").status_code == 200


def test_projects_are_there_after_a_restart(make_client):
    client = make_client()
    name = open_video(client)
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        until(line, "changed")
        act(line, do="add object", name="dog")
    client.__exit__(None, None, None)
    client = make_client()
    assert client.get("/api/start").json()["projects"] == [name]
    assert client.get(f"/api/p/{name}").json()["objects"][0]["name"] == "dog"


def test_a_project_with_a_damaged_step_opens(make_client, tmp_path):
    client = make_client()
    name = open_video(client)
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        until(line, "changed")
        act(line, do="add object", name="dog")
    client.__exit__(None, None, None)
    (tmp_path / "out" / name / "journal" / "000001.zip").write_bytes(b"")
    client = make_client()
    with client.websocket_connect(f"/api/p/{open_video(client)}/events") as line:
        state = until(line, "changed")["project"]
        assert state["undo"] is None and state["objects"][0]["name"] == "dog"
        line.send_json({"do": "undo"})
        assert "damaged step" in line.receive_json()["text"]
        assert act(line, do="add object", name="cat")["project"]["undo"] == "add object"


def test_browsers_fetch_frames_anew_when_an_image_was_changed(make_client, root):
    versions = []
    for colour in (None, "red", "blue"):
        if colour:
            Image.new("RGB", (100, 72), colour).save(root / "one" / "00003.png")
        client = make_client()
        versions.append(client.get(f"/api/p/{open_video(client)}").json()["version"])
        client.__exit__(None, None, None)
    assert len(set(versions)) == 3


def test_a_token_is_needed(make_client):
    client = make_client(token="right", host="0.0.0.0")
    assert client.get("/").status_code == client.get("/?token=wrong").status_code == 403
    assert client.get("/api/start").status_code == client.get("/static/main.js").status_code == 403
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/p/x/events"):
        pass
    answer = client.get("/?token=right", follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    assert client.get("/api/start").status_code == 200 and list(client.cookies) == ["annotate_token_80"]
    client.cookies.clear()
    for cookie in ("annotate_token_80=wrong", "annotate_token_80=r\xc3\xafght", "annotate_token_80",
                   "annotate_token_81=right"):
        assert client.get("/api/start", headers=[("Cookie", cookie.encode("latin-1"))]).status_code == 403


@pytest.mark.parametrize("headers", [
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}, {"Host": "localhost.evil.example"},
    {"Origin": "http://testserver:99"}, {"Host": ""}, {"Host": "[::1"}, {"Origin": "http://[::1"},
])
def test_foreign_pages_are_refused(client, headers):
    assert client.get("/api/start", headers=headers).status_code == 403
    assert client.post("/api/open", json={"video": "one"}, headers=headers).status_code == 403
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/p/one/events", headers=headers):
        pass


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1:80", "[::1]:1", "192.168.1.7:8765"])
def test_its_own_names_are_not(client, host):
    """A port may be another one, through ssh."""
    assert client.get("/api/start", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize("path", ["..", "../secret.txt", "/etc/passwd", "one/../../secret.txt", "\0", "no", "\ud800"])
def test_nothing_outside_of_the_root_is_read(client, path):
    for answer in (client.post("/api/open", content=json.dumps({"video": path})),
                   client.get("/api/browse", params={"folder": path.encode(errors="surrogatepass")})):
        assert answer.status_code == 400 and "\n" not in answer.json()["error"]
    address = f"/api/p/{path}".replace("\0", "%00").replace("\ud800", "%ED%A0%80")
    assert client.get(address).status_code in (400, 404, 405)


def test_a_link_out_of_the_root_is_not_followed(client, root):
    (root / "link").symlink_to(root.parent)
    assert client.get("/api/browse", params={"folder": "link"}).status_code == 400


def test_browse(client, root):
    (root / "a.mp4").write_bytes(b"")
    assert client.get("/api/browse").json() == {"folder": "", "parent": None, "folders": ["one", "two"],
                                                "videos": ["a.mp4"], "images": 0}
    assert client.get("/api/browse?folder=one").json()["images"] == COUNT


def video_bytes(clip, kind="mp4"):
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 72, 100, "yuv420p"
        for image in clip[0][:COUNT]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))
    return file.getvalue()


def test_a_project_that_nobody_looks_at_keeps_no_frames(client, root):
    (root / "large").mkdir()
    for number in range(4):
        Image.new("RGB", (1000, 800)).save(root / "large" / f"{number}.png")
    name = open_video(client, "large")
    tracemalloc.start()
    try:
        with client.websocket_connect(f"/api/p/{name}/events") as line:
            until(line, "changed")
            for position in range(4):
                client.get(f"/api/p/{name}/frame/{position}")
            gc.collect()
            kept = tracemalloc.get_traced_memory()[0]
        gc.collect()
        assert kept - tracemalloc.get_traced_memory()[0] > 4 * 1000 * 800 * 3 * 0.9
        assert client.get(f"/api/p/{name}/frame/3").status_code == 200
    finally:
        tracemalloc.stop()


def test_frames_are_kept_for_a_while_for_who_does_not_listen(root, tmp_path, monkeypatch):
    room = Workspace(tmp_path / "out", root, None, None).open(root / "one")
    forgotten, timers = [], []
    monkeypatch.setattr(room.project.frames, "forget", lambda: forgotten.append(True))
    monkeypatch.setattr("interactive.room.threading.Timer", lambda pause, end: timers.append(
        SimpleNamespace(end=end, start=lambda: None)) or timers[-1])
    for position in range(COUNT):
        room.picture(position, 50)
    assert not forgotten and len(timers) == 1
    timers[0].end()
    assert forgotten
    room.picture(0, 50)
    assert len(timers) == 2
    room.close()


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
