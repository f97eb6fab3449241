"""train.py through its command line, on a small dataset with the tests' network."""

import functools
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch._dynamo.exc import BackendCompilerFailed, Unsupported
from torch._inductor.exc import InvalidCxxCompiler

import download_bl30k
import download_datasets
import train
from dataset.pack import write_pack
from dataset.scenes import SceneMaker
from dataset.training_sets import find_pairs, find_videos
from model import PRESETS, load_network
from model.trainer import Trainer
from model.training_step import TrainingStep
from tests.conftest import ROOT
from tests.trees import davis_tree, static_tree
from util.errors import run_script
from util.files import lock_folder
from util.hyper_para import training_settings

COMMON = ["--preset", "tiny", "--crop", "64", "--num_workers", "0", "--no_amp", "--backbone_weights", "none",
          "--batch_size", "2", "--log_interval", "1", "--save_interval", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five images with their masks."""
    return static_tree(tmp_path_factory.mktemp("static"))


@pytest.fixture(scope="module")
def videos(clip, tmp_path_factory):
    """Three videos of eight frames, two objects each."""
    return davis_tree(tmp_path_factory.mktemp("videos"), clip, length=8) / "trainval"


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


def test_stage_0_then_stage_3(images, videos, tmp_path, capsys):
    assert run("--stage", 0, "--static_root", images, "--id", "s0", "--iterations", 4, "--out_root", tmp_path,
               "--image_interval", 2) == 0
    first = folder_of(tmp_path, "s0")
    assert sorted(file.name for file in first.glob("*.pth")) == [
        "model_2.pth", "model_2_checkpoint.pth", "model_4.pth", "model_4_checkpoint.pth"]
    assert any(file.name.startswith("events") for file in first.iterdir())
    assert json.loads((first / "config.json").read_text())["total_batch"] == 2
    rows = log_of(tmp_path, "s0")
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert rows[0].keys() >= {"total_loss", "loss_1", "loss_2", "klloss_loss", "iou", "lr", "seconds", "data_wait"}
    assert load_network(first / "model_4.pth").config.single_object

    assert run("--stage", 3, "--video_root", videos, "--id", "s03", "--iterations", 2, "--out_root", tmp_path,
               "--load_network", first / "model_4.pth") == 0
    network = load_network(folder_of(tmp_path, "s03") / "model_2.pth")
    assert network.config.sam and not network.config.single_object
    assert log_of(tmp_path, "s03")[0].keys() >= {"loss_4", "df2_distillation", "df4_distillation", "sec_iou"}
    assert "wrote" in capsys.readouterr().out


@pytest.mark.slow
def test_training_learns(images, tmp_path):
    run("--stage", 0, "--static_root", images, "--id", "long", "--iterations", 30, "--out_root", tmp_path,
        "--lr", 3e-4, "--save_interval", 100)
    rows = log_of(tmp_path, "long")
    assert np.mean([row["total_loss"] for row in rows[-5:]]) < 0.7 * np.mean([row["total_loss"] for row in rows[:3]])


COMMAND = [sys.executable, str(ROOT / "train.py"), *COMMON]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_killed_and_resumed_training_ends_with_the_same_weights(stage, images, videos, tmp_path):
    """Bit for bit, across the border of an epoch (five images, three videos) and changes of the curriculum."""
    data = ["--static_root", str(images)] if stage == 0 else ["--video_root", str(videos)]
    command = [*COMMAND, "--stage", str(stage), *data, "--iterations", "10", "--steps", "7", "--num_workers", "2",
               "--resume", "auto"]
    whole, broken = ([*command, "--id", "x", "--out_root", str(tmp_path / name)] for name in ("whole", "broken"))
    subprocess.run(whole, check=True, capture_output=True)
    killed = subprocess.Popen(broken, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.time() + 120
    while not list((tmp_path / "broken").glob("*/model_4_checkpoint.pth")) and time.time() < deadline:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not list((tmp_path / "broken").glob("*/model_10.pth"))
    resumed = subprocess.run(broken, check=True, capture_output=True, text=True)
    assert "continuing from" in resumed.stdout
    results = [weights(folder_of(tmp_path / name, "x") / "model_10.pth") for name in ("whole", "broken")]
    assert equal(*results)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "mixed"])
def test_a_training_on_a_gpu_goes_on_where_it_was_cut(precision, images, videos, tmp_path, device, monkeypatch,
                                                      record_property):
    """On a CPU bit for bit. A GPU adds up some gradients in an order that changes, so that no two runs are alike.

    Compared is the change of all weights, of a whole run and of one that was cut: they may be 5 % apart, or four times
    as far as two whole runs. Without the optimizer's state they would be 60 % apart.
    """
    def change(name):
        first, last = (weights(folder_of(tmp_path, name) / f"model_{number}.pth") for number in (1, end))
        return torch.cat([(last[key] - first[key]).flatten().double().cpu() for key in first])

    def cut(self, parts, iteration):
        if iteration == end - 3:
            self.ask_to_stop(143)
        return step(self, parts, iteration)

    # In float16, the scaler may pass over the first steps.
    end = 4 if device.type == "cpu" else 8
    common = [argument for argument in COMMON if precision == "float32" or argument != "--no_amp"]
    common += ["--device", str(device), "--stage", "3", "--video_root", str(videos), "--static_root", str(images),
               "--pasted", "0.5", "--lr", "1e-4", "--iterations", str(end), "--save_interval", "1", "--crop", "32",
               "--out_root", str(tmp_path), "--resume", "auto"]

    def training(name):
        return run_script(train.get_args_parser(), train.main, [*common, "--id", name])

    assert training("whole") == training("again") == 0
    step = Trainer.step
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", cut)
        assert training("cut") == train.STOPPED
    assert not (folder_of(tmp_path, "cut") / f"model_{end}.pth").exists()
    assert training("cut") == 0
    whole, again, resumed = map(change, ("whole", "again", "cut"))
    assert whole.any()
    noise, apart = (((other - whole).norm() / whole.norm()).item() for other in (again, resumed))
    record_property("two whole runs apart", noise)
    record_property("cut and whole run apart", apart)
    assert apart <= (0 if device.type == "cpu" else max(0.05, 4 * noise))


KILLED = """
import os, runpy, signal, sys
sys.path.insert(0, {root!r})
from model.training_step import TrainingStep
forward = TrainingStep.forward
def killed(self, batch, iteration, generator):
    if (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"], iteration) in (("1", "0", 3), ("0", "1", 5)):
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(self, batch, iteration, generator)
TrainingStep.forward = killed
runpy.run_path({root!r} + "/train.py", run_name="__main__")
"""


@pytest.mark.slow
def test_processes_that_torchrun_restarts_go_on_from_the_last_checkpoint(images, tmp_path):
    """One after the other is killed; all then start again, and end where an unbroken run does."""
    (tmp_path / "killed.py").write_text(KILLED.format(root=str(ROOT)))
    rest = [*COMMON, "--stage", "0", "--static_root", str(images), "--iterations", "6", "--id", "x", "--resume",
            "auto", "--lr", "1e-4"]
    for script, name in ((COMMAND[1], "whole"), (tmp_path / "killed.py", "broken")):
        subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--max-restarts=2",
                        "--standalone", str(script), *rest, "--out_root", str(tmp_path / name)],
                       check=True, capture_output=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    results = [weights(folder_of(tmp_path / name, "x") / "model_6.pth") for name in ("whole", "broken")]
    assert equal(*results)
    rows = [log_of(tmp_path / name, "x") for name in ("whole", "broken")]
    assert [row["iteration"] for row in rows[1]] == [1, 2, 3, 4, 5, 6]
    assert [row["total_loss"] for row in rows[1]] == [row["total_loss"] for row in rows[0]]


@pytest.mark.slow
def test_two_processes_may_learn_from_other_frames_and_wait_for_the_validation(videos, tmp_path):
    """In rollouts each draws its own frames to learn from, so that their losses have other names."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", *COMMAND[1:],
               "--stage", "3", "--video_root", str(videos), "--rollout", "8", "--iterations", "2", "--id", "x",
               "--batch_size", "1", "--val_davis", str(videos), "--val_every", "2", "--out_root", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    rows = log_of(tmp_path, "x")
    frames = [[name for name in row if name.startswith("loss_")] for row in rows if "total_loss" in row]
    assert any(len(names) > 3 for names in frames)
    assert "val/J&F" in rows[-1]


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(videos, tmp_path):
    command = [*COMMAND, "--stage", "3", "--video_root", str(videos), "--iterations", "3", "--id", "x"]
    one = [*command, "--batch_size", "4", "--out_root", str(tmp_path / "one")]
    subprocess.run(one, check=True, capture_output=True)
    both = [command[0], "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", *command[1:],
            "--out_root", str(tmp_path / "two")]
    subprocess.run(both, check=True, capture_output=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    accumulated = [*command, "--accumulate", "2", "--out_root", str(tmp_path / "sum")]
    subprocess.run(accumulated, check=True, capture_output=True)
    one, two, added = (log_of(tmp_path / name, "x") for name in ("one", "two", "sum"))
    for first, second in zip(one, two, strict=True):
        for name in ("total_loss", "loss_1", "loss_4", "klloss_loss", "iou"):
            assert second[name] == pytest.approx(first[name], rel=1e-5, abs=1e-7), name
    weight = [weights(folder_of(tmp_path / name, "x") / "model_3.pth")["key_comp.weight"] for name in ("one", "sum")]
    assert torch.allclose(*weight, atol=1e-6)
    for first, summed in zip(one, added, strict=True):
        for name in ("total_loss", "loss_1", "loss_4", "klloss_loss", "iou"):
            assert summed[name] == pytest.approx(first[name], rel=1e-4, abs=1e-6), name


def test_sigterm_saves_and_ends(images, tmp_path, monkeypatch):
    forward, steps = TrainingStep.forward, []

    def terminated(self, *arguments):
        steps.append(0)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *arguments)

    monkeypatch.setattr(TrainingStep, "forward", terminated)
    assert run("--stage", 0, "--static_root", images, "--id", "t", "--iterations", 20, "--out_root", tmp_path,
               "--save_interval", 100) == 143
    assert (folder_of(tmp_path, "t") / "model_3_checkpoint.pth").exists()


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


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_what_is_done_is_saved_whatever_ends_the_training(error, images, tmp_path, monkeypatch, capsys):
    arguments = ["--stage", 0, "--static_root", images, "--id", "e", "--iterations", 4, "--save_interval", 100,
                 "--num_workers", 2, "--out_root", tmp_path, "--resume", "auto"]
    with monkeypatch.context() as patch:
        fail_at(3, patch, (TrainingStep, "forward"), error)
        if isinstance(error, KeyboardInterrupt):
            assert run(*arguments) == 130
        else:
            with pytest.raises(RuntimeError, match="out of memory"):
                run(*arguments)
    for process in multiprocessing.active_children():
        process.join(10)
    assert not multiprocessing.active_children()
    assert [file.name for file in folder_of(tmp_path, "e").glob("*.pth")] == ["model_2_checkpoint.pth"]
    assert "saved iteration 2: --resume auto goes on from there" in capsys.readouterr().err
    assert run(*arguments) == 0
    assert "model_2_checkpoint.pth, iteration 2" in capsys.readouterr().out
    assert run(*arguments, "--id", "whole") == 0
    assert equal(*(weights(folder_of(tmp_path, name) / "model_4.pth") for name in ("e", "whole")))


def test_weights_that_were_half_updated_are_not_saved(images, tmp_path, monkeypatch):
    fail_at(2, monkeypatch, (torch.optim.Adam, "step"), RuntimeError("in the middle"))
    with pytest.raises(RuntimeError, match="in the middle"):
        run("--stage", 0, "--static_root", images, "--id", "h", "--save_interval", 100, "--out_root", tmp_path)
    assert not list(folder_of(tmp_path, "h").glob("*.pth"))


def test_an_error_that_cannot_be_saved_after_stays_the_error(images, tmp_path, monkeypatch, capsys):
    fail_at(2, monkeypatch, (TrainingStep, "forward"), RuntimeError("the cause"))
    monkeypatch.setattr("model.training_state.torch.save", raising(OSError(28, "No space left on device")))
    with pytest.raises(RuntimeError, match="the cause"):
        run("--stage", 0, "--static_root", images, "--id", "f", "--save_interval", 100, "--out_root", tmp_path)
    assert "iteration 1 could not be saved: " in capsys.readouterr().err


def test_two_runs_do_not_write_into_one_folder(images, tmp_path, capsys):
    arguments = ["--stage", 0, "--static_root", images, "--id", "l", "--out_root", tmp_path, "--resume", "auto"]
    assert run(*arguments, "--iterations", 1) == 0
    with lock_folder(folder_of(tmp_path, "l")):
        capsys.readouterr()
        assert run(*arguments, "--iterations", 2) == 2
        assert "another run is writing here; wait for its end, or choose another --id" in capsys.readouterr().err
    assert run(*arguments, "--iterations", 2) == 0


FAILING = """
import runpy, sys
sys.path.insert(0, {root!r})
from model.training_step import TrainingStep
forward = TrainingStep.forward
def failing(self, batch, iteration, numbers):
    if iteration == 2:
        raise MemoryError("as much as this")
    return forward(self, batch, iteration, numbers)
TrainingStep.forward = failing
runpy.run_path({root!r} + "/train.py", run_name="__main__")
"""


@pytest.mark.slow
def test_a_training_with_workers_ends_after_an_error(images, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING.format(root=str(ROOT)))
    ended = subprocess.run([sys.executable, str(tmp_path / "failing.py"), *COMMON, "--stage", "0", "--static_root",
                            str(images), "--num_workers", "2", "--id", "x", "--out_root", str(tmp_path / "out"),
                            "--save_interval", "100"], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1 and "as much as this" in ended.stderr
    assert (folder_of(tmp_path / "out", "x") / "model_2_checkpoint.pth").exists()


@pytest.mark.slow
def test_a_killed_worker_ends_the_training_in_one_line(images, tmp_path):
    training = subprocess.Popen([*COMMAND, "--stage", "0", "--static_root", str(images), "--num_workers", "2", "--id",
                                 "x", "--out_root", str(tmp_path), "--save_interval", "10000", "--iterations", "10000"],
                                stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*_x/log.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(int(Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()[0]), signal.SIGKILL)
        error = training.communicate(timeout=60)[1]
    finally:
        training.kill()
    assert training.returncode == 2 and "Traceback" not in error
    assert "train.py: error: a process that prepares samples was ended by SIGKILL" in error.splitlines()[-1]
    # The worker was missed while the next batch was fetched, before the iteration's log.
    done = log_of(tmp_path, "x")[-1]["iteration"] + 1
    assert (folder_of(tmp_path, "x") / f"model_{done}_checkpoint.pth").exists()


@pytest.mark.slow
@pytest.mark.parametrize("to", ["group", "everyone"])
def test_sigterm_with_workers(to, images, tmp_path):
    """What timeout sends to the process group, systemd and batch systems to each process: the loader's, too."""
    arguments = ["--stage", "0", "--static_root", str(images), "--id", "g", "--iterations", "10000",
                 "--out_root", str(tmp_path), "--num_workers", "2", "--save_interval", "10000"]
    training = subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*_g/log.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.1)
        if to == "everyone":
            for child in Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)
        os.killpg(training.pid, signal.SIGTERM)
        assert training.wait(60) == train.STOPPED
    finally:
        training.kill()
    assert list(tmp_path.glob("*_g/model_*_checkpoint.pth"))


@pytest.mark.slow
def test_trunk_stays_as_it_is_until_it_is_to_learn(images, tmp_path, capsys):
    arguments = ["--stage", 0, "--static_root", images, "--id", "f", "--out_root", tmp_path, "--resume", "auto"]
    states = []
    for iterations, factor in ((2, 0), (4, 0), (6, 1)):
        assert run(*arguments, "--iterations", iterations, "--trunk_lr", factor) == 0
        states.append(weights(folder_of(tmp_path, "f") / f"model_{iterations}.pth"))
    first, second, third = ({name: value for name, value in state.items() if name.startswith("key_encoder.")}
                            for state in states)
    assert equal(first, second) and not equal(second, third)
    assert not torch.equal(states[0]["key_proj.key_proj.weight"], states[1]["key_proj.key_proj.weight"])
    assert run(*arguments, "--iterations", 5) == 0
    assert "nothing to do: 6 of 5 iterations are done" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_keys_are_trained_alone_and_then_the_rest(images, videos, tmp_path, stage, capsys):
    data = ["--stage", stage, *(["--video_root", videos] if stage else ["--static_root", images])]
    arguments = [*data, "--lr", "1e-3", "--id", "k", "--out_root", tmp_path, "--resume", "auto"]
    states = []
    for iterations, part in ((2, "keys"), (4, "keys"), (6, "rest")):
        assert run(*arguments, "--iterations", iterations, "--train", part, "--match_weight", 1) == 0
        states.append(weights(folder_of(tmp_path, "k") / f"model_{iterations}.pth"))
    changed = [{name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
               for before, after in itertools.pairwise(states)]
    assert changed[0] == {"key_proj"}
    assert {"value_encoder", "decoder", "key_encoder"} <= changed[1] and "key_proj" not in changed[1]
    if stage:
        # SAM's work on keys belongs to the keys.
        assert {name.split(".")[1] for name in states[1] if name.startswith("mem_compress.")
                and not torch.equal(states[1][name], states[2][name])} == {"value_encoder", "compress_value"}
    first, *_, last = log_of(tmp_path, "k")
    assert "iou" not in first and first["total_loss"] == first["match_loss"]
    assert "iou" in last and last["total_loss"] > last["match_loss"] > 0
    assert run(*data, "--train", "keys") == 2
    assert "--train keys has no other loss than the matching loss" in capsys.readouterr().err


@pytest.mark.slow
def test_rollouts(images, videos, tmp_path, capsys):
    arguments = ["--stage", 3, "--static_root", images, "--video_root", videos, "--rollout", 7, "--max_jump", 1,
                 "--pasted", "0.5", "--hide", "0.5", "--damage", "0.5", "--lr", "1e-3", "--out_root", tmp_path]
    assert run(*arguments, "--id", "r", "--iterations", 4, "--image_interval", 1) == 0
    rows = log_of(tmp_path, "r")
    assert all("iou" in row and "klloss_loss" not in row for row in rows)
    # Which frames are learnt from changes from step to step.
    assert len({tuple(name for name in row if name.startswith("loss_")) for row in rows}) > 1
    capsys.readouterr()
    assert run(*arguments, "--rollout", 9) == 2
    assert "8 frames, 9 are needed" in capsys.readouterr().err


@pytest.mark.slow
def test_resume_goes_before_the_checkpoint_to_start_from(images, tmp_path, capsys):
    common = ["--stage", 0, "--static_root", images, "--out_root", tmp_path]
    assert run(*common, "--id", "a", "--iterations", 2) == 0
    start = folder_of(tmp_path, "a") / "model_2_checkpoint.pth"
    for iterations, origin in ((4, "2"), (6, "4")):
        assert run(*common, "--id", "b", "--iterations", iterations, "--load_model", start, "--resume", "auto") == 0
        assert f"model_{origin}_checkpoint.pth, iteration {origin}" in capsys.readouterr().out
    assert [row["iteration"] for row in log_of(tmp_path, "b")] == [3, 4, 5, 6]
    assert not (folder_of(tmp_path, "a") / "model_4.pth").exists()


@pytest.mark.slow
def test_float16_goes_on_from_what_needed_no_scaler(images, tmp_path):
    common = ["--stage", "0", "--static_root", str(images), "--id", "h", "--out_root", str(tmp_path), "--crop", "32",
              "--resume", "auto"]
    assert run(*common, "--iterations", 2) == 0
    arguments = [argument for argument in COMMON if argument != "--no_amp"]
    assert run_script(train.get_args_parser(), train.main, [*arguments, *common, "--iterations", "3", "--amp_dtype",
                                                            "float16"]) == 0


@pytest.mark.slow
def test_steps_without_a_finite_loss_are_skipped_and_stop_the_run_in_the_end(images, tmp_path, monkeypatch, capsys):
    forward, steps = TrainingStep.forward, []

    def broken(self, *arguments):
        steps.append(0)
        loss, scalars, pictures = forward(self, *arguments)
        return loss * (float("nan") if len(steps) == 2 or len(steps) > 4 else 1), scalars, pictures

    monkeypatch.setattr(TrainingStep, "forward", broken)
    assert run("--stage", 0, "--static_root", images, "--id", "n", "--iterations", 100, "--out_root", tmp_path) == 2
    assert "were not finite in 20 steps in a row" in capsys.readouterr().err
    assert log_of(tmp_path, "n")[3]["skipped"] == 1
    state = weights(folder_of(tmp_path, "n") / "model_4.pth")
    assert all(tensor.isfinite().all() for tensor in state.values())


@pytest.mark.slow
def test_step_that_the_gradient_scaler_passes_over_is_counted(images, tmp_path, monkeypatch, capsys):
    """float16: the loss is finite, its gradients are not."""
    forward, steps = TrainingStep.forward, []

    def steep(self, *arguments):
        steps.append(0)
        loss, scalars, pictures = forward(self, *arguments)
        return loss * (1e36 if len(steps) == 2 else 1), scalars, pictures

    monkeypatch.setattr(TrainingStep, "forward", steep)
    arguments = [argument for argument in COMMON if argument != "--no_amp"]
    assert run_script(train.get_args_parser(), train.main, [
        *arguments, "--stage", "0", "--static_root", str(images), "--id", "h", "--iterations", "3", "--crop", "32",
        "--out_root", str(tmp_path), "--amp_dtype", "float16", "--save_interval", "1"]) == 0
    assert [row["skipped"] for row in log_of(tmp_path, "h")] == [0, 1, 1]
    assert "skipped 1" in capsys.readouterr().err
    first, second, third = (weights(folder_of(tmp_path, "h") / f"model_{number}.pth") for number in (1, 2, 3))
    assert equal(first, second) and not equal(second, third)


@pytest.mark.slow
def test_compiled_frames_train_alike(images, videos, tmp_path, monkeypatch):
    """Traced as always, without generating code, which takes minutes."""
    def traced(function):
        names.append(getattr(function, "func", function).__name__)
        return compiled(function, backend="eager")

    compiled, names = torch.compile, []
    monkeypatch.setattr(torch, "compile", traced)
    for stage, data in ((0, ["--static_root", images]), (3, ["--video_root", videos])):
        rows = []
        for name, options in ((f"plain{stage}", []), (f"compiled{stage}", ["--compile"])):
            assert run("--stage", stage, *data, "--id", name, "--iterations", 2, "--out_root", tmp_path, *options) == 0
            rows.append([row["total_loss"] for row in log_of(tmp_path, name)])
        assert rows[1] == pytest.approx(rows[0], rel=1e-5)
    assert names == ["static_step", "video_step"]


@pytest.mark.parametrize("error, told", [
    (InvalidCxxCompiler(), "(No working C++ compiler found in "),
    (BackendCompilerFailed("inductor", InvalidCxxCompiler("gcc"), None), "(Compiler: gcc is not found.): it "),
    (BackendCompilerFailed("inductor", KeyError("no such node\nand more"), None), "('no such node"),
    (Unsupported("a loop over a generator\nand more"), "(a loop over a generator)\n"),
])
def test_compilation_that_fails_is_told_in_one_line(images, monkeypatch, capsys, error, told):
    """A compiler is asked for only where one is missing."""
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(torch, "compile", lambda function: failing)
    assert run("--stage", 0, "--static_root", images, "--iterations", 1, "--compile") == 2
    report = capsys.readouterr().err
    assert f"--compile does not work here {told}" in report and report.count("\n") == 1
    assert ("C++ compiler, g++" in report) == ("ompiler" in told)


@pytest.mark.slow
def test_validation_while_training(videos, tmp_path, capsys):
    assert run("--stage", 3, "--video_root", videos, "--id", "v", "--iterations", 2, "--out_root", tmp_path,
               "--val_davis", videos, "--val_every", 2) == 0
    row = log_of(tmp_path, "v")[-1]
    assert row["val/J&F"] == pytest.approx((row["val/J"] + row["val/F"]) / 2) and 0 <= row["val/J"] <= 100
    assert "val/J&F" in capsys.readouterr().err


@pytest.mark.parametrize("options, precision", [
    ([], "bfloat16"), (["--no_amp"], False),
    pytest.param(["--amp_dtype", "float16"], "float16", marks=pytest.mark.slow)])
def test_validation_is_in_the_precision_of_the_training(videos, monkeypatch, options, precision):
    seen = []
    monkeypatch.setattr(train, "validate", lambda network, path, amp: seen.append(amp) or {"val/J&F": 1.0})
    arguments = [argument for argument in COMMON if argument != "--no_amp"]
    assert run_script(train.get_args_parser(), train.main, [
        *arguments, "--stage", "3", "--video_root", str(videos), "--iterations", "1", "--crop", "32",
        "--val_davis", str(videos), "--val_every", "1", *options]) == 0
    assert seen == [precision]


def test_what_cannot_be_validated_is_told_before_training(videos, tmp_path, capsys):
    assert run("--stage", 3, "--video_root", videos, "--id", "v", "--out_root", tmp_path / "o",
               "--val_davis", tmp_path) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_the_network_to_start_from_says_which_it_is(videos, images, tmp_path, capsys, tiny_checkpoint):
    """--preset need not be given; where it contradicts the file, the cure is told."""
    plain = [word for word in COMMON if word not in ("--preset", "tiny")]
    options = ["--stage", 3, "--video_root", videos, "--out_root", tmp_path, "--iterations", 1]
    assert run(*options, "--load_network", tiny_checkpoint, "--id", "x", common=plain) == 0
    assert load_network(folder_of(tmp_path, "x") / "model_1.pth").config == PRESETS["tiny"]
    # It goes on without --preset, too.
    assert run(*options[:-1], 2, "--resume", "auto", "--id", "x", common=plain) == 0
    capsys.readouterr()
    for arguments, cure in (
        ([*options, "--preset", "compact", "--load_network", tiny_checkpoint], "leave --preset out"),
        (["--stage", 0, "--static_root", images, "--load_network", tiny_checkpoint], "give --stage 3"),
        ([*options, "--repeat", 2, "--load_network", tiny_checkpoint], "give --repeat 0"),
        (["--stage", 0, "--static_root", images, "--load_model", folder_of(tmp_path, "x") / "model_2_checkpoint.pth"],
         "stage 0 cannot go on with"),
    ):
        assert run(*arguments, common=plain) == 2
        error = capsys.readouterr().err
        assert cure in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments, part", [
    (["--load_network", "none.pth"], "none.pth: no such file"),
    (["--load_model", "none.pth"], "none.pth: no such file"),
    (["--backbone_weights", "nowhere"], "--backbone-weights is imagenet, none, or a folder"),
    (["--crop", "100"], "--crop 100: a multiple of 16"),
    (["--val_davis", "DAVIS"], "--val-davis is for stages 1 to 3"),
])
def test_unusable_starts(images, tmp_path, capsys, arguments, part):
    assert run("--stage", 0, "--static_root", images, "--id", "x", "--out_root", tmp_path / "o", *arguments) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_trunks_start_from_a_folder_of_torchvision_s_files(images, tmp_path, capsys):
    arguments = ["--stage", 0, "--static_root", images, "--id", "x", "--iterations", 1, "--lr", 0, "--out_root",
                 tmp_path / "o", "--backbone_weights", tmp_path]
    file = tmp_path / "resnet18-f37072fd.pth"
    trunk = torchvision.models.resnet18().state_dict()
    torch.save(trunk, file)
    assert run(*arguments) == 0
    network = weights(folder_of(tmp_path / "o", "x") / "model_1.pth")
    assert torch.equal(network["key_encoder.layer3.0.conv1.weight"], trunk["layer3.0.conv1.weight"])
    assert torch.equal(network["value_encoder.conv1.weight"][:, :3], trunk["conv1.weight"])
    for content, part in (({"fc.weight": torch.zeros(2)}, "not torchvision's weights of resnet18"),
                          (None, "not a torch file")):
        torch.save(content, file) if content else file.write_bytes(b"PK")
        assert run(*arguments) == 2
        assert part in capsys.readouterr().err


def test_imagenet_weights_out_of_reach(images, tmp_path, monkeypatch, capsys):
    def offline(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    assert run("--stage", 0, "--static_root", images, "--out_root", tmp_path, "--backbone_weights", "imagenet") == 2
    error = capsys.readouterr().err
    assert "--backbone-weights FOLDER" in error and "--backbone-weights none" in error


def test_bare_network_is_no_checkpoint_to_resume(images, tiny_checkpoint, tmp_path, capsys):
    assert run("--stage", 0, "--static_root", images, "--out_root", tmp_path, "--load_model", tiny_checkpoint) == 2
    assert "--load-network starts a new training from it" in capsys.readouterr().err


def test_missing_data_is_named(tmp_path, capsys):
    assert run("--stage", 0, "--static_root", tmp_path / "none", "--out_root", tmp_path) == 2
    assert "none" in capsys.readouterr().err


def test_faults_of_the_data_are_all_named_before_training_starts(images, videos, tmp_path, capsys):
    broken = tmp_path / "videos"
    shutil.copytree(videos, broken)
    for name in ("bear", "dog"):
        (broken / "Annotations/480p" / name / "00003.png").unlink()
    arguments = ["--stage", 3, "--video_root", broken, "--id", "x", "--iterations", 1, "--out_root", tmp_path / "o"]
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert "bear/00003.png: this mask is missing" in error and "dog/00003.png: this mask is missing" in error
    assert not (tmp_path / "o").exists()
    (tmp_path / "bad.txt").write_text("bear\ndog\n")
    assert run(*arguments, "--exclude", tmp_path / "bad.txt") == 0
    assert "2 videos are left out: bear: excluded by name; dog: excluded by name" in capsys.readouterr().err
    assert run(*arguments, "--exclude", tmp_path / "bad.txt", "--check_data") == 0
    assert "8 images and their masks: every file can be used" in capsys.readouterr().out
    (tmp_path / "bad.txt").write_bytes("bear\r\ndog\r\nghost\r\n".encode("utf-16"))
    assert run(*arguments, "--exclude", tmp_path / "bad.txt", "--check_data") == 0
    captured = capsys.readouterr()
    assert "8 images" in captured.out and "bad.txt: no video has the name ghost" in captured.err
    assert run(*arguments, "--exclude", tmp_path / "none.txt") == 2
    assert "none.txt: cannot be read (No such file or directory)" in capsys.readouterr().err


def test_downloads_go_where_training_looks_for_them():
    defaults = vars(train.get_args_parser().parse_args([]))
    folders = [part.folder for part in (*download_datasets.PARTS, *download_bl30k.PARTS)]
    for option, part in (("static_root", ""), ("bl_root", ""), ("yv_root", "/train"), ("davis_root", "/trainval")):
        assert defaults[option] + part in folders


def settings_of(text):
    """What a command line of train.py asks for."""
    return training_settings(train.get_args_parser().parse_args(text.split()))


PRINTED = [
    "--id s0 --stage 0 --perturb_max 1 --perturb_min 0.85 --save_interval 10000 --klloss_weight 10 --start_warm 5000 "
    "--end_warm 17500 --batch_size 16 --lr 2e-05 --steps 37500 --iterations 75000 --repeat 0 --local_rank 0",
    "--id s03 --stage 3 --load_network pretrain/s0/model_75000.pth --perturb_max 1 --perturb_min 0.85 --save_interval "
    "10000 --klloss_weight 10 --batch_size 4 --lr 2e-05 --steps 125000 --iterations 150000 --repeat 0 --local-rank=0",
    "--id s2 --stage 2 --load_network s1/model_500000.pth --perturb_max 1 --perturb_min 0.85 --save_interval 10000 "
    "--klloss_weight 5 --decoder_f2_weight 5 --decoder_f4_weight 5 --start_warm 5000 --end_warm 17500 --batch_size 8 "
    "--lr 2e-05 --steps 62500 --iterations 75000 --repeat 0",
]


def test_printed_options_and_published_defaults():
    printed = [settings_of(text) for text in PRINTED]
    assert [settings.recipe.steps for settings in printed] == [(37500,), (125000,), (62500,)]
    losses = printed[1].losses
    assert (losses.start_warm, losses.end_warm, losses.top_p) == (20000, 70000, 0.15)
    defaults = [settings_of(f"--stage {stage}").recipe for stage in range(4)]
    assert [recipe.iterations for recipe in defaults] == [300000, 500000, 300000, 150000]
    assert [recipe.batch_size for recipe in defaults] == [8, 4, 4, 4] and defaults[0].lr == 1e-5


@pytest.mark.parametrize("arguments, part", [
    ("--stage 0 --video_root V", "--video-root is for stages 1 to 3"),
    ("--stage 0 --pasted 0.3 --copy_paste 0.1 --hide 0.2", "--pasted and --copy-paste and --hide are for stages"),
    ("--stage 0 --damage 0.3", "--damage is for stages 1 to 3"),
    ("--stage 0 --rollout 7", "--rollout is for stages 1 to 3"),
    ("--stage 0 --max_jump 2", "--max-jump is for stages 1 to 3"),
    ("--stage 0 --val_davis D", "--val-davis is for stages 1 to 3"),
    ("--stage 0 --exclude F", "--exclude is for stages 1 to 3"),
    ("--stage 3 --rollout 4", "--rollout 4: 5 frames or more are needed"),
    ("--crop 100", "--crop 100: a multiple of 16"),
    ("--stage 3 --train keys", "it needs --match-weight"),
    ("--stage 3 --train keys --match_weight 1 --damage 0.1", "leave out --damage"),
    ("--stage 3 --pasted 1 --copy_paste 0.1", "--pasted 1 leaves none"),
    ("--load_model A --load_network B", "leave one of them out"),
    ("--resume auto", "--resume looks for the checkpoints of an --id"),
    ("--no_amp --amp_dtype bfloat16", "leave one of them out"),
    ("--val_every 7", "--val-every says how often --val-davis is tracked"),
    ("--start_warm 10 --end_warm 9", "--end-warm 9 is before --start-warm 10"),
    ("--perturb_min 0.9 --perturb_max 0.8", "--perturb-min 0.9 is above --perturb-max 0.8"),
])
def test_options_that_contradict_one_another_are_refused(arguments, part, capsys):
    assert run_script(train.get_args_parser(), train.main, arguments.split()) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1


RECIPES = [file.stem for file in train.RECIPES.glob("*.txt")]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name):
    recipe = settings_of(f"--recipe {name}")
    changed = settings_of(f"--lr 7 --recipe {name} --batch_size 3")
    assert (changed.recipe.lr, changed.recipe.batch_size) == (7, 3)
    assert changed.recipe.iterations == recipe.recipe.iterations and changed.losses == recipe.losses
    assert recipe != settings_of(f"--stage {recipe.recipe.stage}")


def test_recipes_are_the_printed_commands():
    for name, text in zip(("s0", "s03", "s2"), PRINTED, strict=True):
        rest = " ".join(text.split()[:2])
        start = f"--load-network {settings_of(text).network.load_network}" if name != "s0" else ""
        assert settings_of(f"--recipe published-{name} {rest} {start}") == settings_of(text)


def test_unknown_recipe(capsys):
    assert run("--recipe", "compact-stage9") == 2
    error = capsys.readouterr().err
    assert all(name in error for name in RECIPES) and error.count("\n") == 1


def test_check_data_names_every_bad_file(images, videos, tmp_path, capsys):
    assert run("--stage", 0, "--static_root", images, "--check_data") == 0
    assert run("--stage", 3, "--video_root", videos, "--check_data") == 0
    assert "every file can be used" in capsys.readouterr().out
    for number in (1, 2):
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / f"{number}.jpg")
    assert run("--stage", 0, "--static_root", tmp_path, "--check_data") == 2
    error = capsys.readouterr().err
    assert "1.png: this mask is missing" in error and "2.png: this mask is missing" in error


def test_check_data_says_that_there_is_nothing_to_train_on(clip, tmp_path, capsys):
    videos = davis_tree(tmp_path / "short", clip, length=3) / "trainval"
    assert run("--stage", 3, "--video_root", videos, "--check-data") == 2
    error = capsys.readouterr().err
    assert "there is no video to train on" in error and "3 frames, 5 are needed" in error


@pytest.mark.slow
def test_pasted_images_mix_with_videos_and_need_none(images, videos, tmp_path, capsys):
    """Also killed and resumed: the same samples come."""
    common = ["--stage", 3, "--static_root", images, "--iterations", 4, "--out_root", tmp_path, "--lr", "1e-4"]
    mixed = [*common, "--video_root", videos, "--pasted", 0.5, "--copy_paste", 0.5, "--hide", 0.5, "--damage", 0.5]
    assert run(*mixed, "--id", "mixed") == 0
    capsys.readouterr()
    assert run(*mixed, "--id", "half") == 0
    one, other = folder_of(tmp_path, "mixed"), folder_of(tmp_path, "half")
    (other / "model_4.pth").unlink()
    (other / "model_4_checkpoint.pth").unlink()
    assert run(*mixed, "--id", "half", "--resume", "auto") == 0
    assert equal(weights(one / "model_4.pth"), weights(other / "model_4.pth"))
    assert run(*common, "--video_root", videos, "--hide", 1, "--id", "hidden") == 0
    capsys.readouterr()
    assert run(*common, "--video_root", tmp_path / "none", "--pasted", 1, "--id", "alone") == 0
    assert "5 pasted images" in capsys.readouterr().out
    config = json.loads((one / "config.json").read_text())
    assert config["data"] == f"samples of {videos}, 50% pasted images"


@pytest.fixture(scope="module")
def pack(images, videos, tmp_path_factory):
    """All images and videos in a pack."""
    folder = tmp_path_factory.mktemp("pack")
    write_pack(folder, find_pairs(images, instances=True), find_videos(videos))
    return folder


def test_a_training_that_is_cut_goes_on_elsewhere(pack, tmp_path):
    """Same weights, average and samples as of a training that was never cut."""
    options = ["--pack", pack, "--id", "x", "--ema", 10]
    assert run_pack(*options, "--out_root", tmp_path / "cut", "--minutes", 1 / 600) == 0
    done = max(row["iteration"] for row in log_of(tmp_path / "cut", "x"))
    total = done + 2
    shutil.copytree(tmp_path / "cut", tmp_path / "elsewhere")
    for name in ("elsewhere", "whole"):
        assert run_pack(*options, "--out_root", tmp_path / name, "--resume", "auto", "--iterations", total) == 0
    one, other = (folder_of(tmp_path / name, "x") for name in ("elsewhere", "whole"))
    assert equal(weights(one / f"model_{total}.pth"), weights(other / f"model_{total}.pth"))
    states = [weights(folder / f"model_{total}_checkpoint.pth") for folder in (one, other)]
    assert states[0]["samples"] == states[1]["samples"] == 2 * total
    assert equal(states[0]["network"], states[1]["network"])
    # What is written is the average, not the last weights.
    assert not equal(states[0]["network"], weights(one / f"model_{total}.pth"))


def test_samples_go_on_with_another_batch_size(pack, tmp_path, monkeypatch):
    seen = []
    make = SceneMaker.make
    monkeypatch.setattr(SceneMaker, "make", lambda scenes, numbers: (seen.extend(numbers), make(scenes, numbers))[1])
    options = ["--pack", pack, "--id", "x", "--out_root", tmp_path, "--resume", "auto"]
    run_pack(*options, "--iterations", 2)
    run_pack(*options, "--iterations", 3, "--batch_size", 3)
    assert seen == list(range(7))


def test_minutes_write_a_checkpoint_every_minute_and_the_network_at_the_end(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_SECONDS", 0)
    assert run_pack("--pack", pack, "--id", "x", "--out_root", tmp_path, "--minutes", 10, "--iterations", 3,
               "--save_interval", 100, "--keep", 9) == 0
    assert sorted(file.name for file in folder_of(tmp_path, "x").glob("*.pth")) == [
        "model_1_checkpoint.pth", "model_2_checkpoint.pth", "model_3.pth", "model_3_checkpoint.pth"]


def test_a_pack_and_files_exclude_each_other(pack, tmp_path, capsys):
    assert run_pack("--pack", pack, "--pasted", 0.5) == 2
    assert "--pasted is for data in files: leave that or --pack out" in capsys.readouterr().err
    assert run_pack("--pack", tmp_path) == 2
    assert f"{tmp_path / 'index.npz'}: no such file" in capsys.readouterr().err


def test_pasted_images_are_checked_too(images, videos, tmp_path, capsys):
    assert run("--stage", 3, "--static_root", images, "--video_root", videos, "--pasted", 0.3, "--check_data") == 0
    assert "29 images" in capsys.readouterr().out
    assert run("--stage", 3, "--static_root", images, "--video_root", tmp_path, "--pasted", 1, "--check_data") == 0
    assert "5 images" in capsys.readouterr().out
    assert run("--stage", 3, "--pasted", 1.5) == 2
