"""Reading the memory: affinity, its softmax, readout (paper, section 3.1; STCN, section 3.2)."""

import math

import torch
import torch.nn.functional as F

from model.onednn import multiply

TILES = {"cpu": 2**20, "cuda": 2**26}
"""The number of affinities that `read_top_k` holds at a time, by type of device.

Enough to keep the device busy, and on the CPU few enough for its caches."""


def affinity(query, key):
    """Return how near each memory key is to each query: a(q, n) = (2 Kₙ·Q_q - ‖Kₙ‖²) / √C.

    This is the negative squared distance without the term that the softmax over the memory cancels.

    query: C×Q. key: C×N. Both may have a batch dimension in front. Returns (B×)Q×N, always float32, since the two terms
        nearly cancel.
    """
    scale = 1 / math.sqrt(key.shape[-2])
    with torch.autocast(key.device.type, enabled=False):
        query, key = query.float(), key.float()
        norm = key.square().sum(-2, keepdim=True).mul(scale)
        return (query.mul(2 * scale).transpose(-1, -2) @ key).sub_(norm)


def read_top_k(query, key, value, copies, top_k, addend=None):
    """Return the readout of inference: every query reads its `top_k` nearest memory positions.

    query: C×Q. key: C×N. value: N×V, where V may hold the channels of several objects.
    copies: N, the number of times that each position stands in the memory.
    addend: a pair Q×D and D×N, whose product is added to the affinities.

    Returns Q×V. If the memory has fewer than `top_k` positions, all are read. The softmax subtracts the maximum.
    Queries are taken in tiles, so that the affinities of a large image are never in memory at once.

    Copies have the same affinity and the same value. So if the top-k takes t copies of a position, it is enough to read
    one copy with t times the weight.
    """
    kept = min(top_k, key.shape[1])
    groups = max(1, int(math.sqrt(key.shape[1] / kept)))
    scale = 1 / math.sqrt(key.shape[0])
    padding = (0, -key.shape[1] % groups)
    key, query = F.pad(key.float(), padding), query.float().mul(2 * scale).t()
    negative_norm = key.square().sum(0).mul_(-scale)
    if padding[1]:
        negative_norm[-padding[1]:] = -math.inf
    if addend:
        query, key = torch.cat([query, addend[0]], 1), torch.cat([key, F.pad(addend[1], padding)])
    copies = F.pad(copies.float(), padding)
    limit = TILES.get(key.device.type, 2**24)
    readout = []
    for block in query.split(max(1, limit // kept)):
        found = [find_top_k(multiply(tile, key, negative_norm), kept, groups)
                 for tile in block.split(max(1, limit // key.shape[1]))]
        nearest, position = found[0] if len(found) == 1 else (torch.cat(parts) for parts in zip(*found, strict=True))
        weight = weigh(nearest, copies[position], top_k).to(value.dtype)
        readout.append(F.embedding_bag(position, value, per_sample_weights=weight, mode="sum"))
    return readout[0] if len(readout) == 1 else torch.cat(readout)


def weigh(nearest, copies, top_k):
    """Return the softmax weights Q×K of a query's K nearest positions.

    nearest: their affinities Q×K, sorted, the largest first. copies: Q×K, the number of times that each is in the
    memory.
    """
    # Each position gives as many of its copies as there are places left in the top-k.
    taken = torch.minimum(copies, top_k - (copies.cumsum(-1) - copies)).clamp_(min=0)
    weight = (nearest - nearest[:, :1]).exp_().mul_(taken)
    return weight.div_(weight.sum(-1, keepdim=True))


def find_top_k(rows, k, groups):
    """Return rows.topk(k) of rows Q×N. N is a multiple of `groups`.

    The columns form N/groups sets of `groups` columns each. The k sets with the largest maxima hold the k largest
    values.
    """
    if groups == 1:
        return rows.topk(k)
    sets = rows.shape[1] // groups
    chosen = rows.unflatten(1, (groups, sets)).amax(1).topk(k, sorted=False).indices
    candidates = (chosen.unsqueeze(1) + torch.arange(0, rows.shape[1], sets, device=rows.device).view(-1, 1)).flatten(1)
    values, places = rows.gather(1, candidates).topk(k)
    return values, candidates.gather(1, places)


def read_all(query, key, value):
    """Return the readout of training: a softmax over the whole memory.

    query: B×C×Q. key: B×C×N. value: B×O×V×N. Returns B×O×V×Q.
    """
    weight = affinity(query, key).softmax(-1).to(value.dtype)
    objects = value.shape[1]
    # One product for all objects, whose result has channels last.
    readout = weight @ value.permute(0, 3, 1, 2).flatten(2)
    return readout.unflatten(2, (objects, -1)).permute(0, 2, 3, 1)
