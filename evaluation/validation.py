"""Scores of a network in training: DAVIS 2017's validation set, tracked and scored without files."""

import numpy as np

from dataset.evaluation_sets import BENCHMARKS
from evaluation.measures import boundary_f, jaccard
from inference_core import InferenceCore
from util.errors import InputError
from util.image_io import read_image, read_mask
from util.pipeline import read_ahead
from util.progress import progress_bar


def check_validation(stage, davis_path):
    """Raises InputError where a training of this stage cannot be validated on this DAVIS."""
    if stage == 0:
        raise InputError("--val_davis is for stages 1 to 3: the network of stage 0 cannot track")
    BENCHMARKS["davis17"].find(davis_path, "val")


def validate(network, davis_path, *, amp=False):
    """{"val/J", "val/F", "val/J&F"}: means over all objects, in percent, of the frames that DAVIS scores."""
    core = InferenceCore(network, "two-frames-compress", amp=amp)
    sequences = BENCHMARKS["davis17"].find(davis_path, "val")
    scores = []
    bar = progress_bar(len(sequences), "validating")
    for sequence in sequences:
        scores += _score_sequence(core, sequence)
        bar.increment()
    bar.finish(dirty=True)
    region, boundary = 100 * np.mean(scores, axis=0)
    return {"val/J": region, "val/F": boundary, "val/J&F": (region + boundary) / 2}


def _score_sequence(core, sequence):
    """[(J, F)] of each object."""
    core.reset()
    first = next(iter(sequence.masks.values()))
    objects, scores = [], []
    for index, image in enumerate(read_ahead(read_image, sequence.frames, threads=1)):
        truth = read_mask(first.with_name(f"{sequence.frames[index].stem}.png"), image.shape[1::-1])
        if index == 0:
            core.step(image, truth)
            objects = core.objects
        elif index < len(sequence.frames) - 1:
            ids = core.to_mask(core.step(image)).cpu().numpy()
            scores.append([(jaccard(truth == known, ids == known), boundary_f(truth == known, ids == known))
                           for known in objects])
    return np.mean(scores, axis=0).tolist() if scores else []
