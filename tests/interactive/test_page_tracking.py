"""The page in a real browser: tracking, playing and exporting."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.interactive.page_steps import (
    COUNT,
    LONG,
    draw,
    draw_rectangle,
    masks,
    open_video,
    shown_ids,
    track,
    wait_frame,
    wait_left,
)

pytestmark = pytest.mark.slow


def test_some_objects_are_tracked_from_one_drawn_frame_to_the_next(page, server):
    open_video(page, "one")
    for number, left in enumerate((20, 120)):
        page.click("#add")
        page.wait_for_selector(f"#objects li[aria-current=true][data-id='{number + 1}']")
        draw_rectangle(page, left, 40, left + 40, 90)
    track(page)
    page.keyboard.press("Home")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    wait_frame(page, 8)
    draw_rectangle(page, 150, 100, 180, 130)
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
    draw_rectangle(page, 40, 40, 100, 100)
    track(page)
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
    draw_rectangle(page, 40, 40, 100, 100)
    page.reload()
    page.wait_for_selector("#undo[title='Undo: lasso']")
    page.keyboard.press("n")
    wait_left(page, led[0])
    assert int(page.input_value("#frame")) != led[0]


def test_playing_goes_round_in_the_range_and_steps(page, server):
    open_video(page, "long")
    for key in (*["ArrowRight"] * 3, "i", *["ArrowRight"] * 5, "o"):
        page.keyboard.press(key)
    page.select_option("#speed", "2")
    page.focus("#canvas")
    page.evaluate("""() => {
        window.seen = [];
        const look = () => {
            const position = +document.querySelector("#frame").value;
            if (position !== seen.at(-1)) seen.push(position);
            requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
    }""")
    page.keyboard.press("Space")
    # From the last frame, it begins at the first; until it has gone round once more.
    page.wait_for_function("""() =>
        seen.filter((position, at) => position < seen[at - 1]).length > 1 && new Set(seen).size > 3""")
    page.keyboard.press("Space")
    assert set(page.evaluate("seen")) <= set(range(3, 9))
    page.click("#loop")
    page.keyboard.press("Home")
    page.focus("#canvas")
    page.keyboard.press("Space")
    page.wait_for_selector("#play[aria-label=play]")
    assert page.input_value("#frame") == "8"


def test_an_export_tells_how_far_it_is_and_can_be_cancelled(page, server):
    open_video(page, "long")
    draw_rectangle(page, 40, 40, 100, 100)
    track(page)
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


def test_a_correction_in_the_middle_changes_nothing_before_it(page, server):
    open_video(page, "one")
    draw_rectangle(page, 40, 40, 100, 100)
    track(page)
    before = masks(server, "one")
    page.keyboard.press("Home")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    wait_frame(page, 6)
    draw(page, "brush", (110, 110), (180, 120))
    page.keyboard.press("t")
    page.wait_for_selector(".toast:has-text('6 frames tracked')", timeout=120_000)
    after = masks(server, "one")
    assert len(after) == COUNT and all(after[name] == before[name] for name in sorted(before)[:6])
    assert all(after[name] != before[name] for name in sorted(before)[6:8])


def test_two_browsers_two_videos_and_a_reload_while_tracking(page, browser, server):
    other = browser.new_page()
    other.goto(server.address)
    for each, name, left in ((page, "long", 30), (other, "two", 120)):
        open_video(each, name)
        draw_rectangle(each, left, 40, left + 40, 90)
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


def test_no_quality_is_shown_of_an_object_whose_adding_was_undone(page, server):
    open_video(page, "one")
    draw_rectangle(page, 40, 40, 100, 100)
    track(page)
    for title in ("Redo: lasso", "Redo: add object"):
        page.keyboard.press("Control+z")
        page.wait_for_selector(f"#redo[title='{title}']")
    page.keyboard.press("n")
    page.wait_for_selector(".toast:has-text('no frame is in doubt')")
    # It comes back without what was tracked of it.
    page.keyboard.press("Control+Shift+z")
    page.wait_for_selector("#objects li[data-id='1']")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    wait_frame(page, 1)
    assert page.text_content("#objects .fact") == ""
