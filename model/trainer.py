"""Train a network: do one step after the other, from losses over gradients to the update."""

import contextlib
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from model import training_state
from model.click_step import ClickStep
from model.clicks import ClickNetwork
from model.exact import compile_function
from model.fused_blocks import LayerCopier, copy_trunk
from model.losses import bootstrap_fraction
from model.network import RDE
from model.training_step import TrainingStep
from model.weight_average import WeightAverage
from util.errors import InputError

WEIGHT_DECAY = 1e-7
"""The optimizer's weight decay, of the published recipe."""


@dataclass(frozen=True)
class StepResult:
    """The result of a training step."""

    finite: torch.Tensor
    """bool scalar on the device: whether loss and gradients were finite in every process. If not, there was no update.
    To look at it, the host waits for the step's end."""

    stop: int | None
    """The exit code with which any process was asked to stop, the largest one; None: go on."""

    scalars: dict
    """{name: number or scalar tensor}. Most are means over the step's batches; pixel counts (hide_iou/…) are sums."""

    images: dict
    """{mask_FRAME: B×O×H×W}: the predicted probabilities of the step's last batch."""


class Trainer:
    """A network in training, with its optimizer. It does the steps, and saves and restores the state.

    Under a launcher each process has a Trainer, and all of them must make the same calls. A Trainer changes nothing of
    its process: seeds, threads and torch's switches are left to the script.

    done: the number of iterations that are done, or None if a step was broken off while it changed the weights. So
        after an error it tells whether there is something to save.
    """

    def __init__(self, network, settings, device, processes=1):
        """network: an RDE or a ClickNetwork on any device; it is trained in place.

        settings: TrainingSettings of util.hyper_para.
        processes: how many processes train together. If more than one, they use torch's default process group.
        """
        recipe, running = settings.recipe, settings.running
        self.settings, self.device, self.processes = settings, device, processes
        self.rank = dist.get_rank() if processes > 1 else 0
        # In the published recipe, batch norms keep their running statistics, while their weights and biases are
        # trained.
        self.network = lay_out(network.to(device)).eval().requires_grad_(True)
        freeze(network, recipe)
        self.precision = precision_of(running, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "float16")
        if running.capture:
            _check_capture(device, processes, self.precision, running.compile)
        trunk = [value for name, value in network.named_parameters() if name.startswith("key_encoder.")]
        rest = [value for name, value in network.named_parameters() if not name.startswith("key_encoder.")]
        self.optimizer = torch.optim.Adam([{"params": rest}, {"params": trunk}], lr=0.0, weight_decay=WEIGHT_DECAY,
                                          fused=device.type in ("cpu", "cuda"), capturable=running.capture)
        self._set_up_groups()
        self.average = WeightAverage(network, recipe.ema) if recipe.ema else None
        self.samples = 0
        self.done = 0
        self._module = make_step(network, settings)
        self._use_frozen_trunk()
        if running.compile:
            # The losses are not compiled: each phase of the bootstrapping would be compiled anew.
            self._module.frames = compile_function(self._module.frames)
        self._step = self._module
        if processes > 1:
            ids = [device] if device.type == "cuda" else None
            self._step = DistributedDataParallel(self._module, device_ids=ids, gradient_as_bucket_view=True)
        self._graphs = StepGraphs(self._update) if running.capture else None
        # All steps share this generator: with another one, a compiled step would be compiled anew.
        self._generator = torch.Generator()
        self._stop_asked = None

    def ask_to_stop(self, exit_code):
        """Ask the training to stop: this step's result says so in every process. For signal handlers."""
        self._stop_asked = exit_code

    def learning_rate(self, iteration):
        """Return the learning rate of an iteration. That of the image trunk is a multiple of it."""
        recipe = self.settings.recipe
        return learning_rate(iteration, recipe.lr, recipe.steps, recipe.gamma, recipe.warm_up)

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

    def save(self, folder, iteration, skipped, network_too=True):
        """Write the checkpoint of an iteration, in the first process only. See model.training_state.

        network_too: also write the bare network; with --ema that is the average.
        """
        if self.rank == 0:
            training_state.save(folder, iteration, self, skipped, network_too)

    def restore(self, path):
        """Restore the state of a checkpoint. Return its iteration and the number of steps that were skipped up to it.

        Raises InputError if the file is no checkpoint, or belongs to another network.
        """
        iteration, skipped = training_state.restore(path, self)
        self.done = iteration
        self._set_up_groups()
        self._use_frozen_trunk()
        return iteration, skipped

    def _set_up_groups(self):
        """Give the optimizer's groups what follows from the options and the machine of this run."""
        for group, factor in zip(self.optimizer.param_groups, (1, self.settings.recipe.trunk_lr), strict=True):
            # A graph reads the learning rate from the device.
            rate = torch.tensor(0.0, device=self.device) if self.settings.running.capture else 0.0
            group.update({**self.optimizer.defaults, "factor": factor, "lr": rate})

    def _use_frozen_trunk(self):
        """If the image trunk is not trained, run a copy of it that has less to compute."""
        if not any(value.requires_grad for value in self.network.key_encoder.parameters()):
            dtype = getattr(torch, self.precision)
            copier = LayerCopier(dtype, packed=not self.settings.running.compile)
            with torch.no_grad():
                trunk = copy_trunk(self.network.key_encoder, copier)
            self._module.use_trunk(lambda images: trunk(images.to(dtype)))

    def _do_step(self, parts, iteration):
        """Do what `step` says."""
        # Bring the batches to the device, and draw the step's random numbers.
        batches, draws = [], []
        for number, batch in enumerate(parts):
            batches.append({name: value.to(self.device, non_blocking=True) for name, value in batch.items()
                            if torch.is_tensor(value)})
            draws.append(self._module.draw(batch, self._seed_generator(iteration, number)).to(self.device))
        # Set the learning rates, and do the step.
        for group in self.optimizer.param_groups:
            rate = self.learning_rate(iteration) * group["factor"]
            if torch.is_tensor(group["lr"]):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if self._graphs:
            self.done = None
            losses = self.settings.losses
            fraction = bootstrap_fraction(iteration, losses.start_warm, losses.end_warm, losses.top_p)
            finite, scalars, images = self._graphs.run(batches, draws, iteration, fraction)
        else:
            finite, scalars, images = self._update(batches, draws, iteration)
        # Count, and take the new weights into the average.
        samples = len(parts[0]["rgb"]) * len(parts) * self.processes
        self.samples += samples
        if self.average:
            self.average.update(samples)
        stop = self._share_stop()
        self.done = iteration + 1
        return StepResult(finite, stop, scalars, images)

    def _update(self, batches, draws, iteration):
        """Do one update of the weights. Return (finite, scalars, images) of a StepResult.

        Nothing in here waits for the device, except with float16 and between processes, so that it can be captured.
        """
        # Sum up the gradients of all batches.
        self.optimizer.zero_grad(set_to_none=True)
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        reports = []
        for number, (batch, numbers) in enumerate(zip(batches, draws, strict=True)):
            # Processes synchronise gradients once per step, with the last batch.
            apart = number < len(batches) - 1 and self.processes > 1
            with self._step.no_sync() if apart else contextlib.nullcontext():
                with torch.autocast(self.device.type, getattr(torch, self.precision), self.precision != "float32"):
                    loss, scalars, images = self._step(batch, iteration, numbers)
                reports.append(scalars)
                finite = finite & loss.detach().isfinite()
                self.scaler.scale(loss / len(batches)).backward()
        if self.processes > 1:
            everywhere = finite.float()
            dist.all_reduce(everywhere, dist.ReduceOp.MIN)
            finite = everywhere > 0
        # Clip the gradients. They are the same in every process, and so is their norm.
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.recipe.clip or float("inf"))
        # Update the weights, unless something is not finite.
        self.done = None
        if not self.scaler.is_enabled():
            finite = finite & norm.isfinite()
            self._apply_gradients(finite)
        elif finite:
            # The scaler skips an update with infinite gradients, and then scales less.
            finite = finite & norm.isfinite()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return finite, merge_scalars(reports), images

    def _apply_gradients(self, finite):
        """Do the optimizer's step if the bool scalar `finite` is True. A fused step looks at it on the device."""
        if self.optimizer.defaults["fused"]:
            self.optimizer.found_inf = (~finite).float()
            self.optimizer.step()
        elif finite:
            self.optimizer.step()

    def _seed_generator(self, iteration, part):
        """Return the generator of all random draws for one batch of a step, seeded for this batch and process."""
        sequence = np.random.SeedSequence((self.settings.running.seed, iteration, self.rank, part))
        return self._generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))

    def _share_stop(self):
        """Return the largest exit code with which any process was asked to stop, None if none was."""
        if self.processes == 1:
            return self._stop_asked
        asked = torch.tensor(-1 if self._stop_asked is None else self._stop_asked, device=self.device)
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        return None if asked < 0 else int(asked)


def precision_of(running, device):
    """Return in which precision a training of these RunningSettings computes: "float16", "bfloat16", or "float32"."""
    if running.no_amp:
        return "float32"
    return running.amp_dtype or ("bfloat16" if device.type == "cpu" else "float16")


def make_step(network, settings):
    """Return the forward pass of a training step of this network."""
    if isinstance(network, ClickNetwork):
        return ClickStep(network)
    recipe = settings.recipe
    return TrainingStep(network, settings.losses, recipe.damage, recipe.train == "keys", recipe.rollout > 0)


class StepGraphs:
    """An update of the weights that is replayed as a CUDA graph: one graph for each choice that the host makes.

    An update launches thousands of small kernels, which takes the host many times as long as the GPU takes to run them.
    Such a choice is: which frames a rollout learns from, and the share of the pixels in the loss. The first time that a
    choice is made, the update runs as usual, which lets libraries choose their algorithms; the second time it is
    captured. All graphs share their memory.
    """

    def __init__(self, update):
        """update: `Trainer._update`."""
        self._update = update
        self._seen = set()
        self._graphs = {}  # {choice: (graph, inputs, names of the scalars, results)}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def run(self, batches, draws, iteration, fraction):
        """Do what `Trainer._update` does, with the same results.

        fraction: that of `bootstrap_fraction`, which is a part of the choice.
        """
        inputs = _list_inputs(batches, draws)
        choice = (fraction, *(numbers.before for numbers in draws), *(value.shape for value in inputs))
        if choice not in self._seen:
            self._seen.add(choice)
            return self._update(batches, draws, iteration)
        if choice not in self._graphs:
            self._graphs[choice] = self._capture(batches, draws, iteration)
        graph, places, names, (finite, values, images) = self._graphs[choice]
        for place, value in zip(places, inputs, strict=True):
            place.copy_(value, non_blocking=True)
        graph.replay()
        # The next replay overwrites what is not copied. The images are looked at before that, if at all.
        return finite.clone(), dict(zip(names, values.clone().unbind(), strict=True)), images

    def _capture(self, batches, draws, iteration):
        """Record an update without doing it."""
        batches = [{name: value.clone() for name, value in batch.items()} for batch in batches]
        draws = [numbers if numbers.damage is None else numbers._replace(damage=numbers.damage.clone())
                 for numbers in draws]
        places = _list_inputs(batches, draws)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            finite, scalars, images = self._update(batches, draws, iteration)
            device = finite.device
            values = torch.stack([value.float() if torch.is_tensor(value) else torch.full((), value, device=device)
                                  for value in scalars.values()])
        return graph, places, list(scalars), (finite, values, images)


def _list_inputs(batches, draws):
    """Return all tensors that an update reads."""
    return [value for batch, numbers in zip(batches, draws, strict=True)
            for value in (*batch.values(), numbers.damage) if value is not None]


def _check_capture(device, processes, precision, compiled):
    """Raise InputError where steps cannot be captured."""
    for wrong, why in ((device.type != "cuda", f"CUDA graphs need an NVIDIA GPU, and this runs on {device.type}"),
                       (processes > 1, f"it is for one process, and {processes} train together"),
                       (precision == "float16", "the gradient scaler of float16 cannot be captured: give --amp-dtype "
                                                "bfloat16 or --no-amp"),
                       (compiled, "--compile is another way to the same end: leave one of them out")):
        if wrong:
            raise InputError(f"--capture: {why}")


def lay_out(network):
    """Return the network with its convolutions' weights in channels_last, in place. CPUs run these faster."""
    for value in network.parameters():
        if value.ndim in (4, 5):
            layout = torch.channels_last if value.ndim == 4 else torch.channels_last_3d
            value.data = value.data.contiguous(memory_format=layout)
    return network


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

    network: an RDE or a ClickNetwork; all of its parameters must be trained so far.
    """
    if recipe.train == "keys":
        network.requires_grad_(False)
    if isinstance(network, RDE):
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
