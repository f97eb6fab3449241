"""The options of all scripts.

An option that code below a script's `main` depends on is declared once, as a field of a frozen settings class, where
its name, default, help and checks stand together. `util.options` puts these fields on the command line, and makes the
object that is handed on. A script adds those options itself that only its `main` looks at.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from util.errors import InputError
from util.machine import computing_threads
from util.options import (
    above_zero,
    few,
    few_or_none,
    few_pixels,
    fraction,
    gpu_share,
    not_negative,
    option,
    plain_name,
    port,
    positive,
    settings_from,
    shard,
    some_pixels,
    whole,
)

COMPACT = str(Path(__file__).parents[1] / "weights" / "compact.pth")
"""The network that comes with the repository, see docs/COMPACT.md."""

DAVIS_FOLDER = "DAVIS, DAVIS/2017, DAVIS/2016, or the folder in it that holds ImageSets"
"""What --davis-path is, in every script; `dataset.trees.find_davis_home` reads it."""

MODES = ("stm", "gt", "last", "two-frames", "compress", "gt-compress", "last-compress", "two-frames-compress")
"""Names of the memory modes; `inference_core.memory.READS` says what each holds."""

PRESET_NAMES = ("base", "compact", "tiny")
"""Names of the networks; `model.PRESETS` says what each is."""

EXPORT_FORMATS = ("coco", "yolo", "cvat", "mot", "mots", "labelme", "sa-v", "boxes-csv", "indexed-png", "images",
                  "mattes", "matte-video", "prores", "webm-alpha", "cutout-png", "gif")
"""Names of what masks are exported to; `exporting.formats` says what writes each."""

NO_RUN = "NULL"
"""The --id of a training that writes nothing."""

SHOTS = 5
"""Frames of a sample of a video, as the published step takes them."""

STAGES = {
    0: {"data": "static images", "lr": 1e-5, "batch_size": 8, "iterations": 300000, "steps": [150000]},
    1: {"data": "BL30K", "lr": 1e-5, "batch_size": 4, "iterations": 500000, "steps": [400000]},
    2: {"data": "DAVIS and YouTube-VOS", "lr": 1e-5, "batch_size": 4, "iterations": 300000, "steps": [250000]},
    3: {"data": "DAVIS and YouTube-VOS", "lr": 1e-5, "batch_size": 4, "iterations": 150000, "steps": [125000]},
    "clicks": {"data": "images with objects", "lr": 5e-4, "batch_size": 8, "iterations": 8000, "steps": [6000]},
}
"""What a stage of training trains on, and its published recipe: the defaults of the options of the same names."""


def stage(text):
    """An argparse type: a key of STAGES."""
    return text if text in STAGES else whole(text)


@dataclass(frozen=True)
class TrackingSettings:
    """The options of every script that tracks. The defaults are those for DAVIS."""

    model: str = option(COMPACT, "file with the network's weights (default: the compact network that comes with the "
                                 "repository)", metavar="FILE")
    mode: str = option("two-frames-compress", f"what the memory holds: {', '.join(MODES)}; docs/EVALUATION.md explains "
                                              "them (default: %(default)s)", choices=MODES, metavar="MODE")
    mem_every: int = option(3, "take every Nth frame into the memory (default: %(default)s)", type=positive,
                            metavar="N")
    include_last: bool = option(False, "take every frame into the memory (default: every Nth, see --mem-every)")
    top_k: int = option(40, "let each place of a frame look at the K places in the memory that are most like it "
                            "(default: %(default)s)", names=["top"], type=positive, metavar="K")
    size: int | None = option(None, "bring the shorter side of the frames to so many pixels for the network; 0 keeps "
                                    "the frames' own size (default: 560 for the compact network; for others the "
                                    "frames' own size on DAVIS, and 480 elsewhere)", type=whole, metavar="PIXELS")
    places: str = option("auto", "on: tell objects from others that look alike also by where they are; off: by their "
                                 "looks alone, as published; auto is on for the compact network, and off for the "
                                 "published one (default: %(default)s)", choices=("auto", "on", "off"))
    amp: str | bool = option("float32", "compute in this precision: float32, or float16 or bfloat16, which are often "
                                        "faster, with slightly other masks; --amp without a value is float16 on a GPU "
                                        "and bfloat16 on the CPU; auto is bfloat16 on CPUs that have hardware for it "
                                        "(AMX), else float32 (default: %(default)s)",
                             nargs="?", const=True, choices=("auto", "float16", "bfloat16", "float32"), metavar="DTYPE")
    compile: bool = option(False, "compile the network first, on a GPU as CUDA graphs; this takes about a minute, then "
                                  "tracking is faster (default: do not)")
    device: str = option("auto", "compute on cpu, cuda, cuda:1 or mps; auto is the fastest that there is (default: "
                                 "%(default)s)", metavar="DEVICE")
    threads: int | None = option(None, "number of CPU threads of each process (default: OMP_NUM_THREADS, else all "
                                       "cores that it may use)", type=few, metavar="N")

    def core(self):
        """The keyword arguments of `InferenceCore` that these settings stand for, `size` excepted."""
        return {"mode": self.mode, "mem_every": self.mem_every, "top_k": self.top_k,
                "include_last": self.include_last, "amp": self.amp != "float32" and self.amp, "compile": self.compile,
                "places": {"auto": None, "on": True, "off": False}[self.places]}


@dataclass(frozen=True)
class VideoResultSettings:
    """What track.py and track_many.py write of a video, and what becomes of its objects where a new shot begins."""

    overwrite: bool = option(False, "replace the results of another video, or of another part of it (default: refuse)")
    stamp: bool = option(False, "write each frame's name and time into a corner of the overlay (default: only the "
                                "objects' ids)")
    across_cuts: bool = option(False, "track objects on where a new shot begins (default: they end there)")
    no_overlay: bool = option(False, "write no overlay.mp4 (default: write it)")
    save_scores: bool = option(False, "also write the probabilities of each frame, 0 to 255, into the folder scores "
                                      "(default: only masks)")
    export: list = option((), f"also export the masks, when all are there, into OUTPUT/export: "
                              f"{', '.join(EXPORT_FORMATS)}; export_masks.py has more options (default: do not)",
                          nargs="+", choices=EXPORT_FORMATS, metavar="FORMAT")


@dataclass(frozen=True)
class VideoSettings(VideoResultSettings):
    """Which video track.py tracks, and what it writes."""

    video: list | None = option(None, "a video file, a folder of images, a glob, image files, an image file with "
                                      "several frames, an address (rtsp://, https://), a camera (camera:0), or - for "
                                      "standard input (default: the video of the built-in example)", nargs="+",
                                metavar="VIDEO")
    mask: list | None = option(None, "mask of the first frame as PNG, a folder of PNGs, FRAME:PNG, or "
                                     "FRAME:PNG:ID; may be repeated (default: the mask of the built-in example)",
                               nargs="+", action="extend", metavar="MASK")
    click: list | None = option(None, "instead of a mask, a pixel of an object: FRAME:X,Y:ID, like 120:250,80:2; "
                                      "without FRAME it is in the first frame, without ID of object 1; with a minus "
                                      "before ID it is not of this object; may be repeated (default: see --mask)",
                                nargs="+", action="extend", metavar="CLICK")
    box: list | None = option(None, "instead of a mask, a box that an object fills: FRAME:LEFT,TOP,RIGHT,BOTTOM:ID, in "
                                    "pixels; FRAME and ID may be left out as in --click; may be repeated (default: "
                                    "see --mask)", nargs="+", action="extend", metavar="BOX")
    start: str | None = option(None, "first frame to track: a frame's number or name (250), seconds (12.5 or 12s), "
                                     "minutes (1:30.5) or an editor's timecode (00:01:30:12) (default: the video's "
                                     "first)", metavar="POSITION")
    end: str | None = option(None, "last frame to track, see --start (default: the video's last)", metavar="POSITION")
    backward: bool = option(False, "track towards the beginning, from the last frame that has a mask; a mask without "
                                   "FRAME is that of the last frame (default: towards the end)")
    both_ways: bool = option(False, "track from the given masks to both ends of the video, and frames between two "
                                    "masks from both (default: towards the end)")
    output: str = option("out", "folder for the results (default: %(default)s)", metavar="FOLDER")
    resume: bool = option(False, "go on where an interrupted run of the same command stopped; what is finished stays, "
                                 "and another command is refused (default: begin with the first frame)")


@dataclass(frozen=True)
class ManySettings:
    """Where track_many.py computes, and how its results are put together."""

    output: str = option("out", "folder, or address like s3://bucket/results, in which each video gets a folder of its "
                                "own (default: %(default)s)", metavar="FOLDER")
    workers: int | None = option(None, "number of processes that track on this machine (default: one for each GPU, see "
                                       "--gpus-per-worker; without a GPU, as many as --threads fits into the cores)",
                                 type=few, metavar="N")
    gpus_per_worker: float = option(1, "the share of a GPU that a worker takes: 0.25 lets four workers share each GPU "
                                       "(default: %(default)s)", type=gpu_share, metavar="SHARE")
    ray: str | None = option(None, "track on a Ray cluster: its address, local for one on this machine, or without a "
                                   "value the one that this machine belongs to; requirements-cluster.txt lists what "
                                   "this needs (default: processes on this machine)", nargs="?", const="auto",
                             metavar="ADDRESS")
    shard: tuple = option((1, 1), "track only a part of the list: 3/16 is the third of sixteen parts (default: all)",
                          type=shard, metavar="PART/PARTS")
    worst_first: bool = option(False, "order videos.csv and the page by quality, failed videos first (default: in the "
                                      "order of the list)")


def many_settings(args):
    """The ManySettings that arguments stand for. Raises InputError for options that do not go together."""
    settings = settings_from(ManySettings, args)
    if settings.ray and settings.workers:
        raise InputError("--workers is for processes on this machine, and Ray finds out by itself how many fit; leave "
                         "out --workers or --ray")
    return settings


def check_directions(job):
    """Raise InputError if VideoSettings say to track in directions that do not go together."""
    if job.both_ways and (job.backward or job.resume):
        raise InputError(f"--both-ways goes {'backwards, too' if job.backward else 'through the video twice'}; leave "
                         f"out {'--backward' if job.backward else '--resume'}")


@dataclass(frozen=True)
class ExportSettings:
    """To which formats masks are exported, and what is done to them before."""

    format: list = option((), f"what to write, one or several: {', '.join(EXPORT_FORMATS)}; docs/EXPORTS.md says who "
                              "reads which", nargs="+", choices=EXPORT_FORMATS, metavar="FORMAT", required=True)
    video: str | None = option(None, "the video, the folder of its frames, or for several videos the folder that holds "
                                     "those (default: as summary.json says, or JPEGImages beside Annotations)",
                               metavar="VIDEO")
    output: str | None = option(None, "folder for the exports (default: FOLDER/export for a folder of track.py, else "
                                      "FOLDER_export)", metavar="FOLDER")
    overwrite: bool = option(False, "replace earlier exports to the same formats (default: refuse)")
    names: list | None = option(None, "what objects are, like 1=dog 2=woman (default: as names.json in FOLDER says, "
                                      "else object)", nargs="+", metavar="ID=NAME")
    objects: list | None = option(None, "export only these objects (default: all)", nargs="+", type=positive,
                                  metavar="ID")
    hold: int = option(0, "keep the mask of an object that vanishes for so many frames (default: %(default)s)",
                       type=whole, metavar="N")
    largest: bool = option(False, "keep only the largest part of each object (default: all)")
    fill_holes: bool = option(False, "fill the holes of each object (default: keep them)")
    grow: int = option(0, "move the edges of each object outwards by so many pixels, or inwards if negative (default: "
                          "%(default)s)", type=some_pixels, metavar="PIXELS")
    feather: int = option(0, "make edges so many pixels wide, in formats that can hold this (default: %(default)s)",
                          type=few_pixels, metavar="PIXELS")
    soft: bool = option(False, "take soft edges from the probabilities that track.py --save-scores has written, in "
                               "formats that can hold them (default: hard edges)")


@dataclass(frozen=True)
class PageSettings:
    """Where annotate.py serves its page, and what the page may reach."""

    output: str = option("out", "folder in which each video gets a project, a folder of its own (default: "
                                "%(default)s)", metavar="FOLDER")
    root: str = option(".", "the page may open videos below this folder (default: the current one)", metavar="FOLDER")
    host: str = option("127.0.0.1", "serve the page at this address of this machine, 0.0.0.0 for all of them; then "
                                    "others reach it, too, if they know the token that is printed (default: "
                                    "%(default)s, which nobody else reaches)", metavar="ADDRESS")
    port: int = option(8765, "serve the page at this port, or the next one that is free (default: %(default)s)",
                       type=port, metavar="PORT")
    no_browser: bool = option(False, "only print the page's address (default: open it in the browser)")


def export_settings(args):
    """The ExportSettings that arguments stand for. Raises InputError for options that do not go together."""
    settings = settings_from(ExportSettings, args)
    changes = {"--hold": settings.hold, "--largest": settings.largest, "--fill-holes": settings.fill_holes,
               "--grow": settings.grow, "--feather": settings.feather}
    chosen = [name for name, value in changes.items() if value]
    if settings.soft and chosen:
        raise InputError(f"--soft takes the probabilities as they are; leave out {chosen[0]}")
    return settings


@dataclass(frozen=True)
class ResultSettings:
    """Where an evaluation writes, and what beside the masks."""

    output: str = option(None, "folder for the results", required=True, metavar="FOLDER")
    save_scores: bool = option(False, "also write the probabilities of each frame, 0 to 255, into the folder "
                                      "OUTPUT_scores (default: only masks)")
    zip: bool = option(False, "also write OUTPUT.zip, the archive for the dataset's server (default: do not)")
    overwrite: bool = option(False, "replace results of other settings, weights or first masks (default: refuse)")


@dataclass(frozen=True)
class ScoringSettings:
    """What every script that scores is told."""

    workers: int = option(computing_threads(), "number of processes that score (default: OMP_NUM_THREADS, else one for "
                                               "each core, here %(default)s)", type=few, metavar="N")
    report: str | None = option(None, "also write a report as an HTML file (default: none)", metavar="HTML")


@dataclass(frozen=True)
class DecaySettings(ScoringSettings):
    """What the scripts that also give the decay are told."""

    official_decay: str | None = option(None, "for sequences with more than 255 scored frames, give the official "
                                              "toolkit's wrong decay, as NumPy 1 or 2 computes it (default: the right "
                                              "decay)", choices=("numpy1", "numpy2"))


@dataclass(frozen=True)
class CompareSettings:
    """Which other runs a scoring script compares with."""

    compare: list = option((), "folders with results of other runs on the same videos: print and report the J&F of all "
                               "runs side by side (default: none)", nargs="+", type=Path, metavar="FOLDER")


@dataclass(frozen=True)
class DavisScoringSettings(DecaySettings):
    """What the scripts that score a split of DAVIS are told."""

    results: Path = option(None, "folder that holds a folder of masks for each sequence",
                           names=["results", "results-path"], type=Path, required=True, metavar="FOLDER")
    davis_path: Path = option(Path("DAVIS/2017/trainval"), f"{DAVIS_FOLDER} (default: %(default)s)", type=Path,
                              metavar="FOLDER")
    split: str = option("val", "score the sequences of ImageSets/YEAR/SPLIT.txt (default: %(default)s)",
                        names=["split", "set"], type=plain_name, metavar="SPLIT")


def _stage_defaults(name):
    """How help tells the default of an option that depends on the stage."""
    values = {stage: recipe[name] for stage, recipe in STAGES.items()}
    shown = {stage: " ".join(map(str, value)) if isinstance(value, list) else value for stage, value in values.items()}
    return "default by stage: " + ", ".join(f"{stage}: {value}" for stage, value in shown.items())


@dataclass(frozen=True)
class DataSettings:
    """What a training learns from, and how its samples are made."""

    static_root: str = option("static", "folder of images and masks, X.jpg beside X.png, in folders of any depth "
                                        "(default: %(default)s)", metavar="FOLDER")
    bl_root: str = option("BL30K", "stage 1: folder of BL30K (default: %(default)s)", metavar="FOLDER")
    yv_root: str = option("YouTube", "stages 2 and 3: folder of YouTube-VOS, with train_480p or train in it (default: "
                                     "%(default)s)", metavar="FOLDER")
    davis_root: str = option("DAVIS/2017", "stages 2 and 3: folder of DAVIS, with trainval in it (default: "
                                           "%(default)s)", metavar="FOLDER")
    video_root: str | None = option(None, "stages 1 to 3: train on the videos in this folder, JPEGImages/VIDEO with "
                                          "their masks Annotations/VIDEO (default: on the stage's own datasets); "
                                          "clicks: also on its frames (default: none)", metavar="FOLDER")
    fine_tune: str | None = option(None, "adapt a trained network to the clips in this folder, laid out as for "
                                         "--video-root: with the options of recipes/fine-tune.txt, from the network "
                                         "that comes with the repository where --load-network names no other; the last "
                                         "quarter of each clip is held back, and scored before and after (default: "
                                         "train a stage)", metavar="FOLDER")
    exclude: str | None = option(None, "stages 1 to 3, clicks: leave out the videos whose names this text file lists "
                                       "(default: none)", metavar="FILE")
    pack: str | None = option(None, "stages 1 to 3: make the samples from this pack (make_pack.py), on the device that "
                                    "trains (default: from the stage's own datasets)", metavar="FOLDER")
    pasted: float = option(0, "stages 1 to 3: make this share of the samples, 0 to 1, from the images of --static-root "
                              "(default: %(default)s)", type=fraction, metavar="SHARE")
    copy_paste: float = option(0, "stages 1 to 3: copy an object of another video into this share of the videos' "
                                  "samples, 0 to 1 (default: %(default)s)", type=fraction, metavar="SHARE")
    hide: float = option(0, "stages 1 to 3: in this share of the samples, 0 to 1, hide objects for a while behind "
                            "pieces of the images of --static-root (default: %(default)s)", type=fraction,
                         metavar="SHARE")
    max_jump: int | None = option(None, "stages 1 to 3: largest gap between two frames of a sample (default: it "
                                        "changes in the course of the training, as published)", type=positive,
                                  metavar="N")
    workers: int | None = option(None, "number of processes that prepare samples, for each process that trains; "
                                       "there are never more than cores (default: up to 8)",
                                 names=["workers", "num-workers"], type=few_or_none, metavar="N")
    perturb_max: float = option(1, "a sample's first mask is damaged until its IoU with the true mask is some number "
                                   "from --perturb-min to this (default: %(default)s)", type=fraction, metavar="IOU")
    perturb_min: float = option(0.85, "lowest such IoU, see --perturb-max (default: %(default)s)",
                                type=fraction, metavar="IOU")
    crop: int = option(384, "side of the training images, a multiple of 16 (default: %(default)s)", type=positive,
                       metavar="PIXELS")


@dataclass(frozen=True)
class RecipeSettings:
    """How a stage learns."""

    stage: int | str = option(0, "0 trains on images, 1 on BL30K, 2 and 3 on DAVIS and YouTube-VOS; 1 and 3 continue "
                                 "from the network of 0, 2 from that of 1; clicks trains the click network (default: "
                                 "%(default)s)", type=stage, choices=STAGES)
    batch_size: int | None = option(None, f"samples in a batch of each process ({_stage_defaults('batch_size')})",
                                    names=["batch-size", "b"], type=positive, metavar="N")
    accumulate: int = option(1, "add up the gradients of N batches in each step, as if there were N times as many "
                                "GPUs (default: %(default)s)", type=positive, metavar="N")
    iterations: int | None = option(None, f"number of steps of the whole training ({_stage_defaults('iterations')})",
                                    names=["iterations", "i"], type=positive, metavar="N")
    steps: tuple | None = option(None, f"iterations at which the learning rate drops; --steps without a number: never "
                                     f"({_stage_defaults('steps')})",
                                 type=whole, nargs="*", metavar="N")
    lr: float | None = option(None, f"initial learning rate ({_stage_defaults('lr')})",
                              type=not_negative, metavar="RATE")
    gamma: float = option(0.1, "multiply the learning rate by this at each drop (default: %(default)s)",
                          type=not_negative, metavar="FACTOR")
    warm_up: int = option(0, "raise the learning rate from near 0 over the first N iterations (default: %(default)s)",
                          type=whole, metavar="N")
    ema: int = option(0, "keep an average of the weights over about the last N samples, and write it as the network of "
                         "the training (default: %(default)s, no average)", type=whole, metavar="N")
    mix: float = option(1, "with --fine-tune: the result lies this share of the way, 0 to 1, from the network that it "
                           "began with to the trained one; a smaller one learns less of these clips, and forgets less "
                           "of all others (default: %(default)s, the trained one)", type=fraction, metavar="SHARE")
    trunk_lr: float = option(1, "multiply the learning rate of the trunk, the part that looks at the images, by this; "
                                "0 leaves it as it is (default: %(default)s)", type=not_negative, metavar="FACTOR")
    train: str = option("all", "what to train: all; keys, by the loss of --match-weight alone; or rest, which is all "
                               "but the keys and what SAM does with keys (default: %(default)s)",
                        choices=("all", "keys", "rest"))
    clip: float | None = option(None, "shorten gradients to this norm if they are longer (default: do not)",
                                type=above_zero, metavar="NORM")
    damage: float = option(0, "stages 1 to 3: damage this share of the predicted masks, 0 to 1, before the memory "
                              "takes them: cut something off, or add something (default: %(default)s)", type=fraction,
                           metavar="SHARE")
    rollout: int = option(0, "stages 1 to 3: track samples of N frames as at inference, and learn from three frames in "
                             f"a row (default: %(default)s, the published step of {SHOTS} frames)", type=whole,
                          metavar="N")


@dataclass(frozen=True)
class LossSettings:
    """Weights and schedule of the losses; the defaults are the paper's."""

    klloss_weight: float = option(10, "weight of the loss that compares what the memory keeps of the first frame with "
                                      "its damaged mask and with its true one (default: %(default)s)",
                                  type=not_negative, metavar="WEIGHT")
    decoder_f2_weight: float = option(10, "weight of the loss that compares what frame 2 reads from the embedding and "
                                          "from the whole memory (default: %(default)s)",
                                      type=not_negative, metavar="WEIGHT")
    decoder_f4_weight: float = option(10, "weight of the same loss for frame 4, see --decoder-f2-weight (default: "
                                          "%(default)s)", type=not_negative, metavar="WEIGHT")
    temperature: float = option(1, "divide both sides of the three losses above by this before they are compared "
                                  "(default: %(default)s)", type=above_zero,
                                metavar="T")
    start_warm: int = option(20000, "from this iteration on, the loss leaves out the easiest pixels, more and more of "
                                    "them (default: %(default)s)", type=whole, metavar="N")
    end_warm: int = option(70000, "from this iteration on, only the hardest pixels count, the share --top-p of all "
                                  "(default: %(default)s)", type=whole, metavar="N")
    top_p: float = option(0.15, "share of the pixels that count from --end-warm on (default: %(default)s)",
                          type=fraction, metavar="SHARE")
    dice_weight: float = option(0, "weight of a Dice loss of the masks (default: %(default)s)", type=not_negative,
                                metavar="WEIGHT")
    match_weight: float = option(0, "weight of the loss of the masks that come out if the keys alone carry the first "
                                    "frame's mask to the others (default: %(default)s)", type=not_negative,
                                metavar="WEIGHT")


@dataclass(frozen=True)
class NetworkSettings:
    """Which network is trained, and where it starts from."""

    preset: str | None = option(None, "which network: base is the published one, compact the small one that comes with "
                                      "the repository, tiny that of the tests (default: that of --load-network or of "
                                      "the resumed training, else base)", choices=PRESET_NAMES)
    repeat: int = option(0, "number of squeeze-and-excitation blocks in each half of SAM (default: %(default)s)",
                         type=whole, metavar="N")
    load_network: str | None = option(None, "start from the network of an earlier stage (default: from a new network, "
                                            "see --backbone-weights)", metavar="FILE")
    backbone_weights: str = option("imagenet", "weights of a new network's trunks: imagenet downloads them, none is "
                                               "random, a folder holds torchvision's files (default: %(default)s)",
                                   metavar="imagenet|none|FOLDER")


@dataclass(frozen=True)
class RunningSettings:
    """Where a training runs, what it writes, and where it goes on."""

    id: str | None = option(None, f"name of the run; with {NO_RUN}, no logs and no checkpoints are written (default: "
                                  "stage and its number, as stage3, and fine-tuned with --fine-tune)", metavar="NAME")
    out_root: str = option("saves", "write into OUT_ROOT/DATE_ID (default: %(default)s)", metavar="FOLDER")
    load_model: str | None = option(None, "continue from this ..._checkpoint.pth (default: start a new training)",
                                    metavar="FILE")
    resume: str | None = option(None, "auto: continue from the newest checkpoint of this --id, if there is one "
                                      "(default: start a new training)", choices=("auto",))
    minutes: float = option(0, "stop M minutes after the start, or at --iterations if that is earlier, and write a "
                               "checkpoint every minute (default: %(default)s, no limit)", type=not_negative,
                            metavar="M")
    save_interval: int = option(2500, "write a checkpoint every N iterations (default: %(default)s)", type=positive,
                                metavar="N")
    keep: int = option(3, "keep the newest N checkpoints (default: %(default)s)", type=positive, metavar="N")
    log_interval: int = option(100, "log losses every N iterations (default: %(default)s)", type=positive, metavar="N")
    image_interval: int = option(500, "log pictures every N iterations (default: %(default)s)", type=positive,
                                 metavar="N")
    val_davis: str | None = option(None, "stages 1 to 3: while training, track the validation set of DAVIS in this "
                                         "folder (default: do not)", metavar="FOLDER")
    val_every: int = option(10000, "track the validation set of --val-davis every N iterations (default: %(default)s)",
                            type=positive, metavar="N")
    no_amp: bool = option(False, "compute in float32 throughout (default: in mixed precision)")
    amp_dtype: str | None = option(None, "dtype of the mixed precision (default: float16 on a GPU, bfloat16 on the "
                                         "CPU)", choices=("float16", "bfloat16"))
    compile: bool = option(False, "compile the network's part of the step with torch.compile (default: do not)")
    capture: bool = option(False, "replay the step as a CUDA graph, which saves most of the time of small networks "
                                  "(default: do not)")
    benchmark: bool = option(False, "let cuDNN look for the fastest convolutions (default: do not)")
    debug: bool = option(False, "log losses in every iteration, and pictures in every tenth (default: do not)")
    seed: int = option(14159265, "seed of all random draws: samples, new weights, and what a step draws (default: "
                                 "%(default)s)", type=whole, metavar="N")
    device: str = option("auto", "compute on cpu, cuda or cuda:1; auto is the fastest that there is (default: "
                                 "%(default)s)", metavar="DEVICE")


@dataclass(frozen=True)
class TrainingSettings:
    """All that a training depends on; made by `training_settings`."""

    data: DataSettings
    recipe: RecipeSettings
    losses: LossSettings
    network: NetworkSettings
    running: RunningSettings

    def options(self):
        """{option: value} of all of them."""
        values = {name: value for part in dataclasses.asdict(self).values() for name, value in part.items()}
        return {**values, "steps": list(self.recipe.steps)}


def training_settings(args):
    """The TrainingSettings that arguments of train.py stand for, the stage's defaults where nothing was given.

    Raises InputError as `validate` does.
    """
    validate(args)
    parts = {part.name: settings_from(part.type, args) for part in dataclasses.fields(TrainingSettings)}
    parts["recipe"] = fill_recipe(parts["recipe"])
    if args.id is None:
        parts["running"] = dataclasses.replace(parts["running"],
                                               id="fine-tuned" if args.fine_tune else f"stage{args.stage}")
    if args.fine_tune and not args.load_network:
        parts["network"] = dataclasses.replace(parts["network"], load_network=COMPACT)
    if args.debug:
        parts["running"] = dataclasses.replace(parts["running"], log_interval=1, image_interval=10)
    return TrainingSettings(**parts)


def fill_recipe(recipe):
    """RecipeSettings with the stage's defaults where they hold None."""
    values = {name: STAGES[recipe.stage][name] if getattr(recipe, name) is None else getattr(recipe, name)
              for name in ("lr", "batch_size", "iterations", "steps")}
    return dataclasses.replace(recipe, **{**values, "steps": tuple(values["steps"])})


def validate(args):
    """Raise InputError where options of train.py contradict one another, or some of them would be ignored."""
    defaults = {field.name: field.default
                for part in dataclasses.fields(TrainingSettings) for field in dataclasses.fields(part.type)}
    given = {name for name, default in defaults.items() if getattr(args, name) != default}
    no_clicks = [f"--{name.replace('_', '-')}" for name in (
        "bl_root", "yv_root", "davis_root", "pack", "pasted", "copy_paste", "hide", "max_jump", "perturb_max",
        "perturb_min", "damage", "rollout", "val_davis", "train", "repeat", "compile", "capture",
        *(field.name for field in dataclasses.fields(LossSettings))) if name in given]
    for_videos = [f"--{name.replace('_', '-')}" for name in (
        "pack", "video_root", "exclude", "pasted", "copy_paste", "hide", "max_jump", "damage", "rollout", "val_davis")
        if name in given]
    no_tuning = [f"--{name.replace('_', '-')}" for name in (
        "static_root", "bl_root", "yv_root", "davis_root", "video_root", "exclude", "pack", "pasted", "hide",
        "backbone_weights", "load_model", "repeat") if name in given]
    for_files = [f"--{name.replace('_', '-')}" for name in (
        "static_root", "bl_root", "yv_root", "davis_root", "video_root", "exclude", "pasted", "copy_paste", "hide",
        "workers") if name in given]
    for wrong, message in (
        ("mix" in given and not args.fine_tune, "--mix is for --fine-tune FOLDER: give that, too, or leave --mix out"),
        (args.fine_tune and args.stage not in (2, 3), "--fine-tune trains as --stage 3 does: leave --stage out"),
        (args.stage == 0 and for_videos,
         f"{' and '.join(for_videos)} {'is' if len(for_videos) == 1 else 'are'} for stages 1 to 3: stage 0 makes its "
         "samples of single images; leave that out or give another --stage"),
        (args.stage == "clicks" and no_clicks,
         f"{' and '.join(no_clicks)} {'is' if len(no_clicks) == 1 else 'are'} not for --stage clicks: leave that out"),
        (args.stage == "clicks" and args.preset == "base",
         "--stage clicks: the click network has the presets compact and tiny"),
        (args.pack and for_files,
         f"{' and '.join(for_files)} {'is' if len(for_files) == 1 else 'are'} for data in files: leave that or --pack "
         "out"),
        (args.fine_tune and no_tuning,
         f"{' and '.join(no_tuning)}: --fine-tune takes its clips from {args.fine_tune} and a trained network from "
         "--load-network, and nothing else: leave that out"),
        (args.crop % 16 or args.crop < 32, f"--crop {args.crop}: a multiple of 16 from 32 on is needed"),
        (0 < args.rollout < SHOTS, f"--rollout {args.rollout}: {SHOTS} frames or more are needed"),
        (args.train == "keys" and not args.match_weight,
         "--train keys has no other loss than the matching loss: it needs --match-weight"),
        (args.train == "keys" and args.damage,
         "--train keys takes no predicted masks into the memory: leave out --damage"),
        (args.copy_paste and args.pasted == 1,
         "--copy-paste copies into samples of videos, and --pasted 1 leaves none: leave one of them out"),
        (args.load_model and args.load_network,
         "--load-model goes on with a training, --load-network starts a new one: leave one of them out"),
        (args.id is not None and Path(args.id).name != args.id,
         f"--id {args.id}: the name of a folder is needed, without / or \\"),
        (args.resume and args.id == NO_RUN, f"--resume looks for the checkpoints of an --id, and {NO_RUN} has none: "
                                            "give another --id"),
        (args.amp_dtype and args.no_amp, "--amp-dtype is that of the mixed precision that --no-amp turns off: leave "
                                         "one of them out"),
        ("val_every" in given and not args.val_davis, "--val-every says how often --val-davis is tracked: give that, "
                                                      "too"),
        (args.end_warm < args.start_warm,
         f"--end-warm {args.end_warm} is before --start-warm {args.start_warm}: give a later one"),
        (args.perturb_min > args.perturb_max,
         f"--perturb-min {args.perturb_min} is above --perturb-max {args.perturb_max}: give a smaller one"),
    ):
        if wrong:
            raise InputError(message)


@dataclass(frozen=True)
class BenchmarkSettings:
    """What benchmark.py measures, and how."""

    protocol: list = option(("stcn",), "what to measure, one or several: stcn, step, phases, end-to-end, memory, "
                                       "objects, size, train, all, runtimes (default: stcn)", nargs="+",
                            metavar="PROTOCOL", choices=("stcn", "step", "phases", "end-to-end", "memory", "objects",
                                                         "size", "train", "all", "runtimes"))
    model: str | None = option(None, "checkpoint of the network (default: random weights of --preset)", metavar="FILE")
    preset: str = option("base", "which network (default: %(default)s)", choices=PRESET_NAMES)
    mode: str = option("two-frames-compress", "what the memory holds, see docs/EVALUATION.md (default: %(default)s)",
                       choices=MODES, metavar="MODE")
    mem_every: int = option(3, "take every Nth frame into the memory (default: %(default)s)", type=positive,
                            metavar="N")
    top_k: int = option(40, "let each place of a frame look at the K places in the memory that are most like it "
                            "(default: %(default)s)", names=["top"], type=positive, metavar="K")
    precision: str = option("float32", "dtype to compute in (default: %(default)s)",
                            choices=("float32", "float16", "bfloat16"))
    compile: bool = option(False, "compile the network, or the training step, first (default: do not)")
    reference: bool = option(False, "measure the network as training runs it (default: its faster form, which "
                                    "tracking runs)")
    objects: int = option(2, "number of objects in the video (default: %(default)s)", type=positive, metavar="N")
    size: tuple = option((480, 854), "size of the frames (default: 480 854)", type=positive, nargs=2,
                         metavar=("HEIGHT", "WIDTH"))
    frames: int | None = option(None, "number of frames to measure (default: 30, for memory 2000)", type=positive,
                                metavar="N")
    device: str = option("auto", "measure on cpu, cuda or mps; auto is the fastest that there is (default: "
                                 "%(default)s)", metavar="DEVICE")
    threads: int | None = option(None, "number of CPU threads (default: OMP_NUM_THREADS, else all cores)",
                                 type=few, metavar="N")
    static_root: str | None = option(None, "train: folder of images, to measure how long stage 0 waits for data "
                                           "(default: do not measure this)", metavar="FOLDER")
    video_root: str | None = option(None, "train: folder of videos, to measure how long stage 3 waits for data "
                                          "(default: do not measure this)", metavar="FOLDER")
    workers: int = option(8, "train: number of processes that prepare samples (default: %(default)s)",
                          type=few, metavar="N")
    crop: int = option(384, "train: side of the training images (default: %(default)s)", type=positive,
                       metavar="PIXELS")


def benchmark_settings(args):
    """The BenchmarkSettings that arguments of benchmark.py stand for.

    Raises InputError for options that the chosen protocols would ignore.
    """
    settings = settings_from(BenchmarkSettings, args)
    if not {"train", "all"} & set(settings.protocol):
        defaults = BenchmarkSettings()
        for name in ("static_root", "video_root", "workers", "crop"):
            if getattr(settings, name) != getattr(defaults, name):
                raise InputError(f"--{name.replace('_', '-')} is for --protocol train, and that is not measured")
    return settings
