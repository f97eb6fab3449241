"""What a frame costs, part by part, in seconds of one core and in bytes: the figures of docs/SCALE.md.

    python -m tests.many_costs FRAMES MASK --folder out/many_costs

FRAMES is a folder of images, of which a video is made first; MASK is that of the first one. Time is that of the
processor, all threads together, so that other work on the machine changes it little.
"""

import sys
import time
from pathlib import Path

from inference_core import InferenceCore, open_network
from util.errors import run_script
from util.hyper_para import TrackingSettings
from util.image_io import read_mask, write_mask
from util.options import OptionParser
from util.overlay import draw_ids, draw_overlay
from util.video import open_frames
from util.video_writer import VideoWriter

WARM_UP = 6
"""Frames of tracking that do not count."""


def get_args_parser():
    parser = OptionParser("many_costs", __doc__)
    parser.add_argument("frames", metavar="FRAMES", help="a folder of images")
    parser.add_argument("mask", metavar="MASK", help="the mask of the first one")
    parser.add_argument("--folder", required=True, metavar="FOLDER", help="where videos and masks are written")
    return parser


def main(args):
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    images = [frame.image for frame in open_frames([args.frames])]
    height, width = images[0].shape[:2]
    measure("encode the video", images, encode(folder / "clip.mp4", images, lambda image: image))
    measure("decode", images, lambda: list(open_frames([str(folder / "clip.mp4")], threads=1)))
    network = open_network(TrackingSettings(threads=1))
    core, masks = InferenceCore(network), []
    ids = read_mask(args.mask)
    for image in images[:WARM_UP]:
        core.step(image, ids if not masks else None)
        masks.append(ids)
    rest = images[WARM_UP:]
    measure("track", rest, lambda: masks.extend(core.to_mask(core.step(image)).numpy() for image in rest))
    (folder / "masks").mkdir(exist_ok=True)
    measure("write masks", images, lambda: [write_mask(folder / "masks" / f"{number:05d}.png", mask)
                                            for number, mask in enumerate(masks)])
    measure("draw and encode the overlay", images, encode(folder / "overlay.mp4", list(zip(images, masks, strict=True)),
                                                          lambda pair: draw(*pair)))
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.mp4")}
    sizes["masks"] = sum(path.stat().st_size for path in (folder / "masks").iterdir())
    print(f"{width}×{height}, {len(core.objects)} objects; bytes a frame:",
          ", ".join(f"{name} {size / len(images):.0f}" for name, size in sizes.items()))


def measure(name, items, function):
    start = time.process_time()
    function()
    print(f"{name}: {1000 * (time.process_time() - start) / len(items):.1f} ms a frame")


def encode(path, items, image_of):
    def run():
        video = VideoWriter(path, (image_of(items[0])).shape[1::-1], 24, threads=1)
        for item in items:
            video.write(image_of(item))
        video.close()

    return run


def draw(image, ids):
    image = draw_overlay(image, ids)
    draw_ids(image, ids)
    return image


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
