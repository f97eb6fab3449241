import shutil

import numpy as np
import pytest

from tests.trees import davis_tree, photograph
from util.image_io import read_mask

NAMES = ("one", "two")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two photographs shown by a camera that pans two pixels a frame, with two objects in each."""
    wide = np.ascontiguousarray(photograph(3, (160, 260)))
    wide += np.random.default_rng(0).integers(0, 40, wide.shape, np.uint8) - wide // 6
    ids = np.zeros(wide.shape[:2], np.uint8)
    ids[40:90, 60:110] = 2
    ids[100:130, 120:170] = 5
    frames, masks = (np.stack([plane[:, 2 * time:2 * time + 200] for time in range(9)]) for plane in (wide, ids))
    return davis_tree(tmp_path_factory.mktemp("pan"), (frames, masks), NAMES, length=8) / "trainval"


def results(tree, method, output, run):
    code, _, err = run("baselines", "--method", method, "--davis_path", tree, "--output", output)
    assert code == 0, err
    return {name: [read_mask(output / name / f"{index:05d}.png") for index in range(8)] for name in NAMES}


def truth(tree, name):
    return [read_mask(tree / "Annotations" / "480p" / name / f"{index:05d}.png") for index in range(8)]


def test_first_mask_is_repeated(tree, tmp_path, run):
    for name, masks in results(tree, "repeat", tmp_path, run).items():
        assert all((mask == truth(tree, name)[0]).all() for mask in masks)


def test_flow_carries_every_object_along(tree, tmp_path, run):
    for name, masks in results(tree, "flow", tmp_path, run).items():
        expected = truth(tree, name)
        assert (masks[0] == expected[0]).all()
        for object_id in (2, 5):
            one, other = masks[7] == object_id, expected[7] == object_id
            first = expected[0] == object_id
            still = np.count_nonzero(first & other) / np.count_nonzero(first | other)
            assert np.count_nonzero(one & other) / np.count_nonzero(one | other) > max(0.85, still + 0.2)


def test_results_can_be_scored(tree, tmp_path, run):
    results(tree, "flow", tmp_path, run)
    code, out, err = run("2017/evaluation_ours", "--davis_path", tree, "--results_path", tmp_path, "--workers", 1)
    assert code == 0, err
    assert "J&F-Mean" in out and (tmp_path / "global_results-val.csv").exists()


def test_a_missing_tree_is_named(tmp_path, run):
    code, _, err = run("baselines", "--method", "flow", "--davis_path", tmp_path / "none", "--output", tmp_path)
    assert code == 2 and "none" in err


def test_only_results_of_its_own_are_replaced(tree, tmp_path, run):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "00001.png").write_text("mine")
    arguments = ["--davis_path", tree, "--output", tmp_path]
    code, _, err = run("baselines", "--method", "repeat", *arguments)
    assert code == 2 and "holds files that no evaluation has written" in err
    assert (tmp_path / "one" / "00001.png").read_text() == "mine"
    (tmp_path / "one" / "00001.png").unlink()
    for _ in range(2):
        assert run("baselines", "--method", "repeat", *arguments)[0] == 0
    code, _, err = run("baselines", "--method", "flow", *arguments)
    assert code == 2 and "--overwrite" in err
    assert run("baselines", "--method", "flow", *arguments, "--overwrite")[0] == 0


@pytest.mark.parametrize("name", ["..", ".", "a/..", "/"])
def test_no_name_in_a_list_leads_out_of_the_results(tree, tmp_path, run, name):
    shutil.copytree(tree, tmp_path / "tree")
    (tmp_path / "tree" / "ImageSets" / "2017" / "val.txt").write_text(f"{name}\n")
    code, _, err = run("baselines", "--method", "repeat", "--davis_path", tmp_path / "tree", "--output", tmp_path / "o")
    assert code == 2 and "is no name of a video" in err
