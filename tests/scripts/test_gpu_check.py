"""gpu_check.py: rehearsed as a whole, and what becomes of parts that fail."""

import itertools
import json
import os
import subprocess
import sys
import time
import types

import pytest

import gpu_check
from tests.conftest import ROOT
from util.errors import run_script

BLOCKED = "import sys\nfor name in ('av', 'gdown', 'skimage'):\n    sys.modules[name] = None\n"


@pytest.mark.slow
def test_a_rehearsal_passes_without_the_packages_that_a_rented_machine_lacks(davis, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(ROOT / "gpu_check.py"), "--rehearse", "--davis-path", str(davis),
                           "--json", str(tmp_path / "new" / "check.json")], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=False, timeout=540)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results = json.loads((tmp_path / "new" / "check.json").read_text())
    assert results["rehearsal"] and results["machine"]["torch"]
    parts = results["parts"]
    assert parts["faster-training"]["state"] == "not asked for"
    rows = {name: part["rows"] for name, part in parts.items() if part["state"] == "passed"}
    assert {row["test"].partition("::")[0] for row in rows["tests"]} == {
        "tests/inference_core/test_devices.py", "tests/inference_core/test_parity.py", "tests/model/test_exact.py",
        "tests/model/test_trainer.py", "tests/scripts/test_train_resume.py"}
    assert all(row["outcome"] == "passed" for row in rows["tests"])
    assert [(row["precision"], row["rollout"]) for row in rows["training"]] == [
        ("bfloat16", 0), ("float32", 0), ("bfloat16", 9), ("float32", 9)]
    assert [row["protocol"] for row in rows["tracking"]] == ["stcn", "step"]
    assert [row["precision"] for row in rows["scores"]] == ["float32", "float16"]
    assert rows["memory"][0]["name"] == "240p"
    assert "| tests | inference_core/test_devices.py: test_a_gpu_tracks_as_the_cpu_does | " in done.stdout


def finds_and_crashes(scale, davis_path, rows):
    rows.append({"found": 1})
    os.abort()


def finds_and_takes_long(scale, davis_path, rows):
    rows.append({"found": 1})
    subprocess.Popen(["sleep", "77"])
    time.sleep(60)


def finds_and_fails(scale, davis_path, rows):
    rows.append({"found": 1})
    raise gpu_check.CheckFailed("too far apart")


@pytest.mark.slow
@pytest.mark.parametrize("part, state, why", [
    (finds_and_crashes, "failed", "its process ended with exit code -6"),
    (finds_and_takes_long, "stopped", "after 30 s"),
    (finds_and_fails, "failed", "CheckFailed: too far apart"),
])
def test_what_a_part_found_is_kept_however_it_ends(part, state, why, monkeypatch):
    if state == "stopped":
        # From the first row on, only half a second is left.
        clock = itertools.chain([0, 0], itertools.repeat(29.5))
        monkeypatch.setattr(gpu_check, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    outcome = gpu_check.run_part(part, gpu_check.REHEARSAL, None, 30)
    assert (outcome["state"], outcome["why"], outcome["rows"]) == (state, why, [{"found": 1}])


def run(tmp_path, *arguments):
    path = tmp_path / "check.json"
    code = run_script(gpu_check.get_args_parser(), gpu_check.main, ["--rehearse", "--json", str(path), *arguments])
    return code, json.loads(path.read_text())["parts"] if path.exists() else None


@pytest.mark.parametrize("ending", ["passed", "failed", "stopped"])
def test_the_exit_code_is_0_if_all_parts_passed_that_were_asked_for(tmp_path, monkeypatch, ending):
    """Whatever one part's end, the others are run."""
    endings = {gpu_check.measure_tracking: ending}
    monkeypatch.setattr(gpu_check, "run_part", lambda part, *_: {"state": endings.get(part, "passed"), "why": "",
                                                                 "seconds": 1, "rows": []})
    code, parts = run(tmp_path)
    assert code == (0 if ending == "passed" else 1)
    assert {name: part["state"] for name, part in parts.items()} == {
        "tests": "passed", "training": "passed", "tracking": ending, "scores": "not asked for", "memory": "passed",
        "faster-training": "not asked for"}


def test_a_part_that_does_not_fit_is_left_out_and_said_to_be(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "run_part", lambda part, scale, davis_path, limit: {
        "state": "passed", "why": "", "seconds": 1, "rows": [{"limit": limit}]})
    monkeypatch.setattr(gpu_check, "PARTS", {"long": (None, 70, 90), "short": (None, 20, 40), "rest": (None, 20, 90)})
    code, parts = run(tmp_path, "--minutes", "1")
    assert code == 1
    assert parts["long"]["state"] == "left out" and "it needs 70 s" in capsys.readouterr().out
    assert parts["short"]["rows"][0]["limit"] == 40 and 50 < parts["rest"]["rows"][0]["limit"] <= 60


def test_one_line_for_each_test_with_the_largest_of_each_figure():
    rows = [{"test": "tests/a.py::test_a[1]", "outcome": "passed", "seconds": 1, "error": 0.5},
            {"test": "tests/a.py::test_a[2]", "outcome": "passed", "seconds": 1, "error": 0.25},
            {"test": "tests/a.py::test_a[3]", "outcome": "failed", "seconds": 1, "why": "AssertionError"},
            {"test": "tests/b.py::test_b", "outcome": "skipped", "seconds": 0, "why": "no compiler"}]
    assert list(gpu_check.summarise_tests(rows)) == [
        ("a.py: test_a", "2 passed, 1 failed, error 0.5"), ("b.py: test_b", "1 skipped")]


def test_without_a_gpu_only_the_rehearsal_works(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run_script(gpu_check.get_args_parser(), gpu_check.main, ["--json", str(tmp_path / "x.json")]) == 2
    error = capsys.readouterr().err
    assert "--rehearse" in error and error.count("\n") == 1
    assert not (tmp_path / "x.json").exists()
