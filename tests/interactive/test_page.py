"""The page in a real browser: from an empty folder to an exported clip, and every way to draw."""

import numpy as np
import pytest
from PIL import Image

from tests.interactive.page_steps import (
    COUNT,
    SIZE,
    drag,
    draw,
    draw_rectangle,
    open_video,
    place,
    send,
    shown_ids,
    track,
    wait_frame,
    wait_saved,
    wait_shown,
    wait_tracked,
)
from util.image_io import read_mask

pytestmark = pytest.mark.slow


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
    draw(page, "box", (20, 20), (80, 80))
    draw(page, "brush", (120, 100), (160, 110))
    draw(page, "eraser", (120, 100), (130, 100))
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


def test_nothing_is_drawn_into_a_frame_that_is_not_shown_yet(page, server):
    open_video(page, "one")
    held = []
    page.route("**/frame/**", lambda route: held.append(route))
    page.keyboard.press("End")
    page.wait_for_selector("#canvas[aria-busy=true]")
    page.click("[data-tool=lasso]")
    drag(page, (40, 40), (100, 40), (100, 100), (40, 100))
    page.wait_for_selector(".toast:has-text('still loading')")
    for route in held:
        route.continue_()
    wait_frame(page, COUNT - 1)
    assert page.is_disabled("#undo")
    draw_rectangle(page, 40, 40, 100, 100)
    assert [path.name for path in (server.output / "one" / "annotations").iterdir()] == [f"{COUNT - 1:05d}.png"]


def test_a_stroke_that_changes_nothing_does_not_stay_on_the_frame(page, server):
    open_video(page, "one")
    draw_rectangle(page, 40, 40, 100, 100)
    shown = """(then = "") => {
        const canvas = document.querySelector("#canvas"), context = canvas.getContext("2d");
        const now = [...context.getImageData(canvas.width * 0.8, canvas.height / 2, 1, 1).data].join();
        return then ? now === then : now;
    }"""
    page.wait_for_timeout(500)
    before = page.evaluate(shown)
    page.click("[data-tool=eraser]")
    drag(page, (130, 72), (190, 72), (190, 20))
    page.wait_for_function(shown, arg=before)
    assert page.get_attribute("#undo", "title") == "Undo: lasso"


def test_nothing_is_called_saved_before_it_is(page, server):
    """An object is added at once with the first click, which then takes a while."""
    def hold_what_is_drawn(socket):
        line = socket.connect_to_server()
        socket.on_message(lambda text: held.append((line, text)) if '"draw"' in text else line.send(text))

    held = []
    page.route_web_socket("**/events", hold_what_is_drawn)
    open_video(page, "one")
    page.click("[data-tool=lasso]")
    drag(page, (40, 40), (100, 40), (100, 100), (40, 100))
    page.wait_for_selector("#undo[title='Undo: add object']")
    page.wait_for_timeout(500)
    assert page.text_content("#saved") == "saving …"
    for line, text in held:
        line.send(text)
    wait_saved(page, "lasso")


def test_an_object_is_drawn_while_it_is_being_added(page, server):
    """Whatever the page sends is held, as when the server has much to do, or is away."""
    def hold(socket):
        line = socket.connect_to_server()
        socket.on_message(lambda text: held.append((line, text)))

    held = []
    page.route_web_socket("**/events", hold)
    open_video(page, "one")
    page.click("[data-tool=lasso]")
    for left in (20, 80, 140):
        if left > 20:
            page.keyboard.press("a")
        drag(page, (left, 40), (left + 30, 40), (left + 30, 90), (left, 90))
    for line, text in held:
        line.send(text)
    wait_saved(page, "lasso")
    assert page.locator("#objects li[data-id]").count() == 3
    assert page.get_attribute("#objects [aria-current=true]", "data-id") == "3"
    assert [shown_ids(page, "one", 0)[60, x] for x in (35, 95, 155)] == [1, 2, 3]


def test_a_project_is_opened_again_where_one_was(page, server):
    open_video(page, "one")
    page.keyboard.press("End")
    wait_frame(page, COUNT - 1)
    page.reload()
    wait_frame(page, COUNT - 1)
    page.keyboard.press("ArrowLeft")
    wait_frame(page, COUNT - 2)
    page.click("#home")
    page.click("#projects button")
    wait_frame(page, COUNT - 2)
    page.click("#home")
    page.wait_for_selector("#start:not([hidden])")
    open_video(page, "two")
    wait_frame(page, 0)


def test_a_frame_that_does_not_come_keeps_no_other_from_being_shown(page, server):
    open_video(page, "one")
    held = []
    page.route("**/frame/1?*", lambda route: held.append(route))
    page.keyboard.press("ArrowRight")
    while not held:
        page.wait_for_timeout(50)
    page.keyboard.press("ArrowRight")
    for route in held:
        route.abort()
    wait_frame(page, 2)
    draw_rectangle(page, 40, 40, 100, 100)
    assert [path.name for path in (server.output / "one" / "annotations").iterdir()] == ["00002.png"]
    # Back to the other one: nothing can be drawn there.
    page.unroute("**/frame/1?*")
    page.route("**/frame/1?*", lambda route: route.abort())
    page.keyboard.press("ArrowLeft")
    wait_frame(page, 1)
    drag(page, (40, 40), (100, 40), (100, 100), (40, 100))
    page.wait_for_selector(".toast:has-text('not there')")
    assert len(list((server.output / "one" / "annotations").iterdir())) == 1


def test_what_may_be_lost_with_the_connection_is_told(page, server):
    sockets = []
    page.route_web_socket("**/events", lambda socket: (socket.connect_to_server(), sockets.append(socket)))
    open_video(page, "one")
    page.wait_for_selector("#saved:text-is('saved')")
    sockets[0].close()
    page.wait_for_selector("#saved:text-is('no connection')")
    page.wait_for_selector("#saved:text-is('saved')")
    assert page.locator(".toast").count() == 0
    sockets[1].on_message(lambda text: sockets[1].close())
    page.keyboard.press("a")
    page.wait_for_selector(".toast:has-text('look whether it is there')")


def test_a_mask_that_changes_while_its_frame_is_loading_is_shown(page, server):
    open_video(page, "one")
    draw_rectangle(page, 40, 40, 100, 100)
    held = []
    page.route("**/frame/1?*", lambda route: held.append(route))
    with page.expect_response("**/mask/1"):
        page.keyboard.press("ArrowRight")
    send(page, "one", do="draw", tool="brush", frame=1, object=1, points=[[20, 72], [180, 72]], width=40)
    wait_saved(page, "brush")
    for route in held:
        route.continue_()
    wait_frame(page, 1)
    middle = """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
        const canvas = document.querySelector("#canvas"), context = canvas.getContext("2d");
        done([...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data]);
    })))"""
    masked = page.evaluate(middle)
    page.keyboard.press("v")
    assert page.evaluate(middle) != masked


def test_a_frame_stays_shown_while_the_next_one_takes_long(page, server):
    """It was loaded first of all that the page keeps, and is shown again."""
    open_video(page, "long")
    for position in range(1, 24):
        page.keyboard.press("ArrowRight")
        wait_frame(page, position)
    page.keyboard.press("Home")
    wait_frame(page, 0)
    page.route("**/frame/**", lambda route: None)
    page.keyboard.press("End")
    page.wait_for_timeout(2500)
    page.mouse.move(*place(page, 100, 72))
    page.wait_for_timeout(500)
    assert not page.problems


def test_a_frame_that_comes_late_is_not_shown_in_the_next_project(page, server):
    held = []
    page.route("**/p/one/frame/**", lambda route: held.append(route))
    for name in ("one", "two"):
        page.fill("#path", name)
        page.press("#path", "Enter")
        page.wait_for_selector(f"#title:text-is('{name}')")
        page.wait_for_timeout(500)
        if name == "one":
            page.click("#home")
            page.wait_for_selector("#path:visible")
    assert held
    for route in held:
        route.continue_()
    page.wait_for_selector("#canvas[aria-busy=false]")
    page.wait_for_timeout(500)
    middle = """() => {
        const canvas = document.querySelector("#canvas"), context = canvas.getContext("2d");
        return [...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data].slice(0, 3);
    }"""
    late = page.evaluate(middle)
    page.reload()
    wait_frame(page, 0)
    page.wait_for_timeout(500)
    assert np.abs(np.subtract(late, page.evaluate(middle))).max() < 8
    assert page.locator(".toast").count() == 0


def test_keyboard_alone(page, server):
    # What is not shown yet takes no focus.
    page.wait_for_selector("#path")
    page.focus("#path")
    page.keyboard.type("one")
    page.keyboard.press("Enter")
    page.wait_for_selector("#about:has-text('frames')")
    wait_shown(page)
    for key in ("b", "]", "Enter", *["Shift+ArrowRight"] * 3, "Enter"):
        page.keyboard.press(key)
    # The first Enter puts the cursor into the middle.
    page.keyboard.press("Enter")
    wait_saved(page, "brush")
    track(page)
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


def test_nothing_is_added_to_be_erased(page, server):
    open_video(page, "one")
    page.keyboard.press("Delete")
    page.click("[data-tool=eraser]")
    drag(page, (40, 40), (100, 40))
    page.click("[data-tool=away]")
    page.mouse.click(*place(page, 40, 40))
    page.wait_for_timeout(500)
    assert page.is_disabled("#undo") and page.locator("#objects li[data-id]").count() == 0


def test_messages_cover_no_control_and_are_before_a_dialog(page, server):
    open_video(page, "one")
    page.keyboard.press("Control+e")
    page.wait_for_selector("#export-dialog")
    page.mouse.move(0, 0)
    dialog = page.locator("#export-dialog").bounding_box()
    page.evaluate("""async () => (await import("/static/panels.js")).tell("there is no space left: ".repeat(7))""")
    toast = page.locator(".toast").bounding_box()
    clip = {"x": dialog["x"] + 30, "y": dialog["y"] + 20, "width": toast["x"] + toast["width"] - dialog["x"] - 40,
            "height": toast["y"] + toast["height"] - dialog["y"] - 25}
    shown = page.screenshot(clip=clip)
    page.evaluate("document.querySelector('.toast').style.opacity = 0")
    assert page.screenshot(clip=clip) != shown
    page.keyboard.press("Escape")
    covered = page.evaluate("""({x, y, width, height}) =>
        [...document.querySelectorAll("#editor :is(button, input, select)")].filter(each => {
            const box = each.getBoundingClientRect();
            return box.width && x < box.right && x + width > box.left && y < box.bottom && y + height > box.top;
        }).map(each => each.outerHTML)""", toast)
    assert not covered


def test_keys_are_those_of_the_page_after_a_click_on_a_button(page, server):
    open_video(page, "long")
    page.click("#add")
    page.wait_for_selector("#objects li[data-id='1']")
    for button in ("[data-tool=brush]", "[aria-label='lock object 1']", "#zoom-in", "#clear", "#help"):
        page.click(button)
        if button == "#help":
            page.keyboard.press("Escape")
        page.keyboard.press("Space")
        page.wait_for_selector("#play[aria-label=pause]")
        page.keyboard.press("Space")
    # Whoever comes to a button with the keyboard presses it with the keyboard.
    page.focus("[data-tool=lasso]")
    page.keyboard.press("Space")
    assert page.get_attribute("[data-tool=lasso]", "aria-pressed") == "true"
    assert page.get_attribute("#play", "aria-label") == "play"


def test_objects_are_named_hidden_locked_merged_and_deleted(page, server):
    open_video(page, "one")
    for number, left in enumerate((20, 80, 140)):
        page.click("#add")
        page.wait_for_selector(f"#objects li[aria-current=true][data-id='{number + 1}']")
        draw_rectangle(page, left, 40, left + 30, 90)
    assert [shown_ids(page, "one", 0)[60, x] for x in (35, 95, 155)] == [1, 2, 3]
    page.locator("#objects .name").nth(2).fill("cup")
    page.keyboard.press("Enter")
    wait_saved(page, "change object")
    page.press("[aria-label='lock object 2']", "Space")
    page.wait_for_selector("[aria-label='lock object 2'][aria-pressed=true]")
    # The focus stays where it was, although the list is made anew.
    assert page.evaluate("document.activeElement.ariaLabel") == "lock object 2"
    # Nobody draws over a locked object.
    draw_rectangle(page, 70, 50, 120, 70)
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


def test_a_name_that_is_emptied_or_escaped_from_stays(page, server):
    open_video(page, "one")
    draw_rectangle(page, 40, 40, 100, 100)
    name = page.locator("#objects .name")
    for text, key in (("", "Enter"), ("cup", "Escape")):
        name.fill(text)
        name.press(key)
        assert name.input_value() == "object 1"
    page.wait_for_timeout(500)
    assert page.get_attribute("#undo", "title") == "Undo: lasso" and page.locator(".toast").count() == 0


def test_a_click_that_is_refused_leaves_no_dot(page, server):
    open_video(page, "one")
    page.click("#add")
    page.wait_for_selector("#objects li[data-id='1']")
    page.click("[aria-label='lock object 1']")
    page.wait_for_selector("[aria-label='lock object 1'][aria-pressed=true]")
    page.click("[data-tool=click]")
    page.mouse.move(*place(page, 50, 50))
    colour = """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
        const canvas = document.querySelector("#canvas"), context = canvas.getContext("2d");
        done([...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data]);
    })))"""
    plain = page.evaluate(colour)
    page.mouse.click(*place(page, SIZE[0] / 2, SIZE[1] / 2))
    page.wait_for_selector(".toast:has-text('object 1 is locked')")
    assert page.evaluate(colour) == plain


def test_a_name_is_typed_while_another_tab_deletes_and_adds(page, server):
    open_video(page, "one")
    for number in ("1", "2"):
        page.click("#add")
        page.wait_for_selector(f"#objects li[data-id='{number}']")
    name = page.locator("#objects [data-id='1'] .name")
    name.click()
    assert page.get_attribute("#objects [aria-current=true]", "data-id") == "1"
    name.fill("cup")
    send(page, "one", do="delete object", id=2)
    wait_saved(page, "delete object")
    send(page, "one", do="add object")
    wait_saved(page, "add object")
    assert name.input_value() == "cup" and not page.locator("#objects li[data-id='2']").count()
    page.keyboard.type("s")
    page.keyboard.press("Enter")
    wait_saved(page, "change object")
    page.wait_for_selector("#objects li[data-id='3']")
    assert name.input_value() == "cups"


def test_undo_in_a_polygon_takes_back_its_last_corner(page, server):
    open_video(page, "one")
    draw_rectangle(page, 140, 40, 180, 100)
    page.click("[data-tool=polygon]")
    for point in ((20, 20), (80, 20), (80, 80), (120, 140)):
        page.mouse.click(*place(page, *point))
    page.keyboard.press("Control+z")
    page.keyboard.press("Enter")
    wait_saved(page, "polygon")
    ids = shown_ids(page, "one", 0)
    assert ids[40, 70] == 1 and ids[70, 160] == 1 and not ids[100:, :130].any()


def test_before_and_after_are_beside_each_other(page, server):
    open_video(page, "one")
    plain = """() => {
        const canvas = document.querySelector("#canvas"), context = canvas.getContext("2d");
        return [0.25, 0.75].map(at => [...context.getImageData(canvas.width * at, canvas.height / 2, 1, 1).data]);
    }"""
    page.wait_for_timeout(500)
    empty = page.evaluate(plain)
    draw_rectangle(page, 5, 5, 195, 139)
    page.wait_for_timeout(500)
    masked = page.evaluate(plain)
    assert masked[0] != empty[0] and masked[1] != empty[1]
    page.fill("#wipe", "50")
    page.wait_for_timeout(500)
    assert page.evaluate(plain) == [empty[0], masked[1]]


def test_the_canvas_shows_the_exported_mask_pixel_for_pixel(page, server):
    open_video(page, "one")
    draw_rectangle(page, 40, 40, 100, 100)
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


def test_a_frame_is_sharp_after_zooming_in(page, server):
    (server.root / "fine").mkdir()
    stripes = np.tile(np.uint8([0, 255]), (1000, 1000))
    for number in range(2):
        Image.fromarray(stripes).save(server.root / "fine" / f"{number}.png")
    open_video(page, "fine")
    page.mouse.move(*place(page, 100, 72))
    for _ in range(12):
        page.mouse.wheel(0, -120)
    # Black and white lie side by side, as in the file.
    page.wait_for_function("""() => {
        const canvas = document.querySelector("#canvas"), context = canvas.getContext("2d");
        const data = context.getImageData(canvas.width / 2, canvas.height / 2, 200, 1).data;
        const row = data.filter((_, i) => i % 4 === 0);
        return Math.min(...row) < 60 && Math.max(...row) > 195;
    }""")


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
