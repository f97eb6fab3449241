"""Everything the official toolkit and vos-benchmark compute for the reference cases, to the last bit."""

import json

import numpy as np
import pytest

from evaluation.command_line import Davis2017Settings, score_davis_2017
from evaluation.decoding import read_ids
from evaluation.generic import GenericSettings, find_clips, score_objects
from evaluation.measures import (
    boundary_accuracy,
    boundary_radius,
    compare_regions,
    make_region,
    object_statistics,
    region_similarity,
)
from evaluation.tables import GLOBAL_HEADER, global_scores
from tests.evaluation.conftest import scores_root
from util.machine import available_cores

OFFICIAL = {  # name: (ground truth, predictions, set, task)
    "semi_short": ("DAVIS", "pred/short", "test-challenge", "semi-supervised"),
    "semi_main": ("DAVIS", "pred/main", "val", "semi-supervised"),
    "semi_long": ("DAVIS", "pred/long", "train", "semi-supervised"),
    "unsup": ("unsup/DAVIS", "unsup/pred/unsup", "val", "unsupervised"),
}
VOS_BENCHMARK = {  # name: (ground truth, predictions, options)
    "semi_short": ("DAVIS/Annotations", "pred/short", []),
    "semi_main": ("DAVIS/Annotations", "pred/main", []),
    "semi_main_noskip": ("DAVIS/Annotations", "pred/main", ["--all_frames", "--ignore_extra_ids"]),
    "semi_long": ("DAVIS/Annotations", "pred/long", []),
    "unsup_as_semi_noskip": (
        "unsup/DAVIS/Annotations_unsupervised",
        "unsup/pred/unsup",
        ["--all_frames", "--ignore_extra_ids"],
    ),
    "err_extra_id": ("errors/DAVIS/Annotations", "errors/pred/extra_id", ["--ignore_extra_ids"]),
    "err_id255": ("errors/DAVIS/Annotations", "errors/pred/id255", ["--ignore_extra_ids"]),
}
generations = pytest.mark.parametrize("generation", ["np1", "np2"])
workers = max(available_cores(), 2)


def golden(name, file):
    root = scores_root(f"{name}.{file}")
    return root, root / "golden" / f"{name}.{file}"


@pytest.mark.parametrize("name", OFFICIAL)
@generations
def test_official_tables_and_csv_files_are_byte_equal(name, generation, run, copy_results):
    truth, predictions, subset, task = OFFICIAL[name]
    root, _ = golden(name, f"{generation}.json")
    results = copy_results(root / predictions)
    code, out, _ = run(
        "2017/evaluation_method",
        *("--davis_path", root / truth, "--results_path", results, "--set", subset, "--task", task),
        *("--official_decay", f"numpy{generation[-1]}", "--workers", workers),
    )
    assert code == 0
    for kind in ("global", "per-sequence"):
        written = results / f"{kind}_results-{subset}.csv"
        assert written.read_bytes() == golden(name, f"{generation}.{kind}_results.csv")[1].read_bytes()
    printed = out[: out.index("\nTotal time:")].replace(str(results), "RESULTS")
    assert printed == golden(name, "np2.stdout.txt")[1].read_text()  # both generations print the same


@pytest.mark.parametrize("name", OFFICIAL)
@generations
def test_official_values_are_equal_in_every_frame_and_statistic(name, generation):
    truth, predictions, subset, task = OFFICIAL[name]
    root, path = golden(name, f"{generation}.json")
    settings = Davis2017Settings(
        davis_path=root / truth, results=root / predictions, split=subset, task=task, workers=1
    )
    scores = score_davis_2017(settings)
    expected = json.loads(path.read_text())
    frames = np.load(golden(name, f"{generation}.npz")[1])
    rule = f"numpy{generation[-1]}"
    assert [score.name for score in scores] == list(expected["objects"])
    for score in scores:
        row = int(score.label) - 1
        np.testing.assert_array_equal(score.j, frames[f"J/{score.sequence}"][row], strict=True)
        np.testing.assert_array_equal(score.f, frames[f"F/{score.sequence}"][row], strict=True)
        found = [*object_statistics(score.j, rule), *object_statistics(score.f, rule)]
        wanted = [float.fromhex(expected["objects"][score.name][key]) for key in GLOBAL_HEADER[1:]]
        np.testing.assert_array_equal(found, wanted)
    wanted = [float.fromhex(expected["global"][key]) for key in GLOBAL_HEADER]
    np.testing.assert_array_equal(global_scores(scores, rule), wanted)


@pytest.mark.parametrize("name", ["semi_short", "semi_main", "semi_long"])
def test_pixel_counts_are_those_of_an_independent_computation(name):
    truth, predictions, _, _ = OFFICIAL[name]
    root, path = golden(name, "counts.npz")
    official = np.load(golden(name, "np2.npz")[1])
    for sequence, expected in np.load(path).items():
        folder = root / truth / "Annotations" / "480p" / sequence
        for t, mask in enumerate(sorted(folder.glob("*.png"))[1:-1]):
            ids, other = read_ids(mask), read_ids(root / predictions / sequence / mask.name)
            radius = boundary_radius(*ids.shape)
            for k in range(1, expected.shape[1] + 1):
                # The whole image as the crop, where the scripts use the part around the object.
                counts = compare_regions(make_region(ids == k, radius), make_region(other == k, radius))
                assert counts == tuple(expected[:, k - 1, t])
                j = region_similarity(counts.intersection, counts.union)
                assert j == official[f"J/{sequence}"][k - 1, t]
                assert boundary_accuracy(counts) == official[f"F/{sequence}"][k - 1, t]


def test_codalab_scores_are_byte_equal(run, tmp_path):
    root, path = golden("codalab", "np2.stdout.txt")
    (tmp_path / "ref").symlink_to(root / "DAVIS")
    (tmp_path / "res").symlink_to(root / "pred" / "main")
    code, out, _ = run("2017/evaluation_codalab", tmp_path, tmp_path / "out")
    assert code == 0
    assert out == path.read_text()
    scores = (tmp_path / "out" / "scores.txt").read_bytes()
    assert scores == golden("codalab", "np2.scores.txt")[1].read_bytes()


@generations
def test_statistics_of_reference_vectors_are_equal(generation):
    _, path = golden("stats", f"{generation}.json")
    for case in json.loads(path.read_text())["cases"]:
        values = np.array(case["milli"]) / 1000.0
        wanted = [float.fromhex(case[key]) for key in ("M", "R", "D")]
        np.testing.assert_array_equal(object_statistics(values, f"numpy{generation[-1]}"), wanted)


@pytest.mark.parametrize("name", VOS_BENCHMARK)
def test_any_two_folders_are_scored_as_by_vos_benchmark(name, run, copy_results):
    truth, predictions, options = VOS_BENCHMARK[name]
    root, path = golden(name, "vosbench.results.csv")
    results = copy_results(root / predictions)
    arguments = ("--ground_truth", root / truth / "480p", "--results_path", results, *options)
    code, out, _ = run("generic", *arguments)
    assert code == 0
    assert (results / "results.csv").read_bytes() == path.read_bytes()
    assert out == path.read_text()


@pytest.mark.parametrize("name", VOS_BENCHMARK)
def test_values_in_every_frame_are_those_of_vos_benchmark(name):
    truth, predictions, options = VOS_BENCHMARK[name]
    root, path = golden(name, "vosbench.npz")
    settings = GenericSettings(
        ground_truth=root / truth / "480p",
        results=root / predictions,
        all_frames="--all_frames" in options,
        ignore_extra_ids=True,
        workers=1,
    )
    expected = np.load(path)
    scores = score_objects(*find_clips(settings), settings)
    assert scores
    for score in scores:
        key = f"{score.sequence}/{score.ground_truth_id}"
        np.testing.assert_array_equal(score.j, expected[f"J/{key}"], strict=True)
        np.testing.assert_array_equal(score.f, expected[f"F/{key}"], strict=True)


def test_broken_submissions_are_refused_where_the_official_tool_fails_or_keeps_quiet(run, copy_results):
    root, path = golden("errors", "json")
    for case, reference in json.loads(path.read_text()).items():
        results = copy_results(root / "errors" / "pred" / case)
        code, _, err = run(
            "2017/evaluation_ours",
            *("--davis_path", root / "errors" / "DAVIS", "--results_path", results),
            *("--set", "train" if case == "two_frames" else "val", "--workers", 1),
        )
        written = results / "global_results-val.csv"
        if reference["official"]["csv"]:
            assert code == 0, case
            assert written.read_text().splitlines()[1] == reference["official"]["csv"], case
        else:
            assert code == 2, case
            assert "error:" in err.splitlines()[-1], case
            assert not written.exists(), case
        for path in sorted(results.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        results.rmdir()
