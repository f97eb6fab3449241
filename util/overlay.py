"""Drawing masks over their frame."""

import functools

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from util.image_io import davis_palette

_PALETTE = davis_palette()


def draw_overlay(frame, ids, opacity=0.45):
    """Draw the objects in translucent colours with outlines; returns uint8 H×W×3.

    frame uint8 H×W×3 RGB, ids uint8 H×W. Background stays as it is. Around an object runs a white line and around that
    a black one, so that it is seen on a background of any colour.
    """
    overlay = frame.copy()
    width = _line_width(ids.shape)
    left, top, columns, rows = cv2.boundingRect((ids > 0).view(np.uint8))
    if not columns:
        return overlay
    # Only where something is to be drawn: most objects are small.
    margin = 2 * width
    part = np.s_[max(0, top - margin):top + rows + margin, max(0, left - margin):left + columns + margin]
    ids, image = np.ascontiguousarray(ids[part]), frame[part].copy()

    colours = _PALETTE[ids]
    objects = (ids > 0).view(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    near = cv2.dilate(ids, kernel, iterations=width)
    around = cv2.dilate(near, kernel, iterations=width)
    # An object's edge is where its neighbourhood holds another id, or none.
    edge = (near != cv2.erode(ids, kernel, iterations=width)).view(np.uint8)
    cv2.copyTo(cv2.addWeighted(image, 1 - opacity, colours, opacity, 0), objects, image)
    cv2.copyTo(colours, edge & objects, image)
    cv2.copyTo(np.zeros_like(image), around * (1 - objects), image)
    cv2.copyTo(np.full_like(image, 255), near * (1 - objects), image)
    overlay[part] = image
    return overlay


def draw_ids(image, ids, quality=None):
    """Write each object's id into it, in place. image uint8 H×W×3 RGB, ids uint8 H×W.

    quality: {object id: number from 0 to 1} that is written beside the id, in percent.
    """
    step = max(1, min(ids.shape) // 240)
    coarse = np.ascontiguousarray(ids[::step, ::step])
    for object_id in _find_objects(ids):
        scale, here = step, (coarse == object_id).view(np.uint8)
        left, top, width, height = cv2.boundingRect(here)
        if not width:
            scale, here = 1, (ids == object_id).view(np.uint8)
            left, top, width, height = cv2.boundingRect(here)
        # Where it is thickest: the middle of a ring or of two parts is not in it.
        box = np.pad(here[top:top + height, left:left + width], 1)
        _, _, _, (x, y) = cv2.minMaxLoc(cv2.distanceTransform(box, cv2.DIST_L2, 3))
        shown = f"  {100 * quality[object_id]:.0f} %" if quality and object_id in quality else ""
        _write(image, f"{object_id}{shown}", (scale * (left + x - 1), scale * (top + y - 1)), centred=True)


def draw_stamp(image, name, time=None):
    """Write a frame's name, and its time in seconds if there is one, into the upper left corner, in place.

    image: uint8 H×W×3 RGB.
    """
    _write(image, name if time is None else f"{name}  {float(time):.3f} s", (0, 0), centred=False)


def _find_objects(ids):
    """The object ids in uint8 H×W, in order."""
    return np.flatnonzero(cv2.calcHist([ids], [0], None, [256], [0, 256])[1:]) + 1


def _line_width(shape):
    """The width in pixels of a line that is seen well in an image of this (height, width)."""
    return max(1, round(min(shape) / 480))


@functools.lru_cache(maxsize=256)
def _render(text, size):
    """White text with a black edge: (uint8 H×W×3, uint8 H×W, 255 where it covers what is below)."""
    font, edge = ImageFont.load_default(size), max(1, size // 10)
    left, top, right, bottom = font.getbbox(text, stroke_width=edge)
    picture = Image.new("RGBA", (max(1, round(right - left)), max(1, round(bottom - top))))
    ImageDraw.Draw(picture).text((-left, -top), text, "white", font, stroke_width=edge, stroke_fill="black")
    values = np.asarray(picture)
    return values[..., :3], values[..., 3]


def _write(image, text, point, centred):
    """Write text with its centre or its upper left corner at `point`, (x, y), or as near as it fits into the image."""
    height, width = image.shape[:2]
    letters, cover = _render(text, max(10, round(min(height, width) / 30)))
    letters, cover = letters[:height, :width], cover[:height, :width, None] / 255
    rows, columns = letters.shape[:2]
    x, y = (point[0] - columns // 2, point[1] - rows // 2) if centred else point
    x, y = max(0, min(x, width - columns)), max(0, min(y, height - rows))
    below = image[y:y + rows, x:x + columns]
    below[:] = np.round(letters * cover + below * (1 - cover))
