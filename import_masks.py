"""Turn masks that other programs have written into masks that track.py takes.

    python import_masks.py annotations.xml --video clip.mp4 --output masks
    python import_masks.py instances.json --video frames/ --output masks
    python track.py clip.mp4 masks

It reads COCO (.json), SA-V (.json, or a folder OBJECT/NAME.png for each object), CVAT 1.1 (.xml, unpacked), LabelMe (a
.json, or a folder of them) and folders of PNGs in any colours. It writes an indexed PNG for each frame that has a mask,
named after the frame, and names.json with the kinds of objects.

An object keeps its id from 1 to 255 if the file gives one (track_id, group_id, group, masklet_id). Otherwise objects
are numbered in the order in which they come.
"""

import sys

from exporting.importing import import_masks
from util.errors import run_script
from util.options import OptionParser


def get_args_parser():
    parser = OptionParser("import_masks.py", __doc__)
    parser.add_argument("masks", metavar="MASKS", help="the file or folder that another program has written")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for the masks")
    parser.add_argument("--video", metavar="VIDEO", help="the video or the folder of frames that they belong to; CVAT "
                        "and SA-V number frames, and a folder's frames have names (default: frames are named as the "
                        "file says, or after their numbers)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier import (default: refuse)")
    return parser


def main(args):
    import_masks(args.masks, args.output, args.video, args.overwrite)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
