"""One step of a training after the other: losses, gradients, update."""

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


@dataclass(frozen=True)
class StepResult:
    """What became of a step."""

    finite: bool
    """Were loss and gradients finite in every process? Otherwise there was no update."""

    stop: bool
    """Was any process asked to stop?"""

    scalars: dict
    """{name: number or scalar tensor}: means over the step's batches; counts of pixels (hide_iou/…) are sums."""

    images: dict
    """{mask_FRAME: B×O×H×W}: predicted probabilities of the step's last batch."""


class Trainer:
    """A network in training: what goes on from iteration to iteration, and how one is done.

    Under a launcher there is one in each process, and all of them must do the same calls. It changes nothing of
    the process that it runs in: seeds, threads and torch's switches are the script's.
    """

    def __init__(self, network, settings, device, processes=1):
        """network: an RDE, on any device; it is trained in place. settings: TrainingSettings of util.hyper_para.

        processes: how many train together, in torch's default process group if more than one.
        """
        recipe, running = settings.recipe, settings.running
        self.settings, self.device, self.processes = settings, device, processes
        self.rank = dist.get_rank() if processes > 1 else 0
        # Batch norms keep their running statistics; their weights and biases are trained (published recipe).
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
            # Not the losses: each phase of the bootstrapping would be compiled anew.
            self._step.frames = torch.compile(self._step.frames)
        if processes > 1:
            ids = [device] if device.type == "cuda" else None
            self._step = DistributedDataParallel(self._step, device_ids=ids, gradient_as_bucket_view=True)
        # One for all steps: a compiled step would be compiled anew for another.
        self._generator = torch.Generator()
        self._stop_asked = False

    def ask_to_stop(self):
        """Let the result of this step, in every process, say that the training is to stop. For signal handlers."""
        self._stop_asked = True

    @property
    def amp(self):
        """The precision as `InferenceCore` takes it: "float16", "bfloat16", or False for float32."""
        return False if self.precision == "float32" else self.precision

    def learning_rate(self, iteration):
        """The learning rate of an iteration; the image trunk's is relative to it."""
        recipe = self.settings.recipe
        warm_up = max(1, recipe.iterations // 100) if recipe.warm_up else 0
        return learning_rate(iteration, recipe.lr, recipe.steps, recipe.gamma, warm_up)

    def step(self, parts, iteration):
        """Do one update by the mean loss of the batches `parts` (see model.training_step); returns a StepResult.

        iteration: counted from 0; schedules and random draws depend on it. Raises InputError where the step cannot be
        compiled.
        """
        try:
            return self._do_step(parts, iteration)
        except RuntimeError as error:
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise InputError(_explain_compile_error(error)) from None
            raise

    def save(self, folder, iteration, skipped):
        """Write the checkpoints of an iteration, in the first process; see model.training_state."""
        if self.rank == 0:
            training_state.save(folder, iteration, self.network, self.optimizer, self.scaler, skipped,
                                self.settings.options(), keep=self.settings.running.keep)

    def restore(self, path):
        """Go on from a checkpoint; returns its iteration and how many steps were skipped up to it.

        Raises InputError if it is none, or another network's.
        """
        iteration, skipped = training_state.restore(path, self.network, self.optimizer, self.scaler)
        # The options hold, not what they were in the checkpoint.
        for group, factor in zip(self.optimizer.param_groups, (1, self.settings.recipe.trunk_lr), strict=True):
            group["factor"] = factor
        return iteration, skipped

    def _do_step(self, parts, iteration):
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(iteration) * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        reports = []
        for number, batch in enumerate(parts):
            batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()
                     if torch.is_tensor(value)}
            # Gradients are synchronised once per step, with the last part's.
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
            self.scaler.unscale_(self.optimizer)
            # The gradients, and so their norm, are the same in every process.
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.recipe.clip or float("inf"))
            finite = bool(norm.isfinite())
            if finite or self.scaler.is_enabled():
                # The scaler passes over an infinite gradient, too, and scales less from then on.
                self.scaler.step(self.optimizer)
                self.scaler.update()
        return StepResult(finite, stop, merge_scalars(reports), images)

    def _seed_generator(self, iteration, part):
        """The generator of all that this process draws in a part of a step: a function of the seed and of these."""
        sequence = np.random.SeedSequence((self.settings.running.seed, iteration, self.rank, part))
        return self._generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))

    def _share_flags(self, finite):
        """(is it so in every process?, was any of them asked to stop?)"""
        flags = torch.tensor([not finite, self._stop_asked], dtype=torch.float32, device=self.device)
        if self.processes > 1:
            dist.all_reduce(flags)
        infinite, stop = flags.tolist()
        return not infinite, bool(stop)


def learning_rate(iteration, base, steps, gamma, warm_up=0):
    """Learning rate of an iteration: `base` times `gamma` for each of `steps` that is reached.

    During the first `warm_up` iterations it grows linearly from base / warm_up. It follows from the iteration alone, so
    that a resumed run needs no further state.
    """
    rate = base * gamma ** bisect_right(sorted(steps), iteration)
    if iteration < warm_up:
        progress = iteration / warm_up
        rate *= (1 - progress) / warm_up + progress
    return rate


def freeze(network, recipe):
    """Take from training what RecipeSettings leave as it is. network: an RDE all of whose parameters are trained."""
    if recipe.train == "keys":
        network.requires_grad_(False)
    network.key_proj.requires_grad_(recipe.train != "rest")
    if recipe.train == "rest" and network.config.sam:
        # Keys of the embedding that grow are merely passed over by the softmax, and no gradient brings them back:
        # after some more aggregations they are infinite.
        for part in (network.mem_compress.key_encoder, network.mem_compress.compress_key):
            part.requires_grad_(False)
    if not recipe.trunk_lr:
        # Its backward pass is a third of a step, and would be for nothing.
        network.key_encoder.requires_grad_(False)


def merge_scalars(reports):
    """One report of those of a step's batches: means over those that have a name, of counts of pixels the sums."""
    if len(reports) == 1:
        return reports[0]
    merged = {}
    for name in dict.fromkeys(name for report in reports for name in report):
        values = [report[name] for report in reports if name in report]
        merged[name] = sum(values) if name.startswith("hide_iou/") else sum(values) / len(values)
    return merged


def _explain_compile_error(error):
    """What went wrong in compiling, in a line."""
    # The error of torch.compile's backend comes wrapped in one that says which backend it was.
    cause = getattr(error, "inner_exception", error)
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    message = f"--compile does not work here ({reason})"
    if type(cause).__name__ == "InvalidCxxCompiler" or "No working C++ compiler" in reason:
        message += ": it needs a C++ compiler, g++ or what the variable CXX names"
    return message
