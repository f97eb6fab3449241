"""What somebody does on the page of `annotate.py`, and a server for it."""

import re
import signal
import socket
import subprocess
import sys

import numpy as np

from tests.conftest import ROOT

COUNT, LONG = 12, 60
"""Frames of the videos `one` and `two`, and of `long`."""

SIZE = 200, 144
"""(width, height) of the test's frames."""


class Server:
    """annotate.py in a process of its own, at the same port each time that it is started."""

    def __init__(self, root):
        self.root, self.output, self._port = root, root / "out", free_port()

    def start(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "annotate.py", "--no-browser", "--root", str(self.root), "--output", str(self.output),
             "--port", str(self._port), "--threads", "1", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.address = re.search(r"http://\S+", self.process.stdout.readline())[0]
        return self.address

    def end(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


def free_port():
    """A port of this machine at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def drag(page, *points):
    """Press the mouse at the first of these points of the frame, and draw a line through the others."""
    page.mouse.move(*place(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*place(page, *point), steps=6)
    page.mouse.up()


def draw(page, tool, *points):
    """Drag with a tool, and wait until that is saved."""
    page.click(f"[data-tool={tool}]")
    drag(page, *points)
    wait_saved(page, tool)


def draw_rectangle(page, left, top, right, bottom):
    """Draw along the sides of a rectangle with the lasso."""
    draw(page, "lasso", (left, top), (right, top), (right, bottom), (left, bottom))


def track(page):
    """Track with the keyboard, and wait for the end."""
    page.keyboard.press("t")
    wait_tracked(page)


def open_video(page, name):
    page.fill("#path", name)
    page.press("#path", "Enter")
    page.wait_for_selector("#about:has-text('frames')", state="attached")
    wait_shown(page)


def place(page, x, y):
    """Where a point of the frame is on the page: the frame fills the stage but for a margin."""
    box = page.locator("#canvas").bounding_box()
    zoom = min((box["width"] - 24) / SIZE[0], (box["height"] - 24) / SIZE[1])
    return (box["x"] + (box["width"] - SIZE[0] * zoom) / 2 + x * zoom,
            box["y"] + (box["height"] - SIZE[1] * zoom) / 2 + y * zoom)


def wait_saved(page, label):
    """Until the latest step of the history is this one."""
    page.wait_for_selector(f"#undo[title='Undo: {label}']")
    page.wait_for_selector("#saved:text-is('saved')")


def wait_tracked(page):
    page.wait_for_selector(".toast:has-text('frames tracked')", timeout=120_000)


def wait_shown(page):
    """Until the picture on the page is that of the current frame: nothing can be drawn before."""
    page.wait_for_selector("#canvas[aria-busy=false]", state="attached")


def wait_frame(page, position):
    page.wait_for_function("wanted => document.querySelector('#frame').value === wanted", arg=str(position))
    wait_shown(page)


def wait_left(page, position):
    """Until another frame than this one is shown."""
    page.wait_for_function("left => document.querySelector('#frame').value !== left", arg=str(position))
    wait_shown(page)


def send(page, name, **action):
    """Send an action as another tab does, and wait until it is done."""
    page.evaluate("""([name, action]) => new Promise(done => {
        const line = new WebSocket(`ws://${location.host}/api/p/${name}/events`);
        line.onopen = () => line.send(JSON.stringify(action));
        line.onmessage = event => JSON.parse(event.data).event === "done" && done(line.close());
    })""", [name, action])


def shown_ids(page, name, position):
    """The ids that the page has for a frame, by way of the browser."""
    values = page.evaluate("""async ([name, position]) => {
        const {Pictures} = await import("/static/api.js");
        const project = await (await fetch(`/api/p/${name}`)).json();
        return [...(await new Pictures(project).mask(position)) ?? []];
    }""", [name, position])
    return np.array(values, np.uint8).reshape(SIZE[::-1])


def masks(server, name):
    """{file name: content} of a project's masks."""
    return {path.name: path.read_bytes() for path in (server.output / name / "masks").iterdir()}
