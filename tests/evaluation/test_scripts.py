"""What the scoring scripts promise beyond the reference cases."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.evaluation.conftest import ROOT, square, write_indexed, write_masks

MOVING = [square(5, 5 + t) for t in range(8)]
SHIFTED = [square(6, 6 + t) for t in range(8)]


def test_a_script_runs_from_any_folder(davis, tmp_path):
    davis.add("clip", MOVING, MOVING)
    script = ROOT / "evaluation" / "2017" / "evaluation_ours.py"
    command = [sys.executable, script, *davis.arguments("--workers", "2")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert davis.csv() == [["1.000", "1.000", "1.000", "0.000", "1.000", "1.000", "0.000"]]
    assert "per-sequence_results-val.csv" in done.stderr.splitlines()[-1]


def test_scores_do_not_depend_on_the_number_of_workers(davis, run):
    for n in range(3):
        davis.add(f"clip{n}", MOVING, [np.roll(mask, n, 1) for mask in SHIFTED])
    found = []
    for workers in (1, 2, 5):
        # A copy of a process with running OpenCV threads would hang.
        cv2.dilate(np.zeros((2000, 2000), np.uint8), np.ones((9, 9), np.uint8))
        assert run("2017/evaluation_ours", *davis.arguments("--workers", workers))[0] == 0
        found.append(davis.csv() + davis.csv("per-sequence"))
    assert found[0] == found[1] == found[2]


def test_results_are_computed_again_when_masks_have_changed(davis, run):
    """Repaired: the published code prints the old files instead."""
    davis.add("clip", MOVING, SHIFTED)
    run("2017/evaluation_ours", *davis.arguments())
    before = davis.csv()
    write_masks(davis.results / "clip", MOVING)
    run("2017/evaluation_ours", *davis.arguments())
    assert before != davis.csv() and davis.csv()[0][0] == "1.000"


def test_first_and_last_frame_are_not_scored(davis, run):
    """Kept: and predictions for them need not be there."""
    davis.add("clip", MOVING, MOVING)
    (davis.results / "clip" / "00000.png").unlink()
    (davis.results / "clip" / "00007.png").write_text("no image")
    assert run("2017/evaluation_ours", *davis.arguments())[0] == 0
    assert davis.csv()[0][0] == "1.000"


def test_predictions_without_ground_truth_are_told(davis, run):
    for name in ("one", "two"):
        davis.add(name, MOVING, MOVING)
    assert "note" not in run("2017/evaluation_ours", *davis.arguments())[2]
    truth = davis.root / "Annotations" / "480p"
    for lost in ("one/00000.png", "one/00003.png", "two/00004.png"):
        (truth / lost).unlink()
    code, _, error = run("2017/evaluation_ours", *davis.arguments())
    assert code == 0
    assert (f"note: {davis.results}/one/00000.png and 2 more: not scored, since {truth} has no mask of this frame\n"
            in error)


def test_a_number_left_out_is_an_object_and_a_late_number_is_none(davis, run):
    """Kept: the objects are 1 to the highest id of the first frame. One that is never there scores 1 where it
    is not predicted; ids that come later are background."""
    truth = [mask * 3 for mask in MOVING]
    truth[4] = np.maximum(truth[4], square(20, 30, value=7))
    davis.add("clip", truth, [mask * 3 for mask in MOVING])
    assert run("2017/evaluation_ours", *davis.arguments())[0] == 0
    assert davis.csv("per-sequence") == [[f"clip_{k}", "1.000", "1.000"] for k in (1, 2, 3)]


def test_void_is_background_with_the_semi_supervised_task_and_ignored_with_the_other(davis, run):
    """Kept: predicting in void costs J in the semi-supervised task only."""
    pytest.importorskip("scipy")
    truth = [np.maximum(mask, square(20, 30, value=255)) for mask in MOVING]
    prediction = [np.maximum(mask, square(20, 30)) for mask in MOVING]
    davis.add("clip", truth, prediction)
    write_masks(davis.root / "Annotations_unsupervised" / "480p" / "clip", truth)
    run("2017/evaluation_ours", *davis.arguments())
    assert davis.csv()[0][1] == "0.500"
    run("2017/evaluation_ours", *davis.arguments("--task", "unsupervised"))
    assert davis.csv()[0][1] == "1.000"


def test_unsupervised_objects_are_numbered_in_the_order_of_their_proposals(davis, run):
    """Kept: row k of the table is the k-th matched proposal, not object k."""
    pytest.importorskip("scipy")
    truth = [np.maximum(square(2, 2, value=1), square(20, 30, value=2))] * 4
    prediction = [np.maximum(square(20, 30, value=1), square(3, 3, value=2))] * 4
    davis.add("clip", truth, prediction, annotations="Annotations_unsupervised")
    assert run("2017/evaluation_method", *davis.arguments())[0] == 0
    assert [row[1] == "1.000" for row in davis.csv("per-sequence")] == [True, False]


def test_unsupervised_without_scipy_says_what_to_install(davis, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    davis.add("clip", MOVING, MOVING, annotations="Annotations_unsupervised")
    code, _, err = run("2017/evaluation_method", *davis.arguments())
    assert code == 2 and "pip install scipy" in err


def test_dots_in_frame_names_are_left_out(davis, run):
    """Kept: the prediction for 00.01.png is 0001.png."""
    davis.add("clip", MOVING, MOVING)
    truth = davis.root / "Annotations" / "480p"
    for folder, names in ((truth, ("00.01", "00.02", "00.03")), (davis.results, ())):
        for path in (folder / "clip").iterdir():
            path.unlink()
        for name in names:
            write_indexed(folder / "clip" / f"{name}.png", MOVING[0])
    write_indexed(davis.results / "clip" / "0002.png", MOVING[0])
    assert run("2017/evaluation_ours", *davis.arguments())[0] == 0
    assert davis.csv()[0][0] == "1.000"


def test_frames_without_photos_and_repeated_or_empty_lines_of_a_set_are_no_problem(davis, run):
    """Repaired: more JPEG files than masks, as with sparse annotations, or an empty line stop the official
    tool. Kept: a sequence that is listed twice is scored once."""
    davis.add("clip", MOVING, SHIFTED)
    photos = davis.root / "JPEGImages" / "480p" / "clip"
    photos.mkdir(parents=True)
    for t in range(20):
        Image.new("RGB", (48, 32)).save(photos / f"{t:05d}.jpg")
    (davis.root / "ImageSets" / "2017" / "val.txt").write_text("clip\n\nclip\n")
    assert run("2017/evaluation_ours", *davis.arguments())[0] == 0
    assert len(davis.csv("per-sequence")) == 1


def test_all_missing_predictions_are_named_and_nothing_is_written(davis, run):
    """Repaired: the official tool ends with exit code 0."""
    for name in "abc":
        davis.add(name, MOVING, MOVING)
    for t in (2, 5):
        (davis.results / "a" / f"{t:05d}.png").unlink()
    for path in (davis.results / "c").iterdir():
        path.unlink()
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 2 and not list(davis.results.glob("*.csv"))
    message = err.splitlines()[-1]
    assert "missing predictions (8)" in message
    assert f"{davis.results}/a/00002.png, {davis.results}/a/00005.png" in message
    assert f"{davis.results}/c (all of 00001.png to 00006.png)" in message


def test_every_file_of_the_wrong_size_or_with_foreign_ids_is_named(davis, run):
    for name in "ab":
        davis.add(name, MOVING, MOVING)
    write_indexed(davis.results / "a" / "00003.png", np.zeros((10, 12), np.uint8))
    write_indexed(davis.results / "b" / "00003.png", np.zeros((10, 12), np.uint8))
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 2 and "a/00003.png: 12×10 pixels, the ground truth has 48×32" in err
    assert "b/00003.png: 12×10" in err
    davis.add("a", MOVING, [mask * 2 for mask in MOVING], sets=())
    davis.add("b", MOVING, MOVING, sets=())
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 2 and "a/00001.png to 00006.png (6 files): object id 2 is beyond the ground truth's" in err
    assert not list(davis.results.glob("*.csv"))


def test_damaged_ground_truth_is_named_as_such(davis, run):
    davis.add("a", MOVING, MOVING)
    path = davis.root / "Annotations" / "480p" / "a" / "00003.png"
    path.write_bytes(path.read_bytes()[:60])
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 2 and f"{path}: damaged PNG" in err


def test_binary_results_are_recognised(davis, run):
    davis.add("a", MOVING, [mask * 255 for mask in MOVING])
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 2 and "evaluation/2016/evaluation.py" in err


def test_results_of_another_set_or_dataset_are_recognised(davis, run, tmp_path):
    davis.add("a", MOVING, MOVING)
    davis.add("b", MOVING, MOVING, sets=("2017/train",))
    (davis.results / "a").rename(tmp_path / "a")
    _, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert "results of another set, 2017/train (1 of its 1 videos" in err
    (davis.results / "b").rename(davis.results / "0043f083b5")
    _, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert "another dataset" in err and "it holds 0043f083b5" in err
    (davis.results / "inner").mkdir()
    (tmp_path / "a").rename(davis.results / "inner" / "a")
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 2 and err.endswith(f"give {davis.results}/inner\n")
    (davis.results / "inner2" / "a").mkdir(parents=True)
    _, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert err.endswith(f"give {davis.results}/inner or {davis.results}/inner2\n")
    (tmp_path / "results.zip").write_text("an archive")
    _, _, err = run("2017/evaluation_ours", "--davis_path", davis.root, "--results_path", tmp_path / "results.zip")
    assert f"{tmp_path}/results.zip: a file, but a folder was expected" in err


@pytest.mark.parametrize(
    "change, message",
    [
        (["--set", "none"], "sets there: val"),
        (["--davis_path", "nowhere"], "no such set"),
        (["--results_path", "nowhere"], "nowhere: no such folder"),
        (["--workers", "0"], "a whole number from 1 to 1024 was expected"),
    ],
)
def test_wrong_options_are_explained(davis, run, change, message):
    davis.add("a", MOVING, MOVING)
    code, _, err = run("2017/evaluation_ours", *davis.arguments(*change))
    assert code == 2 and message in err


def test_long_sequences_get_a_note_about_their_decay(davis, run):
    masks = [square(5, 5, shape=(16, 16))] * 258
    worse = [mask if t < 100 else np.roll(mask, 3, 1) for t, mask in enumerate(masks)]
    davis.add("long", masks, worse)
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 0 and "nan (numpy2): --official-decay" in err
    assert float(davis.csv()[0][3]) > 0.5
    _, _, err = run("2017/evaluation_ours", *davis.arguments("--official_decay", "numpy2"))
    assert davis.csv()[0][3] == "" and "it really is" in err


def test_show_plots_every_object(davis, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    davis.add("clip", MOVING, SHIFTED)
    assert run("2017/evaluation_ours", *davis.arguments("--show"))[0] == 0
    with Image.open(tmp_path / "clip_1.tiff") as plot:
        assert len(plot.getcolors(100000)) > 3


def test_davis_2016_scores_everything_that_is_not_background_as_one_object(davis, run):
    two = [np.maximum(mask, square(20, 30, value=2)) for mask in MOVING]
    prediction = [((mask > 0) * 255).astype(np.uint8) for mask in two]
    davis.add("clip", two, prediction, sets=("2016/val",))
    assert run("2016/evaluation", *davis.arguments())[0] == 0
    assert davis.csv("per-sequence") == [["clip", "1.000", "1.000", "0.000", "1.000", "1.000", "0.000"]]


def test_davis_2016_agrees_with_2017_on_a_single_object(davis, run):
    davis.add("clip", MOVING, SHIFTED, sets=("2016/val", "2017/val"))
    run("2016/evaluation", *davis.arguments())
    binary = davis.csv()
    run("2017/evaluation_ours", *davis.arguments())
    assert davis.csv() == binary


def test_davis_2016_reads_the_lists_of_the_original_release(davis, run):
    davis.add("clip", MOVING, MOVING, sets=())
    (davis.root / "ImageSets" / "2016").rmdir()
    (davis.root / "ImageSets" / "480p").mkdir()
    line = "/JPEGImages/480p/clip/{0:05d}.jpg /Annotations/480p/clip/{0:05d}.png\n"
    (davis.root / "ImageSets" / "480p" / "val.txt").write_text("".join(line.format(t) for t in range(8)))
    assert run("2016/evaluation", *davis.arguments())[0] == 0
    assert davis.csv()[0][0] == "1.000"


@pytest.fixture
def youtube(tmp_path):
    """Two videos: in `one`, object 1 from frame 0 and 3 from frame 10 on; in `two`, object 2."""
    frames = ["00000", "00005", "00010", "00015"]
    truth = {
        "one": [square(2, 2 + t) for t in range(4)],
        "two": [square(2, 2 + t, value=2) for t in range(4)],
    }
    for t in (2, 3):
        truth["one"][t] = np.maximum(truth["one"][t], square(20, 30, value=3))
    objects = {
        "one": {
            "1": {"category": "dog", "frames": frames},
            "3": {"category": "giraffe", "frames": frames[2:]},
        },
        "two": {"2": {"category": "giraffe", "frames": frames[:3]}},
    }
    split = tmp_path / "YouTube" / "held_out"
    for video, masks in truth.items():
        for folder in (split, tmp_path / "results"):
            (folder / "Annotations" / video).mkdir(parents=True)
            for frame, mask in zip(frames, masks, strict=True):
                write_indexed(folder / "Annotations" / video / f"{frame}.png", mask)
    meta = {"videos": {video: {"objects": entry} for video, entry in objects.items()}}
    (split / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "seen.txt").write_text("dog\n")
    return tmp_path


def youtube_arguments(folder, *more):
    results = folder / "results"
    return ["--yv_path", folder / "YouTube", "--split", "held_out", "--results_path", results, *more]


def youtube_scores(folder):
    lines = (folder / "results" / "global_results-held_out.csv").read_text().splitlines()
    return dict(zip(lines[0].split(","), map(float, lines[1].split(",")), strict=True))


def test_youtube_scores_an_object_only_where_it_is_annotated_after_its_first_frame(youtube, run):
    annotations = youtube / "results" / "Annotations"
    empty = np.zeros((32, 48), np.uint8)
    for path in ("one/00000.png", "two/00000.png", "two/00015.png"):
        write_indexed(annotations / path, empty)  # first frames; object 2 is not annotated in the last
    write_indexed(annotations / "one/00010.png", square(2, 4))  # without object 3 in its first frame
    assert run("youtube/evaluation", *youtube_arguments(youtube, "--seen", youtube / "seen.txt"))[0] == 0
    assert youtube_scores(youtube) == {
        "Overall": 1, "J-seen": 1, "J-unseen": 1, "F-seen": 1, "F-unseen": 1,
    }  # fmt: skip


def test_youtube_overall_weighs_seen_and_unseen_categories_alike(youtube, run):
    empty = np.zeros((32, 48), np.uint8)
    for name in ("00005", "00010", "00015"):
        write_indexed(youtube / "results" / "Annotations" / "two" / f"{name}.png", empty)
    run("youtube/evaluation", *youtube_arguments(youtube, "--seen", youtube / "seen.txt"))
    assert youtube_scores(youtube) == {
        "Overall": 0.75, "J-seen": 1, "J-unseen": 0.5, "F-seen": 1, "F-unseen": 0.5,
    }  # fmt: skip
    run("youtube/evaluation", *youtube_arguments(youtube))
    assert youtube_scores(youtube) == {"J&F-Mean": 0.667, "J-Mean": 0.667, "F-Mean": 0.667}
    run("youtube/evaluation", *youtube_arguments(youtube, "--per_category"))
    assert youtube_scores(youtube)["J-Mean"] == 0.75


def test_youtube_without_meta_takes_the_frames_from_the_masks(youtube, run):
    (youtube / "YouTube" / "held_out" / "meta.json").unlink()
    write_indexed(youtube / "results" / "Annotations" / "two" / "00015.png", np.zeros((32, 48), np.uint8))
    assert run("youtube/evaluation", *youtube_arguments(youtube))[0] == 0
    assert youtube_scores(youtube)["J-Mean"] == pytest.approx((1 + 1 + 2 / 3) / 3, abs=5e-4)


def test_youtube_names_missing_ground_truth_and_foreign_ids(youtube, run):
    write_indexed(youtube / "results" / "Annotations" / "two" / "00005.png", square(2, 2, value=9))
    code, _, err = run("youtube/evaluation", *youtube_arguments(youtube))
    assert code == 2 and "two/00005.png: object id 9, the objects are 2" in err
    (youtube / "YouTube" / "held_out" / "Annotations" / "two" / "00010.png").unlink()
    code, _, err = run("youtube/evaluation", *youtube_arguments(youtube))
    assert code == 2 and "two/00010.png" in err and "no mask" in err


def test_generic_refuses_ids_that_the_ground_truth_does_not_have_unless_told_otherwise(tmp_path, run):
    write_masks(tmp_path / "truth" / "clip", MOVING)
    write_masks(tmp_path / "results" / "clip", [np.maximum(m, square(20, 30, value=4)) for m in MOVING])
    arguments = ["--ground_truth", tmp_path / "truth", "--results_path", tmp_path / "results"]
    code, _, err = run("generic", *arguments)
    assert code == 2 and "object id 4 is in no frame of the ground truth" in err
    code, out, _ = run("generic", *arguments, "--ignore_extra_ids")
    assert code == 0 and "100.0" in out


@pytest.mark.parametrize("sides", ["both", "truth", "results"])
def test_generic_takes_masks_of_0_and_255_for_object_1(tmp_path, run, sides):
    for side in ("truth", "results"):
        write_masks(tmp_path / side / "clip", MOVING)
        for file in (tmp_path / side / "clip").iterdir():
            if sides in ("both", side):
                Image.fromarray(np.array(Image.open(file)) * np.uint8(255)).save(file)
    for options in ([], ["--ignore_extra_ids"]):
        code, out, err = run("generic", "--ground_truth", tmp_path / "truth", "--results_path", tmp_path / "results",
                             *options)
        assert code == 0 and "clip        ,001,100.0,100.0,100.0" in out and "note" not in err


def test_generic_refuses_one_object_without_an_id_where_there_are_several(tmp_path, run):
    two = [np.maximum(mask, square(20, 30, value=2)) for mask in MOVING]
    write_masks(tmp_path / "truth" / "clip", two)
    write_masks(tmp_path / "results" / "clip", MOVING)
    for file in (tmp_path / "results" / "clip").iterdir():
        Image.fromarray(np.array(Image.open(file)) * np.uint8(255)).save(file)
    code, _, err = run("generic", "--ground_truth", tmp_path / "truth", "--results_path", tmp_path / "results")
    assert code == 2 and "one object without an id, the ground truth has object 2" in err


def test_generic_cuts_soft_masks_at_half_and_says_so_once(tmp_path, run):
    for side in ("truth", "results"):
        write_masks(tmp_path / side / "clip", MOVING)
    for file in (tmp_path / "truth" / "clip").iterdir():
        mask = Image.fromarray(np.array(Image.open(file)) * np.uint8(255))
        mask.resize((96, 64), Image.Resampling.BILINEAR).resize(mask.size, Image.Resampling.BOX).save(file)
    code, out, err = run("generic", "--ground_truth", tmp_path / "truth", "--results_path", tmp_path / "results",
                         "--workers", 1)
    assert code == 0 and "clip        ,001,100.0,100.0,100.0" in out
    assert err.count("note:") == 1 and "00001.png and 5 more: grey levels, taken as one object, cut at half" in err


def test_generic_counts_an_object_from_its_first_appearance_on(tmp_path, run):
    late = [mask * (t > 4) for t, mask in enumerate(MOVING)]
    write_masks(tmp_path / "truth" / "clip", late)
    write_masks(tmp_path / "results" / "clip", [mask * (t > 5) for t, mask in enumerate(late)])
    _, out, _ = run("generic", "--ground_truth", tmp_path / "truth", "--results_path", tmp_path / "results")
    assert "clip        ,001, 50.0, 50.0, 50.0" in out  # frames 5 and 6, not 1 to 6


def test_generic_strict_wants_every_video(tmp_path, run):
    for name in "ab":
        write_masks(tmp_path / "truth" / name, MOVING)
    write_masks(tmp_path / "results" / "a", MOVING)
    arguments = ["--ground_truth", tmp_path / "truth", "--results_path", tmp_path / "results"]
    code, _, err = run("generic", *arguments)
    assert code == 0 and "1 videos have no results: b" in err
    code, _, err = run("generic", *arguments, "--strict")
    assert code == 2 and "results/b (all of 00001.png to 00006.png)" in err


def test_generic_takes_frames_in_the_order_of_their_numbers(tmp_path, run):
    """The same masks named 1 to 12 and 01 to 12 have the same scores."""
    masks = [square(5, 5 + t) for t in range(12)]
    masks = [np.maximum(mask, square(20, 30, value=2)) if t > 6 else mask for t, mask in enumerate(masks)]
    tables = []
    for pattern in ("{}", "{:02d}", "f-{}.0", "frame{:05d}"):
        folder = tmp_path / pattern.replace(":", "")
        for side, shift in (("truth", 0), ("results", 1)):
            (folder / side / "clip").mkdir(parents=True)
            for t, mask in enumerate(masks, 1):
                write_indexed(folder / side / "clip" / f"{pattern.format(t)}.png", np.roll(mask, shift * (t % 3), 1))
        code, out, _ = run("generic", "--ground_truth", folder / "truth", "--results_path", folder / "results",
                           "--report", folder / "report.html")
        assert code == 0
        tables.append(out)
    assert tables[0] == tables[1] == tables[2] == tables[3]


def test_generic_asks_for_no_frames_before_the_first_object(tmp_path, run):
    """Trackers write no masks there. Where they are, they are scored as before."""
    empty = np.zeros((32, 48), np.uint8)
    truth = [empty, empty, empty, *MOVING[3:]]
    arguments = ["--ground_truth", tmp_path / "truth", "--results_path", tmp_path / "results"]
    write_masks(tmp_path / "truth" / "clip", truth)
    write_masks(tmp_path / "results" / "clip", truth)
    for t in range(3):
        (tmp_path / "results" / "clip" / f"{t:05d}.png").unlink()
    code, out, _ = run("generic", *arguments)
    assert code == 0 and "clip        ,001,100.0,100.0,100.0" in out
    write_indexed(tmp_path / "results" / "clip" / "00002.png", MOVING[2])
    _, out, _ = run("generic", *arguments)
    assert "clip        ,001, 80.0, 80.0, 80.0" in out
    (tmp_path / "results" / "clip" / "00004.png").unlink()
    code, _, err = run("generic", *arguments)
    assert code == 2 and "missing predictions (1): " in err and "clip/00004.png" in err


def test_generic_scores_the_other_videos_beside_one_of_two_frames(tmp_path, run):
    for side in ("truth", "results"):
        write_masks(tmp_path / side / "two", MOVING[:2])
        write_masks(tmp_path / side / "long", MOVING)
        write_masks(tmp_path / side / "never", [mask * 0 for mask in MOVING])
    arguments = ["--ground_truth", tmp_path / "truth", "--results_path", tmp_path / "results"]
    code, out, err = run("generic", *arguments)
    assert code == 0 and "long        ,001,100.0" in out and "two " not in out
    assert "fewer than three annotated frames in two;" in err and "--all-frames, so 1 of 3 videos are left out" in err
    assert "note: no object in any frame that is scored of never" in err
    code, out, err = run("generic", *arguments, "--all-frames")
    assert code == 0 and "two         ,001,100.0" in out and "left out" not in err
    shutil.rmtree(tmp_path / "truth" / "long")
    shutil.rmtree(tmp_path / "truth" / "never")
    code, _, err = run("generic", *arguments)
    assert code == 2 and "not scored without --all-frames" in err


@pytest.mark.parametrize("file, content", [
    ("2017/._val.txt", bytes.fromhex("0005160700020000") + b"\xb0\xff" + bytes(20)), ("2017/mine.txt", b""),
    ("2017/mine.txt", b"\n \n"), ("2017/notes.txt", "d\xe9j\xe0 vu".encode("latin-1")),
    ("2016/other.txt", "a\nb".encode("utf-16")), ("2017/bad.txt", b"\0\1\2\xff"), ("2017/dots.txt", b"..\n")])
def test_lists_that_nobody_asked_for_do_not_stop_scoring(davis, run, file, content):
    davis.add("clip", MOVING, MOVING)
    (davis.root / "ImageSets" / file).write_bytes(content)
    (davis.root / "ImageSets" / "2017" / "folder.txt").mkdir()
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 0 and davis.csv()[0][0] == "1.000", err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_a_list_is_read_in_the_encoding_that_its_editor_chose(davis, run, encoding):
    for name in ("h\xe9ron", "bear"):
        davis.add(name, MOVING, MOVING, sets=())
    (davis.root / "ImageSets" / "2017" / "val.txt").write_bytes("h\xe9ron\r\nbear\r\n".encode(encoding))
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 0, err
    assert [row[0] for row in davis.csv("per-sequence")] == ["h\xe9ron_1", "bear_1"]


def test_blank_lists_and_names_without_a_video_are_said(davis, run):
    davis.add("clip", MOVING, MOVING)
    listing = davis.root / "ImageSets" / "2017" / "val.txt"
    listing.write_text("clip\nghost\n")
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 2 and f"no ground truth for ghost, which {listing} names" in err
    listing.write_text("\n")
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 2 and "val.txt: an empty list" in err


@pytest.mark.parametrize("resolution", ["Full-Resolution", "1080p", "."])
def test_davis_is_scored_at_another_resolution_with_a_note(davis, run, resolution):
    davis.add("clip", MOVING, MOVING)
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 0 and "note" not in err
    annotations = davis.root / "Annotations"
    (annotations / "480p").rename(davis.root / "moved")
    if resolution == ".":
        annotations.rmdir()
    (davis.root / "moved").rename(annotations / resolution)
    code, _, err = run("2017/evaluation_ours", *davis.arguments())
    assert code == 0 and davis.csv()[0][0] == "1.000"
    assert f"note: {annotations}: there is no 480p here" in err


def test_every_script_takes_the_same_davis_path(davis, run, tmp_path):
    """The folder that holds ImageSets, or one or two above it."""
    davis.add("clip", MOVING, MOVING, sets=("2016/val", "2017/val"))
    (tmp_path / "D" / "2017").mkdir(parents=True)
    davis.root.rename(tmp_path / "D" / "2017" / "trainval")
    for script in ("2016/evaluation", "2017/evaluation_ours"):
        for path in ("D", "D/2017", "D/2017/trainval"):
            code, _, err = run(script, "--davis-path", tmp_path / path, "--results", davis.results)
            assert code == 0, err


def test_youtube_takes_frames_in_the_order_of_their_numbers(youtube, run):
    """An object's first frame, which is not scored, is frame 2, not frame 10."""
    for folder in ("YouTube/held_out", "results"):
        for video in ("one", "two"):
            for frame, name in (("00000", "2"), ("00005", "3"), ("00010", "10"), ("00015", "11")):
                file = youtube / folder / "Annotations" / video / f"{frame}.png"
                file.rename(file.with_name(f"{name}.png"))
    meta = youtube / "YouTube" / "held_out" / "meta.json"
    text = meta.read_text()
    for frame, name in (("00000", "2"), ("00005", "3"), ("00010", "10"), ("00015", "11")):
        text = text.replace(f'"{frame}"', f'"{name}"')
    meta.write_bytes(text.encode("utf-8-sig"))
    for video in ("one", "two"):
        write_indexed(youtube / "results" / "Annotations" / video / "2.png", np.zeros((32, 48), np.uint8))
    assert run("youtube/evaluation", *youtube_arguments(youtube))[0] == 0
    assert youtube_scores(youtube)["J-Mean"] == 1
    meta.unlink()
    assert run("youtube/evaluation", *youtube_arguments(youtube))[0] == 0
    assert youtube_scores(youtube)["J-Mean"] == 1


def test_a_list_of_seen_categories_that_are_none_is_said(youtube, run):
    seen = youtube / "seen.txt"
    seen.write_bytes("dog\r\n".encode("utf-16"))
    _, _, err = run("youtube/evaluation", *youtube_arguments(youtube, "--seen", seen))
    assert "none of the categories" not in err and youtube_scores(youtube)["J-seen"] == 1
    seen.write_text("doggy\n")
    code, _, err = run("youtube/evaluation", *youtube_arguments(youtube, "--seen", seen))
    assert code == 0 and "note: " in err and "seen.txt: none of the categories that are scored is in this list" in err
