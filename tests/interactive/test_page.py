"""The page in a real browser, from an empty folder to an exported clip."""

import io
import json
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


def wait_frame(page, position):
    page.wait_for_function("wanted => document.querySelector('#frame').value === wanted", arg=str(position))


def wait_left(page, position):
    """Until another frame than this one is shown."""
    page.wait_for_function("left => document.querySelector('#frame').value !== left", arg=str(position))


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
    page.click("[data-tool=away]")
    page.mouse.click(*place(page, 30, 120))
    wait_saved(page, "click")
    assert shown_ids(page, "one", 0)[120, 30] == 0
    page.click("#specks")
    page.click("#fill")
    page.wait_for_selector("#saved:text-is('saved')")
    page.click("#clear")
    wait_saved(page, "clear")
    page.keyboard.press("Control+z")
    page.wait_for_selector("#redo[title='Redo: clear']")
    title, before = page.get_attribute("#undo", "title"), shown_ids(page, "one", 0)
    page.reload()
    wait_saved(page, title.removeprefix("Undo: "))
    np.testing.assert_array_equal(shown_ids(page, "one", 0), before)
    while not page.is_disabled("#undo"):
        title = page.get_attribute("#undo", "title")
        page.keyboard.press("Control+z")
        page.wait_for_selector("#saved:text-is('saved')")
        assert page.get_attribute("#redo", "title") == title.replace("Undo", "Redo")
    assert page.locator("#objects li[data-id]").count() == 0
    assert not list((server.output / "one" / "masks").iterdir())


def test_keyboard_alone(page, server):
    # What is not shown yet takes no focus.
    page.wait_for_selector("#path")
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
    for key in ("g", "5", "Enter"):
        page.keyboard.press(key)
    wait_frame(page, 5)
    page.keyboard.press("?")
    assert page.is_visible("#help-dialog")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+e")
    assert page.is_visible("#export-dialog")
    while page.evaluate("document.activeElement.value") != "boxes-csv":
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.wait_for_selector("#run-export:enabled")
    while page.evaluate("document.activeElement.id") != "run-export":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#exported a", timeout=60_000)
    assert (server.output / "one" / "export" / "boxes.csv").exists()


def test_objects_are_named_hidden_locked_merged_and_deleted(page, server):
    open_video(page, "one")
    page.click("[data-tool=lasso]")
    for number, left in enumerate((20, 80, 140)):
        page.click("#add")
        page.wait_for_selector(f"#objects li[aria-current=true][data-id='{number + 1}']")
        drag(page, (left, 40), (left + 30, 40), (left + 30, 90), (left, 90))
        wait_saved(page, "lasso")
    assert [shown_ids(page, "one", 0)[60, x] for x in (35, 95, 155)] == [1, 2, 3]
    page.locator("#objects .name").nth(2).fill("cup")
    page.keyboard.press("Enter")
    wait_saved(page, "change object")
    page.click("[aria-label='lock object 2']")
    page.wait_for_selector("[aria-label='lock object 2'][aria-pressed=true]")
    # The focus stays where it was, although the list is made anew.
    assert page.evaluate("document.activeElement.ariaLabel") == "lock object 2"
    # Nobody draws over a locked object.
    drag(page, (70, 50), (120, 50), (120, 70), (70, 70))
    wait_saved(page, "lasso")
    assert [shown_ids(page, "one", 0)[60, x] for x in (72, 95)] == [3, 2]
    page.click("[aria-label='hide object 1']")
    page.wait_for_selector("[aria-label='hide object 1'][aria-pressed=true]")
    page.select_option("#merge", label="object 1")
    wait_saved(page, "merge objects")
    assert [shown_ids(page, "one", 0)[60, x] for x in (35, 95, 155)] == [1, 2, 1]
    page.click("#objects li[data-id='1']")
    page.click("#delete")
    wait_saved(page, "delete object")
    assert not (shown_ids(page, "one", 0) == 1).any() and page.locator("#objects li[data-id]").count() == 1
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    page.wait_for_selector("#objects li[data-id='3']")
    assert page.locator("#objects .name").nth(2).input_value() == "cup"
    assert [shown_ids(page, "one", 0)[60, x] for x in (35, 95, 155)] == [1, 2, 3]


def test_some_objects_are_tracked_from_one_drawn_frame_to_the_next(page, server):
    open_video(page, "one")
    page.click("[data-tool=lasso]")
    for number, left in enumerate((20, 120)):
        page.click("#add")
        page.wait_for_selector(f"#objects li[aria-current=true][data-id='{number + 1}']")
        drag(page, (left, 40), (left + 40, 40), (left + 40, 90), (left, 90))
        wait_saved(page, "lasso")
    page.keyboard.press("t")
    wait_tracked(page)
    page.keyboard.press("Home")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    wait_frame(page, 8)
    drag(page, (150, 100), (180, 100), (180, 130), (150, 130))
    wait_saved(page, "lasso")
    before = masks(server, "one")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    wait_frame(page, 1)
    page.check("#only-chosen")
    page.check("#to-reference")
    page.focus("#canvas")
    page.keyboard.press("t")
    page.wait_for_selector(".toast:has-text('7 frames tracked')", timeout=120_000)
    after = masks(server, "one")
    for position, name in enumerate(sorted(before)):
        if position in (0, *range(8, COUNT)):
            assert after[name] == before[name]
        old, new = (np.array(Image.open(io.BytesIO(each[name]))) for each in (before, after))
        np.testing.assert_array_equal(old == 1, new == 1)


def test_one_is_led_from_doubt_to_doubt(page, server):
    open_video(page, "long")
    page.click("[data-tool=lasso]")
    drag(page, (40, 40), (100, 40), (100, 100), (40, 100))
    wait_saved(page, "lasso")
    page.keyboard.press("t")
    wait_tracked(page)
    quality = np.fromfile(server.output / "long" / "quality" / "1.u8", np.uint8)
    quality[quality >= 101] = 255
    apart = int(page.evaluate("async () => (await (await fetch('/api/p/long')).json()).rate") / 2 + 0.5)
    led = []
    for _ in range(3):
        page.keyboard.press("n")
        wait_left(page, led[-1] if led else 0)
        led.append(int(page.input_value("#frame")))
        assert quality[led[-1]] == min(value for position, value in enumerate(quality)
                                       if all(abs(position - other) > apart for other in led[:-1]))
    # A corrected frame is not in doubt.
    page.keyboard.press("g")
    page.keyboard.type(str(led[0]))
    page.keyboard.press("Enter")
    wait_frame(page, led[0])
    drag(page, (40, 40), (100, 40), (100, 100), (40, 100))
    wait_saved(page, "lasso")
    page.reload()
    page.wait_for_selector("#undo[title='Undo: lasso']")
    page.keyboard.press("n")
    wait_left(page, 0)
    assert int(page.input_value("#frame")) != led[0]


def test_playing_goes_round_in_the_range_and_steps(page, server):
    open_video(page, "long")
    for key in (*["ArrowRight"] * 3, "i", *["ArrowRight"] * 5, "o"):
        page.keyboard.press(key)
    page.select_option("#speed", "2")
    page.focus("#canvas")
    page.evaluate("""() => {
        window.seen = new Set();
        const look = () => { seen.add(+document.querySelector("#frame").value); requestAnimationFrame(look); };
        requestAnimationFrame(look);
    }""")
    page.keyboard.press("Space")
    page.wait_for_timeout(2000)
    page.keyboard.press("Space")
    seen = set(page.evaluate("[...seen]"))
    assert len(seen) > 3 and seen <= set(range(3, 9))
    page.click("#loop")
    page.keyboard.press("Home")
    page.focus("#canvas")
    page.keyboard.press("Space")
    page.wait_for_selector("#play[aria-label=play]")
    assert page.input_value("#frame") == "8"


def test_an_export_tells_how_far_it_is_and_can_be_cancelled(page, server):
    open_video(page, "long")
    page.click("[data-tool=lasso]")
    drag(page, (40, 40), (100, 40), (100, 100), (40, 100))
    wait_saved(page, "lasso")
    page.keyboard.press("t")
    wait_tracked(page)
    page.keyboard.press("Control+e")
    for name in ("prores", "webm-alpha", "gif", "cutout-png", "mattes", "coco"):
        page.check(f"input[value={name}]")
    page.wait_for_selector("#command:has-text('--format')")
    command = page.text_content("#command")
    assert "export_masks.py" in command and "webm-alpha" in command
    page.click("#run-export")
    page.click("#exported button")
    page.wait_for_selector("#exported:has-text('cancelled')", timeout=60_000)
    page.evaluate("""() => {
        window.told = new Set();
        new MutationObserver(() => told.add(document.querySelector("#export-pace")?.textContent)).observe(
            document.querySelector("#exported"), {childList: true, subtree: true, characterData: true});
    }""")
    page.click("#run-export")
    page.wait_for_selector("#exported a", timeout=120_000)
    assert [text for text in page.evaluate("[...told]") if text and re.fullmatch(r"\d+ of 60 frames", text)]
    assert page.locator("#exported a").count() == 6
    with page.expect_download() as waiting:
        page.click("#exported a:has-text('coco')")
    assert waiting.value.path().stat().st_size > 100


def test_before_and_after_are_beside_each_other(page, server):
    open_video(page, "one")
    plain = """() => {
        const canvas = document.querySelector("#canvas"), context = canvas.getContext("2d");
        return [0.25, 0.75].map(at => [...context.getImageData(canvas.width * at, canvas.height / 2, 1, 1).data]);
    }"""
    page.wait_for_timeout(500)
    empty = page.evaluate(plain)
    page.click("[data-tool=lasso]")
    drag(page, (5, 5), (195, 5), (195, 139), (5, 139))
    wait_saved(page, "lasso")
    page.wait_for_timeout(500)
    masked = page.evaluate(plain)
    assert masked[0] != empty[0] and masked[1] != empty[1]
    page.fill("#wipe", "50")
    page.wait_for_timeout(500)
    assert page.evaluate(plain) == [empty[0], masked[1]]


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
    wait_frame(page, 6)
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


def test_a_pen_draws_while_the_hand_lies_on_the_glass(browser, server):
    context = browser.new_context(viewport={"width": 1024, "height": 768}, has_touch=True)
    page = context.new_page()
    page.goto(server.address)
    open_video(page, "one")
    page.tap("[data-tool=brush]")
    session = context.new_cdp_session(page)

    def pen(kind, x, y):
        x, y = place(page, x, y)
        session.send("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1,
                                                  "buttons": int(kind != "mouseReleased"), "pointerType": "pen"})

    def hand(kind, *places):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [
            dict(zip("xy", place(page, *each), strict=True), id=number) for number, each in enumerate(places)]})

    pen("mousePressed", 40, 50)
    hand("touchStart", (150, 120))
    pen("mouseMoved", 70, 50)
    hand("touchMove", (152, 125))
    pen("mouseMoved", 100, 50)
    hand("touchEnd")
    pen("mouseMoved", 120, 50)
    pen("mouseReleased", 120, 50)
    wait_saved(page, "brush")
    ids = shown_ids(page, "one", 0)
    assert (ids[50, 40:120] == 1).all() and not ids[90:].any()
    context.close()


def test_no_action_keeps_the_page_busy_for_long(browser, page, server, clip, tmp_path):
    """By the browser's own account of the tasks in the page's thread, with a video of 1080p.

    A task counts with what the thread itself worked: other processes may have the core in between.
    """
    (server.root / "large").mkdir()
    for number, image in enumerate(clip[0][:6]):
        Image.fromarray(image).resize((1920, 1080)).save(server.root / "large" / f"{number}.jpg")
    open_video(page, "large")
    page.wait_for_timeout(500)
    browser.start_tracing(page=page, path=tmp_path / "trace.json",
                          categories=["toplevel", "disabled-by-default-devtools.timeline"])
    box = page.locator("#canvas").bounding_box()
    page.keyboard.press("b")
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 300, steps=20)
    page.mouse.up()
    wait_saved(page, "brush")
    page.keyboard.press("t")
    wait_tracked(page)
    for key in ("Home", "Space"):
        page.keyboard.press(key)
    page.wait_for_timeout(1500)
    for key in ("Space", "Control+z", "?", "Escape", "Control+e", "Escape", "n", "+", "0"):
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    browser.stop_tracing()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    threads = {(event["pid"], event["tid"]) for event in events
               if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"}
    worked = [event["tdur"] / 1000 for event in events
              if event["name"].endswith("RunTask") and "tdur" in event and (event["pid"], event["tid"]) in threads]
    assert len(worked) > 1000 and 1 < max(worked) < 100


def test_two_browsers_two_videos_and_a_reload_while_tracking(page, browser, server):
    other = browser.new_page()
    other.goto(server.address)
    for each, name, left in ((page, "long", 30), (other, "two", 120)):
        open_video(each, name)
        each.click("[data-tool=lasso]")
        drag(each, (left, 40), (left + 40, 40), (left + 40, 90), (left, 90))
        wait_saved(each, "lasso")
    page.click("#track")
    other.click("#track")
    page.wait_for_selector("#pace:has-text('fps')", timeout=120_000)
    page.reload()
    # The page that is loaded anew goes on telling how far it is.
    page.wait_for_selector("#pace:has-text('/ 60')", timeout=120_000)
    other.wait_for_selector(".toast:has-text('frames tracked')", timeout=120_000)
    page.wait_for_selector("#tracking:not([hidden])", timeout=120_000)
    for name, left in (("long", 30), ("two", 120)):
        ids = shown_ids(page, name, 0)
        assert ids[60, left + 20] == 1 and (ids == 1).sum() < 2600
    for name, count in (("long", LONG), ("two", COUNT)):
        assert len(list((server.output / name / "masks").iterdir())) == count
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
        strange = browser.new_page()
        assert strange.goto(address.replace(re.search("token=(.+)", address)[1], "guessed")).status == 403
        strange.close()
        assert server.end() == 0
    finally:
        server.process.kill()


def test_a_foreign_page_gets_nothing(browser, server, tmp_path):
    """Another page in the same browser: neither its requests nor its sockets are answered, under any name."""
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "index.html").write_text("foreign")
    with subprocess.Popen([sys.executable, "-m", "http.server", "8939", "--bind", "127.0.0.1", "--directory",
                           tmp_path / "foreign"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as foreign:
        try:
            page = browser.new_page()
            for _ in range(50):
                try:
                    page.goto("http://127.0.0.1:8939/")
                    break
                except playwright.Error:
                    page.wait_for_timeout(100)
            answers = page.evaluate("""async ([address, video]) => {
                const body = JSON.stringify({video});
                const read = await fetch(`${address}api/start`).then(answer => answer.text(), () => "refused");
                await fetch(`${address}api/open`, {method: "POST", mode: "no-cors", body}).catch(() => null);
                const socket = new WebSocket(`${address.replace("http", "ws")}api/p/one/events`);
                const line = await new Promise(done => {
                    socket.onopen = () => done("open");
                    socket.onerror = () => done("refused");
                });
                return [read, line];
            }""", [server.address, str(server.root / "one")])
            assert answers == ["refused", "refused"] and not (server.output / "one").exists()
            page.close()
        finally:
            foreign.terminate()


@pytest.mark.parametrize("path", ["../", "/etc", "one/../../../etc"])
def test_nothing_outside_of_the_root_is_opened(page, path):
    page.fill("#path", path)
    page.press("#path", "Enter")
    page.wait_for_selector(".toast.bad:has-text('outside')")
    assert page.is_visible("#start")


def test_images_are_uploaded_as_one_video(page, server):
    page.set_input_files("#file", sorted((server.root / "one").iterdir()))
    page.wait_for_selector("#about:has-text('12 frames')")
    assert len(list((server.output / "uploads" / "images").iterdir())) == COUNT


def test_upload_of_rubbish_is_one_message(page):
    page.set_input_files("#file", {"name": "a.mp4", "mimeType": "video/mp4", "buffer": io.BytesIO(b"x" * 99).read()})
    page.wait_for_selector(".toast.bad")
    assert page.locator(".toast").count() == 1
