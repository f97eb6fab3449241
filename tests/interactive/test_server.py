"""The server, without a browser: what the page asks for."""

import asyncio
import gc
import io
import json
import threading
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from interactive.workspace import Workspace
from tests.interactive.server_steps import COUNT, act, draw_dog, mask_of, open_video, until


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
        stopped = until(line, "stopped")
        assert (stopped["done"], stopped["reason"], stopped["project"]["job"]) == (COUNT, "done", None)
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


def test_what_a_closed_page_has_sent_is_done(client, capfd):
    """Nothing can be answered, from the first message on."""
    name = open_video(client)
    sent = [{"type": "websocket.connect"},
            *({"type": "websocket.receive", "text": json.dumps({"do": "add object", "name": thing})}
              for thing in ("dog", "cat")), {"type": "websocket.receive", "bytes": b"dog"},
            {"type": "websocket.disconnect", "code": 1006}]
    scope = {"type": "websocket", "path": f"/api/p/{name}/events", "query_string": b"", "headers": [
        (b"host", b"localhost")]}

    async def receive():
        # The server gets time to answer.
        await asyncio.sleep(0.1)
        return sent.pop(0)

    async def send(message):
        if message["type"] == "websocket.send":
            raise OSError("closed")

    client.portal.call(client.app, scope, receive, send)
    gc.collect()
    assert [thing["name"] for thing in client.get(f"/api/p/{name}").json()["objects"]] == ["dog", "cat"]
    assert capfd.readouterr().err == ""


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


def test_who_comes_while_a_job_ends_is_told_that_it_has_ended(root, tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "out", root, lambda project, tell: None, lambda: None)
    room, told = workspace.open(root / "one"), []
    describe, stopping = room.describe, threading.Thread(target=lambda: room.tell({"event": "stopped"}))

    def describe_meanwhile():
        found = describe()
        stopping.start()
        stopping.join(0.5)
        return found

    monkeypatch.setattr(room, "describe", describe_meanwhile)
    room.listen(lambda event: told.append(event["event"]))
    stopping.join()
    assert told == ["changed", "stopped"]
    workspace.close()


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
