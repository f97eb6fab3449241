"""The server, without a browser: what the page asks for, and who gets nothing."""

import io
import json
from concurrent.futures import ThreadPoolExecutor

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
])
def test_messages_that_make_no_sense_are_answered_and_the_line_stays(client, message):
    name = open_video(client)
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        until(line, "changed")
        act(line, do="add object")
        line.send_text(message)
        answer = line.receive_json()
        assert answer["event"] == "error" and answer["text"] and "\n" not in answer["text"]
        act(line, do="add object")


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
        act(line, do="add object", name="dog")
        act(line, do="draw", tool="brush", frame=1, object=1, points=[[20, 20]], width=9)
    asked = {"formats": ["boxes-csv", "indexed-png"], "options": {"fill_holes": True, "grow": 2}}
    words = client.post(f"/api/p/{name}/command", json=asked).json()["command"].split()
    assert words[:2] == ["python", "export_masks.py"] and words[3:] == [
        "--format", "boxes-csv", "indexed-png", "--fill-holes", "--grow", "2", "--overwrite"]
    assert client.post(f"/api/p/{name}/export", json=asked).json()["files"] == ["boxes.csv", "masks"]
    assert "dog" in client.get(f"/api/p/{name}/download/boxes.csv").text
    assert client.get(f"/api/p/{name}/download/masks").content[:2] == b"PK"
    for wrong in ("coco.json", "..%2fproject.json", "project.json"):
        assert client.get(f"/api/p/{name}/download/{wrong}").status_code in (400, 404)


def test_export_tells_how_far_it_is_and_can_be_cancelled(client, root):
    name = open_video(client)
    with client.websocket_connect(f"/api/p/{name}/events") as line:
        until(line, "changed")
        act(line, do="add object", name="dog")
        act(line, do="draw", tool="brush", frame=1, object=1, points=[[20, 20]], width=9)
        assert client.post(f"/api/p/{name}/export", json={"formats": ["images"]}).json()["files"] == ["images"]
        line.send_json({"do": "clear reference", "frame": 5})
        said = []
        while (event := line.receive_json())["event"] != "changed":
            said.append(event)
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
    {"Origin": "http://testserver:99"}, {"Host": ""},
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


@pytest.mark.parametrize("path", ["..", "../secret.txt", "/etc/passwd", "one/../../secret.txt", "\0", "no"])
def test_nothing_outside_of_the_root_is_read(client, path):
    for answer in (client.post("/api/open", json={"video": path}), client.get("/api/browse", params={"folder": path})):
        assert answer.status_code == 400 and "\n" not in answer.json()["error"]
    assert client.get(f"/api/p/{path}".replace("\0", "%00")).status_code in (400, 404, 405)


def test_a_link_out_of_the_root_is_not_followed(client, root):
    (root / "link").symlink_to(root.parent)
    assert client.get("/api/browse", params={"folder": "link"}).status_code == 400


def test_browse(client, root):
    (root / "a.mp4").write_bytes(b"")
    assert client.get("/api/browse").json() == {"folder": "", "parent": None, "folders": ["one", "two"],
                                                "videos": ["a.mp4"], "images": 0}
    assert client.get("/api/browse?folder=one").json()["images"] == COUNT


def video_bytes(clip):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 72, 100, "yuv420p"
        for image in clip[0][:COUNT]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))
    return file.getvalue()


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


def test_upload_is_limited(make_client, clip, tmp_path):
    client = make_client(largest_upload=1000)
    assert "larger than" in client.post("/api/upload?name=a.mp4", content=video_bytes(clip)).json()["error"]
    assert not list((tmp_path / "out" / "uploads").iterdir())
