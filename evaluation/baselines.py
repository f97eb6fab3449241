"""Track DAVIS 2017 with baselines that need no network: repeat the first mask, or move it along by optical flow.

    python evaluation/baselines.py --method repeat --davis-path DAVIS/2017 --output prediction/repeat
    python evaluation/baselines.py --method flow --davis-path DAVIS/2017 --output prediction/flow --split testdev
    python evaluation/2017/evaluation_ours.py --davis-path DAVIS/2017/trainval --results prediction/flow

Writes OUTPUT/VIDEO/FRAME.png, indexed PNGs like those of eval_davis.py, and tracks all videos anew each time. Only with
--overwrite it replaces what another method or a network has made.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from dataset.evaluation_sets import EVALUATION_SETS, list_video_notices
from evaluation.results import Results
from util.errors import run_script
from util.hyper_para import DAVIS_FOLDER
from util.image_io import read_image, read_mask, read_palette
from util.machine import computing_threads
from util.notices import tell
from util.options import OptionParser
from util.progress import progress_bar


def get_args_parser():
    parser = OptionParser("baselines.py", __doc__)
    parser.add_argument("--method", choices=METHODS, required=True, help="repeat the first mask, or move it by flow")
    parser.add_argument("--davis-path", required=True, metavar="FOLDER", help=DAVIS_FOLDER)
    parser.add_argument("--split", choices=EVALUATION_SETS["davis17"].splits, default="val",
                        help="which videos (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true",
                        help="replace results of other methods or first masks (default: refuse)")
    return parser


def repeat_mask(ids, images):
    """Yield `ids`, the mask of the first frame, once for each of the image files `images`."""
    for _ in images:
        yield ids


def move_mask(ids, images):
    """Yield a mask uint8 H×W for each of the image files `images`: the mask before it, moved along by dense flow.

    ids: uint8 H×W, the mask of the first frame. The flow is DIS (Kroeger et al., ECCV 2016) with OpenCV's medium
    preset, from the later frame back to the earlier one. Masks are only rounded when they are yielded, so that errors
    of rounding do not add up.
    """
    height, width = ids.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    estimate = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    object_ids = np.unique(ids)
    planes = [(ids == object_id).astype(np.float32) for object_id in object_ids]
    earlier = None
    for image in images:
        grey = cv2.cvtColor(read_image(image, size=(width, height)), cv2.COLOR_RGB2GRAY)
        if earlier is not None:
            lookup = grid + estimate.calc(grey, earlier, None)
            planes = [cv2.remap(plane, lookup, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                      for plane in planes]
        earlier = grey
        yield object_ids[np.argmax(planes, 0)]


METHODS = {"repeat": repeat_mask, "flow": move_mask}


def main(args):
    cv2.setNumThreads(computing_threads())
    davis = EVALUATION_SETS["davis17"]
    videos = davis.find(args.davis_path, args.split)
    tell(list_video_notices(videos))
    results = Results(args.output, davis, {"benchmark": davis.title, "split": args.split, "method": args.method})
    with results.lock(alone=True):
        results.prepare(videos, args.overwrite)
        track_videos(videos, args.method, results)


def track_videos(videos, method, results):
    """Track EvaluationVideos with a method of METHODS, and write `evaluation.results.Results`."""
    bar = progress_bar(sum(len(video.frames) for video in videos), method)
    try:
        for video in videos:
            (file,) = video.masks.values()
            palette = read_palette(file)
            results.begin(video)
            masks = METHODS[method](read_mask(file, colours={}), video.frames)
            for frame, ids in zip(video.frames, masks, strict=True):
                results.write_frame(video, frame.stem, ids, palette)
                bar.increment()
            results.finish(video, [f"{frame.stem}.png" for frame in video.frames])
    finally:
        bar.finish(dirty=True)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
