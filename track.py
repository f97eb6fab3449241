"""Track objects through a video of your own.

    python track.py                                              # the built-in example
    python track.py clip.mp4                                     # writes the first frame, to draw a mask on
    python track.py clip.mp4 mask.png                            # the same as --video clip.mp4 --mask mask.png
    python track.py clip.mp4 --click 250,120                     # what is at this pixel of the first frame
    python track.py clip.mp4 --click 250,120:1 400,90:2 380,300:-2 --box 120:180,60,330,200:3
    python track.py --video clip.mp4 --mask mask.png --start 1:30 --end 1:45.5 --output out/part
    python track.py --video frames/ --mask masks/ --output out/mine --size 480
    python track.py clip.mp4 120:mask.png --backward --output out/before
    python track.py --video clip.mp4 --mask mask.png 120:corrected.png --model model_s012_final.pth
    ffmpeg -i clip.mp4 -vf yadif -c:v ffv1 -f matroska - | python track.py - mask.png

Without --model, the script uses the compact network that comes with the repository, which is fast even on a CPU.

The mask is an indexed or grey PNG of the first frame, in which each object has its own id from 1 to 255. A mask in
black and white is one object, and one in a few flat colours has an object for each. If an object appears later or gets
lost, give masks of later frames, too: a folder of PNGs named after their frames, FRAME:PNG, or FRAME:PNG:ID, which
gives the only object of a mask an id. FRAME is a frame's name, or the number in it; frames of a video file, and those
with more than a number in their names, are counted from 0. The output for a frame with a mask is this mask.

Clicks and boxes make a mask where there is none: --click FRAME:X,Y:ID is a pixel of an object, or, with a minus before
ID, one that is not; --box FRAME:LEFT,TOP,RIGHT,BOTTOM:ID is the box that an object fills. The masks are written into
the folder clicked, where they can be looked at, changed, and given with --mask later.

With --both-ways, objects are tracked from their masks to the beginning and to the end, and between two masks from both;
the two results are merged.

With --backward, objects are tracked towards the beginning of the video, from the last frame that has a mask; a mask
without FRAME is then that of the last frame. The overlay shows the frames in their order, and is drawn at the end.
This needs a file or images, whose frames can be read in any order.

With --start, the mask is that of the frame there, and frames keep the numbers of the whole video. Without a mask, the
script writes that frame to first.png in the folder of --output, says how to go on, and ends with exit code 2.

The script writes masks/NAME.png (indexed, with the DAVIS palette), overlay.mp4 and summary.json into the folder of
--output, and with --save-scores scores/NAME.npz. It handles one frame after another, so a long video needs no more
memory than a short one. After an interruption, the same command with --resume goes on from there, and ends with the
same files. Frames that cannot be decoded are left out; where frames are missing, or the file is cut short, a notice
says so at the end, and summary.json says "complete": false. The exit code is 0 then, too.

--export FORMAT … exports the masks at the end, into the folder export in that of --output. export_masks.py does so
later, and has more options.
"""

import dataclasses
import sys
from pathlib import Path

from dataset.synthetic import write_example
from evaluation.measures import jaccard
from runs.video import Watcher, open_model, track_video
from util.decoding import is_stream, public_name
from util.errors import InputError, name_a_few, run_script
from util.hyper_para import TrackingSettings, VideoSettings, check_directions
from util.image_io import read_mask
from util.notices import tell
from util.options import OptionParser, settings_from
from util.progress import progress_bar


def get_args_parser():
    parser = OptionParser("track.py", __doc__)
    parser.add_argument("--example", action="store_true",
                        help="track a rendered clip with known masks (default: if neither --video nor --mask is given)")
    parser.add_argument("inputs", nargs="*", metavar="VIDEO MASK",
                        help="the same as --video VIDEO --mask MASK …; without MASK, the first frame is written "
                             "(default: see --video and --mask)")
    parser.add_settings(VideoSettings, "video and results")
    parser.add_settings(TrackingSettings, "tracking", amp="auto")
    return parser


def main(args):
    tracking, job = settings_from(TrackingSettings, args), _video_settings(args)
    if not job.video:
        return run_example(tracking, job)
    track_video(tracking, job, lambda: open_model(tracking), Terminal())
    return 0


class Terminal(Watcher):
    """Shows on the terminal what is done: a bar, notices, and at the end what was written."""

    def begin(self, length):
        self._bar = progress_bar(length, "tracking")

    def count(self, name=None, image=None):
        self._bar.increment()

    def end(self):
        self._bar.finish(dirty=True)

    def say(self, line):
        print(line, file=sys.stderr)

    def note(self, line):
        tell([line])

    def done(self, tracked, job):
        output = tracked.output
        extra = ", overlay.mp4" if output.overlay else ""
        print(f"wrote {output.finished} masks to {output.masks}{extra} and summary.json beside it "
              f"({tracked.frames} frames, {tracked.frames / tracked.seconds:.2f} frames/s end to end)")
        if tracked.shots:
            carried = ("objects are tracked across it" if job.across_cuts else
                       "objects end there, unless a mask is given in that frame; --across-cuts tracks on")
            tell([f"a new shot begins with frame {name_a_few(tracked.shots)}: {carried}"])
        if output.doubtful:
            print(f"worth a look: frames {', '.join(map(str, output.doubtful))}")


def _video_settings(args):
    """The VideoSettings of the command line. Raises InputError for options that do not go together."""
    job = settings_from(VideoSettings, args)
    if args.inputs:
        if job.video:
            raise InputError(f"{args.inputs[0]}: --video is given, too; give the video once, and masks with --mask")
        job = dataclasses.replace(job, video=args.inputs[:1], mask=(args.inputs[1:] + (job.mask or [])) or None)
    if job.resume and any(is_stream(video) for video in job.video or []):
        raise InputError(f"--resume reads the video from its start; {public_name(job.video[0])} gives other frames "
                         "each time")
    if (job.mask or job.click or job.box) and not job.video:
        raise InputError("--mask, --click and --box need a --video, too; none of them runs the built-in example")
    if (job.click or job.box) and any(is_stream(video) for video in job.video):
        raise InputError(f"--click and --box look at frames before tracking, and {public_name(job.video[0])} gives its "
                         "frames only once; save it as a file")
    if args.example and job.video:
        raise InputError("--example renders its own video and mask; leave out --video and --mask")
    if not job.video and (job.start or job.end or job.backward or job.both_ways):
        raise InputError("--start, --end, --backward and --both-ways need a --video")
    check_directions(job)
    return job


def run_example(tracking, job):
    """Render a clip, track it, and compare with the truth."""
    model = open_model(tracking)
    output = Path(job.output) / "example"
    truth = write_example(output / "input")
    names = sorted(file.stem for file in truth.iterdir())
    first = truth / f"{names[0]}.png"
    job = dataclasses.replace(job, video=[str(output / "input" / "frames")], mask=[str(first)], output=str(output))
    track_video(tracking, job, lambda: model, Terminal())

    pairs = [(read_mask(truth / f"{name}.png"), read_mask(output / "masks" / f"{name}.png"))
             for name in names[1:]]
    for object_id in sorted(set(read_mask(first).ravel().tolist()) - {0}):
        mean = sum(jaccard(true == object_id, found == object_id) for true, found in pairs) / len(pairs)
        print(f"object {object_id}: J {mean:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
