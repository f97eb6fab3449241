"""Put training images and videos into a pack: one small folder that `train.py --pack` makes its samples from.

    python make_pack.py --static-root static --video-root DAVIS/2017/trainval --output pack

The pictures are reduced to 320 lines and compressed: 4,500 images and 1,700 frames take about 40 MB, in files of at
most 16 MB. Images need masks as docs/TRAINING.md says; in masks with object ids, 255 means neither object nor
background. Of videos in the layout of DAVIS, those in ImageSets/2017/train.txt are taken.
"""

import sys
from pathlib import Path

from dataset.pack import write_pack
from dataset.training_sets import find_pairs, find_videos, read_excluded
from util.errors import InputError, run_script
from util.options import OptionParser


def get_args_parser():
    parser = OptionParser("make_pack.py", __doc__)
    parser.add_argument("--static-root", metavar="FOLDER",
                        help="folder of images and masks, X.jpg beside X.png, in folders of any depth (default: no "
                             "images)")
    parser.add_argument("--video-root", metavar="FOLDER",
                        help="folder of videos in the layout of DAVIS (default: no videos)")
    parser.add_argument("--exclude", metavar="FILE",
                        help="leave out the videos whose names this text file lists (default: none)")
    parser.add_argument("--output", default="pack", metavar="FOLDER", help="folder to write (default: %(default)s)")
    return parser


def main(args):
    if not args.static_root and not args.video_root:
        raise InputError("there is nothing to pack: give --static-root, --video-root, or both")
    if args.exclude and not args.video_root:
        raise InputError("--exclude leaves out videos of --video-root: give that, too")
    pairs = find_pairs(args.static_root, instances=True) if args.static_root else []
    videos = find_videos(args.video_root) if args.video_root else []
    excluded = read_excluded(args.exclude, videos)
    videos = [video for video in videos if video.name not in excluded]
    if args.video_root and not videos:
        raise InputError(f"{args.exclude}: this list leaves out every video of {args.video_root}")
    images, count, frames, objects, size = write_pack(args.output, pairs, videos)
    parts = len(list(Path(args.output).glob("data-*.bin")))
    print(f"wrote {args.output}: {images} images and {count} videos with {frames} frames, {objects} usable objects, "
          f"{size / 1e6:.1f} MB in {parts + 1} files")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
