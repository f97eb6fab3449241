"""Read the list of videos of track_many.py, and check all of it before anything is computed."""

import argparse
import csv
import dataclasses
import io
import json
import mimetypes
import os
import re
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runs.addresses import describe, fetch, is_address, join
from util.decoding import find_stream, open_container, public_name
from util.errors import InputError, name_a_few
from util.files import is_hidden, read_text
from util.hyper_para import TrackingSettings, VideoSettings, check_directions
from util.image_io import is_image, natural
from util.notices import tell
from util.options import OptionParser, plain_name, settings_from

OURS = ("videos.csv", "videos.parquet", "index.html")
"""Names in the folder of results that no video may have."""

PLURALS = {"masks": "mask", "clicks": "click", "boxes": "box", "exports": "export"}
"""Names that a column may have beside that of its option."""

OF_THE_RUN = ("output", "resume", "overwrite")
"""Options of track.py that a row cannot have: they hold for all videos."""

FOR_A_ROW = ("mode", "mem_every", "include_last", "top_k", "size", "places")
"""Options of TrackingSettings that a row can have. The others, such as --model, are opened once for all videos."""

YES, NO = ("true", "yes", "1"), ("", "false", "no", "0")
"""What a cell says of a switch."""

CHECKING_THREADS = 16
"""So many files are looked at at once: most of the time is spent waiting for disks and servers."""

TEN_SECONDS = 250
"""Frames of a video of which nothing is known."""

SHOWN_PROBLEMS = 10
"""So many rows that cannot be used are shown."""


@dataclass(frozen=True)
class Row:
    """A video of the list, with its options."""

    name: str
    """Of its folder of results."""

    job: VideoSettings
    """Its `output` is not yet that of this video."""

    tracking: TrackingSettings

    frames: int = 0
    """About how many it has, as the file's header says; 0 if that is not known."""

    inputs: tuple = ()
    """What changes when one of its files does."""

    def identity(self, weights):
        """What must be the same if results are to be those of this row. weights: SHA-256 of the network's file."""
        job, tracking = dataclasses.asdict(self.job), dataclasses.asdict(self.tracking)
        left_out = ("output", "resume", "overwrite", "model", "device", "threads", "compile")
        options = {name: value for name, value in {**job, **tracking}.items() if name not in left_out}
        return json.loads(json.dumps({**options, "inputs": self.inputs, "weights": weights}))


def read_manifest(path, tracking, results):
    """Return the Rows of a list of videos.

    path: a file CSV (.csv, .tsv), JSON lines (.jsonl) or Parquet (.parquet), local or with an address, or a folder that
    holds NAME.mp4 beside NAME.png or NAME/. Paths in a file are relative to it. tracking, results: TrackingSettings and
    VideoResultSettings that hold where a row does not say otherwise.

    Raises InputError if the list or any of its rows cannot be used; the rows are told on standard error.
    """
    if not is_address(path) and Path(path).is_dir():
        base, cells = "", _read_folder(Path(path).absolute())
    else:
        base = path.rpartition("/")[0] if is_address(path) else str(Path(path).absolute().parent)
        cells = _read_file(path)
    parser = _RowParser(tracking, results)
    rows, problems, places = [], [], {}
    for place, row in cells:
        try:
            row = parser.read(row, base)
        except InputError as error:
            problems.append(f"{place}: {error}")
            continue
        if row.name in places:
            problems.append(f"{place}: its name is {row.name}, as that of {places[row.name]}; give each video a name "
                            "of its own in the column name")
        places[row.name] = place
        rows.append(row)
    with ThreadPoolExecutor(CHECKING_THREADS) as pool:
        found = list(pool.map(_look_at_files, rows))
    problems += [f"{places[row.name]}: {inputs}" for row, inputs in zip(rows, found, strict=True)
                 if isinstance(inputs, InputError)]
    _refuse(problems, path)
    if not rows:
        raise InputError(f"{public_name(str(path))}: no video is in this list")
    return [dataclasses.replace(row, inputs=inputs) for row, inputs in zip(rows, found, strict=True)]


def _refuse(problems, path):
    """Raise InputError if there are problems, and show the first ones."""
    if not problems:
        return
    if len(problems) > 1:
        tell(problems[:SHOWN_PROBLEMS])
        more = f"; the first {SHOWN_PROBLEMS} are shown above" if len(problems) > SHOWN_PROBLEMS else ""
        raise InputError(f"{public_name(str(path))}: {len(problems)} rows cannot be used{more}; nothing was computed")
    raise InputError(problems[0])


def count_frames(rows):
    """Return the Rows with the number of frames that their videos' headers say."""
    with ThreadPoolExecutor(CHECKING_THREADS) as pool:
        counts = list(pool.map(_count_frames, rows))
    usual = int(statistics.median([count for count in counts if count] or [TEN_SECONDS]))
    # Of a file that is not here yet, nothing is known but that it is there.
    return [dataclasses.replace(row, frames=usual if is_address(row.job.video[0]) else count)
            for row, count in zip(rows, counts, strict=True)]


def _look_at_files(row):
    """Return what changes with each of a row's files, or the InputError if one is not there."""
    try:
        masks = [split_mask(value)[1] for value in row.job.mask or ()]
        return tuple(describe(path) for path in [*row.job.video, *masks])
    except InputError as error:
        return error


def _count_frames(row):
    """About how many frames a row's video has; 0 if that is not known."""
    first = row.job.video[0]
    if is_address(first):
        return 0
    if len(row.job.video) > 1:
        return len(row.job.video)
    if Path(first).is_dir():
        return sum(is_image(file) for file in Path(first).iterdir())
    try:
        with open_container(first) as container:
            stream = find_stream(container, first)
            seconds = float(container.duration or 0) / 1e6
            return stream.frames or int(seconds * (stream.average_rate or 0))
    except InputError:
        # Tracking says what is wrong with it.
        return 0


def split_mask(value, base=""):
    """Return (what comes before, path or address, what comes behind) for a value of --mask: a path, FRAME: and :ID.

    base: the folder that a path is relative to. A local path is looked for; where nothing is found, the whole value is
    the path.
    """
    if is_address(value) or is_address(base):
        pattern = r"((?:[^/\\:]+:(?!//))?)(.+?)((?::\d+)?)"
        before, path, behind = re.fullmatch(pattern, value, re.DOTALL).groups()
        return before, join(base, path), behind
    for pattern in (r"()(.+)()", r"([^/\\:]+:)(.+)()", r"()(.+)(:\d+)", r"([^/\\:]+:)(.+)(:\d+)"):
        found = re.fullmatch(pattern, value, re.DOTALL)
        # Unlike Path.exists, it takes names that no file can have.
        if found and os.path.exists(join(base, found[2])):
            return found[1], join(base, found[2]), found[3]
    return "", join(base, value), ""


class _RowParser(OptionParser):
    """Reads the cells of a row as track.py reads its command line."""

    def __init__(self, tracking, results):
        super().__init__("", "")
        self.add_settings(VideoSettings)
        self.add_settings(TrackingSettings)
        self.set_defaults(**{**dataclasses.asdict(tracking), **dataclasses.asdict(results)})
        fields = [*(field for field in dataclasses.fields(VideoSettings) if field.name not in OF_THE_RUN),
                  *(field for field in dataclasses.fields(TrackingSettings) if field.name in FOR_A_ROW)]
        self._columns = {(field.metadata["names"] or [field.name])[0].replace("_", "-"): field for field in fields}

    def error(self, message):
        raise InputError(message)

    def read(self, cells, base):
        """Return the Row of {column: text, list or None}. Raises InputError."""
        words, switches, name = [], {}, None
        for column, value in cells.items():
            column = str(column).strip().lower().replace("_", "-")
            column = PLURALS.get(column, column)
            values = _list_values(value)
            if column == "name":
                name = values[0] if values else None
                continue
            field = self._columns.get(column)
            if field is None:
                raise InputError(f"there is no column {column}; the columns are name, {', '.join(self._columns)}")
            if isinstance(field.default, bool):
                switches[field.name] = _read_switch(column, values)
            elif column == "video":
                words += ["--video", *(join(base, text) for text in values)] if values else []
            elif column == "mask":
                words += ["--mask", *("".join(split_mask(text, base)) for text in values)] if values else []
            elif field.metadata.get("nargs"):
                words += [f"--{column}", *values] if values else []
            elif values:
                words.append(f"--{column}={values[0]}")
        args = self.parse_args(words)
        vars(args).update(switches)
        job, tracking = settings_from(VideoSettings, args), settings_from(TrackingSettings, args)
        if not job.video:
            raise InputError("there is no video in this row")
        if not (job.mask or job.click or job.box):
            raise InputError(f"{public_name(job.video[0])}: there are no masks, clicks or boxes that show its objects")
        check_directions(job)
        return Row(_check_name(name or _name_video(job.video)), job, tracking)


def _list_values(value):
    """The texts in a cell, without blank ones. In a text, they are separated by ";"."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [text for item in value if (text := str(item)).strip()]
    return [text.strip() for text in str(value).split(";") if text.strip()]


def _read_switch(column, values):
    text = " ".join(values).lower()
    if text not in YES + NO:
        raise InputError(f"{column}: {text} was found, true or false was expected")
    return text in YES


def _name_video(video):
    """The name of a video that has none: that of its file or folder."""
    path = video[0].rstrip("/").rpartition("/")[2] if is_address(video[0]) else Path(video[0]).absolute()
    return Path(path).stem if len(video) == 1 else Path(path).parent.name


def _check_name(name):
    try:
        plain_name(name)
    except argparse.ArgumentTypeError:
        raise InputError(f"name {name}: a name without slashes was expected") from None
    if is_hidden(name) or name in OURS:
        raise InputError(f"name {name}: no folder of results can have this name; give another one in the column name")
    return name


def _read_folder(folder):
    """Yield (place, cells) for the videos in a folder."""
    left_out = []
    for video in sorted((path for path in folder.iterdir() if not is_hidden(path.name)),
                        key=lambda path: natural(path.name)):
        if video.is_dir() or is_image(video):
            continue
        masks = [path for path in (video.with_suffix(".png"), video.with_suffix("")) if path.exists()]
        kind = mimetypes.guess_type(video.name)[0] or "video"
        if masks or kind.startswith("video"):
            yield folder, {"video": [str(video)], "masks": [str(path) for path in masks[:1]], "name": video.stem}
        else:
            left_out.append(video.name)
    if left_out:
        tell([f"{folder}: {name_a_few(left_out)}: no video, and left out"])


def _read_file(path):
    """Yield (place, cells) for the rows of a file."""
    suffix = Path(str(path)).suffix.lower()
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_json_lines, ".ndjson": _read_json_lines,
               ".parquet": _read_parquet}
    if suffix not in readers:
        raise InputError(f"{public_name(str(path))}: a list of videos in a file ends in {', '.join(readers)}; or give "
                         "a folder")
    with tempfile.TemporaryDirectory() as temporary:
        local = fetch(path, temporary) if is_address(path) else path
        for number, cells in readers[suffix](local):
            yield f"{public_name(str(path))}, {number}", cells


def _read_csv(path):
    text = read_text(path)
    header = text.partition("\n")[0]
    # Spreadsheets separate by a comma or, where that is in numbers, by a semicolon.
    delimiter = max(",;\t", key=header.count)
    for cells in (reader := csv.DictReader(io.StringIO(text), delimiter=delimiter)):
        if None in cells:
            raise InputError(f"{path}, line {reader.line_num}: has more cells than the first line, which names the "
                             "columns; put a text with a separator in it into quotes")
        yield f"line {reader.line_num}", cells


def _read_json_lines(path):
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                cells = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: not JSON ({error})") from None
            if not isinstance(cells, dict):
                raise InputError(f"{path}, line {number}: an object was expected, like {{\"video\": \"clip.mp4\", "
                                 "\"masks\": [\"mask.png\"]}}")
            yield f"line {number}", cells


def _read_parquet(path):
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{path}: reading Parquet takes the package pyarrow (pip install pyarrow); or give the list "
                         "as CSV or JSON lines") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file, or damaged ({str(error).splitlines()[0]})") from None
    for number, cells in enumerate(table.to_pylist(), 1):
        yield f"row {number}", cells
