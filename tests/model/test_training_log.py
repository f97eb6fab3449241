"""What a training logs, and by which names."""

import time

import pytest

from model.training_log import TrainLog, find_tag


@pytest.mark.parametrize("name, tag", [
    ("total_loss", "train/loss"), ("loss_4", "loss/frame_4"), ("dice_4", "loss/dice_of_frame_4"),
    ("dice_loss", "loss/dice"), ("memory_gpu_mb", "speed/memory_gpu_mb"), ("something_new", "train/something_new"),
])
def test_every_number_has_a_name_in_a_group(name, tag):
    assert find_tag(name) == tag


def test_time_that_is_left_ends_with_the_run(capsys):
    """--minutes ends a run long before its iterations are done."""
    TrainLog(None, {}, 10**12, 0, time.monotonic() + 60).show_progress(1)
    assert "left 0:00:5" in capsys.readouterr().err
    TrainLog(None, {}, 10**12, 0, time.monotonic() - 1).show_progress(1)
    assert "left 0:00:00" in capsys.readouterr().err
    TrainLog(None, {}, 10**12, 0).show_progress(1)
    assert "left 0:0" not in capsys.readouterr().err
