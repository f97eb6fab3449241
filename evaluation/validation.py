"""Score a network in training on DAVIS 2017's validation set, without writing files."""

import numpy as np

from dataset.evaluation_sets import EVALUATION_SETS
from evaluation.measures import boundary_f, jaccard
from inference_core import InferenceCore, track_frames
from inference_core.sizes import pick_size
from inference_core.tracking import name_objects
from util.errors import InputError
from util.image_io import image_size, read_mask
from util.mask_rule import VOID
from util.progress import progress_bar
from util.video import ImageFrames


def check_validation(davis_path):
    """Raise InputError if a training cannot be validated on the DAVIS at `davis_path`.

    Each video needs objects in its first mask, and a frame between the first and the last one, with a mask.
    """
    cure = "; mend that, or leave out --val-davis"
    for video in EVALUATION_SETS["davis17"].find(davis_path, "val"):
        first = next(iter(video.masks.values()))
        if len(video.frames) < 3:
            raise InputError(f"{video.frames[0].parent}: holds {len(video.frames)} frames, and a validation scores "
                             f"those between the first and the last{cure}")
        for frame in video.frames[1:-1]:
            if not (mask := first.with_name(f"{frame.stem}.png")).exists():
                raise InputError(f"{mask}: this mask is missing, and a validation needs the masks of all frames{cure}")
        if not read_mask(first, image_size(video.frames[0])).any():
            raise InputError(f"{first}: holds no object to track{cure}")


def validate(network, davis_path, *, amp=False, lines=None):
    """Return what `score` does of the validation set of the DAVIS at `davis_path`.

    lines: the frames' shorter side, in pixels, that is computed at; 0 is the frames' own, None that of eval_davis.py.
    """
    davis = EVALUATION_SETS["davis17"]
    return score(network, davis.find(davis_path, "val"), amp=amp, size=pick_size(lines, network.config, davis.size))


def score(network, videos, *, amp=False, size=None):
    """Return {"J": …, "F": …, "J&F": …}, percent: means over all objects, in the frames that DAVIS scores.

    videos: EvaluationVideos, with masks of all their frames beside the first one's. As in training, 255 in a mask says
    that it is not known what is there: such pixels do not count. amp, size: as `InferenceCore` takes them.
    """
    core = InferenceCore(network, "two-frames-compress", amp=amp, size=size)
    scores = []
    bar = progress_bar(len(videos), "validating")
    for video in videos:
        scores += _score_video(core, video)
        bar.increment()
    bar.finish(dirty=True)
    region, boundary = 100 * np.mean(scores, axis=0)
    return {"J": region, "F": boundary, "J&F": (region + boundary) / 2}


def _score_video(core, video):
    """Return [(J, F)] with one pair for each object: means over all frames but the first and the last."""
    core.reset()
    first = next(iter(video.masks.values()))
    objects, scores = [], []

    def first_mask(name, image):
        if name != first.stem:
            return None
        ids = read_mask(first, image.shape[1::-1])
        return name_objects(np.where(ids == VOID, 0, ids))

    for number, frame in enumerate(track_frames(core, ImageFrames(video.frames), first_mask)):
        if number == 0:
            objects = frame.objects
        elif number < len(video.frames) - 1:
            truth = read_mask(first.with_name(f"{frame.name}.png"), frame.image.shape[1::-1])
            found = np.where(truth == VOID, 0, frame.ids)
            pairs = [(truth == object_id, found == object_id) for object_id in objects]
            scores.append([(jaccard(*pair), boundary_f(*pair)) for pair in pairs])
    return np.mean(scores, axis=0).tolist() if scores else []
