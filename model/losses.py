"""The losses of training (paper, section 3.3 and 3.4)."""

import torch
import torch.nn.functional as F

IGNORE = 255
"""A class that is neither object nor background: such pixels add nothing to any loss."""


def bootstrap_fraction(iteration, start_warm, end_warm, top_p):
    """Return the fraction p of hardest pixels to learn from: 1 before `start_warm`, then linearly down to `top_p`.

    From iteration `end_warm` on it is `top_p`.
    """
    if iteration < start_warm:
        return 1.0
    if iteration >= end_warm:
        return top_p
    return top_p + (1 - top_p) * (end_warm - iteration) / (end_warm - start_warm)


def bootstrapped_cross_entropy(logits, target, fraction, selector=None):
    """Return L_ce: cross entropy over the hardest `fraction` of each image's pixels, averaged over the batch.

    logits: B×(O+1)×H×W. target: B×H×W classes; IGNORE counts as a pixel without loss. selector: B×O in {0, 1}; if an
        image has no second object, its last channel is left out.
    """
    if selector is not None:
        absent = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
        absent[:, -1] = selector[:, -1] == 0
        logits = logits.masked_fill(absent[:, :, None, None], -torch.inf)
    pixel = F.cross_entropy(logits, target, reduction="none", ignore_index=IGNORE).flatten(1)
    if fraction < 1:
        pixel = pixel.topk(int(pixel.shape[1] * fraction), dim=1, sorted=False).values
    return pixel.mean()


def dice(logits, target, selector=None):
    """Return 1 - 2 Σ p·g / (Σ p + Σ g), averaged over the objects that exist (Milletari et al., V-Net, 3DV 2016).

    Arguments as for `bootstrapped_cross_entropy`. This loss is not part of the paper's recipe. In it small objects
    weigh as much as large ones, which helps small networks.
    """
    prob = logits.softmax(1)[:, 1:].masked_fill((target == IGNORE)[:, None], 0)
    truth = torch.stack([target == label for label in range(1, logits.shape[1])], 1)
    return _mean_of_present(_dice(prob.flatten(2), truth.flatten(2)), selector)


def consistency(student, teacher, temperature=1):
    """Return D_KL(teacher ‖ student) of channel distributions: mask consistency L_mc and unbiased guidance L_ug.

    student, teacher: B×O×C×h×w. The result is summed over objects, averaged over all else, channels included, and
        multiplied by T². As in the published recipe, gradients flow into both sides.
    """
    # The teacher is given as logarithms: otherwise its gradient would be NaN where its probability underflows to 0.
    divergence = F.kl_div(
        F.log_softmax(student.float() / temperature, 2),
        F.log_softmax(teacher.float() / temperature, 2),
        reduction="none",
        log_target=True,
    )
    return divergence.mean((0, 2, 3, 4)).sum() * temperature**2


def matching(prob, truth, selector=None, counts=1):
    """Return binary cross entropy plus Dice of masks that the affinity alone has carried into other frames.

    prob, truth: B×O×N in [0, 1], shares of each of N cells. selector: B×O in {0, 1}, 1 where there is such an object.
        The loss is averaged over the objects that exist. It is not part of the paper's recipe: without it keys learn
        slowly, since they get gradients only through decoder and values.
    """
    prob = prob.float().clamp(1e-3, 1 - 1e-3)
    entropy = (F.binary_cross_entropy(prob, truth, reduction="none") * counts).mean(2)
    return _mean_of_present(entropy + _dice(prob * counts, truth * counts), selector)


def _dice(prob, truth):
    """Return the Dice loss B×O of prob and truth B×O×N."""
    return 1 - (2 * (prob * truth).sum(2) + 1) / (prob.sum(2) + truth.sum(2) + 1)


def _mean_of_present(loss, selector):
    """Return the mean of a loss B×O over the objects where `selector` B×O is 1, or over all if it is None."""
    if selector is None:
        return loss.mean()
    return (loss * selector).sum() / selector.sum().clamp(min=1)


def halving_sum(losses):
    """Return the weighted sum total ← (total + loss) / 2, frame by frame.

    The last of n frames has weight 1/2, the first 1/2ⁿ.
    """
    total = 0
    for loss in losses:
        total = (total + loss) / 2
    return total


def intersection_and_union(masks, truth):
    """Return the pixel counts of intersection and union, for the IoU that is logged.

    masks: ...×H×W probabilities, thresholded at 0.5. truth: boolean ...×H×W.
    """
    predicted = masks > 0.5
    return (predicted & truth).sum(), (predicted | truth).sum()
