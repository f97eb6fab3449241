"""Random geometry and colour of training samples. All changes of geometry are combined into one resampling of a frame.

Coordinates are continuous: the centre of pixel (x, y) is (x + ½, y + ½), so that scaling about the origin scales the
picture. Matrices are 3×3 and lead from the source to the sample; those of `make_lookup` are an exception.
"""

import cv2
import numpy as np

IMAGE_MEAN = (124, 116, 104)
"""RGB of pixels that lie outside of an image: the mean of ImageNet."""

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of R, G and B in grey."""

SPLINE_CELL = 8
"""A spline's displacement is evaluated at points so many pixels apart, and interpolated between them."""

OUTSIDE = -1e6
"""Coordinate that lies outside of every image."""

MINIFICATION = 2 / 3
"""Images to be scaled below this are averaged first, because bicubic resampling alone would alias."""


def translation(x, y):
    """Return the matrix that moves points by (x, y)."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def scaling(x, y):
    """Return the matrix that scales by x and y about the origin."""
    return np.diag([x, y, 1.0])


def rotation(angle):
    """Return the matrix that turns by `angle` radians about the origin, from the x axis towards the y axis."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def random_affine(rng, centre, degrees, shear, scale=(1, 1)):
    """Return a random matrix: rotation within ±`degrees`, horizontal shear within ±`shear` degrees, a scale in a range.

    centre: (x, y), a point that stays where it is.
    """
    angle = np.radians(rng.uniform(-degrees, degrees))
    slope = np.tan(np.radians(rng.uniform(-shear, shear)))
    factor = rng.uniform(*scale)
    cosine, sine = factor * np.cos(angle), factor * np.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]]) @ [[1, -slope], [0, 1]]
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = centre - linear @ centre
    return matrix


def random_crop_box(rng, width, height, scale, ratio=(3 / 4, 4 / 3), tries=10):
    """Return (left, top, width, height) of a random part of an image.

    scale: range of the part's share of the area. ratio: range of width / height. If no try fits into the image, the
    part is the largest centred one with an allowed ratio. The rule is that of Inception's training (Szegedy et al.,
    CVPR 2015).
    """
    for _ in range(tries):
        area = width * height * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
    w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    return (width - w) // 2, (height - h) // 2, w, h


def random_spline(rng, size, points=12, deviation=0.02):
    """Return where each pixel of a sample comes from under a random thin-plate spline: float32 size×size×2, (x, y).

    The spline moves random control points by normally distributed offsets (Bookstein, PAMI 1989). deviation: of these
    offsets, as a share of the size. Pixels from outside of the square come from OUTSIDE, so that they are filled even
    if the source has pixels there.
    """
    # Solve for the spline's weights; the square has side 1.
    origin = rng.uniform(0, 1, (points, 2))
    target = origin + rng.normal(0, deviation, (points, 2))

    def basis(at):
        # r² log r, whose limit at r = 0 is 0.
        squared = ((at[:, None] - target) ** 2).sum(-1)
        return np.hstack([squared * np.log(squared + 1e-12) / 2, np.ones((len(at), 1)), at])

    system = np.zeros((points + 3, points + 3))
    system[:points] = basis(target)
    system[points:, :points] = system[:points, points:].T
    weights = np.linalg.solve(system, np.vstack([origin - target, np.zeros((3, 2))]))

    # Evaluate the spline in the middle of each cell, and of one more cell on each side, so that the interpolation below
    # never has to repeat a border.
    cells = -(-size // SPLINE_CELL)
    steps = (np.arange(-1, cells + 1) + 0.5) * SPLINE_CELL / size
    grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    coarse = (size * (basis(grid) @ weights)).astype(np.float32).reshape(len(steps), len(steps), 2)

    # Interpolate. OpenCV's cubic interpolation would be less exact: with its parameter of -¾ it bends straight lines.
    fine = cv2.resize(coarse, None, fx=SPLINE_CELL, fy=SPLINE_CELL, interpolation=cv2.INTER_LINEAR)
    position = fine[SPLINE_CELL:SPLINE_CELL + size, SPLINE_CELL:SPLINE_CELL + size]
    axis = np.arange(size, dtype=np.float32) + 0.5
    position[..., 0] += axis
    position[..., 1] += axis[:, None]
    outside = cv2.inRange(position, (0, 0), (size, size)) == 0
    position[outside] = OUTSIDE
    return position


def make_lookup(matrix, spline=None):
    """Return where `warp` finds each pixel of the sample in the source.

    matrix: 3×3 from source to sample. spline: as `random_spline` returns it, applied to the sample last; None for none.
    Without a spline the result is the inverse matrix 2×3, with a spline float32 size×size×2. Both are in OpenCV's
    coordinates, in which the centres of pixels are whole numbers.
    """
    inverse = (translation(-0.5, -0.5) @ np.linalg.inv(matrix))[:2]
    if spline is not None:
        return cv2.transform(spline, inverse)
    inverse[:, 2] += inverse[:, :2] @ (0.5, 0.5)
    return inverse


def warp(source, lookup, size, interpolation, fill):
    """Return the sample, size×size or size×size×3, of a source uint8 H×W or H×W×3.

    lookup: as `make_lookup` returns it. interpolation: a constant of OpenCV. fill: value outside of the source.
    """
    if lookup.ndim == 3:
        return cv2.remap(source, lookup, None, interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
    return cv2.warpAffine(source, lookup, (size, size), flags=interpolation | cv2.WARP_INVERSE_MAP,
                          borderMode=cv2.BORDER_CONSTANT, borderValue=fill)


def random_colour(rng, mean, brightness, contrast, saturation, greyscale=0):
    """Return a random colour matrix 3×4 for `recolour`: brightness, contrast and saturation in random order, then grey.

    mean: mean RGB of the image. brightness, contrast, saturation: largest deviation of each factor from 1. greyscale:
    probability that the result is grey. Brightness scales colours, contrast moves them away from the image's mean grey,
    and saturation moves them away from the pixel's own grey. All are linear, so that one matrix replaces four passes
    with rounding between them.
    """
    grey = np.eye(4)
    grey[:3, :3] = LUMA
    factors = 1 + rng.uniform(-1, 1, 3) * (brightness, contrast, saturation)
    matrix = np.eye(4)
    for kind in rng.permutation(3):
        step = np.diag([factors[kind]] * 3 + [1])
        if kind == 1:
            step[:3, 3] = (1 - factors[kind]) * LUMA @ (matrix @ [*mean, 1])[:3]
        if kind == 2:
            step[:3, :3] += (1 - factors[kind]) * grey[:3, :3]
        matrix = step @ matrix
    if rng.random() < greyscale:
        matrix = grey @ matrix
    return matrix[:3]


def shift_hue(image, turn):
    """Return uint8 H×W×3 `image` (RGB) with its hue turned by `turn`, where 1 is the full circle."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(turn * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def mean_colour(image):
    """Return the mean RGB, 0 to 255, of uint8 H×W×3 `image`."""
    return cv2.mean(image)[:3]


def recolour(image, matrix):
    """Return uint8 H×W×3 `image` with a colour matrix 3×4 applied to each pixel, clipped to 0 … 255."""
    return cv2.transform(image, matrix)
