"""What there is to train on: pairs of image and mask, and videos, in the trees of the published datasets or alike."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.errors import InputError
from util.hyper_para import SHOTS
from util.image_io import IMAGE_SUFFIXES, natural, read_mask

VOID = 255

DAVIS_REPEATS = 5
"""DAVIS is small and exactly labelled: it counts five times beside YouTube-VOS."""

STATIC_REPEATS = {"BIG_small": 5, "HRSOD_small": 5}
"""Few images, but exactly labelled ones."""


@dataclass(frozen=True)
class Pair:
    """One image and the mask of its object."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class TrainingVideo:
    """One annotated video."""

    name: str

    images: Path
    """The folder of its frames."""

    annotations: Path
    """The folder of its masks, one PNG for each frame, of the same name."""

    frames: tuple
    """File names of the frames in order."""

    step: int = 1
    """One frame here is so many in the video: gaps between frames of a sample are that much shorter."""

    def image(self, index):
        return self.images / self.frames[index]

    def mask(self, index):
        return self.annotations / f"{os.path.splitext(self.frames[index])[0]}.png"


def find_pairs(root, instances=False):
    """X.jpg (or any image but a PNG) with X.png beside it, in all folders below `root`: list of Pairs.

    These are DUTS-TR, DUTS-TE, ecssd, BIG_small and HRSOD_small, fss with one folder for each class, and any other
    folder. BIG_small and HRSOD_small come five times. Raises InputError where there is none.

    A folder NAME may have masks that tell its objects apart in NAME_instances/X.png beside it. instances: these come as
    Pairs, too, after the image's own mask. Otherwise images that have no mask but such a one are passed over.
    """
    pairs = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders.sort()
        repeats = max((STATIC_REPEATS.get(part, 1) for part in Path(folder).parts), default=1)
        images = [Path(folder, name) for name in sorted(files)
                  if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)]
        apart = Path(f"{os.path.abspath(folder)}_instances")
        known = set(os.listdir(apart)) if apart.is_dir() else ()
        own = set(files)
        for image in images:
            name = f"{image.stem}.png"
            if image.suffix.lower() == ".png":
                continue
            if name in own or name not in known:
                pairs += [Pair(image, image.with_suffix(".png"))] * repeats
            if instances and name in known:
                pairs += [Pair(image, apart / name)] * repeats
    if not pairs:
        raise InputError(f"{root}: no image with a mask beside it (X.jpg with X.png) in this folder or below")
    return pairs


def find_davis(root):
    """The training videos of DAVIS 2017 by ImageSets/2017/train.txt, five times; `root` is DAVIS or any part of it."""
    places = [Path(root, part) for part in ("2017/trainval", "trainval", ".")]
    home = next((place for place in places if (place / "ImageSets/2017/train.txt").exists()), None)
    if home is None:
        raise InputError(f"{root}: expected ImageSets/2017/train.txt in {' or '.join(map(str, places))}")
    return find_videos(home) * DAVIS_REPEATS


def find_youtube(root):
    """The training videos of YouTube-VOS, at 480p where they are there; every fifth frame has a mask."""
    places = [Path(root, part) for part in ("train_480p", "train", ".")]
    home = next((place for place in places if (place / "JPEGImages").is_dir()), None)
    if home is None:
        raise InputError(f"{root}: expected JPEGImages and Annotations in {' or '.join(map(str, places))}")
    return find_videos(home, step=5)


def find_videos(root, step=1):
    """The TrainingVideos in the layout of DAVIS: {JPEGImages, Annotations}[/480p]/VIDEO/FRAME, masks as PNG.

    BL30K is such a folder. Where there is ImageSets/2017/train.txt, the videos that it names, else all. Whether each
    frame has its mask is for `dataset.check` to find out. Raises InputError naming what is missing.
    """
    root = Path(root)
    images, annotations = root / "JPEGImages", root / "Annotations"
    for folder in (images, annotations):
        if not folder.is_dir():
            raise InputError(f"{folder}: expected a folder with one folder for each video")
    if (images / "480p").is_dir() and (annotations / "480p").is_dir():
        images, annotations = images / "480p", annotations / "480p"
    listing = root / "ImageSets" / "2017" / "train.txt"
    names = listing.read_text().split() if listing.exists() else sorted(next(os.walk(images, followlinks=True))[1])
    known = {}
    videos = []
    for name in names:
        try:
            frames = [sys.intern(frame) for frame in os.listdir(images / name)
                      if frame.lower().endswith(IMAGE_SUFFIXES) and not frame.startswith(".")]
        except FileNotFoundError:
            raise InputError(f"{images / name}: this folder is missing, {listing} names it") from None
        # Names of one length are in natural order anyway, and many.
        frames = tuple(sorted(frames, key=natural if len(set(map(len, frames))) > 1 else None))
        # Most videos of BL30K have the same names of frames: one copy instead of 30 000.
        videos.append(TrainingVideo(name, images / name, annotations / name, known.setdefault(frames, frames), step))
    if not videos:
        raise InputError(f"{images}: no videos")
    return videos


def object_ids(mask):
    """The ids in a mask uint8 H×W and how many pixels each has: {id: pixels}. 255 is "do not care", no object."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return {int(known): int(counts[known]) for known in np.flatnonzero(counts[:VOID]) if known}


def read_names(path):
    """The names in a text file, separated by white space, as a set. Raises InputError if it cannot be read."""
    try:
        return set(Path(path).read_text().split())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of names ({error})") from None


def usable_videos(videos, excluded=(), shots=SHOTS, threads=8):
    """(videos to train on, {name: why not} for the others), by three rules.

    Left out are videos whose name is in `excluded`, those of fewer frames than the `shots` of a sample, and those
    without any object. For the last, masks are read until there is an object: mostly the first one of a video.
    """
    def fault(video):
        if video.name in excluded:
            return "excluded by name"
        if len(video.frames) < shots:
            return f"{len(video.frames)} frames, {shots} are needed"
        found = any(object_ids(read_mask(video.mask(index))) for index in range(len(video.frames)))
        return None if found else "no object in any mask"

    distinct = list(dict.fromkeys(videos))
    with ThreadPoolExecutor(threads) as pool:
        faults = dict(zip(distinct, pool.map(fault, distinct), strict=True))
    return [video for video in videos if not faults[video]], {v.name: why for v, why in faults.items() if why}
