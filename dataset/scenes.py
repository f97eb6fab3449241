"""Make training samples from a pack on the device that trains: whole batches, as tensor operations.

`dataset.scene_plans` draws what a sample shows; here it is rendered. A scene is a background, a part of an image or of
a real video, and cut-outs in front of it. Each layer has an affine motion, and waves and a turning limb that bend it.
Layers are rendered one after the other, each for all samples and frames at once, so that the number of operations does
not depend on the number of samples. Nothing waits for the device. Only operations are used whose results for a sample
do not depend on the others in the batch.

Letters in shapes: n samples, T frames, S×S pixels of a frame, E sprites (cut-outs) of D×D pixels.
"""

import numpy as np
import torch
import torch.nn.functional as F

from dataset.scene_assembly import (
    BARS,
    CELL,
    OWN,
    RECTANGLE,
    RING,
    ROLES,
    THING,
    WINDOW,
    sprite_margin,
    sprite_side,
)
from dataset.scene_catalogue import Catalogue
from dataset.scene_motion import TAPS, WAVES
from dataset.scene_plans import draw_plan
from dataset.training_sets import VOID
from dataset.video import LAST_JUMP
from util.errors import InputError
from util.hyper_para import SHOTS

TOGETHER = {"cpu": 1}
"""{kind of device: so many samples are rendered at a time}; on others 64. On a CPU few fit into its caches."""

SEVERITIES = (0.2, 0.5, 1.0)
"""First masks are damaged so much; the one is taken whose IoU is nearest to its target, from above."""


class SceneMaker:
    """Makes batches of training samples of the pictures of a Pack.

    seed: all random numbers of sample k come from (seed, k). size: side S of the frames, a multiple of 8. shots: T.
    kinds: {kind: share}, see KINDS of dataset.scene_catalogue; by default those that the pack can serve.
    perturb: lowest and highest target of the IoU between pgt and the clean mask; None leaves pgt clean, for steps that
    do not use it.
    max_jump: largest gap between two frames of a real video. Raises InputError if the pack lacks what a kind needs.
    """

    def __init__(self, pack, *, seed=0, size=384, shots=SHOTS, kinds=None, perturb=(0.85, 1.0), max_jump=LAST_JUMP):
        if size % CELL:
            raise InputError(f"scenes of {size} pixels: a multiple of {CELL} is needed")
        self._catalogue = Catalogue(pack, shots, kinds)
        self._pixels = pack.pixels.view(torch.int32).flatten()
        self._seed, self._size, self._shots = seed, size, shots
        self._perturb, self._max_jump = perturb, max_jump
        device = pack.pixels.device
        self._together = TOGETHER.get(device.type, 64)
        noise = np.random.default_rng(0).standard_normal((3, 256, 256), np.float32)
        self._noise = torch.from_numpy(noise).to(device)

    def __len__(self):
        """Return the number of pictures that samples are made of."""
        return len(self._catalogue.sizes)

    def make(self, numbers):
        """Return the batch of the samples with these running numbers: a dict of tensors, all on the pack's device.

            rgb              uint8 n×T×3×S×S  RGB, 0 to 255
            gt, sec_gt       uint8 n×T×1×S×S  masks of the first and the second object, 0 and 1
            cls_gt           uint8 n×T×S×S    0 background, 1 first object, 2 second object, 255 ignore
            pgt, sec_pgt     uint8 n×1×1×S×S  the first frame's masks, damaged
            selector         float32 n×2      1, and 1 if there is a second object, else 0
        """
        numbers = list(numbers)
        parts = [self._render(numbers[start:start + self._together])
                 for start in range(0, len(numbers), self._together)]
        return parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @torch.no_grad()
    def _render(self, numbers):
        plan = draw_plan(self._catalogue, self._seed, numbers, self._size, self._shots, self._perturb, self._max_jump)
        heights, reach = plan.pop("heights"), plan.pop("reach")
        content = int(2 * plan["sprite_places"][:, 3:].max(initial=1)) + 1
        followed, lit = (plan["windows"][:, 6::2] >= plan["windows"][:, 5::2]).any(), (plan["gains"] != 1).any()
        chosen = {f"level_{level}": np.flatnonzero(plan["levels"] == level) for level in (1, 2, 3)}
        chosen["streaked"] = np.flatnonzero(np.abs(plan["streaks"]).sum(1) > 0)
        chosen["blurred_frames"] = np.flatnonzero(np.repeat(plan["blurred"], self._shots))
        chosen["noisy_frames"] = np.flatnonzero(np.repeat(plan["noise"] > 0, self._shots))
        behind = [part.any() for part in np.split(plan["behind"], np.cumsum(heights)[:-1])] if heights else []
        plan = _upload({**plan, **chosen}, self._pixels.device)

        coarse = _bend(plan, self._size)
        rgb, own, ids = self._draw_background(plan, coarse[:len(numbers) * self._shots], followed)
        sprites = self._cut_out(plan, content) if heights else None
        layers = list(zip(heights, reach, behind, strict=True))
        self._draw_layers(plan, coarse[len(numbers) * self._shots:], sprites, layers, rgb, own, ids)
        rgb = self._film(plan, rgb, lit)
        batch = self._choose(plan, rgb, ids)
        return {name: value.index_select(0, plan["order"]) for name, value in batch.items()}

    def _look_up(self, place):
        """Return the pixels, uint8 …×4, at these places of the pack, int64 …."""
        return self._pixels.index_select(0, place.flatten()).view(torch.uint8).view(*place.shape, 4)

    def _draw_background(self, plan, coarse, followed):
        """Return the background's frames float n·T×3×S×S, the share of its own objects in each pixel float n·T×1×S×S or
        0, and labels uint8 n·T×1×S×S.

        followed: whether any sample has objects of its background that can be followed.
        """
        offset, width, height, left, top, *limits = plan["windows"].T[:, :, None]
        axis = torch.arange(WINDOW, device=offset.device)
        # Beyond its border, a picture is continued by its mirror image.
        x, inside_x = _mirror(left + axis, width)
        y, inside_y = _mirror(top + axis, height)
        values = self._look_up(offset[:, :, None] + y[:, :, None] * width[:, :, None] + x[:, None])
        labels = values[..., 3]
        # Nobody knows whether a mirrored object is to be followed.
        inside = inside_y[:, :, None] & inside_x[:, None]
        labels = torch.where(inside | (labels == 0), labels, VOID)
        grid = self._refine(coarse)
        picture = torch.empty(len(values), 3, WINDOW, WINDOW, device=values.device)
        picture.copy_(values[..., :3].permute(0, 3, 1, 2))
        rgb = F.grid_sample(picture, grid, padding_mode="border", align_corners=False)

        # Labels are interpolated one by one: the nearest pixel would give enlarged objects stepped outlines.
        planes = [labels == VOID]
        if followed:
            planes += [(labels >= low[:, :, None]) & (labels <= high[:, :, None])
                       for low, high in zip(limits[::2], limits[1::2], strict=True)]
        planes = F.grid_sample(torch.stack(planes, 1).float(), grid, padding_mode="border", align_corners=False)
        ids = (planes[:, :1] > 0.5).to(torch.uint8) * VOID
        for number in range(1, planes.shape[1]):
            ids.masked_fill_(planes[:, number:number + 1] > 0.5, number)
        own = planes[:, 1:2] + planes[:, 2:] if followed else 0
        return rgb, own, ids

    def _cut_out(self, plan, content):
        """Return the sprites, float E×4×D×D: RGB multiplied by the opacity, which is 0 to 1, and the opacity.

        content: side of the largest one without its margin.
        """
        full, margin = sprite_side(self._size), sprite_margin(self._size)
        # The margins of smaller ones are added at the end.
        side = min(full, -(-(content + margin) // 16) * 16)
        offset, width, height, low, high, form = plan["sprites"].T[:, :, None]
        centre_x, centre_y, step, half_x, half_y = plan["sprite_places"].T[:, :, None]
        axis = torch.arange(side, device=offset.device) + (0.5 - side / 2)

        # Nearly all cut-outs keep their picture's pixels as they are; the few that are reduced take the nearest.
        x, y = (torch.floor(centre + axis * step).long() for centre in (centre_x, centre_y))
        (x, inside_x), (y, inside_y) = _clamp(x, width), _clamp(y, height)
        values = self._look_up(offset[:, :, None] + y[:, :, None] * width[:, :, None] + x[:, None])
        labels = values[..., 3]
        alpha = ((labels >= low[:, :, None]) & (labels <= high[:, :, None])).float()
        picture = torch.empty(len(values), 3, side, side, device=values.device)
        picture.copy_(values[..., :3].permute(0, 3, 1, 2))

        # The border becomes soft and moves inwards by half a pixel: masks often include a rim of the background. An
        # opacity of 1/2 and less becomes 0, 3/4 becomes 1/2.
        alpha = (2 * F.avg_pool2d(alpha[:, None], 3, 1, 1) - 1).clamp_(0, 1)
        # Other forms than those of objects.
        across, down = axis / half_x, (axis / half_y)[..., None]
        across, down = across[:, None, None], down[:, None]
        form, sharp = form[..., None, None], half_x[..., None, None]
        distance = torch.where((form == RECTANGLE) | (form == BARS), torch.maximum(across.square(), down.square()),
                               across.square() + down.square())
        shape = ((1 - distance) * sharp / 2).clamp(0, 1)
        shape = shape - (form == RING) * ((0.4 - distance) * sharp / 2).clamp(0, 1)
        shape = shape * ((form != BARS) | ((across * 2.5 - (across * 2.5).round()).abs() < 0.27))
        alpha = torch.where(form == THING, alpha, shape)
        inside = inside_y[:, None, :, None] & inside_x[:, None, None]
        room = axis.abs() < full / 2 - margin / 2
        alpha = alpha * (inside & room & room[:, None])

        sprites = torch.cat([_recolour(picture, plan["colours"]) * alpha, alpha], 1)
        sprites = F.pad(sprites, [(full - side) // 2] * 4)
        # Reduce what will be small in the frames, and put it into the middle again.
        for level in (1, 2, 3):
            index = plan[f"level_{level}"]
            if len(index):
                small = F.avg_pool2d(sprites.index_select(0, index), 2 ** level)
                sprites[index] = F.pad(small, [(full - small.shape[-1]) // 2] * 4)
        index = plan["streaked"]
        if len(index):
            streak = plan["streaks"].index_select(0, index)[:, None, None] * (2 / full)
            sprites[index] = _mean_of_shifted(sprites.index_select(0, index), [streak * part for part in STREAK])
        return sprites

    def _draw_layers(self, plan, coarse, sprites, layers, rgb, own, ids):
        """Draw all layers, from back to front, into rgb and ids; in place. See `_draw_background`.

        layers: for each depth, how many samples have a layer there, the cells (left, top, right, bottom) that any of
        these layers touches, and whether any of them is behind the background's own objects.
        """
        shots, start = self._shots, 0
        for height, (left, top, right, bottom), any_behind in layers:
            rows, start = slice(start, start + height), start + height
            if right <= left or bottom <= top:
                continue
            # The layers at this depth belong to the first `height` samples.
            part = slice(0, height * shots), slice(None), *(slice(CELL * low, CELL * high)
                                                            for low, high in ((top, bottom), (left, right)))
            grid = self._refine(coarse[rows.start * shots:rows.stop * shots, :, top:bottom + 2, left:right + 2])
            shown = F.grid_sample(sprites.index_select(0, plan["shown"][rows].flatten()), grid, align_corners=False)
            if any_behind:
                hides = plan["behind"][rows, None].expand(height, shots).reshape(-1, 1, 1, 1)
                shown *= 1 - own[part] * hides
            alpha = shown[:, 3:]
            rgb[part].mul_(1 - alpha).add_(shown[:, :3])
            label = plan["labels"][rows, None].expand(height, shots).reshape(-1, 1, 1, 1)
            ids[part] = torch.where(alpha > 0.5, label, ids[part])

    def _refine(self, coarse):
        """Return the grid for `grid_sample`, k×8h×8w×2, from its values at the cells, k×2×(h + 2)×(w + 2)."""
        fine = F.interpolate(coarse, scale_factor=CELL, mode="bilinear", align_corners=False)
        return fine[:, :, CELL:-CELL, CELL:-CELL].permute(0, 2, 3, 1)

    def _film(self, plan, rgb, lit):
        """Return the frames uint8 n×T×3×S×S under changing light, some of them blurred or noisy.

        lit: whether light differs over the frame in any sample.
        """
        if lit:
            gains = plan["gains"].flatten(0, 1)[:, None]
            rgb = rgb * F.interpolate(gains, size=self._size, mode="bilinear", align_corners=True)
        rgb = _recolour(rgb, plan["film"].flatten(0, 1))
        index = plan["blurred_frames"]
        if len(index):
            taps = plan["taps"].flatten(0, 1).index_select(0, index) * (2 / self._size)
            rgb[index] = _mean_of_shifted(rgb.index_select(0, index), [taps[:, tap, None, None] for tap in range(TAPS)])
        index = plan["noisy_frames"]
        if len(index):
            side = torch.arange(self._size, device=rgb.device)
            shifts = plan["shifts"].flatten(0, 1).index_select(0, index)
            x, y = ((shifts[:, part, None] + side) % 256 for part in (0, 1))
            noise = self._noise[:, y[:, :, None], x[:, None]].transpose(0, 1)
            strength = plan["noise"].repeat_interleave(self._shots).index_select(0, index)
            rgb[index] = rgb.index_select(0, index) + noise * strength[:, None, None, None]
        return rgb.round_().clamp_(0, 255).to(torch.uint8).unflatten(0, (-1, self._shots))

    def _choose(self, plan, rgb, ids):
        """Return the batch: choose up to two objects that frame 0 shows, and make their masks. ids: n·T×1×S×S."""
        ids = ids.view(-1, self._shots, self._size, self._size)
        labels = torch.arange(1, OWN + ROLES + 1, device=ids.device, dtype=torch.uint8)
        # One pixel in four is counted.
        pixels = 4 * (ids[:, :1, ::2, ::2] == labels[:, None, None]).sum((2, 3))
        rank = torch.where(pixels >= plan["visible"][:, None], plan["rank"], -1)
        best, index = rank.topk(2, 1)
        there = best >= 0
        there = torch.stack([there[:, 0], there[:, 1] & plan["follow_two"]], 1)
        # No pixel has the label of an object that is not followed.
        first, second = torch.where(there, index + 1, VOID - 1).to(torch.uint8).T[:, :, None, None, None]
        gt, sec_gt = (ids == first), (ids == second)
        classes = gt.to(torch.uint8) + 2 * sec_gt.to(torch.uint8)
        classes.masked_fill_(ids == VOID, VOID)
        gt, sec_gt = (part.to(torch.uint8).unsqueeze(2) for part in (gt, sec_gt))
        pgt = torch.cat([gt[:, :1], sec_gt[:, :1]], 2)
        if self._perturb:
            pgt = _damage(pgt[:, 0], plan["damage"], plan["targets"])[:, None]
        return {"rgb": rgb, "gt": gt, "sec_gt": sec_gt, "cls_gt": classes, "pgt": pgt[:, :, :1],
                "sec_pgt": pgt[:, :, 1:],
                "selector": torch.stack([torch.ones_like(there[:, 1]), there[:, 1]], 1).float()}


STREAK = (-0.4, 0.0, 0.4)
"""Where along its way a blurred cut-out is averaged."""


def _upload(plan, device):
    """Return a plan's arrays as tensors on a device: numbers as float32, whole numbers as int64. Two copies in all."""
    result = {}
    for kinds, dtype in (("f", np.float32), ("iub", np.int64)):
        names = [name for name, value in plan.items() if value.dtype.kind in kinds]
        flat = torch.from_numpy(np.concatenate([plan[name].ravel() for name in names], dtype=dtype, casting="unsafe"))
        if device.type == "cuda":
            # From ordinary memory the copy would wait for what the device is doing.
            flat = flat.pin_memory().to(device, non_blocking=True)
        for name, part in zip(names, flat.split([plan[name].size for name in names]), strict=True):
            result[name] = part.view(plan[name].shape)
    for name in ("behind", "follow_two"):
        result[name] = result[name] > 0
    result["labels"] = result["labels"].to(torch.uint8)
    return result


def _bend(plan, size):
    """Return where points of the frames lie in their layers, float k×2×(S/8 + 2)², from -1 to 1 over the layer's side.

    The points are the middles of cells of 8×8 pixels, and of one more cell on each side.
    """
    geometry = plan["geometry"].T[:, :, None, None]
    a, b, c, d, e, f = geometry[:6]
    waves, limb, scale = geometry[6:6 + 5 * WAVES].unflatten(0, (WAVES, 5)), geometry[-9:-1], geometry[-1]
    points = (torch.arange(-1, size // CELL + 1, device=geometry.device) + 0.5) * CELL
    down = points[:, None]
    x, y = a * points + b * down + c, d * points + e * down + f
    shift_x, shift_y = torch.zeros_like(x), torch.zeros_like(y)
    for across, along, phase, high_x, high_y in waves:
        turns = x * across + y * along + phase
        turns = turns - turns.round()
        # Two parabolas instead of a sine: its value could depend on the batch in the last bit.
        height = turns * (8 - 16 * turns.abs())
        shift_x += height * high_x
        shift_y += height * high_y
    x, y = x + shift_x, y + shift_y
    across, along, edge, steep, joint_x, joint_y, cosine, sine = limb
    weight = ((x * across + y * along - edge) * steep).clamp_(0, 1)
    to_x, to_y = x - joint_x, y - joint_y
    x, y = x + weight * (cosine * to_x - sine * to_y), y + weight * (sine * to_x + cosine * to_y)
    return torch.stack([x, y], 1) * scale[:, None]


def _mirror(places, length):
    """Return places int64 in a picture of this length, continued by its mirror image, and whether they are inside."""
    places = places % (2 * length)
    return torch.minimum(places, 2 * length - 1 - places), places < length


def _clamp(places, length):
    """Return places int64 moved into a picture of this length, and whether they were inside."""
    inside = (places >= 0) & (places < length)
    return torch.minimum(places.clamp(min=0), length - 1), inside


def _recolour(picture, matrix):
    """Return k×3×H×W with colour matrices k×12 applied, within 0 to 255."""
    matrix = matrix.view(-1, 3, 4, 1, 1)
    result = picture[:, :1] * matrix[:, :, 0] + matrix[:, :, 3]
    result += picture[:, 1:2] * matrix[:, :, 1]
    result += picture[:, 2:] * matrix[:, :, 2]
    return result.clamp_(0, 255)


def _mean_of_shifted(picture, shifts):
    """Return the mean of pictures k×C×H×W shifted by each of `shifts`, k×1×1×2, in halves of the side."""
    height, width = picture.shape[2:]
    x, y = (2 * torch.arange(length, device=picture.device) + 1 for length in (width, height))
    grid = torch.stack(torch.broadcast_tensors(x / width - 1, (y / height - 1)[:, None]), -1)
    total = F.grid_sample(picture, grid + shifts[0], padding_mode="border", align_corners=False)
    for shift in shifts[1:]:
        total += F.grid_sample(picture, grid + shift, padding_mode="border", align_corners=False)
    return total.div_(len(shifts))


def _damage(masks, noise, targets):
    """Return masks uint8 n×2×S×S of 0 and 1 damaged at random; empty ones stay empty.

    noise: n×2×3×…, normally distributed on a coarse grid: two planes displace a mask's outline, the third moves it in
    and out. targets: n×2, the IoU with the true mask that is aimed at; of `SEVERITIES`, the one is taken that comes
    nearest from above, or no damage if all are below.
    """
    size = masks.shape[-1]
    clean = masks.flatten(0, 1)[:, None].float()
    # In proportion to the object's size, and to the frame's.
    root = clean.sum((2, 3), keepdim=True).sqrt() / size
    field = F.interpolate(noise.flatten(0, 1), size=size, mode="bilinear", align_corners=True)
    blurred = F.avg_pool2d(F.avg_pool2d(clean, (9, 1), 1, (4, 0)), (1, 9), 1, (0, 4))
    base = torch.arange(size, device=masks.device) * (2 / size) + (1 / size - 1)
    base = torch.stack(torch.broadcast_tensors(base, base[:, None]), -1)
    shift = (field[:, :2] * (0.12 * root)).permute(0, 2, 3, 1)
    true = clean[:, 0] > 0.5
    best, nearest = true, torch.ones_like(root[:, :, 0, 0])
    targets = targets.reshape(-1, 1)
    for severity in SEVERITIES:
        damaged = F.grid_sample(blurred, base + severity * shift, align_corners=False)[:, 0]
        damaged = damaged > (0.5 + 0.3 * severity * field[:, 2]).clamp_(0.1, 0.9)
        # One pixel in four is counted.
        common, either = ((part[:, ::2, ::2]).sum((1, 2)) for part in (damaged & true, damaged | true))
        overlap = (common / either.clamp(min=1))[:, None]
        better = (overlap >= targets) & (overlap < nearest)
        best = torch.where(better[..., None], damaged, best)
        nearest = torch.where(better, overlap, nearest)
    return best.view(masks.shape).to(torch.uint8)
