"""What a folder of results holds, for track.py and what reads or replaces its results."""

import json

from util.errors import InputError
from util.files import is_hidden, read_json, read_text, remove_files, write_text

MANIFEST = ".track.json"
"""The file that says which program wrote a folder of results."""

STATE = ".state.npz"
"""The core's state a few seconds ago, from which an interrupted run can go on."""

UNFINISHED = ".summary.json.unfinished"
"""The summary of a run that is under way, or was killed."""

EARLIER = ".summary.json.earlier"
"""The summary of the interrupted run, until the run that goes on has taken over its frames."""

FRAMES = ".track_frames.txt"
"""The file that lists, before they are written, the frames whose masks are in a folder of results: names as JSON, one
a line."""

WRITER = "track.py"
"""The name that the manifest gives as the writer."""

INTERRUPTED, FINISHED = "interrupted", "finished"
"""How far a run has come, see `find_run`."""

MAY_DIFFER = {INTERRUPTED: ("overlay", "stamp"), FINISHED: ("versions", "device")}
"""What may differ in the command that goes on: the overlay is drawn anew, and nothing is left to compute."""


def find_earlier_results(folder, video=None, overwrite=False):
    """Return the set of the names of the frames of which an earlier run may have left masks in `folder`.

    video, overwrite: as in `TrackOutput`. Raises InputError if `folder` holds results that track.py did not write, or
    those of another video, unless `overwrite` is given.
    """
    ours = is_ours(folder)
    for file in (folder / "summary.json", folder / "overlay.mp4"):
        if file.exists() and not ours:
            raise InputError(f"{file}: track.py did not write this file; choose another --output")
    frames = list_frames(folder) if ours else set()
    for part, suffix in ((folder / "masks", ".png"), (folder / "scores", ".npz")):
        if part.is_symlink():
            raise InputError(f"{part}: a link, and results are only written into folders of their own; remove it, or "
                             "choose another --output")
        others = [file for file in part.iterdir() if not is_hidden(file.name)
                  and not (file.suffix == suffix and file.stem in frames)] if part.is_dir() else []
        if others:
            raise InputError(f"{min(others)}: track.py did not write this file; choose another --output")
    if ours and not overwrite and (video is None or _video_of(folder) != video):
        raise InputError(f"{folder}: holds the results of another video, or of another part of it; choose another "
                         "--output, or replace them with --overwrite")
    return frames


def remove_earlier_results(folder, frames):
    """Remove overlay, masks and scores that an earlier run left in `folder`. frames: the names of the masks' frames."""
    (folder / "overlay.mp4").unlink(missing_ok=True)
    remove_files(folder / "masks", {f"{name}.png" for name in frames})
    remove_files(folder / "scores", {f"{name}.npz" for name in frames})


def write_frame_list(path, names):
    write_text(path, "".join(f"{json.dumps(name)}\n" for name in sorted(names)))


def list_frames(folder):
    """Return the names of the frames that the list in a folder of results has, or in older ones the summary."""
    try:
        if (folder / FRAMES).exists():
            names = [json.loads(line) for line in read_text(folder / FRAMES).splitlines()]
        else:
            names = [frame["name"] for frame in read_json(folder / "summary.json").get("frames", [])]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return set()
    return {name for name in names if isinstance(name, str)}


def is_ours(folder):
    """Return whether track.py wrote the results in this folder."""
    summary = folder / "summary.json"
    if not summary.exists():
        # Without a summary the files may be the user's own, even in a folder that has a manifest.
        return False
    # Earlier versions wrote no manifest. Their summary says who wrote it.
    for file in (folder / MANIFEST, summary):
        try:
            return read_json(file)["written_by"] == WRITER
        except (InputError, LookupError, TypeError):
            continue
    return False


def find_run(folder, run):
    """Return how far the run of --resume has come in this folder: INTERRUPTED, FINISHED, or None if nothing is there.

    run: as in `TrackOutput`. Raises InputError if the folder holds a run with other inputs or settings.
    """
    if not is_ours(folder):
        return None
    manifest = read_manifest(folder)
    if "finished" not in manifest:
        raise InputError(f"{folder}: holds the results of an earlier version, or its {MANIFEST} is damaged; leave "
                         "--resume out to begin anew, or choose another --output")
    stage = FINISHED if manifest["finished"] is not None else INTERRUPTED if (folder / STATE).exists() else None
    differing = _find_differences(manifest.get("run"), run, MAY_DIFFER[stage]) if stage else []
    if differing:
        raise InputError(f"{folder}: holds a run that differs in {', '.join(differing)}; --resume goes on with what is "
                         "the same: give the earlier command, or leave --resume out to begin anew")
    return stage


def _find_differences(theirs, ours, may_differ):
    """Return what differs between two runs, as words. may_differ: what is not looked at."""
    theirs, ours = theirs if isinstance(theirs, dict) else {}, json.loads(json.dumps(ours))
    differing = [name for name in ours if theirs.get(name) != ours[name] and name not in may_differ]
    if "settings" in differing and isinstance(theirs.get("settings"), dict):
        settings = [name for name in ours["settings"] if theirs["settings"].get(name) != ours["settings"][name]]
        differing[differing.index("settings")] = f"settings ({', '.join(settings)})"
    return differing


def _video_of(folder):
    """What the results in this folder were made from, as `TrackOutput` was told; None if it is not known."""
    return read_manifest(folder).get("video")


def read_manifest(folder):
    """Return {name: value} of the manifest in this folder; nothing if it cannot be read."""
    try:
        return dict(read_json(folder / MANIFEST))
    except (InputError, ValueError, TypeError):
        return {}


def read_items(path):
    """Yield what a summary says of each frame. A killed process may have left it without an end."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("  {"):
                try:
                    yield json.loads(line.rstrip().rstrip(","))
                except ValueError:
                    return
