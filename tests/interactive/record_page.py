"""Record docs/annotate.webp, the moving picture of the README: the page with the built-in example, as it is used.

    python -m tests.interactive.record_page docs/annotate.webp

It takes a Chromium, see CONTRIBUTING.md.
"""

import io
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from util.image_io import read_mask

ROOT = Path(__file__).parents[2]

VIEW, SHOWN = (1280, 800), (960, 600)
"""(width, height) of the page, and of the picture that is made of it."""

LONGEST = 900
"""Milliseconds for which a picture stands at most: nobody need watch how the network is loaded."""

CURSOR = """() => {
    const arrow = document.createElement("div");
    arrow.innerHTML = `<svg width="26" height="26" viewBox="0 0 24 24" style="fill:#fff;stroke:#000;stroke-width:1.2">
        <path d="M4 2l14 11-6.5 1L8 21z"/></svg>`;
    arrow.style = "position:fixed;z-index:99;pointer-events:none;left:640px;top:400px";
    document.body.append(arrow);
    addEventListener("pointermove", event => Object.assign(arrow.style, {left: `${event.clientX - 4}px`,
        top: `${event.clientY - 2}px`}), true);
}"""
"""Screenshots show no pointer, so the page gets one."""


class Film:
    """Pictures of a page, each for as long as it was to be seen."""

    def __init__(self, page):
        self._page, self.pictures, self._times = page, [], []

    def shoot(self):
        self._times.append(time.perf_counter())
        data = self._page.screenshot(type="jpeg", quality=95)
        self.pictures.append(Image.open(io.BytesIO(data)).convert("RGB").resize(SHOWN, Image.LANCZOS))

    def watch(self, seconds, until=None):
        """Shoot for so long, or until there is something on the page."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end and not (until and self._page.query_selector(until)):
            self.shoot()
        self.shoot()

    def save(self, path):
        times = [*self._times, self._times[-1] + 2]
        durations = [min(LONGEST, round(1000 * (after - before)))
                     for before, after in itertools.pairwise(times)]
        durations[-1] = 2000
        self.pictures[0].save(path, save_all=True, append_images=self.pictures[1:], duration=durations, loop=0,
                              quality=62, method=4)


def act(page, film, truth):
    """Mark the two objects of the example, track them, and correct what was lost.

    truth: folder of the true masks, which say where somebody who corrects would draw.
    """
    box = page.locator("#canvas").bounding_box()
    zoom = min((box["width"] - 24) / 427, (box["height"] - 24) / 240)
    left, top = box["x"] + (box["width"] - 427 * zoom) / 2, box["y"] + (box["height"] - 240 * zoom) / 2
    at = [640, 400]

    def move(x, y, steps=4):
        for step in range(1, steps + 1):
            page.mouse.move(at[0] + (x - at[0]) * step / steps, at[1] + (y - at[1]) * step / steps)
            film.shoot()
        at[:] = x, y

    def click_in_frame(x, y):
        move(left + x * zoom, top + y * zoom)
        page.mouse.down()
        page.mouse.up()
        page.wait_for_selector("#saved:text-is('saved')")
        film.watch(0.7)

    def press(selector):
        place = page.locator(selector).bounding_box()
        move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        page.mouse.down()
        page.mouse.up()

    def drag_in_frame(points, steps):
        move(left + points[0][0] * zoom, top + points[0][1] * zoom)
        page.mouse.down()
        for x, y in points[1:]:
            move(left + x * zoom, top + y * zoom, steps)
        page.mouse.up()
        page.wait_for_selector("#saved:text-is('saved')")
        film.watch(0.7)

    def track(selector):
        press(selector)
        film.watch(60, "#progress:not([hidden])")
        film.watch(120, "#tracking:not([hidden])")

    film.watch(0.5)
    press("[data-tool=box]")
    drag_in_frame([(163, 41), (253, 125)], 5)
    press("#add")
    film.watch(0.2)
    press("[data-tool=click]")
    film.watch(0.3)
    click_in_frame(105, 180)
    for row, name in enumerate(("cat", "astronaut")):
        page.locator("#objects .name").nth(row).fill(name)
        page.keyboard.press("Enter")
        film.watch(0.3)
    track("#track")
    film.watch(0.8)
    press("#worst")
    film.watch(0.8)
    position = int(page.input_value("#frame"))
    outlines, _ = cv2.findContours((read_mask(truth / f"{position:05d}.png") == 1).astype(np.uint8),
                                   cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len)[:, 0].tolist()
    press("#objects li:first-child .name")
    press("[data-tool=lasso]")
    drag_in_frame(outline[::max(1, len(outline) // 16)] + outline[:1], 1)
    track("#track")
    page.keyboard.press("Home")
    film.watch(0.3)
    page.keyboard.press("Space")
    film.watch(1.5)


def main(target):
    folder = tempfile.mkdtemp()
    server = subprocess.Popen([sys.executable, "annotate.py", "--no-browser", "--example", "--output", folder],
                              cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+", server.stdout.readline())[0]
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=dict(zip(("width", "height"), VIEW, strict=True)), color_scheme="dark")
            page.goto(address)
            page.wait_for_selector("#about:has-text('frames')")
            page.evaluate(CURSOR)
            time.sleep(15)  # until the networks are there
            film = Film(page)
            act(page, film, Path(folder) / "uploads" / "example" / "truth")
            film.save(target)
            print(f"{target}: {len(film.pictures)} pictures, {Path(target).stat().st_size / 1e6:.2f} MB")
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1])
