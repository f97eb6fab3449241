"""Who gets something of the server, and nothing outside of its root."""

import json

import pytest
from starlette.websockets import WebSocketDisconnect

from tests.interactive.server_steps import COUNT


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
