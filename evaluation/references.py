"""Measure what further references are worth: J&F of DAVIS 2017 with the masks of one, two and three frames.

    python evaluation/references.py --davis-path DAVIS/2017 --amp

The masks are those of the first frame alone; of the first and the middle one; of the first and the last one; of all
three. They are given before tracking begins, the first frame's at last. Scored are the frames in between, and always
the same: all but these three. Where an object is not in such a frame, the nearest frame with all objects is taken.
With --both-ways, videos are tracked as `track.py --both-ways` does it.
"""

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from dataset.evaluation_sets import EVALUATION_SETS
from evaluation.measures import boundary_f, jaccard
from evaluation.tables import print_table
from inference_core import InferenceCore, open_network
from inference_core.both_ways import track_both_ways
from inference_core.sizes import pick_size
from util.errors import run_script
from util.hyper_para import DAVIS_FOLDER, TrackingSettings
from util.image_io import read_image, read_mask
from util.options import OptionParser, settings_from
from util.progress import progress_bar
from util.video import ImageFrames

GIVEN = {"first": (), "first, middle": (0.5,), "first, last": (1,), "all three": (0.5, 1)}
"""{name: where the frames lie whose masks are given besides the first one's, 1 is the last frame}."""


def get_args_parser():
    parser = OptionParser("references.py", __doc__)
    parser.add_argument("--davis-path", required=True, metavar="FOLDER", help=DAVIS_FOLDER)
    parser.add_argument("--both-ways", action="store_true",
                        help="track between two masks from both (default: towards the end)")
    parser.add_settings(TrackingSettings, "tracking")
    return parser


def main(args):
    tracking = settings_from(TrackingSettings, args)
    videos = EVALUATION_SETS["davis17"].find(args.davis_path, "val")
    network = open_network(tracking)
    core = InferenceCore(network, **tracking.core(), size=pick_size(tracking.size, network.config, None))
    rows, scores = [], {name: [] for name in GIVEN}
    bar = progress_bar(len(videos) * len(GIVEN), "measuring")
    for video in videos:
        found = {}
        for name, shares in GIVEN.items():
            objects = score_video(core, video, shares, args.both_ways)
            scores[name] += objects
            found[name] = f"{np.mean(objects):.1f}"
            bar.increment()
        rows.append([video.name, *found.values()])
    bar.finish(dirty=True)
    rows.append(["mean of all objects", *(f"{np.mean(objects):.2f}" for objects in scores.values())])
    print_table(["video", *GIVEN], rows)


def score_video(core, video, shares, both_ways=False):
    """Return [J&F in percent] with one mean for each object. shares: as in GIVEN."""
    folder = next(iter(video.masks.values())).parent
    truth = [read_mask(folder / f"{frame.stem}.png") for frame in video.frames]
    objects = sorted(set(np.unique(truth[0]).tolist()) - {0})
    whole = [index for index, mask in enumerate(truth) if np.isin(objects, mask).all()]

    def find_frame(share):
        return min(whole, key=lambda index: abs(index - round(share * (len(truth) - 1))))

    core.reset()
    given = {index: truth[index] * np.isin(truth[index], objects) for index in (0, *map(find_frame, shares))}
    not_scored = {0, find_frame(0.5), find_frame(1), len(truth) - 1}
    scores = []
    for index, ids in (track_from_both if both_ways else track_forwards)(core, video.frames, given, not_scored):
        if index not in not_scored:
            pairs = [(truth[index] == object_id, ids == object_id) for object_id in objects]
            scores.append([50 * (jaccard(*pair) + boundary_f(*pair)) for pair in pairs])
    return np.mean(scores, axis=0).tolist()


def track_forwards(core, files, given, not_needed):
    """Yield (index, ids) of all frames but those that are not needed. given: {index: ids}, given before all others."""
    for index in sorted(set(given) - {0}, reverse=True):
        core.step(read_image(files[index]), given[index], frame=index)
    for index, file in enumerate(files):
        prob = core.step(read_image(file), given.get(index), frame=index, needs_output=index not in not_needed)
        if index not in not_needed:
            yield index, core.to_mask(prob).cpu().numpy()


def track_from_both(core, files, given, not_needed):
    """Yield (index, ids) of all frames, not in their order; otherwise like `track_forwards`."""
    frames = ImageFrames(files).seekable()
    masks = {frames.name(index): TrueMask(ids) for index, ids in given.items()}
    with tempfile.TemporaryDirectory() as folder:
        for frame in track_both_ways(core, frames, masks, Path(folder), across_cuts=True):
            yield frames.position(frame.name), frame.ids


class TrueMask(NamedTuple):
    """A mask as `track_both_ways` takes it."""

    ids: np.ndarray

    def read(self, size):
        return self.ids


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
