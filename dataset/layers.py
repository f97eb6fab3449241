"""Frames made of layers: a picture behind, cut-outs in front, each on a smooth path of its own.

Coordinates and matrices are those of `dataset.augmentation`.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataset.augmentation import IMAGE_MEAN, MINIFICATION, rotation, scaling, translation

CELL = 8
"""Pixels between two points at which a deformation is evaluated; in between it is interpolated."""

MARGIN = 2
"""Pixels around a cut-out, so that its border is interpolated and not cut."""

STREAK = 9
"""The longest motion blur in pixels: up to here OpenCV's filter skips the zeros of a kernel."""


@dataclass(frozen=True)
class Waves:
    """A deformation that changes smoothly in space and time: waves that travel over the picture."""

    vectors: np.ndarray
    """K×2, radians for each pixel of the picture."""

    phases: np.ndarray
    """K, radians."""

    speeds: np.ndarray
    """K, radians for each frame."""

    offsets: np.ndarray
    """K×2, pixels of the picture."""

    def moved(self, points, time):
        """points N×2 and their displacement at this time."""
        return points + np.sin(points @ self.vectors.T + self.phases + self.speeds * time) @ self.offsets


@dataclass(frozen=True)
class Layer:
    """One picture and where it is in each frame."""

    picture: np.ndarray
    """uint8 H×W×3. Of a cut-out, black where it is transparent and darker where it is half so (premultiplied)."""

    masks: dict
    """{number: uint8 H×W} of the objects in the picture, 0 to 255; a cut-out has one, which is its opacity."""

    matrices: list
    """3×3 for each frame: picture to frame."""

    waves: Waves | None = None

    opaque: bool = False
    """The picture fills the frame; outside of it is its mirror image, or fill where it has objects."""

    shutter: float = 0
    """Motion blur: the share of the time between frames for which the shutter is open."""


def random_waves(rng, side, strength, pace):
    """Three Waves of a picture with this longer side; strength: displacement, of the side (about one deviation)."""
    lengths = side * rng.uniform(0.6, 1.8, 3)
    angles = rng.uniform(0, 2 * np.pi, 3)
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1) * (2 * np.pi / lengths)[:, None]
    # Short waves are lower: the slope of the displacement, and so the distortion, is that of the others.
    offsets = rng.normal(0, strength, (3, 2)) * lengths[:, None] / 1.7
    return Waves(vectors, rng.uniform(0, 2 * np.pi, 3), rng.normal(0, pace, 3), offsets)


def drift(rng, scales, pace, shots):
    """Smooth random motion from 0: float shots×len(scales). scales: one deviation of the way from frame to frame."""
    times = np.arange(shots)
    speed, bend = rng.normal(0, pace, (2, len(scales))) * scales
    return speed * times[:, None] + 0.4 * bend * times[:, None] ** 2 / 2


def motion(rng, size, pace, shots, travel=0.08, degrees=7, zoom=0.06, shear=3, stretch=0.03):
    """Matrices of `shots` frames that move what is around the origin; pace 1 is fast, scales are those of `drift`."""
    scales = [travel * size, travel * size, np.radians(degrees), zoom, np.radians(shear), stretch]
    matrices = []
    for x, y, angle, growth, slope, wider in drift(rng, scales, pace, shots):
        matrix = translation(x, y) @ rotation(angle)
        growth = np.exp(np.clip(growth, -1, 1))
        shape = np.array([[1, -np.tan(np.clip(slope, -0.5, 0.5)), 0], [0, 1, 0], [0, 0, 1]])
        matrices.append(matrix @ shape @ scaling(growth * np.exp(wider), growth * np.exp(-wider)))
    return matrices


def cut_out(image, mask, softness):
    """(picture, opacity) of a Layer: what of the image is in a mask (0 and 1), with a soft border.

    softness: deviation of the border's blur in pixels; the border itself moves inwards by as much, since masks often
    hold a rim of what is behind the object.
    """
    x, y, w, h = cv2.boundingRect(mask)
    # An object at the image's border goes on with the last pixel for as long as the margin is.
    part = [cv2.copyMakeBorder(plane[y:y + h, x:x + w], *[MARGIN] * 4, kind)
            for plane, kind in ((image, cv2.BORDER_REPLICATE), (mask * np.uint8(255), cv2.BORDER_CONSTANT))]
    picture, alpha = part
    if softness:
        alpha = cv2.GaussianBlur(alpha, (0, 0), softness)
        # From half and less to nothing: ½ is now where ¾ was.
        alpha = cv2.addWeighted(alpha, 2, alpha, 0, -255)
    picture = cv2.multiply(picture, cv2.merge([alpha] * 3), scale=1 / 255)
    return picture, alpha


def with_limb(rng, layer):
    """A cut-out Layer as two, from behind: a limb of it turns about a joint, behind or in front of the rest.

    A line across the object, with a tenth to a half of it on the far side, is where the limb begins.
    """
    (number, alpha), = layer.masks.items()
    y, x = np.nonzero(alpha > 127)
    if len(x) < 64:
        return [layer]
    across, down = rotation(rng.uniform(0, 2 * np.pi))[:2, 0]
    along = across * x + down * y
    edge = np.quantile(along, rng.uniform(0.5, 0.9))
    extent = np.ptp(along)
    near = np.abs(along - edge) < 1 + 0.05 * extent
    joint = np.array([x[near].mean(), y[near].mean()]) + 0.5
    turn = rng.normal(0, 30)
    pace = np.exp(rng.uniform(*np.log((0.3, 1.2))))
    angles = np.radians(turn + drift(rng, (30,), pace, len(layer.matrices))[:, 0])
    beyond = across * np.arange(alpha.shape[1]) + down * np.arange(alpha.shape[0])[:, None] - edge
    # What is behind goes on under what is in front, so that the turn opens no gap.
    behind = rng.random() < 0.5
    hidden = rng.uniform(0.1, 0.25) * extent
    shares = [np.clip(beyond + hidden * behind + 0.5, 0, 1), np.clip(hidden * (not behind) - beyond + 0.5, 0, 1)]
    limb, body = (
        replace(layer, picture=np.uint8(layer.picture * share[..., None]), masks={number: np.uint8(alpha * share)})
        for share in shares)
    turns = about(joint, [rotation(angle) for angle in angles])
    limb = replace(limb, matrices=[move @ turn for move, turn in zip(layer.matrices, turns, strict=True)])
    return [limb, body] if behind else [body, limb]


def shrunk(planes, scale):
    """(planes, (x, y)): pictures and masks averaged to about `scale` where resampling would alias; the true scale."""
    height, width = planes[0].shape[:2]
    if scale >= MINIFICATION:
        return planes, (1, 1)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in planes], \
        (size[0] / width, size[1] / height)


def compose(layers, size):
    """(rgb uint8 T×size×size×3, ids uint8 T×size×size) of Layers from the back, which is opaque, to the front.

    A pixel belongs to the front-most layer that covers more than half of it.
    """
    shots = len(layers[0].matrices)
    rgb = np.empty((shots, size, size, 3), np.uint8)
    ids = np.empty((shots, size, size), np.uint8)
    draw(layers, rgb, ids, range(shots))
    return rgb, ids


def draw(layers, rgb, ids, times):
    """Draw Layers over what `rgb` and `ids` of `compose` already show at these times."""
    for time in times:
        for layer in layers:
            (_back if layer.opaque else _front)(layer, time, rgb[time], ids[time])


def _back(layer, time, frame, ids):
    size = len(frame)
    lookup = _lookup(layer, time, (0, 0, size, size))
    # A mirrored object would be a second one.
    border = cv2.BORDER_CONSTANT if layer.masks else cv2.BORDER_REFLECT_101
    frame[:] = cv2.remap(layer.picture, *lookup, cv2.INTER_LINEAR, borderMode=border, borderValue=IMAGE_MEAN)
    ids[:] = 0
    for number, mask in layer.masks.items():
        # Linear and then cut at half: the nearest pixel would leave steps in what is enlarged.
        ids[cv2.remap(mask, *lookup, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) > 127] = number
    kernel = _streak(layer, time, (layer.picture.shape[1] / 2, layer.picture.shape[0] / 2))
    if kernel is not None:
        frame[:] = cv2.filter2D(frame, -1, kernel)


def _front(layer, time, frame, ids):
    (number, alpha), = layer.masks.items()
    height, width = alpha.shape
    kernel = _streak(layer, time, (width / 2, height / 2))
    bounds = _bounds(layer, time, len(frame), 1 if kernel is None else 1 + len(kernel) // 2)
    if bounds is None:
        return
    left, top, right, bottom = bounds
    # All four channels in one pass.
    planes = cv2.remap(cv2.merge([layer.picture, alpha]), *_lookup(layer, time, bounds), cv2.INTER_LINEAR,
                       borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    if kernel is not None:
        planes = cv2.filter2D(planes, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    alpha = cv2.extractChannel(planes, 3)
    part = frame[top:bottom, left:right]
    behind = cv2.merge([255 - alpha] * 3)
    part[:] = cv2.add(cv2.multiply(part, behind, scale=1 / 255), cv2.cvtColor(planes, cv2.COLOR_BGRA2BGR))
    ids[top:bottom, left:right][alpha > 127] = number


def _bounds(layer, time, size, reach):
    """(left, top, right, bottom) of the part of the frame that a cut-out can touch, None where there is none."""
    height, width = layer.picture.shape[:2]
    slack = np.abs(layer.waves.offsets).sum(0) if layer.waves else np.zeros(2)
    low, high = -slack, np.array([width, height]) + slack
    corners = np.array([[x, y, 1] for x in (low[0], high[0]) for y in (low[1], high[1])])
    places = (corners @ layer.matrices[time].T)[:, :2]
    left, top = np.clip(np.floor(places.min(0)) - reach, 0, size).astype(int)
    right, bottom = np.clip(np.ceil(places.max(0)) + reach, 0, size).astype(int)
    return (left, top, right, bottom) if right > left and bottom > top else None


def _lookup(layer, time, bounds):
    """Where in the picture each pixel of this part of the frame comes from: two maps, as cv2.remap takes them."""
    left, top, right, bottom = bounds
    cells = -(-(right - left) // CELL), -(-(bottom - top) // CELL)
    # A cell more on each side: the interpolation below then never repeats a border.
    x, y = ((np.arange(-1, count + 1) + 0.5) * CELL + start for count, start in zip(cells, (left, top), strict=True))
    inverse = np.linalg.inv(layer.matrices[time])
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2) @ inverse[:2, :2].T + inverse[:2, 2]
    if layer.waves:
        points = layer.waves.moved(points, time)
    coarse = (points - 0.5).astype(np.float32).reshape(len(y), len(x), 2)
    fine = cv2.resize(coarse, None, fx=CELL, fy=CELL, interpolation=cv2.INTER_LINEAR)
    # In whole numbers: 1/32 of a pixel, which is what the interpolation distinguishes, and faster.
    return cv2.convertMaps(fine[CELL:CELL + bottom - top, CELL:CELL + right - left], None, cv2.CV_16SC2)


def _streak(layer, time, point):
    """The kernel of motion blur for the way of a point of the picture while the shutter is open, None where short."""
    if not layer.shutter:
        return None
    end = len(layer.matrices) - 1
    before, after = (layer.matrices[index] @ (*point, 1) for index in (max(time - 1, 0), min(time + 1, end)))
    way = (after - before)[:2] * layer.shutter / (2 if 0 < time < end else 1)
    way *= min(1, STREAK / (np.linalg.norm(way) + 1e-6))
    half = int(np.ceil(np.abs(way).max() / 2))
    if np.linalg.norm(way) < 1.5:
        return None
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    ends = [tuple(round(half + sign * part / 2) for part in way) for sign in (-1, 1)]
    cv2.line(kernel, *ends, 1)
    return kernel / kernel.sum()


def placed(base, moves):
    """Matrices of all frames: `base` brings the picture around the origin, `moves` from there on."""
    return [move @ base for move in moves]


def about(point, matrices):
    """The same motion around another point than the origin."""
    return [translation(*point) @ matrix @ translation(-point[0], -point[1]) for matrix in matrices]
