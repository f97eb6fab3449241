"""J&F of DAVIS 2017 with the options and the output of the official evaluation_method.py.

    python evaluation/2017/evaluation_method.py --task semi-supervised --results_path R --davis_path D
    python evaluation/2017/evaluation_method.py --task unsupervised --results_path R --davis_path D --set val

The unsupervised task scores every frame, leaves out void pixels and matches up to 20 proposals per sequence
with the objects. Writes global_results-SET.csv and per-sequence_results-SET.csv into R.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluation.command_line import add_davis_2017_options, evaluate_davis_2017
from util.errors import run_script


def get_args_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_davis_2017_options(parser, default_task="unsupervised")
    return parser


def main(args):
    evaluate_davis_2017(args, print_objects=True)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
