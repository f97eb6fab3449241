"""Train the network, in the stages of the paper.

    OMP_NUM_THREADS=4 python -m torch.distributed.launch --master_port 9843 --nproc_per_node=4 train.py --id s0 \\
        --stage 0 --save_interval 10000 --start_warm 5000 --end_warm 17500 --batch_size 16 --lr 2e-05 \\
        --steps 37500 --iterations 75000
    torchrun --nproc_per_node=2 train.py --id s03 --stage 3 --load_network pretrain/s0/model_75000.pth --lr 2e-05
    python train.py --id mine --stage 3 --load_network W.pth --video_root my_videos --resume auto

Stage 0 trains on pseudo-videos of static images, 1 on BL30K after 0, 2 on DAVIS and YouTube-VOS after 1, 3 on these
after 0. A run writes OUT_ROOT/DATE_ID/: model_N.pth (the bare network, for every other script), model_N_checkpoint.pth
(everything), TensorBoard events, log.jsonl, config.json. With --resume auto the same command goes on where a run was
killed, and ends with the same weights bit for bit (on the CPU, with the same numbers of processes and threads).
"""

import contextlib
import datetime
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from dataset.sampler import training_batches
from dataset.training import check_training_data, training_dataset
from evaluation.validation import check_validation, validate
from model import training_state as train_checkpoint
from model.initialise import continued_network, new_network
from model.training_log import TrainLog
from model.training_step import TrainingStep
from util.device import device_name, join_processes, pick_device
from util.errors import InputError, run_script
from util.machine import keep_freed_memory
from util.schedule import learning_rate
from util.timing import peak_memory_mb
from util.train_options import data_name, loss_settings, network_config, with_stage_defaults
from util.train_options import get_args_parser as options

WEIGHT_DECAY = 1e-7

MAX_SKIPPED = 20
"""Steps in a row without a finite loss and finite gradients after which a run stops."""

STOPPED = 143
"""Exit code after SIGTERM, as the shell has it."""


def get_args_parser():
    return options(__doc__)


def main(args):
    args = with_stage_defaults(args)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if args.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    device = pick_device(args.device)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = args.benchmark
    if args.check_data:
        return check_training_data(args)
    if args.val_davis:
        check_validation(args.stage, args.val_davis)
    dataset = training_dataset(args, int(os.environ.get("RANK", 0)), processes)
    if processes > 1:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Validation runs in one process while the others wait.
        join_processes("nccl" if device.type == "cuda" else "gloo", processes, datetime.timedelta(hours=12))
    # Softmax weights of far memory positions are denormal numbers, with which some CPUs multiply many times slower.
    # Threads take this over from the one that starts them.
    torch.set_flush_denormal(True)
    try:
        return Training(args, device, dataset, processes).run()
    finally:
        torch.set_flush_denormal(False)
        if processes > 1:
            dist.destroy_process_group()


class Training:
    """A run: network, optimizer, and everything that goes on from iteration to iteration."""

    def __init__(self, args, device, dataset, processes):
        self.args, self.device, self.dataset, self.processes = args, device, dataset, processes
        self.rank = dist.get_rank() if processes > 1 else 0
        if device.type == "cpu":
            keep_freed_memory()
        checkpoint, going_on = self._checkpoint()
        config = network_config(args)
        if checkpoint is not None:
            network = new_network(config, "none")
        elif args.load_network:
            network = continued_network(args.load_network, config)
        else:
            network = new_network(config, args.backbone_weights)
        # Batch norms keep their running statistics; their weights and biases are trained (published recipe).
        self.network = network.to(device).eval().requires_grad_(True)
        if args.train == "keys":
            network.requires_grad_(False)
        network.key_proj.requires_grad_(args.train != "rest")
        if args.train == "rest" and network.config.sam:
            # Keys of the embedding that grow are merely passed over by the softmax, and no gradient brings them back:
            # after some more aggregations they are infinite.
            for part in (network.mem_compress.key_encoder, network.mem_compress.compress_key):
                part.requires_grad_(False)
        if not args.trunk_lr:
            # Its backward pass is a third of a step, and would be for nothing.
            network.key_encoder.requires_grad_(False)
        trunk = [value for name, value in network.named_parameters() if name.startswith("key_encoder.")]
        rest = [value for name, value in network.named_parameters() if not name.startswith("key_encoder.")]
        self.optimizer = torch.optim.Adam([{"params": rest, "factor": 1}, {"params": trunk, "factor": args.trunk_lr}],
                                          lr=args.lr, weight_decay=WEIGHT_DECAY, fused=device.type in ("cpu", "cuda"))
        self.amp_dtype = None
        if not args.no_amp:
            default = "bfloat16" if device.type == "cpu" else "float16"
            self.amp_dtype = getattr(torch, args.amp_dtype or default)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp_dtype is torch.float16)
        self.start = self.skipped = 0
        if checkpoint is not None:
            self.start, self.skipped = train_checkpoint.restore(checkpoint, self.network, self.optimizer, self.scaler)
            # The options hold, not what they were in the checkpoint.
            for group, factor in zip(self.optimizer.param_groups, (1, args.trunk_lr), strict=True):
                group["factor"] = factor
            self._say(f"going on from {checkpoint}, iteration {self.start}")
        self.step = TrainingStep(self.network, loss_settings(args), args.damage, args.train == "keys", args.rollout > 0)
        if args.compile:
            # Not the losses: each phase of the bootstrapping would be compiled anew.
            self.step.frames = torch.compile(self.step.frames)
        if processes > 1:
            ids = [device] if device.type == "cuda" else None
            self.step = DistributedDataParallel(self.step, device_ids=ids, gradient_as_bucket_view=True)
        self.folder = self._folder(checkpoint if going_on else None)
        self.stop_asked = self.stopping = False

    def run(self):
        """Train to the end. Returns the exit code; raises InputError when the loss stays infinite."""
        args = self.args
        if self.start >= args.iterations:
            self._say(f"nothing to do: {self.start} of {args.iterations} iterations are done")
            return 0
        total = args.batch_size * self.processes * args.accumulate
        config = {**vars(args), "total_batch": total, "processes": self.processes, "device": device_name(self.device),
                  "data": data_name(args), "started_at_iteration": self.start}
        self._say(f"stage {args.stage}: {len(self.dataset)} {data_name(args)}, total batch {total}, "
                  f"{args.iterations} iterations on {self.processes} × {config['device']}")
        log = TrainLog(self.folder, config, args.iterations, self.start) if self.rank == 0 else None
        previous = signal.signal(signal.SIGTERM, self._stop)
        try:
            done = self._loop(log)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise InputError(f"--compile does not work here ({str(error).splitlines()[0]}): it needs a C++ compiler, "
                             "g++ or what the variable CXX names") from None
        finally:
            signal.signal(signal.SIGTERM, previous)
            if log:
                log.close()
        if self.folder:
            self._say(f"wrote {self.folder}/model_{done}.pth after {done} of {args.iterations} iterations")
        return 0 if done == args.iterations else STOPPED

    def _loop(self, log):
        """Iterations from `start` on; returns how many are done at the end."""
        args, device = self.args, self.device
        batches = iter(training_batches(
            self.dataset, args.batch_size, self.start * args.accumulate, args.iterations * args.accumulate,
            workers=args.num_workers, rank=self.rank, world_size=self.processes, pin_memory=device.type == "cuda"))
        sums, skipped, skipped_in_all, since, waited = {}, 0, self.skipped, time.perf_counter(), 0.0
        iteration = saved = logged = self.start
        while iteration < args.iterations:
            began = time.perf_counter()
            parts = [_to_device(next(batches), device) for _ in range(args.accumulate)]
            waited += time.perf_counter() - began
            rate = learning_rate(iteration, args.lr, args.steps, args.gamma,
                                 max(1, args.iterations // 100) if args.warm_up else 0)
            finite, scalars, images = self._train_step(parts, iteration, rate)
            iteration += 1
            skipped = 0 if finite else skipped + 1
            skipped_in_all += not finite
            if finite:
                for name, value in scalars.items():
                    sums.setdefault(name, []).append(value)
            if skipped == MAX_SKIPPED:
                raise InputError(f"loss or gradients were not finite in {skipped} steps in a row up to iteration "
                                 f"{iteration}; the last checkpoint is of iteration {saved}; a lower --lr or --no_amp "
                                 "may help")
            if iteration % args.log_interval == 0:
                values = self._mean(sums)
                elapsed = time.perf_counter() - since
                values.update(lr=rate, seconds=elapsed / (iteration - logged), data_wait=waited / elapsed,
                              skipped=skipped_in_all, **{f"memory_{kind}_mb": value for kind, value
                                                         in peak_memory_mb(device).items() if value})
                if log:
                    log.scalars(iteration, values)
                sums, since, waited, logged = {}, time.perf_counter(), 0.0, iteration
            if log and iteration % args.image_interval == 0:
                log.images(iteration, parts[-1], images)
            if self.stopping or iteration % args.save_interval == 0 or iteration == args.iterations:
                self._save(iteration, skipped_in_all)
                saved = iteration
            if args.val_davis and iteration % args.val_every == 0:
                self._validate(log, iteration)
            if self.stopping:
                break
        return iteration

    def _train_step(self, parts, iteration, rate):
        """One update. Returns (was it done: were loss and gradients finite everywhere?, scalars, images)."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        finite = True
        for number, batch in enumerate(parts):
            last = number == len(parts) - 1
            # Gradients are synchronised once per step, with the last part's.
            apart = contextlib.nullcontext() if last or self.processes == 1 else self.step.no_sync()
            with apart:
                with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
                    loss, scalars, images = self.step(batch, iteration)
                if not self._agree(bool(loss.isfinite())):
                    finite = False
                    break
                self.scaler.scale(loss / len(parts)).backward()
        if finite:
            self.scaler.unscale_(self.optimizer)
            # The gradients, and so their norm, are the same in every process.
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.args.clip or float("inf"))
            finite = bool(norm.isfinite())
            if finite or self.scaler.is_enabled():
                # The scaler passes over an infinite gradient, too, and scales less from then on.
                self.scaler.step(self.optimizer)
                self.scaler.update()
        return finite, scalars, images

    def _agree(self, finite):
        """Is it so in every process? Also settles, for all of them alike, whether this iteration is the last."""
        flags = torch.tensor([not finite, self.stop_asked], dtype=torch.float32, device=self.device)
        if self.processes > 1:
            dist.all_reduce(flags)
        self.stopping = bool(flags[1])
        return not bool(flags[0])

    def _mean(self, sums):
        """Means over the iterations since the last log and over the processes; counts of pixels become IoU."""
        names = sorted(sums)
        means = torch.tensor([float(sum(sums[name])) / len(sums[name]) for name in names], dtype=torch.float64)
        if self.processes > 1:
            means = means.to(self.device, torch.float32)
            dist.all_reduce(means)
            means /= self.processes
        values = dict(zip(names, means.tolist(), strict=True))
        for prefix, name in (("", "iou"), ("sec_", "sec_iou")):
            union = values.pop(f"hide_iou/{prefix}u", 0)
            shared = values.pop(f"hide_iou/{prefix}i", 0)
            if union:
                values[name] = shared / union
        return values

    def _validate(self, log, iteration):
        if self.rank == 0:
            scores = validate(self.network, self.args.val_davis, amp=self.amp_dtype is not None)
            log.scalars(iteration, scores)
        if self.processes > 1:
            dist.barrier()

    def _save(self, iteration, skipped):
        if self.rank == 0 and self.folder:
            train_checkpoint.save(self.folder, iteration, self.network, self.optimizer, self.scaler, skipped,
                                  vars(self.args), keep=self.args.keep)

    def _checkpoint(self):
        """(the checkpoint to start from, the same in every process, or None; is it this run's own?)."""
        if self.args.resume and self.args.id != "NULL":
            found = [train_checkpoint.latest(Path(self.args.out_root), self.args.id) if self.rank == 0 else None]
            if self.processes > 1:
                # On a machine that does not see the first one's files, looking for itself would start from nothing.
                dist.broadcast_object_list(found)
            if found[0]:
                return found[0], True
        return self.args.load_model, False

    def _folder(self, checkpoint):
        """The run's folder, made by the first process; a resumed run goes on in its own."""
        if self.args.id == "NULL" or self.rank > 0:
            return None
        if checkpoint is not None:
            return Path(checkpoint).parent
        folder = Path(self.args.out_root) / f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_{self.args.id}"
        folder.mkdir(parents=True)
        return folder

    def _stop(self, *_):
        """SIGTERM: save after this iteration, and end."""
        self.stop_asked = True

    def _say(self, text):
        if self.rank == 0:
            print(text)


def _to_device(batch, device):
    return {name: value.to(device, non_blocking=True) for name, value in batch.items() if torch.is_tensor(value)}


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
