"""Run train.py as its command line does, with the tests' network."""

import functools
import json
import sys

import torch

import train
from tests.conftest import ROOT
from util.errors import run_script

COMMON = ["--preset", "tiny", "--crop", "64", "--num_workers", "0", "--no_amp", "--backbone_weights", "none",
          "--batch_size", "2", "--log_interval", "1", "--save_interval", "2", "--device", "cpu", "--id", "NULL"]

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
"""A command's beginning that runs a script in two processes."""

COMMAND = [sys.executable, str(ROOT / "train.py"), *COMMON]


def run(*arguments, common=COMMON):
    return run_script(train.get_args_parser(), train.main, [str(argument) for argument in [*common, *arguments]])


# Samples of a pack are made without workers.
run_pack = functools.partial(run, "--stage", 3, common=[word for word in COMMON if word not in ("--num_workers", "0")])


def folder_of(saves, name):
    return next(saves.glob(f"*_{name}"))


def log_of(saves, name):
    return [json.loads(line) for line in (folder_of(saves, name) / "log.jsonl").read_text().splitlines()]


def weights(path):
    return torch.load(path, weights_only=True)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def raising(error):
    def function(*arguments, **options):
        raise error
    return function


def fail_at(step, monkeypatch, place, error):
    """Make a call of this method of TrainingStep or of the optimizer fail, the one of this step."""
    calls, method = [], getattr(*place)

    def failing(*arguments, **options):
        calls.append(0)
        if len(calls) == step:
            raise error
        return method(*arguments, **options)

    monkeypatch.setattr(*place, failing)
