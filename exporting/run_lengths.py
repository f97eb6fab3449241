"""Masks as lengths of runs, which begin with one of background: COCO's and SA-V's by columns, CVAT's by rows."""

import numpy as np


def count_runs(values):
    """The lengths of the runs of 0 and 1 in a flat array, beginning with 0, whose run may be empty."""
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(values)]])).tolist()
    return [0, *runs] if values[0] else runs


def expand_runs(runs, length):
    """The flat uint8 array of 0 and 1 that `count_runs` has counted. Raises ValueError if it has another length."""
    runs = np.asarray(runs, np.int64)
    if (runs < 0).any() or runs.sum() != length:
        raise ValueError(f"its runs cover {runs.sum()} pixels, not {length}")
    return np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)


def encode_coco(mask, size):
    """COCO's compressed run lengths of an ObjectMask in a frame of `size`, (width, height)."""
    width, height = size
    left, top, columns, rows = mask.box
    # Only the box's columns, in their whole height.
    part = np.zeros((columns, height), np.uint8)
    part[:, top:top + rows] = mask.pixels.T
    runs = count_runs(part.ravel())
    runs[0] += left * height
    after = (width - left - columns) * height
    if len(runs) % 2:
        runs[-1] += after
    elif after:
        runs.append(after)
    return {"size": [height, width], "counts": compress(runs)}


def decode_coco(code):
    """uint8 H×W of what COCO's run lengths, compressed or as a list, say. Raises ValueError, LookupError, TypeError."""
    height, width = code["size"]
    counts = code["counts"]
    runs = decompress(counts) if isinstance(counts, str) else counts
    return expand_runs(runs, height * width).reshape(width, height).T


def compress(runs):
    """pycocotools' text of run lengths.

    From the fourth run on it has the difference to the run two before; a number is in pieces of five bits, the lowest
    first, each a character from "0" on, of which bit 32 says that another one follows.
    """
    text = []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            piece = value & 31
            value >>= 5
            more = value != (-1 if piece & 16 else 0)
            text.append(chr(48 + piece + 32 * more))
    return "".join(text)


def decompress(text):
    """The run lengths in pycocotools' text."""
    runs, value, shift = [], 0, 0
    for letter in text:
        piece = ord(letter) - 48
        value |= (piece & 31) << shift
        shift += 5
        if not piece & 32:
            if piece & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value, shift = 0, 0
    return runs
