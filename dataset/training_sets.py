"""Find training data, pairs of image and mask and videos, in the layouts of the published datasets."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.trees import find_davis_home, find_resolution, list_folder_names, read_names
from util.errors import InputError, name_a_few
from util.files import is_hidden
from util.hyper_para import SHOTS
from util.image_io import IMAGE_SUFFIXES, natural, read_mask
from util.mask_rule import VOID

DAVIS_REPEATS = 5
"""Beside YouTube-VOS, each video of DAVIS counts so many times: they are few, but exactly labelled."""

STATIC_REPEATS = {"BIG_small": 5, "HRSOD_small": 5}
"""{folder: so many times each of its images counts}. These images are few, but exactly labelled."""


@dataclass(frozen=True)
class Pair:
    """An image file and the file with its mask."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class TrainingVideo:
    """One annotated video."""

    name: str

    images: Path
    """The folder of its frames."""

    annotations: Path
    """The folder of its masks: a PNG for each frame, of the same name."""

    frames: tuple
    """File names of the frames in order."""

    step: int = 1
    """Every step-th frame of the full video is here. Gaps between frames of a sample are divided by it."""

    def image(self, index):
        """Return the image file of a frame."""
        return self.images / self.frames[index]

    def mask(self, index):
        """Return the mask file of a frame."""
        return self.annotations / f"{os.path.splitext(self.frames[index])[0]}.png"


def find_pairs(root, instances=False):
    """Return the Pairs in all folders at or below `root`: each X.jpg (or other image but a PNG) with X.png beside it.

    The folders may be DUTS-TR, DUTS-TE, ecssd, fss with a folder for each class, BIG_small and HRSOD_small, whose pairs
    are listed five times, and any others. Raises InputError if there are no pairs.

    A folder NAME_instances beside a folder NAME may hold masks X.png with an id for each object. With `instances`,
    pairs with these masks are listed, too, after those with X.png. Without it, images that have only such a mask are
    left out.
    """
    pairs = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        _refuse_loops(Path(folder), folders)
        repeats = max((STATIC_REPEATS.get(part, 1) for part in Path(folder).parts), default=1)
        images = [Path(folder, name) for name in sorted(files)
                  if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)]
        apart = Path(f"{os.path.abspath(folder)}_instances")
        instance_masks = set(os.listdir(apart)) if apart.is_dir() else ()
        own = set(files)
        for image in images:
            name = f"{image.stem}.png"
            if image.suffix.lower() == ".png":
                continue
            # An image without any mask is listed all the same, so that `dataset.check` reports the missing mask.
            if name in own or name not in instance_masks:
                pairs += [Pair(image, image.with_suffix(".png"))] * repeats
            if instances and name in instance_masks:
                pairs += [Pair(image, apart / name)] * repeats
    if not pairs:
        raise InputError(f"{root}: no image with a mask beside it (X.jpg with X.png) in this folder or below")
    return pairs


def _refuse_loops(folder, names):
    """Raise InputError if one of the folders of these names in `folder` is a link that leads back above itself."""
    for name in names:
        if os.path.islink(folder / name):
            target = os.path.realpath(folder / name)
            if any(os.path.realpath(above) == target for above in (folder, *folder.parents)):
                raise InputError(f"{folder / name}: a link to {target}, which holds it; remove the link")


def find_davis(root):
    """Return the TrainingVideos of DAVIS 2017, those in ImageSets/2017/train.txt, all listed five times.

    root: see `find_davis_home`. Raises InputError naming what is missing.
    """
    home, _ = find_davis_home(root, 2017, "train", ("JPEGImages", "Annotations"))
    return find_videos(home) * DAVIS_REPEATS


def find_youtube(root):
    """Return the TrainingVideos of YouTube-VOS, at 480p if they exist; they consist of every fifth frame.

    root: YouTube, or the folder of its training split. Raises InputError naming what is missing.
    """
    places = [Path(root, part) for part in ("train_480p", "train", ".")]
    home = next((place for place in places if (place / "JPEGImages").is_dir()), None)
    if home is None:
        raise InputError(f"{root}: expected JPEGImages and Annotations in {' or '.join(map(str, places))}")
    return find_videos(home, step=5)


def find_videos(root, step=1):
    """Return the TrainingVideos below `root` in DAVIS's layout, {JPEGImages, Annotations}[/480p]/VIDEO/FRAME.

    Instead of 480p, the folder may be another of `dataset.trees.RESOLUTIONS`. BL30K has this layout. If there is
    ImageSets/2017/train.txt, only the videos that it names are listed. Or `root` holds a folder for each video, and in
    it `images` and `masks`, as export_masks.py writes them. step: see TrainingVideo. Masks are not looked for,
    `dataset.check` reports those that are missing. Raises InputError naming what else is missing.
    """
    root = Path(root)
    listing = root / "ImageSets" / "2017" / "train.txt"
    images, annotations = root / "JPEGImages", root / "Annotations"
    exported = [] if images.is_dir() or annotations.is_dir() else _find_exported(root)
    if exported:
        folders = {folder.name: (folder / "images", folder / "masks") for folder in exported}
    else:
        for folder in (images, annotations):
            if not folder.is_dir():
                raise InputError(f"{folder}: expected a folder with one folder for each video (or, in {root}, a folder "
                                 "for each video with images and masks in it)")
        resolution = find_resolution(images, annotations)
        images, annotations = images / resolution, annotations / resolution
        names = read_names(listing) if listing.exists() else list_folder_names(images)
        folders = {name: (images / name, annotations / name) for name in names}
    shared = {}
    videos = []
    for name, (images, annotations) in folders.items():
        try:
            frames = [sys.intern(frame) for frame in os.listdir(images)
                      if frame.lower().endswith(IMAGE_SUFFIXES) and not frame.startswith(".")]
        except FileNotFoundError:
            raise InputError(f"{images}: this folder is missing, {listing} names it") from None
        # The natural order of names of one length is that of plain sorting, which is much faster.
        frames = tuple(sorted(frames, key=natural if len(set(map(len, frames))) > 1 else None))
        # Most videos of BL30K have frames of the same names: they share one tuple instead of having 30 000 copies.
        videos.append(TrainingVideo(name, images, annotations, shared.setdefault(frames, frames), step))
    if not videos:
        raise InputError(f"{root / 'JPEGImages'}: no videos, a folder for each video was expected")
    return videos


def _find_exported(root):
    """Return the folders in `root` that hold `images` and `masks`. Raises InputError for one that holds one of both."""
    found = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        there = [name for name in ("images", "masks") if (folder / name).is_dir()]
        if len(there) == 1:
            raise InputError(f"{folder}: holds {there[0]} alone; both images and masks are needed, as export_masks.py "
                             "--format images indexed-png writes them")
        found += [folder] if there else []
    return found


def count_object_pixels(mask):
    """Return {object id: number of its pixels} for all objects in a uint8 mask of any shape; VOID is no object."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return {int(object_id): int(counts[object_id]) for object_id in np.flatnonzero(counts[:VOID]) if object_id}


def read_excluded(path, videos, told=True):
    """Return the names in the list of --exclude, none if there is no list; say which names no video has, if `told`."""
    if not path:
        return []
    names = read_names(path)
    strange = sorted(set(names) - {video.name for video in videos})
    if told and not names:
        print(f"note: {path}: an empty list, no video is excluded", file=sys.stderr)
    if told and strange:
        print(f"note: {path}: no video has the name {name_a_few(strange)}", file=sys.stderr)
    return names


def usable_videos(videos, excluded=(), shots=SHOTS, threads=8, notices=None):
    """Return the videos to train on, and {name: why it is left out} for the others.

    A video is left out if its name is in `excluded`, if it has fewer frames than the `shots` of a sample, or if no mask
    has an object. threads: number of threads that read masks, in each video until one has an object, which is usually
    the first. notices: see `read_mask`.
    """
    def find_fault(video):
        if video.name in excluded:
            return "excluded by name"
        if len(video.frames) < shots:
            return f"{len(video.frames)} frames, {shots} are needed"
        found = any(count_object_pixels(read_mask(video.mask(index), colours={}, notices=notices))
                    for index in range(len(video.frames)))
        return None if found else "no object in any mask"

    distinct = list(dict.fromkeys(videos))
    with ThreadPoolExecutor(threads) as pool:
        faults = dict(zip(distinct, pool.map(find_fault, distinct), strict=True))
    return [video for video in videos if not faults[video]], {v.name: why for v, why in faults.items() if why}
