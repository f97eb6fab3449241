"""The datasets that can be evaluated: where frames and masks lie, and what the dataset's server expects."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.trees import (
    find_davis_home,
    find_resolution,
    list_folder_names,
    note_resolution,
    read_meta,
    read_names,
)
from util.errors import InputError
from util.image_io import choose_frames, frames_in_order, is_image, mask_files, natural, read_mask
from util.notices import list_notices


@dataclass(frozen=True)
class EvaluationVideo:
    """One video to track."""

    name: str

    frames: tuple
    """Image files in order. A frame's name is the file's stem."""

    masks: dict
    """{frame's name: mask file}. Of each object, only the first mask is used."""

    wanted: frozenset = None
    """Names of the frames whose masks the dataset asks for; None asks for all from the first mask on."""

    objects: frozenset = frozenset()
    """Object ids that the dataset says are in the video, if it says so anywhere but in the masks."""

    notices: tuple = ()
    """Pairs (file or folder, sentence about what may not be as it was meant)."""


@dataclass(frozen=True)
class EvaluationSet:
    """A dataset that can be evaluated."""

    title: str
    """The dataset's name in messages."""

    find: Callable
    """Function of (root, split) that returns the list of EvaluationVideos. Raises InputError naming what is missing."""

    splits: tuple = ("val",)
    """Names of the splits, the default first."""

    size: int = 0
    """Shorter side to which frames are brought for tracking, for networks whose configuration has no `lines`; 0 keeps
    their own size."""

    folder: str = ""
    """Folder in the output and in the submitted archive that holds the videos; "" for none."""

    binary: bool = False
    """Treat all ids above 0 as one object, and write masks as grey 0 and 255."""


def find_davis_2017(root, split):
    """Return the EvaluationVideos of DAVIS 2017. root: see `find_davis_home`. split: "val" or "testdev"."""
    return _find_davis(root, 2017, {"val": "val", "testdev": "test-dev"}[split])


def find_davis_2016(root, split):
    """Return the EvaluationVideos of DAVIS 2016. root: see `find_davis_home`. split: "val", the only one."""
    return _find_davis(root, 2016, "val")


def _find_davis(root, year, name):
    """Return the EvaluationVideos in the list of this year and name. root: see `find_davis_home`."""
    home, listing = find_davis_home(root, year, name, ("JPEGImages", "Annotations"))
    resolution = find_resolution(home / "JPEGImages", home / "Annotations")
    images, annotations = home / "JPEGImages" / resolution, home / "Annotations" / resolution
    videos = []
    for video in read_set(listing):
        if not (images / video).is_dir():
            raise InputError(f"{images / video}: no such folder, {listing} names it")
        frames = _list_images(images / video)
        first = annotations / video / f"{frames[0].stem}.png"
        if not first.exists():
            raise InputError(f"{first}: the mask of the first frame is missing, which gives the objects to track")
        # Masks of other frames are for scoring the results. Where one has no frame, the download is not whole.
        there = {frame.stem for frame in frames}
        notices = [(file, f"there is no frame of this mask in {images}, so the video is tracked without it")
                   for frame, file in mask_files(annotations / video).items() if frame not in there]
        notices += note_resolution(home / "JPEGImages", resolution)
        videos.append(EvaluationVideo(video, frames, {frames[0].stem: first}, notices=tuple(notices)))
    return videos


def find_youtube(root, split):
    """Return the EvaluationVideos of YouTube-VOS. Masks are asked for in the frames that meta.json names.

    The videos consist of all frames if these have been downloaded, else of every fifth frame. root: the folder of the
    split, or the one above. split: "valid" or "test".
    """
    # Find the images and read meta.json.
    home = _find_home(root, [split, "."], ["JPEGImages", "Annotations", "meta.json"])
    every = [Path(root) / folder / f"{split}_all_frames" / "JPEGImages"
             for folder in ("all_frames", ".", "..", "../all_frames")]
    images = next((folder for folder in every if folder.is_dir()), home / "JPEGImages")
    described = read_meta(home / "meta.json")

    # List frames and masks of each video.
    videos = []
    for name, objects in sorted(described.items()):
        # The name becomes a folder's name, so it must not lead out of the folder.
        if name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise InputError(f"{home / 'meta.json'}: {name!r} is no name of a video")
        wanted = frozenset(frame for _, own in objects.values() for frame in own)
        if not wanted:
            raise InputError(f"{home / 'meta.json'}: no frame of {name} is asked for")
        frames = _list_images(images / name)
        there = {frame.stem for frame in frames}
        missing = sorted(wanted - there, key=natural)
        if missing:
            raise InputError(f"{images / name}: {missing[0]} is missing, one of {len(missing)} frames of meta.json")
        given = mask_files(home / "Annotations" / name)
        masks = {frame: file for frame, file in given.items() if frame in there}
        if not masks:
            raise InputError(f"{home / 'Annotations' / name}: no mask has the name of a frame in {images / name}")
        notices = [(file, f"not used, since there is no frame of this name in {images / name}")
                   for frame, file in given.items() if frame not in there]
        if images == home / "JPEGImages" and _is_every_fifth(there):
            notices.append((images, f"every fifth frame is used, since all_frames/{split}_all_frames was not found; "
                                    "published figures are of all frames"))
        videos.append(EvaluationVideo(name, frames, masks, wanted, frozenset(objects), tuple(notices)))
    return videos


def _is_every_fifth(names):
    """Whether frames of these names are every fifth of a video, as YouTube-VOS numbers them."""
    return all(name.isdecimal() and int(name) % 5 == 0 for name in names)


def find_folders(root, split=None):
    """Return the EvaluationVideos in a folder with the layout of DAVIS or YouTube-VOS, or its only video.

    The layout is {JPEGImages, Annotations}[/480p]/VIDEO/FRAME, or another of `dataset.trees.RESOLUTIONS` instead of
    480p; a single video needs no folder VIDEO. LVOS, MOSE and Long Videos have this layout.
    """
    home = _find_home(root, ["."], ["JPEGImages", "Annotations"])
    resolution = find_resolution(home / "JPEGImages", home / "Annotations")
    images, annotations = home / "JPEGImages" / resolution, home / "Annotations" / resolution
    names = list_folder_names(images)
    if not names:
        return [_make_video(Path(root).resolve().name, images, annotations)]
    return [_make_video(name, images / name, annotations / name) for name in names]


def _make_video(name, images, annotations):
    """Return the EvaluationVideo with the frames and masks of two folders."""
    frames, masks = _list_images(images), mask_files(annotations)
    unmatched = sorted(masks.keys() - {frame.stem for frame in frames}, key=natural)
    if unmatched:
        raise InputError(f"{masks[unmatched[0]]}: no frame of this name in {images}; they go from {frames[0].stem} to "
                         f"{frames[-1].stem}")
    return EvaluationVideo(name, frames, masks)


def read_set(path):
    """Return the names of the videos in a list of DAVIS, in the file's order, each once. See `read_names`."""
    names = read_names(path)
    if not names:
        raise InputError(f"{path}: an empty list, the names of videos were expected")
    return names


def list_video_notices(videos):
    """Return lines that say in short what of EvaluationVideos may not be as it was meant."""
    return list_notices(notice for video in videos for notice in video.notices)


def find_lost_objects(video):
    """Return the notices of an EvaluationVideo about objects that the dataset names, but no mask shows.

    Reads masks until all objects are found, which is mostly the first one.
    """
    lost, colours = set(video.objects), {}
    for file in video.masks.values():
        if lost:
            try:
                lost -= set(np.unique(read_mask(file, colours=colours)).tolist())
            except InputError:
                # Whoever needs the mask reports the error.
                return []
    if not lost:
        return []
    ids = ", ".join(map(str, sorted(lost)))
    folder = next(iter(video.masks.values())).parent
    return [(folder, f"meta.json names objects that no mask of a frame shows, so they are not tracked: {ids}")]


def _find_home(root, folders, needed):
    """Return the first of `folders` below `root` that holds all files and folders in `needed`. Raises InputError."""
    for folder in folders:
        home = Path(root) / folder
        if all((home / part).exists() for part in needed):
            return home
    places = " or ".join(str(Path(root) / folder) for folder in folders)
    raise InputError(f"{root}: expected {', '.join(map(str, needed))} in {places}")


def _list_images(folder):
    """Return the image files in a folder in order. Raises InputError if there are none."""
    files = [file for file in folder.glob("*") if is_image(file)]
    if not files:
        raise InputError(f"{folder}: no frames, a folder of images was expected")
    frames = frames_in_order(files)
    for file, notice in choose_frames(files)[1]:
        raise InputError(f"{file}: {notice}; move it out of the folder of frames")
    return frames


EVALUATION_SETS = {
    "davis17": EvaluationSet("DAVIS 2017", find_davis_2017, ("val", "testdev")),
    "davis16": EvaluationSet("DAVIS 2016", find_davis_2016, binary=True),
    "youtube": EvaluationSet("YouTube-VOS", find_youtube, ("valid", "test"), size=480, folder="Annotations"),
    "generic": EvaluationSet("folders", find_folders, size=480),
}
