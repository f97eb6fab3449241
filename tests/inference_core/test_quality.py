"""The estimate of a mask's quality, and the frames that are worth a look."""

import numpy as np
import pytest

from inference_core.quality import DOUBTFUL, LISTED, UNSEEN, Doubts, QualityMeter, measure_objects


def measure(plane):
    """What is measured of one object with these probabilities."""
    ids = (plane > 0.5).astype(np.uint8)
    return measure_objects(ids, np.maximum(plane, 1 - plane), [float(plane.sum())], [1])


def square(inside, outside, side=20):
    plane = np.full((40, 60), outside, np.float32)
    plane[10:10 + side, 10:10 + side] = inside
    return plane


def test_overlap_is_that_of_mask_and_probabilities():
    assert measure(square(1, 0))[1]["overlap"] == 1
    # Minima: 400 × 0.8. Maxima: 400 × 1 + 2000 × 0.1.
    assert measure(square(0.8, 0.1))[1]["overlap"] == pytest.approx(320 / 600, abs=1e-4)
    assert measure(square(0.4, 0))[1] == {"area": 0, "box": None, "confidence": None, "overlap": None}


def test_a_sure_mask_is_better_than_one_that_is_spread():
    def rate(plane):
        return QualityMeter().measure(measure(plane))[1]

    assert rate(square(1, 0)) > 0.95 > DOUBTFUL > rate(square(0.6, 0.1)) > 0
    assert rate(square(0.4, 0)) == UNSEEN


def test_what_went_wrong_once_lasts_until_a_mask_is_given():
    meter, fresh = QualityMeter(), QualityMeter()
    before = meter.measure(measure(square(1, 0)))[1]
    meter.measure(measure(square(0.6, 0.1)))
    after = meter.measure(measure(square(1, 0)))[1]
    assert after < before
    assert meter.measure(measure(square(0.9, 0)), given=[1])[1] == 1
    fresh.measure(measure(square(0.9, 0)), given=[1])
    assert meter.measure(measure(square(1, 0))) == fresh.measure(measure(square(1, 0)))


def test_each_doubtful_run_is_worth_a_look():
    doubts = Doubts()
    for number, quality in enumerate([0.9, 0.6, 0.3, 0.5, 0.9, 0.9, 0.2, 0.8, 0.65]):
        doubts.add(str(number), {1: 0.95, 2: quality})
    found = doubts.finish()
    assert found == [("6", 2, 0.2, "6", "6"), ("2", 2, 0.3, "1", "3"), ("8", 2, 0.65, "8", "8")]
    assert [str(doubt) for doubt in found] == ["6 (object 2, 20 %)", "1 to 3 (worst 2: object 2, 30 %)",
                                               "8 (object 2, 65 %)"]


def test_doubtful_runs_are_named_in_the_order_of_the_video():
    doubts = Doubts(position=int)
    # As --both-ways tracks: from a given mask to the end, then back.
    for number in (5, 6, 3, 2, 1, 0):
        doubts.add(str(number), {1: {6: 0.5, 3: 0.6, 2: 0.4, 1: 0.3}.get(number, 0.9)})
    assert doubts.finish() == [("1", 1, 0.3, "1", "3"), ("6", 1, 0.5, "6", "6")]


def test_few_runs_are_recommended():
    doubts = Doubts()
    for number in range(100):
        doubts.add(str(number), {1: 0.1 if number % 2 else 1.0})
    assert len(doubts.finish()) == LISTED
    assert Doubts().finish() == []
