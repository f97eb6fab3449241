"""What needs no network, to compare with: the first mask repeated, or moved along by optical flow.

    python evaluation/baselines.py --method repeat --davis-path DAVIS/2017 --output prediction/repeat
    python evaluation/baselines.py --method flow --davis-path DAVIS/2017 --output prediction/flow --split testdev
    python evaluation/2017/evaluation_ours.py --davis-path DAVIS/2017/trainval --results prediction/flow

Writes OUTPUT/SEQUENCE/FRAME.png, indexed PNGs like those of eval_davis.py; files that are there are replaced.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from dataset.evaluation_sets import EVALUATION_SETS
from util.errors import run_script
from util.hyper_para import OptionParser
from util.image_io import read_image, read_mask, read_palette, write_mask
from util.progress import progress_bar


def get_args_parser():
    parser = OptionParser("baselines.py", __doc__)
    parser.add_argument("--method", choices=METHODS, required=True, help="repeat the first mask, or move it by flow")
    parser.add_argument("--davis-path", required=True, metavar="FOLDER",
                        help="DAVIS, DAVIS/2017, or the folder in it that holds JPEGImages")
    parser.add_argument("--split", choices=EVALUATION_SETS["davis17"].splits, default="val",
                        help="which sequences (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for the results")
    return parser


def repeat(ids, images):
    """Yield `ids`, the mask of the first frame, for each of `images` (paths)."""
    for _ in images:
        yield ids


def flow(ids, images):
    """Yield the mask of each frame: that of the frame before, looked up along the dense flow between the two.

    The flow is DIS (Kroeger et al., ECCV 2016) from the later frame back to the earlier one, in OpenCV's medium
    preset. Masks stay soft on the way, so that rounding does not add up.
    """
    height, width = ids.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    estimate = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    objects = np.unique(ids)
    planes = [(ids == known).astype(np.float32) for known in objects]
    earlier = None
    for image in images:
        grey = cv2.cvtColor(read_image(image, size=(width, height)), cv2.COLOR_RGB2GRAY)
        if earlier is not None:
            lookup = grid + estimate.calc(grey, earlier, None)
            planes = [cv2.remap(plane, lookup, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                      for plane in planes]
        earlier = grey
        yield objects[np.argmax(planes, 0)]


METHODS = {"repeat": repeat, "flow": flow}


def main(args):
    sequences = EVALUATION_SETS["davis17"].find(args.davis_path, args.split)
    bar = progress_bar(sum(len(sequence.frames) for sequence in sequences), args.method)
    try:
        for sequence in sequences:
            (file,) = sequence.masks.values()
            palette = read_palette(file)
            folder = args.output / sequence.name
            folder.mkdir(parents=True, exist_ok=True)
            masks = METHODS[args.method](read_mask(file), sequence.frames)
            for frame, ids in zip(sequence.frames, masks, strict=True):
                write_mask(folder / f"{frame.stem}.png", ids, palette)
                bar.increment()
    finally:
        bar.finish(dirty=True)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
