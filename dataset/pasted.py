"""Training samples from images with masks that pass for videos: objects cut out and pasted, or in their place.

After the synthetic videos of STM (Oh et al., ICCV 2019, section 3.4), with look-alikes, occluders and light of our own.
"""

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from dataset.augmentation import mean_colour, random_colour, recolour, scaling, shift_hue, translation
from dataset.layers import Layer, about, compose, cut_out, drift, motion, placed, random_waves, shrunk
from dataset.sampler import sample_generator, sample_index
from dataset.synthetic import random_outline
from dataset.training_sets import SHOTS, VOID, object_ids
from dataset.video import object_tensors
from util.errors import InputError, pixels
from util.image_io import read_image, read_objects

DRAWS = 6
"""So many times a scene is drawn until the first frame shows its main object."""

VISIBLE = 1 / 500
"""The share of the first frame that an object must cover to be followed."""

IN_PLACE = 0.3
"""Probability that the main object stays in its own image: nothing is cut, so no edge gives it away."""

SHARE = (0.02, 0.5)
"""Of an image's area, what objects to be cut out have. Those that stay in place may have up to 0.7."""

ROOT = (0.08, 0.6)
"""The square root of a pasted object's area, of the frame's side; uniform in its logarithm."""

CONNECTED = 0.8
"""The least share of an object in its largest connected part: others are scattered, like hands or a whole crowd."""

PART = 0.5
"""An object that touches others with more of its outline is a part of something, like a shirt."""

TWIN, RELATIVE = 0.2, 0.25
"""Probabilities that a further object is a copy of the main one, and that it comes from an image of the same folder."""

OCCLUDER = 0.25

SECOND = 0.75
"""Probability that a second object is followed, where there is one."""


class PastedVideoDataset(Dataset):
    """`dataset[n]` is five frames of a scene made of images, for any n from 0; a dict as `dataset.video` has it.

    info: name is the image of the main object, which is always the first; frames: the number of each frame.

    pairs: `dataset.training_sets.Pair`s. Any of the images may be a background. perturb: lowest and highest target of
    the IoU between pgt and the clean mask. All random numbers of a sample come from (seed, n). Raises InputError
    naming a file that cannot be used.
    """

    def __init__(self, pairs, *, seed=0, perturb=(0.85, 1.0), size=384):
        self.pairs = tuple(pairs)
        self.folders = {}
        for index, pair in enumerate(self.pairs):
            self.folders.setdefault(pair.image.parent, []).append(index)
        self.seed = seed
        self.perturb = perturb
        self.size = size

    def __len__(self):
        """Samples of one epoch."""
        return len(self.pairs)

    def __getitem__(self, number):
        rng = sample_generator(self.seed, number)
        main = sample_index(self.seed, number, len(self.pairs))
        for _ in range(DRAWS):
            layers = self._in_place(rng, main) if rng.random() < IN_PLACE else self._pasted(rng, main)
            rgb, ids = compose(layers, self.size)
            seen = [known for known, count in object_ids(ids[0]).items() if count >= VISIBLE * self.size ** 2]
            if 1 in seen:
                break
        # Where six draws did not show it, the sample has nothing to follow.
        chosen = [1] if 1 in seen else []
        others = [known for known in seen if known != 1]
        if chosen and others and rng.random() < SECOND:
            chosen.append(int(rng.choice(others)))

        masks = object_tensors(rng, ids, chosen, self.perturb)
        return {
            "rgb": torch.from_numpy(_filmed(rng, rgb)),
            **masks,
            "info": {"name": str(self.pairs[main].image), "frames": " ".join(map(str, range(SHOTS)))},
        }

    def _in_place(self, rng, main):
        """Layers: an image with its objects, now and then with a few things in front."""
        image, mask = self._read(main)
        objects = _objects(mask, (SHARE[0] / 2, 0.7), cut=0.4, connected=0)
        masks = {label: cv2.compare(mask, objects[index], cv2.CMP_EQ)
                 for label, index in enumerate(rng.permutation(len(objects))[:2], 1)}
        pace = _pace(rng)
        moves = motion(rng, self.size, pace, travel=0.05, degrees=5, zoom=0.05)
        layers = [self._background(rng, image, masks, moves, 0.012, pace)]
        tone = np.array(mean_colour(image))
        for label in range(3, 3 + rng.choice(3, p=(0.6, 0.3, 0.1))):
            thing = self._cut_out(rng, int(rng.integers(len(self.pairs))), tone)
            if thing is not None:
                layers.append(self._object(rng, thing, label, moves))
        return layers + self._occluders(rng)

    def _pasted(self, rng, main):
        """Layers: a background, one to four objects, and sometimes something that hides them."""
        index = int(rng.integers(len(self.pairs)))
        image = self._read(index, masked=False)
        pace = _pace(rng)
        moves = motion(rng, self.size, pace, travel=0.05, degrees=4, zoom=0.05)
        back = self._background(rng, image, {}, moves, 0.006, pace)
        tone = np.array(mean_colour(image))
        first = self._cut_out(rng, main, tone)
        for _ in range(DRAWS):
            if first is not None:
                break
            first = self._cut_out(rng, int(rng.integers(len(self.pairs))), tone)
        if first is None:
            return [back]
        things = [self._object(rng, first, 1, moves)]
        for label in range(2, 2 + rng.choice(4, p=(0.25, 0.35, 0.25, 0.15))):
            kind = rng.random()
            if kind < TWIN:
                thing = first
            elif kind < TWIN + RELATIVE:
                thing = self._cut_out(rng, int(rng.choice(self.folders[self.pairs[main].image.parent])), tone)
            else:
                thing = self._cut_out(rng, int(rng.integers(len(self.pairs))), tone)
            if thing is not None:
                things.append(self._object(rng, thing, label, moves))
        return [back] + [things[place] for place in rng.permutation(len(things))] + self._occluders(rng)

    def _read(self, index, masked=True):
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

    def _background(self, rng, image, masks, moves, strength, pace):
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

    def _cut_out(self, rng, index, tone):
        """(image, mask) around one object of a pair, or None where it has none that could be cut out.

        tone: mean RGB of the background, towards which the object's goes a part of the way.
        """
        image, mask = self._read(index)
        objects = _objects(mask, SHARE, cut=0.12, connected=CONNECTED)
        if not objects:
            return None
        mask = cv2.compare(mask, objects[rng.integers(len(objects))], cv2.CMP_EQ) & 1
        x, y, w, h = cv2.boundingRect(mask)
        image, mask = image[y:y + h, x:x + w], mask[y:y + h, x:x + w]
        image = _jittered(rng, image, 0.12, 0.1, 0.12, turn=0.02)
        gains = ((tone + 20) / (np.array(cv2.mean(image, mask)[:3]) + 20)) ** rng.uniform(0, 0.5)
        return recolour(image, np.diag(np.clip(gains, 0.6, 1.5))), mask

    def _object(self, rng, thing, number, camera):
        """A Layer that shows the cut-out (image, mask) somewhere, on its own path."""
        image, mask = thing
        image = _jittered(rng, image, 0.04, 0.04, 0.04, turn=0.005)
        softness = rng.uniform(0.5, 1.2) if min(mask.shape) > 12 else 0
        root = self.size * np.exp(rng.uniform(*np.log(ROOT)))
        scale = min(root / np.sqrt(np.count_nonzero(mask)), 2.5)
        planes, factors = shrunk(cut_out(image, mask, softness), scale)
        return self._moving(rng, planes, number, (scale / factors[0], scale / factors[1]), camera, 0.025)

    def _occluders(self, rng):
        """Layers that belong to the background and pass in front of all: blobs, rings and bars of some picture."""
        if rng.random() >= OCCLUDER:
            return []
        image = self._read(int(rng.integers(len(self.pairs))), masked=False)
        side = int(self.size * rng.uniform(0.2, 0.5))
        side = min(side, *image.shape[:2])
        top, left = (rng.integers(length - side + 1) for length in image.shape[:2])
        image = image[top:top + side, left:left + side]
        kind = rng.integers(3)
        mask = random_outline(rng, side) & 1
        if kind == 1:
            hole = cv2.resize(mask, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_NEAREST)
            start = (side - len(hole)) // 2
            mask[start:start + len(hole), start:start + len(hole)] &= 1 - hole
        elif kind == 2:
            mask = np.zeros((side, side), np.uint8)
            mask[:, np.arange(side) * 2 * rng.integers(2, 5) // side % 2 == 0] = 1
        stretch = rng.uniform(0.7, 2, 2)
        still = [np.eye(3)] * SHOTS
        return [self._moving(rng, cut_out(image, mask, 0.7), 0, stretch, still, 0.01)]

    def _moving(self, rng, planes, number, scale, camera, strength):
        """The Layer of a cut-out (picture, opacity), enlarged by `scale` (x, y); camera: five matrices of the frame."""
        picture, alpha = planes
        height, width = alpha.shape
        size = self.size
        flip = -1 if rng.random() < 0.5 else 1
        angle = np.radians(rng.normal(0, 12))
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        aspect = np.exp(rng.normal(0, 0.05))
        base = turn @ scaling(flip * scale[0] * aspect, scale[1] / aspect) @ translation(-width / 2, -height / 2)
        pace = _pace(rng)
        where = translation(*rng.uniform(0.1, 0.9, 2) * size)
        matrices = [where @ matrix for matrix in placed(base, motion(rng, size, pace))]
        if rng.random() < 0.6:
            # It is in the scene that the camera pans over; otherwise it moves in the frame.
            matrices = [move @ matrix for move, matrix in zip(about((size / 2, size / 2), camera), matrices,
                                                              strict=True)]
        waves = random_waves(rng, max(width, height), strength * rng.random(), pace) if rng.random() < 0.8 else None
        shutter = rng.uniform(0, 0.6) if rng.random() < 0.2 else 0
        return Layer(picture, {number: alpha}, matrices, waves, shutter=shutter)


def _objects(mask, share, cut, connected):
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


def _pace(rng):
    """How fast things move: mostly calm, sometimes not at all; 1 is fast."""
    return 0 if rng.random() < 0.08 else np.exp(rng.uniform(*np.log((0.06, 1))))


def _jittered(rng, image, brightness, contrast, saturation, turn):
    image = shift_hue(image, rng.uniform(-turn, turn))
    return recolour(image, random_colour(rng, mean_colour(image), brightness, contrast, saturation, greyscale=0.02))


def _filmed(rng, rgb):
    """uint8 5×3×size×size: frames 5×size×size×3 under light that changes, now and then blurred, noisy, compressed.

    Whatever is done to the whole frame hides what distinguishes a pasted object from its background.
    """
    light = drift(rng, [0.04, 0.015, 0.015, 0.015], rng.uniform(0, 1))
    colour = random_colour(rng, mean_colour(rgb[0]), 0.1, 0.1, 0.1, greyscale=0.03)
    softness = rng.uniform(0.4, 1.2) if rng.random() < 0.25 else 0
    grain = rng.normal(0, rng.uniform(2, 8), (64, 64, 3)).astype(np.float32) if rng.random() < 0.25 else None
    quality = int(rng.integers(25, 80)) if rng.random() < 0.25 else None
    frames = np.empty((SHOTS, 3, *rgb.shape[1:3]), np.uint8)
    for time, frame in enumerate(rgb):
        gains = np.exp(np.clip(light[time, 0] + light[time, 1:, None], -0.4, 0.4))
        frame = recolour(frame, colour * gains)
        if softness:
            frame = cv2.GaussianBlur(frame, (0, 0), softness)
        if grain is not None:
            tiles = -(-len(frame) // len(grain))
            noise = np.tile(np.roll(grain, rng.integers(len(grain), size=2), (0, 1)), (tiles, tiles, 1))
            frame = cv2.add(frame, noise[:len(frame), :len(frame)], dtype=cv2.CV_8U)
        if quality is not None:
            data = cv2.imencode(".jpg", frame, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
            frame = cv2.imdecode(data, cv2.IMREAD_COLOR)
        cv2.split(frame, list(frames[time]))
    return frames
