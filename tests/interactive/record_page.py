"""Record the page at work, for the README: the built-in example from the first click to the tracked clip.

    python tests/interactive/record_page.py docs/annotate.webp
"""

import io
import re
import shutil
import subprocess
import sys
import tempfile
import time

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT, SHOWN_WIDTH = 1180, 740, 900
"""Pixels of the page, and of the recording."""

CLICKS = ((207, 82), (101, 174))
"""Where the two objects of the example are in its first frame, found by eye, in pixels of the frame."""


class Recorder:
    """Takes pictures of a page."""

    def __init__(self, page):
        self.page, self.pictures, self.durations = page, [], []

    def take(self, milliseconds=120, times=1):
        for _ in range(times):
            picture = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
            self.pictures.append(picture.resize((SHOWN_WIDTH, HEIGHT * SHOWN_WIDTH // WIDTH), Image.Resampling.LANCZOS))
            self.durations.append(milliseconds)

    def write(self, path):
        self.pictures[0].save(path, save_all=True, append_images=self.pictures[1:], duration=self.durations, loop=0,
                              quality=60, method=6)


def main(path):
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        server = subprocess.Popen([sys.executable, "annotate.py", "--example", "--no-browser", "--output", folder],
                                  stdout=subprocess.PIPE, text=True)
        try:
            address = re.search(r"http://\S+", server.stdout.readline())[0]
            browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark")
            page.goto(address)
            page.wait_for_selector("#about:has-text('frames')")
            # torch is loading meanwhile.
            time.sleep(8)
            record(page, Recorder(page), path)
        finally:
            server.terminate()
            server.wait()


def record(page, recorder, path):
    width, height = map(int, re.match(r"(\d+)×(\d+)", page.text_content("#about")).groups())
    box = page.locator("#canvas").bounding_box()
    zoom = min((box["width"] - 24) / width, (box["height"] - 24) / height)
    left, top = box["x"] + (box["width"] - width * zoom) / 2, box["y"] + (box["height"] - height * zoom) / 2
    recorder.take(900)
    for number, (x, y) in enumerate(CLICKS):
        if number:
            page.click("#add")
            page.wait_for_selector("#saved:text-is('saved')")
        page.mouse.move(left + x * zoom, top + y * zoom, steps=4)
        page.mouse.click(left + x * zoom, top + y * zoom)
        page.wait_for_selector("#undo[title='Undo: click']")
        time.sleep(0.7)
        recorder.take(1100)
    page.click("#track")
    while page.is_hidden(".toast:has-text('frames tracked')"):
        recorder.take()
    recorder.take(900)
    page.keyboard.press("Home")
    for _ in range(12):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        time.sleep(0.3)
        recorder.take(110)
    recorder.take(1500)
    recorder.write(path)
    print(f"wrote {path}: {len(recorder.pictures)} pictures")


if __name__ == "__main__":
    main(sys.argv[1])
