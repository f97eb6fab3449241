"""The page in a real browser: what becomes of it when its server is killed, and who gets in."""

import io
import json
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
from tests.interactive.page_steps import (
    COUNT,
    LONG,
    SIZE,
    Server,
    drag,
    draw,
    draw_rectangle,
    open_video,
    shown_ids,
    track,
    wait_saved,
    wait_shown,
)
from tests.server import serving
from util.image_io import read_mask

pytestmark = pytest.mark.slow


def test_ten_kills_lose_nothing_that_was_shown(page, server):
    """kill -9 at random moments, while somebody draws and while it is tracked. In the end all masks are as without."""
    moments = random.Random(5)
    open_video(page, "long")
    for number in range(10):
        draw(page, "brush", (30, 15 + 11 * number), (150, 15 + 11 * number))
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
    track(page)
    server.end()
    shutil.copytree(server.output / "long" / "annotations", server.root / "annotations")
    subprocess.run([sys.executable, "track.py", server.root / "long", server.root / "annotations", "--output",
                    server.root / "tracked", "--no-overlay", "--threads", "1"], cwd=ROOT, check=True)
    for position in range(LONG):
        np.testing.assert_array_equal(read_mask(server.output / "long" / "masks" / f"{position:05d}.png"),
                                      read_mask(server.root / "tracked" / "masks" / f"{position:05d}.png"))


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
    track(page)
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


def test_the_token_is_asked_for_and_leaves_the_address(browser, page_root):
    server = Server(page_root)
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


def test_a_foreign_page_gets_nothing(browser, server):
    """Another page in the same browser: neither its requests nor its sockets are answered, under any name."""
    with serving() as foreign:
        page = browser.new_page()
        page.goto(foreign.url("index.html", "foreign"))
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


def test_nothing_is_drawn_on_the_picture_of_another_frame_while_the_server_is_away(page, server):
    open_video(page, "one")
    server.end(signal.SIGKILL)
    page.wait_for_selector("#saved:text-is('no connection')")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".toast:has-text('the server does not answer')")
    page.click("[data-tool=lasso]")
    drag(page, (40, 40), (100, 40), (100, 100), (40, 100))
    page.wait_for_selector(".toast:has-text('not there')")
    opaque = """wanted => {
        const canvas = document.querySelector("#canvas"), context = canvas.getContext("2d");
        return context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data[3] === wanted;
    }"""
    page.wait_for_function(opaque, arg=0)
    server.start()
    # The frame comes by itself.
    page.wait_for_function(opaque, arg=255)
    assert page.input_value("#frame") == "1" and page.is_disabled("#undo")
    draw_rectangle(page, 40, 40, 100, 100)
    assert [path.name for path in (server.output / "one" / "annotations").iterdir()] == ["00001.png"]


def test_what_is_drawn_while_the_server_is_away_waits_also_if_the_project_is_left(page, server):
    open_video(page, "one")
    server.end(signal.SIGKILL)
    page.wait_for_selector("#saved:text-is('no connection')")
    page.click("[data-tool=lasso]")
    for left in (20, 80, 140):
        drag(page, (left, 40), (left + 30, 40), (left + 30, 90), (left, 90))
        assert page.text_content("#saved") == "no connection"
    page.click("#home")
    server.start()
    page.wait_for_timeout(500)
    page.goto(f"{server.address}#one")
    wait_saved(page, "lasso")
    wait_shown(page)
    assert page.locator("#objects li[data-id]").count() == 1
    assert [shown_ids(page, "one", 0)[60, x] for x in (35, 95, 155)] == [1, 1, 1]


def test_a_project_that_is_gone_is_left_with_one_message(page, server):
    open_video(page, "one")
    server.end(signal.SIGKILL)
    page.wait_for_selector("#saved:text-is('no connection')")
    page.keyboard.press("a")
    shutil.rmtree(server.output / "one")
    server.start()
    page.wait_for_selector("#start:not([hidden])")
    assert page.locator(".toast:has-text('there is no such project')").count() == 1
    # What waited for the old one does not come into a new one.
    open_video(page, "one")
    page.wait_for_selector("#editor:not([hidden])")
    page.wait_for_selector("#saved:text-is('saved')")
    assert page.is_disabled("#undo")


def test_tracking_that_ends_with_the_server_is_not_taken_as_done(page, server):
    open_video(page, "long")
    draw_rectangle(page, 40, 40, 100, 100)
    page.keyboard.press("t")
    page.wait_for_selector("#pace:has-text('fps')", timeout=120_000)
    server.end(signal.SIGKILL)
    page.wait_for_selector("#saved:text-is('no connection')")
    server.start()
    page.wait_for_selector(".toast:has-text('tracking ended')")
    assert page.is_visible("#tracking")
