"""How what scenes show moves and looks: paths, deformations, light, colours and blur, at random.

All are arrays for many samples at once; for the letters in shapes see `dataset.scene_plans`.
"""

import numpy as np

from dataset.augmentation import LUMA
from dataset.layers import TURN, swing

WAVES = 3
"""The number of waves that deform a layer."""

TAPS = 3
"""A blurred frame is the mean of so many shifted ones."""

GAIN = 5
"""Side of the grid of gains by which light changes over the frame."""


def translations(shift):
    """Return the matrices ...×3×3 that move points by `shift` ...×2."""
    matrices = np.zeros((*shift.shape[:-1], 3, 3))
    matrices[..., [0, 1, 2], [0, 1, 2]] = 1
    matrices[..., :2, 2] = shift
    return matrices


def linear_maps(angle=0.0, x=1.0, y=1.0, slope=0.0):
    """Return the matrices ...×3×3 that stretch by x and y, shear by `slope`, then turn by `angle` about the origin."""
    angle, x, y, slope = np.broadcast_arrays(angle, x, y, slope)
    cosine, sine = np.cos(angle), np.sin(angle)
    matrices = np.zeros((*angle.shape, 3, 3))
    matrices[..., 0, 0], matrices[..., 0, 1] = cosine * x, (-slope * cosine - sine) * y
    matrices[..., 1, 0], matrices[..., 1, 1] = sine * x, (-slope * sine + cosine) * y
    matrices[..., 2, 2] = 1
    return matrices


def invert(matrices):
    """Return the inverses of affine matrices ...×3×3."""
    a, b, c, d = (matrices[..., row, column] for row in (0, 1) for column in (0, 1))
    result = np.zeros_like(matrices)
    result[..., 0, 0], result[..., 0, 1], result[..., 1, 0], result[..., 1, 1] = d, -b, -c, a
    result[..., :2, :2] /= (a * d - b * c)[..., None, None]
    result[..., :2, 2] = -(result[..., :2, :2] @ matrices[..., :2, 2, None])[..., 0]
    result[..., 2, 2] = 1
    return result


def drift(draws, scales, pace, shots):
    """Return smooth random paths that start at 0 and swing, n×…×T×S; see `random_drift` of dataset.layers.

    scales: S standard deviations of the way from frame to frame at pace 1. pace: n×….
    """
    shape = (*pace.shape[1:], len(scales))
    speed, bend = (draws.normal(1, shape) * pace[..., None] * scales for _ in range(2))
    times = swing(np.arange(shots)[:, None], draws.uniform(*TURN, shape)[..., None, :])
    return speed[..., None, :] * times + 0.2 * bend[..., None, :] * times ** 2


def random_pace(draws, shape=()):
    """Return how fast things move: 1 is fast, most are calm, and some have 0 and do not move."""
    return np.where(draws.chance(0.08, shape), 0, draws.logarithmic(0.06, 1, shape))


def recolourings(draws, mean, strength, turn, grey, shape=()):
    """Return random colour matrices n×shape×3×4: brightness, contrast, saturation and hue.

    mean: n×shape×3, mean RGB. strength: largest change of the first three factors. turn: largest turn of the hue as a
    share of the circle. grey: probability that the result is grey.
    """
    factors = 1 + draws.uniform(-1, 1, (*shape, 3)) * strength
    angle = draws.uniform(-turn, turn, shape) * 2 * np.pi
    brightness, contrast, saturation = np.moveaxis(factors, -1, 0)
    saturation = np.where(draws.chance(grey, shape), 0, saturation)
    # A turn of the hue is a rotation about the axis of greys.
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    cosine, sine = np.cos(angle)[..., None, None], np.sin(angle)[..., None, None]
    matrix = cosine * np.eye(3) + (1 - cosine) / 3 + sine * across
    saturation = saturation[..., None, None]
    matrix = saturation * matrix + (1 - saturation) * LUMA
    matrix = matrix * (brightness * contrast)[..., None, None]
    offset = (1 - contrast) * brightness * (mean @ LUMA)
    return np.concatenate([matrix, np.broadcast_to(offset[..., None, None], (*matrix.shape[:-1], 1))], -1)


def draw_waves(draws, strength, pace, times):
    """Return waves that deform a layer, n×…×T×WAVES×5: vector (turns for a unit), phase (turns), offset (units).

    strength: n×…, about one standard deviation of the displacement as a share of the layer's side. pace: n×…, standard
    deviation of the speed in radians for a frame.
    """
    shape = (*strength.shape[1:], WAVES)
    lengths = 2 * draws.uniform(0.6, 1.8, shape)
    angle, phase = draws.uniform(0, 2 * np.pi, shape), draws.uniform(0, 1, shape)
    speed = draws.normal(1, shape) * pace[..., None] / (2 * np.pi)
    offset = draws.normal(1, (*shape, 2)) * (strength[..., None] * lengths)[..., None] / 1.7
    phases = phase[..., None, :] + speed[..., None, :] * times[:, None]
    fixed = np.stack([np.cos(angle) / lengths, np.sin(angle) / lengths], -1)[..., None, :, :]
    fixed, offset = (np.broadcast_to(part, (*phases.shape, 2)) for part in (fixed, offset[..., None, :, :]))
    return np.concatenate([fixed, phases[..., None], offset], -1)


def draw_limbs(draws, active, shots):
    """Return how a part of each layer turns about a joint, n×L×T×8.

    A line across the object, across·x + down·y = edge, divides the part from the rest; the turn grows with the distance
    from it. The numbers are across, down, edge, 1 / width of the transition, joint (x, y), cosine - 1 and sine.
    """
    shape = active.shape[1:]
    angle = draws.uniform(0, 2 * np.pi, shape)
    across, down = np.cos(angle), np.sin(angle)
    edge, along = draws.uniform(-0.05, 0.45, shape), draws.uniform(-0.25, 0.25, shape)
    width = draws.uniform(0.15, 0.5, shape)
    start = draws.normal(0.35, shape)
    turn = start[..., None] + drift(draws, (0.5,), draws.logarithmic(0.3, 1.2, shape), shots)[..., 0]
    turn = np.clip(turn, -0.9, 0.9) * active[..., None]
    fixed = np.stack([across, down, edge, 1 / width, across * edge - down * along, down * edge + across * along], -1)
    fixed = np.broadcast_to(fixed[..., None, :], (*turn.shape, 6))
    return np.concatenate([fixed, (np.cos(turn) - 1)[..., None], np.sin(turn)[..., None]], -1)


def draw_film(draws, tone, place, camera, size, shots):
    """Return what happens to whole frames: light, colour, blur and noise.

    Keys: gains n×T×GAIN×GAIN, film n×T×12 (colour matrices), taps n×T×TAPS×2 in pixels, blurred n, noise n (standard
    deviation in grey levels), shifts n×T×2.
    """
    count, times = len(tone), np.arange(shots)
    # Light: slow drifts, and in some samples large changes, flicker, or shadows that cross the frame.
    slow = drift(draws, (0.04, 0.015, 0.015, 0.015), draws.uniform(0, 1), shots)
    strong = draws.chance(0.2)
    large = draws.normal(0.12)[:, None] * swing(times, TURN[1])
    large = large + draws.normal(0.12, (shots,)) * draws.chance(0.3)[:, None]
    exposure = np.clip(slow[..., 0] + np.where(strong[:, None], large, 0), -0.7, 0.5)
    light = np.exp(exposure[..., None] + np.clip(slow[..., 1:], -0.2, 0.2))
    film = recolourings(draws, tone, 0.1, 0.01, 0.03)[:, None] * light[..., None]
    axis = np.linspace(-1, 1, GAIN)
    angle, phase, speed = draws.uniform(0, 2 * np.pi), draws.uniform(0, 2 * np.pi), draws.normal(0.6)
    depth = np.where(draws.chance(0.3), draws.uniform(0.1, 0.5), 0)
    wave = np.cos(angle)[:, None, None] * axis + np.sin(angle)[:, None, None] * axis[:, None]
    wave = 2.5 * wave[:, None] + (phase[:, None] + speed[:, None] * times)[..., None, None]
    gains = np.exp(depth[:, None, None, None] * np.sin(wave))

    # Blur: along the camera's way, or out of focus.
    ways = np.diff(camera[..., :2, 2], axis=1) * size
    ways = np.concatenate([ways, ways[:, -1:]], 1)
    fast = (np.linalg.norm(ways, axis=-1).max(1) > 3) & draws.chance(0.5)
    ways = ways * draws.uniform(0.2, 0.6)[:, None, None]
    ways = ways * np.minimum(1, size / 32 / np.maximum(np.linalg.norm(ways, axis=-1, keepdims=True), 1e-6))
    streak = ways[:, :, None] * (np.arange(TAPS) / (TAPS - 1) - 0.5)[:, None]
    soft = draws.chance(0.12)
    ring = np.array([[0, -1], [0.87, 0.5], [-0.87, 0.5]]) * draws.uniform(0.3, 0.9)[:, None, None] * size / 384
    taps = np.where(fast[:, None, None, None], streak, ring[:, None])
    noise = np.where(draws.chance(0.25), draws.uniform(2, 8), 0)
    return {"gains": gains, "film": film.reshape(count, shots, 12), "taps": taps, "blurred": fast | soft,
            "noise": noise, "shifts": draws.below(256, (shots, 2))}
