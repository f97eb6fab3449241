"""Check results before they are uploaded: a folder, or the archive for a benchmark's server.

    python -m evaluation.check --dataset davis17 --root DAVIS/2017 --results prediction/s012
    python -m evaluation.check --dataset davis17 --split testdev --root DAVIS/2017 --results prediction/test.zip
    python -m evaluation.check --dataset youtube --root YouTube --results prediction/YV-19-val.zip

Looks for missing and additional sequences and frames, wrong sizes, ids that no first mask has (or not yet), masks
that are no indexed PNGs, sequences without any object, and for archives the folders that the server expects. Every
finding says what to do. Exit code 0: nothing found, 1: findings, 2: nothing to check.
"""

import io
import sys
import zipfile
import zlib
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from dataset.evaluation_sets import EVALUATION_SETS
from util.errors import InputError, pixels, run_script
from util.hyper_para import OptionParser
from util.image_io import image_size, read_mask
from util.progress import progress_bar

NAMES = {"davis17": "davis17", "davis16": "davis16", "youtube18": "youtube", "youtube19": "youtube",
         "youtube": "youtube", "generic": "generic"}


def get_args_parser():
    parser = OptionParser("evaluation.check", __doc__)
    parser.add_argument("--dataset", choices=NAMES, required=True, help="whose results these are")
    parser.add_argument("--split", metavar="SPLIT",
                        help="val or testdev, valid or test (default: the first that the dataset has)")
    parser.add_argument("--root", required=True, metavar="FOLDER", help="the dataset, as for the evaluation script")
    parser.add_argument("--results", required=True, metavar="PATH", help="folder or zip with the results")
    return parser


def main(args):
    benchmark = EVALUATION_SETS[NAMES[args.dataset]]
    split = args.split or benchmark.splits[0]
    if split not in benchmark.splits:
        raise InputError(f"{args.dataset} has no split {split}; there are {', '.join(benchmark.splits)}")
    sequences = benchmark.find(args.root, split)
    results = open_results(Path(args.results))
    findings = check(benchmark, sequences, results)
    for finding in findings:
        print(finding)
    masks = sum(len(sequence.frames) for sequence in sequences)
    if findings:
        print(f"{args.results}: {len(findings)} findings")
        return 1
    print(f"{args.results}: fine, {len(sequences)} sequences of at most {masks} frames, ready to upload")
    return 0


def open_results(path):
    """{path below the results: function that gives the file's bytes}, of a folder or an archive."""
    if path.is_dir():
        # What starts with a dot is not part of the results, unless someone packs it up.
        files = {file.relative_to(path).as_posix(): file.read_bytes for file in sorted(path.rglob("*"))
                 if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)}
        files.pop("speed.json", None)
    elif zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise InputError(f"{path}: damaged archive ({error})") from None
        files = {name: (lambda name=name: archive.read(name)) for name in archive.namelist()
                 if not name.endswith("/")}
    else:
        raise InputError(f"{path}: neither a folder nor a zip archive")
    if not files:
        raise InputError(f"{path}: no files in there")
    return files


def check(benchmark, sequences, files):
    """Everything that is wrong with the results, a sentence each: what, and what to do."""
    findings, masks = _sorted_into_sequences(benchmark, sequences, files)
    bar = progress_bar(len(sequences), "checking")
    for sequence in sequences:
        frames = masks.pop(sequence.name, {})
        if not frames:
            findings.append(f"{sequence.name}: missing; run the evaluation script again, it adds what is not there")
        else:
            findings += _check_sequence(benchmark, sequence, frames)
        bar.increment()
    bar.finish(dirty=True)
    for name in sorted(masks):
        findings.append(f"{name}: not a sequence of {benchmark.title}; remove it")
    return findings


def _sorted_into_sequences(benchmark, sequences, files):
    """({sequence: {file name: its bytes}}), and what is wrong with the folders."""
    findings, masks, lost = [], defaultdict(dict), defaultdict(int)
    top = (benchmark.folder,) if benchmark.folder else ()
    for path, content in files.items():
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts or "\\" in path:
            findings.append(f"{path}: an archive with such a path is refused by servers; pack it anew with --zip")
        elif parts[:len(top)] == top and len(parts) == len(top) + 2:
            masks[parts[-2]][parts[-1]] = content
        else:
            lost[parts[0]] += 1
    names = {sequence.name for sequence in sequences}
    expected = "/".join([*top, "SEQUENCE", "FRAME.png"])
    for part, count in sorted(lost.items()):
        if part in ("__MACOSX", ".DS_Store") or part.startswith("."):
            findings.append(f"{part}: hidden files of your computer; pack the archive anew with --zip")
        elif part in names:
            findings.append(f"{part}: {count} files where {expected} is expected; put the sequences into "
                            f"{top[0] if top else 'the top folder'}")
        else:
            findings.append(f"{part}: {count} files where {expected} is expected; remove that folder level, "
                            "or pack with --zip")
    return findings, dict(masks)


def _check_sequence(benchmark, sequence, files):
    name = sequence.name
    firsts = _first_masks(benchmark, sequence)
    frames = [file.stem for file in sequence.frames]
    strangers = sorted(firsts.keys() - set(frames))
    if strangers:
        raise InputError(f"{sequence.masks[strangers[0]]}: no frame has this mask's name")
    start = frames.index(min(firsts))
    asked = [frame for frame in frames[start:] if sequence.wanted is None or frame in sequence.wanted]
    expected = {f"{frame}.png" for frame in asked}
    findings = []
    for what, those, advice in (
        ("missing", expected - files.keys(), "run the evaluation script again after removing the sequence's folder"),
        ("not asked for", files.keys() - expected, "remove them; names are those of the frames, with .png"),
    ):
        if those:
            several = f" and {len(those) - 1} more" if len(those) > 1 else ""
            findings.append(f"{name}/{min(those)}{several}: {what}; {advice}")
    size = image_size(sequence.frames[0])
    known, seen, anything = set(), set(), False
    for frame in frames[start:]:
        known |= firsts.get(frame, set())
        content = files.get(f"{frame}.png")
        if content is None:
            continue
        problem, ids = _check_mask(benchmark, content, size)
        if problem:
            findings.append(f"{name}/{frame}.png: {problem}")
            continue
        anything = anything or bool(ids)
        for strange in sorted(ids - known - seen):
            seen.add(strange)
            late = any(strange in later for later in firsts.values())
            why = "which has its first mask only later" if late else "which no first mask has"
            findings.append(f"{name}/{frame}.png: object {strange}, {why}; keep the ids of the given masks")
    if not anything and not findings:
        findings.append(f"{name}: all masks are empty; was the right checkpoint used?")
    return findings


def _first_masks(benchmark, sequence):
    """{frame: ids that have their first mask there}."""
    firsts, known = {}, set()
    for frame, file in sequence.masks.items():
        ids = set(np.unique(read_mask(file)).tolist()) - {0}
        if benchmark.binary and ids:
            ids = {1}
        if ids - known:
            firsts[frame] = ids - known
            known |= ids
    if not firsts:
        raise InputError(f"{sequence.name}: no object in its masks")
    return firsts


def _check_mask(benchmark, content, size):
    """(what is wrong, ids)."""
    try:
        with Image.open(io.BytesIO(content())) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error,
            Image.DecompressionBombError) as error:
        return f"cannot be read ({error}); run the evaluation script again", set()
    if image.format != "PNG":
        return f"is a {image.format}, which changes ids; write PNG", set()
    if image.size != size:
        return f"has {pixels(image.size)} pixels, the frame {pixels(size)}; write masks at the frames' size", set()
    wanted = "L" if benchmark.binary else "P"
    if image.mode != wanted:
        kind = "a grey PNG of 0 and 255" if benchmark.binary else "an indexed PNG"
        return f"is of mode {image.mode}; write {kind} (mode {wanted})", set()
    ids = set(np.unique(np.asarray(image)).tolist()) - {0}
    if benchmark.binary:
        if ids - {255}:
            return f"holds the value {min(ids - {255})}; one object is written as 0 and 255", set()
        ids = {1} if ids else set()
    return None, ids


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
