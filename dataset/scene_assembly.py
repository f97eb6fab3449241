"""Put what scenes show into the order and the units in which `dataset.scenes` renders it, and draw how it looks.

For the letters in shapes see `dataset.scene_plans`, which draws what is there and where.
"""

import numpy as np

from dataset.scene_motion import draw_film, draw_limbs, draw_waves, invert, linear_maps, random_pace, recolourings

ROLES = 8
"""The number of objects that can be pasted into a scene."""

LAYERS = ROLES + 2
"""Roles, something that hides an object for a while, and something that passes in front anywhere."""

OWN = 2
"""The number of objects of the background's picture that can be followed; their labels are 1 and 2."""

NOBODY = (1, 0)
"""The range of ids of no object."""

DISC, RECTANGLE, RING, BARS, THING = range(5)
"""The forms of layers. A thing is cut out of a picture."""

WINDOW = 384
"""Side in pixels of the part of a picture that a frame's background is taken from."""

NOISE = 12
"""Sides of the grids of random numbers that damage the first masks."""

CELL = 8
"""A deformation is computed at points so many pixels apart, and interpolated between them."""


def sprite_side(size):
    """Return the side in pixels of the square in which a cut-out is kept, for frames of `size` pixels."""
    return max(64, size * 5 // 6 // 16 * 16)


def sprite_margin(size):
    """Return the width of the transparent margin of a sprite."""
    return sprite_side(size) // 16


def assemble(catalogue, draws, scene, camera, things, paths, front, active, order, followed, size, shots, perturb):
    """Return the plan of all parts of the samples, in the order and the units in which they are rendered.

    scene, camera, things, paths, front: what the functions of `dataset.scene_plans` of these names return. active: n×R,
    the roles that are there. order: n×R, the roles from back to front. followed: what goes into the plan as it is.
    """
    count, times = len(active), np.arange(shots)
    # All layers: the roles, then the two in front.
    place, shape, box, ids, tone = (np.concatenate([part[name], front[name]], 1) for part, name in (
        (paths, "place"), (paths, "shape"), (things, "box"), (things, "ids"), (things, "tone")))
    shape = shape[..., :2, :2]
    zoom = np.concatenate([paths["zoom"], np.minimum(front["root"] * size / np.sqrt(front["area"]), 4 * size / 384)], 1)
    picture = np.concatenate([things["picture"], np.repeat(front["picture"][..., None], shots, -1)], 1)
    moving = np.concatenate([things["moving"], np.zeros((count, 2), bool)], 1)
    form = np.concatenate([np.full((count, ROLES), THING), front["form"]], 1)

    pictures, centre, extent, away = _cut_away(catalogue, draws, scene, times)
    place = place + 10 * away[:, None, :, None]
    back, back_waves, origin = _assemble_background(draws, scene, camera, centre, extent, size, times)

    # The layers: from pixels of the frame to the object, whose longer side goes from -1 to 1.
    half = (box[..., 2:] - box[..., :2]).max(-1) / 2
    room = sprite_side(size) - 2 * sprite_margin(size)
    fine = np.minimum(room / (2 * half), 1)
    scale = zoom * np.sqrt(np.abs(np.linalg.det(shape))).mean(-1)
    level = np.clip(np.ceil(np.log2(fine / scale / 1.4)), 0, 3)
    inverse = np.linalg.inv(shape) / zoom[..., None, None, None]
    ahead = np.concatenate([inverse, -(inverse @ (place * size)[..., None])], -1) / half[..., None, None, None]
    strength = 0.045 * draws.uniform(shape=(LAYERS,)) * draws.chance(0.8, (LAYERS,)) * np.where(form == THING, 1, 0.3)
    waves = draw_waves(draws, strength, 2 * random_pace(draws, (LAYERS,)), times)
    limbs = draw_limbs(draws, (form == THING) & draws.chance(0.45, (LAYERS,)), shots)
    into_sprite = half * fine / (sprite_side(size) / 2) / 2 ** level

    streak = _draw_streaks(draws, place, inverse, fine / 2 ** level, size)
    blur = np.linalg.norm(streak, axis=-1) / 2 + 2
    reach = _find_reach(box, half, shape, zoom, place, waves, limbs, blur * 2 ** level / (half * fine), away, size)
    colour, tone_back = _draw_colours(catalogue, draws, scene, things["twin"], tone)

    # Sort: within a sample from back to front, samples with many layers first.
    present = np.concatenate([active, front["active"]], 1)
    depth = np.concatenate([np.argsort(order, 1), np.tile([ROLES, ROLES + 1], (count, 1))], 1)
    samples, sample, which, heights = _sort_layers(present, depth)
    label = np.where(which < ROLES, OWN + 1 + which, 0)
    behind = draws.chance(0.35, (LAYERS,))[sample, which] & (scene["box"][sample, 2] > 0) & (which < ROLES)

    # Sprites: one for a layer, or one for each frame if it shows an object of a video.
    lengths = np.where(moving[sample, which], shots, 1)
    firsts = np.cumsum(lengths) - lengths
    owner = np.repeat(np.arange(len(sample)), lengths)
    time = np.arange(len(owner)) - firsts[owner]
    shown = firsts[:, None] + np.where(lengths[:, None] > 1, times, 0)
    at = sample[owner], which[owner]
    source = picture[(*at, time)]
    corners = box[at]
    # Whole numbers, so that pixels of sprite and picture coincide.
    middles = np.floor((corners[:, :2] + corners[:, 2:]) / 2)

    own_ids = np.where(away[..., None, None], NOBODY, scene["ids"][:, None])
    sizes = catalogue.sizes[pictures][..., ::-1]
    geometry = np.concatenate([
        _flat(back[samples], back_waves[samples]), _flat(ahead[sample, which], waves[sample, which])])
    limb = np.concatenate([np.zeros((count * shots, 8)), limbs[sample, which].reshape(-1, 8)])
    film = draw_film(draws, tone_back, place, camera, size, shots)
    plan = {
        "geometry": np.concatenate([geometry, limb, np.concatenate([
            np.ones(count * shots), np.repeat(into_sprite[sample, which], shots)])[:, None]], 1),
        "windows": _integers(catalogue.offsets[pictures[samples]].ravel(), *sizes[samples].reshape(-1, 2).T,
                             *origin[samples].reshape(-1, 2).T, *own_ids[samples].reshape(-1, 4).T),
        "sprites": _integers(catalogue.offsets[source], *catalogue.sizes[source].T[::-1], *ids[at].T, form[at]),
        "sprite_places": np.column_stack([middles, 1 / fine[at], (corners[:, 2:] - corners[:, :2]) / 2
                                          * fine[at][:, None]]),
        "colours": colour[at].reshape(-1, 12),
        "shown": shown,
        "labels": label,
        "behind": behind,
        "heights": heights,
        "reach": [np.concatenate([part[:, :2].min(0), part[:, 2:].max(0)]).tolist()
                  for part in np.split(reach[sample, which], np.cumsum(heights)[:-1])] if heights else [],
        "levels": level[at].astype(int),
        "streaks": streak[at],
        "order": np.argsort(samples),
        **{name: value[samples] for name, value in (*followed.items(), *film.items())},
    }
    if perturb:
        plan["targets"] = draws.uniform(*perturb, (2,))[samples]
        plan["damage"] = draws.normal(1, (2, 3, NOISE, NOISE))[samples]
    return plan


def _cut_away(catalogue, draws, scene, times):
    """Let a few samples show another picture for a frame or two.

    Returns the backgrounds' pictures n×T, the middle n×T×2 and extent n×T×2 of the part that is shown, and whether it
    is another picture n×T.
    """
    cut = draws.chance(0.04)
    start = 1 + draws.below(len(times) - 1)
    away = cut[:, None] & (times >= start[:, None]) & (times < start[:, None] + 1 + draws.below(2)[:, None])
    other = catalogue.pictures.find(draws.uniform()) if len(catalogue.pictures.items) else scene["picture"][:, 0]
    pictures = np.where(away, other[:, None], scene["picture"])
    sizes = catalogue.sizes[pictures][..., ::-1]
    centre = np.where(away[..., None], sizes / 2, scene["centre"][:, None])
    extent = np.where(away[..., None], sizes.min(-1, keepdims=True) * 0.9, scene["extent"][:, None])
    return pictures, centre, extent, away


def _assemble_background(draws, scene, camera, centre, extent, size, times):
    """Return the backgrounds' maps n×T×2×3 from pixels of the frame to the window, whose sides go from -1 to 1.

    Also returns their waves, and the window's left upper corner in the picture, n×T×2.
    """
    to_picture = linear_maps(x=extent[..., 0] * scene["flip"][:, None], y=extent[..., 1]) @ invert(camera)
    origin = np.round(centre + to_picture[..., :2, 2] - WINDOW / 2)
    back = np.zeros((*centre.shape, 3))
    back[..., :2] = to_picture[..., :2, :2] / size
    back[..., 2] = centre + to_picture[..., :2, 2] - to_picture[..., :2, :2].sum(-1) / 2 - origin
    back *= 2 / WINDOW
    back[..., 2] -= 1
    waves = draw_waves(draws, draws.uniform(0.002, 0.012) * draws.chance(0.7), random_pace(draws), times)
    return back, waves, origin


def _draw_streaks(draws, place, inverse, fine, size):
    """Return the motion blur of layers, along their fastest way: n×L×2, in pixels of their sprites.

    inverse: n×L×T×2×2, from pixels of the frame to those of the picture. fine: n×L, pixels of the sprite for one of the
    picture.
    """
    ways = np.diff(place, axis=2) * size
    ways = np.where(np.abs(ways).max(-1, keepdims=True) > 2 * size, 0, ways)
    fastest = np.take_along_axis(ways, (ways ** 2).sum(-1).argmax(-1)[..., None, None], 2)[:, :, 0]
    shutter = draws.uniform(0.15, 0.6, (LAYERS,)) * (draws.chance(0.25)[:, None] | draws.chance(0.08, (LAYERS,)))
    streak = (inverse[:, :, 0] @ fastest[..., None])[..., 0] * (shutter * fine)[..., None]
    length = np.linalg.norm(streak, axis=-1, keepdims=True)
    return streak * np.minimum(1, sprite_side(size) / 28 / np.maximum(length, 1e-6)) * (length > 1)


def _find_reach(box, half, shape, zoom, place, waves, limbs, blur, away, size):
    """Return what each layer can touch, in cells: left, top, right, bottom, n×L×4.

    This is its box, displaced by waves and by the limb, which turns about its joint. half: half the boxes' longer
    sides, the unit of `blur` n×L.
    """
    slack = np.abs(waves[..., 3:]).sum(-2).max(2) + blur[..., None]
    sides = (box[..., 2:] - box[..., :2]) / 2 / half[..., None]
    joint = np.linalg.norm(limbs[:, :, 0, 4:6], axis=-1)
    bent = (np.abs(limbs[..., 7]).max(-1) > 0)[..., None]
    sides = np.where(bent, ((np.linalg.norm(sides, axis=-1) + joint) / 0.9 + joint)[..., None], sides) + slack
    sides = (np.abs(shape) @ sides[:, :, None, :, None])[..., 0] * (zoom * half)[..., None, None]
    seen = ~away[:, None, :, None]
    low = np.clip(np.floor((place * size - sides).min(2, where=seen, initial=size) / CELL - 0.5), 0, size // CELL)
    high = np.clip(np.ceil((place * size + sides).max(2, where=seen, initial=0) / CELL + 0.5), 0, size // CELL)
    return np.concatenate([low, high], -1).astype(int)


def _draw_colours(catalogue, draws, scene, twin, tone):
    """Return the layers' colour matrices n×L×3×4, and the mean colours of the backgrounds n×3.

    They have a part that look-alikes share, and one that each has for itself.
    """
    tone_back = catalogue.tones[scene["picture"][:, 0]].astype(float)
    shared = recolourings(draws, tone, 0.12, 0.02, 0.02, (LAYERS,))
    shared[:, :ROLES] = np.where(twin[..., None, None], shared[:, :1], shared[:, :ROLES])
    gains = ((tone_back[:, None] + 20) / (tone + 20)) ** draws.uniform(0, 0.5, (LAYERS,))[..., None]
    shared[..., :3] *= np.clip(gains, 0.6, 1.5)[..., None, :]
    own = np.where(draws.chance(0.7, (LAYERS,))[..., None, None], recolourings(draws, tone, 0.03, 0.004, 0, (LAYERS,)),
                   recolourings(draws, tone, 0.15, 0.03, 0.02, (LAYERS,)))
    colour = own[..., :3] @ shared
    colour[..., 3] += own[..., 3]
    return colour, tone_back


def _sort_layers(present, depth):
    """Sort layers for rendering, from back to front; samples with many layers come first.

    present, depth: n×L. Returns the samples in their order n; then the sample and the layer of each layer that is
    there; and the number of samples that have a first layer, a second one, and so on.
    """
    layers = np.argsort(np.where(present, depth, LAYERS), 1, kind="stable")
    many = present.sum(1)
    samples = np.argsort(-many, kind="stable")
    heights = [int((many > layer).sum()) for layer in range(many.max(initial=0))]
    sample = np.concatenate([samples[:height] for height in heights] + [np.zeros(0, int)])
    which = [layers[samples[:height], layer] for layer, height in enumerate(heights)]
    return samples, sample, np.concatenate([*which, np.zeros(0, int)]), heights


def _flat(*parts):
    """Join arrays k×T×… to one of k·T rows."""
    return np.concatenate([part.reshape(len(part) * part.shape[1], int(np.prod(part.shape[2:]))) for part in parts], 1)


def _integers(*columns):
    return np.stack([np.asarray(column).astype(np.int64) for column in columns], 1)
