"""Make layers of images with masks: backgrounds, objects that are cut out, and things that pass in front of them."""

from dataclasses import replace

import cv2
import numpy as np

from dataset.augmentation import mean_colour, random_colour, recolour, rotation, scaling, shift_hue, translation
from dataset.layers import (
    Layer,
    add_limb,
    apply_moves,
    cut_out,
    draw_layers,
    random_motion,
    random_waves,
    shift_origin,
    shrink,
)
from dataset.synthetic import random_outline
from dataset.training_sets import SHOTS, VOID
from util.errors import InputError, pixels
from util.image_io import read_image, read_mask

CUT_OUT_SHARE = (0.02, 0.5)
"""Lowest and highest share of its image's area of an object to cut out."""

ROOT = (0.08, 0.6)
"""Range of the square root of a pasted object's area, as a share of the frame's side; uniform in the logarithm."""

CONNECTED = 0.8
"""Least share of an object in its largest connected part. Other objects are scattered, like hands or a whole crowd."""

PART = 0.5
"""An object that touches other objects with a larger share of its outline is a part of something, like a shirt."""

LIMB = 0.4
"""Probability that a part of a pasted object turns against the rest."""

OCCLUDER = 0.25
"""Probability that something passes in front of a scene, in any place."""

CUT = 0.2
"""Probability that a sample hides its objects by showing another scene for a while."""

COVERS, COVER_SHARES = ("blob", "ring", "bars", "post", "thing"), (0.15, 0.1, 0.15, 0.25, 0.35)
"""Kinds of covers, which are put in front of an object to hide it, and their probabilities."""

COVER = (0.4, 2.5)
"""Range of a cover's size relative to that of the object; uniform in the logarithm."""


class Cuttings:
    """Makes layers of the images and objects of Pairs, for samples of `shots` frames of size×size pixels.

    pairs: Pairs of dataset.training_sets. The methods take the random generator `rng` of the sample, and raise
    InputError naming a file that cannot be used.
    """

    def __init__(self, pairs, size, shots=SHOTS):
        self.pairs = tuple(pairs)
        self.size = size
        self.shots = shots
        self._still = [np.eye(3)] * shots
        self.folders = {}
        for index, pair in enumerate(self.pairs):
            self.folders.setdefault(pair.image.parent, []).append(index)

    def pick_any(self, rng):
        """Return the index of a random pair."""
        return int(rng.integers(len(self.pairs)))

    def pick_relative(self, rng, index):
        """Return the index of a random pair in the folder of the pair `index`."""
        return int(rng.choice(self.folders[self.pairs[index].image.parent]))

    def hide(self, rng, rgb, ids, chosen):
        """Hide objects, in whole or in part, in some of the frames after the first one; in place.

        rgb: uint8 T×size×size×3. ids: uint8 T×size×size. chosen: the objects' ids.
        """
        # Some samples show another scene for a frame or two.
        if rng.random() < CUT:
            start = int(rng.integers(1, self.shots - 1))
            stop = start + 1 + (rng.random() < 0.4)
            pace = random_pace(rng)
            moves = random_motion(rng, self.size, pace, self.shots, travel=0.05, degrees=4, zoom=0.05)
            scene = self.make_background(rng, self.read(self.pick_any(rng), masked=False), {}, moves, 0.006, pace)
            draw_layers([scene], rgb, ids, range(start, stop))
            return
        # The other samples get one or two covers. In one frame, the cover is about where an object is, if any is seen.
        tone = np.array(mean_colour(rgb[0]))
        for _ in range(1 + (rng.random() < 0.3)):
            time = int(rng.integers(1, self.shots))
            middle, root = rng.uniform(0.1, 0.9, 2) * self.size, self.size * rng.uniform(0.1, 0.5)
            if len(chosen):
                y, x = np.nonzero(ids[time] == rng.choice(chosen))
                if len(x):
                    middle, root = np.array([x.mean(), y.mean()]), np.sqrt(len(x))
            layer = self._make_cover(rng, root * np.exp(rng.uniform(*np.log(COVER))), tone)
            height, width = layer.picture.shape[:2]
            shift = middle + rng.normal(0, 0.3, 2) * root - (layer.matrices[time] @ (width / 2, height / 2, 1))[:2]
            layer = replace(layer, matrices=[translation(*shift) @ matrix for matrix in layer.matrices])
            draw_layers([layer], rgb, ids, range(1, self.shots))

    def _make_cover(self, rng, side, tone):
        """Return a random cover: a Layer about `side` pixels wide that counts as background and moves by itself.

        tone: mean RGB of the scene.
        """
        kind = rng.choice(COVERS, p=COVER_SHARES)
        pace = 2 * random_pace(rng)
        thing = self.cut_out(rng, self.pick_any(rng), tone) if kind == "thing" else None
        if thing:
            planes, _ = shrink(cut_out(*thing, 0.8), side / np.sqrt(np.count_nonzero(thing[1])))
            scale = np.full(2, side / np.sqrt(np.count_nonzero(planes[1] > 127) + 1))
        else:
            # An image without an object to cut out gives a post instead. A post is taller than the frame.
            kind = "post" if kind == "thing" else kind
            planes = self._make_piece(rng, kind)
            extent = (0.4 * side, 3 * self.size) if kind == "post" else side * rng.uniform(0.7, 1.5, 2)
            scale = extent / np.array(planes[1].shape[::-1])
        return self._make_moving_layer(rng, planes, 0, scale, self._still, 0.01, pace)

    def read(self, index, masked=True):
        """Return the image of a pair, uint8 H×W×3, and, if `masked`, its mask, uint8 H×W.

        Large images are reduced until the shorter side is one and a half times that of the frames.
        """
        pair = self.pairs[index]
        image = read_image(pair.image, shorter=self.size)
        height, width = image.shape[:2]
        scale = 1.5 * self.size / min(height, width)
        if scale < 1:
            width, height = round(width * scale), round(height * scale)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        if not masked:
            return image
        mask = read_mask(pair.mask, colours={})
        if abs(mask.shape[0] * width - mask.shape[1] * height) > max(mask.shape):
            raise InputError(f"{pair.mask}: the mask has {pixels(mask.shape[::-1])} pixels, the image has other "
                             "proportions")
        if mask.shape != (height, width):
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        return image, mask

    def make_background(self, rng, image, masks, moves, strength, pace):
        """Return an opaque Layer that shows a random part of an image.

        image: uint8 H×W×3. masks: {object id: uint8 H×W, 0 and 255}, empty for a background without objects; most of
        object 1 is in view. moves: matrices of the frames around the frame's middle. strength, pace: of the
        deformation, see `random_waves`.
        """
        # Choose the size of the part that is seen, about square, and large enough for 0.9 of the object's box.
        box = cv2.boundingRect(masks[1]) if masks else None
        height, width = image.shape[:2]
        side = min(width, height) * rng.uniform(0.5, 0.95)
        wide, high = side * np.exp(rng.uniform(-0.15, 0.15, 2))
        if box is not None:
            wide, high = max(wide, 0.9 * box[2]), max(high, 0.9 * box[3])
        wide, high = min(wide, width), min(high, height)

        # Choose its place; the object's middle lies between 0.2 and 0.8 of the part.
        places = []
        for part, whole, start, length in ((wide, width, 0, 2), (high, height, 1, 3)):
            low, top = 0, whole - part
            if box is not None:
                middle = box[start] + box[length] / 2
                low, top = (np.clip(middle - part * share, low, top) for share in (0.8, 0.2))
            places.append(rng.uniform(low, top))

        # Jitter colours, shrink the image, and make the matrices from image to frame.
        image = _jitter_colour(rng, image, 0.15, 0.15, 0.15, turn=0.05)
        scale = self.size / max(wide, high)
        (image, *planes), factors = shrink([image, *masks.values()], scale)
        flip = scaling(-1, 1) if rng.random() < 0.5 else np.eye(3)
        base = (flip @ scaling(self.size / wide, self.size / high)
                @ translation(-places[0] - wide / 2, -places[1] - high / 2) @ scaling(1 / factors[0], 1 / factors[1]))
        centre = translation(self.size / 2, self.size / 2)
        waves = random_waves(rng, max(image.shape), strength, pace) if rng.random() < 0.7 else None
        shutter = rng.uniform(0, 0.6) if rng.random() < 0.2 else 0
        matrices = apply_moves(centre @ base, shift_origin((self.size / 2, self.size / 2), moves))
        return Layer(image, dict(zip(masks, planes, strict=True)), matrices, waves, True, shutter)

    def cut_out(self, rng, index, tone):
        """Return image uint8 H×W×3 and mask uint8 H×W, 0 and 1, around a random object of a pair, None if it has none.

        tone: mean RGB of the background; the object's mean goes a random part of the way towards it.
        """
        image, mask = self.read(index)
        object_ids = find_usable_objects(mask, CUT_OUT_SHARE, cut=0.12, connected=CONNECTED)
        if not object_ids:
            return None
        mask = cv2.compare(mask, object_ids[rng.integers(len(object_ids))], cv2.CMP_EQ) & 1
        x, y, w, h = cv2.boundingRect(mask)
        image, mask = image[y:y + h, x:x + w], mask[y:y + h, x:x + w]
        image = _jitter_colour(rng, image, 0.12, 0.1, 0.12, turn=0.02)
        gains = ((tone + 20) / (np.array(cv2.mean(image, mask)[:3]) + 20)) ** rng.uniform(0, 0.5)
        return recolour(image, np.diag(np.clip(gains, 0.6, 1.5))), mask

    def make_object_layers(self, rng, thing, object_id, camera):
        """Return the list of Layers, one or two, that show an object in a random place and size, on a path of its own.

        thing: (image, mask) from `cut_out`. object_id: the object's id in the sample. camera: matrices of the frames
        around the frame's middle, by which the background moves.
        """
        image, mask = thing
        image = _jitter_colour(rng, image, 0.04, 0.04, 0.04, turn=0.005)
        softness = rng.uniform(0.5, 1.2) if min(mask.shape) > 12 else 0
        root = self.size * np.exp(rng.uniform(*np.log(ROOT)))
        scale = min(root / np.sqrt(np.count_nonzero(mask)), 2.5)
        planes, factors = shrink(cut_out(image, mask, softness), scale)
        scales = (scale / factors[0], scale / factors[1])
        layer = self._make_moving_layer(rng, planes, object_id, scales, camera, 0.04)
        return add_limb(rng, layer) if rng.random() < LIMB else [layer]

    def make_occluders(self, rng):
        """Return a list of one Layer that passes in front of the scene and counts as background, or an empty list.

        The layer is a blob, a ring or bars, cut out of a random image.
        """
        if rng.random() >= OCCLUDER:
            return []
        planes = self._make_piece(rng, ("blob", "ring", "bars")[rng.integers(3)])
        return [self._make_moving_layer(rng, planes, 0, rng.uniform(0.7, 2, 2), self._still, 0.01)]

    def _make_piece(self, rng, kind):
        """Return a square piece of a random image as a cut-out (picture, opacity).

        kind: the piece's shape, one of COVERS except "thing".
        """
        image = self.read(self.pick_any(rng), masked=False)
        side = int(self.size * rng.uniform(0.2, 0.5))
        side = min(side, *image.shape[:2])
        top, left = (rng.integers(length - side + 1) for length in image.shape[:2])
        image = image[top:top + side, left:left + side]
        mask = np.ones((side, side), np.uint8) if kind == "post" else random_outline(rng, side) & 1
        if kind == "ring":
            hole = cv2.resize(mask, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_NEAREST)
            start = (side - len(hole)) // 2
            mask[start:start + len(hole), start:start + len(hole)] &= 1 - hole
        elif kind == "bars":
            mask = np.zeros((side, side), np.uint8)
            mask[:, np.arange(side) * 2 * rng.integers(2, 5) // side % 2 == 0] = 1
        return cut_out(image, mask, 0.7)

    def _make_moving_layer(self, rng, planes, object_id, scale, camera, strength, pace=None):
        """Return the Layer of a cut-out in a random place, on a random path.

        planes: (picture, opacity). object_id: 0 for background. scale: (x, y), the picture's enlargement. camera:
        matrices of the frames around the frame's middle. strength: of the deformation at most, see `random_waves`.
        pace: how fast the layer moves, None for a random pace.
        """
        picture, alpha = planes
        height, width = alpha.shape
        size = self.size
        flip = -1 if rng.random() < 0.5 else 1
        turn = rotation(np.radians(rng.normal(0, 12)))
        aspect = np.exp(rng.normal(0, 0.05))
        base = turn @ scaling(flip * scale[0] * aspect, scale[1] / aspect) @ translation(-width / 2, -height / 2)
        pace = random_pace(rng) if pace is None else pace
        where = translation(*rng.uniform(0.1, 0.9, 2) * size)
        matrices = [where @ matrix for matrix in apply_moves(base, random_motion(rng, size, pace, self.shots))]
        if rng.random() < 0.6:
            # The layer follows the camera as the background does; otherwise it moves relative to the frame.
            matrices = [move @ matrix for move, matrix in zip(shift_origin((size / 2, size / 2), camera), matrices,
                                                              strict=True)]
        waves = random_waves(rng, max(width, height), strength * rng.random(), 2 * pace) if rng.random() < 0.8 else None
        shutter = rng.uniform(0, 0.6) if rng.random() < 0.2 else 0
        return Layer(picture, {object_id: alpha}, matrices, waves, shutter=shutter)


def find_usable_objects(mask, share, cut, connected):
    """Return the list of object ids in a mask uint8 H×W that are worth following.

    share: lowest and highest share of the image's area. cut: largest share of the outline of an object's box that may
    lie at the image's border. connected: for objects to cut out, the least share of an object in its largest connected
    part; such an object must not be a part of another thing, either. 0 for objects that stay in their image.
    """
    counts = np.bincount(mask.ravel(), minlength=256)
    border = np.bincount(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]), minlength=256)
    object_ids = []
    for object_id in np.flatnonzero(counts[:VOID]):
        if not object_id or not share[0] * mask.size <= counts[object_id] <= share[1] * mask.size:
            continue
        own = cv2.compare(mask, int(object_id), cv2.CMP_EQ)
        x, y, w, h = cv2.boundingRect(own)
        if border[object_id] > cut * 2 * (w + h):
            continue
        if connected:
            near = slice(max(0, y - 1), y + h + 1), slice(max(0, x - 1), x + w + 1)
            areas = cv2.connectedComponentsWithStats(own[near])[2][1:, cv2.CC_STAT_AREA]
            around = mask[near][(cv2.dilate(own[near], None) > 0) & (own[near] == 0)]
            # In a mask without background, every object touches others: that does not make it a part.
            touched = np.count_nonzero((around > 0) & (around < VOID)) if counts[0] else 0
            if areas.max() < connected * counts[object_id] or touched > PART * len(around):
                continue
        object_ids.append(int(object_id))
    return object_ids


def random_pace(rng):
    """Return how fast a thing moves: 1 is fast, most are calm, and some have 0 and do not move."""
    return 0 if rng.random() < 0.08 else np.exp(rng.uniform(*np.log((0.06, 1))))


def _jitter_colour(rng, image, brightness, contrast, saturation, turn):
    """Return uint8 H×W×3 `image` with its hue turned by up to ±turn, and other jitter as of `random_colour`."""
    image = shift_hue(image, rng.uniform(-turn, turn))
    return recolour(image, random_colour(rng, mean_colour(image), brightness, contrast, saturation, greyscale=0.02))
