"""The click network's recipe, from training to figures."""

import numpy as np
import pytest
import torch
from PIL import Image

import export_model
from evaluation import clicks
from inference_core import ClickSession
from model import load_clicks, load_network
from model.clicks import CLICK_PRESETS, ClickNetwork, load_click_network
from tests.training_runs import folder_of, log_of, run
from util.errors import run_script
from util.hyper_para import COMPACT

RECIPE = ["--recipe", "clicks", "--load-network", COMPACT, "--preset", "tiny", "--crop", "64", "--workers", "0",
          "--batch-size", "2", "--iterations", "2", "--log-interval", "1", "--device", "cpu"]


@pytest.mark.slow
def test_recipe(images, videos, tmp_path, capsys):
    (tmp_path / "none.txt").write_text("\n")
    data = ["--static-root", images, "--video-root", videos, "--exclude", tmp_path / "none.txt"]
    assert run(*data, "--out-root", tmp_path, "--id", "clicks", common=RECIPE) == 0
    folder = folder_of(tmp_path, "clicks")
    assert all(np.isfinite(line["train/loss"]) for line in log_of(tmp_path, "clicks"))
    network = load_click_network(folder / "model_2.pth")
    assert network.config == CLICK_PRESETS["tiny"]
    trunk, state = load_network(COMPACT).key_encoder.state_dict(), network.key_encoder.state_dict()
    assert all(torch.equal(trunk[name], state[name]) for name in trunk), "the frozen trunk is the compact network's"

    image = np.array(Image.open(next(images.rglob("*.jpg"))).convert("RGB"))
    assert ClickSession(load_clicks(folder / "model_2.pth"), image).click(20, 20).shape == image.shape[:2]
    capsys.readouterr()
    assert run_script(clicks.get_args_parser(), clicks.main,
                      ["--root", str(images), "--model", str(folder / "model_2.pth")]) == 0
    assert "NoC@85" in capsys.readouterr().out


@pytest.mark.slow
def test_training_goes_on_from_a_click_network(images, tmp_path):
    """Also with a trunk that is trained, and without a recipe."""
    common = ["--stage", "clicks", "--preset", "tiny", "--crop", "64", "--workers", "0", "--batch-size", "2",
              "--no-amp", "--device", "cpu", "--static-root", images, "--out-root", tmp_path, "--log-interval", "1"]
    assert run("--load-network", COMPACT, "--iterations", "1", "--id", "one", common=common) == 0
    first = folder_of(tmp_path, "one") / "model_1.pth"
    assert run("--load-network", first, "--iterations", "1", "--id", "two", common=common) == 0
    second = folder_of(tmp_path, "two") / "model_1.pth"
    one, two, compact = (load(path).key_encoder.state_dict()["stages.4.0.layers.0.weight"]
                         for load, path in ((load_click_network, first), (load_click_network, second),
                                            (load_network, COMPACT)))
    assert 0 < (one - compact).abs().max() < 2e-3 and 0 < (two - one).abs().max() < 2e-3


def test_exported_weights_are_float16_and_can_be_clicked_with(tmp_path, capsys):
    torch.manual_seed(0)
    states = [ClickNetwork(CLICK_PRESETS["tiny"]).state_dict() for _ in range(2)]
    files = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for file, state in zip(files, states, strict=True):
        torch.save(state, file)
    output = tmp_path / "mean.pth"
    assert run_script(export_model.get_args_parser(), export_model.main,
                      [*map(str, files), "--output", str(output)]) == 0
    assert "clicks, tiny" in capsys.readouterr().out
    weight = torch.load(output, weights_only=True)["pred.weight"]
    assert torch.equal(weight, ((states[0]["pred.weight"] + states[1]["pred.weight"]) / 2).half())
    assert ClickSession(load_clicks(output), np.zeros((40, 50, 3), np.uint8)).click(3, 4).shape == (40, 50)
