"""Track the videos of DAVIS 2016, with one foreground object each, and write their masks as grey PNGs of 0 and 255.

    python eval_davis_2016.py --davis-path DAVIS/2017 --output prediction/s012_2016 --model W.pth \\
        --mode two-frames-compress --mem-every 3 --top 40

DAVIS 2016 is a part of DAVIS 2017, so --davis-path is the folder of DAVIS 2017, with ImageSets/2016/val.txt in it, or
that of the original DAVIS 2016, with ImageSets/480p/val.txt. The masks are OUTPUT/VIDEO/FRAME.png. After an
interruption, the same command continues with the videos that are not finished. evaluation/2016/evaluation.py scores the
masks.
"""

import argparse
import sys

from dataset.evaluation_sets import EVALUATION_SETS
from evaluation.run import evaluate
from util.errors import run_script
from util.hyper_para import DAVIS_FOLDER, ResultSettings, TrackingSettings
from util.options import OptionParser, settings_from


def get_args_parser():
    parser = OptionParser("eval_davis_2016.py", __doc__)
    parser.add_argument("--davis-path", required=True, metavar="FOLDER", help=DAVIS_FOLDER)
    # A published command gives this option. It has no effect, because DAVIS 2016 has only one split to evaluate.
    parser.add_argument("--split", help=argparse.SUPPRESS)
    parser.add_settings(ResultSettings, "results")
    parser.add_settings(TrackingSettings, "tracking", top_k=20)
    return parser


def main(args):
    return evaluate(settings_from(TrackingSettings, args), settings_from(ResultSettings, args),
                    EVALUATION_SETS["davis16"], args.davis_path, "val")


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
