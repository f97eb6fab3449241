"""Makes smaller copies of videos, so that training reads less."""

import shutil
import signal

import numpy as np
from PIL import Image

from util.errors import InputError
from util.files import atomic_path
from util.image_io import encode_jpeg, read_image, read_mask, read_palette, write_mask
from util.machine import computing_threads
from util.processes import map_in_processes
from util.progress import progress_bar


def resize_videos(source, target, side=480):
    """Copy source/{JPEGImages,Annotations}/VIDEO to `target`, shorter side reduced to `side`, with all cores.

    Images are resized bicubically (to JPEG of quality 95), masks by nearest neighbour, with their palette; none is
    enlarged. Files that are there already stay as they are. Returns how many files there are now. Raises InputError
    that names an unreadable file, after all others are done, and if a process is killed.
    """
    folders = [path for kind in ("JPEGImages", "Annotations") for path in sorted((source / kind).iterdir())
               if path.is_dir()]
    count, failures = 0, []
    bar = progress_bar(len(folders), f"resizing {source}")
    jobs = [(path, target / path.relative_to(source), side) for path in folders]
    try:
        # The processes are not forked, since the parent may have threads.
        for done, failed in map_in_processes(_resize_folder, jobs, computing_threads(), "spawn", _ignore_interrupts):
            count += done
            failures += failed
            bar.increment()
    finally:
        bar.finish(dirty=True)
    if failures:
        raise InputError(f"{min(failures)}; {len(failures)} of {count + len(failures)} files could not be resized")
    return count


def _ignore_interrupts():
    # Ctrl-C reaches every process; the parent then begins no further folder.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _resize_folder(job):
    """Resize one folder of images or masks. Returns how many are done, and a message for each of the others.

    job: (source folder, target folder, length of the shorter side).
    """
    source, target, side = job
    suffix, resize = (".png", _resize_mask) if source.parent.name == "Annotations" else (".jpg", _resize_image)
    target.mkdir(parents=True, exist_ok=True)
    count, failures = 0, []
    for path in sorted(source.glob(f"[!.]*{suffix}")):
        try:
            if not (target / path.name).exists():
                resize(path, target / path.name, side)
            count += 1
        except InputError as error:
            failures.append(str(error))
    return count, failures


def _resize_image(source, target, side):
    image = Image.fromarray(read_image(source))
    with atomic_path(target, flushed=False) as temporary:
        if min(image.size) <= side:
            shutil.copyfile(source, temporary)
        else:
            reduced = image.resize(_reduced(image.size, side), Image.Resampling.BICUBIC)
            temporary.write_bytes(encode_jpeg(reduced))


def _resize_mask(source, target, side):
    ids = Image.fromarray(read_mask(source))
    if min(ids.size) > side:
        ids = ids.resize(_reduced(ids.size, side), Image.Resampling.NEAREST)
    write_mask(target, np.asarray(ids), read_palette(source))


def _reduced(size, side):
    return tuple(round(length * side / min(size)) for length in size)
