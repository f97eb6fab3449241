"""The losses of training (paper, section 3.3 and 3.4)."""

import torch
import torch.nn.functional as F


def bootstrap_fraction(iteration, start_warm, end_warm, top_p):
    """The hardest fraction p of pixels that counts: 1 at first, then linearly down to `top_p`, both ends included."""
    if iteration < start_warm:
        return 1.0
    if iteration > end_warm:
        return top_p
    return top_p + (1 - top_p) * (end_warm - iteration) / (end_warm - start_warm)


def bootstrapped_cross_entropy(logits, target, fraction, selector=None):
    """L_ce: cross entropy over the hardest `fraction` of each image's pixels, averaged over the batch.

    logits B×(O+1)×H×W, target B×H×W with classes. selector B×O in {0, 1}: where an image has no second object, its
    last channel is left out.
    """
    losses = []
    for index, (scores, classes) in enumerate(zip(logits, target, strict=True)):
        if selector is not None and not selector[index, -1]:
            scores = scores[:-1]
        pixel = F.cross_entropy(scores.unsqueeze(0), classes.unsqueeze(0), reduction="none").flatten()
        if fraction < 1:
            pixel = pixel.topk(int(pixel.numel() * fraction), sorted=False).values
        losses.append(pixel.mean())
    return torch.stack(losses).mean()


def consistency(student, teacher, temperature=1):
    """D_KL(teacher ‖ student) of channel distributions: mask consistency L_mc and unbiased guidance L_ug.

    student, teacher B×O×C×h×w. Summed over objects, averaged over all else, channels included, times T². The
    recipe lets gradients flow into both sides.
    """
    # With the teacher as logarithms: its gradient would be NaN where its probability underflows to 0.
    divergence = F.kl_div(
        F.log_softmax(student.float() / temperature, 2),
        F.log_softmax(teacher.float() / temperature, 2),
        reduction="none",
        log_target=True,
    )
    return divergence.mean((0, 2, 3, 4)).sum() * temperature**2


def halving_sum(losses):
    """total ← (total + loss) / 2 from frame to frame: the last of n frames has weight 1/2, the first 1/2ⁿ."""
    total = 0
    for loss in losses:
        total = (total + loss) / 2
    return total


def intersection_and_union(masks, truth):
    """Pixel counts of thresholded masks ...×H×W against boolean truth, for the IoU that is logged."""
    predicted = masks > 0.5
    return (predicted & truth).sum(), (predicted | truth).sum()
