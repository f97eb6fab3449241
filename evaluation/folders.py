"""Which files are there: frames of a ground truth, predictions for them, and what is wrong with a folder."""

from evaluation.scoring import name_files
from util.errors import InputError

SHOWN_NAMES = 4  # of sequences, where a message only has to give an idea of what was found


def list_masks(folder):
    """The names of the PNG files of a folder, sorted as strings."""
    return sorted(path.name for path in folder.glob("*.png") if not path.name.startswith("."))


def list_folders(folder):
    """The names of the folders in a folder, sorted; InputError if there is no such folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def a_few(names):
    """ "a, b, c, d, … (9)": the first of some names and how many there are."""
    shown = ", ".join(names[:SHOWN_NAMES])
    return shown if len(names) <= SHOWN_NAMES else f"{shown}, … ({len(names)})"


def check_predictions(results, wanted, what, other_sets=None):
    """Raise InputError unless the folder `results` holds every wanted file, naming all that are missing.

    wanted: per sequence the names of the files. what: what the sequences are called in messages, "val of
    DAVIS". other_sets: per name of another set its sequences, to tell the user whose results these are.
    """
    found = list_folders(results)
    if not set(found) & set(wanted):
        _explain_foreign_folder(results, found, wanted, what, other_sets or {})
    texts = []
    count = 0
    for sequence, names in wanted.items():
        folder = results / sequence
        present = {path.name for path in folder.iterdir()} if sequence in found else set()
        missing = [folder / name for name in names if name not in present]
        count += len(missing)
        if missing and len(missing) == len(names):
            texts.append(f"{folder} (all of {missing[0].name} to {missing[-1].name})")
            continue
        runs = []
        for name in names:  # runs of frames that are missing one after the other are named together
            if name in present:
                runs.append([])
            else:
                runs = runs or [[]]
                runs[-1].append(folder / name)
        texts += [name_files(run) for run in runs if run]
    if texts:
        raise InputError(f"missing predictions ({count}): {', '.join(texts)}")


def _explain_foreign_folder(results, found, wanted, what, other_sets):
    for name in found:
        if set(list_folders(results / name)) & set(wanted):
            raise InputError(f"{results}: the sequences are one level deeper, give {results / name}")
    for name, sequences in other_sets.items():
        overlap = sum(sequence in found for sequence in sequences)
        if overlap:
            raise InputError(
                f"{results}: these are results of another set, {name} ({overlap} of its {len(sequences)} "
                f"sequences, none of {what})"
            )
    holds = f"it holds {a_few(found)}" if found else "it holds no folders"
    raise InputError(
        f"{results}: results of another data set? None of the {len(wanted)} sequences of {what} "
        f"({a_few(list(wanted))}) is there, {holds}"
    )
