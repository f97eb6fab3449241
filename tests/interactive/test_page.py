"""The page in a real browser, from an empty folder to an exported clip."""

import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from util.image_io import read_mask

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""Without one, playwright takes its own, if it has one."""

pytestmark = pytest.mark.slow

COUNT, LONG = 12, 60
SIZE = 200, 144
"""(width, height) of the test's frames."""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            if os.environ.get("RDE_NEEDS_BROWSER"):
                raise
            pytest.skip(f"no Chromium can be started: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def root(clip, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number, image in enumerate(clip[0][:COUNT]):
            Image.fromarray(image if name == "one" else 255 - image).resize(SIZE).save(
                tmp_path / name / f"{number:05d}.png")
    # There and back again.
    (tmp_path / "long").mkdir()
    for number in range(LONG):
        source = abs((number + COUNT - 1) % (2 * COUNT - 2) - (COUNT - 1))
        (tmp_path / "long" / f"{number:05d}.png").symlink_to(tmp_path / "one" / f"{source:05d}.png")
    return tmp_path


class Server:
    """annotate.py in a process of its own."""

    def __init__(self, root):
        self.root, self.output = root, root / "out"

    def start(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "annotate.py", "--no-browser", "--root", str(self.root), "--output", str(self.output),
             "--port", "8940", "--threads", "1", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.address = re.search(r"http://\S+", self.process.stdout.readline())[0]
        return self.address

    def end(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@pytest.fixture
def server(root):
    server = Server(root)
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


def open_video(page, name):
    page.fill("#path", name)
    page.press("#path", "Enter")
    page.wait_for_selector("#about:has-text('frames')", state="attached")


def place(page, x, y):
    """Where a point of the frame is on the page: the frame fills the stage but for a margin."""
    box = page.locator("#canvas").bounding_box()
    zoom = min((box["width"] - 24) / SIZE[0], (box["height"] - 24) / SIZE[1])
    return (box["x"] + (box["width"] - SIZE[0] * zoom) / 2 + x * zoom,
            box["y"] + (box["height"] - SIZE[1] * zoom) / 2 + y * zoom)


def drag(page, *points):
    page.mouse.move(*place(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*place(page, *point), steps=6)
    page.mouse.up()


def wait_saved(page, label):
    """Until the latest step of the history is this one."""
    page.wait_for_selector(f"#undo[title='Undo: {label}']")
    page.wait_for_selector("#saved:text-is('saved')")


def wait_tracked(page):
    page.wait_for_selector(".toast:has-text('frames tracked')", timeout=120_000)


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


def test_from_an_empty_folder_to_an_exported_clip_in_ten_actions(page, server):
    open_video(page, "one")                                           # 1 type the name, 2 Enter
    page.click("[data-tool=lasso]")                                   # 3
    drag(page, (40, 40), (100, 40), (100, 100), (40, 100))            # 4
    wait_saved(page, "lasso")
    page.click("#track")                                              # 5
    wait_tracked(page)
    page.click("#export")                                             # 6
    page.check("input[value=indexed-png]")                            # 7
    page.check("input[value=boxes-csv]")                              # 8
    page.click("#run-export")                                         # 9
    page.wait_for_selector("#exported a", timeout=60_000)
    exported = server.output / "one" / "export"
    assert len(list((exported / "masks").iterdir())) == COUNT and (exported / "boxes.csv").exists()
    for position in (0, 7):
        np.testing.assert_array_equal(read_mask(exported / "masks" / f"{position:05d}.png"),
                                      shown_ids(page, "one", position))
    drawn = shown_ids(page, "one", 0)
    assert drawn[70, 70] == 1 and drawn[20, 20] == 0 and abs(int((drawn == 1).sum()) - 3600) < 300


def test_every_tool_undo_to_the_beginning_and_reload(page, server):
    open_video(page, "one")
    page.click("[data-tool=box]")
    drag(page, (20, 20), (80, 80))
    wait_saved(page, "box")
    page.click("[data-tool=brush]")
    drag(page, (120, 100), (160, 110))
    wait_saved(page, "brush")
    page.click("[data-tool=eraser]")
    drag(page, (120, 100), (130, 100))
    wait_saved(page, "eraser")
    page.click("[data-tool=polygon]")
    for point in ((20, 100), (60, 100), (60, 130)):
        page.mouse.click(*place(page, *point))
    page.keyboard.press("Enter")
    wait_saved(page, "polygon")
    page.click("[data-tool=click]")
    page.mouse.click(*place(page, 150, 50))
    wait_saved(page, "click")
    before = shown_ids(page, "one", 0)
    page.reload()
    wait_saved(page, "click")
    np.testing.assert_array_equal(shown_ids(page, "one", 0), before)
    while not page.is_disabled("#undo"):
        title = page.get_attribute("#undo", "title")
        page.keyboard.press("Control+z")
        page.wait_for_selector(f"#redo[title='{title.replace('Undo', 'Redo')}']")
    assert page.locator("#objects li[data-id]").count() == 0
    assert not list((server.output / "one" / "masks").iterdir())


def test_keyboard_alone(page, server):
    page.focus("#path")
    page.keyboard.type("one")
    page.keyboard.press("Enter")
    page.wait_for_selector("#about:has-text('frames')")
    for key in ("b", "]", "Enter", *["Shift+ArrowRight"] * 3, "Enter"):
        page.keyboard.press(key)
    # The first Enter puts the cursor into the middle.
    page.keyboard.press("Enter")
    wait_saved(page, "brush")
    page.keyboard.press("t")
    wait_tracked(page)
    page.keyboard.press("?")
    assert page.is_visible("#help-dialog")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+e")
    assert page.is_visible("#export-dialog")


def test_ten_kills_lose_nothing_that_was_shown(page, server):
    """kill -9 at random moments, while somebody draws and while it is tracked. In the end all masks are as without."""
    moments = random.Random(5)
    open_video(page, "long")
    for number in range(10):
        page.click("[data-tool=brush]")
        drag(page, (30, 15 + 11 * number), (150, 15 + 11 * number))
        wait_saved(page, "brush")
        before = shown_ids(page, "long", 0)
        if number % 2:
            page.keyboard.press("t")
        page.wait_for_timeout(moments.uniform(0, 1500))
        server.end(signal.SIGKILL)
        for path in (server.output / "long" / "masks").iterdir():
            assert path.name.startswith(".") or read_mask(path).shape == SIZE[::-1]
        server.start()
        page.reload()
        page.wait_for_selector("#saved:text-is('saved')")
        np.testing.assert_array_equal(shown_ids(page, "long", 0), before)
    page.keyboard.press("t")
    wait_tracked(page)
    server.end()
    shutil.copytree(server.output / "long" / "annotations", server.root / "annotations")
    subprocess.run([sys.executable, "track.py", server.root / "long", server.root / "annotations", "--output",
                    server.root / "tracked", "--no-overlay", "--threads", "1"], cwd=ROOT, check=True)
    for position in range(LONG):
        np.testing.assert_array_equal(read_mask(server.output / "long" / "masks" / f"{position:05d}.png"),
                                      read_mask(server.root / "tracked" / "masks" / f"{position:05d}.png"))


def test_a_correction_in_the_middle_changes_nothing_before_it(page, server):
    open_video(page, "one")
    page.click("[data-tool=lasso]")
    drag(page, (40, 40), (100, 40), (100, 100), (40, 100))
    wait_saved(page, "lasso")
    page.keyboard.press("t")
    wait_tracked(page)
    before = masks(server, "one")
    page.keyboard.press("Home")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector("#where:has-text('6 /')")
    page.click("[data-tool=brush]")
    drag(page, (110, 110), (180, 120))
    wait_saved(page, "brush")
    page.keyboard.press("t")
    page.wait_for_selector(".toast:has-text('6 frames tracked')", timeout=120_000)
    after = masks(server, "one")
    assert len(after) == COUNT and all(after[name] == before[name] for name in sorted(before)[:6])
    assert all(after[name] != before[name] for name in sorted(before)[6:8])


def test_the_canvas_shows_the_exported_mask_pixel_for_pixel(page, server):
    open_video(page, "one")
    page.click("[data-tool=lasso]")
    drag(page, (40, 40), (100, 40), (100, 100), (40, 100))
    wait_saved(page, "lasso")
    colour = page.input_value("#objects [type=color]")
    # On a canvas with one pixel for each of the frame.
    shown = page.evaluate("""async colour => {
        const {Stage} = await import("/static/canvas.js"), {Pictures} = await import("/static/api.js");
        const project = await (await fetch("/api/p/one")).json(), pictures = new Pictures(project);
        const canvas = document.body.appendChild(document.createElement("canvas"));
        canvas.style = `position: fixed; width: ${project.width}px; height: ${project.height}px`;
        const stage = new Stage(canvas);
        stage.setVideo(project.width, project.height);
        stage.resize();
        stage.show(await pictures.frame(0, project.width), await pictures.mask(0),
                   {objects: project.objects, opacity: 1, outline: false, chosen: 1});
        Object.assign(stage, {zoom: 1, x: 0, y: 0});
        stage.draw();
        const data = canvas.getContext("2d").getImageData(0, 0, project.width, project.height).data;
        const rgb = [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
        return Array.from({length: data.length / 4}, (_, i) => +rgb.every((value, c) => data[4 * i + c] === value));
    }""", colour)
    page.keyboard.press("Control+e")
    page.check("input[value=indexed-png]")
    page.click("#run-export")
    page.wait_for_selector("#exported a", timeout=60_000)
    exported = read_mask(server.output / "one" / "export" / "masks" / "00000.png")
    np.testing.assert_array_equal(np.array(shown, np.uint8).reshape(SIZE[::-1]), exported)


def test_touch_draws_and_two_fingers_zoom(browser, server):
    context = browser.new_context(viewport={"width": 1024, "height": 768}, has_touch=True)
    page = context.new_page()
    page.goto(server.address)
    open_video(page, "one")
    page.tap("[data-tool=polygon]")
    for point in ((20, 20), (90, 20), (90, 90)):
        page.touchscreen.tap(*place(page, *point))
    page.keyboard.press("Enter")
    wait_saved(page, "polygon")
    ids = shown_ids(page, "one", 0)
    assert ids[30, 80] == 1 and ids[80, 30] == 0
    before = page.text_content("#zoom-fit")
    touch = context.new_cdp_session(page)
    (x, y), step = place(page, 100, 70), 4
    for kind, fingers in (("touchStart", [-20]), ("touchStart", [-20, 20]),
                          *(("touchMove", [-20 - step * move, 20 + step * move]) for move in range(1, 15)),
                          ("touchEnd", [])):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [
            {"x": x + finger, "y": y, "id": number} for number, finger in enumerate(fingers)]})
    page.wait_for_function(
        "before => parseInt(document.querySelector('#zoom-fit').textContent) > 1.5 * parseInt(before)", arg=before)
    np.testing.assert_array_equal(shown_ids(page, "one", 0), ids)
    context.close()


def test_no_action_keeps_the_page_busy(page, server):
    """By the browser's own account of tasks of more than 50 ms."""
    page.evaluate("""() => { window.long = []; new PerformanceObserver(list => long.push(...list.getEntries().map(
        entry => entry.duration))).observe({type: "longtask", buffered: true}); }""")
    open_video(page, "one")
    page.click("[data-tool=brush]")
    drag(page, (30, 40), (150, 60))
    wait_saved(page, "brush")
    page.keyboard.press("t")
    wait_tracked(page)
    page.keyboard.press("Space")
    page.wait_for_timeout(1500)
    page.keyboard.press("Space")
    page.keyboard.press("Control+z")
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    assert not [duration for duration in page.evaluate("long") if duration > 100]


def test_two_browsers_two_videos_and_a_reload_while_tracking(page, browser, server):
    other = browser.new_page()
    other.goto(server.address)
    for each, name, left in ((page, "one", 30), (other, "two", 120)):
        open_video(each, name)
        each.click("[data-tool=lasso]")
        drag(each, (left, 40), (left + 40, 40), (left + 40, 90), (left, 90))
        wait_saved(each, "lasso")
    page.click("#track")
    other.click("#track")
    page.reload()
    other.wait_for_selector(".toast:has-text('frames tracked')", timeout=120_000)
    for name, left in (("one", 30), ("two", 120)):
        ids = shown_ids(page, name, 0)
        assert ids[60, left + 20] == 1 and (ids == 1).sum() < 2600
    page.wait_for_selector("#tracking:not([hidden])", timeout=120_000)
    for name in ("one", "two"):
        assert len(list((server.output / name / "masks").iterdir())) == COUNT
    other.close()


def test_the_token_is_asked_for_and_leaves_the_address(browser, root):
    server = Server(root)
    address = server.start("--host", "127.0.0.2")
    try:
        page = browser.new_page()
        assert page.goto(address.partition("?")[0]).status == 403
        page.goto(address)
        page.wait_for_selector("#start:not([hidden])")
        assert "token" not in page.url
        open_video(page, "one")
        page.close()
        assert server.end() == 0
    finally:
        server.process.kill()


def test_upload_of_rubbish_is_one_message(page):
    page.set_input_files("#file", {"name": "a.mp4", "mimeType": "video/mp4", "buffer": io.BytesIO(b"x" * 99).read()})
    page.wait_for_selector(".toast.bad")
    assert page.locator(".toast").count() == 1
