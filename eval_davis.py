"""Track the videos of DAVIS 2017 and write their masks.

    python eval_davis.py --davis-path DAVIS/2017 --output prediction/s012 --model W.pth --mode two-frames-compress \\
        --mem-every 3 --amp
    python eval_davis.py --davis-path DAVIS/2017 --output prediction/test --model W.pth --split testdev --zip
    torchrun --nproc_per_node=4 eval_davis.py ...

The masks are OUTPUT/VIDEO/FRAME.png, indexed PNGs. After an interruption, the same command continues with the videos
that are not finished. evaluation/2017/evaluation_ours.py scores the masks.
"""

import sys

from dataset.evaluation_sets import EVALUATION_SETS
from evaluation.run import evaluate
from util.errors import run_script
from util.hyper_para import DAVIS_FOLDER, ResultSettings, TrackingSettings
from util.options import OptionParser, settings_from, whole


def get_args_parser():
    parser = OptionParser("eval_davis.py", __doc__)
    parser.add_argument("--davis-path", required=True, metavar="FOLDER", help=DAVIS_FOLDER)
    parser.add_argument("--split", choices=EVALUATION_SETS["davis17"].splits, default="val",
                        help="which videos to track (default: %(default)s)")
    parser.add_argument("--repeat", type=whole, metavar="N",
                        help="check that SAM has N squeeze-and-excitation blocks (default: as in the checkpoint)")
    parser.add_settings(ResultSettings, "results")
    parser.add_settings(TrackingSettings, "tracking")
    return parser


def main(args):
    return evaluate(settings_from(TrackingSettings, args), settings_from(ResultSettings, args),
                    EVALUATION_SETS["davis17"], args.davis_path, args.split, repeat=args.repeat)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
