import struct

import av
import numpy as np
import pytest
from PIL import Image

from util.errors import InputError
from util.video import VideoWriter, open_frames


def ramp(size=(48, 64)):
    """An image whose left is dark, whose right is bright."""
    return np.broadcast_to(np.linspace(0, 255, size[1]).astype(np.uint8)[None, :, None], (*size, 3)).copy()


def write_video(path, images, rate=10):
    writer = VideoWriter(path, images[0].shape[1::-1], rate)
    for image in images:
        writer.write(image)
    writer.close()
    return path


def test_what_is_written_is_read(tmp_path):
    images = [np.roll(ramp(), 8 * shift, 1) for shift in range(5)]
    frames = open_frames([str(write_video(tmp_path / "a.mp4", images))])
    assert (frames.size, frames.length, frames.rate) == ((64, 48), 5, 10)
    read = list(frames)
    assert [name for name, _ in read] == ["00000", "00001", "00002", "00003", "00004"]
    for image, (_, frame) in zip(images, read, strict=True):
        assert np.abs(image.astype(int) - frame).mean() < 6


def test_odd_sides_are_extended_by_a_pixel(tmp_path):
    path = write_video(tmp_path / "a.mp4", [ramp((47, 63))])
    assert open_frames([str(path)]).size == (64, 48)


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
    _, frame = next(iter(frames))
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
