"""Looking at every file of a training set before the training does."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dataset.training_sets import Pair
from util.errors import InputError, pixels
from util.image_io import read_image, read_mask
from util.progress import progress_bar

THREADS = 4


def check_data(data):
    """Decode every image and mask of a list of Pairs or Videos, each once.

    Raises InputError if a file is missing or damaged, a mask has another size than its image, or holds 255 where ids
    are expected: how many, and each of them.
    """
    pairs = {pair: None for item in data for pair in ([item] if isinstance(item, Pair) else _pairs_of(item))}
    ids_expected = not data or not isinstance(data[0], Pair)
    bar = progress_bar(len(pairs), "checking")
    problems = []
    with ThreadPoolExecutor(THREADS) as pool:
        for problem in pool.map(lambda pair: _problem(pair, ids_expected), pairs):
            bar.increment()
            if problem:
                problems.append(problem)
    bar.finish(dirty=True)
    if problems:
        raise InputError(f"{len(problems)} of {len(pairs)} files cannot be trained on: {'; '.join(problems)}")


def _pairs_of(video):
    return [Pair(video.image(index), video.mask(index)) for index in range(len(video.frames))]


def _problem(pair, ids_expected):
    """What is wrong with an image and its mask, or None."""
    try:
        image = read_image(pair.image)
        mask = read_mask(pair.mask)
    except InputError as error:
        return str(error)
    if mask.shape != image.shape[:2]:
        return f"{pair.mask}: {pixels(mask.shape[::-1])} pixels, its image {pixels(image.shape[1::-1])}"
    if ids_expected and np.any(mask == 255):
        return f"{pair.mask}: holds 255, which is no object"
    return None
