"""Clicks and boxes on the page, made into masks by the click network."""

import threading

import numpy as np

from inference_core.clicks import ClickSession
from interactive.marking import as_points
from util.errors import InputError


class Clicker:
    """Marks objects in the frames of one project. Threads may share it; one is served at a time.

    load: returns the click network; it is called with the first click.

    The session of the last click is kept: a further click on the same object only adds to it. So what the first click
    took from another object goes back to it when a later click says that it was too much. Whatever else changes the
    frame in between, an undo or the brush, ends the session, and the next click starts from the masks as they are.
    """

    def __init__(self, load):
        self._load, self._lock = load, threading.Lock()
        self._session = self._place = self._before = self._answer = None

    def click(self, ids, place, image, points, positive):
        """Draw the object at clicks into object ids, uint8 H×W, and return them. Raises InputError.

        place: (position of the frame, object id). image: uint8 H×W×3 RGB. points: all clicks so far, [x, y] each in
        pixels of the frame; only the last one is new, if the mask is still that of the others. positive: for each,
        whether it is on the object. Other objects keep their pixels, but for those that were clicked at: what lies on
        another object, as a ball on a dog, is taken from it.
        """
        points = _in_image(points, image)
        if len(points) != len(positive):
            raise InputError(f"{len(points)} points, but {len(positive)} times whether they are on the object")
        with self._lock:
            session, before, goes_on = self._open(ids, place, image)
            for point, on in list(zip(points, positive, strict=True))[-1 if goes_on else 0:]:
                session.click(*point, on)
            return self._draw(place, session, before)

    def box(self, ids, place, image, points):
        """Draw the object that fills the box between two opposite corners; see `click`."""
        points = _in_image(points, image)
        if len(points) < 2:
            raise InputError("a box has two corners")
        (left, right), (top, bottom) = np.sort(points[:2], axis=0).T
        if right - left < 2 or bottom - top < 2:
            raise InputError("the box is empty")
        with self._lock:
            # What is in the box is the object; what was the object before is not, where it is outside.
            session, before, _ = self._open(np.where(ids == place[1], 0, ids), place, image)
            session.box(left, top, right, bottom)
            return self._draw(place, session, before)

    def _open(self, ids, place, image):
        """Return the session to go on with, all others' ids before it, and whether it knows the clicks so far."""
        if self._place == place and np.array_equal(self._answer, ids):
            return self._session, self._before, True
        plane = ids == place[1]
        return ClickSession(self._load(), image, plane), np.where(plane, 0, ids), False

    def _draw(self, place, session, before):
        ids = before.copy()
        clicked = [ids[round(y), round(x)] for hint in session.hints if hint.positive and not hint.box
                   for x, y in hint.points]
        ids[session.mask & np.isin(ids, [0, *clicked])] = place[1]
        self._session, self._place, self._before, self._answer = session, place, before, ids
        return ids.copy()


def _in_image(points, image):
    """Return points as pairs of floats in the image."""
    # Of the page's points whole numbers are the pixels' corners, of the network's they are their centres.
    return np.clip(as_points(points) - 0.5, 0, np.array(image.shape[1::-1]) - 1).tolist()
