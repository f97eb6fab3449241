"""Reading the memory: affinity, its softmax, readout (paper, section 3.1; STCN, section 3.2)."""

import math

import torch
import torch.nn.functional as F

TILE = 2**22
"""Affinities held at a time by `read_top_k`: enough to keep every core busy, small enough for the caches."""


def affinity(query, key):
    """How near each memory key is to each query: a(q, n) = (2 Kₙ·Q_q - ‖Kₙ‖²) / √C.

    That is the negative squared distance without the term that the softmax over the memory cancels. query
    C×Q, key C×N, with a batch dimension in front of both or of none. Returns (B×)Q×N; always float32, since
    the two terms nearly cancel.
    """
    scale = 1 / math.sqrt(key.shape[-2])
    with torch.autocast(key.device.type, enabled=False):
        query, key = query.float(), key.float()
        norm = key.square().sum(-2, keepdim=True).mul(scale)
        return (query.mul(2 * scale).transpose(-1, -2) @ key).sub_(norm)


def read_top_k(query, key, value, top_k):
    """Readout of the inference: every query reads its `top_k` nearest memory positions.

    query C×Q, key C×N, value N×V, where V may hold the channels of several objects. Returns Q×V. If the
    memory has fewer than `top_k` positions, all count. The softmax subtracts the maximum. Queries are taken
    in tiles, so that the affinities of a large image are never all there.
    """
    top_k = min(top_k, key.shape[1])
    readout = []
    for tile in query.split(max(1, TILE // key.shape[1]), dim=1):
        nearest, position = affinity(tile, key).topk(top_k, dim=-1)
        weight = nearest.softmax(-1).to(value.dtype)
        readout.append(F.embedding_bag(position, value, per_sample_weights=weight, mode="sum"))
    return torch.cat(readout)


def read_all(query, key, value):
    """Readout of the training: a softmax over the whole memory.

    query B×C×Q, key B×C×N, value B×O×V×N. Returns B×O×V×Q.
    """
    weight = affinity(query, key).softmax(-1).to(value.dtype)
    return value @ weight.transpose(-1, -2).unsqueeze(1)
