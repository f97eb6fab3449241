"""train.py is cut off, fails or is damaged, and goes on."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
from dataset.pack import write_pack
from dataset.scenes import SceneMaker
from dataset.training_sets import find_pairs, find_videos
from model.trainer import Trainer
from model.training_step import TrainingStep
from tests.conftest import ROOT
from tests.training_runs import (
    COMMAND,
    COMMON,
    TORCHRUN,
    equal,
    fail_at,
    folder_of,
    log_of,
    raising,
    run,
    run_pack,
    weights,
)
from util.errors import run_script
from util.files import lock_folder


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3, "clicks"])
def test_killed_and_resumed_training_ends_with_the_same_weights(stage, images, videos, tmp_path, capsys):
    """Bit for bit, across the border of an epoch (five images, three videos) and changes of the curriculum."""
    data = ["--static_root", str(images)] if stage in (0, "clicks") else ["--video_root", str(videos)]
    options = ["--stage", str(stage), *data, "--iterations", "10", "--steps", "7", "--num_workers", "2", "--resume",
               "auto", "--id", "x", "--out_root"]
    killed = subprocess.Popen([*COMMAND, *options, str(tmp_path / "broken")], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.time() + 120
    while not list((tmp_path / "broken").glob("*/model_4_checkpoint.pth")) and time.time() < deadline:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not list((tmp_path / "broken").glob("*/model_10.pth"))
    assert run(*options, tmp_path / "broken") == 0
    assert "continuing from" in capsys.readouterr().out
    assert run(*options, tmp_path / "whole") == 0
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
        assert training("cut") == 128 + signal.SIGTERM
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
        subprocess.run([*TORCHRUN, "--max-restarts=2", str(script), *rest, "--out_root", str(tmp_path / name)],
                       check=True, capture_output=True)
    results = [weights(folder_of(tmp_path / name, "x") / "model_6.pth") for name in ("whole", "broken")]
    assert equal(*results)
    rows = [log_of(tmp_path / name, "x") for name in ("whole", "broken")]
    assert [row["iteration"] for row in rows[1]] == [1, 2, 3, 4, 5, 6]
    assert [row["train/loss"] for row in rows[1]] == [row["train/loss"] for row in rows[0]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_saves_and_ends(number, images, tmp_path, monkeypatch):
    forward, steps = TrainingStep.forward, []

    def terminated(self, *arguments):
        steps.append(0)
        if len(steps) == 3:
            os.kill(os.getpid(), number)
        return forward(self, *arguments)

    monkeypatch.setattr(TrainingStep, "forward", terminated)
    # Under nohup SIGHUP is ignored, and then it stays so.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        assert run("--stage", 0, "--static_root", images, "--id", "t", "--iterations", 20, "--out_root", tmp_path,
                   "--save_interval", 100) == 128 + number
    finally:
        signal.signal(number, before)
    assert (folder_of(tmp_path, "t") / "model_3_checkpoint.pth").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_under_nohup_the_end_of_a_session_ends_no_training(images, tmp_path, monkeypatch):
    forward = TrainingStep.forward

    def hang_up(self, *arguments):
        os.kill(os.getpid(), signal.SIGHUP)
        return forward(self, *arguments)

    monkeypatch.setattr(TrainingStep, "forward", hang_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run("--stage", 0, "--static_root", images, "--iterations", 2) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


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


def test_resume_finds_a_name_with_brackets(images, tmp_path, capsys):
    arguments = ["--stage", 0, "--static_root", images, "--id", "lr[1e-5]", "--out_root", tmp_path, "--resume", "auto"]
    assert run(*arguments, "--iterations", 1) == 0
    assert run(*arguments, "--iterations", 2) == 0
    assert "model_1_checkpoint.pth, iteration 1" in capsys.readouterr().out


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """A function that copies a run of four iterations, id x, into a folder, and returns (its folder, arguments)."""
    whole = tmp_path_factory.mktemp("trained")
    options = ["--stage", 0, "--static_root", images, "--id", "x", "--resume", "auto"]
    assert run(*options, "--iterations", 4, "--out_root", whole) == 0

    def copy(target):
        shutil.copytree(whole, target, dirs_exist_ok=True)
        return folder_of(target, "x"), [*options, "--iterations", 5, "--out_root", target]
    return copy


def test_a_damaged_checkpoint_makes_way_for_the_one_before(trained, tmp_path, capsys):
    folder, arguments = trained(tmp_path)
    newest, before = (folder / f"model_{number}_checkpoint.pth" for number in (4, 2))
    content = newest.read_bytes()
    for damaged in (content[:-1000], b"", bytes(len(content)),
                    content[:len(content) // 2] + b"?" + content[len(content) // 2 + 1:]):
        newest.write_bytes(damaged)
        copy = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{len(damaged)}-{damaged[:1]}"))
        assert run(*arguments[:-1], copy) == 0
        told = capsys.readouterr()
        assert "model_2_checkpoint.pth, iteration 2" in told.out
        assert "model_4_checkpoint.pth: damaged or not all there" in told.err
    before.write_bytes(b"")
    assert run(*arguments) == 2
    assert "model_4_checkpoint.pth: this checkpoint and all earlier ones are damaged" in capsys.readouterr().err


def change(state, value, *names):
    """Put a value into nested dicts and lists."""
    for name in names[:-1]:
        state = state[name]
    state[names[-1]] = value


@pytest.mark.parametrize("value, place", [
    ([1], ["network"]), ({}, ["network"]), ({}, ["optimizer"]), (None, ["optimizer"]), ("ab", ["optimizer", "state"]),
    ({}, ["optimizer", "state"]), ([{}, {}], ["optimizer", "param_groups"]),
    ({"step": torch.tensor(1.0)}, ["optimizer", "state", 0]), (torch.zeros(1), ["optimizer", "state", 0, "exp_avg"]),
    ("x", ["optimizer", "state", 0, "exp_avg_sq"]), (torch.zeros(3), ["optimizer", "state", 0, "step"]),
    ("4", ["iteration"]), (-1, ["iteration"]), (4.5, ["iteration"]), (True, ["iteration"]), (10**30, ["iteration"]),
    ("x", ["skipped"]), (None, ["samples"]), (None, ["rng"]), ({}, ["rng"]),
    (torch.zeros(3, dtype=torch.uint8), ["rng", "torch"]), ([], ["rng", "numpy"]), ((), ["rng", "python"]),
    ])
def test_a_malformed_checkpoint_is_refused_in_one_line(value, place, trained, tmp_path, capsys):
    folder, arguments = trained(tmp_path)
    file = folder / "model_4_checkpoint.pth"
    state = weights(file)
    change(state, value, *place)
    torch.save(state, file)
    capsys.readouterr()
    assert run(*arguments) == 2
    told = capsys.readouterr().err
    assert f"{file}: " in told and told.count("\n") == 1


def test_options_of_the_optimizer_are_not_taken_from_a_checkpoint(trained, tmp_path):
    folder, arguments = trained(tmp_path)
    file = folder / "model_4_checkpoint.pth"
    state = weights(file)
    change(state, (2, 3), "optimizer", "param_groups", 0, "betas")
    torch.save(state, file)
    assert run(*arguments) == 0
    assert equal(weights(folder / "model_5.pth"), weights(run_on(trained, tmp_path / "other") / "model_5.pth"))


def run_on(trained, target):
    """Let a copy of the trained run go on, and return its folder."""
    folder, arguments = trained(target)
    assert run(*arguments) == 0
    return folder


@pytest.mark.parametrize("damage", [
    b"\0" * 300, b"}\n", b"{}\n", b'{"iteration": "x"}\n', b'{"iteration": 9, "a": {"b": 1}\n', b"\xff\xfe}\n",
    b"[1]\n"])
def test_a_damaged_log_loses_only_what_is_damaged(damage, trained, tmp_path):
    folder, arguments = trained(tmp_path)
    with open(folder / "log.jsonl", "ab") as file:
        file.write(damage)
    assert run(*arguments) == 0
    assert [row["iteration"] for row in log_of(tmp_path, "x")] == [1, 2, 3, 4, 5]


def test_a_config_that_is_a_link_is_replaced(trained, tmp_path):
    folder, arguments = trained(tmp_path)
    (tmp_path / "mine.json").write_text("mine")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(tmp_path / "mine.json")
    assert run(*arguments) == 0
    assert (tmp_path / "mine.json").read_text() == "mine"


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
        assert training.wait(60) == 128 + signal.SIGTERM
    finally:
        training.kill()
    assert list(tmp_path.glob("*_g/model_*_checkpoint.pth"))


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


def test_bare_network_is_no_checkpoint_to_resume(images, tiny_checkpoint, tmp_path, capsys):
    assert run("--stage", 0, "--static_root", images, "--out_root", tmp_path, "--load_model", tiny_checkpoint) == 2
    assert "--load-network starts a new training from it" in capsys.readouterr().err


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
