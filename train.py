"""Train the network, in the stages of the paper.

    python train.py --fine-tune my_clips
    OMP_NUM_THREADS=4 torchrun --nproc_per_node=4 train.py --recipe published-s0 --id s0
    torchrun --nproc_per_node=2 train.py --recipe published-s03 --id s03 --load-network pretrain/s0/model_75000.pth
    python train.py --id mine --stage 3 --load-network W.pth --video-root my_videos --resume auto

Stage 0 trains on pseudo-videos of static images. Stage 1 follows it and trains on BL30K. Stage 2 follows stage 1 and
trains on DAVIS and YouTube-VOS. Stage 3 trains on the same data but follows stage 0. The files in recipes/ hold the
options of whole stages. The published commands work as they are (docs/TRAINING.md).

A run writes OUT_ROOT/DATE_ID/: model_N.pth (the bare network, for every other script), model_N_checkpoint.pth
(everything), TensorBoard events, log.jsonl, config.json. With --resume auto the same command continues a run that was
killed. On the CPU, with the same numbers of processes and threads, it ends with the same weights bit for bit.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from dataset.held_back import SHARE, find_clips
from dataset.training import check_training_data, describe_data, make_batches, make_training_dataset
from evaluation.validation import check_validation, score, validate
from model import load_network
from model.checkpoint import write_state
from model.initialise import make_starting_network
from model.trainer import Trainer, precision_of
from model.training_log import Means, TrainLog
from model.training_state import find_checkpoint, make_run_folder
from model.weight_average import mix_states
from util.device import device_name, join_processes, patient_group, pick_device
from util.errors import InputError, catch_end, run_script
from util.files import lock_folder
from util.hyper_para import NO_RUN, TrainingSettings, training_settings
from util.machine import keep_freed_memory
from util.notices import tell
from util.options import OptionParser
from util.step_watch import StepWatch
from util.timing import peak_memory_mb

RECIPES = Path(__file__).parent / "recipes"
"""The folder of option files for --recipe."""

MAX_SKIPPED = 20
"""A run stops after this many steps in a row without a finite loss and finite gradients."""

def get_args_parser():
    parser = OptionParser("train.py", __doc__, recipes=RECIPES, implied={"fine_tune": "fine-tune"})
    parser.add_argument("--check-data", action="store_true",
                        help="decode every file of the data and report the result, without training (default: train)")
    for part in dataclasses.fields(TrainingSettings):
        parser.add_settings(part.type, part.name)
    # Options of published commands and old launchers. They are accepted and have no effect here, except --local-rank.
    for name, kind in (("norm", "store_true"), ("temporal-shuffle", "store_true"), ("perturb-group", "store"),
                       ("local-rank", "store")):
        parser.add_argument(f"--{name}", action=kind, help=argparse.SUPPRESS)
    return parser


SAVE_SECONDS = 60
"""With --minutes, a checkpoint is written so often."""


def main(args):
    began = time.monotonic()
    settings = training_settings(args)
    running = settings.running
    if args.check_data:
        check_training_data(settings)
        return 0
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if args.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    if settings.data.fine_tune and processes > 1:
        raise InputError("--fine-tune is for one process: start it without torchrun")
    device = pick_device(running.device)
    torch.manual_seed(running.seed)
    torch.backends.cudnn.benchmark = running.benchmark
    if device.type == "cpu":
        keep_freed_memory()
    if running.val_davis:
        check_validation(running.val_davis)
    dataset = make_training_dataset(settings, rank, processes, device)
    if processes > 1:
        join_processes("nccl" if device.type == "cuda" else "gloo", processes, timeout=None)
    # Softmax weights of far memory positions are denormal numbers, with which some CPUs multiply many times slower.
    # Threads inherit this setting from the thread that starts them.
    torch.set_flush_denormal(True)
    try:
        with contextlib.ExitStack() as stack:
            if settings.data.fine_tune:
                return fine_tune(settings, dataset, device, began, stack)
            return train(settings, dataset, device, began, rank, processes, stack)[0]
    finally:
        torch.set_flush_denormal(False)
        if processes > 1:
            dist.destroy_process_group()


def fine_tune(settings, dataset, device, began, stack):
    """Adapt a network to the clips of --fine-tune, and say how much it helps. Return the exit code.

    Arguments as for `train`.
    """
    start, amp = settings.network.load_network, precision_of(settings.running, device)
    # At as many lines as track.py computes at, so that what is said holds for what is tracked later.
    score_network = functools.partial(score, amp=amp, size="auto")
    _, held_back = find_clips(settings.data.fine_tune)
    frames = sum(len(video.frames) for video in held_back)
    print(f"{start} is adapted to {settings.data.fine_tune}, for {settings.running.minutes:g} minutes; the last "
          f"{SHARE:.0%} of each clip ({frames} frames in all) are held back: both networks are scored on them")
    before = score_network(load_network(start, device), held_back)["J&F"]
    print(f"before: J&F {before:.1f} in the frames held back")
    code, trained = train(settings, dataset, device, began, 0, 1, stack)
    if code or not trained:
        return code
    result = trained.with_name("fine_tuned.pth")
    states = (load_network(file).state_dict() for file in (start, trained))
    write_state(result, mix_states(*states, settings.recipe.mix))
    print(f"wrote {result}, {settings.recipe.mix:.0%} of the way from {start} to {trained}")
    after = score_network(load_network(result, device), held_back)["J&F"]
    print(f"after: J&F {after:.1f}, before {before:.1f}: " + (
        f"give {result} to --model" if after > before else
        f"{start} is as good or better there, go on with that; more clips, or better masks, may help"))
    return 0


def train(settings, dataset, device, began, rank, processes, stack):
    """Train to the end, as one of the processes. Return the exit code, and the file of the trained network or None.

    began: when the script started, in seconds of time.monotonic; --minutes counts from there. stack: ExitStack
    that takes what is held until the training ends.

    Whatever error ends the training, the iterations that are done by then are saved. Raises InputError after too many
    steps in a row whose loss or gradients are not finite, and if another run writes into the folder.
    """
    data, recipe, running = settings.data, settings.recipe, settings.running

    def lock_run(folder):
        stack.enter_context(lock_folder(folder, cure="choose another --id"))

    # Make the network and the trainer, and restore a checkpoint.
    checkpoint, own = find_checkpoint(running, rank, processes)
    if own and rank == 0:
        lock_run(Path(checkpoint).parent)
    network = make_starting_network(settings.network, recipe.stage, checkpoint)
    trainer = Trainer(network, settings, device, processes)
    start, skipped = trainer.restore(checkpoint) if checkpoint else (0, 0)
    if start >= recipe.iterations:
        if rank == 0:
            print(f"nothing to do: {start} of {recipe.iterations} iterations are done")
        return 0, None
    folder = make_run_folder(running, checkpoint if own else None) if rank == 0 else None
    if folder and not own:
        lock_run(folder)

    # Open the log, and say what is trained.
    total = recipe.batch_size * processes * recipe.accumulate
    source, where = describe_data(data, recipe.stage), device_name(device)
    deadline = began + 60 * running.minutes if running.minutes else float("inf")
    log = TrainLog(folder, {**settings.options(), "total_batch": total, "processes": processes, "device": where,
                            "data": source, "started_at_iteration": start}, recipe.iterations, start, deadline,
                   shown=rank == 0)
    if checkpoint:
        log.say(f"continuing from {checkpoint}, iteration {start}")
    if running.id == NO_RUN:
        log.say(f"--id {NO_RUN}: nothing will be written")
    length = f"{running.minutes:g} minutes" if running.minutes else f"{recipe.iterations} iterations"
    log.say(f"stage {recipe.stage}: {len(dataset)} {source}, total batch {total}, {length} on {processes} × {where}")

    # Prepare the loop: batches, validation, SIGTERM, counters.
    batches = make_batches(dataset, settings, start, trainer.samples, device, rank, processes)
    # The other processes wait in this group for the first one's validation, however long it takes.
    waiting = patient_group() if running.val_davis and processes > 1 else None
    # The exit code is the one that a shell reports for this signal.
    previous = catch_end(lambda number, _: trainer.ask_to_stop(128 + number))
    means, in_a_row, saved, logged = Means(), 0, start, start
    saved_at, since, waited = time.monotonic(), time.perf_counter(), 0.0
    watch = stack.enter_context(StepWatch())
    try:
        upcoming = list(itertools.islice(batches, recipe.accumulate))
        for done in range(start + 1, recipe.iterations + 1):
            # Do a step. While the device works on it, fetch the next batches.
            if time.monotonic() > deadline:
                trainer.ask_to_stop(0)
            parts = upcoming
            with watch.step(done):
                result = trainer.step(parts, done - 1)
                fetching = time.perf_counter()
                upcoming = list(itertools.islice(batches, recipe.accumulate))
                waited += time.perf_counter() - fetching
                finite = bool(result.finite)

            # Count steps that were skipped. Too many in a row end the run.
            if finite:
                means.add(result.scalars)
            in_a_row = 0 if finite else in_a_row + 1
            skipped += not finite
            if in_a_row == MAX_SKIPPED:
                raise InputError(f"loss or gradients were not finite in {in_a_row} steps in a row up to iteration "
                                 f"{done}; the last checkpoint is of iteration {saved}; a lower --lr or --no-amp "
                                 "may help")

            # Log numbers, log pictures, save, validate: each at its own interval.
            if done % running.log_interval == 0:
                elapsed = time.perf_counter() - since
                memory = {f"memory_{kind}_mb": value for kind, value in peak_memory_mb(device).items() if value}
                log.add_scalars(done, {**means.read(processes), "lr": trainer.learning_rate(done - 1),
                                   "seconds": elapsed / (done - logged), "data_wait": waited / elapsed,
                                   "skipped": skipped, **memory})
                logged, since, waited = done, time.perf_counter(), 0.0
            log.show_progress(done)
            if done % running.image_interval == 0:
                log.add_images(done, parts[-1], result.images)
            due = running.minutes and time.monotonic() - saved_at > SAVE_SECONDS
            whole = result.stop is not None or done % running.save_interval == 0 or done == recipe.iterations
            if folder and (whole or due):
                trainer.save(folder, done, skipped, network_too=whole)
                saved, saved_at = done, time.monotonic()
            if running.val_davis and done % running.val_every == 0:
                if rank == 0:
                    try_to_validate(network, running.val_davis, trainer.precision, log, done)
                if waiting:
                    dist.barrier(waiting)
            if result.stop is not None:
                break
    except BaseException:
        # After steps that were skipped, the last checkpoint is the better one to go on from.
        if folder and trainer.done and trainer.done > saved and not in_a_row:
            save_after_error(trainer, folder, skipped)
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        batches.close()
        log.close()
    file = folder and folder / f"model_{done}.pth"
    if folder:
        of = f" of {recipe.iterations}" if done < recipe.iterations and not running.minutes else ""
        log.say(f"wrote {file} after {done}{of} iterations, {trainer.samples} samples")
    return 0 if done == recipe.iterations else result.stop, file


def try_to_validate(network, davis_path, amp, log, iteration):
    """Log the scores of a validation. Whatever goes wrong in it is told in one line, and the training goes on."""
    try:
        log.add_scalars(iteration, validate(network, davis_path, amp=amp))
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        tell([f"the validation after iteration {iteration} failed, the training goes on: {reason}"])


def save_after_error(trainer, folder, skipped):
    """Write a checkpoint of the iterations that are done, and say so. If it cannot be written, only say so."""
    try:
        trainer.save(folder, trainer.done, skipped, network_too=False)
    except (InputError, OSError, RuntimeError) as error:
        print(f"iteration {trainer.done} could not be saved: {str(error).splitlines()[0]}", file=sys.stderr)
    else:
        print(f"saved iteration {trainer.done}: --resume auto goes on from there", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
