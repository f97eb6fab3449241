"""The inference core: it tracks objects through a video, one frame at a time.

Its memory does not grow with the video, except in mode `stm`. Every annotated frame becomes a reference of its objects,
which is read for the rest of the video.
"""

import functools
from numbers import Integral

import torch
import torch.nn.functional as F

from inference_core.capture import CompiledEngine
from inference_core.inputs import check_ids, check_image, check_mask
from inference_core.memory import MODES, MemoryState, ObjectMemory, move_memory, needs_sam
from inference_core.places import Places
from inference_core.sizes import STRIDE, compute_padding, network_size, pick_size, restore_size, scale_size
from inference_core.state import State, check_state
from model import RDE
from model.checkpoint import preset_name
from model.inference import take_snapshot
from model.network import distribution
from util.errors import InputError
from util.machine import has_bfloat16_tiles


def _all_or_nothing(method):
    """Let a method of InferenceCore that raises anything, be it for lack of memory or by Ctrl-C, leave no trace."""
    @functools.wraps(method)
    def call(core, *args, **options):
        # Putting these back takes no memory, of which there may be none.
        before = {**vars(core), "_groups": [group.copy() for group in core._groups],
                  "_places": core._places and core._places.copy()}
        try:
            return method(core, *args, **options)
        except BaseException:
            vars(core).update(before)
            raise
    return call


class InferenceCore:
    """Tracks objects through one video.

        core = InferenceCore(network, mode="two-frames-compress", mem_every=3, top_k=40)
        for image, mask in frames:          # mask is None, except where objects are given
            ids = core.to_mask(core.step(image, mask))

    network: a multi-object `model.RDE`. The core computes on the network's device, with the weights that it has now.
        Instead of a network, `network` may be an engine: an object with the methods of a
        `model.inference.InferenceNetwork` and its attributes `config`, `device`, `dtype` and `weights`. Another core on
        the `engine` of a core shares its weights, and is made in no time. An engine does not need the network that it
        was made of, which can then be freed. Cores may step in several threads at once, but not on one compiled engine.
    mode: what the memory keeps, one of `MODES`. Only in `stm` does the memory grow with the video.
    mem_every: a frame becomes a memory frame when at least this many frames have passed since the last one.
    top_k: the number of memory positions that each query reads.
    include_last: make every frame a memory frame.
    size: the shorter side, in pixels, at which the core computes. Frames and masks are resized to it, probabilities
        back. None: the frames' own size. "auto": what the network is made for, see `inference_core.sizes`.
    keep_given: give a mask back as it was given, in the result of the step that takes it. If False, it comes back from
        `size` with blunt edges, as in the published evaluation. Without `size` there is no difference.
    amp: half precision for everything but affinities and probabilities: "float16", "bfloat16", or True, which is
        float16 on a GPU and bfloat16 on the CPU; "auto" is bfloat16 on CPUs with tiles for it (AMX), and "float32", as
        False is, everywhere else. It is ignored for an engine, which has its own dtype.
    compile: compile all that a frame runs through, and on a GPU replay it as CUDA graphs. Compiling takes about a
        minute. It happens at the first frame of each size, and once more when the number of objects first changes.
    chunk_size: the number of objects that go through value encoder, SAM and decoder at a time.
    max_references: the number of references that the memory keeps of each object. When there are more, the oldest one
        but the first goes. Not in mode `stm`, whose memory keeps all.
    places: tell objects from others that look alike also by where they are (`inference_core.places`), not by their
        looks alone. None: as the network's configuration says, which is True for `compact`, and False for the published
        network `base`.

    On a CPU, a script should first call `util.machine.keep_freed_memory`, which saves up to a quarter of the time. It
    should not do so in mode `stm`: there the growing memory would leave holes that nothing fits into.

    Raises InputError for a network or a mode that cannot track, and if `compile` is set where nothing can be compiled.
    """

    def __init__(self, network, mode="two-frames-compress", mem_every=3, top_k=40, *, include_last=False,
                 size=None, amp=False, compile=False, chunk_size=8, keep_given=True, max_references=8, places=None):
        if mode not in MODES:
            raise InputError(f"there is no mode {mode!r}; the modes are {', '.join(MODES)}")
        if not hasattr(network, "config"):
            raise InputError("network is a model.RDE, as load_network returns it, or an engine; this is "
                             f"{type(network).__name__}")
        if network.config.single_object:
            raise InputError("this is a single-object network of training stage 0: it cannot track, because it does "
                             "not see the other objects' masks; use a network of stages 1 to 3")
        if needs_sam(mode) and not network.config.sam:
            usable = ", ".join(name for name in MODES if not needs_sam(name))
            raise InputError(f"mode {mode} needs SAM, which this network does not have (is it an STCN "
                             f"checkpoint?); the modes that it can use are {usable}")
        if not isinstance(places, bool | None):
            raise InputError(f"places is {places!r}, it must be True, False or None")
        numbers = {"mem_every": mem_every, "top_k": top_k, "chunk_size": chunk_size, "size": size,
                   "max_references": max_references}
        for name, number in numbers.items():
            if name == "size" and number in (None, "auto"):
                continue
            if not isinstance(number, Integral) or number < 1:
                others = ", auto or None" if name == "size" else ""
                raise InputError(f"{name} is {number!r}, it must be a whole number of at least 1{others}")
        # States hold these settings, and their files no numbers of numpy's.
        self.mode = str(mode)
        self.mem_every = 1 if include_last else int(mem_every)
        self.top_k = int(top_k)
        self.size = size if size in (None, "auto") else int(size)
        self.keep_given = bool(keep_given)
        self.chunk_size = int(chunk_size)
        self.max_references = int(max_references)
        self.places = network.config.places if places is None else places
        engine = network
        if isinstance(network, RDE):
            precision = precision_name(amp, next(network.parameters()).device)
            engine = take_snapshot(network, getattr(torch, precision), packed=not compile)
        if compile and not isinstance(engine, CompiledEngine):
            engine = CompiledEngine(engine, growing=mode == "stm")
        self.engine = engine
        self._device = engine.device
        self._id_tensor = None
        self.reset()

    def reset(self):
        """Forget everything. The next frame is then the first one of a video."""
        self._groups = []
        self._since_memory = 0
        self._next_frame = 0
        self._frame_size = None
        self._latest, self.given = (), []
        self._last_memory = 0
        self._direction = 1
        self._places = Places(self._device) if self.places else None

    def state(self):
        """Return a `State` of this moment, from which this core or another one can go on: `restore`.

        It costs no time, and nothing that follows changes it. So a list of states is a history to go back in, and two
        cores that go on from one state are branches. `inference_core.save_state` writes a state into a file.
        """
        return State(self._describe_settings(), self._frame_size, self._next_frame, self._since_memory,
                     tuple(group.state for group in self._groups), self._last_memory,
                     self._places and self._places.sightings, self._direction)

    @torch.inference_mode()
    def restore(self, state):
        """Go on from a State, with the same masks as the core that it is of.

        Raises InputError if that core had other settings or another network. Nothing is changed then.
        """
        check_state(state)
        ours, theirs = self._describe_settings(), {"places": False, **state.settings}
        names = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
        if names:
            theirs, here = (", ".join(f"{name} {settings.get(name)}" for name in names) for settings in (theirs, ours))
            raise InputError(f"this state is of a core with {theirs}; this core has {here}")
        self._check_state(state)
        groups = [ObjectMemory(self.mode, self._aggregate, move_memory(memory, self._device))
                  for memory in state.memories]
        self._groups = groups
        self._frame_size, self._next_frame = state.frame_size, state.next_frame
        self._since_memory, self._last_memory = state.since_memory, state.last_memory
        self._direction = state.direction
        self._places = Places(self._device, state.places) if self.places else None
        self._latest, self.given = tuple(self.objects), []

    given: list
    """The ids of the objects whose mask the latest step has taken."""

    @property
    def objects(self):
        """The ids of the tracked objects, in the order of the latest probabilities."""
        return [object_id for group in self._groups for object_id in group.ids]

    @property
    def references(self):
        """{object id: [the index of each frame that is a reference of it, in the order in which they were given]}."""
        return {object_id: list(group.references) for group in self._groups for object_id in group.ids}

    @property
    def memory_bytes(self):
        """The number of bytes that the memory of all objects takes."""
        storages = {}
        for tensor in (tensor for group in self._groups for tensor in group.list_tensors()):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return sum(storages.values())

    def delete_objects(self, ids):
        """Stop tracking the objects with these ids. Raises InputError for an id that is not tracked."""
        ids = check_ids(ids)
        unknown = sorted(set(ids) - set(self.objects))
        if unknown:
            raise InputError(f"there is no object {unknown[0]} to delete; the tracked objects are {self.objects}")
        self._forget(ids)

    @torch.inference_mode()
    def forget_reference(self, object_id, frame):
        """Forget that the frame of this index is a reference of this object.

        What the embedding has taken in of it stays. Raises InputError if it is no reference of this object, or its only
        one, without which there is no object.
        """
        frames = self.references.get(object_id, []) if isinstance(object_id, Integral) else []
        if frame not in frames:
            raise InputError(f"frame {frame} is no reference of object {object_id}; its references are {frames}")
        if len(frames) == 1:
            raise InputError(f"frame {frame} is the only reference of object {object_id}; to track it no longer, call "
                             "delete_objects")
        self._set_apart([object_id])
        next(group for group in self._groups if object_id in group.ids).forget_reference(frame)

    @torch.inference_mode()
    @_all_or_nothing
    def step(self, image, mask=None, objects=None, *, partial=False, replace=False, frame=None, cut=False, end=False,
             needs_output=True):
        """Track the objects into the next frame, and take a mask of objects that appear or are corrected in it.

        image: 3×H×W RGB, float in [0, 1] or uint8. A uint8 image may also be H×W×3.
        mask: H×W object ids, 0 is background; or O×H×W in [0, 1], one plane for each of `objects`. With one id in
            `objects`, H×W may be its plane: bool, float in [0, 1], 0 and 1, or 0 and 255. Without `objects`, a mask of
            0 and 255 is object 1. Where all is 0, the mask says nothing new.
        objects: the ids in the mask, each from 1 to 255, in any order and with gaps. By default they are all ids of an
            H×W mask; otherwise, its other ids count as background. The core tracks a new id from this frame on. For an
            id that it tracks already, this frame becomes a further reference, which is read beside those before it; a
            mask for a frame that is a reference already takes its place. Nothing changes for an id without any pixel.
        partial: the mask is known in some pixels only, such as those of strokes: H×W, in which 255 is unknown, 0 is
            surely background, and any other value is surely this object. Everywhere else the prediction holds. This
            frame becomes a reference of the objects that are touched: those in the mask, and those that it takes pixels
            from. Of a new id, the pixels in the mask are all that there is.
        replace: drop what the memory held of the objects in the mask, which then start anew from this frame.
        frame: the frame's index in the video, by which `references` names it. By default, one more than in the step
            before, from 0 on. Give it if frames come in another order: then an annotated frame may also come long
            before its turn, so that all frames are tracked with all references.
        cut: a new shot begins with this frame, so the objects may be anywhere in it. It only matters with `places`.
        end: this is the last frame. The memory does not take it, since no frame will read it.
        needs_output: if False, the core computes nothing unless the memory needs this frame, and returns None.

        Returns float32 probabilities (number of objects + 1)×H×W that sum to one: background first, then the objects in
        the order of `self.objects`. Before the first mask there is only the background.

        Raises InputError for shapes, types and ids other than these. Whatever it raises, the state is then unchanged.
        """
        image = check_image(image, self._frame_size)
        frame_size = tuple(image.shape[-2:])
        ids = []
        if mask is not None:
            mask, ids = check_mask(mask, objects, frame_size, partial)
        if frame is not None and not (isinstance(frame, Integral) and frame >= 0):
            raise InputError(f"frame is {frame!r}, frames are counted from 0")
        self._frame_size = frame_size
        self.given = ids
        number = self._next_frame if frame is None else int(frame)
        if abs(number - self._next_frame + 1) == 1:
            self._direction = number - self._next_frame + 1
        self._next_frame = number + 1
        if cut and self.places:
            self._places = Places(self._device)

        # Decide whether the memory takes this frame, and whether there is anything to compute.
        # Counting from the last memory frame suits both datasets. In DAVIS all objects are annotated in the first
        # frame, so memory frames are the multiples of mem_every. In YouTube-VOS an object may be annotated later, and
        # the count then starts anew.
        self._since_memory += 1
        # A partial mask without ids still says where no object is.
        annotated = bool(ids) or (partial and mask is not None and bool(self._groups) and bool(mask.any()))
        due = bool(self._groups) and self._since_memory >= self.mem_every and not end
        remember = annotated or due
        if not (remember or needs_output):
            return None
        if not (annotated or self._groups):
            return self._label(torch.ones(1, *frame_size, device=self._device))

        # Encode the frame, and predict the objects that have no whole mask in it.
        size = self._scale(frame_size)
        pad = compute_padding(size or frame_size)
        image, encoded = self.engine.encode(self._upload(image), size, pad)
        rows = [row for row, object_id in enumerate(self.objects, 1) if partial or object_id not in ids]
        if rows:
            for group in self._groups:
                group.face(number)
            prob = self._segment(encoded, number)
        # Put the given masks into the prediction, and see which objects get this frame as a reference.
        order, new = self.objects, []
        if annotated:
            given = self._resize_mask(mask, size, pad, partial)
            predicted = prob[[0, *rows]] if rows else given.new_ones(1, *given.shape[1:])
            order = [order[row - 1] for row in rows]
            order += [object_id for object_id in ids if object_id not in order]
            prob = _put_masks(predicted, order, given, ids, partial)
            touched = _find_touched(predicted, prob, order, ids) if partial else ids
            if replace:
                self._forget(touched)
            self._set_apart(touched)
            new = [object_id for object_id in touched if object_id not in self.objects]
        arranged = [0, *(1 + order.index(object_id) for object_id in (*self.objects, *new))]
        # Update the memory, and return the probabilities at the frame's size.
        if remember:
            masks = _take_planes(prob, arranged)[1:]
            self._remember(image, encoded, masks, new, number, touched if annotated else ())
            if self.places:
                kept = {frame for group in self._groups for frame in group.references}
                self._places.remember(number, self._direction, order, prob, ids, kept)
        if not needs_output:
            return None
        prob = restore_size(prob, pad, size and frame_size)
        if annotated and size is not None and self.keep_given:
            predicted = prob[:len(rows) + 1]
            prob = _put_masks(predicted, order, mask.to(self._device).float(), ids, partial)
        return self._label(_take_planes(prob, arranged))

    def to_mask(self, prob):
        """Return the object ids of each pixel, uint8 H×W, from probabilities (number of objects + 1)×H×W.

        The result of `step` knows its objects: they are in its attribute `object_ids`. A tensor that was computed from
        such a result has no such attribute, and must belong to the latest step. Raises InputError if it has another
        number of objects.
        """
        if not isinstance(prob, torch.Tensor) or prob.ndim != 3:
            shape = f" of shape {tuple(prob.shape)}" if isinstance(prob, torch.Tensor) else ""
            raise InputError("probabilities are a tensor (objects + 1)×H×W, as `step` returns them; this is "
                             f"{type(prob).__name__}{shape}")
        ids = getattr(prob, "object_ids", self._latest)
        if len(ids) + 1 != prob.shape[0]:
            raise InputError(f"these are probabilities of {prob.shape[0] - 1} objects, but the latest step had "
                             f"{len(ids)} objects")
        best = _find_largest(prob)
        if ids == tuple(range(1, len(ids) + 1)):
            return best
        # The tensor is kept because making one from numbers makes the host wait for the GPU.
        if self._id_tensor is None or self._id_tensor[0] != (ids, prob.device):
            self._id_tensor = (ids, prob.device), torch.tensor((0, *ids), dtype=torch.uint8, device=prob.device)
        return self._id_tensor[1][best.int()]

    def _label(self, prob):
        """Note which objects these probabilities belong to, and return them."""
        self._latest = prob.object_ids = tuple(self.objects)
        return prob

    def _describe_settings(self):
        """Return {name: value} of what a State must have in common with the core that goes on from it."""
        return {"mode": self.mode, "mem_every": self.mem_every, "top_k": self.top_k, "size": self.size,
                "keep_given": self.keep_given, "max_references": self.max_references,
                "precision": str(self.engine.dtype).removeprefix("torch."),
                "network": preset_name(self.engine.config), "weights": self.engine.weights,
                "places": self.places}

    def _check_state(self, state):
        """Raise InputError if the tensors of a State cannot be those of a core with these settings."""
        config = self.engine.config
        for memory in state.memories:
            if state.frame_size is None or not (memory.ids and memory.references):
                raise InputError("this state is damaged: it has a memory without objects, references or frames")
            height, width = self._scale(state.frame_size) or state.frame_size
            cells = -(-height // STRIDE), -(-width // STRIDE)
            shapes = (config.key_dim, *cells), (len(memory.ids), config.value_dim, *cells)
            entries = [*memory.references.values(), memory.embedding, memory.last]
            for found in (tuple(tensor.shape for tensor in entry) for entry in entries if entry):
                if found != shapes:
                    raise InputError(f"this state is damaged: it has keys and values of shape {found[0]} and "
                                     f"{found[1]}, expected {shapes[0]} and {shapes[1]}")
            if self.places and not Places.fits(state.places or {}, cells[0] * cells[1]):
                raise InputError("this state is damaged: it says where objects are in another map")

    def _scale(self, frame_size):
        """Return the (height, width) at which frames of this (height, width) are computed, None for their own."""
        size = network_size(pick_size(None, self.engine.config), frame_size) if self.size == "auto" else self.size
        return None if size is None else scale_size(frame_size, size)

    def _upload(self, image):
        """Return the image on the network's device."""
        if self._device.type == "cuda" and image.device.type == "cpu":
            # The host does not wait for a copy from pinned memory, which the system may not move.
            image = image.pin_memory()
        return image.to(self._device, non_blocking=True)

    def _resize_mask(self, planes, size, pad, partial):
        """Return the planes O×H×W as float32 on the network's device, at the size of the computation."""
        planes = planes.to(self._device).float()
        if size is not None and partial:
            # Even the thinnest stroke stays. Where two then lie on one another, the first counts.
            planes = F.adaptive_max_pool2d(planes, size)
            planes *= planes.cumsum(0) <= 1
        elif size is not None:
            planes = F.interpolate(planes.unsqueeze(0), size=size, mode="nearest").squeeze(0)
        return F.pad(planes, pad)

    def _segment(self, frame, number):
        """Return the probabilities (O+1)×H'×W' of background and tracked objects in the frame of this index."""
        penalise = None
        if self.places:
            penalise = functools.partial(self._places.penalise, number, self._direction, self._last_memory)
        readout = torch.cat([group.read(frame.key[0], self.top_k, self.engine.read, penalise)
                             for group in self._groups])
        logits = torch.cat([self.engine.decode(chunk, frame) for chunk in readout.split(self.chunk_size)])
        return self.engine.distribution(logits)

    def _remember(self, image, frame, masks, new, number, touched):
        """Add a frame to the memory of every object.

        masks: O×H'×W', of the known objects and then of those that begin here, `new`. number: the frame's index.
        touched: the objects of which it becomes a reference.
        """
        # This is a copy because the next frame may overwrite what was computed for this one.
        key = frame.key[0].clone()
        others = masks.sum(0) - masks
        value = torch.cat([
            self.engine.encode_value(image, frame, own, rest)
            for own, rest in zip(masks.split(self.chunk_size), others.split(self.chunk_size), strict=True)
        ])
        for group in self._groups:
            if group.ids[0] in touched:
                group.add_reference(number, key, value[:len(group.ids)], self.max_references)
            else:
                group.add(key, value[:len(group.ids)])
            value = value[len(group.ids):]
        if new:
            self._groups.append(ObjectMemory(self.mode, self._aggregate, MemoryState(new, {number: (key, value)})))
        self._since_memory, self._last_memory = 0, number

    def _aggregate(self, old, new):
        """Merge two memory entries (key C×h×w, value O×V×h×w) with SAM."""
        key = self.engine.aggregate_key(old[0].unsqueeze(0), new[0].unsqueeze(0))[0]
        chunks = zip(old[1].split(self.chunk_size), new[1].split(self.chunk_size), strict=True)
        value = torch.cat([self.engine.aggregate_value(before, after) for before, after in chunks])
        return keep_finite((key, value), new)

    def _forget(self, ids):
        """Drop these objects, and the groups that are then empty."""
        left = [group.select([object_id for object_id in group.ids if object_id not in ids]) for group in self._groups]
        self._groups = [group for group in left if group]
        if self.places and ids:
            self._places.forget(ids)

    def _set_apart(self, ids):
        """Divide the groups, so that all objects of a group are among `ids`, or none."""
        parts = [group.select(part) for group in self._groups
                 for part in (set(group.ids) - set(ids), set(ids))]
        self._groups = [group for group in parts if group]


def precision_name(amp, device):
    """Return torch's name of the dtype that the option `amp` of InferenceCore means on this torch.device.

    Raises InputError for any other value of `amp`.
    """
    if amp == "auto":
        return "bfloat16" if device.type == "cpu" and has_bfloat16_tiles() else "float32"
    if amp in (False, None, "float32"):
        return "float32"
    if amp is True:
        return "bfloat16" if device.type == "cpu" else "float16"
    if amp not in ("float16", "bfloat16"):
        raise InputError(f"amp is {amp!r}, it must be auto, float16, bfloat16, float32, True or False")
    return amp


def _put_masks(prob, order, given, ids, partial):
    """Put given masks into a prediction, and return probabilities (number in `order` + 1)×H×W.

    prob: (P+1)×H×W, background first and then the first P objects of `order`. given: the planes of `ids`, float O×H×W;
    if partial, (O+1)×H×W with what is surely background first.
    """
    if not partial:
        # A given mask overrides the prediction: inside it the probability of all other objects is zero.
        return distribution(torch.cat([prob[1:] * (given.sum(0) <= 0.5), given]))
    prob = torch.cat([prob, prob.new_zeros(len(order) + 1 - len(prob), *prob.shape[1:])])
    drawn = torch.zeros_like(prob)
    drawn[[0, *(1 + order.index(object_id) for object_id in ids)]] = given
    return torch.where(given.any(0), drawn, prob)


def _find_touched(before, after, order, ids):
    """Return the objects that are in a partial mask, and those of `order` that it takes pixels from."""
    before, after = before.argmax(0), after.argmax(0)
    lost = {order[row - 1] for row in before[before != after].unique().tolist() if row}
    return [object_id for object_id in order if object_id in lost or object_id in ids]


def _take_planes(prob, rows):
    """Return prob[rows], and prob itself if these are all its rows in order."""
    return prob if rows == list(range(len(prob))) else prob[rows]


def _find_largest(prob):
    """Return prob.argmax(0) as uint8. Of equal probabilities the first one counts."""
    if prob.device.type != "cpu":
        return prob.argmax(0).byte()
    # Going plane by plane is thirty times as fast as torch's own argmax on the CPU.
    best, numbers = prob[0], torch.zeros(prob.shape[1:], dtype=torch.uint8)
    for number, plane in enumerate(prob[1:], 1):
        # Where a plane is larger than all before it, its number is, too.
        larger = (plane > best).view(torch.uint8).mul_(number)
        numbers = torch.maximum(numbers, larger)
        best = torch.maximum(best, plane)
    return numbers


def keep_finite(merged, new):
    """Return the entry `merged`, which SAM has made, or `new`, the entry of a memory frame, if that is not finite.

    SAM is applied to its own output, and nothing bounds that. In a network trained on too short videos the output
    may grow from frame to frame without end. Once infinite, it would stay so for the rest of the video.
    """
    key, value = merged
    # The square of the key is checked because affinities contain it. The device makes the choice, so that the host
    # need not wait for it.
    finite = key.float().square().sum().isfinite() & value.isfinite().all()
    return torch.where(finite, key, new[0]), torch.where(finite, value, new[1])
