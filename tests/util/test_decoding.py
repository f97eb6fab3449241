"""Videos as people have them: cover pictures, damage, files cut short, frame times."""

import functools
import http.server
import os
import struct
import threading
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from util.decoding import MOST_DAMAGED, is_stream, public_name
from util.errors import InputError
from util.frames import read_position
from util.video import open_frames
from util.video_writer import VideoWriter

COUNT = 24
"""Frames of a video of these tests."""


def moving_noise(count=COUNT, size=(48, 64)):
    """Images of a pattern that moves; noise makes each packet of a video large enough to damage it."""
    rng = np.random.default_rng(0)
    pattern = cv2.GaussianBlur(rng.integers(0, 256, (200, 300, 3), np.uint8), (0, 0), 2)
    return [cv2.add(pattern[step:step + size[0], 2 * step:2 * step + size[1]],
                    rng.integers(0, 12, (*size, 3), np.uint8)) for step in range(count)]


def write(path, images, codec="libx264", rate=25, options=None, times=None, pixel_format="yuv420p", cover=None,
          index_first=False, timecode=None):
    """Write a video as other programs would. times: the numbers of the frames' times, in units of a frame."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if index_first else {}) as container:
        if timecode:
            container.metadata["timecode"] = timecode
        if cover is not None:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic.value
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        if cover is not None:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(cover, format="rgb24").reformat(format="yuvj420p")))
            container.mux(picture.encode())
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def packets(path):
    """[(place in the file, size, number of the frame)] in the order of the file."""
    with av.open(str(path)) as container:
        found = [(packet.pos, packet.size, packet.pts) for packet in container.demux(video=0) if packet.size]
    order = sorted(pts for _, _, pts in found)
    return [(pos, size, order.index(pts)) for pos, size, pts in found]


def damage(path, target, which, skip=0):
    """Overwrite some packets with noise; returns the numbers of their frames. skip: bytes kept at a packet's start."""
    data = bytearray(path.read_bytes())
    hit = [packets(path)[index] for index in which]
    for pos, size, _ in hit:
        data[pos + skip:pos + size] = np.random.default_rng(1).integers(0, 256, size - skip, np.uint8).tobytes()
    target.write_bytes(data)
    return sorted(number for _, _, number in hit)


def numbers(frames):
    return [int(frame.name) for frame in frames]


def test_cover_picture_is_not_the_video(tmp_path):
    path = write(tmp_path / "a.mp4", moving_noise(5), cover=np.full((32, 32, 3), 200, np.uint8))
    # Put the box with the picture before that of the video.
    data = path.read_bytes()
    moov, udta = data.index(b"moov") + 4, data.index(b"udta") - 4
    end = udta + int.from_bytes(data[udta:udta + 4], "big")
    path.write_bytes(data[:moov] + data[udta:end] + data[moov:udta] + data[end:])
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mjpeg"
    frames = open_frames([str(path)])
    assert frames.size == (64, 48) and len(list(frames)) == 5 and frames.complete and not frames.notices


def test_music_with_a_cover_picture_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mka"), "w", format="matroska") as container:
        sound = container.add_stream("pcm_s16le", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        samples.rate = 8000
        picture = container.add_attachment("cover.jpg", "image/jpeg",
                                           cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
        assert picture is not None
        container.mux(sound.encode(samples))
        container.mux(sound.encode())
    with pytest.raises(InputError, match="no video in this file"):
        open_frames([str(tmp_path / "a.mka")])


@pytest.mark.parametrize("name, codec, options, which, skip", [
    ("a.mp4", "libx264", {}, (9,), 0),
    ("a.mp4", "libx264", {}, (COUNT - 2,), 0),
    ("a.mp4", "libx264", {}, (5, 6, 7, 15), 0),
    ("a.mov", "prores_ks", {}, (0, 12, COUNT - 1), 0),
    ("a.avi", "mjpeg", {}, (9, 10), 0),
    ("a.webm", "libvpx-vp9", {"g": "8"}, (11,), 8),
])
def test_damaged_frames_are_left_out_and_the_others_keep_their_numbers(tmp_path, name, codec, options, which, skip):
    pixel_format = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    whole = write(tmp_path / name, moving_noise(), codec, options=options, pixel_format=pixel_format)
    truth = {int(frame.name): frame.image for frame in open_frames([str(whole)])}
    assert len(truth) == COUNT
    damaged = tmp_path / f"damaged_{name}"
    lost = damage(whole, damaged, which, skip)
    frames = open_frames([str(damaged)])
    found = list(frames)
    assert set(lost) <= set(range(COUNT)) - set(numbers(found)) and numbers(found) == sorted(set(numbers(found)))
    assert max(numbers(found)) == max(set(range(COUNT)) - set(lost)) and not frames.complete
    missing = COUNT - len(found)
    assert any(str(damaged) in notice and f"{missing} in all" in notice for notice in frames.notices)
    # A frame's number is that of its time; what it shows may suffer from the damage.
    assert all(frame.time == Fraction(round(frame.time * 25), 25) and int(frame.name) == frame.time * 25
               for frame in found if name != "a.webm")
    assert (found[-1].image == truth[int(found[-1].name)]).all() or codec == "libx264"


def test_a_damaged_key_frame_costs_no_numbers(tmp_path):
    """The decoder drops all frames up to the next key frame without a word, and gives single ones in another order."""
    whole = write(tmp_path / "a.mp4", moving_noise(40), options={"g": "15", "sc_threshold": "0"})
    key = [index for index, (_, _, number) in enumerate(packets(whole)) if number == 15]
    damage(whole, tmp_path / "b.mp4", key)
    frames = open_frames([str(tmp_path / "b.mp4")])
    found = list(frames)
    assert len(found) < 35 and not frames.complete
    assert all(int(frame.name) == frame.time * 25 for frame in found) and numbers(found)[-10:] == list(range(30, 40))


def test_numbers_begin_with_the_file_where_its_beginning_is_damaged(tmp_path):
    whole = write(tmp_path / "a.mp4", moving_noise(), options={"g": "10", "sc_threshold": "0"})
    damage(whole, tmp_path / "b.mp4", [0])
    frames = open_frames([str(tmp_path / "b.mp4")])
    found = list(frames)
    assert 0 < int(frames.first) == int(found[0].name) and not frames.complete
    assert all(int(frame.name) == frame.time * 25 for frame in found) and numbers(found)[-1] == COUNT - 1


def test_a_recording_may_begin_between_key_frames(tmp_path):
    """What comes before the first key frame is no damage, and the first frame that can be shown is number 0."""
    whole = write(tmp_path / "a.ts", moving_noise(), options={"g": "10", "bf": "0", "sc_threshold": "0"})
    place = packets(whole)[4][0]
    (tmp_path / "b.ts").write_bytes(whole.read_bytes()[place:])
    frames = open_frames([str(tmp_path / "b.ts")])
    assert numbers(frames) == list(range(14)) and frames.complete and not frames.notices


def test_a_long_damaged_stretch_ends_the_video(tmp_path, monkeypatch):
    monkeypatch.setattr("util.decoding.MOST_DAMAGED", 6)
    assert MOST_DAMAGED > 200
    whole = write(tmp_path / "a.mp4", moving_noise(), options={"bf": "0"})
    damage(whole, tmp_path / "b.mp4", range(10, 20))
    found = []
    with pytest.raises(InputError, match=r"b\.mp4: damaged after frame 9, 7 frames in a row"):
        found.extend(open_frames([str(tmp_path / "b.mp4")]))


@pytest.mark.parametrize("name, codec", [("a.mp4", "libx264"), ("a.mov", "prores_ks"), ("a.mkv", "libx264"),
                                         ("a.flv", "libx264"), ("a.avi", "mjpeg"), ("a.gif", "gif")])
@pytest.mark.parametrize("share", [0.75, 0.93])
def test_a_file_cut_short_is_not_complete(tmp_path, name, codec, share):
    pixel_format = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
    path = write(tmp_path / name, moving_noise(), codec, pixel_format=pixel_format, index_first=True,
                 options={"bf": "0"} if codec == "libx264" and name != "a.mp4" else {})
    frames = open_frames([str(path)])
    assert len(list(frames)) == COUNT and frames.complete and frames.notices == []
    path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])
    frames = open_frames([str(path)])
    found = list(frames)
    assert 0 < len(found) < COUNT and not frames.complete
    # An AVI may hold the beginning of its last frame.
    assert any(f"{path}: this file is cut short" in notice for notice in frames.notices) or codec == "mjpeg"
    assert all(int(frame.name) == round(frame.time * 25) for frame in found)


def test_the_promise_does_not_hold_for_a_part(tmp_path):
    path = write(tmp_path / "a.mp4", moving_noise())
    frames = open_frames([str(path)], start="5", end="9")
    assert numbers(frames) == [5, 6, 7, 8, 9] and frames.complete and frames.length == 5


def test_trimmed_without_encoding_is_complete(tmp_path):
    """The MP4 keeps frames from before the cut, since others need them, and says which to show."""
    whole = write(tmp_path / "a.mp4", moving_noise(), options={"g": "12", "bf": "0", "sc_threshold": "0"})
    with av.open(str(whole)) as source, av.open(str(tmp_path / "b.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        shift = round(6 / 25 / source.streams.video[0].time_base)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                target.mux(packet)
    frames = open_frames([str(tmp_path / "b.mp4")])
    found = list(frames)
    assert numbers(found) == list(range(18)) and frames.complete and found[0].time == 0


def test_uneven_times_are_the_file_s(tmp_path):
    path = write(tmp_path / "a.mkv", moving_noise(5), times=[0, 1, 2, 50, 75])
    frames = open_frames([str(path)])
    assert [float(frame.time) for frame in frames] == [0, 0.04, 0.08, 2, 3] and frames.complete


def rotated(path, matrix):
    """Put a display matrix (a, b, c, d) into an MP4."""
    data = bytearray(path.read_bytes())
    place = data.find(b"tkhd") + 44
    a, b, c, d = (round(value * 65536) for value in matrix)
    data[place:place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def around(degrees):
    return (np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees)), -np.sin(np.deg2rad(degrees)),
            np.cos(np.deg2rad(degrees)))


QUARTER = (0, 1, -1, 0)


@pytest.mark.parametrize("matrix, turn", [
    ((1, 0, 0, 1), lambda image: image),
    ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    ((1, 0, 0, -1), lambda image: image[::-1]),
    ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    (QUARTER, lambda image: np.rot90(image, -1)),
    ((0, -1, 1, 0), np.rot90),
    ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    ((0, -1, -1, 0), lambda image: np.rot90(image.swapaxes(0, 1), 2)),
    (around(-1), lambda image: image), (around(1), lambda image: image), (around(0.4), lambda image: image),
    (around(89), lambda image: np.rot90(image, -1)), (around(91), lambda image: np.rot90(image, -1)),
    (around(179), lambda image: image[::-1, ::-1]), (around(-90), np.rot90),
    ((2, 0, 0, 2), lambda image: image), ((0, 0, 0, 0), lambda image: image),
])
def test_display_matrices(tmp_path, matrix, turn):
    path = write(tmp_path / "a.mp4", moving_noise(1))
    image = next(iter(open_frames([str(path)]))).image
    frames = open_frames([str(rotated(path, matrix))])
    assert np.array_equal(next(iter(frames)).image, turn(image)) and not frames.notices


def test_an_odd_angle_is_said(tmp_path):
    path = rotated(write(tmp_path / "a.mp4", moving_noise(1)), around(30))
    frames = open_frames([str(path)])
    assert frames.size == (64, 48) and "30° off" in frames.notices[0]


@pytest.mark.parametrize("start, end, expected", [
    ("3", "5", [3, 4, 5]), ("0.2", "0.28s", [5, 6, 7]), ("0:00.2", "00:00:00.24", [5, 6]),
    ("00:00:00:20", None, [20, 21, 22, 23]), (None, "2", [0, 1, 2]), ("23", "99", [23]), ("0.119", "0.121", [3]),
])
def test_a_part_of_a_video(tmp_path, start, end, expected):
    path = write(tmp_path / "a.mp4", moving_noise())
    truth = {int(frame.name): frame.image for frame in open_frames([str(path)])}
    frames = open_frames([str(path)], start=start, end=end)
    assert frames.first == f"{expected[0]:05d}"
    assert [frames.holds(number) for number in (expected[0] - 1, expected[0])] == [False, True]
    found = list(frames)
    assert numbers(found) == expected
    assert all((frame.image == truth[int(frame.name)]).all() and frame.time == Fraction(int(frame.name), 25)
               for frame in found)


@pytest.mark.parametrize("start, end, error", [
    ("24", None, "no frame from --start 24 on; the last one seen is 23 at 0.920 s"),
    ("1.5", None, "no frame from --start 1.5 on"), ("5", "4", "--start 5 is after --end 4"),
    ("half", None, "--start half: a frame"), (None, "1:2:3:4:5", "--end 1:2:3:4:5: a frame"),
    ("-3", None, "--start -3"),
])
def test_parts_that_are_none(tmp_path, start, end, error):
    path = write(tmp_path / "a.mp4", moving_noise())
    with pytest.raises(InputError, match=error):
        open_frames([str(path)], start=start, end=end)


def test_timecodes_count_from_the_file_s_own(tmp_path):
    path = write(tmp_path / "a.mov", moving_noise(), timecode="01:00:00:00")
    assert numbers(open_frames([str(path)], start="01:00:00:20", end="01:00:00:21")) == [20, 21]
    with pytest.raises(InputError, match="before the video's first frame, whose timecode is 01:00:00:00"):
        open_frames([str(path)], start="00:00:00:20")


def test_timecodes_of_29_97_frames_a_second_may_drop_numbers():
    rate = Fraction(30000, 1001)
    counted = [read_position(text, "--start", rate).number for text in
               ("00:00:59;29", "00:01:00;02", "00:10:00;00", "01:00:00;00", "00:01:00:00")]
    assert counted == [1799, 1800, 17982, 107892, 1800]


def test_streams_and_their_passwords(tmp_path):
    (tmp_path / "rtsp").write_text("")
    assert all(map(is_stream, ["-", "camera:0", "rtsp://u:p@host/a", "https://host/a?b=*", "/dev/null"]))
    assert not any(map(is_stream, [str(tmp_path / "rtsp"), "a:b.mp4", "C:\\clip.mp4", "none.mp4"]))
    assert public_name("rtsp://user:secret@host/a@b") == "rtsp://host/a@b" and public_name("a@b.mp4") == "a@b.mp4"


def test_addresses_and_cameras(tmp_path):
    path = write(tmp_path / "a.mkv", moving_noise(5))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = list(open_frames([f"http://127.0.0.1:{server.server_port}/a.mkv?user=*"]))
        server.shutdown()
    assert [(frame.time, frame.image.tobytes()) for frame in found] == \
        [(frame.time, frame.image.tobytes()) for frame in open_frames([str(path)])]
    with pytest.raises(InputError, match=r"^http://127\.0\.0\.1:9/a: not a readable video") as caught:
        open_frames(["http://me:secret@127.0.0.1:9/a"])
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="camera:77: not a readable video"):
        open_frames(["camera:77"])


@pytest.mark.parametrize("name, content", [
    ("a.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n"),
    ("a.mp4", b"#EXTM3U\n#EXTINF:1,\na.ts\n"),
    ("a.M3U", b"a.mp4\n"),
    ("a.ffconcat", b"ffconcat version 1.0\nfile a.ts\n"),
    ("a.txt", b"ffconcat version 1.0\nfile a.ts\n"),
    ("a.mp4", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"),
    ("a.xml", b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>\n'),
])
def test_a_file_that_names_others_is_told_from_one_that_is_damaged(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: not a readable video .*; a playlist or another file"):
        open_frames([str(tmp_path / name)])


@pytest.mark.parametrize("name, content", [("a.yuv", bytes(range(256)) * 40), ("a.mp4", b"rubbish" * 1000),
                                           ("a.txt", b"a text about #EXTM3U\n"), ("a.mkv", b""), ("a.m3u8", None)])
def test_a_file_that_is_no_video_is_none_that_names_others(name, content, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        open_frames([str(tmp_path / name)])
    assert "names others" not in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts threads as Linux shows them")
def test_decoding_and_encoding_take_the_threads_they_are_given(tmp_path):
    path = write(tmp_path / "a.mp4", moving_noise(8))
    taken = {}
    for threads in (1, 9):
        before = len(os.listdir("/proc/self/task"))
        frames = open_frames([str(path)], threads=threads)
        opened = len(os.listdir("/proc/self/task"))
        writer = VideoWriter(tmp_path / "b.mp4", (640, 480), 25, threads=threads)
        writer.write(np.zeros((480, 640, 3), np.uint8))
        taken[threads] = (opened - before, len(os.listdir("/proc/self/task")) - opened)
        writer.close()
        assert len(list(frames)) == 8
    assert taken[9][0] >= taken[1][0] + 6 and taken[9][1] >= taken[1][1] + 3, taken
