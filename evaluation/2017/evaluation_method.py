"""Compute J&F of DAVIS 2017 with the options and the output of the official evaluation_method.py.

    python evaluation/2017/evaluation_method.py --task semi-supervised --results R --davis-path D
    python evaluation/2017/evaluation_method.py --task unsupervised --results R --davis-path D --split val

The unsupervised task, the default here, scores every frame, leaves out void pixels and matches up to 20 proposals of
each sequence with its objects. Writes global_results-SPLIT.csv and per-sequence_results-SPLIT.csv into R.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluation.command_line import Davis2017Settings, evaluate_davis_2017
from util.errors import run_script
from util.options import OptionParser, settings_from


def get_args_parser():
    parser = OptionParser("evaluation_method.py", __doc__)
    parser.add_settings(Davis2017Settings, task="unsupervised")
    return parser


def main(args):
    evaluate_davis_2017(settings_from(Davis2017Settings, args), print_objects=True)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
