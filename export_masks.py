"""Export masks to the formats that other programs read.

    python export_masks.py out/clip --format coco yolo --names 1=dog 2=woman
    python export_masks.py out/clip --format prores --feather 3 --objects 1
    python export_masks.py out/clip/masks --video clip.mp4 --format mattes --output mattes
    python export_masks.py prediction/s012 --video DAVIS/2017/trainval/JPEGImages/480p --format cvat

The folder is one that track.py or an evaluation has written, or any folder of masks as PNGs named after their frames.
Several videos in it are exported each into a folder of its own. track.py --export FORMAT does the same at once.

annotations   coco, yolo, cvat, mot, mots, labelme, sa-v, boxes-csv, indexed-png
pictures      images (the frames), mattes, matte-video, prores, webm-alpha, cutout-png, gif

The kinds of objects are given with --names, or in a file names.json in the folder: {"1": "dog", "2": "woman"}. Masks
are changed in this order: --hold, --largest, --fill-holes, --grow, --feather. docs/EXPORTS.md has a table of the
formats: which program reads them, and what each cannot hold.

All exports are made in one pass, and get their names only when all of them are whole.
"""

import sys

from exporting.run import export_folder
from util.errors import run_script
from util.hyper_para import ExportSettings, export_settings
from util.options import OptionParser


def get_args_parser():
    parser = OptionParser("export_masks.py", __doc__)
    parser.add_argument("folder", metavar="FOLDER", help="the folder of the masks")
    parser.add_settings(ExportSettings, "export")
    return parser


def main(args):
    export_folder(args.folder, export_settings(args))
    return 0


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
