"""Draw what scenes show: which pictures and objects, and where. `dataset.scenes` renders them from a pack.

Everything is drawn by NumPy on the CPU, for many samples at once, and a sample's plan depends on seed and number alone.
Letters in shapes: n samples, T frames, R roles (objects that are pasted), L = R + 2 layers (roles and two things in
front), 2 coordinates (x, y). Places and ways are shares of the frame's side, times are frames.
"""

import numpy as np

from dataset.layers import TURN, swing
from dataset.pack import CUT_OUT
from dataset.scene_assembly import DISC, NOBODY, NOISE, OWN, ROLES, THING, assemble
from dataset.scene_catalogue import Draws
from dataset.scene_motion import drift, linear_maps, random_pace, translations

PART = 340
"""A background shows at most so many pixels of its picture across, so that camera motion stays inside of WINDOW."""

ENLARGED = 2.5
"""An object is enlarged at most so much: its edges would become too soft."""

VISIBLE, VISIBLE_IN_CROWD = 1 / 500, 1 / 1500
"""Least share of the first frame that an object must cover to be followed."""

SECOND = 0.8
"""Probability that a second object is followed, if there is one."""

UNIFORMS, NORMALS = 1000, 800
"""How many random numbers are drawn for each sample, beside those for damage and paths. Most are not used."""


def draw_plan(catalogue, seed, numbers, size, shots, perturb, max_jump):
    """Return the plan of samples as a dict of arrays; `dataset.scenes` says how they are used.

    catalogue: Catalogue. numbers: running numbers of the n samples. size: side of the frames in pixels. shots: T.
    perturb: range of the IoU of damaged first masks, None for none. max_jump: largest gap between frames of a video.
    """
    damage = 2 * 3 * NOISE ** 2 if perturb else 0
    draws = Draws(seed, numbers, UNIFORMS + 20 * shots, NORMALS + damage + 12 * shots)
    kinds = list(catalogue.kinds)
    kind = np.array(kinds)[draws.choice(list(catalogue.kinds.values()))]
    clip, place, alike, crowd = (kind == name for name in ("clip", "place", "alike", "crowd"))

    scene = _draw_background(catalogue, draws, kind, shots, max_jump)
    camera = _draw_camera(draws, scene["moving"], shots)
    _draw_view(catalogue, draws, scene, camera)

    # Choose the objects that are pasted.
    pasted = np.select([clip, place, alike, crowd], [
        draws.choice((0.6, 0.25, 0.15)), draws.choice((0.4, 0.35, 0.25)), 2 + draws.choice((0.4, 0.4, 0.2)),
        4 + draws.choice((0.2, 0.2, 0.2, 0.2, 0.2))], 1 + draws.choice((0.25, 0.35, 0.25, 0.15)))
    if not catalogue.cut.some:
        pasted[:] = 0
    roles = np.arange(ROLES)
    active = roles < pasted[:, None]
    things = _draw_things(catalogue, draws, scene, kind, pasted, shots, max_jump)
    twin = things["twin"]

    # Put them on paths.
    paths = _draw_paths(draws, kind, twin, things["area"], camera, size, shots)
    order = np.argsort(np.where(active, draws.uniform(shape=(ROLES,)), 2), 1, kind="stable")
    front = _draw_front(catalogue, draws, scene, paths, camera, pasted, shots)

    # Choose who is followed: the main object first, then its look-alikes, then any.
    rank = draws.uniform(shape=(OWN + ROLES,))
    rank[:, :OWN] += 2
    rank[:, OWN:] += 2 * (twin | (roles == 0)) * (alike | crowd)[:, None]
    apart = alike & draws.chance(0.3)
    rank[:, OWN:][apart[:, None] & twin] = -1
    rank[:, OWN] += np.where(apart | (kind == "pasted"), 2, 0)
    follow_two = draws.chance(SECOND) | alike & ~apart

    followed = {"rank": rank, "follow_two": follow_two,
                "visible": np.where(crowd, VISIBLE_IN_CROWD, VISIBLE) * size ** 2}
    return assemble(catalogue, draws, scene, camera, things, paths, front, active, order, followed, size, shots,
                    perturb)


def _draw_frames(draws, lengths, shots, max_jump):
    """Return places n×T in videos of these lengths, rising or falling, with gaps from 1 to `max_jump` if there is room.
    """
    start = draws.below(np.maximum(1, lengths - max(max_jump, shots - 1)))
    steps = 1 + draws.below(max_jump, (shots - 1,))
    frames = np.concatenate([start[:, None], start[:, None] + np.cumsum(steps, 1)], 1)
    frames = np.minimum(frames, lengths[:, None] - shots + np.arange(shots))
    return np.where(draws.chance(0.5)[:, None], frames[:, ::-1], frames)


def _draw_background(catalogue, draws, kind, shots, max_jump):
    """Return the background: pictures n×T, whether it is a video, and the boxes and ids of its own objects."""
    count = len(kind)
    picture = np.repeat(catalogue.pictures.find(draws.uniform())[:, None], shots, 1) if len(catalogue.pictures.items) \
        else np.zeros((count, shots), int)
    moving = (kind == "clip") | draws.chance(0.25) & (kind == "alike") | draws.chance(0.15) & (kind == "pasted")
    ids = np.tile(np.array(NOBODY), (count, OWN, 1))
    box = np.zeros((count, 4))
    scene = {"picture": picture, "moving": moving, "ids": ids, "box": box, "track": np.zeros(count, int),
             "row": np.full(count, -1)}

    # An image with one or two of its own objects.
    chances = draws.uniform(shape=(4,))
    if catalogue.place.some:
        own = (kind == "place") | (chances[:, 3] < 0.2) & (kind == "alike")
        row = catalogue.place.find(chances[:, 0], chances[:, 1])
        objects = catalogue.objects[row]
        rows = catalogue.place
        # The second object is the one after the first, in the order of the rows and round about.
        number, among = rows.first[objects[:, 0]], rows.count[objects[:, 0]]
        position = np.searchsorted(rows.rows, row) - number
        second = catalogue.objects[rows.rows[number + (position + 1) % among]]
        different = (among > 1) & (second[:, 1] != objects[:, 1]) & (objects[:, 1] == objects[:, 2]) \
            & (second[:, 1] == second[:, 2])
        picture[own] = objects[own, :1]
        ids[own, 0] = objects[own, 1:3]
        ids[own & different, 1] = second[own & different, 1:3]
        box[own] = objects[own, 3:7]
        scene["row"][own] = row[own]
        moving &= ~own

    # A video with up to two of its objects.
    if len(catalogue.videos):
        tracks = catalogue.tracks
        video = draws.below(len(catalogue.videos))
        frames = _draw_frames(draws, catalogue.videos[video, 1], shots, max_jump)
        picture[moving] = (catalogue.videos[video, :1] + frames)[moving]
        first = np.searchsorted(tracks["video"], video)
        among = np.searchsorted(tracks["video"], video, side="right") - first
        track = first + draws.below(among)
        other = first + (track - first + 1) % np.maximum(among, 1)
        known = moving & (among > 0)
        if known.any():
            track, other = np.where(known, track, 0), np.where(known, other, 0)
            ids[known, 0] = tracks["id"][track[known], None]
            two = known & (among > 1)
            ids[two, 1] = tracks["id"][other[two], None]
            at = tracks["boxes"][tracks["start"][track] + frames[:, 0]]
            box[known] = np.column_stack([at[:, :2], at[:, 2:4] - at[:, :2]])[known]
            scene["track"] = track
        scene["frames"] = frames
    else:
        moving[:] = False
    return scene


def _draw_camera(draws, moving, shots):
    """Return the matrices n×T×3×3 by which the background moves around the frame's middle; ways as shares of its side.
    """
    pace = random_pace(draws)
    fast = draws.chance(0.25) & ~moving
    # A real video has a motion of its own.
    pace = np.where(moving, 0.3, 1) * pace
    x, y, turn, zoom, slope, wider = np.moveaxis(drift(draws, (0.05, 0.05, 0.08, 0.05, 0.03, 0.02), pace, shots), -1, 0)
    times = swing(np.arange(shots), draws.uniform(*TURN)[:, None])
    direction, speed = draws.uniform(0, 2 * np.pi), np.where(fast, draws.uniform(0.06, 0.15), 0)[:, None]
    x, y = x + times * speed * np.cos(direction)[:, None], y + times * speed * np.sin(direction)[:, None]
    zoom = zoom + times * (fast * draws.normal(0.05))[:, None]
    # Shaking is new in each frame. A real video gets only a little.
    shake = np.where(draws.chance(0.3), draws.uniform(0.3, 1.5), np.where(moving, 0.3, 0))[:, None]
    jitter = draws.normal(1, (shots, 4)) * shake[..., None] * (0.02, 0.02, 0.03, 0.02)
    x, y = x + jitter[..., 0], y + jitter[..., 1]
    turn, zoom = turn + jitter[..., 2], np.clip(zoom + jitter[..., 3], -0.7, 0.7)
    turn = turn + draws.uniform(-0.1, 0.1)[:, None]
    return translations(np.stack([x, y], -1)) @ linear_maps(turn, np.exp(zoom + wider), np.exp(zoom - wider), slope)


def _draw_view(catalogue, draws, scene, camera):
    """Add the part of the picture that frame 0 shows to `scene`, and keep the camera inside of the picture, in place.

    Adds centre n×2 (x, y) and extent n×2 in pixels of the picture, and flip n: -1 where it is mirrored.
    """
    sizes = catalogue.sizes[scene["picture"][:, 0]][:, ::-1]
    box = scene["box"]
    side = sizes.min(1) * np.where(scene["moving"], draws.uniform(0.6, 1), draws.uniform(0.5, 0.95))
    extent = side[:, None] * np.exp(draws.uniform(-0.15, 0.15, (2,)))
    extent = np.minimum(np.minimum(np.maximum(extent, box[:, 2:] / 0.9), sizes), PART)
    # The object's middle lies between 0.2 and 0.8 of the part.
    middle = box[:, :2] + box[:, 2:] / 2
    low, high = np.zeros_like(sizes), sizes - extent
    has = (box[:, 2:] > 0).all(1, keepdims=True)
    near = [np.clip(middle - share * extent, 0, sizes - extent) for share in (0.8, 0.2)]
    low, high = np.where(has, near[0], low), np.where(has, near[1], high)
    centre = low + draws.uniform(shape=(2,)) * (high - low) + extent / 2
    flip = np.where(draws.chance(0.5), -1, 1)
    # Where the camera would leave the picture, it mostly goes the other way: then the background moves from there.
    off = (centre - sizes / 2) * np.stack([flip, np.ones_like(flip)], 1)
    towards = np.where(off >= 0, 1, -1) * np.abs(camera[..., :2, 2]).max(1)
    way = camera[:, -1, :2, 2]
    wrong = (np.sign(way) != np.sign(towards)) & draws.chance(0.85)[:, None] & (np.abs(way) > 0.05)
    camera[..., :2, 2] *= np.where(wrong, -1, 1)[:, None]
    scene |= {"centre": centre, "extent": extent, "flip": flip}


def _draw_things(catalogue, draws, scene, kind, pasted, shots, max_jump):
    """Return the pasted objects: for each of n×R roles the row of the table of objects, or the frames of a video.

    Keys: row n×R, twin n×R (role is a copy of role 0), moving n×R (it is shown as in its video), picture n×R×T,
    ids n×R×2, box n×R×4 (left, top, right, bottom), area n×R, tone n×R×3.
    """
    count, roles = len(kind), np.arange(ROLES)
    if not catalogue.cut.some:
        none = np.zeros((count, ROLES), int)
        return {"twin": none > 0, "moving": none > 0, "picture": np.zeros((count, ROLES, shots), int),
                "ids": np.tile(np.array(NOBODY), (count, ROLES, 1)), "box": none[..., None] + (0, 0, 1, 1),
                "area": none + 1.0, "tone": np.full((count, ROLES, 3), 120.0)}
    alike, crowd = kind == "alike", kind == "crowd"
    chances = draws.uniform(shape=(ROLES, 4))
    main = catalogue.cut.find(chances[:, 0, 0], chances[:, 0, 1])
    # A role is a copy of role 0, of an image from the same folder, or of any image.
    copies = np.where(alike, 1 + draws.choice((0.6, 0.4)), 0)[:, None]
    likely = np.where(crowd, 0.45, 0.2)[:, None]
    twin = (roles > 0) & np.where(alike[:, None], roles <= copies, chances[..., 2] < likely)
    folder = catalogue.folders[catalogue.objects[main, 0]][:, None]
    folder = np.where(chances[..., 3] < 0.3, folder, -1)
    row = catalogue.cut.find(chances[..., 0], chances[..., 1], folder)
    row[:, 0] = main

    # The main object may be one of the background, so that the pasted one is its look-alike.
    own = scene["row"]
    mirrored = (own >= 0) & (catalogue.objects[own, 8] & CUT_OUT > 0) & (alike | draws.chance(0.35))
    row[:, 0] = np.where(mirrored, own, row[:, 0])
    row = np.where(twin, row[:, :1], row)
    table = catalogue.objects[row]
    box = np.concatenate([table[..., 3:5], table[..., 3:5] + table[..., 5:7]], -1).astype(float)
    things = {
        "twin": twin, "moving": np.zeros((count, ROLES), bool), "picture": np.repeat(table[..., :1], shots, -1),
        "ids": table[..., 1:3].copy(), "box": box, "area": table[..., 7].astype(float),
        "tone": catalogue.object_tones[row].astype(float),
    }

    # Or it is an object of a video, with its motion: of the background's own, or of another one.
    tracks, chance = catalogue.tracks, draws.uniform(shape=(3,))
    if len(tracks["id"]):
        same = scene["moving"] & (alike | (chance[:, 0] < 0.35))
        track = np.where(same, scene["track"], (chance[:, 1] * len(tracks["id"])).astype(int))
        video = tracks["video"][track]
        frames = _draw_frames(draws, catalogue.videos[video, 1], shots, max_jump)
        frames = np.where(same[:, None], scene["frames"], frames)
        at = tracks["start"][track][:, None] + frames
        boxes = tracks["boxes"][at]
        used = tracks["whole"][at].all(1) & (same | (chance[:, 2] < np.where(kind == "clip", 0.5, 0.3)))
        used = used[:, None] & ((roles == 0) | twin)
        shown = np.repeat((catalogue.videos[video, :1] + frames)[:, None], ROLES, 1)
        # Every second copy runs backwards, or all would do the same at the same time.
        shown[:, 1::2] = shown[:, 1::2, ::-1]
        hull = np.concatenate([boxes[..., :2].min(1), boxes[..., 2:4].max(1)], -1)
        things["moving"] = used
        things["picture"] = np.where(used[..., None], shown, things["picture"])
        things["ids"] = np.where(used[..., None], tracks["id"][track][:, None, None], things["ids"])
        things["box"] = np.where(used[..., None], hull[:, None], things["box"])
        things["area"] = np.where(used, boxes[..., 4].mean(1)[:, None], things["area"])
        things["tone"] = np.where(used[..., None], catalogue.tones[shown[..., 0]], things["tone"])
    return things


def _draw_paths(draws, kind, twin, area, camera, size, shots):
    """Return the paths of pasted objects: keys place n×R×T×2, shape n×R×T×3×3, zoom n×R and root n×R.

    The shape turns and stretches an object around its middle, the zoom is the number of pixels of the frame for one of
    the object's picture, and the root is the square root of its area as a share of the frame's side.
    """
    roles, times = np.arange(ROLES), np.arange(shots)
    alike, crowd = kind == "alike", kind == "crowd"
    root = np.where(crowd[:, None], draws.logarithmic(0.045, 0.14, (ROLES,)), draws.logarithmic(0.08, 0.6, (ROLES,)))
    root = np.where(alike[:, None], np.clip(root, 0.07, 0.35), root)
    # Look-alikes are about as large as one another.
    root = np.where(twin, root[:, :1] * np.exp(draws.normal(0.12, (ROLES,))), root)
    zoom = np.minimum(root * size / np.sqrt(area), ENLARGED * size / 384)
    root = zoom * np.sqrt(area) / size

    pace = random_pace(draws, (ROLES,))
    changes = drift(draws, (0.08, 0.08, 0.12, 0.06, 0.05, 0.03), pace, shots)
    x, y, turn, growth, slope, wider = np.moveaxis(changes, -1, 0)
    start = draws.uniform(0.12, 0.88, (ROLES, 2))
    place = start[:, :, None] + np.stack([x, y], -1)

    # Look-alikes cross: they start on opposite sides of a point and meet there about in the middle of the sample.
    crossing = ((roles == 0) | twin) & (draws.chance(np.where(alike, 0.75, np.where(crowd, 0.4, 0.3))[:, None], (1,)))
    crossing &= roles < 3
    point = draws.uniform(0.3, 0.7, (1, 1, 2))
    moment = draws.uniform(0.3, 0.9, (1, 1)) * (shots - 1)
    distance = draws.uniform(0.12, 0.4, (1,)) * np.where(roles == 2, 0.7, 1)
    angle = draws.uniform(0, 2 * np.pi, (1,)) + np.where(roles == 0, 0, np.where(roles == 1, np.pi, 2))
    angle = angle + draws.normal(0.25, (ROLES,))
    way = distance[..., None] * (1 - times / moment)
    away = way[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)[:, :, None]
    aside = draws.normal(0.03, (ROLES, 1, 2)) + 0.2 * np.stack([x, y], -1)
    place = np.where(crossing[..., None, None], point + away + aside, place)

    # Some leave the frame and come back.
    leaving = draws.chance(0.12, (ROLES,)) & ~crossing
    begin, end = draws.uniform(0, 0.3, (ROLES, 1)) * (shots - 1), draws.uniform(0.7, 1.1, (ROLES, 1)) * (shots - 1)
    swing = np.sin(np.pi * np.clip((times - begin) / (end - begin), 0, 1)) * draws.uniform(0.7, 1.2, (ROLES, 1))
    angle = draws.uniform(0, 2 * np.pi, (ROLES,))
    out = swing[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)[:, :, None]
    place = np.where(leaving[..., None, None], place + out, place)

    # Half of the objects move with the background.
    base = draws.normal(0.2, (ROLES,))
    aspect = np.exp(draws.normal(0.05, (ROLES,)))
    flip = np.where(draws.chance(0.5, (ROLES,)), -1, 1)
    growth = np.exp(np.clip(growth, -0.8, 0.8))
    shape = linear_maps(turn, growth * np.exp(wider), growth * np.exp(-wider), np.clip(slope, -0.5, 0.5))
    shape = shape @ linear_maps(base, flip * aspect, 1 / aspect)[:, :, None]
    follows = draws.chance(0.5, (ROLES,)) & ~crossing
    moved = camera[:, None] @ translations(place - 0.5)
    shape = np.where(follows[..., None, None, None], _only_linear(moved @ shape), shape)
    place = np.where(follows[..., None, None], moved[..., :2, 2] + 0.5, place)
    return {"place": place, "shape": shape, "zoom": zoom, "root": root}


def _only_linear(matrices):
    result = matrices.copy()
    result[..., :2, 2] = 0
    return result


COVERS = (0.2, 0.2, 0.15, 0.15, 0.3)
"""Shares of what hides objects: discs, rectangles, rings, bars, and things cut out of images."""


def _draw_front(catalogue, draws, scene, paths, camera, pasted, shots):
    """Return what is in front and counts as background, for the layers R and R + 1: a dict of arrays n×2×….

    The first hides an object for a while, the second passes in front anywhere.
    """
    count, times = len(pasted), np.arange(shots)
    active = draws.chance((0.3, 0.15), (2,))
    form = draws.choice(COVERS, (2,))
    chances = draws.uniform(shape=(2, 4))
    if catalogue.cut.some:
        row = catalogue.cut.find(chances[..., 0], chances[..., 1])
        table = catalogue.objects[row]
    else:
        row, table = None, np.zeros((count, 2, 9), int)
        form = np.where(form == THING, DISC, form)
    images = len(catalogue.pictures.items) > 0
    picture = catalogue.pictures.find(chances[..., 2]) if images else np.repeat(scene["picture"][:, :1], 2, 1)
    sizes = catalogue.sizes[picture][..., ::-1]
    side = sizes.min(-1) * draws.uniform(0.2, 0.5, (2,))
    corner = draws.uniform(shape=(2, 2)) * (sizes - side[..., None])
    thing = (form == THING)[..., None]
    box = np.where(thing, np.concatenate([table[..., 3:5], table[..., 3:5] + table[..., 5:7]], -1),
                   np.concatenate([corner, corner + side[..., None]], -1))
    area = np.where(form == THING, table[..., 7], side ** 2)

    # Where the target is, and how large, when it is hidden.
    middle = (scene["box"][:, :2] + scene["box"][:, 2:] / 2 - scene["centre"]) / scene["extent"]
    middle = middle * np.stack([scene["flip"], np.ones(count)], 1)
    moment = 1 + draws.below(shots - 1)
    each = np.arange(count)
    own = (scene["box"][:, 2] > 0) & ((pasted == 0) | draws.chance(0.6))
    at = (camera[each, moment] @ np.concatenate([middle, np.ones((count, 1))], 1)[..., None])[:, :2, 0] + 0.5
    target = np.where(own[:, None], at, paths["place"][each, 0, moment])
    large = np.where(own, np.sqrt(scene["box"][:, 2:].prod(1) / scene["extent"].prod(1)) * 0.75, paths["root"][:, 0])
    root = np.stack([np.clip(large * draws.logarithmic(0.6, 2.2), 0.06, 0.7), draws.uniform(0.15, 0.5)], 1)
    # It must be elsewhere in frame 0.
    least = 0.6 * (large + root[:, 0]) / moment
    speed = np.stack([np.maximum(draws.uniform(0.05, 0.3), least), draws.uniform(0.02, 0.2)], 1)
    angle = draws.uniform(0, 2 * np.pi, (2,))
    way = speed[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    point = np.stack([target, draws.uniform(0.1, 0.9, (2,))], 1)
    moments = np.stack([moment, draws.uniform(0, shots)], 1)[..., None]
    place = point[:, :, None] + way[:, :, None] * (times - moments)[..., None]
    shape = linear_maps(draws.normal(0.3, (2,)), np.exp(draws.normal(0.25, (2,))), np.exp(draws.normal(0.25, (2,))))
    shape = shape[:, :, None] @ linear_maps(draws.normal(0.05, (2,))[..., None] * times)
    return {"active": active, "form": form, "picture": np.where(form == THING, table[..., 0], picture), "box": box,
            "ids": np.where(thing, table[..., 1:3], NOBODY), "place": place, "shape": shape, "root": root,
            "area": area, "tone": catalogue.tones[picture].astype(float)}
