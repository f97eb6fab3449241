"""Track the sequences of DAVIS 2017 and write their masks.

    python eval_davis.py --davis_path DAVIS/2017 --output prediction/s012 --model W.pth --mode two-frames-compress \\
        --mem_every 3 --amp
    python eval_davis.py --davis_path DAVIS/2017 --output prediction/test --model W.pth --split testdev --zip
    torchrun --nproc_per_node=4 eval_davis.py ...

--davis_path is DAVIS/2017 or the folder in it that holds JPEGImages. OUTPUT/SEQUENCE/FRAME.png are indexed PNGs.
Interrupted, the same command goes on with the sequences that are not finished. Score with
evaluation/2017/evaluation_ours.py.
"""

import argparse
import sys

from dataset.evaluation_sets import BENCHMARKS
from evaluation.run import evaluate
from util.errors import run_script
from util.hyper_para import add_evaluation_options


def get_args_parser():
    parser = argparse.ArgumentParser(prog="eval_davis.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis_path", required=True, help="DAVIS/2017, or the folder that holds JPEGImages")
    parser.add_argument("--split", choices=BENCHMARKS["davis17"].splits, default="val")
    parser.add_argument("--repeat", type=int, help="blocks in SAM; seen from the checkpoint, checked if given")
    add_evaluation_options(parser, top=40)
    return parser


def main(args):
    return evaluate(args, BENCHMARKS["davis17"], args.davis_path, args.split)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
