"""Make training samples from single images: three random views that pass for a video (stage 0)."""

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from dataset.augmentation import (
    IMAGE_MEAN,
    MINIFICATION,
    make_lookup,
    mean_colour,
    random_affine,
    random_colour,
    random_spline,
    recolour,
    scaling,
    shift_hue,
    translation,
    warp,
)
from dataset.perturbation import perturb_mask
from dataset.sampler import find_sample_index, make_sample_generator
from util.errors import InputError, pixels
from util.image_io import image_size, read_grey, read_image

VIEWS = 3
"""Frames of a sample."""

SPLINE_PROBABILITY = 0.33
"""Probability that a view is distorted by a thin-plate spline."""


class StaticDataset(Dataset):
    """`dataset[n]` is three views of one image. n, from 0, is a running number that goes on over the epochs.

    A sample is a dict:
        rgb     uint8 3×3×size×size   RGB, 0 to 255
        gt      float32 3×1×size×size the object's mask in [0, 1], in 256 levels because it is resampled like the image
        cls_gt  uint8 3×size×size     1 where gt > ½, else 0
        pgt     uint8 1×1×size×size   the first view's mask, 0 and 1, damaged by `perturb_mask`
        info    name: the image file; frames: the views' numbers, separated by spaces

    pairs: Pairs of dataset.training_sets. perturb: lowest and highest target of the IoU between pgt and the clean mask.
    All random numbers of a sample come from (seed, n). Raises InputError naming a file that cannot be used.
    """

    def __init__(self, pairs, *, seed=0, perturb=(0.85, 1.0), size=384):
        self.pairs = tuple(pairs)
        self.seed = seed
        self.perturb = perturb
        self.size = size

    def __len__(self):
        """Return the number of samples in one epoch."""
        return len(self.pairs)

    def __getitem__(self, number):
        rng = make_sample_generator(self.seed, number)
        pair = self.pairs[find_sample_index(self.seed, number, len(self.pairs))]
        zoom, flip = rng.uniform(0.8, 1.5), rng.random() < 0.5
        image, mask = self._read(pair, zoom)
        image = shift_hue(image, rng.uniform(-0.05, 0.05))
        image = recolour(image, random_colour(rng, mean_colour(image), 0.1, 0.05, 0.05, greyscale=0.05))

        size = self.size
        rgb = np.empty((VIEWS, 3, size, size), np.uint8)
        grey = np.empty((VIEWS, 1, size, size), np.uint8)
        for view in range(VIEWS):
            matrix = self._random_geometry(rng, image.shape[1::-1], zoom, flip)
            spline = random_spline(rng, size) if rng.random() < SPLINE_PROBABILITY else None
            lookup = make_lookup(matrix, spline)
            warped = warp(image, lookup, size, cv2.INTER_CUBIC, IMAGE_MEAN)
            warped = recolour(warped, random_colour(rng, mean_colour(warped), 0.1, 0.05, 0.05))
            rgb[view] = warped.transpose(2, 0, 1)
            # The published network has learned from masks that were resampled bicubically, in levels of grey.
            grey[view, 0] = warp(mask, lookup, size, cv2.INTER_CUBIC, 0)
        classes = (grey[:, 0] > 127).astype(np.uint8)
        return {
            "rgb": torch.from_numpy(rgb),
            "gt": torch.from_numpy(grey).float().div_(255),
            "cls_gt": torch.from_numpy(classes),
            "pgt": torch.from_numpy(perturb_mask(classes[0], rng, *self.perturb)[None, None]),
            "info": {"name": str(pair.image), "frames": " ".join(map(str, range(VIEWS)))},
        }

    def _read(self, pair, zoom):
        """Return the part of image (uint8 H×W×3) and mask (uint8 H×W) that views can show, no larger than they need it.

        zoom: see `_random_geometry`.
        """
        mask = read_grey(pair.mask)
        width, height = image_size(pair.image)
        if (width, height) != mask.shape[::-1]:
            raise InputError(f"{pair.mask}: the mask has {pixels(mask.shape[::-1])} pixels, "
                             f"the image {pixels((width, height))}")
        scale = self.size * zoom / min(width, height)
        if scale >= MINIFICATION:
            image = read_image(pair.image)
        else:
            width, height = round(width * scale), round(height * scale)
            image = read_image(pair.image, shorter=min(width, height))
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        if zoom > 1:
            # Views show nothing of what the zoom moves out of the picture, even if they turn the picture.
            part_width, part_height = max(1, round(width / zoom)), max(1, round(height / zoom))
            left, top = (width - part_width) // 2, (height - part_height) // 2
            image = image[top:top + part_height, left:left + part_width]
            mask = mask[top:top + part_height, left:left + part_width]
        return image, mask

    def _random_geometry(self, rng, source, zoom, flip):
        """Return the matrix of one view: zoom, flip, random affine map, scaling of the shorter side to `size`, crop.

        source: (width, height) as `_read` returned the image. zoom, flip: those of all views of the sample. If zoom is
        above 1, `_read` has already applied it.
        """
        canvas = np.array(source) / min(zoom, 1)
        centre = canvas / 2
        matrix = translation(*(centre - np.array(source) / 2))
        if flip:
            matrix = translation(canvas[0], 0) @ scaling(-1, 1) @ matrix
        matrix = random_affine(rng, centre, degrees=20, shear=10, scale=(0.9, 1.1)) @ matrix
        scale = self.size / canvas.min()
        room = (canvas * scale - self.size + 1e-6).astype(int)
        return translation(*-rng.integers(room + 1)) @ scaling(scale, scale) @ matrix
