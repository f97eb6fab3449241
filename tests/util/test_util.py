import io
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from util.errors import InputError, run_script
from util.files import atomic_path, lock_folder
from util.image_io import davis_palette, read_image, read_mask, write_mask
from util.options import OptionParser
from util.overlay import draw_ids, draw_overlay, draw_stamp
from util.pipeline import Background, mark_last, prefetch
from util.timing import Latencies


def test_palette_is_that_of_davis():
    palette = davis_palette()
    assert palette[:6].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]]
    assert palette[255].tolist() == [224, 224, 192]


def test_mask_survives_writing_and_reading(tmp_path):
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "m.png", ids)
    assert (read_mask(tmp_path / "m.png") == ids).all()
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_grey_masks(tmp_path):
    ids = np.array([[0, 3], [255, 1]], np.uint8)
    Image.fromarray(ids).save(tmp_path / "grey.png")
    assert (read_mask(tmp_path / "grey.png") == ids).all()
    Image.fromarray(ids > 2).save(tmp_path / "bits.png")
    assert (read_mask(tmp_path / "bits.png") == (ids > 2)).all()
    Image.fromarray(ids.astype(np.uint16)).save(tmp_path / "deep.png")
    assert (read_mask(tmp_path / "deep.png") == ids).all()


def test_turned_photograph_is_read_upright(tmp_path):
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (20, 10, 3)


def test_nothing_half_written_takes_a_file_s_place(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    with atomic_path(tmp_path / "a") as one, atomic_path(tmp_path / "a") as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


HOLDER = """
import os, sys, time
from util.files import atomic_path, lock_folder
with lock_folder(sys.argv[1]), atomic_path(sys.argv[1] + "/a") as temporary:
    temporary.write_text("half")
    if not os.fork():
        print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="locks need fork and flock")
def test_a_killed_run_leaves_neither_lock_nor_half_a_file(tmp_path):
    """Although a process that it forked, as those of a DataLoader are, lives on for a while."""
    (tmp_path / ".mine.part").write_text("of the user")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE,
                              start_new_session=True)
    try:
        assert holder.stdout.readline() == b"ready\n"
        with pytest.raises(InputError, match="another run is writing here"), lock_folder(tmp_path):
            pass
        assert len(list(tmp_path.glob(".a.*.part"))) == 1
        holder.kill()
        holder.wait()
        with lock_folder(tmp_path):
            assert [path.name for path in tmp_path.iterdir()] == [".mine.part"]
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.stdout.close()



def test_unreadable_images(tmp_path):
    (tmp_path / "a.png").write_text("text")
    for path, message in ((tmp_path / "a.png", "not a readable image"), (tmp_path / "b.png", "no such file"),
                          (tmp_path, "a folder")):
        with pytest.raises(InputError, match=message):
            read_image(path)


def test_images_of_16_bits_keep_their_brightness(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(ramp).save(tmp_path / name)
        image = read_image(tmp_path / name)
        assert image.shape == (4, 256, 3) and (image == (ramp >> 8)[..., None]).all()
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "b.tiff")
    with pytest.raises(InputError, match="32 bits"):
        read_image(tmp_path / "b.tiff")


def test_overlay_leaves_the_background_alone():
    frame = np.full((20, 20, 3), 100, np.uint8)
    ids = np.zeros((20, 20), np.uint8)
    assert (draw_overlay(frame, ids) == frame).all()
    ids[5:15, 5:15] = 2
    overlay = draw_overlay(frame, ids)
    assert (overlay[:3] == 100).all() and (frame == 100).all()
    assert overlay[10, 10].tolist() == [55, 113, 55]
    # Frames are only read, also where objects are all over.
    frame.flags.writeable = False
    assert (draw_overlay(frame, np.full_like(ids, 2)) == [55, 113, 55]).all() and (frame == 100).all()


@pytest.mark.parametrize("colour", [(128, 0, 0), (255, 0, 0), (0, 0, 0), (255, 255, 255), (127, 127, 127)])
def test_an_object_is_seen_on_any_background(colour):
    """Object 1 is dark red."""
    frame = np.full((60, 60, 3), colour, np.uint8)
    ids = np.zeros((60, 60), np.uint8)
    ids[20:40, 20:40] = 1
    overlay = draw_overlay(frame, ids).astype(int)
    outline = np.abs(overlay[18:42, 30] - colour).sum(1)
    assert outline[:2].max() >= 300 and outline[-2:].max() >= 300
    assert (overlay[:18] == colour).all() and (overlay[:, 42:] == colour).all()


def test_ids_are_written_inside_their_objects():
    """Of a ring, the middle is background; of two parts, one gets the id. At the edge, the text stays whole."""
    yy, xx = np.mgrid[:200, :200]
    radius = np.hypot(yy - 100, xx - 100)
    ids = ((radius > 50) & (radius < 95)).astype(np.uint8) * 12
    ids[:3, :3] = 200
    image = np.full((200, 200, 3), 90, np.uint8)
    draw_ids(image, ids)
    touched = (image != 90).any(2)
    assert touched.any() and not touched[radius < 45].any() and touched[radius > 50].sum() > 40
    assert touched[:12, :30].sum() > 20
    alone = np.full((200, 200, 3), 90, np.uint8)
    draw_ids(alone, np.where(ids == 200, ids, 0))
    assert (alone != 90).any() and not (alone[:100, 60:] != 90).any()


def test_stamp_names_frame_and_time():
    images = [np.full((100, 300, 3), 90, np.uint8) for _ in range(4)]
    for image, arguments in zip(images, [("00012",), ("00012", Fraction(1, 3)), ("00013",), ("x" * 500,)], strict=True):
        draw_stamp(image, *arguments)
        assert (image[:20] != 90).any() and (image[30:] == 90).all()
    assert not (images[0] == images[1]).all() and not (images[0] == images[2]).all()


def test_names_that_the_terminal_cannot_show_do_not_end_a_script(monkeypatch):
    """A file name may even hold bytes that are no text."""
    for encoding in ("ascii", "cp1252", "utf-8"):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
        assert run_script(OptionParser("any.py", "Über"), lambda args: print("wrote ü 视频 \udcff"), []) == 0
        sys.stdout.flush()
        assert written.getvalue().startswith(b"wrote ") and b"\\udcff" in written.getvalue()
        assert run_script(OptionParser("any.py", "视频"), lambda args: 1, ["--help"]) == 0


def test_prefetch_keeps_order_and_runs_ahead_only_so_far():
    produced = []

    def items():
        for number in range(10):
            produced.append(number)
            yield number

    received = []
    for item in prefetch(items(), depth=3):
        time.sleep(0.005)
        assert len(produced) <= item + 1 + 3
        received.append(item)
    assert received == list(range(10))


def test_prefetch_raises_after_what_came_before():
    def items():
        yield 1
        raise InputError("broken")

    received = []
    with pytest.raises(InputError, match="broken"):
        for item in mark_last(prefetch(items())):
            received.append(item)
    assert received == [(1, False)]


def test_stopping_early_ends_prefetching_and_waits_for_nothing():
    gate, produced = threading.Event(), []

    def items():
        for number in range(100):
            produced.append(number)
            yield number
            if number == 4:
                gate.wait(60)

    ahead = prefetch(items(), depth=3)
    assert [next(ahead), next(ahead)] == [0, 1]
    start = time.monotonic()
    ahead.close()
    assert time.monotonic() - start < 10
    gate.set()
    deadline = time.monotonic() + 30
    while any(thread.name.endswith("(produce)") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(produced) <= 7


def test_last_item_is_marked():
    assert list(mark_last("abc")) == [("a", False), ("b", False), ("c", True)]
    assert list(mark_last([])) == []


def test_background_keeps_order_and_bounds_the_queue():
    gate, done = threading.Event(), []
    background = Background(depth=2)
    background.submit(gate.wait)
    background.submit(done.append, 1)
    threading.Timer(0.05, gate.set).start()
    background.submit(done.append, 2)
    assert gate.is_set()
    background.wait()
    background.close()
    assert done == [1, 2]


def test_background_error_comes_out():
    background, gate, done = Background(), threading.Event(), []
    background.submit(gate.wait)
    background.submit(lambda: 1 / 0)
    background.submit(done.append, "later")
    gate.set()
    with pytest.raises(ZeroDivisionError):
        background.wait()
    background.close()
    assert not done


def test_percentiles_are_within_one_percent():
    values = np.random.default_rng(0).lognormal(-4, 1, 5000)
    latencies = Latencies()
    assert latencies.percentile(50) == 0
    for value in values:
        latencies.add(value)
    for percent in (5, 50, 95):
        assert latencies.percentile(percent) == pytest.approx(np.percentile(values, percent), rel=0.02)
    assert latencies.summary()["frames_per_second"] == pytest.approx(1 / values.mean(), rel=1e-2)
