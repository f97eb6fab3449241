"""The dataset of each training stage."""

import sys

from dataset.check import check_data
from dataset.cuttings import Cuttings
from dataset.pasted import PastedVideoDataset
from dataset.sampler import MixedDataset
from dataset.static import StaticDataset
from dataset.training_sets import SHOTS, find_davis, find_pairs, find_videos, find_youtube, read_names, usable_videos
from dataset.video import VideoDataset, jump_curriculum
from util.errors import InputError


def training_dataset(args, rank=0, processes=1):
    """The dataset that the options of train.py ask for. Raises InputError naming what is missing.

    The first process looks whether all masks are there and of their images' sizes, and reports the videos that cannot
    be trained on and are left out.
    """
    perturb = (args.perturb_min, args.perturb_max)
    if args.stage == 0 and (args.pasted or args.copy_paste or args.hide):
        raise InputError("--pasted, --copy_paste and --hide are for stages 1 to 3: stage 0 makes all its samples of "
                         "single images")
    pairs, found = _pairs_and_videos(args)
    excluded = _excluded(args)
    if rank == 0:
        _check(thorough=False, pairs=pairs, videos=[video for video in found if video.name not in excluded])
    if args.stage == 0:
        return StaticDataset(pairs, seed=args.seed, perturb=perturb, size=args.crop)
    shots = args.rollout or SHOTS
    cuttings = Cuttings(pairs, args.crop, shots) if pairs else None
    pasted = PastedVideoDataset(cuttings, seed=args.seed, perturb=perturb, hide=args.hide) if args.pasted else None
    if not found:
        return pasted
    videos, left_out = usable_videos(found, excluded, shots)
    if not videos:
        name, why = next(iter(left_out.items()))
        raise InputError(f"no video to train on: {len(left_out)} were left out, {name} since: {why}")
    if left_out and rank == 0:
        print(f"{len(left_out)} videos are left out: " + "; ".join(f"{name}: {why}" for name, why in left_out.items()),
              file=sys.stderr)
    samples = args.iterations * args.accumulate * args.batch_size * processes
    bl30k = args.stage == 1 and not args.video_root
    curriculum = ((0, args.max_jump),) if args.max_jump else jump_curriculum(samples, last_from=0.8 if bl30k else 0.9)
    dataset = VideoDataset(videos, max_jump=curriculum, seed=args.seed, perturb=perturb, bl30k=bl30k, size=args.crop,
                           copy_paste=args.copy_paste, cuttings=cuttings, hide=args.hide, shots=shots)
    return MixedDataset(dataset, pasted, args.pasted, args.seed) if pasted else dataset


def check_training_data(args):
    """Look at every file that training would read. Raises InputError, after a line for each that cannot be used."""
    pairs, found = _pairs_and_videos(args)
    excluded = _excluded(args)
    images = _check(pairs=pairs, videos=[video for video in found if video.name not in excluded])
    print(f"{images} images and their masks: every file can be used")
    return 0


def _check(**what):
    """`check_data`, with the whole of its report on standard error."""
    try:
        return check_data(**what)
    except InputError as error:
        print("\n".join(str(error).splitlines()[1:]), file=sys.stderr)
        raise


def _excluded(args):
    return read_names(args.exclude) if args.exclude else set()


def _pairs_and_videos(args):
    """The images and the videos that samples are made of."""
    if args.stage == 0:
        return find_pairs(args.static_root), []
    pairs = find_pairs(args.static_root, instances=True) if args.pasted or args.hide else []
    return pairs, _videos(args) if args.pasted < 1 else []


def _videos(args):
    if args.video_root:
        return find_videos(args.video_root)
    if args.stage == 1:
        return find_videos(args.bl_root)
    return find_davis(args.davis_root) + find_youtube(args.yv_root)
