"""The commands of docs/COMPACT.md and COMPACT_NOTES.md in small: data, keys, rollouts, means in float16, tracking."""

from pathlib import Path

import pytest

import eval_davis
import export_model
import train
from model import PRESETS, load_network
from model.clicks import CLICKS
from tests.trees import static_tree
from util.errors import run_script
from util.files import file_sha256
from util.hyper_para import COMPACT

RECIPE = ["--preset", "compact", "--backbone_weights", "none", "--crop", "64", "--batch_size", "2",
          "--num_workers", "0", "--device", "cpu", "--amp_dtype", "bfloat16", "--dice_weight", "1",
          "--trunk_lr", "0.25", "--clip", "1",
          "--warm_up", "1", "--iterations", "2", "--lr", "2.5e-4", "--start_warm", "1", "--end_warm", "2"]


def run(script, *arguments):
    return run_script(script.get_args_parser(), script.main, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_from_images_to_masks(davis, tmp_path, capsys):
    static, saves, exported = static_tree(tmp_path / "static"), tmp_path / "saves", tmp_path / "compact.pth"
    common = [*RECIPE, "--static_root", static, "--out_root", saves]
    assert run(train, *common, "--stage", "0", "--id", "s0") == 0
    first = next(saves.glob("*_s0/model_2.pth"))
    assert run(train, *common, "--stage", "3", "--id", "s03", "--load_network", first,
               "--video_root", davis / "trainval", "--pasted", "0.6", "--copy_paste", "0.5", "--hide", "0.5") == 0
    last = next(saves.glob("*_s03/model_2.pth"))
    videos = ["--static_root", static, "--video_root", davis / "trainval"]
    assert run(train, *RECIPE, *videos, "--out_root", saves, "--stage", "3", "--id", "keys", "--load_network", last,
               "--train", "keys", "--match_weight", "1", "--pasted", "0.5", "--copy_paste", "1", "--trunk_lr", "0") == 0
    keys = next(saves.glob("*_keys/model_2.pth"))
    mean = tmp_path / "mean.pth"
    assert run(export_model, last, keys, "--output", mean) == 0
    assert run(train, *RECIPE, *videos, "--out_root", saves, "--stage", "3", "--id", "roll", "--load_network", mean,
               "--train", "rest", "--rollout", "6", "--max_jump", "1", "--pasted", "0.3", "--copy_paste", "0.6",
               "--hide", "0.12", "--damage", "0.3", "--trunk_lr", "0", "--save_interval", "1") == 0
    rolled = next(saves.glob("*_roll"))
    assert run(export_model, rolled / "model_1.pth", rolled / "model_2.pth", "--output", exported) == 0
    assert load_network(exported).config == PRESETS["compact"]
    assert run(eval_davis, "--model", exported, "--davis_path", davis, "--output", tmp_path / "masks") == 0
    assert list((tmp_path / "masks").rglob("*.png"))


@pytest.mark.parametrize("weights", [COMPACT, CLICKS])
def test_model_card_has_the_hash_of_the_weights(weights):
    assert f"| SHA-256 | `{file_sha256(weights)}` |" in Path(weights).with_name("README.md").read_text()
