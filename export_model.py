"""Make the file of a trained network half as large, with weights as float16.

    python export_model.py saves/2026-01-31_12-00-00_mine/model_150000.pth --output mine.pth
    python export_model.py saves/2026-01-31_12-00-00_mine/model_{130000,140000,150000}.pth --output mean.pth

From several checkpoints, the script writes the mean of their weights. They should come from one run, or from runs that
started from the same network. The mean often does better than each of them (Izmailov et al., "Averaging Weights Leads
to Wider Optima", UAI 2018). Every script reads the result like the original. Computing stays in float32, unless you
give --amp.
"""

import sys
from pathlib import Path

from model import load_network
from model.checkpoint import preset_name, read_state, write_state
from model.clicks import click_preset_name, is_click_state, load_click_network
from util.errors import InputError, run_script
from util.files import file_sha256
from util.options import OptionParser


def get_args_parser():
    parser = OptionParser("export_model.py", __doc__)
    parser.add_argument("model", nargs="+", metavar="FILE",
                        help="checkpoint of the network; of several, the mean is written")
    parser.add_argument("--output", required=True, metavar="FILE", help="file to write")
    return parser


def main(args):
    clicks = is_click_state(read_state(args.model[0]))
    load = load_click_network if clicks else load_network
    network = load(args.model[0])
    state = network.state_dict()
    for path in args.model[1:]:
        other = load(path)
        if other.config != network.config:
            raise InputError(f"{path}: not the same network as {args.model[0]}")
        for key, value in other.state_dict().items():
            if value.is_floating_point():
                state[key] += value
    state = {key: (value / len(args.model)).half() if value.is_floating_point() else value
             for key, value in state.items()}
    infinite = [key for key, value in state.items() if not value.isfinite().all()]
    if infinite:
        raise InputError(f"{', '.join(args.model)}: {infinite[0]} has values that float16 cannot hold")
    write_state(args.output, state)
    parameters = sum(value.numel() for value in network.parameters())
    several = f"mean of {len(args.model)} checkpoints, " if len(args.model) > 1 else ""
    name = f"clicks, {click_preset_name(network.config)}" if clicks else preset_name(network.config)
    print(f"wrote {args.output}: {several}{name}, {parameters / 1e6:.2f} million parameters, "
          f"{Path(args.output).stat().st_size / 1e6:.2f} MB, SHA-256 {file_sha256(args.output)}")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
