"""The evaluation scripts in two processes, which take one video after the other."""

import os
import subprocess
import sys

import pytest
import torch.distributed as dist

import eval_generic
from evaluation.run import take_numbers
from tests.conftest import ROOT
from tests.trees import folder_bytes, training_tree
from util.errors import run_script

SCRIPT = """
import sys
import time
from pathlib import Path

import eval_generic
from evaluation.run import take_numbers
from evaluation.results import Results
from util.errors import run_script

marks, fault = Path(sys.argv.pop(1)), sys.argv.pop(1)
begin, finish = Results.begin, Results.finish


def wait_for(*names):
    deadline = time.monotonic() + 60
    while not all((marks / name).exists() for name in names):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited for {names}")
        time.sleep(0.01)


def begin_and_wait(self, video):
    begin(self, video)
    if video.name == "long":
        (marks / "long begun").touch()
        wait_for("ant finished", "bee finished", "cow finished")
    else:
        wait_for("long begun")
        if video.name == fault:
            raise OSError(28, "No space left on device", "bee.png")


def finish_and_mark(self, video, **record):
    finish(self, video, **record)
    (marks / f"{video.name} finished").touch()


Results.begin, Results.finish = begin_and_wait, finish_and_mark
sys.exit(run_script(eval_generic.get_args_parser(), eval_generic.main))
"""
"""eval_generic.py, in which one process tracks the longest video until all others are finished."""


@pytest.fixture(scope="module")
def videos(clip, tmp_path_factory):
    root = training_tree(tmp_path_factory.mktemp("generic"), clip, ("ant", "bee", "cow"), length=4)
    return training_tree(root, clip, ("long",), length=8)


def arguments(videos, output, checkpoint):
    words = ["--long-video-path", videos, "--output", output, "--model", checkpoint, "--size", 0, "--threads", 1]
    return [str(word) for word in words]


def run_one(words):
    return run_script(eval_generic.get_args_parser(), eval_generic.main, words)


@pytest.fixture(scope="module")
def expected(videos, tiny_checkpoint, tmp_path_factory):
    """The masks of one process."""
    output = tmp_path_factory.mktemp("one")
    assert run_one(arguments(videos, output, tiny_checkpoint)) == 0
    return folder_bytes(output)


def run_two(tmp_path, words, fault="none"):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "marks").mkdir()
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", tmp_path / "script.py",
         tmp_path / "marks", fault, *words], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(ROOT)})


def test_a_number_goes_to_whoever_asks_next():
    store = dist.HashStore()
    slow, fast = take_numbers(5, store), take_numbers(5, store)
    assert next(slow) == 0
    assert list(fast) == [1, 2, 3, 4]
    assert list(slow) == []
    assert list(take_numbers(3, None)) == [0, 1, 2]


@pytest.mark.slow
def test_while_a_process_tracks_the_longest_video_the_other_one_tracks_the_rest(videos, expected, tiny_checkpoint,
                                                                                tmp_path):
    done = run_two(tmp_path, arguments(videos, tmp_path / "out", tiny_checkpoint))
    assert done.returncode == 0, done.stderr
    assert "wrote 4 of 4 videos" in done.stdout
    assert folder_bytes(tmp_path / "out") == expected


@pytest.mark.slow
def test_a_process_that_fails_ends_the_other_one_and_the_next_run_goes_on(videos, expected, tiny_checkpoint, tmp_path,
                                                                         capsys):
    words = arguments(videos, tmp_path / "out", tiny_checkpoint)
    done = run_two(tmp_path, words, fault="bee")
    assert done.returncode != 0
    assert "bee.png: No space left on device" in done.stderr
    assert "interrupted: finished videos are kept" in done.stderr
    assert run_one(words) == 0
    assert "1 of 4 videos are finished already" in capsys.readouterr().out
    assert folder_bytes(tmp_path / "out") == expected
