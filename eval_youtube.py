"""Track the videos of YouTube-VOS 2018 or 2019 and write their masks.

    python eval_youtube.py --yv_path YouTube --output prediction/YV-19-val --model W.pth --mode two-frames-compress \\
        --mem_every 4 --top 20 --amp --zip
    python eval_youtube.py --yv_path YouTube2018 --output prediction/YV-18-val --model W.pth --mem_every 4

--yv_path holds valid/ and, for all frames instead of every fifth, all_frames/valid_all_frames/. Written are the
frames that meta.json names, or with --output_all every frame from the first mask on, as OUTPUT/Annotations/VIDEO/
FRAME.png. Interrupted, the same command goes on with the videos that are not finished.
"""

import argparse
import sys

from dataset.evaluation_sets import BENCHMARKS
from evaluation.run import evaluate
from util.errors import run_script
from util.hyper_para import add_evaluation_options


def get_args_parser():
    parser = argparse.ArgumentParser(prog="eval_youtube.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yv_path", required=True, help="YouTube or YouTube2018, or the folder that holds meta.json")
    parser.add_argument("--split", choices=BENCHMARKS["youtube"].splits, default="valid")
    parser.add_argument("--output_all", action="store_true", help="write every frame, not only those of meta.json")
    add_evaluation_options(parser, size=BENCHMARKS["youtube"].size, top=20)
    return parser


def main(args):
    return evaluate(args, BENCHMARKS["youtube"], args.yv_path, args.split, everything=args.output_all)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
