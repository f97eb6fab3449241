"""benchmark.py through its command line: that it measures, not what."""

import json

import pytest

import benchmark
from util.errors import run_script
from util.hyper_para import STAGES


def run(path, *arguments):
    code = run_script(benchmark.get_args_parser(), benchmark.main,
                      ["--preset", "tiny", "--device", "cpu", "--size", "64", "96", "--json", str(path), *arguments])
    assert code == 0
    return json.loads(path.read_text())


@pytest.mark.parametrize("form", [
    [], pytest.param(["--reference"], marks=pytest.mark.slow),
    pytest.param(["--precision", "bfloat16"], marks=pytest.mark.slow)])
def test_every_figure_says_what_it_was_measured_with(tmp_path, form, monkeypatch):
    monkeypatch.setattr(benchmark, "SIZES", {"small": (64, 96)})
    monkeypatch.setattr(benchmark, "OBJECTS", (1, 3))
    rows = run(tmp_path / "rows.json", "--frames", "3", "--protocol", "stcn", "step", "phases", "end-to-end", "memory",
               "objects", "size", *form)
    for row in rows:
        for name in ("device", "torch", "python", "precision", "size", "objects", "compiled", "form", "mode"):
            assert row[name] is not None
    protocols = {row["protocol"] for row in rows}
    assert protocols >= {"stcn", "step", "end-to-end", "memory", "objects", "size", "- SAM, keys", "- SAM, values"}
    stcn = rows[0]
    assert stcn["frames_per_second"] > 0 and stcn["gflop_per_frame"] > 0 and stcn["share_of_peak"] > 0
    memory = next(row for row in rows if row["protocol"] == "memory")
    assert memory["frames"] == 3 and memory["core_bytes_per_frame"] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_time_and_memory_are_told_at_each_power_of_ten(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "LENGTHS", (4, 16, 64))
    rows = run(tmp_path / "rows.json", "--protocol", "memory", "--frames", "20")
    assert [row["frames"] for row in rows] == [4, 16, 20]
    assert all(row["p50_ms"] > 0 and row["process_mb"] > row["core_mb"] > 0 for row in rows[:2])


@pytest.mark.slow
def test_other_runtimes_take_turns_with_ours(tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    rows = run(tmp_path / "rows.json", "--protocol", "runtimes", "--frames", "6", "--top", "4")
    assert [row["runtime"] for row in rows][:2] == ["ours", f"onnxruntime {onnxruntime.__version__}"]
    assert all(row["ms_per_frame"] >= row["best_ms"] > 0 for row in rows) and rows[0]["times_ours"] == 1


@pytest.mark.slow
def test_memory_is_measured_over_as_many_frames_as_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "MEMORY_FRAMES", 12)
    assert run(tmp_path / "rows.json", "--protocol", "memory")[0]["frames"] == 12
    assert run(tmp_path / "rows.json", "--protocol", "memory", "--frames", "30")[0]["frames"] == 30


@pytest.mark.slow
def test_operations_are_those_of_the_parts(tmp_path):
    rows = run(tmp_path / "rows.json", "--frames", "3", "--protocol", "stcn", "phases")
    whole = sum(row["gflop"] * row["calls_per_frame"] for row in rows[1:])
    assert rows[0]["gflop_per_frame"] == pytest.approx(whole)


@pytest.mark.slow
def test_training_steps(tmp_path, monkeypatch):
    for stage in (0, 3):
        monkeypatch.setitem(STAGES[stage], "batch_size", 1)
    rows = run(tmp_path / "rows.json", "--protocol", "train", "--crop", "64")
    assert [(row["protocol"], row["precision"]) for row in rows] == [
        ("stage 0", "float32"), ("stage 0", "bfloat16"), ("stage 3", "float32"), ("stage 3", "bfloat16")]
    assert all(row["ms_per_step"] > 0 and row["peak_ram_mb"] > 0 for row in rows)
