"""What several tests of scripts train on, track or compare with.

It is read, for the tests marked `cuda`, on rented machines without av: who needs that imports it where it is needed.
"""

import sys

import pytest
from PIL import Image

import eval_davis
from tests.conftest import ROOT
from tests.evaluation_runs import run
from tests.trees import davis_tree, static_tree
from util.image_io import write_mask


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five images with their masks."""
    return static_tree(tmp_path_factory.mktemp("static"))


@pytest.fixture(scope="module")
def videos(clip, tmp_path_factory):
    """Three videos of eight frames, two objects each."""
    return davis_tree(tmp_path_factory.mktemp("videos"), clip, length=8) / "trainval"


@pytest.fixture(scope="module")
def inputs(clip, tmp_path_factory):
    """frames/ of JPEGs with names of their own, clip.mp4 and first.png, of 12 frames; later.png, a mask of frame 6."""
    from util.video_writer import VideoWriter
    folder = tmp_path_factory.mktemp("inputs")
    frames, truth = clip[0][:12], clip[1][:12]
    (folder / "frames").mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / "frames" / f"img_{index + 5}.jpg", quality=95)
    video = VideoWriter(folder / "clip.mp4", (100, 72), 24)
    for frame in frames:
        video.write(frame)
    video.close()
    write_mask(folder / "first.png", truth[0])
    write_mask(folder / "later.png", truth[6] * (truth[6] == 2))
    return folder


@pytest.fixture(scope="module")
def stream(inputs, tiny_checkpoint, tmp_path_factory):
    """The clip as a live stream would send it: (Matroska file, arguments of a process that tracks standard input)."""
    import av

    from tests.tracking_runs import decoded
    path = tmp_path_factory.mktemp("stream") / "clip.mkv"
    with av.open(str(path), "w", format="matroska") as container:
        output = container.add_stream("libx264", rate=24, options={"tune": "zerolatency"})
        output.width, output.height, output.pix_fmt = 100, 72, "yuv420p"
        for frame in decoded(inputs / "clip.mp4"):
            container.mux(output.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(output.encode())
    return path, [sys.executable, str(ROOT / "track.py"), "--video", "-", "--mask", str(inputs / "first.png"),
                  "--model", str(tiny_checkpoint), "--output"]


@pytest.fixture(scope="module")
def davis_results(davis, tiny_checkpoint, tmp_path_factory):
    """A folder of what eval_davis.py writes of the tests' DAVIS, with the archive beside it."""
    output = tmp_path_factory.mktemp("results") / "davis"
    assert run(eval_davis, "--davis_path", davis, "--output", output, "--model", tiny_checkpoint, "--zip") == 0
    return output
