"""List folders of masks, and check that every frame of the ground truth has a prediction."""

from dataset.trees import list_folder_names
from evaluation.scoring import name_files
from util.errors import InputError, name_a_few
from util.image_io import is_image, natural


def list_masks(folder):
    """Return the names of the PNG files in a folder, in the order of the frames; hidden files are left out."""
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted((file.name for file in files if is_image(file) and file.suffix.lower() == ".png"), key=natural)


def list_folders(folder):
    """Return the sorted names of the folders in a folder, without hidden ones. Raises InputError if it is missing."""
    if not folder.is_dir():
        raise InputError(f"{folder}: {'a file, but a folder was expected' if folder.exists() else 'no such folder'}")
    return list_folder_names(folder)


def check_predictions(results, wanted, title, other_sets=None):
    """Raise InputError naming all predictions that are missing in the folder `results`.

    wanted: {video name: names of its mask files}. title: name of the dataset in messages, like "val in DAVIS".
    other_sets: {name of another set: names of its videos}, so that the message can say which set the results are of.
    """
    found = list_folders(results)
    if not set(found) & set(wanted):
        _raise_for_foreign_folder(results, found, wanted, title, other_sets or {})
    texts = []
    count = 0
    for video, names in wanted.items():
        folder = results / video
        present = {path.name for path in folder.iterdir()} if video in found else set()
        missing = [folder / name for name in names if name not in present]
        count += len(missing)
        if missing and len(missing) == len(names):
            texts.append(f"{folder} (all of {missing[0].name} to {missing[-1].name})")
            continue
        # Files that are missing one after the other make a run, and a run is named in short.
        runs = []
        for name in names:
            if name in present:
                runs.append([])
            else:
                runs = runs or [[]]
                runs[-1].append(folder / name)
        texts += [name_files(run) for run in runs if run]
    if texts:
        raise InputError(f"missing predictions ({count}): {', '.join(texts)}")


def _raise_for_foreign_folder(results, found, wanted, title, other_sets):
    """Raise InputError that says why the folder `results` holds none of the wanted videos.

    found: names of the folders in `results`. wanted, title, other_sets: as for `check_predictions`.
    """
    deeper = [str(results / name) for name in found if set(list_folders(results / name)) & set(wanted)]
    if deeper:
        raise InputError(f"{results}: the videos are one level deeper, give {' or '.join(deeper)}")
    for name, videos in other_sets.items():
        overlap = sum(video in found for video in videos)
        if overlap:
            raise InputError(
                f"{results}: these are results of another set, {name} ({overlap} of its {len(videos)} "
                f"videos, none of {title})"
            )
    holds = f"it holds {name_a_few(found)}" if found else "it holds no folders"
    raise InputError(
        f"{results}: results of another dataset? None of the {len(wanted)} videos of {title} "
        f"({name_a_few(list(wanted))}) is there, {holds}"
    )
