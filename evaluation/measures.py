"""The measures J (region similarity) and F (boundary accuracy) of DAVIS."""

import numpy as np


def jaccard(ground_truth, prediction):
    """Region similarity J of two boolean masks of one shape: |A ∩ B| / |A ∪ B|, 1 where both are empty.

    Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for VOS", CVPR 2016, section 4.1.
    """
    union = np.count_nonzero(ground_truth | prediction)
    return np.count_nonzero(ground_truth & prediction) / union if union else 1.0
