"""Runs that are killed, or end in a power cut, and run again, leave the same files as an unbroken run."""

import json
import os
import random
import time

import numpy as np
import pytest
from PIL import Image

from tests.faults.campaign import Starter, content, cut_power, left_over
from tests.trees import training_tree, write_sequence

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

TRIALS = int(os.environ.get("RDE_FAULT_TRIALS", 3))
"""Broken runs of each kind for each script; RDE_FAULT_TRIALS makes a longer campaign."""


class Case:
    """A script with its inputs, and what an unbroken run of it leaves."""

    def __init__(self, script, folder, clip, checkpoint, starter):
        self.script, self.folder, self._starter = script, folder, starter
        common = ["--model", checkpoint, "--device", "cpu", "--threads", 1, "--size", 0, "--save-scores"]
        if script == "eval_generic":
            training_tree(folder / "G", clip, length=5)
            self.arguments = ["--long-video-path", folder / "G", "--zip", *common]
        else:
            write_sequence(folder / "frames", folder / "masks", "one", clip[0][:8], {0: clip[1][0]})
            self.arguments = ["--video", folder / "frames" / "one", "--mask", folder / "masks" / "one" / "00000.png",
                              *common]
        output = self.new_output("unbroken")
        assert self.run(output) == 0, self.said()
        self.expected = content(*self.places(output))
        counted, begun = folder / "names.txt", time.monotonic()
        assert self.run(self.new_output("counted"), prepare=("record_flushes", str(counted))) == 0
        self.seconds = time.monotonic() - begun
        self.names_given = sum('"name"' in line for line in counted.read_text().splitlines())
        assert self.names_given > 10

    def new_output(self, name):
        return self.folder / name / "out"

    def places(self, output):
        """The folders and files that the script writes."""
        places = [output, output.with_name("out_scores"), output.with_name("out.zip")]
        return [place for place in places if place.exists()]

    def run(self, output, **broken):
        """Run the script, broken as `Starter.run` is told. Returns its exit code."""
        output.parent.mkdir(exist_ok=True)
        return self._starter.run(self.script, [*self.arguments, "--output", output], **broken)

    def said(self):
        """The end of what the runs printed."""
        return self._starter.log.read_text()[-2000:]

    def check_run_again(self, output):
        """Run once more to the end: all is as after an unbroken run."""
        assert self.run(output) == 0, self.said()
        assert content(*self.places(output)) == self.expected
        assert not left_over(*self.places(output))


@pytest.fixture(scope="module", params=["eval_generic", "track"])
def case(request, tmp_path_factory, clip, tiny_checkpoint):
    folder = tmp_path_factory.mktemp(request.param)
    with Starter(folder / "log.txt") as starter:
        yield Case(request.param, folder, clip, tiny_checkpoint, starter)


def test_runs_killed_at_any_moment_end_as_an_unbroken_one(case):
    rng = random.Random(1)
    killed = 0
    for trial in range(TRIALS):
        output = case.new_output(f"killed_{trial}")
        for _ in range(rng.randint(1, 2)):
            killed += case.run(output, kill_after=rng.uniform(0, case.seconds)) == -9
            check_what_is_there(output)
        case.check_run_again(output)
    assert killed


def test_runs_killed_before_a_file_has_its_name_end_as_an_unbroken_one(case):
    rng = random.Random(2)
    for trial in range(TRIALS):
        output = case.new_output(f"part_{trial}")
        for _ in range(rng.randint(1, 2)):
            code = case.run(output, prepare=("kill_at_name", rng.randint(1, case.names_given)))
            assert code in (0, -9)
            check_what_is_there(output)
        case.check_run_again(output)


def test_runs_that_end_in_a_power_cut_end_as_an_unbroken_one(case):
    """Also if it fails when all is done: what says that it is finished is finished."""
    rng = random.Random(3)
    for trial in range(TRIALS):
        output, log = case.new_output(f"cut_{trial}"), case.folder / f"flushes_{trial}.txt"
        number = case.names_given if trial % 4 == 0 else rng.randint(1, case.names_given)
        assert case.run(output, prepare=("record_flushes", str(log), number)) == -9
        cut_power(case.places(output), log, trial)
        if (output / "summary.json").exists() and json.loads((output / "summary.json").read_text())["complete"]:
            assert content(*case.places(output)) == case.expected
        case.check_run_again(output)


def check_what_is_there(output):
    """Every file that has its name is whole."""
    for place in (output, output.with_name("out_scores")):
        for path in place.rglob("*"):
            if path.suffix == ".png":
                np.asarray(Image.open(path))
            elif path.suffix == ".npz":
                np.load(path)["prob"]
            elif path.suffix == ".json":
                json.loads(path.read_text())


def test_runs_whose_disk_is_full_name_the_file_and_end_as_an_unbroken_one(case):
    """Instead of a full disk, no file may be larger than a number of bytes: whichever file is too large is named.

    The number is at least 1000, since the script's own messages go into a file as well.
    """
    sizes = sorted({path.stat().st_size for place in case.places(case.new_output("unbroken"))
                    for path in [place, *place.rglob("*")] if path.is_file()} - set(range(1000)))
    named = set()
    for trial, size in enumerate(sizes[-2::-len(sizes) // TRIALS or -1][:TRIALS]):
        output, log = case.new_output(f"full_{trial}"), case.folder / f"said_{trial}.txt"
        assert case.run(output, prepare=("limit_files", size, str(log))) == 2
        *_, last = log.read_text().splitlines()
        assert "Traceback" not in log.read_text() and f"{output}" in last and "File too large" in last, last
        named.add(os.path.splitext(last.split(": ")[2])[1])
        check_what_is_there(output)
        case.check_run_again(output)
    assert len(named) > 1, named
