"""Download the weights that the authors of RDE-VOS published.

    python download_models.py                                  # all of them, into pretrain
    python download_models.py --only model_s012_final.pth
    python download_models.py --root .. --yes                  # into ../pretrain, without being asked about the terms

--only takes the names of the files in the published folder. After an interruption, the same command continues, and does
not fetch files again that are there. If one file fails, the others are still fetched, and the exit code is 1.

The Google Drive id is the published one. Google Drive limits how often a file may be fetched. If it refuses one, try
again the next day, or save the file with a browser in ROOT/pretrain.
"""

import sys

from util.download.parts import add_download_options, agree, download_parts, list_drive_folder
from util.errors import InputError, run_script
from util.options import OptionParser

TERMS = """
These weights were published by the authors of "Recurrent Dynamic Embedding for Video Object Segmentation" (Li et al.,
CVPR 2022), and trained on data with terms of its own: DUTS, HRSOD, FSS-1000, ECSSD, BIG, DAVIS, YouTube-VOS and BL30K.
BL30K is derived from ShapeNet and must not be used commercially. If you use the weights, cite the paper.
"""

FOLDER = "1i6GtLPUNZe0h72IfhU2s_WHA7ZuVoudG"


def get_args_parser():
    parser = OptionParser("download_models.py", __doc__)
    add_download_options(parser, "files of the published folder")
    return parser


def main(args):
    agree(TERMS, args.yes)
    try:
        parts = list_drive_folder(FOLDER, "pretrain")
    except InputError as error:
        # Nothing is wrong with what the user gave.
        print(error, file=sys.stderr)
        return 1
    return download_parts(parts, args)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
