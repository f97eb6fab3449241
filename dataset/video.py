"""Make training samples from annotated videos: some frames with up to two objects (stages 1 to 3)."""

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
    random_crop_box,
    recolour,
    scaling,
    translation,
    warp,
)
from dataset.perturbation import perturb_mask
from dataset.sampler import find_sample_index, make_sample_generator
from dataset.training_sets import SHOTS, VOID, count_object_pixels
from util.errors import InputError
from util.image_io import read_image, read_mask

DRAWS = 6
"""Frames are drawn so many times at most until the first one has an object."""

COPY_SCALE, COPY_MIDDLE = (0.5, 1), (0.2, 0.8)
"""Range of a copied object's size relative to that in its own scene, and range, as a share of the frame, of the point
to which the middle of that scene moves."""

JUMPS = ((0, 5), (0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25))
"""The curriculum: (fraction of the training from which it holds, largest gap between two frames of a sample)."""

LAST_JUMP = 5
"""The largest gap at the end of the training. Near frames are more like inference."""


def jump_curriculum(samples, last_from=0.9):
    """Return the `max_jump` for VideoDataset in a training of so many samples, in all processes together.

    last_from: fraction of the training from which LAST_JUMP holds, 0.8 on BL30K.
    """
    return tuple((round(fraction * samples), jump) for fraction, jump in (*JUMPS, (last_from, LAST_JUMP)))


def make_object_tensors(rng, ids, chosen, perturb):
    """Return the part of a sample that is about its objects: gt, sec_gt, cls_gt, pgt, sec_pgt and selector.

    ids: uint8 T×H×W. chosen: the ids of the objects to follow, at most two. perturb and the result: see VideoDataset.
    """
    classes = np.zeros(ids.shape, np.uint8)
    for label, object_id in enumerate(chosen, 1):
        classes[ids == object_id] = label
    classes[ids == VOID] = VOID
    planes = [(classes == label).view(np.uint8)[:, None] for label in (1, 2)]
    perturbed = [perturb_mask(plane[0, 0], rng, *perturb)[None, None] for plane in planes]
    return {
        "gt": torch.from_numpy(planes[0]),
        "sec_gt": torch.from_numpy(planes[1]),
        "cls_gt": torch.from_numpy(classes),
        "pgt": torch.from_numpy(perturbed[0]),
        "sec_pgt": torch.from_numpy(perturbed[1]),
        "selector": torch.tensor([1.0, float(len(chosen) > 1)]),
    }


class VideoDataset(Dataset):
    """`dataset[n]` is T frames of one video. n, from 0, is a running number that goes on over the epochs.

    A sample is a dict:
        rgb              uint8 T×3×size×size  RGB, 0 to 255
        gt, sec_gt       uint8 T×1×size×size  masks of the first and the second object, 0 and 1
        cls_gt           uint8 T×size×size    0 background, 1 first object, 2 second object, 255 ignore
        pgt, sec_pgt     uint8 1×1×size×size  the first frame's masks, damaged by `perturb_mask`
        selector         float32 2            1, and 1 if there is a second object, else 0
        info             name: the video's; frames: file names in the order of the sample, separated by spaces

    videos: TrainingVideos of dataset.training_sets, of at least T frames each. shots: T. perturb: lowest and highest
    target of the IoU between pgt and the clean mask. bl30k: apply the rules for BL30K: crops may be smaller, and tiny
    objects are left out.
    max_jump: the largest gap between two frames of a sample, as pairs (running number from which it holds, gap). The
    whole curriculum is given at the start because workers prepare samples ahead: if the gap were set while they run,
    the samples that it reaches would depend on the workers' timing, and a resumed run would differ from an unbroken
    one.
    copy_paste: share of the samples into which an object of another video is copied with its motion (after Ghiasi et
    al., "Simple Copy-Paste", CVPR 2021).
    hide: share of the samples whose objects are hidden for a while by pieces of `cuttings`, Cuttings of the same size
    and shots.

    All random numbers of a sample come from (seed, n). Raises InputError naming a file that cannot be used.
    """

    def __init__(self, videos, *, max_jump=((0, LAST_JUMP),), seed=0, perturb=(0.85, 1.0), bl30k=False, size=384,
                 copy_paste=0, cuttings=None, hide=0, shots=SHOTS):
        if hide and cuttings is None:
            raise InputError("to hide objects, VideoDataset needs the cuttings that are put in front of them")
        self.videos = tuple(videos)
        self.max_jump = tuple(max_jump)
        self.seed = seed
        self.perturb = perturb
        self.bl30k = bl30k
        self.size = size
        self.copy_paste = copy_paste
        self.cuttings = cuttings
        self.hide = hide
        self.shots = shots

    def __len__(self):
        """Return the number of samples in one epoch."""
        return len(self.videos)

    def find_max_jump(self, number):
        """Return the largest gap for the sample with this running number."""
        return next(jump for first, jump in reversed(self.max_jump) if number >= first)

    def __getitem__(self, number):
        # Read the frames.
        rng = make_sample_generator(self.seed, number)
        video = self.videos[find_sample_index(self.seed, number, len(self.videos))]
        jump = self.find_max_jump(number)
        frames, rgb, ids = self._read_shots(rng, video, jump)

        # Copy an object from another video.
        if self.copy_paste and rng.random() < self.copy_paste:
            _, source, source_ids = self._read_shots(rng, self.videos[rng.integers(len(self.videos))], jump)
            others = self._find_objects(source_ids)
            if others:
                copy_object(rng, source, source_ids, rng.choice(others), rgb, ids)

        # Choose up to two objects to follow. If no draw had an object, the network learns from an empty sample.
        objects = self._find_objects(ids)
        chosen = rng.choice(objects, min(2, len(objects)), replace=False) if objects else []
        if self.hide and rng.random() < self.hide:
            self.cuttings.hide(rng, rgb, ids, chosen)
        masks = make_object_tensors(rng, ids, chosen, self.perturb)
        return {
            "rgb": torch.from_numpy(rgb.transpose(0, 3, 1, 2).copy()),
            **masks,
            "info": {"name": video.name, "frames": " ".join(video.frames[index] for index in frames)},
        }

    def _read_shots(self, rng, video, jump):
        """Draw frames of a video: return their indices, images uint8 T×size×size×3 and masks uint8 T×size×size.

        jump: the largest gap between two frames, in frames of the full video.
        """
        jump = max(1, jump // video.step)
        for _ in range(DRAWS):
            frames = draw_frames(rng, len(video.frames), jump, self.shots)
            geometry, ids = self._read_masks(rng, video, frames)
            if self._find_objects(ids):
                break
        return frames, self._read_images(rng, video, frames, *geometry), ids

    def _read_masks(self, rng, video, frames):
        """Read the masks of these frames under random geometry: return the geometry, and masks uint8 T×size×size.

        The geometry is ((width, height) of the frames, (left, top, width, height) of the crop, and for each frame the
        matrix that is applied after the crop is scaled to size×size).
        """
        size = self.size
        colours = {}
        first = read_mask(video.mask(frames[0]), colours=colours)
        height, width = first.shape
        left, top, w, h = random_crop_box(rng, width, height, (0.25 if self.bl30k else 0.36, 1))
        flip = translation(size, 0) @ scaling(-1, 1) if rng.random() < 0.5 else np.eye(3)
        centre = np.array([size / 2, size / 2])
        matrices = [random_affine(rng, centre, degrees=15, shear=10) @ flip for _ in frames]
        ids = np.empty((self.shots, size, size), np.uint8)
        for shot, (index, matrix) in enumerate(zip(frames, matrices, strict=True)):
            mask = read_mask(video.mask(index), (width, height), colours) if shot else first
            lookup = make_lookup(matrix @ scaling(size / w, size / h))
            ids[shot] = warp(mask[top:top + h, left:left + w], lookup, size, cv2.INTER_NEAREST, 0)
        return ((width, height), (left, top, w, h), matrices), ids

    def _find_objects(self, ids):
        """Return the list of ids in the first frame that are worth following. ids: uint8 T×size×size."""
        pixels = count_object_pixels(ids[0])
        if not self.bl30k:
            return list(pixels)
        later = [count_object_pixels(frame) for frame in ids[1:]]
        # An object of at most 900 pixels is followed if it is always small, but not if it becomes large: then the first
        # frame shows only a part of it.
        return [object_id for object_id, count in pixels.items()
                if count > 900 or (count > 100 and max(frame.get(object_id, 0) for frame in later) < 400)]

    def _read_images(self, rng, video, frames, frame_size, box, matrices):
        """Return these frames, uint8 T×size×size×3, under the geometry of `_read_masks` and with jittered colours."""
        left, top, w, h = box
        size = self.size
        part = [size if size < MINIFICATION * side else side for side in (w, h)]
        rgb = np.empty((self.shots, size, size, 3), np.uint8)
        shared = None
        for shot, (index, matrix) in enumerate(zip(frames, matrices, strict=True)):
            image = read_image(video.image(index), size=frame_size)[top:top + h, left:left + w]
            if part != [w, h]:
                image = cv2.resize(image, part, interpolation=cv2.INTER_AREA)
            if shared is None:
                # The first frame's mean is used for all frames, so that their differences in brightness stay.
                shared = random_colour(rng, mean_colour(image), 0.1, 0.03, 0.03, greyscale=0.05)
            lookup = make_lookup(matrix @ scaling(size / part[0], size / part[1]))
            warped = warp(recolour(image, shared), lookup, size, cv2.INTER_CUBIC, IMAGE_MEAN)
            own = random_colour(rng, mean_colour(warped), 0.01, 0.01, 0.01)
            rgb[shot] = recolour(warped, own)
        return rgb


def copy_object(rng, source, source_ids, object_id, rgb, ids):
    """Copy an object of one scene to a random place in another scene, half the time behind its objects; in place.

    source, rgb: uint8 T×size×size×3, the frames of the scenes. source_ids, ids: uint8 T×size×size, their masks.
    object_id: the object's id in the source. In `ids` the object gets the lowest free id; if none is free, nothing is
    copied.
    """
    taken = count_object_pixels(ids)
    free = next((label for label in range(1, VOID) if label not in taken), None)
    if free is None:
        return
    size = ids.shape[-1]
    scale = np.exp(rng.uniform(*np.log(COPY_SCALE)))
    middle = rng.uniform(*COPY_MIDDLE, 2) * size
    lookup = make_lookup(translation(*middle) @ scaling(scale, scale) @ translation(-size / 2, -size / 2))
    behind = rng.random() < 0.5
    for time in range(len(ids)):
        alpha = warp(cv2.compare(source_ids[time], int(object_id), cv2.CMP_EQ), lookup, size, cv2.INTER_LINEAR, 0)
        if behind:
            alpha[ids[time] > 0] = 0
        share = cv2.merge([alpha] * 3).astype(np.float32) / 255
        picture = warp(source[time], lookup, size, cv2.INTER_LINEAR, IMAGE_MEAN)
        rgb[time] = np.rint(picture * share + rgb[time] * (1 - share))
        ids[time][alpha > 127] = free


def draw_frames(rng, length, max_jump, shots=SHOTS):
    """Return the indices of `shots` frames of a video of `length` frames, in strictly rising or falling order.

    The gaps are uniform in 1 … max_jump, and smaller if too few frames would be left before the end. length: at least
    `shots`. (The published sampling clamps each index by another rule, so in videos about as short as max_jump the
    indices go to and fro.)
    """
    start = int(rng.integers(max(1, length - max(max_jump, shots - 1))))
    frames = [start]
    for left in range(shots - 2, -1, -1):
        frames.append(min(frames[-1] + int(rng.integers(max_jump)) + 1, length - 1 - left))
    return frames[::-1] if rng.random() < 0.5 else frames
