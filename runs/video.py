"""Track the objects of one video into a folder of results, as track.py does."""

import itertools
import platform
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from exporting.run import check_formats, export_folder, export_targets, list_exports, refuse_targets
from inference_core import InferenceCore, open_engine, precision_name, track_frames
from inference_core.annotations import find_masks, list_given_files, place_masks
from inference_core.both_ways import track_both_ways
from inference_core.capture import CompiledEngine
from inference_core.clicked_masks import find_hint_frames, mark_objects, read_hints, write_clicked
from inference_core.results_folder import find_earlier_results, read_items
from inference_core.sizes import network_size, pick_size
from inference_core.track_output import TrackOutput
from inference_core.tracking import name_objects
from model import load_clicks
from model.checkpoint import preset_name
from model.inference import InferenceNetwork
from runs.addresses import describe_all, replace_all
from util.cuts import CutFinder
from util.decoding import is_stream, public_name
from util.device import device_name, pick_device
from util.errors import InputError, name_a_few
from util.files import file_sha256
from util.hyper_para import ExportSettings
from util.image_frames import write_image
from util.image_io import read_image
from util.notices import list_notices
from util.timing import Latencies, peak_memory_mb
from util.video import open_frames

KEEP_SECONDS = 5
"""How often the core's state is written, for --resume."""


class Model(NamedTuple):
    """What tracks, and what tells its file from others."""

    engine: InferenceNetwork | CompiledEngine
    """With the weights of the network, as cores use them."""

    sha256: str
    """Of the file, in hexadecimal."""


def open_model(tracking):
    """Return the Model that TrackingSettings name, and prepare this process, see `open_engine`."""
    return Model(open_engine(tracking), file_sha256(tracking.model))


class Tracked(NamedTuple):
    """What became of a video that was tracked to its end."""

    output: TrackOutput
    """It is closed."""

    frames: int
    """How many were tracked, without those that an interrupted run had finished."""

    seconds: float

    shots: list
    """The names of the frames with which new shots begin."""


class _Shots:
    """The names of the frames with which new shots begin, among those that come one after the other, either way."""

    def __init__(self, seekable):
        """seekable: the frames as SeekableFrames, None where they come in their order."""
        self.names, self._seekable, self._before = [], seekable, None

    def add(self, name, is_cut):
        """The next frame. is_cut: whether there is a cut between it and the one before."""
        if is_cut:
            # Where frames come backwards, the shot after the cut begins with the one that came before. Both ways, the
            # first frame that comes may be one after a cut.
            back = self._seekable is not None and self._before is not None and \
                self._seekable.position(self._before) > self._seekable.position(name)
            self.names.append(self._before if back else name)
        self._before = name


class Watcher:
    """Is told what `track_video` does; this one does nothing with it."""

    def begin(self, length):
        """Tracking begins. length: how many frames come, None if it is not known, which may be wrong."""

    def count(self, name=None, image=None):
        """A frame is done. name, image (uint8 H×W×3): None where a frame is tracked for the first of two times."""

    def end(self):
        """Tracking has ended, with or without an error."""

    def say(self, line):
        """What is being done."""

    def note(self, line):
        """What may not be as the user meant it."""

    def done(self, tracked, job):
        """All files are written. tracked: a Tracked."""


def track_video(tracking, job, find_model, watcher, *, fetched=None, begin_anew=False):
    """Track the objects of a video and write all results, and exports, into the folder job.output.

    tracking, job: the TrackingSettings and VideoSettings of util.hyper_para; there is a video. find_model: function
    that returns the Model; it is called once the video is known to be usable. watcher: a Watcher. fetched: {address
    in job.video or job.mask: the local file or folder that is read in its place}. begin_anew: where job.resume finds a
    run with other settings or inputs, or one that is finished, begin anew instead of refusing, or of doing nothing.

    Raises InputError if an input cannot be used or a file cannot be written; finished masks stay.
    """
    output, fetched = Path(job.output), fetched or {}
    video, given = ([replace_all(value, fetched) for value in values or ()] for values in (job.video, job.mask))
    if job.start:
        # Frames before it are decoded, too: only so it is sure which number a frame has.
        watcher.say(f"reading up to {job.start}")
    frames = open_frames(video, list_given_files(given), start=job.start, end=job.end, threads=tracking.threads)
    seekable = frames.seekable() if job.backward or job.both_ways else None
    last = next(seekable.backwards()) if job.backward else None
    given += _mark_clicked(tracking, job, frames, given, seekable, last, watcher, fetched, begin_anew)
    if not given:
        frame, name = (last, "last.png") if job.backward else (next(iter(frames)), "first.png")
        _write_frame_to_draw_on(frame, output / name, job.overwrite)
    notices = []
    model = find_model()
    size = network_size(pick_size(tracking.size, model.engine.config), frames.size)
    masks = find_masks(given, frames, size, notices, last and last.name)
    for line in list_notices(notices):
        watcher.note(line)
    _refuse_to_overwrite([*video, *frames.files, *masks.values()], output)
    check_export(job, video)
    _track(tracking, job, model, frames, masks, size, seekable, watcher, fetched, begin_anew)
    export(job, watcher, video if fetched else None)


def _mark_clicked(tracking, job, frames, given, seekable, last, watcher, fetched, begin_anew):
    """Write the masks that --click and --box stand for, and return them as values of --mask.

    given: the values of --mask that are local. seekable: `frames` as SeekableFrames, or None. last: the frame where
    tracking begins, if it goes backwards. Raises InputError before anything is written that should stay.
    """
    hints = find_hint_frames(read_hints(job.click, job.box), frames, last and last.name)
    if not hints:
        return []
    folder = Path(job.output) / "clicked"
    masked = place_masks(given, frames, last=last and last.name)
    for name in hints:
        # A folder that is given may be the one that the clicks' masks are in.
        if name in masked and masked[name].file.resolve() != (folder / f"{name}.png").resolve():
            raise InputError(f"{hints[name][0].text}: frame {name} already has a mask, {masked[name]}; leave one of "
                             "them out, or draw into the mask what you click at")
    find_earlier_results(Path(job.output), _identify_video(job, fetched), job.overwrite)
    network, seekable = load_clicks(device=pick_device(tracking.device)), seekable or frames.seekable()
    masks = {name: mark_objects(network, seekable[_find_position(seekable, name, marks[0].text)].image, marks)
             for name, marks in hints.items()}
    files = write_clicked(folder, masks, job.overwrite, job.resume and not begin_anew)
    watcher.say(f"masks made from clicks and boxes: {name_a_few(list(map(str, files.values())))}")
    found = {file.resolve() for file in list_given_files(given)}
    return [f"{name}:{file}" for name, file in files.items() if file.resolve() not in found]


def check_export(job, video):
    """Raise InputError if the masks could not be exported at the end. video: what is read, values of --video."""
    streams = ["standard input" if text == "-" else public_name(text) for text in video if is_stream(text)]
    once = f"{streams[0]} gives them only once, and --export comes after tracking; save it as a file" if streams else ""
    check_formats(job.export, once)
    refuse_targets(Path(job.output) / "export", ExportSettings(format=job.export, overwrite=True))


def export(job, watcher, video=None):
    """Export the masks in job.output as --export says, and name earlier exports that do not show these masks.

    video: what is read for the frames, values of --video; None: what summary.json says.
    """
    output, exports = Path(job.output), Path(job.output) / "export"
    old = [str(path) for path in list_exports(exports)]
    if job.export:
        export_folder(output, ExportSettings(format=job.export, overwrite=True, video=video and video[0]))
        old = [path for path in old if Path(path) not in export_targets(exports, job.export)]
    if old:
        watcher.note(f"{name_a_few(old)}: exported from earlier masks, not from these")


def _track(tracking, job, model, frames, masks, size, seekable, watcher, fetched, begin_anew):
    """Track the objects of `masks` (find_masks) through `frames` (open_frames) and write all but exports.

    size: as for an InferenceCore. seekable: these frames as SeekableFrames, to track them backwards or both ways; None:
    forwards. The others are those of `track_video`.
    """
    # Prepare the core, and the folder that takes the results.
    device = model.engine.device
    core = InferenceCore(model.engine, **tracking.core(), size=size)
    header = _describe_run(tracking, job, model, frames, masks, core, fetched)
    output = TrackOutput(job.output, frames, header, video=_identify_video(job, fetched), overwrite=job.overwrite,
                         overlay=not job.no_overlay, stamp=job.stamp, scores=job.save_scores, threads=tracking.threads,
                         run=_describe_inputs(header, job, frames, masks, fetched), resume=job.resume,
                         begin_anew=begin_anew, position=None if seekable is None else seekable.position)
    if job.resume and not begin_anew and output.is_finished:
        names = {frame["name"] for frame in read_items(output.summary)}
        _refuse_unused({name: mask for name, mask in masks.items() if name not in names}, len(names), next(iter(masks)))
        watcher.say(f"{output.folder}: finished already, with the same inputs and settings")
        return
    length, reading = frames.length, iter(frames)
    positions = [_find_position(seekable, *given) for given in masks.items()] if job.both_ways else []
    if job.both_ways:
        # Frames between masks are tracked twice.
        length = len(seekable) + max(positions) - min(positions) + 1
    elif job.backward:
        last = _find_position(seekable, *next(iter(masks.items())))
        length, reading = last + 1, seekable.backwards(last)
    told = list(frames.notices)
    for line in told:
        watcher.note(line)

    # Masks are read when their frames come.
    waiting = {} if job.both_ways else dict(masks)

    def mask_of(name, image):
        return name_objects(waiting.pop(name).read(frames.size)) if name in waiting else None

    # Track frame by frame. Writing happens in threads.
    network_time, whole_time = Latencies(), Latencies()
    cuts, shots = CutFinder(), _Shots(seekable)
    watcher.begin(length)
    try:
        with output:
            start = lap = kept = time.perf_counter()
            if job.resume:
                _take_over(core, output, reading, waiting, cuts, shots, watcher)
            if job.both_ways:
                tracked = track_both_ways(core, seekable, masks, output.folder, across_cuts=job.across_cuts,
                                          kept=watcher.count)
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
                shots.add(frame.name, frame.cut)
                now = time.perf_counter()
                whole_time.add(now - lap)
                lap = now
                if now - kept >= KEEP_SECONDS and not job.both_ways:
                    output.keep(core.state())
                    kept = now
                watcher.count(frame.name, frame.image)
            if seekable is not None:
                output.draw(seekable.forwards())
            output.finish({
                "cuts": shots.names,
                "speed": {"end_to_end": whole_time.summary(), "network": network_time.summary()},
                "peak_memory_mb": peak_memory_mb(device),
            })
    except (InputError, OSError, KeyboardInterrupt) as error:
        raise _add_what_is_finished(error, output) from error
    finally:
        watcher.end()
        for line in frames.notices:
            if line not in told:
                watcher.note(line)

    watcher.done(Tracked(output, whole_time.count, time.perf_counter() - start, shots.names), job)
    _refuse_unused(waiting, whole_time.count, frames.first if seekable is None else next(iter(masks)))


def _refuse_unused(masks, count, first):
    """Raise InputError if masks are left. count: how many frames could be tracked; first: the name of the first one."""
    for frame, mask in masks.items():
        raise InputError(f"{mask}: not used, since frame {frame} is not among the {count} frames that could be "
                         f"tracked, from {first} on")


def _find_position(seekable, name, mask):
    """The position of the frame of this name. Raises InputError, naming its mask, if there is no such frame."""
    try:
        return seekable.position(name)
    except KeyError:
        raise InputError(f"{mask}: no frame {name} can be tracked; the last is "
                         f"{seekable.name(len(seekable) - 1)}") from None


def _take_over(core, output, reading, waiting, cuts, shots, watcher):
    """Take the frames that an interrupted run has finished from its files, and set the core to where it stopped.

    reading: an iterator of the frames, which is then at the next one. waiting: {frame's name: mask}, which then holds
    the masks of the frames that follow. shots: the _Shots, which gets what the CutFinder `cuts` says of the frames.
    """
    if output.state is None:
        watcher.say(f"there is nothing to go on from in {output.folder}, so this is a new run")
        return
    core.restore(output.state)
    watcher.say(f"going on after {output.state.next_frame} frames")
    for name, image, *shown in itertools.islice(reading, output.state.next_frame):
        output.take_over(name, image, *shown)
        waiting.pop(name, None)
        shots.add(name, cuts.is_cut(image))
        watcher.count(name, image)


def _describe_inputs(header, job, frames, masks, fetched):
    """What must be the same in a run that goes on from another one. header: of summary.json.

    Files count by what is in them, not by how their paths are written; those of the video by their sizes and times.
    """
    header = {name: value for name, value in header.items() if name != "annotated"}
    return {**header, "model": header["model"]["sha256"], "save_scores": job.save_scores,
            "overlay": not job.no_overlay, "stamp": job.stamp, "video": _identify_video(job, fetched),
            "frames": describe_all([video for video in job.video if video in fetched] or _tracked_files(frames)),
            "masks": {frame: file_sha256(file) for frame, file in masks.items()}}


def _tracked_files(frames):
    """The files of the frames from --start to --end; what else is in their folder does not matter."""
    names = None if frames.names is None else set(frames.names)
    return [file for file in frames.files if names is None or Path(file).stem in names]


def _describe_run(tracking, job, model, frames, masks, core, fetched):
    """What summary.json says of a run before its frames: inputs, settings, network, versions, device."""
    device = model.engine.device
    addresses = {local: address for address, local in fetched.items()}
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
        "annotated": {frame: public_name(replace_all(str(file), addresses)) for frame, file in masks.items()},
        "settings": {**tracking.core(), "size": core.size, "places": core.places},
        "precision": precision_name(tracking.amp, device),
        "model": {"file": tracking.model, "preset": preset_name(model.engine.config), "sha256": model.sha256},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "device": device_name(device),
    }


def _identify_video(job, fetched):
    """What two runs on the same frames have in common; None where the source gives other frames each time."""
    if any(is_stream(video) and video not in fetched for video in job.video):
        return None
    files = [public_name(video) if video in fetched else str(Path(video).resolve()) for video in job.video]
    return {"files": files, "start": job.start, "end": job.end,
            **({"backward": True} if job.backward else {}), **({"both_ways": True} if job.both_ways else {})}


def _add_what_is_finished(error, output):
    """The same error with what is finished added to its message."""
    kept = f"{output.finished} finished masks are in {output.masks}"
    if isinstance(error, KeyboardInterrupt):
        cure = ("; the same command with --resume goes on from here, or from up to "
                f"{KEEP_SECONDS} seconds before" if output.can_go_on else "")
        return KeyboardInterrupt(kept + cure)
    if isinstance(error, OSError):
        error = InputError(f"{error.filename or output.folder}: {error.strerror or error}")
    # A run that is refused has finished nothing, but the folder may hold masks of an earlier one.
    return InputError(f"{error}; {kept}") if output.finished else error


def _refuse_to_overwrite(inputs, output):
    for path in inputs:
        for result in ("masks", "scores", "overlay.mp4", "summary.json"):
            if Path(path).resolve().is_relative_to((output / result).resolve()):
                raise InputError(f"{path}: {output / result} is written anew; choose another --output")


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
