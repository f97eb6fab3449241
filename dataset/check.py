"""Check training data before training starts, and report all faults together."""

import os
from concurrent.futures import ThreadPoolExecutor

from util.errors import InputError, pixels
from util.image_io import image_size, mask_size, read_grey, read_image, read_mask
from util.notices import list_notices, tell
from util.progress import progress_bar


def check_data(pairs=(), videos=(), thorough=True, threads=8):
    """Raise one InputError that names all files which training could not use. Return the number of checked images.

    Faults are missing masks, masks of another size than their image, frames of another size than the first one of their
    video, and unreadable images and masks.

    pairs, videos: Pairs and TrainingVideos of dataset.training_sets. thorough: decode every file. Otherwise only check
    that every mask exists, and compare the sizes in the headers of all pairs and of each video's first frame, which is
    fast enough to do before every training. threads: number of threads that read files.
    """
    # List the images to check. Videos with missing masks are reported here.
    pairs, videos = list(dict.fromkeys(pairs)), list(dict.fromkeys(videos))
    faults = []
    work = [(pair.image, pair.mask, None) for pair in pairs]
    for video in videos:
        masks = set(os.listdir(video.annotations)) if video.annotations.is_dir() else set()
        found, missing = [], []
        for index, frame in enumerate(video.frames):
            (found if f"{os.path.splitext(frame)[0]}.png" in masks else missing).append(index)
        faults += [f"{video.mask(index)}: this mask is missing" for index in missing]
        work += [(video.image(index), video.mask(index), video.image(0))
                 for index in (found if thorough else found[:1])]

    def find_any_fault(item):
        try:
            return _find_fault(*item, thorough, notices)
        except InputError as error:
            return str(error)

    # Check them in threads.
    notices = []
    bar = progress_bar(len(work), "checking")
    try:
        with ThreadPoolExecutor(threads) as pool:
            for fault in pool.map(find_any_fault, work):
                faults += [fault] if fault else []
                bar.increment()
    finally:
        bar.finish(dirty=True)

    tell(list_notices(sorted(notices)))

    # The first line is what scripts print; all faults follow.
    if faults:
        faults.sort()
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise InputError("\n".join([f"training data: {faults[0]}{more}", *faults]))
    return len(work)


def _find_fault(image, mask, first, thorough, notices):
    """Return a sentence about what is wrong with one image or its mask, or None.

    first: the first frame of the video that the image is from, None for an image alone. notices: see `read_mask`.
    Raises InputError if a file cannot be read.
    """
    if not mask.exists():
        return f"{mask}: this mask is missing"
    if thorough:
        values = read_mask(mask, colours={}, notices=notices) if first else read_grey(mask)
        sizes = read_image(image).shape[1::-1], values.shape[::-1]
        if first and image_size(first) != sizes[0]:
            return f"{image}: the frame has {pixels(sizes[0])} pixels, the first one {pixels(image_size(first))}"
    else:
        sizes = image_size(image), mask_size(mask)
    if sizes[0] != sizes[1]:
        return f"{mask}: the mask has {pixels(sizes[1])} pixels, the image {pixels(sizes[0])}"
    return None
