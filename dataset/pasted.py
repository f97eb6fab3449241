"""Make training samples that pass for videos from images with masks: objects are cut out and pasted, or stay in place.

The idea is that of STM's synthetic videos (Oh et al., ICCV 2019, section 3.4). Look-alikes, occluders and changing
light are additions of this repository.
"""

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from dataset.augmentation import mean_colour, random_colour, recolour
from dataset.cuttings import find_usable_objects, random_pace
from dataset.layers import compose, random_drift, random_motion
from dataset.sampler import find_sample_index, make_sample_generator
from dataset.training_sets import count_object_pixels
from dataset.video import make_object_tensors

DRAWS = 6
"""So many scenes are made at most until the first frame shows the main object."""

VISIBLE = 1 / 500
"""Least share of the first frame that an object must cover to be followed."""

IN_PLACE = 0.3
"""Probability that the main object stays in its own image. It then has no cut edge that gives it away."""

IN_PLACE_SHARE = (0.01, 0.7)
"""Lowest and highest share of its image's area of an object that stays in place."""

TWIN, RELATIVE = 0.2, 0.25
"""Probabilities that a further object is a copy of the main one, and that it is from an image in the same folder."""

SECOND = 0.75
"""Probability that a second object is followed, if there is one."""


class PastedVideoDataset(Dataset):
    """`dataset[n]`, for any n from 0, is a dict like that of VideoDataset: frames of a scene made of images.

    In `info`, name is the image file of the main object, which is always the first object, and frames are the frames'
    numbers.

    cuttings: the Cuttings that make the scenes; a sample has their `shots` frames. perturb: lowest and highest target
    of the IoU between pgt and the clean mask. hide: share of the samples whose objects `Cuttings.hide` hides for a
    while; occluders may hide objects in any sample. All random numbers of a sample come from (seed, n). Raises
    InputError naming a file that cannot be used.
    """

    def __init__(self, cuttings, *, seed=0, perturb=(0.85, 1.0), hide=0):
        self.cuttings = cuttings
        self.pairs, self.size = cuttings.pairs, cuttings.size
        self.seed = seed
        self.perturb = perturb
        self.hide = hide

    def __len__(self):
        """Return the number of samples in one epoch."""
        return len(self.pairs)

    def __getitem__(self, number):
        # Make scenes until the first frame shows the main object, which has id 1.
        rng = make_sample_generator(self.seed, number)
        main = find_sample_index(self.seed, number, len(self.pairs))
        for _ in range(DRAWS):
            layers = self._make_in_place(rng, main) if rng.random() < IN_PLACE else self._make_pasted(rng, main)
            rgb, ids = compose(layers, self.size)
            seen = [object_id for object_id, count in count_object_pixels(ids[0]).items()
                    if count >= VISIBLE * self.size ** 2]
            if 1 in seen:
                break

        # Choose the objects to follow: none if no scene has shown the main object.
        chosen = [1] if 1 in seen else []
        others = [object_id for object_id in seen if object_id != 1]
        if chosen and others and rng.random() < SECOND:
            chosen.append(int(rng.choice(others)))
        if self.hide and rng.random() < self.hide:
            self.cuttings.hide(rng, rgb, ids, chosen)

        masks = make_object_tensors(rng, ids, chosen, self.perturb)
        return {
            "rgb": torch.from_numpy(_film(rng, rgb)),
            **masks,
            "info": {"name": str(self.pairs[main].image), "frames": " ".join(map(str, range(len(rgb))))},
        }

    def _make_in_place(self, rng, main):
        """Return the Layers of a scene: the image of pair `main` with up to two of its objects, and things in front.

        The image's objects get the ids 1 and 2, up to two pasted objects the ids 3 and 4.
        """
        image, mask = self.cuttings.read(main)
        found = find_usable_objects(mask, IN_PLACE_SHARE, cut=0.4, connected=0)
        masks = {object_id: cv2.compare(mask, found[index], cv2.CMP_EQ)
                 for object_id, index in enumerate(rng.permutation(len(found))[:2], 1)}
        pace = random_pace(rng)
        moves = random_motion(rng, self.size, pace, self.cuttings.shots, travel=0.05, degrees=5, zoom=0.05)
        layers = [self.cuttings.make_background(rng, image, masks, moves, 0.012, pace)]
        tone = np.array(mean_colour(image))
        for object_id in range(3, 3 + rng.choice(3, p=(0.6, 0.3, 0.1))):
            thing = self.cuttings.cut_out(rng, self.cuttings.pick_any(rng), tone)
            if thing is not None:
                layers += self.cuttings.make_object_layers(rng, thing, object_id, moves)
        return layers + self.cuttings.make_occluders(rng)

    def _make_pasted(self, rng, main):
        """Return the Layers of a scene: a background, one to four objects, and sometimes an occluder.

        Object 1 is from the image of pair `main`, or from another image if `main` has no object to cut out.
        """
        # Make the background.
        index = self.cuttings.pick_any(rng)
        image = self.cuttings.read(index, masked=False)
        pace = random_pace(rng)
        moves = random_motion(rng, self.size, pace, self.cuttings.shots, travel=0.05, degrees=4, zoom=0.05)
        back = self.cuttings.make_background(rng, image, {}, moves, 0.006, pace)
        tone = np.array(mean_colour(image))

        # Cut out the main object.
        first = self.cuttings.cut_out(rng, main, tone)
        for _ in range(DRAWS):
            if first is not None:
                break
            first = self.cuttings.cut_out(rng, self.cuttings.pick_any(rng), tone)
        if first is None:
            return [back]

        # Add up to three further objects, and put all in a random order.
        things = [self.cuttings.make_object_layers(rng, first, 1, moves)]
        for object_id in range(2, 2 + rng.choice(4, p=(0.25, 0.35, 0.25, 0.15))):
            kind = rng.random()
            if kind < TWIN:
                thing = first
            elif kind < TWIN + RELATIVE:
                thing = self.cuttings.cut_out(rng, self.cuttings.pick_relative(rng, main), tone)
            else:
                thing = self.cuttings.cut_out(rng, self.cuttings.pick_any(rng), tone)
            if thing is not None:
                things.append(self.cuttings.make_object_layers(rng, thing, object_id, moves))
        order = rng.permutation(len(things))
        return [back] + [layer for index in order for layer in things[index]] + self.cuttings.make_occluders(rng)


def _film(rng, rgb):
    """Return frames, uint8 T×size×size×3, under changing light, some of them blurred, noisy or compressed.

    The result is uint8 T×3×size×size. Effects on the whole frame hide traces by which a pasted object could be told
    from its background.
    """
    # Choose the effects.
    light = random_drift(rng, [0.04, 0.015, 0.015, 0.015], rng.uniform(0, 1), len(rgb))
    colour = random_colour(rng, mean_colour(rgb[0]), 0.1, 0.1, 0.1, greyscale=0.03)
    softness = rng.uniform(0.4, 1.2) if rng.random() < 0.25 else 0
    grain = rng.normal(0, rng.uniform(2, 8), (64, 64, 3)).astype(np.float32) if rng.random() < 0.25 else None
    quality = int(rng.integers(25, 80)) if rng.random() < 0.25 else None

    # Apply them to each frame.
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
