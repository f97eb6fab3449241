"""Layers made of images with masks: objects cut out, backgrounds, and what passes in front of them."""

from dataclasses import replace

import cv2
import numpy as np

from dataset.augmentation import mean_colour, random_colour, recolour, rotation, scaling, shift_hue, translation
from dataset.layers import Layer, about, cut_out, draw, motion, placed, random_waves, shrunk, with_limb
from dataset.synthetic import random_outline
from dataset.training_sets import SHOTS, VOID
from util.errors import InputError, pixels
from util.image_io import read_image, read_objects

CUT_OUT_SHARE = (0.02, 0.5)
"""Of an image's area, what objects to be cut out have."""

ROOT = (0.08, 0.6)
"""The square root of a pasted object's area, of the frame's side; uniform in its logarithm."""

CONNECTED = 0.8
"""The least share of an object in its largest connected part: others are scattered, like hands or a whole crowd."""

PART = 0.5
"""An object that touches others with more of its outline is a part of something, like a shirt."""

LIMB = 0.4
"""Probability that a part of a pasted object turns against the rest."""

OCCLUDER = 0.25
"""Probability that something passes in front of a scene, wherever."""

CUT = 0.2
"""Of the samples that hide their objects, those that show another scene for a while."""

COVERS, COVER_SHARES = ("blob", "ring", "bars", "post", "thing"), (0.15, 0.1, 0.15, 0.25, 0.35)
"""What is put in front of an object, and how often."""

COVER = (0.4, 2.5)
"""Its size relative to the object's; uniform in its logarithm."""


class Cuttings:
    """Pictures and objects of `dataset.training_sets.Pair`s for samples of `shots` frames of size×size pixels.

    Its methods raise InputError naming a file that cannot be used.
    """

    def __init__(self, pairs, size, shots=SHOTS):
        self.pairs = tuple(pairs)
        self.size = size
        self.shots = shots
        self._still = [np.eye(3)] * shots
        self.folders = {}
        for index, pair in enumerate(self.pairs):
            self.folders.setdefault(pair.image.parent, []).append(index)

    def any(self, rng):
        """The number of some pair."""
        return int(rng.integers(len(self.pairs)))

    def relative(self, rng, index):
        """The number of some pair of the same folder."""
        return int(rng.choice(self.folders[self.pairs[index].image.parent]))

    def hide(self, rng, rgb, ids, chosen):
        """Let objects vanish, in whole or in part, from some of the frames after the first one; in place.

        rgb uint8 T×size×size×3, ids uint8 T×size×size, chosen: the ids of the objects.
        """
        if rng.random() < CUT:
            start = int(rng.integers(1, self.shots - 1))
            stop = start + 1 + (rng.random() < 0.4)
            pace = random_pace(rng)
            moves = motion(rng, self.size, pace, self.shots, travel=0.05, degrees=4, zoom=0.05)
            scene = self.background(rng, self.read(self.any(rng), masked=False), {}, moves, 0.006, pace)
            draw([scene], rgb, ids, range(start, stop))
            return
        tone = np.array(mean_colour(rgb[0]))
        for _ in range(1 + (rng.random() < 0.3)):
            time = int(rng.integers(1, self.shots))
            place, root = rng.uniform(0.1, 0.9, 2) * self.size, self.size * rng.uniform(0.1, 0.5)
            if len(chosen):
                y, x = np.nonzero(ids[time] == rng.choice(chosen))
                if len(x):
                    place, root = np.array([x.mean(), y.mean()]), np.sqrt(len(x))
            layer = self._cover(rng, root * np.exp(rng.uniform(*np.log(COVER))), tone)
            # The middle of the cover is about where the object is at that time.
            height, width = layer.picture.shape[:2]
            away = place + rng.normal(0, 0.3, 2) * root - (layer.matrices[time] @ (width / 2, height / 2, 1))[:2]
            layer = replace(layer, matrices=[translation(*away) @ matrix for matrix in layer.matrices])
            draw([layer], rgb, ids, range(1, self.shots))

    def _cover(self, rng, side, tone):
        """A Layer of the background, of about this side, that moves on a path of its own."""
        kind = rng.choice(COVERS, p=COVER_SHARES)
        pace = 2 * random_pace(rng)
        thing = self.cut_out(rng, self.any(rng), tone) if kind == "thing" else None
        if thing:
            planes, _ = shrunk(cut_out(*thing, 0.8), side / np.sqrt(np.count_nonzero(thing[1])))
            scale = np.full(2, side / np.sqrt(np.count_nonzero(planes[1] > 127) + 1))
        else:
            # The image may have had no object to cut out. A post is taller than the frame.
            kind = "post" if kind == "thing" else kind
            planes = self._shape(rng, kind)
            extent = (0.4 * side, 3 * self.size) if kind == "post" else side * rng.uniform(0.7, 1.5, 2)
            scale = extent / np.array(planes[1].shape[::-1])
        return self._moving(rng, planes, 0, scale, self._still, 0.01, pace)

    def read(self, index, masked=True):
        """The image, and the ids of its objects; at a size not far above that of the frames."""
        pair = self.pairs[index]
        image = read_image(pair.image, shorter=self.size)
        height, width = image.shape[:2]
        scale = 1.5 * self.size / min(height, width)
        if scale < 1:
            width, height = round(width * scale), round(height * scale)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        if not masked:
            return image
        mask = read_objects(pair.mask)
        if abs(mask.shape[0] * width - mask.shape[1] * height) > max(mask.shape):
            raise InputError(f"{pair.mask}: the mask has {pixels(mask.shape[::-1])} pixels, the image another shape")
        if mask.shape != (height, width):
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        return image, mask

    def background(self, rng, image, masks, moves, strength, pace):
        """The Layer that fills the frame, moved by `moves`. masks: {number: mask}; object 1, if any, is in view."""
        box = cv2.boundingRect(masks[1]) if masks else None
        height, width = image.shape[:2]
        # How much of the picture is seen, with the aspect changed by up to a seventh.
        side = min(width, height) * rng.uniform(0.5, 0.95)
        wide, high = side * np.exp(rng.uniform(-0.15, 0.15, 2))
        if box is not None:
            # Most of the object, if the image allows it.
            wide, high = max(wide, 0.9 * box[2]), max(high, 0.9 * box[3])
        wide, high = min(wide, width), min(high, height)
        places = []
        for part, whole, start, length in ((wide, width, 0, 2), (high, height, 1, 3)):
            low, top = 0, whole - part
            if box is not None:
                middle = box[start] + box[length] / 2
                low, top = (np.clip(middle - part * share, low, top) for share in (0.8, 0.2))
            places.append(rng.uniform(low, top))
        image = _jittered(rng, image, 0.15, 0.15, 0.15, turn=0.05)
        scale = self.size / max(wide, high)
        (image, *planes), factors = shrunk([image, *masks.values()], scale)
        flip = scaling(-1, 1) if rng.random() < 0.5 else np.eye(3)
        base = (flip @ scaling(self.size / wide, self.size / high)
                @ translation(-places[0] - wide / 2, -places[1] - high / 2) @ scaling(1 / factors[0], 1 / factors[1]))
        centre = translation(self.size / 2, self.size / 2)
        waves = random_waves(rng, max(image.shape), strength, pace) if rng.random() < 0.7 else None
        shutter = rng.uniform(0, 0.6) if rng.random() < 0.2 else 0
        return Layer(image, dict(zip(masks, planes, strict=True)),
                     placed(centre @ base, about((self.size / 2, self.size / 2), moves)), waves, True, shutter)

    def cut_out(self, rng, index, tone):
        """(image, mask) around one object of a pair, or None where it has none that could be cut out.

        tone: mean RGB of the background, towards which the object's goes a part of the way.
        """
        image, mask = self.read(index)
        objects = worth_following(mask, CUT_OUT_SHARE, cut=0.12, connected=CONNECTED)
        if not objects:
            return None
        mask = cv2.compare(mask, objects[rng.integers(len(objects))], cv2.CMP_EQ) & 1
        x, y, w, h = cv2.boundingRect(mask)
        image, mask = image[y:y + h, x:x + w], mask[y:y + h, x:x + w]
        image = _jittered(rng, image, 0.12, 0.1, 0.12, turn=0.02)
        gains = ((tone + 20) / (np.array(cv2.mean(image, mask)[:3]) + 20)) ** rng.uniform(0, 0.5)
        return recolour(image, np.diag(np.clip(gains, 0.6, 1.5))), mask

    def object_layers(self, rng, thing, number, camera):
        """Layers that show the object `thing` of `cut_out`, (image, mask), somewhere, on its own path."""
        image, mask = thing
        image = _jittered(rng, image, 0.04, 0.04, 0.04, turn=0.005)
        softness = rng.uniform(0.5, 1.2) if min(mask.shape) > 12 else 0
        root = self.size * np.exp(rng.uniform(*np.log(ROOT)))
        scale = min(root / np.sqrt(np.count_nonzero(mask)), 2.5)
        planes, factors = shrunk(cut_out(image, mask, softness), scale)
        layer = self._moving(rng, planes, number, (scale / factors[0], scale / factors[1]), camera, 0.04)
        return with_limb(rng, layer) if rng.random() < LIMB else [layer]

    def occluders(self, rng):
        """Layers that belong to the background and pass in front of all: blobs, rings and bars of some picture."""
        if rng.random() >= OCCLUDER:
            return []
        planes = self._shape(rng, ("blob", "ring", "bars")[rng.integers(3)])
        return [self._moving(rng, planes, 0, rng.uniform(0.7, 2, 2), self._still, 0.01)]

    def _shape(self, rng, kind):
        """A piece of some picture as a cut-out (picture, opacity), square."""
        image = self.read(self.any(rng), masked=False)
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

    def _moving(self, rng, planes, number, scale, camera, strength, pace=None):
        """The Layer of a cut-out (picture, opacity), enlarged by `scale` (x, y); camera: matrices of the frame."""
        picture, alpha = planes
        height, width = alpha.shape
        size = self.size
        flip = -1 if rng.random() < 0.5 else 1
        turn = rotation(np.radians(rng.normal(0, 12)))
        aspect = np.exp(rng.normal(0, 0.05))
        base = turn @ scaling(flip * scale[0] * aspect, scale[1] / aspect) @ translation(-width / 2, -height / 2)
        pace = random_pace(rng) if pace is None else pace
        where = translation(*rng.uniform(0.1, 0.9, 2) * size)
        matrices = [where @ matrix for matrix in placed(base, motion(rng, size, pace, self.shots))]
        if rng.random() < 0.6:
            # It is in the scene that the camera pans over; otherwise it moves in the frame.
            matrices = [move @ matrix for move, matrix in zip(about((size / 2, size / 2), camera), matrices,
                                                              strict=True)]
        waves = random_waves(rng, max(width, height), strength * rng.random(), 2 * pace) if rng.random() < 0.8 else None
        shutter = rng.uniform(0, 0.6) if rng.random() < 0.2 else 0
        return Layer(picture, {number: alpha}, matrices, waves, shutter=shutter)


def worth_following(mask, share, cut, connected):
    """Ids in a mask that are worth following.

    share: lowest and highest share of the image. cut: the most of an object's outline (of its box, in fact) that may
    lie at the image's border. connected: the least share of its largest connected part, for an object to be cut out,
    which must not be a part of something either; 0 for those that stay.
    """
    counts = np.bincount(mask.ravel(), minlength=256)
    border = np.bincount(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]), minlength=256)
    objects = []
    for known in np.flatnonzero(counts[:VOID]):
        if not known or not share[0] * mask.size <= counts[known] <= share[1] * mask.size:
            continue
        own = cv2.compare(mask, int(known), cv2.CMP_EQ)
        x, y, w, h = cv2.boundingRect(own)
        if border[known] > cut * 2 * (w + h):
            continue
        if connected:
            near = slice(max(0, y - 1), y + h + 1), slice(max(0, x - 1), x + w + 1)
            areas = cv2.connectedComponentsWithStats(own[near])[2][1:, cv2.CC_STAT_AREA]
            around = mask[near][(cv2.dilate(own[near], None) > 0) & (own[near] == 0)]
            # Where every pixel has a label, all objects have neighbours, and that says nothing.
            touched = np.count_nonzero((around > 0) & (around < VOID)) if counts[0] else 0
            if areas.max() < connected * counts[known] or touched > PART * len(around):
                continue
        objects.append(int(known))
    return objects


def random_pace(rng):
    """How fast things move: mostly calm, sometimes not at all; 1 is fast."""
    return 0 if rng.random() < 0.08 else np.exp(rng.uniform(*np.log((0.06, 1))))


def _jittered(rng, image, brightness, contrast, saturation, turn):
    image = shift_hue(image, rng.uniform(-turn, turn))
    return recolour(image, random_colour(rng, mean_colour(image), brightness, contrast, saturation, greyscale=0.02))
