"""Make frames of layers: a picture behind, cut-outs in front, each on a smooth path of its own.

Coordinates and matrices are those of `dataset.augmentation`. T is the number of frames.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataset.augmentation import IMAGE_MEAN, MINIFICATION, rotation, scaling, translation

CELL = 8
"""A deformation is evaluated at points so many pixels apart, and interpolated between them."""

MARGIN = 2
"""Transparent pixels around a cut-out, so that its border is interpolated and not cut off."""

STREAK = 9
"""Length of the longest motion blur in pixels. OpenCV's filter skips the zeros of a kernel only up to this size."""

TURN = (2.5, 5)
"""Paths turn back when they have come as far as they would straight ahead in so many frames."""


@dataclass(frozen=True)
class Waves:
    """A deformation that changes smoothly in space and time: K waves that travel over the picture."""

    vectors: np.ndarray
    """float K×2: wave vectors (x, y), in radians for each pixel of the picture."""

    phases: np.ndarray
    """float K: phases at frame 0, in radians."""

    speeds: np.ndarray
    """float K: change of the phases, in radians for each frame."""

    offsets: np.ndarray
    """float K×2: displacement (x, y) at a wave's crest, in pixels of the picture."""

    def move(self, points, time):
        """Return points N×2 (x, y) of the picture, displaced as in frame `time`."""
        return points + np.sin(points @ self.vectors.T + self.phases + self.speeds * time) @ self.offsets


@dataclass(frozen=True)
class Layer:
    """A picture, and where it is in each frame."""

    picture: np.ndarray
    """uint8 H×W×3. In a cut-out, RGB is multiplied by the opacity: black where the cut-out is transparent."""

    masks: dict
    """{object id: uint8 H×W, 0 to 255} of the objects in the picture. A cut-out has one mask, which is its opacity."""

    matrices: list
    """T matrices 3×3 from picture to frame."""

    waves: Waves | None = None
    """The picture's deformation."""

    opaque: bool = False
    """True for a background, which fills the frame. Beyond its border follows its mirror image, or IMAGE_MEAN if it
    has objects."""

    shutter: float = 0
    """Motion blur: the share of the time between two frames for which the shutter is open."""


def random_waves(rng, side, strength, pace):
    """Return three random Waves for a picture.

    side: the picture's longer side. strength: about one standard deviation of the displacement, as a share of the side.
    pace: standard deviation of the waves' speeds, in radians for each frame.
    """
    lengths = side * rng.uniform(0.6, 1.8, 3)
    angles = rng.uniform(0, 2 * np.pi, 3)
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1) * (2 * np.pi / lengths)[:, None]
    # Short waves are lower, so that they distort the picture no more than long waves do.
    offsets = rng.normal(0, strength, (3, 2)) * lengths[:, None] / 1.7
    return Waves(vectors, rng.uniform(0, 2 * np.pi, 3), rng.normal(0, pace, 3), offsets)


def swing(times, turn):
    """Return times that run as `times` at first, then ever slower, and back: from -`turn` to `turn`.

    What moves by them stays in sight, however many frames a sample has.
    """
    return turn * np.sin(times / turn)


def random_drift(rng, scales, pace, shots):
    """Return smooth random paths that start at 0 and swing: float shots×S, one path for each of S scales.

    scales: standard deviations of the way from frame to frame at pace 1, float S.
    """
    speed, bend = rng.normal(0, pace, (2, len(scales))) * scales
    times = swing(np.arange(shots)[:, None], rng.uniform(*TURN, len(scales)))
    return speed * times + 0.2 * bend * times ** 2


def random_motion(rng, size, pace, shots, travel=0.08, degrees=7, zoom=0.06, shear=3, stretch=0.03):
    """Return a matrix for each of `shots` frames that moves, turns and distorts a picture around the origin.

    size: side of the frame in pixels. pace: 1 is fast. The others are standard deviations of the change from frame to
    frame at pace 1. travel: way, as a share of the frame's side. degrees: turn. zoom: change of the logarithm of the
    size. shear: degrees. stretch: change of the logarithm of the width, at constant area.
    """
    scales = [travel * size, travel * size, np.radians(degrees), zoom, np.radians(shear), stretch]
    matrices = []
    for x, y, angle, growth, slope, wider in random_drift(rng, scales, pace, shots):
        matrix = translation(x, y) @ rotation(angle)
        growth = np.exp(np.clip(growth, -1, 1))
        shape = np.array([[1, -np.tan(np.clip(slope, -0.5, 0.5)), 0], [0, 1, 0], [0, 0, 1]])
        matrices.append(matrix @ shape @ scaling(growth * np.exp(wider), growth * np.exp(-wider)))
    return matrices


def cut_out(image, mask, softness):
    """Return (picture, opacity) for a Layer: the part of an image that is in a mask, with a soft border.

    image: uint8 H×W×3. mask: uint8 H×W of 0 and 1. softness: standard deviation of the border's blur in pixels. The
    border also moves inwards by about as much, because masks often include a rim of the object's background.
    """
    x, y, w, h = cv2.boundingRect(mask)
    # The margin repeats the pixels at the border, so that interpolation there finds no other colours.
    part = [cv2.copyMakeBorder(plane[y:y + h, x:x + w], *[MARGIN] * 4, kind)
            for plane, kind in ((image, cv2.BORDER_REPLICATE), (mask * np.uint8(255), cv2.BORDER_CONSTANT))]
    picture, alpha = part
    if softness:
        alpha = cv2.GaussianBlur(alpha, (0, 0), softness)
        # An opacity of ½ and less becomes 0, ¾ becomes ½: the border moves inwards.
        alpha = cv2.addWeighted(alpha, 2, alpha, 0, -255)
    picture = cv2.multiply(picture, cv2.merge([alpha] * 3), scale=1 / 255)
    return picture, alpha


def add_limb(rng, layer):
    """Split a cut-out Layer into a limb that turns about a joint, and the rest. Returns both, the one behind first.

    A line across the object separates the limb, which is a tenth to a half of the object. Objects of fewer than 64
    pixels are returned as they are.
    """
    (object_id, alpha), = layer.masks.items()
    y, x = np.nonzero(alpha > 127)
    if len(x) < 64:
        return [layer]

    # Choose the line, the joint on it, and the limb's angles over time.
    across, down = rotation(rng.uniform(0, 2 * np.pi))[:2, 0]
    along = across * x + down * y
    edge = np.quantile(along, rng.uniform(0.5, 0.9))
    extent = np.ptp(along)
    near = np.abs(along - edge) < 1 + 0.05 * extent
    joint = np.array([x[near].mean(), y[near].mean()]) + 0.5
    turn = rng.normal(0, 30)
    pace = np.exp(rng.uniform(*np.log((0.3, 1.2))))
    angles = np.radians(turn + random_drift(rng, (30,), pace, len(layer.matrices))[:, 0])

    # Split the picture. The part behind extends under the part in front, so that the turn opens no gap. `beyond` is the
    # distance from the line, H×W, positive on the limb's side.
    beyond = across * np.arange(alpha.shape[1]) + down * np.arange(alpha.shape[0])[:, None] - edge
    behind = rng.random() < 0.5
    hidden = rng.uniform(0.1, 0.25) * extent
    shares = [np.clip(beyond + hidden * behind + 0.5, 0, 1), np.clip(hidden * (not behind) - beyond + 0.5, 0, 1)]
    limb, body = (
        replace(layer, picture=np.uint8(layer.picture * share[..., None]), masks={object_id: np.uint8(alpha * share)})
        for share in shares)

    # Turn the limb.
    turns = shift_origin(joint, [rotation(angle) for angle in angles])
    limb = replace(limb, matrices=[move @ turn for move, turn in zip(layer.matrices, turns, strict=True)])
    return [limb, body] if behind else [body, limb]


def shrink(planes, scale):
    """Average pictures and masks down to about `scale`, if resampling them to it would alias.

    planes: list of uint8 H×W or H×W×3. Returns the planes and the scale (x, y) by which they were shrunk, 1 if not.
    """
    height, width = planes[0].shape[:2]
    if scale >= MINIFICATION:
        return planes, (1, 1)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in planes], \
        (size[0] / width, size[1] / height)


def compose(layers, size):
    """Return the frames, uint8 T×size×size×3, and the masks, uint8 T×size×size, that show Layers.

    layers: from back to front; the first one must be opaque. A pixel belongs to the frontmost layer that covers more
    than half of it.
    """
    shots = len(layers[0].matrices)
    rgb = np.empty((shots, size, size, 3), np.uint8)
    ids = np.empty((shots, size, size), np.uint8)
    draw_layers(layers, rgb, ids, range(shots))
    return rgb, ids


def draw_layers(layers, rgb, ids, times):
    """Draw Layers into the frames `times` of `rgb` and `ids`, which are shaped as those of `compose`; in place."""
    for time in times:
        for layer in layers:
            (_draw_back if layer.opaque else _draw_front)(layer, time, rgb[time], ids[time])


def _draw_back(layer, time, frame, ids):
    """Draw an opaque Layer into one frame uint8 size×size×3 and its mask uint8 size×size; in place."""
    size = len(frame)
    lookup = _make_lookup(layer, time, (0, 0, size, size))
    # The mirror image of an object would be a second object without a mask.
    border = cv2.BORDER_CONSTANT if layer.masks else cv2.BORDER_REFLECT_101
    frame[:] = cv2.remap(layer.picture, *lookup, cv2.INTER_LINEAR, borderMode=border, borderValue=IMAGE_MEAN)
    ids[:] = 0
    for object_id, mask in layer.masks.items():
        # Interpolate and compare with one half: taking the nearest pixel would give enlarged objects stepped outlines.
        ids[cv2.remap(mask, *lookup, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) > 127] = object_id
    kernel = _make_streak(layer, time, (layer.picture.shape[1] / 2, layer.picture.shape[0] / 2))
    if kernel is not None:
        frame[:] = cv2.filter2D(frame, -1, kernel)


def _draw_front(layer, time, frame, ids):
    """Draw a cut-out Layer over one frame uint8 size×size×3 and its mask uint8 size×size; in place."""
    (object_id, alpha), = layer.masks.items()
    height, width = alpha.shape
    kernel = _make_streak(layer, time, (width / 2, height / 2))
    bounds = _find_bounds(layer, time, len(frame), 1 if kernel is None else 1 + len(kernel) // 2)
    if bounds is None:
        return
    left, top, right, bottom = bounds
    # Picture and opacity are looked up together, as four channels.
    planes = cv2.remap(cv2.merge([layer.picture, alpha]), *_make_lookup(layer, time, bounds), cv2.INTER_LINEAR,
                       borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    if kernel is not None:
        planes = cv2.filter2D(planes, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    alpha = cv2.extractChannel(planes, 3)
    part = frame[top:bottom, left:right]
    behind = cv2.merge([255 - alpha] * 3)
    part[:] = cv2.add(cv2.multiply(part, behind, scale=1 / 255), cv2.cvtColor(planes, cv2.COLOR_BGRA2BGR))
    ids[top:bottom, left:right][alpha > 127] = object_id


def _find_bounds(layer, time, size, reach):
    """Return (left, top, right, bottom) of the part of the frame that a cut-out can touch, None if it touches none.

    size: side of the frame. reach: pixels that blur and interpolation add on each side.
    """
    height, width = layer.picture.shape[:2]
    slack = np.abs(layer.waves.offsets).sum(0) if layer.waves else np.zeros(2)
    low, high = -slack, np.array([width, height]) + slack
    corners = np.array([[x, y, 1] for x in (low[0], high[0]) for y in (low[1], high[1])])
    places = (corners @ layer.matrices[time].T)[:, :2]
    left, top = np.clip(np.floor(places.min(0)) - reach, 0, size).astype(int)
    right, bottom = np.clip(np.ceil(places.max(0)) + reach, 0, size).astype(int)
    return (left, top, right, bottom) if right > left and bottom > top else None


def _make_lookup(layer, time, bounds):
    """Return the two maps for cv2.remap that say where in the picture each pixel of a part of the frame comes from.

    bounds: (left, top, right, bottom) of the part.
    """
    left, top, right, bottom = bounds
    # Evaluate the deformation in the middle of each cell, and of one more cell on each side, so that the interpolation
    # below never has to repeat a border.
    cells = -(-(right - left) // CELL), -(-(bottom - top) // CELL)
    x, y = ((np.arange(-1, count + 1) + 0.5) * CELL + start for count, start in zip(cells, (left, top), strict=True))
    inverse = np.linalg.inv(layer.matrices[time])
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2) @ inverse[:2, :2].T + inverse[:2, 2]
    if layer.waves:
        points = layer.waves.move(points, time)
    coarse = (points - 0.5).astype(np.float32).reshape(len(y), len(x), 2)
    fine = cv2.resize(coarse, None, fx=CELL, fy=CELL, interpolation=cv2.INTER_LINEAR)
    # Fixed-point maps are faster. Their steps of 1/32 pixel are the finest that cv2.remap distinguishes anyway.
    return cv2.convertMaps(fine[CELL:CELL + bottom - top, CELL:CELL + right - left], None, cv2.CV_16SC2)


def _make_streak(layer, time, point):
    """Return the kernel of motion blur, float32, None if the blur would be shorter than 1.5 pixels.

    point: (x, y) in the picture whose way, while the shutter is open, is the blur's.
    """
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


def apply_moves(base, moves):
    """Return the matrices that apply `base`, which brings a picture around the origin, and then each of `moves`."""
    return [move @ base for move in moves]


def shift_origin(point, matrices):
    """Return the matrices of the same motion around `point` (x, y) instead of the origin."""
    return [translation(*point) @ matrix @ translation(-point[0], -point[1]) for matrix in matrices]
