"""The evaluation scripts through their command lines: what becomes of the results that are there already."""

import json
import os
import shutil

import numpy as np
import pytest

import eval_davis
import eval_generic
from inference_core import InferenceCore
from tests.evaluation_runs import generic_arguments, read, run
from tests.trees import folder_bytes, write_sequence
from util.image_io import write_mask


def test_folder_that_another_evaluation_writes_into_is_refused(davis, tiny_checkpoint, tmp_path, capsys):
    fcntl = pytest.importorskip("fcntl")
    arguments = ["--davis_path", davis, "--output", tmp_path, "--model", tiny_checkpoint]
    (tmp_path / ".evaluation").mkdir()
    other = os.open(tmp_path / ".evaluation", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_SH)
    assert run(eval_davis, *arguments, "--overwrite") == 2
    os.close(other)
    assert "another run is writing here" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == [".evaluation"]
    assert run(eval_davis, *arguments) == 0


def test_finished_sequences_are_not_computed_again(davis, davis_results, tiny_checkpoint, tmp_path, capsys,
                                                   monkeypatch):
    output = tmp_path / "out"
    shutil.copytree(davis_results, output)
    before = folder_bytes(output)
    (output / "camel" / "00002.png").unlink()
    steps, step = [], InferenceCore.step
    monkeypatch.setattr(InferenceCore, "step", lambda self, *a, **k: steps.append(0) or step(self, *a, **k))
    arguments = ["--davis_path", davis, "--output", output, "--model", tiny_checkpoint]
    assert run(eval_davis, *arguments) == 0
    assert "2 of 3 videos are finished already" in capsys.readouterr().out
    assert len(steps) == 6 and folder_bytes(output) == before


def test_results_of_other_settings_are_refused(davis, davis_results, tiny_checkpoint, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(davis_results, output)
    before = folder_bytes(output)
    arguments = ["--davis_path", davis, "--output", output, "--model", tiny_checkpoint, "--top", "20"]
    assert run(eval_davis, *arguments) == 2
    assert "top_k 40, this run has 20" in capsys.readouterr().err
    assert folder_bytes(output) == before
    assert run(eval_davis, *arguments, "--overwrite") == 0
    assert folder_bytes(output).keys() == before.keys()


def test_results_of_another_input_are_refused(davis, davis_results, tiny_checkpoint, tmp_path, capsys):
    root, output = tmp_path / "DAVIS", tmp_path / "out"
    shutil.copytree(davis, root)
    shutil.copytree(davis_results, output)
    before = folder_bytes(output)
    mask = root / "trainval" / "Annotations" / "480p" / "camel" / "00000.png"
    write_mask(mask, read(mask.parent)["00000.png"] * np.uint8(3))
    arguments = ["--davis_path", root, "--output", output, "--model", tiny_checkpoint]
    assert run(eval_davis, *arguments) == 2
    assert "camel are of other frames or first masks" in capsys.readouterr().err
    assert folder_bytes(output) == before
    assert run(eval_davis, *arguments, "--overwrite") == 0
    assert "2 of 3 videos are finished already" in capsys.readouterr().out
    assert 3 in read(output / "camel")["00005.png"]


def test_scores_of_other_settings_do_not_stay(davis, tiny_checkpoint, tmp_path):
    arguments = ["--davis_path", davis, "--output", tmp_path / "out", "--model", tiny_checkpoint]
    assert run(eval_davis, *arguments, "--save-scores") == 0
    assert run(eval_davis, *arguments, "--top", "20", "--overwrite") == 0
    assert not list((tmp_path / "out_scores").rglob("*.npz"))


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_files_of_others_are_never_removed(clip, tiny_checkpoint, tmp_path, capsys, overwrite):
    """The published code's masks, or the input itself."""
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "video", clip[0][:3], {0: clip[1][0]})
    (tmp_path / "out" / "video").mkdir(parents=True)
    (tmp_path / "out" / "video" / "00000.png").write_text("precious")
    before = folder_bytes(tmp_path)
    for output in ("out", "Annotations", "JPEGImages"):
        assert run(eval_generic, "--long_video_path", tmp_path, "--output", tmp_path / output, "--model",
                   tiny_checkpoint, *overwrite) == 2
        assert "holds files that no evaluation has written" in capsys.readouterr().err
    assert folder_bytes(tmp_path) == before


@pytest.mark.slow
def test_interrupted_sequences_are_computed_again(clip, tiny_checkpoint, tmp_path, monkeypatch):
    write_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "video", clip[0][:4], {0: clip[1][0]})
    arguments = ["--long_video_path", tmp_path, "--output", tmp_path / "out", "--model", tiny_checkpoint]
    step = InferenceCore.step

    def interrupted(core, *inputs, end=False, **options):
        if end:
            raise KeyboardInterrupt
        return step(core, *inputs, **options)

    with monkeypatch.context() as patch:
        patch.setattr(InferenceCore, "step", interrupted)
        assert run(eval_generic, *arguments) == 130
    assert (tmp_path / "out" / "video").is_dir()
    assert run(eval_generic, *arguments, "--top", "20") == 0
    assert len(read(tmp_path / "out" / "video")) == 4


def test_scores_that_are_not_all_there_are_computed_again(davis, tiny_checkpoint, tmp_path, capsys):
    arguments = ["--davis_path", davis, "--output", tmp_path / "o", "--model", tiny_checkpoint, "--save-scores"]
    assert run(eval_davis, *arguments) == 0
    scores = tmp_path / "o_scores" / "bear" / "00003.npz"
    scores.unlink()
    (tmp_path / "o" / ".evaluation" / "dog.json").write_text("")
    stamp = (tmp_path / "o" / "camel" / "00003.png").stat().st_mtime_ns
    assert run(eval_davis, *arguments, "--overwrite") == 0
    assert scores.exists() and json.loads((tmp_path / "o" / ".evaluation" / "dog.json").read_text())
    assert (tmp_path / "o" / "camel" / "00003.png").stat().st_mtime_ns == stamp


def test_finished_means_files_of_the_recorded_sizes(clip, tiny_checkpoint, tmp_path, capsys):
    arguments = generic_arguments(clip, tiny_checkpoint, tmp_path)
    assert run(eval_generic, *arguments) == 0
    before = folder_bytes(tmp_path / "out")
    for number, size in enumerate((0, 40)):
        os.truncate(tmp_path / "out" / "ant" / "00001.png", size)
        if number:
            # Earlier versions recorded names alone.
            path = tmp_path / "out" / ".evaluation" / "bee.json"
            record = json.loads(path.read_text())
            path.write_text(json.dumps({**record, "files": list(record["files"])}))
        assert run(eval_generic, *arguments) == 0
        assert "1 of 2 videos are finished already" in capsys.readouterr().out
        assert folder_bytes(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["out.zip", "out/speed.json"])
def test_files_of_others_beside_the_masks_are_not_replaced(clip, tiny_checkpoint, tmp_path, capsys, name):
    arguments = generic_arguments(clip, tiny_checkpoint, tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / name).write_text("mine")
    assert run(eval_generic, *arguments, "--zip") == 2
    assert f"{tmp_path / name}: no evaluation has written this file" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine" and not list((tmp_path / "out").rglob("*.png"))
    (tmp_path / name).unlink()
    for _ in range(2):
        assert run(eval_generic, *arguments, "--zip", "--overwrite") == 0


def test_only_what_a_record_names_is_removed(clip, tiny_checkpoint, tmp_path):
    arguments = generic_arguments(clip, tiny_checkpoint, tmp_path)
    assert run(eval_generic, *arguments) == 0
    (tmp_path / "out" / "ant" / "notes.txt").write_text("mine")
    assert run(eval_generic, *arguments, "--top", 3, "--overwrite") == 0
    assert (tmp_path / "out" / "ant" / "notes.txt").read_text() == "mine"


def test_folder_of_results_that_is_a_link_is_refused(clip, tiny_checkpoint, tmp_path, capsys):
    arguments = generic_arguments(clip, tiny_checkpoint, tmp_path)
    assert run(eval_generic, *arguments) == 0
    (tmp_path / "out" / "ant").rename(tmp_path / "elsewhere")
    (tmp_path / "out" / "ant").symlink_to(tmp_path / "elsewhere")
    assert run(eval_generic, *arguments, "--top", 3, "--overwrite") == 2
    assert f"{tmp_path / 'out' / 'ant'}: a link" in capsys.readouterr().err
    assert len(list((tmp_path / "elsewhere").iterdir())) == 3


@pytest.mark.parametrize("record", ["", "[]", '"x"', '{"settings": 3}', '{"settings": {}, "files": 7}', "[" * 100000,
                                    '{"settings": {}, "files": {"../x": 1}}', "\0\1", "9" * 5000])
def test_damaged_records_are_computed_again(clip, tiny_checkpoint, tmp_path, capsys, record):
    arguments = generic_arguments(clip, tiny_checkpoint, tmp_path, ("ant",))
    assert run(eval_generic, *arguments) == 0
    before = folder_bytes(tmp_path / "out")
    (tmp_path / "out" / ".evaluation" / "ant.json").write_text(record)
    assert run(eval_generic, *arguments) == 0
    assert "finished already" not in capsys.readouterr().out and folder_bytes(tmp_path / "out") == before
