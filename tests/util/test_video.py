import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from util.errors import InputError
from util.video import open_frames
from util.video_writer import Look, VideoWriter


def ramp(size=(48, 64)):
    """An image whose left is dark, whose right is bright."""
    return np.broadcast_to(np.linspace(0, 255, size[1]).astype(np.uint8)[None, :, None], (*size, 3)).copy()


def write_video(path, images, rate=10):
    writer = VideoWriter(path, images[0].shape[1::-1], rate)
    for image in images:
        writer.write(image)
    writer.close()
    return path


def test_without_pyav_only_video_files_are_refused(tmp_path, monkeypatch):
    Image.fromarray(ramp()).save(tmp_path / "0.png")
    video = write_video(tmp_path / "a.mp4", [ramp()])
    monkeypatch.setattr("util.pyav.av", None)
    assert len(list(open_frames([str(tmp_path / "0.png")]))) == 1
    with pytest.raises(InputError, match="pip install av"):
        open_frames([str(video)])
    with pytest.raises(InputError, match="pip install av"):
        VideoWriter(tmp_path / "b.mp4", (64, 48), 10)


def test_what_is_written_is_read(tmp_path):
    images = [np.roll(ramp(), 8 * shift, 1) for shift in range(5)]
    frames = open_frames([str(write_video(tmp_path / "a.mp4", images))])
    assert (frames.size, frames.length, frames.rate) == ((64, 48), 5, 10)
    read = list(frames)
    assert [frame.name for frame in read] == ["00000", "00001", "00002", "00003", "00004"]
    assert [frame.time for frame in read] == [Fraction(number, 10) for number in range(5)]
    for image, frame in zip(images, read, strict=True):
        assert np.abs(image.astype(int) - frame.image).mean() < 6


def test_a_single_path_need_not_be_in_a_list(tmp_path):
    path = write_video(tmp_path / "a.mp4", [ramp()] * 2)
    Image.fromarray(ramp()).save(tmp_path / "0.png")
    for paths in (path, str(path), [path], (path,)):
        assert [frame.name for frame in open_frames(paths)] == ["00000", "00001"]
    for paths in (tmp_path, str(tmp_path), tmp_path / "0.png", str(tmp_path / "*.png"), tmp_path / "*.png"):
        assert [frame.name for frame in open_frames(paths)] == ["0"]
    with pytest.raises(InputError, match="no video and no images"):
        open_frames([])


ON_A_FULL_DISK = """
import resource, sys
import numpy as np
from util.video_writer import VideoWriter
writer = VideoWriter(sys.argv[1], (64, 48), 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
for step in (*[lambda: writer.write(np.zeros((48, 64, 3), np.uint8))] * 100, writer.close):
    try:
        step()
    except OSError as error:
        print(error.strerror)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of files")
def test_a_header_that_cannot_be_written_is_an_error_from_then_on(tmp_path):
    """FFmpeg would crash, and take along what the process had still to write."""
    done = subprocess.run([sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path / "a.mp4")], cwd=ROOT,
                          capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and set(done.stdout.splitlines()) == {"File too large"}, done.stderr


def test_odd_sides_are_extended_by_a_pixel(tmp_path):
    path = write_video(tmp_path / "a.mp4", [ramp((47, 63))])
    assert open_frames([str(path)]).size == (64, 48)


def test_times_pixel_shape_and_colours_are_kept(tmp_path):
    """The last frame is shown at its time, and colours come back through whatever a file says of them."""
    image = np.full((48, 64, 3), (200, 30, 60), np.uint8)
    image[24:] = (20, 180, 240)
    looks = [Look(), Look(Fraction(1, 1000), Fraction(16, 11), 1, False, 1, 1),
             Look(Fraction(1, 90000), Fraction(1, 2), 9, False, 9, 16),
             Look(Fraction(1, 30), Fraction(1), 6, True, 6, 6)]
    for look in looks:
        writer = VideoWriter(tmp_path / "a.mp4", (64, 48), 30, look)
        times = [Fraction(7), Fraction(71, 10), Fraction(72, 10), Fraction(10)]
        for time in times:
            writer.write(image, time)
        writer.close()
        frames = open_frames([str(tmp_path / "a.mp4")])
        read = list(frames)
        assert [round(float(frame.time), 3) for frame in read] == [0, 0.1, 0.2, 3]
        assert all(np.abs(frame.image.astype(int) - image).mean() < 8 for frame in read)
        assert frames.look[1:] == look[1:] and frames.complete
        with av.open(str(tmp_path / "a.mp4")) as container:
            assert 3 < container.duration / av.time_base < 3.5


def test_times_that_go_backwards_are_written_one_after_another(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", (64, 48), 10)
    for time in (0, 0.1, 0.1, 0, 0.2, 0.6):
        writer.write(ramp(), Fraction(time).limit_denominator(10))
    writer.close()
    assert [float(frame.time) for frame in open_frames([str(tmp_path / "a.mp4")])] == [0, 0.1, 0.2, 0.3, 0.4, 0.6]


def test_turned_video_has_turned_pixels(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", (64, 48), 10, Look(pixel_aspect=Fraction(4, 3)))
    writer.write(ramp())
    writer.close()
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    matrix = data.find(b"tkhd") + 44
    data[matrix:matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(data)
    assert open_frames([str(tmp_path / "a.mp4")]).look.pixel_aspect == Fraction(3, 4)


def test_telephone_video_is_turned_upright(tmp_path):
    """Telephones store every video lying and write into the file how to turn it."""
    path = write_video(tmp_path / "a.mp4", [ramp()])
    data = bytearray(path.read_bytes())
    matrix = data.find(b"tkhd") + 44
    # The display matrix (16.16 fixed point, the last column 2.30) for a quarter turn clockwise.
    data[matrix:matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    frames = open_frames([str(path)])
    assert frames.size == (48, 64)
    frame = next(iter(frames)).image
    assert frame[:8].mean() < 50 and frame[-8:].mean() > 200


def test_names_that_are_not_their_own(tmp_path):
    for suffix in ("jpeg", "jpg"):
        Image.fromarray(ramp()).save(tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match="2 images are named a"):
        open_frames([str(tmp_path)])


def test_hidden_and_other_files_are_passed_over(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "b.png")
    (tmp_path / ".b.png").write_text("")
    (tmp_path / "notes.txt").write_text("")
    assert open_frames([str(tmp_path)]).names == ["b"]


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="no video in this file"):
        open_frames([str(tmp_path / "a.wav")])
