"""Fit and check the estimate of a mask's quality (inference_core/quality.py).

    python evaluation/quality.py --davis-path DAVIS/2017 --video-root video_multi --amp

It tracks the validation videos of DAVIS and the videos of --video-root, forwards and backwards. The mask of each object
is given where it appears. Then it fits the estimate to all videos but one and compares it with the true IoU in the one
left out, for each of them. Printed are, for each video, the AUROC of "the IoU is below 0.7": the probability that a
good mask has a higher estimate than a bad one; beside it that of the mean probability of the mask's pixels; at the end
the constants that fit all videos. In the fit each video counts the same, whatever its length and number of objects.
"""

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from dataset.evaluation_sets import EVALUATION_SETS
from dataset.training_sets import find_videos
from evaluation.measures import jaccard
from evaluation.tables import print_table
from inference_core import InferenceCore, open_network
from inference_core.quality import DOUBTFUL, UNSEEN, QualityMeter, measure_objects
from inference_core.sizes import pick_size
from util.errors import InputError, run_script
from util.hyper_para import DAVIS_FOLDER, TrackingSettings
from util.image_io import read_image, read_mask
from util.mask_rule import VOID
from util.options import OptionParser, settings_from
from util.progress import progress_bar


class Row(NamedTuple):
    """One object in one frame."""

    video: str

    features: tuple | None
    """Of `QualityMeter.find_features`; None if the object is not seen."""

    confidence: float
    iou: float


def get_args_parser():
    parser = OptionParser("quality.py", __doc__)
    parser.add_argument("--davis-path", metavar="FOLDER", help=f"{DAVIS_FOLDER} (default: none)")
    parser.add_argument("--video-root", metavar="FOLDER",
                        help="folder of further videos, which has the layout of DAVIS (default: none)")
    parser.add_settings(TrackingSettings, "tracking")
    return parser


def main(args):
    videos = find_all(args.davis_path, args.video_root)
    if len(videos) < 2:
        raise InputError(f"{len(videos)} videos were found, and two are needed at least: one to fit to, one to check")
    tracking = settings_from(TrackingSettings, args)
    network = open_network(tracking)
    core = InferenceCore(network, **tracking.core(), size=pick_size(tracking.size, network.config, None))
    rows = []
    bar = progress_bar(2 * len(videos), "tracking")
    for name, images, masks in videos:
        for step in (1, -1):
            rows += track(core, name, images[::step], masks[::step])
            bar.increment()
    bar.finish(dirty=True)
    report(rows)


def find_all(davis_path, video_root):
    """Return [(name, image files, mask files)]."""
    videos = []
    for video in EVALUATION_SETS["davis17"].find(davis_path, "val") if davis_path else []:
        folder = next(iter(video.masks.values())).parent
        videos.append((video.name, list(video.frames), [folder / f"{frame.stem}.png" for frame in video.frames]))
    for video in find_videos(video_root) if video_root else []:
        indices = range(len(video.frames))
        videos.append((video.name, list(map(video.image, indices)), list(map(video.mask, indices))))
    return videos


def track(core, name, images, masks):
    """Track one video, and return its Rows: all objects in all frames in which their mask was not given."""
    core.reset()
    seen, rows, meter = set(), [], QualityMeter()
    for image_file, mask_file in zip(images, masks, strict=True):
        image, truth = read_image(image_file), read_mask(mask_file)
        new = [object_id for object_id in np.unique(truth).tolist() if object_id not in {0, VOID, *seen}]
        prob = core.step(image, *((truth * np.isin(truth, new), new) if new else ()))
        seen.update(new)
        if not seen:
            continue
        ids = core.to_mask(prob).cpu().numpy()
        objects = measure_objects(ids, prob.amax(0).cpu().numpy(), prob.sum((1, 2)).tolist()[1:], core.objects)
        known = truth != VOID
        features = meter.find_features(objects, new)
        for object_id in set(objects) - set(new):
            iou = jaccard((truth == object_id) & known, (ids == object_id) & known)
            rows.append(Row(name, features.get(object_id), objects[object_id]["confidence"] or 0.0, iou))
    return rows


def report(rows):
    """Print what was measured."""
    names = np.array([row.video for row in rows])
    iou = np.array([row.iou for row in rows])
    shown = np.array([row.features is not None for row in rows])
    features = np.array([row.features for row in rows if row.features])
    estimates = np.full(len(rows), UNSEEN)
    for video in np.unique(names[shown]):
        own = names[shown] == video
        weights = fit(features[~own], iou[shown][~own], names[shown][~own])
        estimates[shown & (names == video)] = apply(weights, features[own])

    bad, confidence = iou < DOUBTFUL, np.array([row.confidence for row in rows])
    table = []
    for title, part in [*((video, names == video) for video in dict.fromkeys(names.tolist())),
                        ("all, object seen", shown), ("all, object not seen", ~shown), ("all", shown | True)]:
        table.append([title, part.sum(), f"{100 * bad[part].mean():.0f} %" if part.any() else "-",
                      *(_format(find_auroc(values[part], ~bad[part])) for values in (estimates, confidence)),
                      _format(np.abs(estimates - iou)[part].mean() if part.any() else None)])
    print_table(["video", "masks", f"IoU < {DOUBTFUL}", "AUROC, quality", "AUROC, confidence", "mean error"], table)
    print(f"WEIGHTS = ({', '.join(f'{weight:.3f}' for weight in fit(features, iou[shown], names[shown]))})")
    if not shown.all():
        counts = [iou[~shown & (names == video)].mean() for video in np.unique(names[~shown])]
        print(f"UNSEEN = {np.mean(counts):.2f}")


def _format(number):
    return "-" if number is None else f"{number:.3f}"


def fit(features, iou, names, ridge=1.0, steps=50):
    """Return (constant, weights) of a logistic regression of the IoU, by Newton's method.

    features: N×F. iou: N, 0 to 1. names: N, the video of each; each video counts as much as 300 masks. ridge: how
    strongly weights are drawn to zero, in masks.
    """
    matrix = np.column_stack([np.ones(len(features)), features])
    _, video, counts = np.unique(names, return_inverse=True, return_counts=True)
    weight = 300 / counts[video]
    penalty = ridge * np.diag([0.0, *np.ones(features.shape[1])])
    constants = np.zeros(matrix.shape[1])
    for _ in range(steps):
        estimate = _sigmoid(matrix @ constants)
        slope = matrix.T @ (weight * (estimate - iou)) + penalty @ constants
        curvature = (matrix * (weight * estimate * (1 - estimate))[:, None]).T @ matrix + penalty
        constants -= np.linalg.solve(curvature + 1e-9 * np.eye(len(constants)), slope)
    return constants


def apply(constants, features):
    """Return the estimates of N×F features."""
    return _sigmoid(constants[0] + features @ constants[1:])


def _sigmoid(values):
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))


def find_auroc(values, good):
    """Return the probability that a good one of N has a higher value than a bad one; None if either is missing."""
    if good.all() or not good.any():
        return None
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    # The rank of a value is the mean of the places that its equals take.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    number = good.sum()
    return (ranks[good].sum() - number * (number + 1) / 2) / (number * (~good).sum())


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
