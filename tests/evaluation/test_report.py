import base64
import json
import re
import shutil
from html.parser import HTMLParser

import cv2
import numpy as np
from PIL import Image

from evaluation import report
from tests.evaluation.conftest import square
from util.image_io import write_mask

VOID_TAGS = {"meta", "img", "br"}


class Outline(HTMLParser):
    """Collects tags, attributes and text; fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def make_report(davis, run, photos=True):
    truth = [np.maximum(square(5, 5 + t), square(20, 30, value=2)) for t in range(8)]
    prediction = [np.maximum(square(5, 5 + t), square(20, 20 if t == 6 else 30, value=2)) for t in range(8)]
    davis.add("a<b", truth, prediction)
    if photos:
        folder = davis.root / "JPEGImages" / "480p" / "a<b"
        folder.mkdir(parents=True)
        for t in range(8):
            Image.new("RGB", (48, 32), (40, 80, 160)).save(folder / f"{t:05d}.jpg")
    path = davis.results / "report.html"
    code, _, err = run("2017/evaluation_ours", *davis.arguments("--report", path))
    assert code == 0 and "report.html" in err.splitlines()[-1]
    return Outline(path.read_text(encoding="utf-8"))


def test_report_is_one_file_without_outside_resources(davis, run):
    page = make_report(davis, run)
    assert all(source.startswith(("data:image/", "#")) for source in page.sources)
    assert not {"script", "link", "iframe"} & set(page.tags)


def test_report_has_tables_curves_worst_frames_and_versions(davis, run):
    page = make_report(davis, run)
    assert page.tags.count("svg") == 2 and page.tags.count("polyline") == 4
    assert page.tags.count("img") == 3
    for text in ("a<b", "object 2", "J&F-Mean", "a<b_2, frame 00006", "decay", "correct", np.__version__):
        assert text in page.text
    means = re.findall(r"a<b_2J (0\.\d+)", page.text)
    assert means == [{row[0]: row[1] for row in davis.csv("per-sequence")}["a<b_2"]]


def test_worst_frame_shows_ground_truth_and_prediction_in_colour(davis, run):
    page = make_report(davis, run)
    pictures = [source for source in page.sources if source.startswith("data:image/jpeg")][:3]
    photo, truth, prediction = (
        cv2.imdecode(np.frombuffer(base64.b64decode(source.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
        for source in pictures
    )
    assert (truth[..., 1] > 130).sum() > 100  # green
    assert (prediction[..., 2] > 130).sum() > 100  # red
    assert (photo[..., 2] < 100).mean() > 0.9  # the photo is blue


def test_report_without_photos_shows_masks(davis, run):
    page = make_report(davis, run, photos=False)
    assert "no frame at hand" in page.text and page.tags.count("img") > 0


def test_report_compares_runs_and_says_how_they_were_tracked(davis, run, tmp_path):
    make_report(davis, run)
    other = tmp_path / "other <run>"
    shutil.copytree(davis.results / "a<b", other / "a<b")
    # In the other run, the first object is lost in all frames.
    for path in (other / "a<b").iterdir():
        ids = np.array(Image.open(path))
        write_mask(path, np.where(ids == 1, 0, ids).astype(np.uint8))
    (other / ".evaluation").mkdir()
    (other / ".evaluation" / "a<b.json").write_text(json.dumps({
        "settings": {"mode": "gt", "mem_every": 5, "amp": False, "model_sha256": "ab" * 32}, "model": "m.pth"}))
    path = davis.results / "report.html"
    code, out, _ = run("2017/evaluation_ours", *davis.arguments("--report", path, "--compare", other))
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    page = Outline(path.read_text(encoding="utf-8")).text
    assert "network m.pth, SHA-256 abababababab…, mode gt, mem every 5" in page and "no record of how" in page
    both = next(row for row in rows if row[:1] == ["a<b"])
    assert float(both[-2]) > float(both[-1]) + 0.3 and f"{float(both[-1]):.3f}" in page
    code, _, err = run("2017/evaluation_ours", *davis.arguments("--compare", tmp_path / "none"))
    assert code == 2 and "none" in err


def test_outline_covers_nothing_of_a_small_object():
    image, mask = np.zeros((300, 400, 3), np.uint8), np.zeros((300, 400), bool)
    mask[100:103, 200:203] = True
    picture = report._draw_mask(image, mask, (0, 200, 0), mask)
    assert ((picture[..., 1] > 50) & (picture[..., 0] == 0)).sum() >= 4
