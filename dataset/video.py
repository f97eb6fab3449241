"""Training samples from annotated videos: some frames with up to two objects (stages 1 to 3)."""

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
"""So many times frames are drawn until the first one holds an object."""

COPY_SCALE, COPY_MIDDLE = (0.5, 1), (0.2, 0.8)
"""How large a copied object is, relative to its own scene, and where that scene's middle comes to lie in the frame."""

JUMPS = ((0, 5), (0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25))
"""The curriculum: (fraction of the training, largest gap between two frames of a sample) ..."""

LAST_JUMP = 5
"""... and the largest gap at the end, which is more like inference again."""


def jump_curriculum(samples, last_from=0.9):
    """The `max_jump` of VideoDataset for a training of so many samples, in all processes together.

    last_from: fraction of the training from which frames lie close together again; 0.8 on BL30K.
    """
    return tuple((round(fraction * samples), jump) for fraction, jump in (*JUMPS, (last_from, LAST_JUMP)))


def make_object_tensors(rng, ids, chosen, perturb):
    """What a sample says of its objects: gt, sec_gt, cls_gt, pgt, sec_pgt and selector of VideoDataset.

    ids uint8 T×H×W; chosen: the ids, at most two, of the objects to follow. perturb: as for VideoDataset.
    """
    classes = np.zeros(ids.shape, np.uint8)
    for label, known in enumerate(chosen, 1):
        classes[ids == known] = label
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
    """`dataset[n]` is T frames of one video, for any n from 0: a running number that goes on over the epochs.

    A dict of
        rgb              uint8 T×3×size×size  RGB, 0 to 255
        gt, sec_gt       uint8 T×1×size×size  masks of the first and the second object, 0 and 1
        cls_gt           uint8 T×size×size    0 background, 1 first, 2 second object
        pgt, sec_pgt     uint8 1×1×size×size  the first frame's masks, damaged (`perturb_mask`)
        selector         float32 2            1, and 1 or 0: whether there is a second object
        info             name of the video; frames: file names in the order shown, separated by spaces

    videos: `dataset.training_sets.TrainingVideo`s of at least T frames. shots: T. perturb: lowest and highest target
    of the IoU between pgt and the clean mask. bl30k: the rules of BL30K, more of the frame in a crop, no tiny objects.
    max_jump: the largest gap between two frames of a sample, as pairs (running number from which it holds, gap).
    It is part of the declaration because workers prepare samples ahead: a setting changed while they run would
    reach samples that depend on their timing, and a resumed run would see others than an unbroken one.
    copy_paste: the share of the samples into which an object of another video is copied, moving as it does there
    (after Ghiasi et al., "Simple Copy-Paste", CVPR 2021).
    hide: the share of the samples whose objects are hidden for a while, by pieces of `cuttings` (a
    `dataset.cuttings.Cuttings` of the same size and shots).

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
        """Samples of one epoch."""
        return len(self.videos)

    def find_max_jump(self, number):
        """The largest gap for the sample with this running number."""
        return next(jump for first, jump in reversed(self.max_jump) if number >= first)

    def __getitem__(self, number):
        rng = make_sample_generator(self.seed, number)
        video = self.videos[find_sample_index(self.seed, number, len(self.videos))]
        jump = self.find_max_jump(number)
        frames, rgb, ids = self._read_shots(rng, video, jump)
        if self.copy_paste and rng.random() < self.copy_paste:
            _, *other = self._read_shots(rng, self.videos[rng.integers(len(self.videos))], jump)
            others = self._find_objects(other[1])
            if others:
                copy_object(rng, *other, rng.choice(others), rgb, ids)
        objects = self._find_objects(ids)
        # Where six draws found none, the sample shows what it is like when there is nothing to follow.
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
        """(indices of the frames, rgb uint8 T×size×size×3, ids uint8 T×size×size) of a video."""
        jump = max(1, jump // video.step)
        for _ in range(DRAWS):
            frames = draw_frames(rng, len(video.frames), jump, self.shots)
            geometry, ids = self._read_masks(rng, video, frames)
            if self._find_objects(ids):
                break
        return frames, self._read_images(rng, video, frames, *geometry), ids

    def _read_masks(self, rng, video, frames):
        """((frame size, crop box, matrix of each frame from the size×size crop on), ids uint8 T×size×size)."""
        size = self.size
        first = read_mask(video.mask(frames[0]))
        height, width = first.shape
        left, top, w, h = random_crop_box(rng, width, height, (0.25 if self.bl30k else 0.36, 1))
        flip = translation(size, 0) @ scaling(-1, 1) if rng.random() < 0.5 else np.eye(3)
        centre = np.array([size / 2, size / 2])
        matrices = [random_affine(rng, centre, degrees=15, shear=10) @ flip for _ in frames]
        ids = np.empty((self.shots, size, size), np.uint8)
        for shot, (index, matrix) in enumerate(zip(frames, matrices, strict=True)):
            mask = read_mask(video.mask(index), (width, height)) if shot else first
            lookup = make_lookup(matrix @ scaling(size / w, size / h))
            ids[shot] = warp(mask[top:top + h, left:left + w], lookup, size, cv2.INTER_NEAREST, 0)
        return ((width, height), (left, top, w, h), matrices), ids

    def _find_objects(self, ids):
        """Ids in the first frame that are worth following."""
        pixels = count_object_pixels(ids[0])
        if not self.bl30k:
            return list(pixels)
        later = [count_object_pixels(frame) for frame in ids[1:]]
        # 900 pixels and less are fine for an object that is always small, not for a part of a large one.
        return [known for known, count in pixels.items()
                if count > 900 or (count > 100 and max(frame.get(known, 0) for frame in later) < 400)]

    def _read_images(self, rng, video, frames, frame_size, box, matrices):
        """uint8 T×size×size×3: the frames under the masks' geometry, colours jittered."""
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
                # The first frame's mean serves all: they keep their differences in brightness.
                shared = random_colour(rng, mean_colour(image), 0.1, 0.03, 0.03, greyscale=0.05)
            lookup = make_lookup(matrix @ scaling(size / part[0], size / part[1]))
            warped = warp(recolour(image, shared), lookup, size, cv2.INTER_CUBIC, IMAGE_MEAN)
            own = random_colour(rng, mean_colour(warped), 0.01, 0.01, 0.01)
            rgb[shot] = recolour(warped, own)
        return rgb


def copy_object(rng, source, source_ids, known, rgb, ids):
    """Copy one object of a scene into another one, somewhere, half the time behind what is followed there; in place.

    source, rgb uint8 T×size×size×3; source_ids, ids uint8 T×size×size; known: the object's id in the source. It gets
    the lowest id that is free.
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
        alpha = warp(cv2.compare(source_ids[time], int(known), cv2.CMP_EQ), lookup, size, cv2.INTER_LINEAR, 0)
        if behind:
            alpha[ids[time] > 0] = 0
        share = cv2.merge([alpha] * 3).astype(np.float32) / 255
        picture = warp(source[time], lookup, size, cv2.INTER_LINEAR, IMAGE_MEAN)
        rgb[time] = np.rint(picture * share + rgb[time] * (1 - share))
        ids[time][alpha > 127] = free


def draw_frames(rng, length, max_jump, shots=SHOTS):
    """`shots` frames of a video of at least that `length`: list of indices, strictly forward or backward in time.

    Gaps are uniform in 1 ... max_jump, and clamped where the end would leave too few frames. (The published sampling
    clamps each frame by a rule of its own, so that in videos about as short as max_jump time goes to and fro.)
    """
    start = int(rng.integers(max(1, length - max(max_jump, shots - 1))))
    frames = [start]
    for left in range(shots - 2, -1, -1):
        frames.append(min(frames[-1] + int(rng.integers(max_jump)) + 1, length - 1 - left))
    return frames[::-1] if rng.random() < 0.5 else frames
