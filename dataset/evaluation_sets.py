"""The datasets that can be evaluated: where frames and masks lie, and what the dataset's server expects."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from util.errors import InputError
from util.image_io import choose_frames, frames_in_order, is_image, mask_files, natural


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
    """Shorter side to which frames are reduced for tracking; 0 keeps their own size."""

    folder: str = ""
    """Folder in the output and in the submitted archive that holds the videos; "" for none."""

    binary: bool = False
    """Treat all ids above 0 as one object, and write masks as grey 0 and 255."""


def find_davis_2017(root, split):
    """Return the EvaluationVideos of DAVIS 2017. root: see `_find_davis`. split: "val" or "testdev"."""
    return _find_davis(root, 2017, {"val": ("trainval", "val"), "testdev": ("test-dev", "test-dev")}[split])


def find_davis_2016(root, split):
    """Return the EvaluationVideos of DAVIS 2016. root: see `_find_davis`. split: "val", the only one."""
    return _find_davis(root, 2016, ("trainval", "val"))


def _find_davis(root, year, names):
    """Return the EvaluationVideos in ImageSets/YEAR/LIST.txt.

    root: the folder with ImageSets, or one or two levels above. names: (the folder in DAVIS/2017, LIST).
    """
    part, subset = names
    listing = Path("ImageSets") / str(year) / f"{subset}.txt"
    home = _find_home(root, [part, ".", f"2017/{part}"], [listing, "JPEGImages/480p", "Annotations/480p"])
    videos = []
    for name in read_set(home, year, subset):
        frames = _list_images(home / "JPEGImages" / "480p" / name)
        first = home / "Annotations" / "480p" / name / f"{frames[0].stem}.png"
        if not first.exists():
            raise InputError(f"{first}: the mask of the first frame is missing, which gives the objects to track")
        # Masks of other frames are for scoring the results.
        videos.append(EvaluationVideo(name, frames, {frames[0].stem: first}))
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
    try:
        described = json.loads((home / "meta.json").read_text())["videos"]
        wanted = {name: frozenset(frame for thing in video["objects"].values() for frame in thing["frames"])
                  for name, video in described.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{home / 'meta.json'}: not the meta.json of YouTube-VOS "
                         f"({type(error).__name__}: {error})") from None

    # List frames and masks of each video.
    videos = []
    for name in sorted(described):
        # The name becomes a folder's name, so it must not lead out of the folder.
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise InputError(f"{home / 'meta.json'}: {name!r} is no name of a video")
        if not wanted[name]:
            raise InputError(f"{home / 'meta.json'}: no frame of {name} is asked for")
        frames = _list_images(images / name)
        missing = sorted(wanted[name] - {frame.stem for frame in frames})
        if missing:
            raise InputError(f"{images / name}: {missing[0]} is missing, one of {len(missing)} frames of meta.json")
        videos.append(EvaluationVideo(name, frames, mask_files(home / "Annotations" / name), wanted[name]))
    return videos


def find_folders(root, split=None):
    """Return the EvaluationVideos in a folder with the layout of DAVIS or YouTube-VOS, or its only video.

    The layout is {JPEGImages, Annotations}[/480p or /Full-Resolution]/VIDEO/FRAME; a single video needs no folder
    VIDEO. LVOS, MOSE and Long Videos have this layout.
    """
    home = _find_home(root, ["."], ["JPEGImages", "Annotations"])
    images, annotations = home / "JPEGImages", home / "Annotations"
    for resolution in ("480p", "Full-Resolution"):
        if (images / resolution).is_dir() and (annotations / resolution).is_dir():
            images, annotations = images / resolution, annotations / resolution
            break
    names = sorted(folder.name for folder in images.iterdir() if folder.is_dir() and not folder.name.startswith("."))
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


def read_set(davis_path, year, name):
    """Return the names of the videos in ImageSets/`year`/`name`.txt, in the file's order, each once.

    The lines are names of videos, or pairs of paths as in the original release of DAVIS 2016.
    """
    path = Path(davis_path) / "ImageSets" / str(year) / f"{name}.txt"
    if not path.is_file():
        sets = sorted(p.stem for p in path.parent.glob("*.txt"))
        hint = f"sets there: {', '.join(sets)}" if sets else "--davis-path is the folder with ImageSets in it"
        raise InputError(f"{path}: no such set ({hint})")
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: an empty list, the names of videos were expected")
    return list(dict.fromkeys(Path(words[0]).parent.name if "/" in words[0] else words[0] for words in lines))


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
