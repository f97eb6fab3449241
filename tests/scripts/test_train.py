"""train.py through its command line, on a small dataset with the tests' network."""

import itertools
import json
import shutil
import subprocess
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch._dynamo.exc import BackendCompilerFailed, Unsupported
from torch._inductor.exc import InvalidCxxCompiler

import download_bl30k
import download_datasets
import train
from dataset.training import count_workers
from model import PRESETS, load_network
from model.training_step import TrainingStep
from tests.training_runs import COMMAND, COMMON, TORCHRUN, equal, folder_of, log_of, raising, run, weights
from tests.trees import davis_tree
from util.errors import run_script
from util.hyper_para import training_settings


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
    assert rows[0].keys() >= {"train/loss", "loss/frame_1", "loss/frame_2", "loss/klloss", "train/iou",
                              "train/learning_rate", "speed/seconds_per_step", "speed/data_wait"}
    events = EventAccumulator(str(first)).Reload()
    assert set(events.Tags()["scalars"]) == rows[0].keys() - {"iteration"}
    assert {tag.split("/")[0] for tag in events.Tags()["scalars"]} == {"train", "loss", "speed"}
    assert events.Tags()["images"] == ["samples/truth_and_prediction"]
    assert load_network(first / "model_4.pth").config.single_object

    assert run("--stage", 3, "--video_root", videos, "--id", "s03", "--iterations", 2, "--out_root", tmp_path,
               "--load_network", first / "model_4.pth") == 0
    network = load_network(folder_of(tmp_path, "s03") / "model_2.pth")
    assert network.config.sam and not network.config.single_object
    assert log_of(tmp_path, "s03")[0].keys() >= {"loss/frame_4", "loss/decoder_f2", "loss/decoder_f4",
                                              "train/iou_of_object_2"}
    assert "wrote" in capsys.readouterr().out


@pytest.mark.slow
def test_training_learns(images, tmp_path):
    run("--stage", 0, "--static_root", images, "--id", "long", "--iterations", 30, "--out_root", tmp_path,
        "--lr", 3e-4, "--save_interval", 100)
    rows = log_of(tmp_path, "long")
    assert np.mean([row["train/loss"] for row in rows[-5:]]) < 0.7 * np.mean([row["train/loss"] for row in rows[:3]])


@pytest.mark.slow
def test_two_processes_may_learn_from_other_frames_and_wait_for_the_validation(videos, tmp_path):
    """In rollouts each draws its own frames to learn from, so that their losses have other names."""
    command = [*TORCHRUN, *COMMAND[1:], "--stage", "3", "--video_root", str(videos), "--rollout", "8", "--iterations",
               "2", "--id", "x", "--batch_size", "1", "--val_davis", str(videos), "--val_every", "2", "--out_root",
               str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    rows = log_of(tmp_path, "x")
    frames = [[name for name in row if name.startswith("loss/frame_")] for row in rows if "train/loss" in row]
    assert any(len(names) > 3 for names in frames)
    assert "validation/J&F" in rows[-1]


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(videos, tmp_path):
    options = ["--stage", "3", "--video_root", str(videos), "--iterations", "3", "--id", "x", "--out_root"]
    assert run(*options, tmp_path / "one", "--batch_size", "4") == 0
    subprocess.run([*TORCHRUN, *COMMAND[1:], *options, str(tmp_path / "two")], check=True, capture_output=True)
    assert run(*options, tmp_path / "sum", "--accumulate", "2") == 0
    one, two, added = (log_of(tmp_path / name, "x") for name in ("one", "two", "sum"))
    for first, second in zip(one, two, strict=True):
        for name in ("train/loss", "loss/frame_1", "loss/frame_4", "loss/klloss", "train/iou"):
            assert second[name] == pytest.approx(first[name], rel=1e-5, abs=1e-7), name
    weight = [weights(folder_of(tmp_path / name, "x") / "model_3.pth")["key_comp.weight"] for name in ("one", "sum")]
    # Adam makes steps of full length of the smallest gradients, whose sign may hang on rounding.
    difference = (weight[0] - weight[1]).abs()
    assert (difference > 1e-6).float().mean() < 1e-3 and difference.max() < 1e-5
    for first, summed in zip(one, added, strict=True):
        for name in ("train/loss", "loss/frame_1", "loss/frame_4", "loss/klloss", "train/iou"):
            assert summed[name] == pytest.approx(first[name], rel=1e-4, abs=1e-6), name


def test_a_training_without_an_id_is_named_after_its_stage(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = COMMON[:COMMON.index("--id")]
    arguments = ["--stage", 0, "--static_root", images, "--resume", "auto"]
    assert run(*arguments, "--iterations", 1, common=common) == 0
    assert (folder_of(tmp_path / "saves", "stage0") / "model_1.pth").exists()
    assert run(*arguments, "--iterations", 2, common=common) == 0
    assert "model_1_checkpoint.pth, iteration 1" in capsys.readouterr().out


def test_a_training_that_writes_nothing_says_so(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("--stage", 0, "--static_root", images, "--iterations", 1) == 0
    assert "--id NULL: nothing will be written" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_progress_is_shown_whatever_the_log_interval(images, capsys):
    assert run("--stage", 0, "--static_root", images, "--iterations", 3, "--log_interval", 100) == 0
    assert "1/3 left 0:00:" in capsys.readouterr().err


def test_no_more_processes_prepare_samples_than_there_are_cores(monkeypatch, capsys):
    monkeypatch.setattr("dataset.training.available_cores", lambda: 4)
    assert [count_workers(asked) for asked in (None, 0, 3)] == [4, 0, 3] and not capsys.readouterr().err
    assert count_workers(16) == 4
    assert "--workers 16: there are 4 cores for it, so 4 processes prepare samples" in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert count_workers(None) == 1


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
    assert "train/iou" not in first and first["train/loss"] == first["loss/match"]
    assert "train/iou" in last and last["train/loss"] > last["loss/match"] > 0
    assert run(*data, "--train", "keys") == 2
    assert "--train keys has no other loss than the matching loss" in capsys.readouterr().err


@pytest.mark.slow
def test_rollouts(images, videos, tmp_path, capsys):
    arguments = ["--stage", 3, "--static_root", images, "--video_root", videos, "--rollout", 7, "--max_jump", 1,
                 "--pasted", "0.5", "--hide", "0.5", "--damage", "0.5", "--lr", "1e-3", "--out_root", tmp_path]
    assert run(*arguments, "--id", "r", "--iterations", 4, "--image_interval", 1) == 0
    rows = log_of(tmp_path, "r")
    assert all("train/iou" in row and "loss/klloss" not in row for row in rows)
    # Which frames are learnt from changes from step to step.
    assert len({tuple(name for name in row if name.startswith("loss/frame_")) for row in rows}) > 1
    capsys.readouterr()
    assert run(*arguments, "--rollout", 9) == 2
    assert "8 frames, 9 are needed" in capsys.readouterr().err


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
    assert log_of(tmp_path, "n")[3]["train/skipped_steps"] == 1
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
    assert [row["train/skipped_steps"] for row in log_of(tmp_path, "h")] == [0, 1, 1]
    assert "train/skipped_steps 1" in capsys.readouterr().err
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
            rows.append([row["train/loss"] for row in log_of(tmp_path, name)])
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
    region, boundary = row["validation/J"], row["validation/F"]
    assert row["validation/J&F"] == pytest.approx((region + boundary) / 2) and 0 <= region <= 100
    assert "validation/J&F" in capsys.readouterr().err


@pytest.mark.parametrize("options, precision", [
    ([], "bfloat16"), (["--no_amp"], "float32"),
    pytest.param(["--amp_dtype", "float16"], "float16", marks=pytest.mark.slow)])
def test_validation_is_in_the_precision_of_the_training(videos, monkeypatch, options, precision):
    seen = []
    monkeypatch.setattr(train, "validate", lambda network, path, amp: seen.append(amp) or {"J&F": 1.0})
    arguments = [argument for argument in COMMON if argument != "--no_amp"]
    assert run_script(train.get_args_parser(), train.main, [
        *arguments, "--stage", "3", "--video_root", str(videos), "--iterations", "1", "--crop", "32",
        "--val_davis", str(videos), "--val_every", "1", *options]) == 0
    assert seen == [precision]


def keep_first(frames, masks):
    for mask in masks[1:]:
        mask.unlink()


def keep_two(frames, masks):
    for file in [*frames[2:], *masks[2:]]:
        file.unlink()


def empty_first(frames, masks):
    Image.new("L", Image.open(masks[0]).size).save(masks[0])


@pytest.mark.parametrize("damage, told", [
    (None, "ImageSets"), (keep_first, "00001.png: this mask is missing, and a validation needs the masks of all"),
    (keep_two, "holds 2 frames, and a validation scores"), (empty_first, "00000.png: holds no object to track")])
def test_what_cannot_be_validated_is_told_before_training(damage, told, videos, tmp_path, capsys):
    davis = tmp_path / "DAVIS"
    if damage:
        shutil.copytree(videos, davis)
        video = next((davis / "JPEGImages" / "480p").iterdir()).name
        damage(*(sorted((davis / folder / "480p" / video).iterdir()) for folder in ("JPEGImages", "Annotations")))
    assert run("--stage", 3, "--video_root", videos, "--id", "v", "--out_root", tmp_path / "o",
               "--val_davis", davis) == 2
    report = capsys.readouterr().err
    assert str(davis) in report and told in report and report.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_validation_that_fails_does_not_end_the_training(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "validate", raising(RuntimeError("no memory\nfor that")))
    assert run("--stage", 3, "--video_root", videos, "--id", "v", "--iterations", 2, "--out_root", tmp_path,
               "--val_davis", videos, "--val_every", 1) == 0
    assert "the validation after iteration 1 failed, the training goes on: no memory\n" in capsys.readouterr().err
    assert (folder_of(tmp_path, "v") / "model_2.pth").exists()


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
    ("--resume auto --id NULL", "--resume looks for the checkpoints of an --id"),
    ("--id a/b", "the name of a folder is needed"),
    ("--no_amp --amp_dtype bfloat16", "leave one of them out"),
    ("--val_every 7", "--val-every says how often --val-davis is tracked"),
    ("--start_warm 10 --end_warm 9", "--end-warm 9 is before --start-warm 10"),
    ("--stage clicks --pasted 0.3 --dice_weight 1", "--pasted and --dice-weight are not for --stage clicks"),
    ("--fine_tune clips --video_root v --load_model m", "--video-root and --load-model: --fine-tune takes its"),
    ("--stage 3 --mix 0.5", "--mix is for --fine-tune FOLDER: give that, too, or leave --mix out"),
    ("--fine_tune clips --stage 0", "--fine-tune trains as --stage 3 does: leave --stage out"),
    ("--stage clicks --preset base", "the presets compact and tiny"),
    ("--perturb_min 0.9 --perturb_max 0.8", "--perturb-min 0.9 is above --perturb-max 0.8"),
])
def test_options_that_contradict_one_another_are_refused(arguments, part, capsys):
    assert run_script(train.get_args_parser(), train.main, arguments.split()) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1


RECIPES = [file.stem for file in train.RECIPES.glob("*.txt")]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name):
    clips = "--fine-tune clips" if name == "fine-tune" else ""
    recipe = settings_of(f"--recipe {name} {clips}")
    changed = settings_of(f"--lr 7 --recipe {name} --batch_size 3 {clips}")
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
    one = folder_of(tmp_path, "mixed")
    other = shutil.copytree(one, tmp_path / "half" / one.name)
    (other / "model_4.pth").unlink()
    (other / "model_4_checkpoint.pth").unlink()
    assert run(*mixed, "--id", "mixed", "--out_root", tmp_path / "half", "--resume", "auto") == 0
    assert "model_2_checkpoint.pth, iteration 2" in capsys.readouterr().out
    assert equal(weights(one / "model_4.pth"), weights(other / "model_4.pth"))
    assert run(*common, "--video_root", videos, "--hide", 1, "--id", "hidden") == 0
    capsys.readouterr()
    assert run(*common, "--video_root", tmp_path / "none", "--pasted", 1, "--id", "alone") == 0
    assert "5 pasted images" in capsys.readouterr().out
    config = json.loads((one / "config.json").read_text())
    assert config["data"] == f"videos of {videos}, 50% pasted images"


def test_pasted_images_are_checked_too(images, videos, tmp_path, capsys):
    assert run("--stage", 3, "--static_root", images, "--video_root", videos, "--pasted", 0.3, "--check_data") == 0
    assert "29 images" in capsys.readouterr().out
    assert run("--stage", 3, "--static_root", images, "--video_root", tmp_path, "--pasted", 1, "--check_data") == 0
    assert "5 images" in capsys.readouterr().out
    assert run("--stage", 3, "--pasted", 1.5) == 2
