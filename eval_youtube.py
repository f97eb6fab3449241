"""Track the videos of YouTube-VOS 2018 or 2019 and write their masks.

    python eval_youtube.py --yv-path YouTube --output prediction/YV-19-val --model W.pth --mode two-frames-compress \\
        --mem-every 4 --top 20 --amp --zip
    python eval_youtube.py --yv-path YouTube2018 --output prediction/YV-18-val --model W.pth --mem-every 4

The folder of --yv-path holds valid. If it also holds all_frames/valid_all_frames, the script tracks through all frames,
otherwise through every fifth. The masks are OUTPUT/Annotations/VIDEO/FRAME.png, for the frames that meta.json names or,
with --output-all, for every frame from the first mask on. After an interruption, the same command continues with the
videos that are not finished.
"""

import sys

from dataset.evaluation_sets import EVALUATION_SETS
from evaluation.run import evaluate
from util.errors import run_script
from util.hyper_para import ResultSettings, TrackingSettings
from util.options import OptionParser, settings_from


def get_args_parser():
    parser = OptionParser("eval_youtube.py", __doc__)
    parser.add_argument("--yv-path", required=True, metavar="FOLDER",
                        help="YouTube or YouTube2018, or the folder in it that holds meta.json")
    parser.add_argument("--split", choices=EVALUATION_SETS["youtube"].splits, default="valid",
                        help="which videos to track (default: %(default)s)")
    parser.add_argument("--output-all", action="store_true",
                        help="write every frame from the first mask on (default: those that meta.json names)")
    parser.add_settings(ResultSettings, "results")
    parser.add_settings(TrackingSettings, "tracking", top_k=20)
    return parser


def main(args):
    return evaluate(settings_from(TrackingSettings, args), settings_from(ResultSettings, args),
                    EVALUATION_SETS["youtube"], args.yv_path, args.split,
                    all_frames=args.output_all)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
