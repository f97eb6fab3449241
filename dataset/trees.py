"""Find lists and folders in the trees of the published datasets, however these were unpacked."""

from pathlib import Path, PurePosixPath

from util.errors import InputError
from util.files import is_hidden, read_json, read_text
from util.image_io import IMAGE_SUFFIXES, natural

RESOLUTIONS = ("480p", "Full-Resolution", "1080p")
"""Folders that DAVIS has between JPEGImages or Annotations and the videos; published figures are those of the first."""

RELEASED_LISTS = ("480p", "1080p")
"""The original release of DAVIS 2016 has its lists in ImageSets/480p and ImageSets/1080p, not in ImageSets/2016."""


def read_names(path):
    """Return the names in a text file, separated by white space, in the file's order, each once.

    Of a path, such as /JPEGImages/480p/bear/00000.jpg in the lists of DAVIS 2016, the name is that of the video, bear.
    Raises InputError if the file cannot be read as text, or if a name is none that a folder can have.
    """
    text = read_text(path)
    if "\0" in text:
        raise InputError(f"{path}: not a text file, a list of names was expected")
    names = {}
    for word in text.split():
        parts = PurePosixPath(word.strip("\"',;").replace("\\", "/")).parts
        if parts and parts[-1].lower().endswith(IMAGE_SUFFIXES):
            parts = parts[:-1]
        if not parts or parts[-1] in ("/", ".."):
            raise InputError(f"{path}: {word!r} is no name of a video")
        names[parts[-1]] = True
    return list(names)


def read_meta(path):
    """Return what a meta.json of YouTube-VOS says: {video name: {object id: (category, names of its frames in order)}}.

    Raises InputError if it is none.
    """
    try:
        return {
            video: {
                int(object_id): (entry.get("category", ""), sorted(entry["frames"], key=natural))
                for object_id, entry in description["objects"].items()
            }
            for video, description in read_json(path)["videos"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a meta.json of YouTube-VOS ({error!r})") from None


def list_folder_names(folder):
    """Return the sorted names of the folders in a folder, without hidden ones and those that systems leave behind."""
    return sorted(path.name for path in Path(folder).iterdir() if path.is_dir() and not is_hidden(path.name))


def find_resolution(*folders):
    """Return the first of RESOLUTIONS that all these folders hold, "" if none of them does."""
    return next((name for name in RESOLUTIONS if all((folder / name).is_dir() for folder in folders)), "")


def note_resolution(folder, resolution):
    """Return the notices, pairs of a folder and a sentence, about the resolution that is used in a folder of DAVIS."""
    if resolution == RESOLUTIONS[0]:
        return ()
    found = f"{resolution} is used" if resolution else "the videos directly in this folder are used"
    return ((folder, f"there is no {RESOLUTIONS[0]} here, so {found}; published figures are those of "
                     f"{RESOLUTIONS[0]}"),)


def find_davis_home(root, year, name, needed):
    """Return (the folder that holds ImageSets and the videos of a list of DAVIS, the file of this list).

    root: DAVIS, DAVIS/2017, DAVIS/2016 or the folder that holds ImageSets, the same in every script. year: of the
    list. name: the list's, without .txt. needed: folders that lie beside ImageSets, such as Annotations. Raises
    InputError saying what is missing.
    """
    lists = [Path("ImageSets") / str(year) / f"{name}.txt"]
    if year == 2016:
        lists += [Path("ImageSets") / folder / f"{name}.txt" for folder in RELEASED_LISTS]
    own = name if name.startswith("test") else "trainval"
    parts = dict.fromkeys([own, ".", "trainval", "test-dev", "DAVIS"])
    places = [Path(root) / above / part for above in (".", "2017", "2016") for part in parts]
    alone = []
    for home in places:
        for path in lists:
            if (home / path).is_file() and all((home / folder).is_dir() for folder in needed):
                return home, home / path
            alone += [home / path] if (home / path).is_file() else []
    if alone:
        home = alone[0].parents[2]
        missing = [folder for folder in needed if not (home / folder).is_dir()]
        raise InputError(f"{home}: no {' and no '.join(missing)} here, where {alone[0]} lists the videos")
    sets = sorted({path.stem for home in places for part in lists for path in (home / part).parent.glob("*.txt")
                   if not is_hidden(path.name)})
    there = f"; sets there: {', '.join(sets)}" if sets else ""
    folders = " and ".join(f"{folder}/{RESOLUTIONS[0]}" for folder in needed)
    raise InputError(f"{root}: no such set, expected {lists[0]} with {folders} beside it, in this folder or in "
                     f"{own}, 2017/{own} or 2016 below it{there}")

