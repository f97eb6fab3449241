"""Where a benchmark's frames and masks lie, and what its server expects: one declaration each."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from util.errors import InputError
from util.image_io import frames_in_order, is_image, mask_files, natural


@dataclass(frozen=True)
class EvaluationVideo:
    """One video of a benchmark."""

    name: str

    frames: tuple
    """Image files in order; a frame's name is the file's stem."""

    masks: dict
    """{frame: mask file}. Only an object's first mask is ever looked at."""

    wanted: frozenset = None
    """Names of the frames whose masks are asked for; None: all from the first mask on."""


@dataclass(frozen=True)
class EvaluationSet:
    """What distinguishes the evaluation of one benchmark from that of another."""

    title: str

    find: Callable
    """(root, split) to the list of EvaluationVideos. Raises InputError naming what is missing."""

    splits: tuple = ("val",)

    size: int = 0
    """Shorter side at which frames are computed; 0: their own."""

    folder: str = ""
    """Folder below the output, and in the submitted archive, that holds the videos."""

    binary: bool = False
    """One foreground object whatever the ids; masks are written as grey 0 and 255."""


def find_davis_2017(root, split):
    return _find_davis(root, 2017, {"val": ("trainval", "val"), "testdev": ("test-dev", "test-dev")}[split])


def find_davis_2016(root, split):
    return _find_davis(root, 2016, ("trainval", "val"))


def _find_davis(root, year, names):
    part, subset = names
    listing = Path("ImageSets") / str(year) / f"{subset}.txt"
    home = _find_home(root, [part, ".", f"2017/{part}"], [listing, "JPEGImages/480p", "Annotations/480p"])
    videos = []
    for name in read_set(home, year, subset):
        frames = _list_images(home / "JPEGImages" / "480p" / name)
        first = home / "Annotations" / "480p" / name / f"{frames[0].stem}.png"
        if not first.exists():
            raise InputError(f"{first}: the mask of the first frame is missing")
        # The other masks, where there are any, are what the results are scored with.
        videos.append(EvaluationVideo(name, frames, {frames[0].stem: first}))
    return videos


def find_youtube(root, split):
    """All frames where they are there, else every fifth; asked for are those that meta.json names."""
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
    videos = []
    for name in sorted(described):
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
    """Any folders in the layout of DAVIS or YouTube-VOS (also LVOS, MOSE, Long Videos), or a single video."""
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
    frames, masks = _list_images(images), mask_files(annotations)
    strange = sorted(masks.keys() - {frame.stem for frame in frames}, key=natural)
    if strange:
        raise InputError(f"{masks[strange[0]]}: no frame of this name in {images}; they go from {frames[0].stem} to "
                         f"{frames[-1].stem}")
    return EvaluationVideo(name, frames, masks)


def read_set(davis_path, year, name):
    """The videos of ImageSets/`year`/`name`.txt in the order of the file, each once.

    Also reads the lists of the original DAVIS 2016 release, whose lines are pairs of paths.
    """
    path = Path(davis_path) / "ImageSets" / str(year) / f"{name}.txt"
    if not path.is_file():
        sets = sorted(p.stem for p in path.parent.glob("*.txt"))
        hint = f"sets there: {', '.join(sets)}" if sets else "--davis_path is the folder with ImageSets in it"
        raise InputError(f"{path}: no such set ({hint})")
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: an empty list of videos")
    return list(dict.fromkeys(Path(words[0]).parent.name if "/" in words[0] else words[0] for words in lines))


def _find_home(root, folders, needed):
    """The first of root/folders that holds what is needed."""
    for folder in folders:
        home = Path(root) / folder
        if all((home / part).exists() for part in needed):
            return home
    places = " or ".join(str(Path(root) / folder) for folder in folders)
    raise InputError(f"{root}: expected {', '.join(map(str, needed))} in {places}")


def _list_images(folder):
    files = [file for file in folder.glob("*") if is_image(file)]
    if not files:
        raise InputError(f"{folder}: no frames")
    return frames_in_order(files)


EVALUATION_SETS = {
    "davis17": EvaluationSet("DAVIS 2017", find_davis_2017, ("val", "testdev")),
    "davis16": EvaluationSet("DAVIS 2016", find_davis_2016, binary=True),
    "youtube": EvaluationSet("YouTube-VOS", find_youtube, ("valid", "test"), size=480, folder="Annotations"),
    "generic": EvaluationSet("folders", find_folders, size=480),
}
