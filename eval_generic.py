"""Track the videos of any folder in the layout of DAVIS or YouTube-VOS: long videos, LVOS, MOSE, your own.

    python eval_generic.py --long-video-path long_video --output prediction/long --model W.pth --mem-every 5
    python eval_generic.py --long-video-path MOSE/valid --output prediction/mose --model W.pth --zip

The folder holds JPEGImages/VIDEO/FRAME.jpg and Annotations/VIDEO/FRAME.png; a folder 480p or Full-Resolution may lie
above VIDEO. A single video needs no folder VIDEO. Only the first mask of each object is used, so Annotations may hold
the full ground truth. The masks are OUTPUT/VIDEO/FRAME.png. After an interruption, the same command continues with the
videos that are not finished.
"""

import sys

from dataset.evaluation_sets import EVALUATION_SETS
from evaluation.run import evaluate
from util.errors import run_script
from util.hyper_para import ResultSettings, TrackingSettings
from util.options import OptionParser, settings_from


def get_args_parser():
    parser = OptionParser("eval_generic.py", __doc__)
    parser.add_argument("--long-video-path", required=True, metavar="FOLDER",
                        help="folder with JPEGImages and Annotations")
    parser.add_settings(ResultSettings, "results")
    parser.add_settings(TrackingSettings, "tracking")
    return parser


def main(args):
    return evaluate(settings_from(TrackingSettings, args), settings_from(ResultSettings, args),
                    EVALUATION_SETS["generic"], args.long_video_path, "val")


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
