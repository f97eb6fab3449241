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
import itertools
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

from dataset.synthetic import write_example
from evaluation.measures import jaccard
from exporting.run import check_formats, export_folder, export_targets, list_exports, refuse_targets
from inference_core import InferenceCore, open_network, precision_name, track_frames
from inference_core.annotations import find_masks, list_given_files
from inference_core.both_ways import track_both_ways
from inference_core.clicked_masks import find_hint_frames, mark_objects, read_hints
from inference_core.track_output import TrackOutput
from inference_core.tracking import name_objects
from model import load_clicks
from model.checkpoint import preset_name
from util.cuts import CutFinder
from util.decoding import is_stream, public_name
from util.device import device_name, pick_device
from util.errors import InputError, name_a_few, run_script
from util.files import file_sha256
from util.hyper_para import ExportSettings, OptionParser, TrackingSettings, VideoSettings, settings_from
from util.image_frames import write_image
from util.image_io import read_image, read_mask, write_mask
from util.notices import list_notices, tell
from util.progress import progress_bar
from util.timing import Latencies, peak_memory_mb
from util.video import open_frames

KEEP_SECONDS = 5
"""How often the core's state is written, for --resume."""


def get_args_parser():
    parser = OptionParser("track.py", __doc__)
    parser.add_argument("--example", action="store_true",
                        help="track a rendered clip with known masks (default: if neither --video nor --mask is given)")
    parser.add_argument("inputs", nargs="*", metavar="VIDEO MASK",
                        help="the same as --video VIDEO --mask MASK …; without MASK, the first frame is written "
                             "(default: see --video and --mask)")
    parser.add_settings(VideoSettings)
    parser.add_settings(TrackingSettings, "tracking", size=480, amp="auto")
    return parser


def main(args):
    tracking, job = settings_from(TrackingSettings, args), _video_settings(args)
    output = Path(job.output)
    if not job.video:
        return run_example(tracking, job)
    if job.start:
        # Frames before it are decoded, too: only so it is sure which number a frame has.
        print(f"reading up to {job.start}", file=sys.stderr)
    frames = open_frames(job.video, list_given_files(job.mask or []), start=job.start, end=job.end,
                         threads=tracking.threads)
    seekable = frames.seekable() if job.backward or job.both_ways else None
    last = next(seekable.backwards()) if job.backward else None
    given = [*(job.mask or []), *mark_clicked(tracking, job, frames, seekable, last)]
    if not given:
        frame, name = (last, "last.png") if job.backward else (next(iter(frames)), "first.png")
        _write_frame_to_draw_on(frame, output / name, job.overwrite)
    notices = []
    masks = find_masks(given, frames, _network_size(tracking, frames), notices, last and last.name)
    tell(list_notices(notices))
    network = open_network(tracking)
    _refuse_to_overwrite([*job.video, *frames.files, *masks.values()], output)
    _check_export(job, output)
    track(tracking, job, network, frames, masks, output, seekable)
    export(job, output)
    return 0


def mark_clicked(tracking, job, frames, seekable, last):
    """Write the masks that --click and --box stand for, and return them as values of --mask.

    seekable: `frames` as SeekableFrames, or None. last: the frame where tracking begins, if it goes backwards.
    """
    hints = find_hint_frames(read_hints(job.click, job.box), frames, last and last.name)
    if not hints:
        return []
    network, seekable = load_clicks(device=pick_device(tracking.device)), seekable or frames.seekable()
    masks = {name: mark_objects(network, seekable[_find_position(seekable, name, given[0].text)].image, given)
             for name, given in hints.items()}
    folder = Path(job.output) / "clicked"
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in masks.items():
        write_mask(folder / f"{name}.png", ids)
    print(f"made masks of {len(masks)} frames from {sum(map(len, hints.values()))} clicks and boxes, in {folder}",
          file=sys.stderr)
    return [f"{name}:{folder / name}.png" for name in masks]


def _check_export(job, output):
    """Raise InputError if the masks could not be exported at the end."""
    streams = ["standard input" if video == "-" else public_name(video) for video in job.video if is_stream(video)]
    once = f"{streams[0]} gives them only once, and --export comes after tracking; save it as a file" if streams else ""
    check_formats(job.export, once)
    refuse_targets(output / "export", ExportSettings(format=job.export, overwrite=True))


def export(job, output):
    """Export the masks in `output` as --export says, and name earlier exports that do not show these masks."""
    exports = output / "export"
    old = [str(path) for path in list_exports(exports)]
    if job.export:
        export_folder(output, ExportSettings(format=job.export, overwrite=True))
        old = [path for path in old if Path(path) not in export_targets(exports, job.export)]
    tell([f"{name_a_few(old)}: exported from earlier masks, not from these"] if old else [])


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
    if job.both_ways and (job.backward or job.resume):
        raise InputError(f"--both-ways goes {'backwards, too' if job.backward else 'through the video twice'}; leave "
                         f"out {'--backward' if job.backward else '--resume'}")
    return job


def _write_frame_to_draw_on(frame, path, overwrite):
    """Write the frame that needs a mask, and raise the InputError that says how to go on."""
    if not overwrite and path.exists() and not np.array_equal(read_image(path), frame.image):
        raise InputError(f"no --mask is given, and {path} is there already and is not frame {frame.name}: if it is "
                         f"the mask, give --mask {path}, else --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, frame.image)
    raise InputError(f"no --mask is given; frame {frame.name} is now in {path}: make everything black in it but the "
                     "objects, each in one flat colour of its own, save this as mask.png, and give the same command "
                     "with --mask mask.png; or give --click X,Y with a pixel of the object")


def _network_size(tracking, frames):
    """The shorter side to which frames are reduced, None if they keep their size."""
    return tracking.size if 0 < tracking.size < min(frames.size) else None


def run_example(tracking, job):
    """Render a clip, track it, and compare with the truth."""
    network = open_network(tracking)
    output = Path(job.output) / "example"
    truth = write_example(output / "input")
    frames = open_frames([str(output / "input" / "frames")])
    first = truth / f"{frames.names[0]}.png"
    job = dataclasses.replace(job, video=[str(output / "input" / "frames")])
    _check_export(job, output)
    track(tracking, job, network, frames, find_masks([str(first)], frames), output)
    export(job, output)

    pairs = [(read_mask(truth / f"{name}.png"), read_mask(output / "masks" / f"{name}.png"))
             for name in frames.names[1:]]
    for object_id in sorted(set(read_mask(first).ravel().tolist()) - {0}):
        mean = sum(jaccard(true == object_id, found == object_id) for true, found in pairs) / len(pairs)
        print(f"object {object_id}: J {mean:.3f}")
    return 0


def track(tracking, job, network, frames, masks, folder, seekable=None):
    """Track the objects of `masks` (find_masks) through `frames` (open_frames) and write all into `folder`.

    seekable: these frames as SeekableFrames, to track them backwards or both ways; None: forwards.
    tracking, job: the TrackingSettings and VideoSettings of util.hyper_para. Raises InputError if a frame cannot be
    used or a file cannot be written; finished masks stay.
    """
    # Prepare the core, and the folder that takes the results.
    device = next(network.parameters()).device
    size = _network_size(tracking, frames)
    core = InferenceCore(network, **tracking.core(), size=size)
    header = describe_run(tracking, job, network, frames, masks, size)
    output = TrackOutput(folder, frames, header, video=_identify_video(job), overwrite=job.overwrite,
                         overlay=not job.no_overlay, stamp=job.stamp, scores=job.save_scores, threads=tracking.threads,
                         run=describe_inputs(header, job, masks), resume=job.resume, draw_later=seekable is not None)
    length, reading = frames.length, iter(frames)
    positions = [_find_position(seekable, *given) for given in masks.items()] if job.both_ways else []
    if job.both_ways:
        # Frames between masks are tracked twice.
        length = len(seekable) + max(positions) - min(positions) + 1
    elif job.backward:
        last = _find_position(seekable, *next(iter(masks.items())))
        length, reading = last + 1, seekable.backwards(last)
    told = tell(frames.notices)

    # Masks are read when their frames come.
    waiting = {} if job.both_ways else dict(masks)

    def mask_of(name, image):
        return name_objects(waiting.pop(name).read(frames.size)) if name in waiting else None

    # Track frame by frame. Writing happens in threads.
    network_time, whole_time = Latencies(), Latencies()
    cuts, shots, before = CutFinder(), [], None
    bar = progress_bar(length, "tracking")
    try:
        with output:
            start = lap = kept = time.perf_counter()
            if job.resume:
                shots += take_over(core, output, reading, waiting, cuts, bar)
            if job.both_ways:
                tracked = track_both_ways(core, seekable, masks, folder, across_cuts=job.across_cuts,
                                          kept=bar.increment)
            else:
                tracked = track_frames(core, reading, mask_of, cuts=cuts, across_cuts=job.across_cuts,
                                       started=output.finished > 0)
            for frame in tracked:
                confidence = totals = scores = None
                if frame.ids is not None:
                    network_time.add(frame.seconds)
                    confidence = frame.probabilities.amax(0).cpu().numpy()
                    totals = frame.probabilities[1:].sum((1, 2)).tolist()
                    if output.scores:
                        scores = (frame.probabilities * 255).round().byte().cpu().numpy()
                output.add(frame, confidence, totals, scores)
                if frame.cut:
                    back = seekable is not None and seekable.position(before) > seekable.position(frame.name)
                    shots.append(before if back else frame.name)
                before = frame.name
                now = time.perf_counter()
                whole_time.add(now - lap)
                lap = now
                if now - kept >= KEEP_SECONDS and not job.both_ways:
                    output.keep(core.state())
                    kept = now
                bar.increment()
            if seekable is not None:
                output.draw(seekable.forwards())
            output.finish({
                "cuts": shots,
                "speed": {"end_to_end": whole_time.summary(), "network": network_time.summary()},
                "peak_memory_mb": peak_memory_mb(device),
            })
    except (InputError, OSError, KeyboardInterrupt) as error:
        raise _add_what_is_finished(error, output) from error
    finally:
        bar.finish(dirty=True)
        tell(frames.notices, told)

    # Say what was written, and what was not used.
    seconds = time.perf_counter() - start
    extra = ", overlay.mp4" if output.overlay else ""
    print(f"wrote {output.finished} masks to {output.masks}{extra} and summary.json beside it "
          f"({whole_time.count} frames, {whole_time.count / seconds:.2f} frames/s end to end)")
    if shots:
        carried = ("objects are tracked across it" if job.across_cuts else
                   "objects end there; give a mask in the new shot, or track on with --across-cuts")
        tell([f"a new shot begins with frame {name_a_few(shots)}: {carried}"])
    if output.doubtful:
        frames_to_see = ", ".join(f"{doubt.frame} (object {doubt.object_id}, {100 * doubt.quality:.0f} %)"
                                  for doubt in output.doubtful)
        print(f"worth a look: frames {frames_to_see}")
    if waiting:
        frame, mask = next(iter(waiting.items()))
        first = frames.first if seekable is None else next(iter(masks))
        raise InputError(f"{mask}: not used, since frame {frame} is not among the {whole_time.count} frames that could "
                         f"be tracked, from {first} on")


def _find_position(seekable, name, mask):
    """The position of the frame of this name. Raises InputError, naming its mask, if there is no such frame."""
    try:
        return seekable.position(name)
    except KeyError:
        raise InputError(f"{mask}: no frame {name} can be tracked; the last is "
                         f"{seekable.name(len(seekable) - 1)}") from None


def take_over(core, output, reading, waiting, cuts, bar):
    """Take the frames that an interrupted run has finished from its files, and set the core to where it stopped.

    reading: an iterator of the frames, which is then at the next one. waiting: {frame's name: mask}, which then holds
    the masks of the frames that follow. Returns the names of the frames that the CutFinder `cuts` takes for cuts.
    """
    if output.state is None:
        print(f"there is nothing to go on from in {output.folder}, so this is a new run", file=sys.stderr)
        return []
    shots = []
    core.restore(output.state)
    print(f"going on after {output.state.next_frame} frames", file=sys.stderr)
    for name, image, *shown in itertools.islice(reading, output.state.next_frame):
        output.take_over(name, image, *shown)
        waiting.pop(name, None)
        shots += [name] if cuts.is_cut(image) else []
        bar.increment()
    return shots


def describe_inputs(header, job, masks):
    """What must be the same in a run that goes on from another one. header: of summary.json."""
    return {**header, "save_scores": job.save_scores, "video": _identify_video(job),
            "masks": {frame: file_sha256(file) for frame, file in masks.items()}}


def describe_run(tracking, job, network, frames, masks, size):
    """What summary.json says of a run before its frames: inputs, settings, network, versions, device."""
    device = next(network.parameters()).device
    return {
        "written_by": "track.py",
        "video": [public_name(video) for video in job.video],
        "start": job.start,
        "end": job.end,
        "backward": job.backward,
        "both_ways": job.both_ways,
        "width": frames.size[0],
        "height": frames.size[1],
        "frame_rate": float(frames.rate),
        "pixel_aspect": float(frames.look.pixel_aspect),
        "across_cuts": job.across_cuts,
        "annotated": {frame: str(file) for frame, file in masks.items()},
        "settings": {**tracking.core(), "size": size},
        "precision": precision_name(tracking.amp, device),
        "model": {"file": tracking.model, "preset": preset_name(network.config),
                  "sha256": file_sha256(tracking.model)},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "device": device_name(device),
    }


def _identify_video(job):
    """What two runs on the same frames have in common; None where the source gives other frames each time."""
    if any(is_stream(video) for video in job.video):
        return None
    return {"files": [str(Path(video).resolve()) for video in job.video], "start": job.start, "end": job.end,
            **({"backward": True} if job.backward else {}), **({"both_ways": True} if job.both_ways else {})}


def _add_what_is_finished(error, output):
    """The same error with what is finished added to its message."""
    kept = f"{output.finished} finished masks are in {output.masks}"
    if isinstance(error, KeyboardInterrupt):
        cure = "; the same command with --resume goes on from here" if output.can_go_on else ""
        return KeyboardInterrupt(kept + cure)
    if isinstance(error, OSError):
        return InputError(f"{error.filename or output.folder}: {error.strerror or error}; {kept}")
    return InputError(f"{error}; {kept}")


def _refuse_to_overwrite(inputs, output):
    for path in inputs:
        for result in ("masks", "scores", "overlay.mp4", "summary.json"):
            if Path(path).resolve().is_relative_to((output / result).resolve()):
                raise InputError(f"{path}: {output / result} is written anew; choose another --output")


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
