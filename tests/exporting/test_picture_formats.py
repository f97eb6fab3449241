"""Mattes, cut-outs and videos with opacity, as other decoders see them; and what is done to masks on their way out."""

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from exporting.shapes import crop_mask
from tests.exporting.conftest import LOOK, SIZE, TIMES, export, iou, write_summary
from tests.util.test_decoding import QUARTER, rotated
from util.image_io import write_mask, write_scores
from util.video import open_frames
from util.video_writer import PRORES_4444, Encoding, VideoWriter

FORMATS = ("mattes", "matte-video", "prores", "webm-alpha", "cutout-png", "gif")


@pytest.fixture(scope="module")
def exports(inputs, tmp_path_factory):
    output = tmp_path_factory.mktemp("exports")
    assert export(inputs.masks, "--video", inputs.video, "--output", output, "--format", *FORMATS) == 0
    return output


@pytest.fixture(scope="module")
def images(inputs):
    return [frame.image for frame in open_frames([str(inputs.video)])]


def decode(path, codec=None):
    """The av.VideoFrames of a video file. codec: a decoder other than FFmpeg's choice."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if codec is None:
            return list(container.decode(stream))
        decoder = av.CodecContext.create(codec, "r")
        frames = []
        for packet in container.demux(stream):
            frames += decoder.decode(packet if packet.size else None)
        return frames


def milliseconds(frames):
    return [round(1000 * frame.pts * frame.time_base) for frame in frames]


def read_matte(path):
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.asarray(picture)


def test_mattes_are_of_every_object_in_every_frame(exports, inputs):
    assert sorted(path.name for path in (exports / "mattes").iterdir()) == ["001", "003", "200"]
    for number, ids in enumerate(inputs.ids):
        for object_id in (1, 3, 200):
            matte = read_matte(exports / "mattes" / f"{object_id:03d}" / f"{number:05d}.png")
            assert np.array_equal(matte, (ids == object_id) * np.uint8(255))


def test_matte_videos_have_the_source_s_frames_and_times(exports, inputs):
    for object_id in (1, 3, 200):
        path = exports / "matte-video" / f"{object_id:03d}.mp4"
        frames = decode(path)
        assert milliseconds(frames) == TIMES
        for frame, ids in zip(frames, inputs.ids, strict=True):
            if object_id != 200:
                assert iou(frame.to_ndarray(format="rgb24")[..., 0] > 127, ids == object_id) > 0.98
        with av.open(str(path)) as container:
            assert container.streams.video[0].sample_aspect_ratio == LOOK.pixel_aspect


def test_prores_keeps_opacity_colours_and_times(exports, inputs, images):
    frames = decode(exports / "prores.mov")
    assert milliseconds(frames) == TIMES
    with av.open(str(exports / "prores.mov")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.profile) == ("prores", "4444")
        assert stream.sample_aspect_ratio == LOOK.pixel_aspect
    for frame, ids, image in zip(frames, inputs.ids, images, strict=True):
        assert frame.format.name.startswith("yuva444")
        assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (1, 1, 1)
        picture = frame.to_ndarray(format="rgba")
        assert np.array_equal(picture[..., 3] > 127, ids > 0) and set(np.unique(picture[..., 3])) <= {0, 255}
        if ids.any():
            assert np.abs(picture[..., :3].astype(int) - image)[ids > 0].mean() < 3


def test_prores_is_exact_at_widths_that_ffmpeg_s_threads_damage(tmp_path):
    """At a width like 120, converting colours in several threads destroys the first pixels of some lines."""
    image = np.full((160, 120, 4), 90, np.uint8)
    image[..., 3] = np.arange(160)[:, None] // 2 % 2 * 255
    writer = VideoWriter(tmp_path / "a.mov", (120, 160), 25, encoding=PRORES_4444)
    for _ in range(40):
        writer.write(image)
    writer.close()
    for frame in decode(tmp_path / "a.mov"):
        plane = np.frombuffer(bytes(frame.planes[3]), np.uint16).reshape(160, -1)[:, :120]
        assert np.array_equal(plane > 2000, image[..., 3] > 0)


def test_webm_has_opacity_for_the_decoders_that_know_it(exports, inputs, images):
    frames = decode(exports / "alpha.webm", "libvpx-vp9")
    with av.open(str(exports / "alpha.webm")) as container:
        assert container.streams.video[0].metadata["alpha_mode"] == "1"
        assert [round(1000 * packet.pts * packet.time_base) for packet in container.demux() if packet.size] == TIMES
    for frame, ids, image in zip(frames, inputs.ids, images, strict=True):
        assert frame.format.name == "yuva420p"
        picture = frame.to_ndarray(format="rgba")
        large = (ids > 0) & (ids < 200)
        assert iou(picture[..., 3] > 127, large) > 0.98
        if ids.any():
            assert np.abs(picture[..., :3].astype(int) - image)[large].mean() < 12


def test_cutouts(exports, inputs, images):
    for number, (ids, image) in enumerate(zip(inputs.ids, images, strict=True)):
        with Image.open(exports / "cutout" / f"{number:05d}.png") as picture:
            assert picture.mode == "RGBA"
            values = np.asarray(picture)
        assert np.array_equal(values[..., 3], (ids > 0) * np.uint8(255))
        assert np.array_equal(values[..., :3], image * (ids > 0)[..., None])


def test_gif_plays_for_ever_at_the_source_s_times(exports, inputs, images):
    with Image.open(exports / "cutout.gif") as picture:
        # Pixels are wider than high here, and square in a GIF.
        assert picture.n_frames == len(TIMES) and picture.info["loop"] == 0 and picture.size == (213, 120)
        durations = []
        for number, (ids, image) in enumerate(zip(inputs.ids, images, strict=True)):
            picture.seek(number)
            durations.append(picture.info["duration"])
            values = np.asarray(picture.convert("RGBA"))
            size = picture.size
            large = cv2.resize(((ids > 0) & (ids < 200)).astype(np.uint8), size)
            assert iou(values[..., 3], large) > 0.97
            if ids.any():
                inside = cv2.erode(large, np.ones((5, 5))) > 0
                assert np.abs(values[..., :3].astype(int) - cv2.resize(image, size))[inside].mean() < 12
    assert durations[:-1] == np.diff(TIMES).tolist()


def test_gif_leaves_out_frames_that_browsers_would_show_too_long(tmp_path, capsys):
    """Browsers show a frame for 1/10 s if it says less than 1/50."""
    writer = VideoWriter(tmp_path / "clip.mp4", SIZE, 60)
    (tmp_path / "masks").mkdir()
    for number in range(61):
        writer.write(np.zeros((*SIZE[::-1], 3), np.uint8))
        write_mask(tmp_path / "masks" / f"{number:05d}.png", np.full(SIZE[::-1], number % 2, np.uint8))
    writer.close()
    assert export(tmp_path / "masks", "--video", tmp_path / "clip.mp4", "--format", "gif", "--output", tmp_path) == 0
    assert "20 of 61 frames are left out" in capsys.readouterr().err
    with Image.open(tmp_path / "cutout.gif") as picture:
        durations, shown = [], []
        for number in range(picture.n_frames):
            picture.seek(number)
            durations.append(picture.info["duration"])
            shown.append(np.asarray(picture.convert("RGBA"))[1, 1, 3] > 0)
    assert min(durations) == 20 and sum(durations[:-1]) == 1000
    assert shown[:6] == [number % 2 for number in (0, 1, 3, 4, 6, 7)]


@pytest.mark.parametrize(("video", "rate", "kept"), [("frames", 25, 10), ("clip.avi", 25, 10), ("clip.avi", 50, 10),
                                                     ("clip.avi", 60, 7)])
def test_gif_keeps_all_frames_that_last_long_enough(tmp_path, capsys, video, rate, kept):
    """Pictures, and videos in AVI, have no finer unit of time than the time of a frame."""
    writer = VideoWriter(tmp_path / "clip.avi", SIZE, rate, encoding=Encoding("avi", "mpeg4", "yuv420p", {}))
    for folder in ("masks", "frames"):
        (tmp_path / folder).mkdir()
    for number in range(10):
        image = np.full((*SIZE[::-1], 3), 20 * number, np.uint8)
        writer.write(image)
        Image.fromarray(image).save(tmp_path / "frames" / f"{number:05d}.jpg")
        write_mask(tmp_path / "masks" / f"{number:05d}.png", np.ones(SIZE[::-1], np.uint8))
    writer.close()
    assert export(tmp_path / "masks", "--video", tmp_path / video, "--format", "gif", "--output", tmp_path) == 0
    assert ("left out" in capsys.readouterr().err) == (kept < 10)
    with Image.open(tmp_path / "cutout.gif") as picture:
        assert picture.n_frames == kept


def test_gif_keeps_the_lowest_row_of_an_object(tmp_path):
    Image.new("RGB", (32, 24)).save(tmp_path / "0.jpg")
    (tmp_path / "masks").mkdir()
    ids = np.triu(np.ones((24, 32), np.uint8))[::-1, ::-1].copy()
    write_mask(tmp_path / "masks" / "0.png", ids)
    assert export(tmp_path / "masks", "--video", tmp_path / "0.jpg", "--format", "gif", "--output", tmp_path) == 0
    with Image.open(tmp_path / "cutout.gif") as picture:
        assert np.array_equal(np.asarray(picture.convert("RGBA"))[..., 3] > 0, ids > 0)


def test_pictures_become_videos_that_say_which_colours_they_have(tmp_path):
    """Without a tag, each program would guess by the size."""
    colours = np.array([(220, 30, 40), (20, 200, 60), (30, 60, 230), (128, 128, 128)], np.uint8)
    image = colours.repeat(16, 0)[None].repeat(48, 0)
    (tmp_path / "frames").mkdir()
    (tmp_path / "masks").mkdir()
    Image.fromarray(image).save(tmp_path / "frames" / "0.png")
    write_mask(tmp_path / "masks" / "0.png", np.ones(image.shape[:2], np.uint8))
    assert export(tmp_path / "masks", "--video", tmp_path / "frames", "--output", tmp_path / "out", "--format",
                  "prores", "webm-alpha") == 0
    for name, codec in (("prores.mov", None), ("alpha.webm", "libvpx-vp9")):
        frame = decode(tmp_path / "out" / name, codec)[0]
        assert frame.colorspace == 1
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - image)[:, 4::16].max() < 8


def test_turned_videos_are_exported_upright(inputs, tmp_path):
    video = tmp_path / "clip.mp4"
    video.write_bytes(inputs.video.read_bytes())
    rotated(video, QUARTER)
    upright = [frame.image for frame in open_frames([str(video)])]
    (tmp_path / "masks").mkdir()
    for number, ids in enumerate(inputs.ids):
        write_mask(tmp_path / "masks" / f"{number:05d}.png", np.ascontiguousarray(np.rot90(ids, -1)))
    assert export(tmp_path / "masks", "--video", video, "--output", tmp_path / "out", "--format", "prores") == 0
    frames = decode(tmp_path / "out" / "prores.mov")
    with av.open(str(tmp_path / "out" / "prores.mov")) as container:
        assert container.streams.video[0].sample_aspect_ratio == 1 / LOOK.pixel_aspect
    for frame, ids, image in zip(frames, inputs.ids, upright, strict=True):
        assert (frame.width, frame.height) == SIZE[::-1]
        picture, ids = frame.to_ndarray(format="rgba"), np.rot90(ids, -1)
        assert np.array_equal(picture[..., 3] > 127, ids > 0)
        assert not ids.any() or np.abs(picture[..., :3].astype(int) - image)[ids > 0].mean() < 3


def shaped(inputs, folder, *options):
    """{(frame, object id): matte} of an export with these options."""
    assert export(inputs.masks, "--video", inputs.video, "--output", folder, "--format", "mattes", *options) == 0
    return {(int(path.stem), int(path.parent.name)): read_matte(path) for path in (folder / "mattes").glob("*/*.png")}


def test_objects(inputs, tmp_path):
    assert {key[1] for key in shaped(inputs, tmp_path / "out", "--objects", 3, 200)} == {3, 200}


def test_hold_bridges_gaps_of_so_many_frames(inputs, tmp_path):
    mattes = shaped(inputs, tmp_path / "a", "--hold", 1)
    assert np.array_equal(mattes[3, 3], mattes[2, 3]) and not mattes[4, 3].any() and mattes[5, 3].any()
    mattes = shaped(inputs, tmp_path / "b", "--hold", 2)
    assert np.array_equal(mattes[4, 3], mattes[2, 3])
    assert np.array_equal(mattes[7, 200], mattes[6, 200]) and not mattes[4, 200].any()


def test_largest_and_fill_holes(inputs, tmp_path):
    for number in range(3):
        here = (inputs.ids[number] == 1).astype(np.uint8)
        _, parts, statistics, _ = cv2.connectedComponentsWithStats(here)
        largest = parts == 1 + statistics[1:, 4].argmax()
        assert np.array_equal(shaped(inputs, tmp_path / f"a{number}", "--largest")[number, 1] > 0, largest)
        filled = shaped(inputs, tmp_path / f"b{number}", "--fill-holes")[number, 1] > 0
        assert filled[60, 70 + 3 * number] and (filled & (here == 0)).sum() == \
            (np.hypot(*np.mgrid[-60:60, -70 - 3 * number:90 - 3 * number]) <= 8).sum()


def test_grow_and_shrink(inputs, tmp_path):
    wide, narrow = (shaped(inputs, tmp_path / name, "--grow", pixels) for name, pixels in (("a", 4), ("b", -4)))
    for number in (0, 1):
        here = inputs.ids[number] == 3
        assert np.array_equal(np.argwhere(wide[number, 3])[-1], np.argwhere(here)[-1] + [4, 0]) or wide[number, 3].any()
        assert cv2.boundingRect(wide[number, 3]) == (0, 0, 24, 29 + number)
        # At the edge of the frame the object goes on.
        assert cv2.boundingRect(narrow[number, 3]) == (0, 0, 16, 21 + number)
    assert not narrow[5, 200].any() and wide[5, 200].any()


def test_feather_keeps_the_edge_where_it_was_and_the_frame_s_edge_hard(inputs, tmp_path):
    mattes = shaped(inputs, tmp_path / "a", "--feather", 6)
    matte = mattes[0, 3]
    assert (matte[0, :15] == 255).all() and (matte[:18, 0] == 255).all()
    row = matte[5].astype(int)
    assert row[19] > 127 > row[20] and abs(row[19] + row[20] - 255) <= 2
    assert (np.diff(row) <= 0).all() and ((row > 0) & (row < 255)).sum() in range(6, 14)
    assert row[16] > 235 and row[23] < 20


def test_two_objects_that_touch_have_no_seam(tmp_path):
    (tmp_path / "masks").mkdir()
    ids = np.ones((40, 60), np.uint8)
    ids[:, 30:] = 2
    write_mask(tmp_path / "masks" / "0.png", ids)
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (60, 40), "red").save(tmp_path / "frames" / "0.png")
    assert export(tmp_path / "masks", "--video", tmp_path / "frames", "--output", tmp_path / "out", "--format",
                  "cutout-png", "--feather", 8) == 0
    with Image.open(tmp_path / "out" / "cutout" / "0.png") as picture:
        assert (np.asarray(picture)[..., 3] == 255).all()


def test_soft_edges_are_the_probabilities(inputs, tmp_path, capsys):
    (tmp_path / "masks").symlink_to(inputs.masks)
    (tmp_path / "scores").mkdir()
    prob = np.random.default_rng(0).integers(0, 85, (4, *inputs.ids[0].shape), np.uint8)
    for number in range(len(TIMES)):
        write_scores(tmp_path / "scores" / f"{number:05d}.npz", prob, [1, 3, 200])
    write_summary(tmp_path / "summary.json", [inputs.video], inputs.ids)
    assert export(tmp_path, "--format", "mattes", "cutout-png", "--soft", "--objects", 1, 3) == 0
    assert np.array_equal(read_matte(tmp_path / "export" / "mattes" / "003" / "00002.png"), prob[2])
    with Image.open(tmp_path / "export" / "cutout" / "00002.png") as picture:
        assert np.array_equal(np.asarray(picture)[..., 3], prob[1] + prob[2])
    assert export(tmp_path, "--format", "mattes", "--soft", "--feather", 2) == 2
    assert "--soft" in capsys.readouterr().err
    assert export(inputs.masks, "--output", tmp_path / "b", "--format", "mattes", "--soft") == 2
    assert "--save-scores" in capsys.readouterr().err


def test_empty_masks_have_no_box():
    assert crop_mask(1, np.zeros((3, 4), np.uint8)) is None
