"""What changes over a training, as functions of the iteration alone: a resumed run needs no further state."""

from bisect import bisect_right


def learning_rate(iteration, base, steps, gamma, warm_up=0):
    """Learning rate of an iteration: `base` times `gamma` for each of `steps` that is reached.

    During the first `warm_up` iterations it grows linearly from base / warm_up.
    """
    rate = base * gamma ** bisect_right(sorted(steps), iteration)
    if iteration < warm_up:
        progress = iteration / warm_up
        rate *= (1 - progress) / warm_up + progress
    return rate

