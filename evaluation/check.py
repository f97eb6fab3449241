"""Check results before they are uploaded: a folder, or the archive for a dataset's server.

    python evaluation/check.py --dataset davis17 --root DAVIS/2017 --results prediction/s012
    python -m evaluation.check --dataset davis17 --split testdev --root DAVIS/2017 --results prediction/test.zip
    python -m evaluation.check --dataset youtube --root YouTube --results prediction/YV-19-val.zip

Finds: missing and additional videos and frames; masks of the wrong size; masks that are no indexed PNGs; object ids
that no given mask has, or that appear before the object's first mask; videos whose masks are all empty; in archives,
folders that the server does not expect. Each finding says what is wrong and what to do. Exit code 0: nothing found,
1: findings, 2: nothing to check.
"""

import functools
import io
import sys
import zipfile
import zlib
from collections import defaultdict
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from dataset.evaluation_sets import EVALUATION_SETS, find_lost_objects, list_video_notices
from util.errors import InputError, pixels, run_script
from util.files import is_hidden, read_json
from util.image_io import image_size, natural, read_mask
from util.notices import list_notices, tell
from util.options import OptionParser
from util.progress import progress_bar

OTHER_NAMES = {"youtube18": "youtube", "youtube19": "youtube"}
"""Values of --dataset beside the names in EVALUATION_SETS."""

OWN_FILES = ("global_results-*.csv", "per-sequence_results-*.csv", "results.csv", "speed.json")
"""Files that the scripts for evaluation and scoring write beside the masks."""


LARGEST_FILE = 2**28
"""Bytes of the largest mask that is read from an archive: a small archive may hold files that fill the memory."""


def get_args_parser():
    parser = OptionParser("evaluation.check", __doc__)
    parser.add_argument("--dataset", choices=(*EVALUATION_SETS, *OTHER_NAMES), required=True,
                        help="the dataset that was tracked")
    parser.add_argument("--split", metavar="SPLIT",
                        help="val or testdev, valid or test (default: the first that the dataset has)")
    parser.add_argument("--root", required=True, metavar="FOLDER",
                        help="folder of the dataset, the same as for the evaluation script")
    parser.add_argument("--results", required=True, metavar="PATH", help="folder or zip archive with the results")
    return parser


def main(args):
    evaluation_set = EVALUATION_SETS[OTHER_NAMES.get(args.dataset, args.dataset)]
    split = args.split or evaluation_set.splits[0]
    if split not in evaluation_set.splits:
        raise InputError(f"{args.dataset} has no split {split}; there are {', '.join(evaluation_set.splits)}")
    videos = evaluation_set.find(args.root, split)
    files = open_results(Path(args.results))
    lost = list_notices(notice for video in videos for notice in find_lost_objects(video))
    tell([*list_video_notices(videos), *lost])
    findings = check_results(evaluation_set, videos, files, split, read_states(Path(args.results)))
    for finding in findings:
        print(finding)
    if findings:
        print(f"{args.results}: {len(findings)} findings")
        return 1
    frames = sum(len(video.frames) for video in videos)
    print(f"{args.results}: fine, {len(videos)} videos with at most {frames} frames together, ready to upload")
    return 0


def open_results(path):
    """Return {path below the results: function that returns the file's bytes} for a folder or an archive.

    Raises InputError if `path` is neither, or holds no files.
    """
    if path.is_dir():
        # Hidden files of a folder are no results. An archive is submitted as it is, so there they are findings.
        files = {file.relative_to(path).as_posix(): file.read_bytes for file in sorted(path.rglob("*"))
                 if file.is_file() and not any(map(is_hidden, file.relative_to(path).parts))
                 and not any(file.match(name) for name in OWN_FILES)}
    elif zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise InputError(f"{path}: damaged archive ({error}); pack it anew with --zip") from None
        files = {member.filename: functools.partial(_read_member, archive, member) for member in archive.infolist()
                 if not member.is_dir()}
    else:
        raise InputError(f"{path}: neither a folder nor a zip archive")
    if not files:
        raise InputError(f"{path}: no files in there; --results is the folder or the archive with the masks")
    return files


def _read_member(archive, member):
    """Return the bytes of a file in an archive. Raises BadZipFile for one that is larger than any mask."""
    if member.file_size > LARGEST_FILE:
        raise zipfile.BadZipFile(f"{member.file_size} bytes, larger than any mask")
    return archive.read(member)


def read_states(path):
    """Return {video name: whether its evaluation is finished} for the videos in a folder of an evaluation's results."""
    states = {}
    for file in path.glob(".evaluation/*.json"):
        try:
            record = read_json(file)
            states[file.stem] = isinstance(record, dict) and "files" in record
        except InputError:
            states[file.stem] = False
    return states


def check_results(evaluation_set, videos, files, split="", states=None):
    """Return the list of findings, each a sentence: what is wrong and what to do.

    videos: the EvaluationVideos whose masks are asked for, of a split. files: as `open_results` returns them. states:
    as `read_states` returns them.
    """
    states = states or {}
    findings, masks = _sort_into_videos(evaluation_set, videos, files)
    bar = progress_bar(len(videos), "checking")
    for video in videos:
        video_files = masks.pop(video.name, {})
        if not video_files:
            findings.append(f"{video.name}: missing; run the evaluation script again, it adds the missing videos")
        else:
            findings += _check_video(evaluation_set, video, video_files, states.get(video.name))
        bar.increment()
    bar.finish(dirty=True)
    several = len(evaluation_set.splits) > 1
    where, cure = (f" {split}", "give the --split that it is of, or ") if several else ("", "")
    for name in sorted(masks):
        findings.append(f"{name}: not a video of {evaluation_set.title}{where}; {cure}leave it out of what is uploaded")
    return findings


def _sort_into_videos(evaluation_set, videos, files):
    """Return the findings about folders, and {video name: {file name: function that returns the file's bytes}}."""
    findings, masks, misplaced = [], defaultdict(dict), defaultdict(int)
    top = (evaluation_set.folder,) if evaluation_set.folder else ()
    for path, read in files.items():
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts or "\\" in path:
            findings.append(f"{path}: an archive with such a path is refused by servers; pack it anew with --zip")
        elif parts[:len(top)] == top and len(parts) == len(top) + 2:
            masks[parts[-2]][parts[-1]] = read
        else:
            misplaced[parts[0]] += 1
    names = {video.name for video in videos}
    expected = "/".join([*top, "VIDEO", "FRAME.png"])
    for part, count in sorted(misplaced.items()):
        if part in ("__MACOSX", ".DS_Store") or part.startswith("."):
            findings.append(f"{part}: hidden files of your computer; pack the archive anew with --zip")
        elif part in files:
            findings.append(f"{part}: a file where {expected} is expected; leave it out of what is uploaded")
        elif part in names:
            findings.append(f"{part}: {count} files where {expected} is expected; put the videos into "
                            f"{top[0] if top else 'the top folder'}")
        else:
            findings.append(f"{part}: {count} files where {expected} is expected; remove that folder level, "
                            "or pack with --zip")
    return findings, dict(masks)


def _check_video(evaluation_set, video, files, finished):
    """Return the findings about one video.

    files: {file name: function that returns the file's bytes}. finished: whether its evaluation is; None if no
    evaluation has written the files.
    """
    first_masks = _find_first_masks(evaluation_set, video)
    frames = [file.stem for file in video.frames]
    unmatched = sorted(first_masks.keys() - set(frames), key=natural)
    if unmatched:
        raise InputError(f"{video.masks[unmatched[0]]}: no frame has this mask's name")
    start = min(map(frames.index, first_masks))

    # Are the files there that are asked for, and no others?
    asked = [frame for frame in frames[start:] if video.wanted is None or frame in video.wanted]
    expected = {f"{frame}.png" for frame in asked}
    findings = []
    cure = {True: "run the evaluation script again, it tracks this video anew",
            False: "the evaluation of this video is not finished, run the script again and it goes on",
            None: "masks are asked for from the first given mask on"}[finished]
    for fault, names, advice in (
        ("missing", expected - files.keys(), cure),
        ("not asked for", files.keys() - expected, "leave them out of what is uploaded; masks are named after their "
                                                    "frames, with .png"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            findings.append(f"{video.name}/{min(names, key=natural)}{more}: {fault}; {advice}")

    # Can each mask be used, and does it hold only objects that have been given by then?
    size = image_size(video.frames[0])
    given, reported, any_object = set(), set(), False
    for frame in frames[start:]:
        given |= first_masks.get(frame, set())
        read = files.get(f"{frame}.png")
        if read is None:
            continue
        fault, object_ids = _check_mask(evaluation_set, read, size)
        if fault:
            findings.append(f"{video.name}/{frame}.png: {fault}")
            continue
        any_object = any_object or bool(object_ids)
        for object_id in sorted(object_ids - given - reported):
            reported.add(object_id)
            is_late = any(object_id in new for new in first_masks.values())
            reason = "which has its first mask only later" if is_late else "which no first mask has"
            findings.append(f"{video.name}/{frame}.png: object {object_id}, {reason}; keep the ids of the given masks")
    if not any_object and not findings:
        findings.append(f"{video.name}: all masks are empty; was the right checkpoint used?")
    return findings


def _find_first_masks(evaluation_set, video):
    """Return {frame: set of the object ids that have their first mask there}, frames without any left out."""
    first_masks, given, colours = {}, set(), {}
    for frame, file in video.masks.items():
        object_ids = set(np.unique(read_mask(file, colours=colours)).tolist()) - {0}
        if evaluation_set.binary and object_ids:
            object_ids = {1}
        if object_ids - given:
            first_masks[frame] = object_ids - given
            given |= object_ids
    if not first_masks:
        raise InputError(f"{video.name}: no object in its masks")
    return first_masks


def _check_mask(evaluation_set, read, size):
    """Return what is wrong with a mask file, None if nothing, and the set of its object ids.

    read: function that returns the file's bytes. size: (width, height) of the frame.
    """
    try:
        with Image.open(io.BytesIO(read())) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error,
            Image.DecompressionBombError) as error:
        return f"cannot be read ({error}); run the evaluation script again", set()
    if image.format != "PNG":
        return f"is a {image.format}, which changes ids; write PNG", set()
    if image.size != size:
        return f"has {pixels(image.size)} pixels, the frame {pixels(size)}; write masks at the frames' size", set()
    mode = "L" if evaluation_set.binary else "P"
    if image.mode != mode:
        kind = "a grey PNG of 0 and 255" if evaluation_set.binary else "an indexed PNG"
        return f"is of mode {image.mode}; write {kind} (mode {mode})", set()
    object_ids = set(np.unique(np.asarray(image)).tolist()) - {0}
    if evaluation_set.binary:
        if object_ids - {255}:
            return f"holds the value {min(object_ids - {255})}; one object is written as 0 and 255", set()
        object_ids = {1} if object_ids else set()
    return None, object_ids


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
