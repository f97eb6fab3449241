"""Frames of videos in any order and backwards, against the same frames read in their order."""

import gc
import random
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.util.test_decoding import damage, moving_noise, packets, write
from util import seekable as seekable_module
from util.errors import InputError
from util.video import open_frames

COUNT = 40
"""Frames of a video of these tests."""

GROUPS = {"g": "12", "sc_threshold": "0"}
"""H.264 with a key frame every 12 frames."""

KINDS = {
    "closed groups": ("a.mp4", "libx264", GROUPS),
    "references among B-frames": ("a.mp4", "libx264", {**GROUPS, "bf": "5", "x264-params": "b-pyramid=normal"}),
    "open groups": ("a.mkv", "libx264", {**GROUPS, "bf": "3", "x264-params": "open-gop=1:b-pyramid=normal"}),
    "open groups, TS": ("a.ts", "libx264", {**GROUPS, "bf": "3", "x264-params": "open-gop=1"}),
    "no key frames": ("a.mp4", "libx264", {"g": "12", "x264-params": "intra-refresh=1"}),
    "interlaced": ("a.mp4", "libx264", {**GROUPS, "x264-params": "tff=1"}),
    "open groups, HEVC": ("a.mp4", "libx265", {"x265-params": "keyint=12:min-keyint=12:scenecut=0:open-gop=1:bframes=4:"
                                                              "log-level=none"}),
    "hidden frames, VP9": ("a.webm", "libvpx-vp9", {"g": "16", "auto-alt-ref": "6", "lag-in-frames": "25"}),
    "hidden frames, VP8": ("a.webm", "libvpx", {"g": "16", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "MPEG-4": ("a.mp4", "mpeg4", {"g": "12", "bf": "2"}),
    "MPEG-2": ("a.ts", "mpeg2video", {"g": "12", "bf": "2"}),
    "one packet, one frame": ("a.mov", "prores_ks", {}),
    "rare format": ("a.flv", "flv1", {"g": "12"}),
}
"""{name: (file, codec, options)}."""


def compare(path, seed=0, **part):
    """Ask for all frames in random order, and backwards, and compare them with those read in their order."""
    truth = {frame.name: frame for frame in open_frames([str(path)], **part)}
    frames = open_frames([str(path)], **part)
    seekable = frames.seekable()
    order = [*range(len(seekable)), *random.Random(seed).choices(range(len(seekable)), k=10)]
    random.Random(seed).shuffle(order)
    lost = set()
    for position in order:
        name = seekable.name(position)
        if name not in truth:
            lost.add(name)
            with pytest.raises(InputError, match="is damaged"):
                seekable[position]
            continue
        same(seekable[position], truth[name])
        assert seekable.position(name) == position
        assert seekable.times is None or seekable.times[position] == pytest.approx(float(truth[name].time))
    every = list(truth.values())
    for found, expected in ((seekable.backwards(), every[::-1]), (seekable.forwards(), every)):
        for frame, other in zip(found, expected, strict=True):
            same(frame, other)
    assert frames.complete == (not lost) or "cut" in str(frames.notices)
    return seekable


def same(frame, other):
    assert (frame.name, frame.time) == (other.name, other.time) and np.array_equal(frame.image, other.image)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_in_any_order_are_those_read_in_order(tmp_path, kind):
    name, codec, options = KINDS[kind]
    pixel_format = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    path = write(tmp_path / name, moving_noise(COUNT), codec, options=options, pixel_format=pixel_format)
    assert len(compare(path)) == COUNT
    compare(path, start="9", end="30")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_uneven_times(tmp_path, name):
    times = np.cumsum(np.random.default_rng(3).integers(1, 9, COUNT)).tolist()
    path = write(tmp_path / name, moving_noise(COUNT), options=GROUPS, times=times)
    seekable = compare(path)
    assert seekable.times[5] == pytest.approx((times[5] - times[0]) / 25, abs=2e-3)
    compare(path, start="1.5", end="4.0")


def rewrite(path, target, shift=0, without=()):
    """Copy a video's packets, `shift` frames earlier, without those at some places."""
    with av.open(str(path)) as source, av.open(str(target), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        step = round(Fraction(shift, 25) / source.streams.video[0].time_base)
        for place, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and place not in without:
                packet.pts, packet.dts, packet.stream = packet.pts - step, packet.dts - step, stream
                copy.mux(packet)
    return target


@pytest.mark.parametrize("codec, options", [("libx264", GROUPS), KINDS["open groups"][1:],
                                            KINDS["open groups, HEVC"][1:]])
@pytest.mark.parametrize("name, shift", [("b.mp4", 17), ("b.mp4", 6), ("b.mkv", -500), ("b.ts", -500)])
def test_files_may_begin_at_any_time(tmp_path, codec, options, name, shift):
    """MP4 with frames before the ones to show, and files whose times begin late."""
    whole = write(tmp_path / "a.mp4", moving_noise(COUNT), codec, options=options)
    assert len(compare(rewrite(whole, tmp_path / name, shift))) == COUNT - max(0, shift)


def test_files_that_begin_with_frames_that_cannot_be_decoded(tmp_path):
    for _, codec, options in (KINDS["open groups"], KINDS["open groups, HEVC"]):
        whole = write(tmp_path / "a.mp4", moving_noise(COUNT), codec, options=options)
        compare(rewrite(whole, tmp_path / f"{codec}.mkv", without=range(12)))
    whole = write(tmp_path / "a.ts", moving_noise(COUNT), options={**GROUPS, "bf": "0"})
    (tmp_path / "b.ts").write_bytes(whole.read_bytes()[packets(whole)[4][0]:])
    assert len(compare(tmp_path / "b.ts")) == COUNT - 12


@pytest.mark.parametrize("name, codec, options, which", [
    ("a.mp4", "libx264", GROUPS, (17,)), ("a.mp4", "libx264", GROUPS, (5, 6, 7, 30)),
    ("a.mp4", "libx264", GROUPS, (0,)), ("a.mp4", "libx264", GROUPS, (12,)),
    ("a.mov", "prores_ks", {}, (0, 12, COUNT - 1)), ("a.webm", "libvpx-vp9", {"g": "8"}, (11,)),
])
def test_damage_costs_the_same_frames(tmp_path, name, codec, options, which):
    """What FFmpeg puts in the place of damaged parts differs from run to run; names, times and other frames do not."""
    pixel_format = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    whole = write(tmp_path / name, moving_noise(COUNT), codec, options=options, pixel_format=pixel_format)
    path = tmp_path / f"b_{name}"
    damage(whole, path, which, 8 if codec == "libvpx-vp9" else 0)
    truth = {frame.name: frame for frame in open_frames([str(path)])}
    intact = {frame.name: frame for frame in open_frames([str(whole)])}
    frames = open_frames([str(path)])
    seekable = frames.seekable()
    for position in random.Random(0).sample(range(len(seekable)), len(seekable)):
        shown = seekable.name(position)
        if shown in truth:
            frame = seekable[position]
            assert (frame.name, frame.time) == (shown, truth[shown].time)
            if np.array_equal(truth[shown].image, intact[shown].image):
                same(frame, truth[shown])
        else:
            with pytest.raises(InputError, match=rf"b_{name}: frame {shown} is damaged"):
                seekable[position]
    assert [frame.name for frame in seekable.backwards()] == list(truth)[::-1]
    assert not frames.complete and "in all" in str(frames.notices)


def test_a_file_cut_short_has_the_frames_that_are_there(tmp_path):
    path = write(tmp_path / "a.mp4", moving_noise(COUNT), options=GROUPS, index_first=True)
    path.write_bytes(path.read_bytes()[:int(0.8 * path.stat().st_size)])
    frames = open_frames([str(path)])
    assert len(compare(path)) == len(list(open_frames([str(path)]))) < COUNT
    assert frames.complete
    frames.seekable()
    assert not frames.complete and "cut short" in str(frames.notices)


def test_a_group_that_does_not_fit_is_decoded_again(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", moving_noise(COUNT), options={"g": "100", "sc_threshold": "0"})
    monkeypatch.setattr(seekable_module, "MOST_KEPT", 7 * 64 * 48 * 2)
    seekable = compare(path)
    assert 0 < len(seekable._kept) <= 7


def test_frames_that_are_no_longer_kept_are_freed_at_once(tmp_path, monkeypatch):
    """Python's collector, which is late, must not be needed: hundreds of frames would wait for it."""
    path = write(tmp_path / "a.mp4", moving_noise(COUNT), options=GROUPS)
    monkeypatch.setattr(seekable_module, "MOST_KEPT", 4 * 64 * 48 * 2)

    def count_frames():
        return sum(issubclass(type(thing), av.VideoFrame) and thing.width == 64 for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        seekable, before = open_frames([str(path)]).seekable(), count_frames()
        for position in range(len(seekable)):
            seekable[position]
        assert count_frames() - before <= len(seekable._kept) + 2
        for number, _ in enumerate(seekable.forwards()):
            assert count_frames() - before <= len(seekable._kept) + seekable_module.TOGETHER + 4, number
    finally:
        gc.enable()


def test_frames_that_were_forgotten_come_again(tmp_path):
    Image.fromarray(moving_noise(1)[0]).save(tmp_path / "a.png")
    paths = [write(tmp_path / "a.mp4", moving_noise(COUNT), options=GROUPS), tmp_path / "a.png"]
    for path in paths:
        frames = open_frames([str(path)]).seekable()
        before = [frames[position] for position in range(len(frames))]
        frames.forget()
        for position, frame in enumerate(before):
            same(frames[position], frame)


def test_what_can_only_be_read_in_order_says_so(tmp_path):
    raw = write(tmp_path / "a.h264", moving_noise(5))
    with pytest.raises(InputError, match=r"a\.h264: its frames can only be read in their order, since not every frame"):
        open_frames([str(raw)]).seekable()
    same_time = rewrite(write(tmp_path / "a.mkv", moving_noise(8), options={"bf": "0"}), tmp_path / "b.mkv")
    data = same_time.read_bytes()
    times = [place for place, _, _ in packets(same_time)]
    # A block begins with its track, its time in two bytes, and flags.
    third = data.index((80).to_bytes(2, "big"), times[2])
    same_time.write_bytes(data[:third] + (40).to_bytes(2, "big") + data[third + 2:])
    with pytest.raises(InputError, match=r"b\.mkv: its frames can only be read in their order, since their times"):
        open_frames([str(same_time)]).seekable()


@pytest.mark.parametrize("name, options", [("a.tif", {}), ("a.png", {"duration": [40, 80, 120, 40, 40, 90]}),
                                           ("a.webp", {"duration": 40, "lossless": True})])
def test_stacks_and_animations(tmp_path, name, options):
    images = [Image.fromarray(image) for image in moving_noise(6)]
    images[0].save(tmp_path / name, save_all=True, append_images=images[1:], **options)
    assert len(compare(tmp_path / name)) == 6
    assert len(compare(tmp_path / name, start="2", end="4")) == 3


def test_a_folder_of_images(tmp_path):
    for number, image in enumerate(moving_noise(6)):
        Image.fromarray(image).save(tmp_path / f"shot_{number + 7}.png")
    seekable = compare(tmp_path, start="shot_8")
    assert len(seekable) == 5 and seekable.times is None and seekable[-1].name == "shot_12"
    for wrong in (5, -6):
        with pytest.raises(IndexError):
            seekable[wrong]
    with pytest.raises(KeyError):
        seekable.position("shot_7")


def test_threads_may_ask_at_once_and_while_the_video_is_read(tmp_path):
    path = write(tmp_path / "a.mp4", moving_noise(COUNT), options=GROUPS)
    truth = list(open_frames([str(path)]))
    frames = open_frames([str(path)])
    seekable, wrong = frames.seekable(), []

    def ask(seed):
        for position in random.Random(seed).choices(range(COUNT), k=40):
            if not np.array_equal(seekable[position].image, truth[position].image):
                wrong.append(position)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for frame, back, expected in zip(frames, seekable.backwards(), truth, strict=True):
        same(frame, expected)
        same(back, truth[COUNT - 1 - int(expected.name)])
    for thread in threads:
        thread.join()
    assert not wrong
