"""The options of train.py, with the published defaults."""

import argparse
import dataclasses

from dataset.training_sets import SHOTS
from model import PRESETS
from model.training_step import LossSettings
from util.errors import InputError
from util.hyper_para import fraction, positive, whole

# What a stage trains on, and its recipe; each can be changed by the option of the same name.
STAGES = {
    0: {"data": "static images", "lr": 1e-5, "batch_size": 8, "iterations": 300000, "steps": [150000]},
    1: {"data": "BL30K", "lr": 1e-5, "batch_size": 4, "iterations": 500000, "steps": [400000]},
    2: {"data": "DAVIS and YouTube-VOS", "lr": 1e-5, "batch_size": 4, "iterations": 300000, "steps": [250000]},
    3: {"data": "DAVIS and YouTube-VOS", "lr": 1e-5, "batch_size": 4, "iterations": 150000, "steps": [125000]},
}
LOSSES = LossSettings()


def get_args_parser(description):
    parser = argparse.ArgumentParser(prog="train.py", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--stage", type=int, choices=STAGES, default=0, help="0 images, 1 BL30K, 2 after 1, 3 after 0 (%(default)s)")
    add("--id", default="NULL", help="name of the run; NULL: no logs and no checkpoints")

    data = parser.add_argument_group("data")
    data.add_argument("--static_root", default="static", help="folders of image and mask pairs (%(default)s)")
    data.add_argument("--bl_root", default="BL30K", help="(%(default)s)")
    data.add_argument("--yv_root", default="YouTube", help="with train_480p or train in it (%(default)s)")
    data.add_argument("--davis_root", default="DAVIS/2017", help="with trainval in it (%(default)s)")
    data.add_argument("--video_root", help="videos in the layout of DAVIS to train on instead")
    data.add_argument("--exclude", metavar="FILE", help="text file with names of videos to leave out")
    data.add_argument("--pasted", type=fraction, default=0, metavar="SHARE",
                      help="stages 1 to 3: this share of the samples, 0 to 1, is made of --static_root (%(default)s)")
    data.add_argument("--copy_paste", type=fraction, default=0, metavar="SHARE",
                      help="stages 1 to 3: into this share of the videos' samples, 0 to 1, an object of another video "
                           "is copied (%(default)s)")
    data.add_argument("--hide", type=fraction, default=0, metavar="SHARE",
                      help="stages 1 to 3: in this share of the samples, 0 to 1, objects are hidden for a while by "
                           "pieces of --static_root (%(default)s)")
    data.add_argument("--max_jump", type=positive, metavar="N",
                      help="stages 1 to 3: the largest gap between two frames of a sample (the published curriculum)")
    data.add_argument("--check_data", action="store_true", help="decode every file of the data, report, and stop")
    data.add_argument("--num_workers", type=whole, default=8, help="loader processes of each process (%(default)s)")
    data.add_argument("--perturb_max", type=float, default=1, help="IoU of damaged first masks, at most (%(default)s)")
    data.add_argument("--perturb_min", type=float, default=0.85, help="and at least (%(default)s)")
    data.add_argument("--perturb_group", type=int, default=1, help="without effect, as in the published code")
    data.add_argument("--crop", type=positive, default=384, help="side of the training images (%(default)s)")

    recipe = parser.add_argument_group("recipe (defaults by stage, see STAGES)")
    recipe.add_argument("-b", "--batch_size", type=positive, help="of each process")
    recipe.add_argument("--accumulate", type=positive, default=1, metavar="N",
                        help="batches per step: N times the batch on fewer GPUs (%(default)s)")
    recipe.add_argument("-i", "--iterations", type=positive)
    recipe.add_argument("--steps", type=int, nargs="*", help="iterations at which the learning rate drops")
    recipe.add_argument("--lr", type=float)
    recipe.add_argument("--gamma", type=float, default=0.1, help="factor of each drop (%(default)s)")
    recipe.add_argument("--trunk_lr", type=float, default=1, metavar="FACTOR",
                        help="learning rate of the image trunk, relative to the others'; 0 freezes it (%(default)s)")
    recipe.add_argument("--train", choices=("all", "keys", "rest"), default="all",
                        help="keys: nothing but the keys, by nothing but the loss of --match_weight; rest: all but the "
                             "keys and what SAM does with them (%(default)s)")
    recipe.add_argument("--clip", type=float, metavar="NORM",
                        help="largest norm of the gradient, longer ones are shortened to it (none)")
    recipe.add_argument("--damage", type=fraction, default=0, metavar="SHARE",
                        help="stages 1 to 3: this share of the predicted masks, 0 to 1, lacks a part of the object or "
                             "has too much when the memory takes it (%(default)s)")
    recipe.add_argument("--rollout", type=whole, default=0, metavar="N",
                        help="stages 1 to 3: samples of N frames, tracked as at inference; learnt from are three in a "
                             "row, anywhere (0: the published step of five)")
    recipe.add_argument("--warm_up", action="store_true", help="raise the learning rate over the first hundredth")
    for name in ("klloss_weight", "decoder_f2_weight", "decoder_f4_weight", "temperature", "top_p", "dice_weight",
                 "match_weight"):
        recipe.add_argument(f"--{name}", type=float, default=getattr(LOSSES, name), help="(%(default)s)")
    for name in ("start_warm", "end_warm"):
        recipe.add_argument(f"--{name}", type=int, default=getattr(LOSSES, name),
                            help="bootstrapping of the cross entropy, iteration (%(default)s)")

    network = parser.add_argument_group("network")
    network.add_argument("--preset", choices=PRESETS, default="base")
    network.add_argument("--repeat", type=int, default=0, help="squeeze-and-excitation blocks in SAM (%(default)s)")
    network.add_argument("--load_network", metavar="PATH", help="start from the network of an earlier stage")
    network.add_argument("--backbone_weights", default="imagenet", metavar="imagenet|none|FOLDER",
                         help="trunks at a fresh start: fetched, random, or from torchvision's files (%(default)s)")
    for name in ("norm", "temporal_shuffle"):
        network.add_argument(f"--{name}", action="store_true", help="without effect, as in the published code")

    running = parser.add_argument_group("running")
    running.add_argument("--out_root", default="saves", help="runs are saved as OUT_ROOT/DATE_ID (%(default)s)")
    running.add_argument("--load_model", metavar="PATH", help="go on from this ..._checkpoint.pth")
    running.add_argument("--resume", choices=("auto",), help="go on from this --id's newest checkpoint, if any")
    running.add_argument("--save_interval", type=positive, default=2500, metavar="N", help="(%(default)s)")
    running.add_argument("--keep", type=positive, default=3, metavar="K", help="checkpoints to keep (%(default)s)")
    running.add_argument("--log_interval", type=positive, default=100, metavar="N", help="(%(default)s)")
    running.add_argument("--image_interval", type=positive, default=500, metavar="N", help="(%(default)s)")
    running.add_argument("--val_davis", metavar="PATH", help="track this DAVIS's validation set while training")
    running.add_argument("--val_every", type=positive, default=10000, metavar="N", help="(%(default)s)")
    running.add_argument("--no_amp", action="store_true", help="float32 throughout")
    running.add_argument("--amp_dtype", choices=("float16", "bfloat16"),
                         help="of mixed precision (float16, on the CPU bfloat16)")
    running.add_argument("--compile", action="store_true", help="torch.compile the step")
    running.add_argument("--benchmark", action="store_true", help="let cuDNN look for the fastest convolutions")
    running.add_argument("--debug", action="store_true", help="log every iteration, images every ten")
    running.add_argument("--seed", type=whole, default=14159265)
    running.add_argument("--device", default="auto", help="auto, cpu, cuda (%(default)s)")
    running.add_argument("--local_rank", "--local-rank", type=int, help="set by torch.distributed.launch")
    return parser


def with_stage_defaults(args):
    """args with what the stage says where nothing was given. Raises InputError for options that cannot be."""
    for name in ("lr", "batch_size", "iterations", "steps"):
        if getattr(args, name) is None:
            setattr(args, name, STAGES[args.stage][name])
    if args.crop % 16 or args.crop < 32:
        raise InputError(f"--crop {args.crop}: a multiple of 16 from 32 on is needed")
    if args.stage == 0 and args.damage:
        raise InputError("--damage is for stages 1 to 3: stage 0 has none of its masks damaged")
    if args.rollout and (args.stage == 0 or args.rollout < SHOTS):
        raise InputError(f"--rollout {args.rollout}: {SHOTS} frames or more are needed, and stage 1, 2 or 3")
    if args.max_jump and args.stage == 0:
        raise InputError("--max_jump is for stages 1 to 3: stage 0 makes its samples of single images")
    if args.train == "keys" and not args.match_weight:
        raise InputError("--train keys has no other loss than the matching loss: it needs --match_weight")
    if args.debug:
        args.log_interval, args.image_interval = 1, 10
    return args


def data_name(args):
    """What the samples come from, in words."""
    data = f"samples of {args.video_root}" if args.video_root and args.stage else STAGES[args.stage]["data"]
    if not args.pasted:
        return data
    return "pasted images" if args.pasted == 1 else f"{data}, {args.pasted:.0%} pasted images"


def network_config(args):
    """The NetworkConfig that a stage trains."""
    single = args.stage == 0
    return dataclasses.replace(PRESETS[args.preset], single_object=single, sam=not single,
                               repeat=0 if single else args.repeat)


def loss_settings(args):
    return LossSettings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(LossSettings)})
