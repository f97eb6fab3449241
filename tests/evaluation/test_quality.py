"""evaluation/quality.py: fitting and checking the estimate of a mask's quality."""

import numpy as np
import pytest

from evaluation import quality
from tests.trees import davis_tree


def test_auroc_counts_pairs():
    values, good = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    # Of the four pairs, three are in order and one is a tie.
    assert quality.find_auroc(values, good) == pytest.approx(3.5 / 4)
    assert quality.find_auroc(values, good | True) is None


def test_the_fit_finds_the_weights_that_made_the_data():
    features = np.random.default_rng(0).normal(size=(4000, 2))
    iou = quality.apply(np.array([0.5, 1.0, -2.0]), features)
    found = quality.fit(features, iou, np.repeat(["a", "b"], 2000), ridge=0)
    assert found == pytest.approx([0.5, 1.0, -2.0], abs=1e-6)


@pytest.mark.slow
def test_videos_are_tracked_both_ways_and_reported(clip, tiny_checkpoint, tmp_path, run):
    tree = davis_tree(tmp_path, clip, length=5) / "trainval"
    code, out, err = run("quality", "--davis-path", tree, "--video-root", tree, "--model", tiny_checkpoint)
    assert code == 0, err
    assert "all, object seen" in out and "WEIGHTS = (" in out


def test_without_videos_there_is_nothing_to_fit(run):
    code, _, err = run("quality")
    assert code == 2 and "0 videos were found" in err
