"""evaluation/clicks.py counts clicks as the literature does."""

import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from evaluation import clicks
from model.clicks import CLICK_PRESETS, ClickNetwork
from util.errors import run_script


class Scripted:
    """Gives prepared masks, one for each click."""

    def __init__(self, masks):
        self.masks = iter(masks)
        self.clicks = []

    def click(self, x, y, positive=True):
        self.clicks.append((x, y, positive))
        return next(self.masks)


@pytest.fixture
def truth():
    truth = np.zeros((40, 60), np.uint8)
    truth[10:30, 10:30] = 1
    return truth


def grown(truth, share):
    mask = truth > 0
    mask[:, 30:] = False
    mask[30 - round(20 * (1 - share)):30] = False
    return mask


def test_clicks_until_and_iou_after(truth):
    masks = [grown(truth, share) for share in (0.5, 0.8, 0.85, 0.95, 0.9, 1)]
    session = Scripted(masks)
    ious, seconds = clicks.mark(session, truth)
    result = clicks.Result("f", "i", 1, ious, seconds, 0.5)
    assert session.clicks[0] == (19, 19, True)
    assert (result.clicks_until(0.85), result.clicks_until(0.9), result.clicks_until(0.96)) == (3, 4, 20)
    assert ious == pytest.approx([0.5, 0.8, 0.85, 0.95, 0.9]), "clicking ends when all figures are known"
    assert result.iou_after(5) == pytest.approx(0.9) and result.failed(0.96) and not result.failed(0.95)


def test_an_object_that_is_not_reached_gets_20_clicks(truth):
    ious, _ = clicks.mark(Scripted([grown(truth, 0.7)] * 30), truth)
    assert len(ious) == 20


def test_a_perfect_mask_is_not_clicked_at(truth):
    ious, _ = clicks.mark(Scripted([truth > 0]), truth)
    assert ious == [1] and clicks.Result("f", "i", 1, ious, [0], 0.5).iou_after(5) == 1


@pytest.fixture
def folder(tmp_path):
    """A red disc and a blue square, with ids, and a part that is not known."""
    image, ids = np.full((80, 100, 3), 90, np.uint8), np.zeros((80, 100), np.uint8)
    image[:, :, 1] += np.random.default_rng(0).integers(0, 20, (80, 100), np.uint8)
    cv2.circle(ids, (30, 40), 15, 1, -1)
    cv2.rectangle(ids, (65, 25), (90, 55), 2, -1)
    image[ids == 1], image[ids == 2] = (220, 30, 30), (20, 20, 220)
    ids[:5] = 255
    for part in ("things", "things_instances"):
        (tmp_path / part).mkdir()
    Image.fromarray(image).save(tmp_path / "things" / "a.jpg", quality=95)
    Image.fromarray(ids).save(tmp_path / "things_instances" / "a.png")
    return tmp_path


def run(*arguments):
    return run_script(clicks.get_args_parser(), clicks.main, [str(argument) for argument in arguments])


def test_grabcut_marks_objects_of_one_colour(folder, capsys):
    assert run("--root", folder, "--method", "grabcut", "--json", folder / "out.json") == 0
    results = json.loads((folder / "out.json").read_text())
    assert [result["object_id"] for result in results] == [1, 2]
    assert all(result["ious"][0] > 0.9 and result["box_iou"] > 0.9 for result in results)
    rows = capsys.readouterr().out.splitlines()
    assert rows[-1].split()[:4] == ["all", "2", "1.00", "1.00"]


def test_network_and_every_second_object(folder, capsys):
    torch.manual_seed(0)
    torch.save(ClickNetwork(CLICK_PRESETS["tiny"]).state_dict(), folder / "w.pth")
    assert run("--root", folder, "--model", folder / "w.pth", "--every", 2) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows[1:]] == [["things", "1"], ["all", "1"]]


def test_a_folder_without_objects_is_told(folder, capsys):
    Image.fromarray(np.zeros((80, 100), np.uint8)).save(folder / "things_instances" / "a.png")
    assert run("--root", folder, "--method", "grabcut") == 2
    assert "no mask here has an object" in capsys.readouterr().err
