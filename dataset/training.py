"""The dataset of each training stage."""

import os
import sys

from dataset.check import check_data
from dataset.clicks import ClickDataset, find_objects, list_frames
from dataset.cuttings import Cuttings
from dataset.held_back import find_clips
from dataset.pack import read_pack
from dataset.pasted import PastedVideoDataset
from dataset.sampler import BatchNumbers, MixedDataset, load_batches
from dataset.scenes import SceneMaker
from dataset.static import StaticDataset
from dataset.training_sets import find_davis, find_pairs, find_videos, find_youtube, read_excluded, usable_videos
from dataset.video import LAST_JUMP, VideoDataset, jump_curriculum
from util.errors import InputError
from util.hyper_para import SHOTS, STAGES
from util.machine import available_cores
from util.notices import list_notices, tell


def make_training_dataset(settings, rank=0, processes=1, device="cpu"):
    """Return the dataset that TrainingSettings (util.hyper_para) ask for; with --pack, a SceneMaker on the device.

    The first process checks the files as far as `check_data` does before every training. It also reports the videos
    that are left out because they cannot be trained on. Raises InputError that names what is missing.
    """
    data, recipe, seed = settings.data, settings.recipe, settings.running.seed
    perturb = (data.perturb_min, data.perturb_max)
    if data.pack:
        # Rollouts start from the clean mask.
        return SceneMaker(read_pack(data.pack, device), seed=seed, size=data.crop, shots=recipe.rollout or SHOTS,
                          perturb=None if recipe.rollout else perturb, max_jump=data.max_jump or LAST_JUMP)
    pairs, found = _find_pairs_and_videos(data, recipe.stage)
    excluded = read_excluded(data.exclude, found, told=rank == 0)
    if rank == 0:
        # A few clips are decoded as a whole: a fault in the middle would cost the training.
        _check_files(thorough=bool(data.fine_tune), pairs=pairs,
                     videos=[video for video in found if video.name not in excluded])
    if data.fine_tune:
        # Whole clips were checked, but the last part of each is not learnt from.
        found, _ = find_clips(data.fine_tune)
    if recipe.stage == 0:
        return StaticDataset(pairs, seed=seed, perturb=perturb, size=data.crop)
    if recipe.stage == "clicks":
        videos = [video for video in found if video.name not in excluded]
        return ClickDataset(pairs + list_frames(videos), seed=seed, size=data.crop)
    shots = recipe.rollout or SHOTS
    cuttings = Cuttings(pairs, data.crop, shots) if pairs else None
    pasted = PastedVideoDataset(cuttings, seed=seed, perturb=perturb, hide=data.hide) if data.pasted else None
    if not found:
        return pasted
    videos = _choose_videos(found, excluded, shots, told=rank == 0, decoded=bool(data.fine_tune))
    samples = recipe.iterations * recipe.accumulate * recipe.batch_size * processes
    bl30k = recipe.stage == 1 and not data.video_root
    curriculum = ((0, data.max_jump),) if data.max_jump else jump_curriculum(samples, last_from=0.8 if bl30k else 0.9)
    dataset = VideoDataset(videos, max_jump=curriculum, seed=seed, perturb=perturb, bl30k=bl30k, size=data.crop,
                           copy_paste=data.copy_paste, cuttings=cuttings, hide=data.hide, shots=shots)
    return MixedDataset(dataset, pasted, data.pasted, seed) if pasted else dataset


def make_batches(dataset, settings, start, samples, device, rank=0, processes=1):
    """Yield this process's batches of a training that goes on after `start` iterations and so many samples.

    dataset: of `make_training_dataset`. A batch is what `model.training_step` takes.
    """
    data, recipe = settings.data, settings.recipe
    # Samples go on where they ended, even if the batch size was another one before.
    shift = samples - start * recipe.accumulate * recipe.batch_size * processes
    numbers = BatchNumbers(recipe.batch_size, start * recipe.accumulate, recipe.iterations * recipe.accumulate, rank,
                           processes, shift)
    if isinstance(dataset, SceneMaker):
        yield from map(dataset.make, numbers)
    else:
        yield from load_batches(dataset, numbers, workers=count_workers(data.workers, told=rank == 0),
                                pin_memory=device.type == "cuda")


def count_workers(asked, told=True):
    """Return how many processes prepare samples: no more than cores, which this machine's training processes share.

    asked: what --workers says, None for up to 8. told: say so if there are fewer than asked for.
    """
    share = max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    if asked is not None and asked > share and told:
        tell([f"--workers {asked}: there are {share} cores for it, so {share} processes prepare samples"])
    return min(8 if asked is None else asked, share)


def check_training_data(settings):
    """Check every file that training a stage would read, and print how many can be used.

    settings: TrainingSettings of util.hyper_para. Raises InputError, after a line for each file that cannot be used,
    and if there is nothing to train on.
    """
    data, recipe = settings.data, settings.recipe
    pairs, found = _find_pairs_and_videos(data, recipe.stage)
    excluded = read_excluded(data.exclude, found)
    images = _check_files(pairs=pairs, videos=[video for video in found if video.name not in excluded])
    if found:
        _choose_videos(found, excluded, recipe.rollout or SHOTS, decoded=True)
    if not images:
        raise InputError("there is nothing to train on: no image was found")
    print(f"{images} images and their masks: every file can be used")


def describe_data(data, stage):
    """Return in words what the samples of a stage are made from."""
    if data.pack:
        return f"pictures in {data.pack}"
    if stage == "clicks":
        return f"images with objects{f', with those of {data.video_root}' if data.video_root else ''}"
    if stage == 0:
        return STAGES[stage]["data"]
    name = f"videos of {data.fine_tune or data.video_root or STAGES[stage]['data']}"
    if not data.pasted:
        return name
    return "pasted images" if data.pasted == 1 else f"{name}, {data.pasted:.0%} pasted images"


def _choose_videos(found, excluded, shots, told=True, decoded=False):
    """Return the videos that can be trained on. told: say which are left out, and what may not be as it was meant.

    decoded: every file was decoded before, so that what is to be said of masks has been said.
    """
    notices = []
    videos, left_out = usable_videos(found, excluded, shots, notices=notices)
    if told and not decoded:
        tell(list_notices(sorted(notices)))
    if not videos:
        name, why = next(iter(left_out.items()))
        raise InputError(f"there is no video to train on: {len(left_out)} were left out, for instance {name}: {why}")
    if left_out and told:
        print(f"{len(left_out)} videos are left out: " + "; ".join(f"{name}: {why}" for name, why in left_out.items()),
              file=sys.stderr)
    return videos


def _check_files(**what):
    """Run `check_data`. If it fails, print its whole report to standard error before raising."""
    try:
        return check_data(**what)
    except InputError as error:
        print("\n".join(str(error).splitlines()[1:]), file=sys.stderr)
        raise


def _find_pairs_and_videos(data, stage):
    """Return the images and the videos that samples are made of."""
    if stage == 0:
        return find_pairs(data.static_root), []
    if stage == "clicks":
        return find_objects(data.static_root), find_videos(data.video_root) if data.video_root else []
    pairs = find_pairs(data.static_root, instances=True) if data.pasted or data.hide else []
    return pairs, _find_videos(data, stage) if data.pasted < 1 else []


def _find_videos(data, stage):
    """Return the videos that a stage trains on."""
    if data.fine_tune or data.video_root:
        return find_videos(data.fine_tune or data.video_root)
    if stage == 1:
        return find_videos(data.bl_root)
    return find_davis(data.davis_root) + find_youtube(data.yv_root)
