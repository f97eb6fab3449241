"""Masks as pictures and videos: what programs that cut, compose and show read.

The writers are generators, see `exporting.annotations`.
"""

import contextlib
from fractions import Fraction

import cv2
import numpy as np
from PIL import Image

from util.pyav import av
from util.video_writer import H264, PRORES_4444, VP9_WITH_ALPHA, Encoding, VideoWriter

FRINGE = 16
"""So many pixels around an object keep their colours where they are transparent: programs that scale or compress
pictures mix colours across the edge."""

MATTE = H264._replace(options={**H264.options, "crf": "8"}, full_range=False)
"""For mattes: finer, since a wrong grey is a wrong edge."""

# FFmpeg cuts off transparent margins, and of the lowest row it forgets what is wider than the rows above it.
GIF = Encoding("gif", "gif", "pal8", {"gifflags": "-offsetting"}, finest=Fraction(1, 100), shortest=Fraction(1, 50))

GIF_SIDE = 480
"""The longer side of an animated GIF is no longer than this; GIFs are large."""

CURE = "leave this format out, or choose another one"
"""What to do with a video that cannot be encoded."""


def write_mattes(path, video):
    """path is a folder with OBJECT/NAME.png, grey, 255 where the object is; OBJECT is its id in three digits."""
    path.mkdir()
    folders = {object_id: path / f"{object_id:03d}" for object_id in video.objects}
    for folder in folders.values():
        folder.mkdir()
    while (frame := (yield)) is not None:
        for object_id, folder in folders.items():
            Image.fromarray(frame.alpha(object_id)).save(folder / f"{frame.name}.png")
    return []


def write_matte_video(path, video):
    """path is a folder with OBJECT.mp4, white where the object is; OBJECT is its id in three digits."""
    path.mkdir()
    with contextlib.ExitStack() as files:
        writers = {}
        for object_id in video.objects:
            writers[object_id] = _open(path / f"{object_id:03d}.mp4", video, MATTE)
            files.callback(writers[object_id].close)
        while (frame := (yield)) is not None:
            for object_id, writer in writers.items():
                writer.write(np.repeat(frame.alpha(object_id)[..., None], 3, 2), frame.time)
    return []


def write_prores(path, video):
    """path is a .mov file: ProRes 4444, transparent where no object is; colours are not multiplied by opacity."""
    return _write_transparent(path, video, PRORES_4444)


def write_webm_alpha(path, video):
    """path is a .webm file: VP9, transparent where no object is; colours are not multiplied by opacity."""
    return _write_transparent(path, video, VP9_WITH_ALPHA)


def _write_transparent(path, video, encoding):
    with contextlib.closing(_open(path, video, encoding)) as writer:
        while (frame := (yield)) is not None:
            writer.write(cut_out(frame, FRINGE), frame.time)
    return []


def write_cutout_png(path, video):
    """path is a folder with NAME.png in RGBA, transparent and black where no object is."""
    path.mkdir()
    while (frame := (yield)) is not None:
        Image.fromarray(cut_out(frame)).save(path / f"{frame.name}.png", compress_level=3)
    return []


def write_gif(path, video):
    """path is an animated GIF, transparent where no object is, which plays for ever."""
    width, height = video.size
    # Its pixels are square.
    shown = (width * float(video.look.pixel_aspect), height)
    scale = min(1, GIF_SIDE / max(shown))
    size = tuple(max(1, round(side * scale)) for side in shown)
    look = video.look._replace(time_base=GIF.finest)
    with contextlib.closing(VideoWriter(path, size, video.rate, look, encoding=GIF, cure=CURE)) as writer:
        while (frame := (yield)) is not None:
            image = frame.image if size == video.size else cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
            alpha = frame.alpha() if size == video.size else cv2.resize(frame.alpha(), size,
                                                                        interpolation=cv2.INTER_AREA)
            writer.write_encoded(_to_palette(image, alpha > 127), frame.time)
    return [f"{writer.left_out} of {video.count} frames are left out, as browsers show none for less than 1/50 s"] \
        if writer.left_out else []


def cut_out(frame, fringe=0):
    """A MaskedFrame's objects as uint8 H×W×4, transparent elsewhere.

    fringe: so many transparent pixels around the objects keep their colours; all others are black.
    """
    alpha = frame.alpha()
    near = alpha
    if fringe:
        near = cv2.dilate(alpha, np.ones((2 * fringe + 1, 2 * fringe + 1), np.uint8))
    return np.dstack([frame.image * (near > 0)[..., None], alpha])


def _open(path, video, encoding):
    return VideoWriter(path, video.size, video.rate, video.look, encoding=encoding, cure=CURE)


def _to_palette(image, shown):
    """An av.VideoFrame of up to 255 colours, chosen for what is shown (bool H×W) of uint8 H×W×3, and a clear one."""
    places, colours = np.full(shown.shape, 255, np.uint8), np.zeros((256, 4), np.uint8)
    # Also of the unused ones: the first clear colour is the one that a GIF knows.
    colours[:255, 0] = 255
    # A frame without any clear pixel would stay behind the next one.
    shown[0, 0] &= not shown.all()
    left, top, width, height = cv2.boundingRect(shown.view(np.uint8))
    if width:
        box = np.s_[top:top + height, left:left + width]
        quantized = Image.fromarray(image[box] * shown[box][..., None]).quantize(255, dither=Image.Dither.NONE)
        table = np.array(quantized.getpalette("RGB"), np.uint8).reshape(-1, 3)[:255]
        colours[:len(table), 1:] = table
        places[box] = np.where(shown[box], np.asarray(quantized), 255)
    return av.VideoFrame.from_ndarray((places, colours), format="pal8")
