"""Export masks: one pass over a video's masks and frames for all formats."""

import contextlib
import os
import shutil
from pathlib import Path

from exporting.formats import FORMATS
from exporting.masked_video import MANIFEST, PROJECT, MaskedVideo, find_sources, read_names
from util.errors import InputError
from util.files import atomic_path, flush, is_of_the_system, lock_folder, name_errors, read_json, write_json
from util.notices import tell
from util.pipeline import prefetch
from util.progress import progress_bar

TEMPORARY = ".exports.part"
"""The folder in which exports are written until they are whole."""


def export_folder(folder, settings):
    """Export all masks in a folder as `settings` (ExportSettings) say, and print what was written where.

    Raises InputError if something is missing or cannot be used. A video's exports are then as they were before.
    """
    sources = find_sources(folder, settings.video)
    if settings.output is None and (sources[0].summary or (Path(folder) / PROJECT).is_file()):
        places = [source.home / "export" for source in sources]
    else:
        output = Path(settings.output or f"{Path(folder).absolute()}_export")
        places = [output / source.name for source in sources] if len(sources) > 1 else [output]
    for source, place in zip(sources, places, strict=True):
        check_formats(settings.format, source.missing)
        refuse_targets(place, settings)
    for source, place in zip(sources, places, strict=True):
        export_video(source, place, settings)


def check_formats(names, missing):
    """Raise InputError if a format needs frames. missing: why there are none and what to do; "" if there are."""
    for name in names:
        if missing and FORMATS[name].frames == "needed":
            raise InputError(f"{name} needs the video's frames; {missing}")


def refuse_targets(output, settings):
    """Raise InputError if an export is there already, and may not be replaced."""
    ours = list_exports(output)
    for path in export_targets(output, settings.format):
        if path.exists() and path not in ours:
            raise InputError(f"{path}: not written by an export; choose another --output")
        if path.exists() and not settings.overwrite:
            raise InputError(f"{path}: is there already; choose another --output, or replace it with --overwrite")
        if path.is_dir():
            listed = set(_read_listing(path))
            others = [name for name in _list_files(path) if name not in listed and not is_of_the_system(name)]
            if others:
                raise InputError(f"{path / others[0]}: not written by an export; move it away, or choose another "
                                 "--output")


def export_targets(output, names):
    """The paths that exports to formats of these names have in a folder."""
    return [output / FORMATS[name].target for name in names]


def list_exports(output):
    """The paths of the exports that are in a folder."""
    return [output / target for target in _read_manifest(output) if (output / target).exists()]


def export_video(source, output, settings):
    """Export one video's masks (a Source) into the folder `output`."""
    formats = {name: FORMATS[name] for name in dict.fromkeys(settings.format)}
    video = MaskedVideo(source, settings, read_names(source, settings.names),
                        with_frames=any(row.frames != "unused" for row in formats.values()))
    with lock_folder(output):
        refuse_targets(output, settings)
        temporary = output / TEMPORARY
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            remarks = _write(video, formats, temporary)
            _move(source, formats, temporary, output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    for name, row in formats.items():
        print(f"wrote {video.count} frames of {video.name} as {name} to {output / row.target}")
    for name, row in formats.items():
        if row.frames == "useful" and not video.has_frames:
            remarks.append(f"{name}: without the images of the frames; {source.missing}")
        if row.numbered and video.guessed:
            remarks.append(f"{name}: {video.guessed}; say with --video where the video is, to be sure")
        if not row.soft and (settings.feather or settings.soft):
            remarks.append(f"{name}: has hard edges; --feather and --soft do nothing to it")
    tell(remarks + video.remarks)


def _write(video, formats, folder):
    """Write all formats into a folder; return sentences about what they could not hold."""
    writers, remarks = {}, []
    with contextlib.ExitStack() as running:
        for name, row in formats.items():
            writers[name] = writer = _name_errors(row.write(folder / row.target, video), folder.with_name(row.target))
            running.callback(writer.close)
            next(writer)
        bar = progress_bar(video.length, f"exporting {video.name}")
        try:
            # Frames are decoded, and masks read, while others are written.
            for frame in prefetch(video):
                for writer in writers.values():
                    writer.send(frame)
                bar.increment()
        finally:
            bar.finish(dirty=True)
        for name, writer in writers.items():
            try:
                writer.send(None)
            except StopIteration as end:
                remarks += [f"{name}: {remark}" for remark in end.value]
    return remarks


def _name_errors(writer, path):
    """The same writer; errors of the operating system that name no file, such as a full disk, name `path`."""
    with name_errors(path):
        return (yield from writer)


def _move(source, formats, temporary, output):
    """Give finished exports their names, in place of earlier ones."""
    targets = [row.target for row in formats.values()]
    # Before: after a kill in between, the next run still knows what it may replace.
    write_json(output / MANIFEST, {**_read_manifest(output), **{target: str(source.masks) for target in targets}})
    for target in targets:
        path, new = output / target, temporary / target
        if new.is_dir():
            files = _list_files(new)
            flush(new / file for file in files)
        else:
            flush([new])
        if path.is_dir() and not path.is_symlink():
            _remove_folder(path)
        if new.is_dir():
            with atomic_path(_listing_of(path)) as listing:
                # As bytes: a name of a file need not be text.
                listing.write_bytes(b"".join(os.fsencode(f"{file}\n") for file in files))
        new.replace(path)


def _list_files(folder):
    """The files in a folder and the folders in it, as paths from it."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    # As text: a path takes five times the memory, and there is one for each frame.
    return sorted(str(path.relative_to(folder)) for path in paths)


def _listing_of(folder):
    """The file beside an export that is a folder that lists its files, one a line."""
    return folder.with_name(f".{folder.name}.files")


def _read_listing(folder):
    listing = _listing_of(folder)
    return os.fsdecode(listing.read_bytes()).splitlines() if listing.exists() else []


def _remove_folder(folder):
    """Remove an earlier export that is a folder: the files that it has listed, those that systems leave in folders, and
    the folders that are then empty."""
    for name in [*_read_listing(folder), *filter(is_of_the_system, _list_files(folder))]:
        (folder / name).unlink(missing_ok=True)
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        path.rmdir()
    folder.rmdir()


def _read_manifest(output):
    """{target: the folder of masks it was made from} of the exports in a folder."""
    try:
        return dict(read_json(output / MANIFEST))
    except (InputError, ValueError, TypeError):
        return {}
