"""Training samples from images with masks that pass for videos: objects cut out and pasted, or in their place.

After the synthetic videos of STM (Oh et al., ICCV 2019, section 3.4), with look-alikes, occluders and light of our own.
"""

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from dataset.augmentation import mean_colour, random_colour, recolour
from dataset.cuttings import random_pace, worth_following
from dataset.layers import compose, drift, motion
from dataset.sampler import sample_generator, sample_index
from dataset.training_sets import object_ids
from dataset.video import object_tensors

DRAWS = 6
"""So many times a scene is drawn until the first frame shows its main object."""

VISIBLE = 1 / 500
"""The share of the first frame that an object must cover to be followed."""

IN_PLACE = 0.3
"""Probability that the main object stays in its own image: nothing is cut, so no edge gives it away."""

IN_PLACE_SHARE = (0.01, 0.7)
"""Of an image's area, what objects that stay in place have."""

TWIN, RELATIVE = 0.2, 0.25
"""Probabilities that a further object is a copy of the main one, and that it comes from an image of the same folder."""

SECOND = 0.75
"""Probability that a second object is followed, where there is one."""


class PastedVideoDataset(Dataset):
    """`dataset[n]` is some frames of a scene made of images, for any n from 0; a dict as `dataset.video` has it.

    info: name is the image of the main object, which is always the first; frames: the number of each frame.

    cuttings: `dataset.cuttings.Cuttings`; any of their images may be a background, and a sample has their `shots`
    frames. perturb: lowest and highest target of the IoU between pgt and the clean mask. hide: the share of the samples
    whose objects are hidden for a while (`Cuttings.hide`), besides what happens to pass. All random numbers of a sample
    come from (seed, n). Raises InputError naming a file that cannot be used.
    """

    def __init__(self, cuttings, *, seed=0, perturb=(0.85, 1.0), hide=0):
        self.cuttings = cuttings
        self.pairs, self.size = cuttings.pairs, cuttings.size
        self.seed = seed
        self.perturb = perturb
        self.hide = hide

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
        if self.hide and rng.random() < self.hide:
            self.cuttings.hide(rng, rgb, ids, chosen)

        masks = object_tensors(rng, ids, chosen, self.perturb)
        return {
            "rgb": torch.from_numpy(_filmed(rng, rgb)),
            **masks,
            "info": {"name": str(self.pairs[main].image), "frames": " ".join(map(str, range(len(rgb))))},
        }

    def _in_place(self, rng, main):
        """Layers: an image with its objects, now and then with a few things in front."""
        image, mask = self.cuttings.read(main)
        objects = worth_following(mask, IN_PLACE_SHARE, cut=0.4, connected=0)
        masks = {label: cv2.compare(mask, objects[index], cv2.CMP_EQ)
                 for label, index in enumerate(rng.permutation(len(objects))[:2], 1)}
        pace = random_pace(rng)
        moves = motion(rng, self.size, pace, self.cuttings.shots, travel=0.05, degrees=5, zoom=0.05)
        layers = [self.cuttings.background(rng, image, masks, moves, 0.012, pace)]
        tone = np.array(mean_colour(image))
        for label in range(3, 3 + rng.choice(3, p=(0.6, 0.3, 0.1))):
            thing = self.cuttings.cut_out(rng, self.cuttings.any(rng), tone)
            if thing is not None:
                layers += self.cuttings.object_layers(rng, thing, label, moves)
        return layers + self.cuttings.occluders(rng)

    def _pasted(self, rng, main):
        """Layers: a background, one to four objects, and sometimes something that hides them."""
        index = self.cuttings.any(rng)
        image = self.cuttings.read(index, masked=False)
        pace = random_pace(rng)
        moves = motion(rng, self.size, pace, self.cuttings.shots, travel=0.05, degrees=4, zoom=0.05)
        back = self.cuttings.background(rng, image, {}, moves, 0.006, pace)
        tone = np.array(mean_colour(image))
        first = self.cuttings.cut_out(rng, main, tone)
        for _ in range(DRAWS):
            if first is not None:
                break
            first = self.cuttings.cut_out(rng, self.cuttings.any(rng), tone)
        if first is None:
            return [back]
        things = [self.cuttings.object_layers(rng, first, 1, moves)]
        for label in range(2, 2 + rng.choice(4, p=(0.25, 0.35, 0.25, 0.15))):
            kind = rng.random()
            if kind < TWIN:
                thing = first
            elif kind < TWIN + RELATIVE:
                thing = self.cuttings.cut_out(rng, self.cuttings.relative(rng, main), tone)
            else:
                thing = self.cuttings.cut_out(rng, self.cuttings.any(rng), tone)
            if thing is not None:
                things.append(self.cuttings.object_layers(rng, thing, label, moves))
        order = rng.permutation(len(things))
        return [back] + [layer for place in order for layer in things[place]] + self.cuttings.occluders(rng)











def _filmed(rng, rgb):
    """uint8 T×3×size×size: frames T×size×size×3 under light that changes, now and then blurred, noisy, compressed.

    Whatever is done to the whole frame hides what distinguishes a pasted object from its background.
    """
    light = drift(rng, [0.04, 0.015, 0.015, 0.015], rng.uniform(0, 1), len(rgb))
    colour = random_colour(rng, mean_colour(rgb[0]), 0.1, 0.1, 0.1, greyscale=0.03)
    softness = rng.uniform(0.4, 1.2) if rng.random() < 0.25 else 0
    grain = rng.normal(0, rng.uniform(2, 8), (64, 64, 3)).astype(np.float32) if rng.random() < 0.25 else None
    quality = int(rng.integers(25, 80)) if rng.random() < 0.25 else None
    frames = np.empty((len(rgb), 3, *rgb.shape[1:3]), np.uint8)
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
