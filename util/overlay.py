"""Drawing masks over their frame."""

import cv2
import numpy as np

from util.image_io import davis_palette

_PALETTE = davis_palette()


def draw_overlay(frame, ids, opacity=0.45):
    """Draw the objects in translucent colours with contours; returns uint8 H×W×3.

    frame uint8 H×W×3 RGB, ids uint8 H×W. Background stays as it is.
    """
    colours = _PALETTE[ids]
    blended = cv2.addWeighted(frame, 1 - opacity, colours, opacity, 0)
    overlay = np.where(ids[..., None] > 0, blended, frame)
    # A contour is where a 3×3 neighbourhood holds more than one id: two pixels wide.
    kernel = np.ones((3, 3), np.uint8)
    border = cv2.dilate(ids, kernel) != cv2.erode(ids, kernel)
    overlay[border] = np.where(ids[border, None] > 0, colours[border], 255)
    return overlay
