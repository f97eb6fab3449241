"""Projects, the server of `annotate.py`, and its page in a browser."""

import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from interactive.clicking import Clicker
from interactive.jobs import Tracker
from interactive.project import Project
from interactive.server import make_app
from interactive.workspace import Workspace
from tests.interactive import server_steps
from tests.interactive.page_steps import COUNT, LONG, SIZE, Server
from tests.painted_network import PaintedNetwork
from tests.tiny_engines import TinyEngines
from tests.trees import write_frames


@pytest.fixture
def video(clip, tmp_path):
    """A folder of 12 frames 72×100, named 00000 and so on."""
    return write_frames(tmp_path / "frames", clip[0][:COUNT])


@pytest.fixture
def project(video, tmp_path):
    project = Project(tmp_path / "project", [video])
    yield project
    project.close()


@pytest.fixture
def root(clip, tmp_path):
    """A folder with two videos as folders of images."""
    for name, frames in (("one", clip[0][:server_steps.COUNT]), ("two", 255 - clip[0][:server_steps.COUNT])):
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


@pytest.fixture(scope="module")
def browser():
    """Chromium. Without one on this machine, playwright takes its own, if it has one."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(
                executable_path=shutil.which("chromium") or shutil.which("chromium-browser"), args=["--no-sandbox"])
        except playwright.Error as error:
            if os.environ.get("RDE_NEEDS_BROWSER"):
                raise
            pytest.skip(f"no Chromium can be started: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def page_root(clip, tmp_path):
    """A folder with the videos `one` and `two`, and `long`, which goes there and back again through the first."""
    for name, images in (("one", clip[0][:COUNT]), ("two", 255 - clip[0][:COUNT])):
        write_frames(tmp_path / name, [np.asarray(Image.fromarray(image).resize(SIZE)) for image in images])
    (tmp_path / "long").mkdir()
    for number in range(LONG):
        source = abs((number + COUNT - 1) % (2 * COUNT - 2) - (COUNT - 1))
        (tmp_path / "long" / f"{number:05d}.png").symlink_to(tmp_path / "one" / f"{source:05d}.png")
    return tmp_path


@pytest.fixture
def server(page_root):
    server = Server(page_root)
    server.start()
    yield server
    if server.process.poll() is None:
        server.end(signal.SIGKILL)


@pytest.fixture
def page(browser, server):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.problems.append(request.url)
            if not request.url.startswith((server.address, "blob:", "data:")) else None)
    page.goto(server.address)
    yield page
    assert not page.problems
    context.close()
