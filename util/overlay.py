"""Drawing masks over their frame."""

import cv2
import numpy as np

from util.image_io import davis_palette

_PALETTE = davis_palette()

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_overlay(frame, ids, opacity=0.45):
    """Draw the objects in translucent colours with outlines; returns uint8 H×W×3.

    frame uint8 H×W×3 RGB, ids uint8 H×W. Background stays as it is. Around an object runs a white line and around that
    a black one, so that it is seen on a background of any colour.
    """
    colours = _PALETTE[ids]
    overlay = np.where(ids[..., None] > 0, cv2.addWeighted(frame, 1 - opacity, colours, opacity, 0), frame)
    kernel = np.ones((3, 3), np.uint8)
    width = _line_width(ids.shape)
    near = cv2.dilate(ids, kernel, iterations=width)
    # An object's edge is where its neighbourhood holds another id, or none.
    edge = (ids > 0) & (near != cv2.erode(ids, kernel, iterations=width))
    overlay[edge] = colours[edge]
    overlay[(ids == 0) & (cv2.dilate(near, kernel, iterations=width) > 0)] = 0
    overlay[(ids == 0) & (near > 0)] = 255
    return overlay


def draw_ids(image, ids):
    """Write each object's id into it, in place. image uint8 H×W×3 RGB, contiguous; ids uint8 H×W."""
    for object_id in np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[1:]) + 1:
        here = (ids == object_id).view(np.uint8)
        left, top, width, height = cv2.boundingRect(here)
        # Where it is thickest: the middle of a ring or of two parts is not in it.
        box = np.pad(here[top:top + height, left:left + width], 1)
        _, _, _, (x, y) = cv2.minMaxLoc(cv2.distanceTransform(box, cv2.DIST_L2, 3))
        _write(image, str(object_id), (left + x - 1, top + y - 1), centred=True)


def draw_stamp(image, name, time=None):
    """Write a frame's name, and its time in seconds if there is one, into the upper left corner, in place.

    image: uint8 H×W×3 RGB, contiguous.
    """
    text = name if time is None else f"{name}  {float(time):.3f} s"
    # The font has no other letters.
    text = text.encode("ascii", "replace").decode()
    _write(image, text, (4, 4), centred=False)


def _line_width(shape):
    """The width in pixels of a line that is seen well in an image of this (height, width)."""
    return max(1, round(min(shape[:2]) / 480))


def _write(image, text, point, centred):
    """Write white text with a black edge: its centre or its upper left corner at `point`, but inside the image."""
    height, width = image.shape[:2]
    scale = max(0.35, min(height, width) / 800)
    line = max(1, round(2 * scale))
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, scale, line)
    x, y = point
    x, y = (x - text_width // 2, y + text_height // 2) if centred else (x, y + text_height)
    x = max(2, min(x, width - text_width - 2))
    y = max(text_height + 2, min(y, height - 3))
    for colour, thickness in (((0, 0, 0), line + 2), ((255, 255, 255), line)):
        cv2.putText(image, text, (x, y), _FONT, scale, colour, thickness, cv2.LINE_AA)
