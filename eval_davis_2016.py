"""Track the sequences of DAVIS 2016, one foreground object each, and write their masks as grey 0 and 255.

    python eval_davis_2016.py --davis_path DAVIS/2017 --output prediction/s012_2016 --model W.pth \\
        --mode two-frames-compress --mem_every 3 --top 40

DAVIS 2016 is a part of DAVIS 2017: --davis_path is the tree of 2017, with ImageSets/2016/val.txt. Interrupted, the
same command goes on with the sequences that are not finished. Score with evaluation/2016/evaluation.py.
"""

import argparse
import sys

from dataset.evaluation_sets import BENCHMARKS
from evaluation.run import evaluate
from util.errors import run_script
from util.hyper_para import add_evaluation_options


def get_args_parser():
    parser = argparse.ArgumentParser(prog="eval_davis_2016.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis_path", required=True, help="DAVIS/2017, or the folder that holds JPEGImages")
    parser.add_argument("--split", help="accepted, without effect: DAVIS 2016 has one split to evaluate, val")
    add_evaluation_options(parser, top=20)
    return parser


def main(args):
    return evaluate(args, BENCHMARKS["davis16"], args.davis_path, "val")


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
