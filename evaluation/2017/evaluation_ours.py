"""Compute J&F of DAVIS 2017, with the same table and CSV files as the official toolkit, to the last bit.

    python evaluation/2017/evaluation_ours.py --results R --davis-path D
    python evaluation/2017/evaluation_ours.py --results R --davis-path D --split train --report report.html

R holds a folder of indexed PNG files for each sequence. The first and the last frame of a sequence are not scored. D is
the folder that has ImageSets, Annotations and, for the report, JPEGImages in it. Writes global_results-SPLIT.csv and
per-sequence_results-SPLIT.csv into R.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from PIL import Image, ImageDraw

from evaluation.command_line import Davis2017Settings, evaluate_davis_2017, say_written
from util.errors import run_script
from util.options import OptionParser, settings_from

PLOT_SIZE = 720, 360
"""Width and height of a plot in pixels."""

PLOT_MARGIN = 30

J_COLOUR, F_COLOUR = (0, 90, 181), (220, 50, 32)
"""RGB, 0 to 255."""


def get_args_parser():
    parser = OptionParser("evaluation_ours.py", __doc__)
    parser.add_settings(Davis2017Settings)
    parser.add_argument(
        "--show", action="store_true",
        help="also plot J and F over time, as NAME.tiff for each object in the working directory (default: do not)",
    )
    return parser


def save_plot(score):
    """Plot J and F of one ObjectScore over its frames, as NAME.tiff in the working directory."""
    width, height = PLOT_SIZE
    image = Image.new("RGB", PLOT_SIZE, "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((PLOT_MARGIN, PLOT_MARGIN, width - PLOT_MARGIN, height - PLOT_MARGIN), outline="grey")
    step = (width - 2 * PLOT_MARGIN) / max(len(score.j) - 1, 1)
    for values, colour, label, x in ((score.j, J_COLOUR, "J", 0), (score.f, F_COLOUR, "F", 60)):
        points = [
            (PLOT_MARGIN + t * step, height - PLOT_MARGIN - value * (height - 2 * PLOT_MARGIN))
            for t, value in enumerate(values)
        ]
        draw.line(points, fill=colour, width=2)
        draw.text((PLOT_MARGIN + 200 + x, 10), label, fill=colour)
    draw.text((PLOT_MARGIN, 10), f"{score.name}, 0 to 1", fill="black")
    image.save(f"{score.name}.tiff")


def main(args):
    scores = evaluate_davis_2017(settings_from(Davis2017Settings, args), print_objects=False)
    if args.show:
        for score in scores:
            save_plot(score)
        say_written([f"{score.name}.tiff" for score in scores])


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
