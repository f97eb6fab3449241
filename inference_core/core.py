"""The inference core: one frame at a time, constant memory."""

import contextlib

import numpy as np
import torch
import torch.nn.functional as F

from inference_core.capture import CompiledEngine
from inference_core.memory import MODES, ObjectMemory, needs_sam
from model import RDE
from model.inference import take_snapshot
from model.network import distribution
from util.errors import InputError, pixels

STRIDE = 16


@contextlib.contextmanager
def exact_float32():
    """Within, float32 means float32: on a GPU torch would round the inputs of convolutions to TF32's ten bits.

    Tracking feeds its own results back, frame after frame: with TF32 probabilities of the parity tests move by 4e-3
    instead of 8e-6. Who wants speed asks for half precision.

    These settings are the whole process's, and torch (2.14) has none for a single thread, call or convolution: other
    threads that compute on a GPU during a step have exact float32, too. They are put back afterwards.
    """
    settings = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [setting.allow_tf32 for setting in settings]
    for setting in settings:
        setting.allow_tf32 = False
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.allow_tf32 = value


class InferenceCore:
    """Tracks objects through one video.

        core = InferenceCore(network, mode="two-frames-compress", mem_every=3, top_k=40)
        for image, mask in frames:          # mask: None but where objects are given
            ids = core.to_mask(core.step(image, mask))

    network: a multi-object `model.RDE`; the core computes on the network's device, with the weights that it has now.
        Or what is to be run in its place: an object with the methods and `config`, `device` and `dtype` of a
        `model.inference.InferenceNetwork`.
    mode: what the memory keeps, one of `MODES`. Nothing grows with the video's length except in `stm`.
    mem_every: a frame becomes a memory frame when at least so many have passed since the last one.
    top_k: how many memory positions each query reads.
    include_last: make every frame a memory frame.
    size: shorter side at which to compute; frames and masks are resized to it and probabilities back.
    amp: half precision for all but affinities and probabilities: "float16", "bfloat16", or True, which is float16 and
        on the CPU bfloat16. Of a engine that is given its dtype counts instead.
    compile: compile what a frame runs through, and on a GPU replay it as CUDA graphs. It takes a minute or so when a
        size of frame, or for a second time a number of objects, comes for the first time.
    chunk_size: how many objects go through value encoder, SAM and decoder at a time.

    On a CPU, scripts call `util.machine.keep_freed_memory` first, which saves up to a quarter of the time; not in mode
    `stm`, whose growing memory would leave holes behind that nothing fits into.

    Raises InputError for a network or a mode that cannot track, or where nothing can be compiled.
    """

    def __init__(self, network, mode="two-frames-compress", mem_every=3, top_k=40, *, include_last=False,
                 size=None, amp=False, compile=False, chunk_size=8):
        if mode not in MODES:
            raise InputError(f"no mode {mode!r}; there are {', '.join(MODES)}")
        if network.config.single_object:
            raise InputError("this is a single-object network of training stage 0: it does not see the other "
                             "objects' masks and cannot track; use one of stages 1 to 3")
        if needs_sam(mode) and not network.config.sam:
            usable = ", ".join(name for name in MODES if not needs_sam(name))
            raise InputError(f"mode {mode} needs SAM and this network has none (an STCN checkpoint?); "
                             f"usable modes: {usable}")
        numbers = {"mem_every": mem_every, "top_k": top_k, "chunk_size": chunk_size, "size": size}
        for name, number in numbers.items():
            if number is not None and number < 1:
                raise InputError(f"{name} is {number}, it must be at least 1")
        self.mode = mode
        self.mem_every = 1 if include_last else mem_every
        self.top_k = top_k
        self.size = size
        self.chunk_size = chunk_size
        engine = network
        if isinstance(network, RDE):
            precision = precision_name(amp, next(network.parameters()).device)
            engine = take_snapshot(network, getattr(torch, precision), packed=not compile)
        self._engine = CompiledEngine(engine, growing=mode == "stm") if compile else engine
        self._device = engine.device
        self._id_tensor = None
        self.reset()

    def reset(self):
        """Forget everything; the next frame is the first of a video."""
        self._groups = []
        self._since_memory = 0
        self._frame_size = None
        self._latest = ()

    @property
    def objects(self):
        """Ids of the tracked objects, in the order of the latest probabilities."""
        return [object_id for group in self._groups for object_id in group.ids]

    @property
    def memory_bytes(self):
        """Bytes that the memory of all objects takes."""
        storages = {}
        for tensor in (tensor for group in self._groups for tensor in group.list_tensors()):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return sum(storages.values())

    def delete_objects(self, ids):
        """Stop tracking these objects. Raises InputError for an id that is not tracked."""
        unknown = sorted(set(ids) - set(self.objects))
        if unknown:
            raise InputError(f"no object {unknown[0]} to delete; tracked are {self.objects}")
        self._forget(ids)

    @torch.inference_mode()
    @exact_float32()
    def step(self, image, mask=None, objects=None, *, end=False, needs_output=True):
        """Take the next frame, and the mask of objects that appear or are corrected in it.

        image: 3×H×W float in [0, 1] or uint8 RGB (uint8 also as H×W×3).
        mask: H×W ids, 0 is background; or O×H×W in [0, 1], one plane for each of `objects`.
        objects: the ids that the mask stands for, 1 to 255, not necessarily contiguous; by default every id
            in an H×W mask. A new id is tracked from here on. A known one starts anew from this mask: what the
            memory held of it is dropped, since it may be what the mask corrects.
        end: this is the last frame; it is not remembered, since nothing reads it.
        needs_output: if False, nothing is computed unless the memory needs this frame, and None is returned.

        Returns (number of objects + 1)×H×W float32 probabilities that sum to one, background first, then
        `self.objects` in order; before the first mask, background alone.
        Raises InputError for shapes, types and ids other than these; the state is then unchanged.
        """
        image = self._check_image(image)
        frame_size = tuple(image.shape[-2:])
        ids = []
        if mask is not None:
            mask, ids = self._check_mask(mask, objects, frame_size)
        self._frame_size = frame_size

        # Counting from the last memory frame serves both protocols: with all objects annotated in the first frame,
        # as in DAVIS, these are the multiples of mem_every; in YouTube-VOS a late annotation starts anew.
        self._since_memory += 1
        annotated = mask is not None
        due = bool(self._groups) and self._since_memory >= self.mem_every and not end
        remember = annotated or due
        if not (remember or needs_output):
            return None
        if not (annotated or self._groups):
            return self._label(torch.ones(1, *frame_size, device=self._device))

        size = None if self.size is None else _scale_size(frame_size, self.size)
        pad = _compute_padding(size or frame_size)
        image, frame = self._engine.encode(self._upload(image), size, pad)
        kept = [row for row, object_id in enumerate(self.objects) if object_id not in ids]
        if kept:
            prob = self._segment(frame)
        if annotated:
            planes = self._resize_mask(mask, size, pad)
            if kept:
                # The given masks override: inside them the probability of all others is zero.
                planes = torch.cat([prob[1:][kept] * (planes.sum(0) <= 0.5), planes])
            prob = distribution(planes)
            self._forget(ids)
        if remember:
            self._remember(image, frame, prob[1:], ids)
        return self._label(self._restore_size(prob, pad, frame_size)) if needs_output else None

    def to_mask(self, prob):
        """Object ids uint8 H×W from probabilities.

        What `step` returned stands for the objects of its own step, in its attribute `object_ids`. What was computed
        from that, and has no such attribute, has to be of the latest step.
        """
        ids = getattr(prob, "object_ids", self._latest)
        if len(ids) + 1 != prob.shape[0]:
            raise InputError(f"these are probabilities of {prob.shape[0] - 1} objects, in the latest step there were "
                             f"{len(ids)}: they are not from it")
        best = _find_largest(prob)
        if ids == tuple(range(1, len(ids) + 1)):
            return best
        # Kept, since a tensor made from numbers makes the host wait for the GPU.
        if self._id_tensor is None or self._id_tensor[0] != (ids, prob.device):
            self._id_tensor = (ids, prob.device), torch.tensor((0, *ids), dtype=torch.uint8, device=prob.device)
        return self._id_tensor[1][best.int()]

    def _label(self, prob):
        """Note which objects these probabilities stand for."""
        self._latest = prob.object_ids = tuple(self.objects)
        return prob

    def _check_image(self, image):
        image = image if isinstance(image, torch.Tensor) else torch.tensor(np.ascontiguousarray(image))
        if image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] != 3:
            image = image.movedim(-1, 0)
        if image.ndim != 3 or image.shape[0] != 3 or not (image.dtype == torch.uint8 or image.is_floating_point()):
            raise InputError(f"an image is 3×H×W, float in [0, 1] or uint8; this is {image.dtype}, "
                             f"shape {tuple(image.shape)}")
        # On another device the look at the values would wait for it.
        if image.is_floating_point() and image.device.type == "cpu" and image.max() > 2:
            raise InputError(f"a float image lies in [0, 1]; the largest value here is {image.max():g}")
        frame_size = tuple(image.shape[-2:])
        if self._frame_size not in (None, frame_size):
            raise InputError(f"a frame of {pixels(frame_size[::-1])} in a video of {pixels(self._frame_size[::-1])}")
        return image

    def _check_mask(self, mask, objects, frame_size):
        """Planes O×H×W and their ids."""
        mask = mask if isinstance(mask, torch.Tensor) else torch.tensor(np.ascontiguousarray(mask))
        if mask.dtype in (torch.uint16, torch.uint32, torch.uint64):
            # torch can store these, and little else.
            mask = mask.long()
        if tuple(mask.shape[-2:]) != frame_size or mask.ndim not in (2, 3):
            raise InputError(f"a mask of shape {tuple(mask.shape)} for a frame of {pixels(frame_size[::-1])}")
        if objects is not None:
            ids = [int(object_id) for object_id in objects]
        elif mask.ndim == 2:
            ids = [int(object_id) for object_id in mask.unique() if object_id]
        else:
            raise InputError("a mask of O×H×W planes needs `objects`, the id of each plane")
        if not ids:
            raise InputError("the mask holds no object")
        wrong = [object_id for object_id in ids if not 1 <= object_id <= 255]
        if wrong or len(set(ids)) < len(ids):
            raise InputError(f"object ids must be distinct and from 1 to 255, these are {ids}")
        if mask.ndim == 3 and len(mask) != len(ids):
            raise InputError(f"{len(mask)} mask planes for {len(ids)} objects")
        if mask.ndim == 2:
            mask = mask == torch.tensor(ids, device=mask.device).view(-1, 1, 1)
        return mask, ids

    def _upload(self, image):
        if self._device.type == "cuda" and image.device.type == "cpu":
            # From memory that the system may not move: the host need not wait for the copy.
            image = image.pin_memory()
        return image.to(self._device, non_blocking=True)

    def _resize_mask(self, planes, size, pad):
        planes = planes.to(self._device).float()
        if size is not None:
            planes = F.interpolate(planes.unsqueeze(0), size=size, mode="nearest").squeeze(0)
        return F.pad(planes, pad)

    def _restore_size(self, prob, pad, frame_size):
        left, right, top, bottom = pad
        prob = prob[:, top:prob.shape[1] - bottom, left:prob.shape[2] - right]
        if self.size is not None:
            prob = F.interpolate(prob.unsqueeze(0), size=frame_size, mode="bilinear",
                                 align_corners=False).squeeze(0)
        return prob

    def _segment(self, frame):
        """Probabilities (O+1)×H'×W' of the tracked objects in this frame."""
        readout = torch.cat([group.read(frame.key[0], self.top_k, self._engine.read) for group in self._groups])
        logits = torch.cat([self._engine.decode(chunk, frame) for chunk in readout.split(self.chunk_size)])
        return self._engine.distribution(logits)

    def _remember(self, image, frame, masks, new_ids):
        """Add this frame to the memory of every object; those in `new_ids` are the last in `masks`."""
        # The next frame may overwrite what was computed for this one.
        key = frame.key[0].clone()
        others = masks.sum(0) - masks
        value = torch.cat([
            self._engine.encode_value(image, frame, own, rest)
            for own, rest in zip(masks.split(self.chunk_size), others.split(self.chunk_size), strict=True)
        ])
        for group in self._groups:
            group.add(key, value[:len(group.ids)])
            value = value[len(group.ids):]
        if new_ids:
            self._groups.append(ObjectMemory(new_ids, self.mode, self._aggregate, key, value))
        self._since_memory = 0

    def _aggregate(self, old, new):
        """SAM on two memory entries (key C×h×w, value O×V×h×w); where its result is not finite, the new one.

        It is applied to its own output and nothing bounds that: in a network trained on too short videos it may grow
        from frame to frame without end, and infinite once, would be so for the rest of the video.
        """
        key = self._engine.aggregate_key(old[0].unsqueeze(0), new[0].unsqueeze(0))[0]
        chunks = zip(old[1].split(self.chunk_size), new[1].split(self.chunk_size), strict=True)
        value = torch.cat([self._engine.aggregate_value(before, after) for before, after in chunks])
        # Affinities need the square. Decided on the device, which the host need not wait for.
        finite = key.float().square().sum().isfinite() & value.isfinite().all()
        return torch.where(finite, key, new[0]), torch.where(finite, value, new[1])

    def _forget(self, ids):
        for group in self._groups:
            group.remove(ids)
        self._groups = [group for group in self._groups if group.ids]


def precision_name(amp, device):
    """The dtype, as torch calls it, that the option `amp` of InferenceCore stands for."""
    if amp in (False, None):
        return "float32"
    if amp is True:
        return "bfloat16" if device.type == "cpu" else "float16"
    if amp not in ("float16", "bfloat16"):
        raise InputError(f"amp is {amp!r}, it must be float16, bfloat16, True or False")
    return amp


def _find_largest(prob):
    """prob.argmax(0) as uint8, the first of equal ones."""
    if prob.device.type != "cpu":
        return prob.argmax(0).byte()
    # Plane by plane: twenty times as fast as what torch has for the CPU.
    best, places = prob[0].clone(), torch.zeros(prob.shape[1:], dtype=torch.uint8)
    for number, plane in enumerate(prob[1:], 1):
        places.masked_fill_(plane > best, number)
        torch.maximum(best, plane, out=best)
    return places


def _compute_padding(size):
    """(left, right, top, bottom) that make (height, width) multiples of 16."""
    height, width = size
    extra_y, extra_x = -height % STRIDE, -width % STRIDE
    return extra_x // 2, extra_x - extra_x // 2, extra_y // 2, extra_y - extra_y // 2


def _scale_size(size, length):
    """(height, width) with the shorter side at `length`, rounded as torchvision's Resize does."""
    height, width = size
    if height <= width:
        return length, int(length * width / height)
    return int(length * height / width), length
