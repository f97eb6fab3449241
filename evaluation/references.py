"""Measure what further references are worth: J&F of DAVIS 2017 with the masks of one, two and three frames.

    python evaluation/references.py --davis-path DAVIS/2017 --amp

The masks are those of the first frame alone; of the first and the middle one; of the first and the last one; of all
three. They are given before tracking begins, the first frame's at last. Scored are the frames in between, and always
the same: all but these three. Where an object is not in such a frame, the nearest frame with all objects is taken.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from dataset.evaluation_sets import EVALUATION_SETS
from evaluation.measures import boundary_f, jaccard
from evaluation.tables import print_table
from inference_core import InferenceCore, open_network
from util.errors import run_script
from util.hyper_para import DAVIS_FOLDER, OptionParser, TrackingSettings, settings_from
from util.image_io import read_image, read_mask
from util.progress import progress_bar

GIVEN = {"first": (), "first, middle": (0.5,), "first, last": (1,), "all three": (0.5, 1)}
"""{name: where the frames lie whose masks are given besides the first one's, 1 is the last frame}."""


def get_args_parser():
    parser = OptionParser("references.py", __doc__)
    parser.add_argument("--davis-path", required=True, metavar="FOLDER", help=DAVIS_FOLDER)
    parser.add_settings(TrackingSettings, "tracking")
    return parser


def main(args):
    tracking = settings_from(TrackingSettings, args)
    videos = EVALUATION_SETS["davis17"].find(args.davis_path, "val")
    core = InferenceCore(open_network(tracking), **tracking.core(), size=tracking.size or None)
    rows, scores = [], {name: [] for name in GIVEN}
    bar = progress_bar(len(videos) * len(GIVEN), "measuring")
    for video in videos:
        found = {}
        for name, shares in GIVEN.items():
            objects = score_video(core, video, shares)
            scores[name] += objects
            found[name] = f"{np.mean(objects):.1f}"
            bar.increment()
        rows.append([video.name, *found.values()])
    bar.finish(dirty=True)
    rows.append(["mean of all objects", *(f"{np.mean(objects):.2f}" for objects in scores.values())])
    print_table(["video", *GIVEN], rows)


def score_video(core, video, shares):
    """Return [J&F in percent] with one mean for each object. shares: as in GIVEN."""
    folder = next(iter(video.masks.values())).parent
    truth = [read_mask(folder / f"{frame.stem}.png") for frame in video.frames]
    objects = sorted(set(np.unique(truth[0]).tolist()) - {0})
    whole = [index for index, mask in enumerate(truth) if np.isin(objects, mask).all()]

    def find_frame(share):
        return min(whole, key=lambda index: abs(index - round(share * (len(truth) - 1))))

    core.reset()
    given = {0, *map(find_frame, shares)}
    for index in sorted(given - {0}, reverse=True):
        core.step(read_image(video.frames[index]), truth[index], objects, frame=index)
    not_scored = {0, find_frame(0.5), find_frame(1), len(truth) - 1}
    scores = []
    for index, file in enumerate(video.frames):
        mask = (truth[index], objects) if index in given else ()
        prob = core.step(read_image(file), *mask, frame=index, needs_output=index not in not_scored)
        if index not in not_scored:
            ids = core.to_mask(prob).cpu().numpy()
            pairs = [(truth[index] == object_id, ids == object_id) for object_id in objects]
            scores.append([50 * (jaccard(*pair) + boundary_f(*pair)) for pair in pairs])
    return np.mean(scores, axis=0).tolist()


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
