"""What changes over a training, as functions of the iteration alone: a resumed run needs no further state."""

from bisect import bisect_right


def learning_rate(iteration, base, steps, gamma, warm_up=0):
    """Learning rate of an iteration: `base` times `gamma` for each of `steps` that is reached.

    During the first `warm_up` iterations it grows linearly from base / warm_up.
    """
    rate = base * gamma ** bisect_right(steps, iteration)
    if iteration < warm_up:
        progress = iteration / warm_up
        rate *= (1 - progress) / warm_up + progress
    return rate


# (fraction of the training, max_jump) from which on it holds: easy at first, and again at the end.
MAX_JUMPS = ((0, 5), (0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25), (0.9, 5))
MAX_JUMPS_BL30K = (*MAX_JUMPS[:-1], (0.8, 5))


def max_jump(iteration, iterations, curriculum=MAX_JUMPS):
    """The largest gap between successive frames of a training video at this iteration."""
    reached = [jump for fraction, jump in curriculum if iteration >= fraction * iterations]
    return reached[-1]
