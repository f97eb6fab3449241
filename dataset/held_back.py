"""The last part of each clip, from which a fine-tuning does not learn: it is scored on it."""

import dataclasses

from dataset.evaluation_sets import EvaluationVideo
from dataset.training_sets import count_object_pixels, find_videos
from util.errors import InputError
from util.image_io import read_mask

SHARE = 0.25
"""The share of a clip's frames that is held back."""

FEWEST = 3
"""So many frames are scored at least: the first one is given, and the last one does not count, as in DAVIS."""


def find_clips(root):
    """Return (clips to learn from, TrainingVideos; clips to be scored on, EvaluationVideos) of a folder of clips.

    root: see `find_videos`. A clip is scored from the first of its held-back frames that has an object, with the
    objects that are there; a clip without such a frame is not scored. Raises InputError if there is nothing to score.
    """
    clips = find_videos(root)
    first = {clip: max(0, len(clip.frames) - max(FEWEST, round(SHARE * len(clip.frames)))) for clip in clips}
    learnt = [dataclasses.replace(clip, frames=clip.frames[:first[clip]]) for clip in clips]
    scored = [video for clip in clips if (video := _make_scored(clip, first[clip]))]
    if not scored:
        raise InputError(f"{root}: no clip has an object in the last {SHARE:.0%} of its frames, which are held back to "
                         "be scored; give clips, or masks, that reach further")
    return learnt, scored


def _make_scored(clip, first):
    """Return the EvaluationVideo of a clip's frames from number `first` on, or None if there is nothing to score."""
    for number in range(first, len(clip.frames) - FEWEST + 1):
        if count_object_pixels(read_mask(clip.mask(number), colours={})):
            frames = tuple(map(clip.image, range(number, len(clip.frames))))
            return EvaluationVideo(clip.name, frames, {frames[0].stem: clip.mask(number)})
    return None
