"""Train a network: do one step after the other, from losses over gradients to the update."""

import contextlib
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from model import training_state
from model.training_step import TrainingStep
from util.errors import InputError

WEIGHT_DECAY = 1e-7
"""The optimizer's weight decay, of the published recipe."""


@dataclass(frozen=True)
class StepResult:
    """The result of a training step."""

    finite: bool
    """Whether loss and gradients were finite in every process. If not, there was no update."""

    stop: bool
    """Whether any process was asked to stop."""

    scalars: dict
    """{name: number or scalar tensor}. Most are means over the step's batches; pixel counts (hide_iou/…) are sums."""

    images: dict
    """{mask_FRAME: B×O×H×W}: the predicted probabilities of the step's last batch."""


class Trainer:
    """A network in training, with its optimizer. It does the steps, and saves and restores the state.

    Under a launcher each process has a Trainer, and all of them must make the same calls. A Trainer changes nothing of
    its process: seeds, threads and torch's switches are left to the script.
    """

    def __init__(self, network, settings, device, processes=1):
        """network: an RDE on any device; it is trained in place. settings: TrainingSettings of util.hyper_para.

        processes: how many processes train together. If more than one, they use torch's default process group.
        """
        recipe, running = settings.recipe, settings.running
        self.settings, self.device, self.processes = settings, device, processes
        self.rank = dist.get_rank() if processes > 1 else 0
        # In the published recipe, batch norms keep their running statistics, while their weights and biases are
        # trained.
        self.network = network.to(device).eval().requires_grad_(True)
        freeze(network, recipe)
        trunk = [value for name, value in network.named_parameters() if name.startswith("key_encoder.")]
        rest = [value for name, value in network.named_parameters() if not name.startswith("key_encoder.")]
        self.optimizer = torch.optim.Adam([{"params": rest, "factor": 1}, {"params": trunk, "factor": recipe.trunk_lr}],
                                          lr=recipe.lr, weight_decay=WEIGHT_DECAY, fused=device.type in ("cpu", "cuda"))
        self.precision = "float32" if running.no_amp else (
            running.amp_dtype or ("bfloat16" if device.type == "cpu" else "float16"))
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "float16")
        self._step = TrainingStep(network, settings.losses, recipe.damage, recipe.train == "keys", recipe.rollout > 0)
        if running.compile:
            # The losses are not compiled: each phase of the bootstrapping would be compiled anew.
            self._step.frames = torch.compile(self._step.frames)
        if processes > 1:
            ids = [device] if device.type == "cuda" else None
            self._step = DistributedDataParallel(self._step, device_ids=ids, gradient_as_bucket_view=True)
        # All steps share this generator: with another one, a compiled step would be compiled anew.
        self._generator = torch.Generator()
        self._stop_asked = False

    def ask_to_stop(self):
        """Ask the training to stop: this step's result says so in every process. For signal handlers."""
        self._stop_asked = True

    @property
    def amp(self):
        """The precision as `InferenceCore` takes it: "float16", "bfloat16", or False for float32."""
        return False if self.precision == "float32" else self.precision

    def learning_rate(self, iteration):
        """Return the learning rate of an iteration. That of the image trunk is a multiple of it."""
        recipe = self.settings.recipe
        warm_up = max(1, recipe.iterations // 100) if recipe.warm_up else 0
        return learning_rate(iteration, recipe.lr, recipe.steps, recipe.gamma, warm_up)

    def step(self, parts, iteration):
        """Do one update with the mean loss of the batches `parts` (see model.training_step), and return a StepResult.

        iteration: counted from 0. Schedules and random draws depend on it. Raises InputError if the step cannot be
            compiled.
        """
        try:
            return self._do_step(parts, iteration)
        except RuntimeError as error:
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise InputError(_explain_compile_error(error)) from None
            raise

    def save(self, folder, iteration, skipped):
        """Write the checkpoints of an iteration, in the first process only. See model.training_state."""
        if self.rank == 0:
            training_state.save(folder, iteration, self.network, self.optimizer, self.scaler, skipped,
                                self.settings.options(), keep=self.settings.running.keep)

    def restore(self, path):
        """Restore the state of a checkpoint. Return its iteration and the number of steps that were skipped up to it.

        Raises InputError if the file is no checkpoint, or belongs to another network.
        """
        iteration, skipped = training_state.restore(path, self.network, self.optimizer, self.scaler)
        # The options of this run decide, not those in the checkpoint.
        for group, factor in zip(self.optimizer.param_groups, (1, self.settings.recipe.trunk_lr), strict=True):
            group["factor"] = factor
        return iteration, skipped

    def _do_step(self, parts, iteration):
        """Do what `step` says."""
        # Set the learning rates.
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(iteration) * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        # Sum up the gradients of all batches.
        reports = []
        for number, batch in enumerate(parts):
            batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()
                     if torch.is_tensor(value)}
            # Processes synchronise gradients once per step, with the last batch.
            apart = number < len(parts) - 1 and self.processes > 1
            with self._step.no_sync() if apart else contextlib.nullcontext():
                with torch.autocast(self.device.type, getattr(torch, self.precision), self.precision != "float32"):
                    loss, scalars, images = self._step(batch, iteration, self._seed_generator(iteration, number))
                reports.append(scalars)
                finite, stop = self._share_flags(bool(loss.isfinite()))
                if not finite:
                    break
                self.scaler.scale(loss / len(parts)).backward()
        if finite:
            # Clip the gradients, and update the weights.
            self.scaler.unscale_(self.optimizer)
            # The gradients are the same in every process, and so is their norm.
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.recipe.clip or float("inf"))
            finite = bool(norm.isfinite())
            if finite or self.scaler.is_enabled():
                # The scaler also skips an update with infinite gradients, and then scales less.
                self.scaler.step(self.optimizer)
                self.scaler.update()
        return StepResult(finite, stop, merge_scalars(reports), images)

    def _seed_generator(self, iteration, part):
        """Return the generator of all random draws for one batch of a step, seeded for this batch and process."""
        sequence = np.random.SeedSequence((self.settings.running.seed, iteration, self.rank, part))
        return self._generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))

    def _share_flags(self, finite):
        """Return (whether `finite` is True in every process, whether any process was asked to stop)."""
        flags = torch.tensor([not finite, self._stop_asked], dtype=torch.float32, device=self.device)
        if self.processes > 1:
            dist.all_reduce(flags)
        infinite, stop = flags.tolist()
        return not infinite, bool(stop)


def learning_rate(iteration, base, steps, gamma, warm_up=0):
    """Return the learning rate of an iteration: `base` times `gamma` for each of `steps` that is reached.

    During the first `warm_up` iterations it grows linearly from base / warm_up. It depends on the iteration alone, so
    that a resumed run needs no further state.
    """
    rate = base * gamma ** bisect_right(sorted(steps), iteration)
    if iteration < warm_up:
        progress = iteration / warm_up
        rate *= (1 - progress) / warm_up + progress
    return rate


def freeze(network, recipe):
    """Exclude from training the parameters that RecipeSettings freeze.

    network: an RDE; all of its parameters must be trained so far.
    """
    if recipe.train == "keys":
        network.requires_grad_(False)
    network.key_proj.requires_grad_(recipe.train != "rest")
    if recipe.train == "rest" and network.config.sam:
        # The key half of SAM is frozen, too: the softmax merely ignores embedding keys that grow, so no gradient brings
        # them back, and after some more aggregations they are infinite.
        for part in (network.mem_compress.key_encoder, network.mem_compress.compress_key):
            part.requires_grad_(False)
    if not recipe.trunk_lr:
        # This saves the trunk's backward pass, a third of a step.
        network.key_encoder.requires_grad_(False)


def merge_scalars(reports):
    """Return one report for the reports of a step's batches.

    A scalar becomes the mean over the batches that report it, and a pixel count (hide_iou/…) becomes the sum.
    """
    if len(reports) == 1:
        return reports[0]
    merged = {}
    for name in dict.fromkeys(name for report in reports for name in report):
        values = [report[name] for report in reports if name in report]
        merged[name] = sum(values) if name.startswith("hide_iou/") else sum(values) / len(values)
    return merged


def _explain_compile_error(error):
    """Return a message of one line that says why compiling failed."""
    # Torch wraps the error of a backend in one that names the backend.
    cause = getattr(error, "inner_exception", error)
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    message = f"--compile does not work here ({reason})"
    if type(cause).__name__ == "InvalidCxxCompiler" or "No working C++ compiler" in reason:
        message += ": it needs a C++ compiler, g++ or the one that the environment variable CXX names"
    return message
