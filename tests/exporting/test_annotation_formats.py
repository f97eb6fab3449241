"""Annotations, read back by decoders that are written after each format's rules, and by other people's readers."""

import base64
import csv
import io
import json
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image

from exporting.run_lengths import compress, count_runs, decompress
from tests.exporting.conftest import SIZE, TIMES, export, iou
from util.video import open_frames

FORMATS = ("coco", "yolo", "cvat", "mot", "mots", "labelme", "sa-v", "boxes-csv", "indexed-png", "images")


@pytest.fixture(scope="module")
def exports(inputs, tmp_path_factory):
    output = tmp_path_factory.mktemp("exports")
    assert export(inputs.masks, "--video", inputs.video, "--output", output, "--format", *FORMATS,
                  "--names", "1=dog", "200=a <b> & \"c\" 🐶") == 0
    return output


def planes(ids):
    """{(frame, object id): bool H×W} of uint8 T×H×W."""
    return {(number, int(object_id)): mask == object_id for number, mask in enumerate(ids)
            for object_id in np.unique(mask[mask > 0])}


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key] > 0, expected[key]) for key in expected)
    return True


def decode_by_columns(code):
    """COCO's text, as its C code reads it."""
    runs, position = [], 0
    text = code["counts"]
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            piece = ord(text[position]) - 48
            value |= (piece & 0x1f) << (5 * shift)
            more = bool(piece & 0x20)
            position, shift = position + 1, shift + 1
            if not more and piece & 0x10:
                value |= -1 << (5 * shift)
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    height, width = code["size"]
    flat = np.concatenate([np.full(run, index % 2, np.uint8) for index, run in enumerate(runs)])
    return flat.reshape((height, width), order="F")


def test_coco(exports, inputs):
    content = json.loads((exports / "coco.json").read_text())
    annotations = content["annotations"]
    found = {(image["frame_id"], annotation["track_id"]): decode_by_columns(annotation["segmentation"])
             for annotation in annotations for image in content["images"] if image["id"] == annotation["image_id"]}
    assert same(found, planes(inputs.ids))
    assert [image["file_name"] for image in content["images"]] == [f"{number:05d}.jpg" for number in range(8)]
    kinds = {kind["id"]: kind["name"] for kind in content["categories"]}
    for annotation in annotations:
        mask = decode_by_columns(annotation["segmentation"])
        assert annotation["iscrowd"] == 0 and annotation["area"] == mask.sum()
        assert tuple(annotation["bbox"]) == cv2.boundingRect(mask)
        kind = {1: "dog", 3: "object", 200: 'a <b> & "c" 🐶'}[annotation["track_id"]]
        assert kinds[annotation["category_id"]] == kind


def test_coco_in_pycocotools(exports, inputs):
    coco = pytest.importorskip("pycocotools.coco").COCO(str(exports / "coco.json"))
    found = {(coco.loadImgs(annotation["image_id"])[0]["frame_id"], annotation["track_id"]): coco.annToMask(annotation)
             for annotation in coco.loadAnns(coco.getAnnIds())}
    assert same(found, planes(inputs.ids))


def test_run_lengths_in_pycocotools():
    mask = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    for shape in ((1, 1), (7, 5), (300, 400), (1, 70000)):
        for share in (0, 0.001, 0.5, 1):
            values = np.asfortranarray(random.random(shape) < share).astype(np.uint8)
            text = mask.encode(np.asfortranarray(values))["counts"].decode()
            runs = count_runs(values.ravel(order="F"))
            assert compress(runs) == text and decompress(text) == runs


def test_sa_v(exports, inputs):
    content = json.loads((exports / "sa-v.json").read_text())
    assert content["masklet_id"] == [1, 3, 200] and content["masklet_first_appeared_frame"] == [0, 0, 5]
    assert content["masklet_frame_count"] == [7, 5, 2] and content["masklet_visibility_changes"] == [1, 3, 2]
    found = {(number, object_id): decode_by_columns(code) for number, codes in enumerate(content["masklet"])
             for object_id, code in zip(content["masklet_id"], codes, strict=True)}
    assert len(found) == 3 * len(TIMES)
    assert same({key: mask for key, mask in found.items() if mask.any()}, planes(inputs.ids))


def test_sa_v_in_pycocotools(exports, inputs):
    decode = pytest.importorskip("pycocotools.mask").decode
    content = json.loads((exports / "sa-v.json").read_text())
    for number, codes in enumerate(content["masklet"]):
        for object_id, code in zip(content["masklet_id"], codes, strict=True):
            assert np.array_equal(decode(code), inputs.ids[number] == object_id)


def test_yolo(exports, inputs):
    """A polygon is the largest part without its holes."""
    for number, mask in enumerate(inputs.ids):
        rows = [line.split() for line in (exports / "yolo" / "labels" / f"{number:05d}.txt").read_text().splitlines()]
        objects = np.unique(mask[mask > 0])
        assert len(rows) == len(objects)
        for row, object_id in zip(rows, objects, strict=True):
            points = np.array(row[1:], float).reshape(-1, 2)
            assert len(points) >= 3 and (points >= 0).all() and (points <= 1).all()
            _, parts, statistics, _ = cv2.connectedComponentsWithStats((mask == object_id).astype(np.uint8))
            largest = (parts == 1 + statistics[1:, 4].argmax()).astype(np.uint8)
            outlines, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            filled = cv2.drawContours(largest, outlines, -1, 1, cv2.FILLED)
            for whole in (points * SIZE).astype(np.int32), np.round(points * SIZE).astype(np.int32):
                assert iou(cv2.fillPoly(np.zeros_like(mask), [whole], 1), filled) == 1
            assert row[0] == {1: "0", 200: "1", 3: "2"}[object_id]
    assert (exports / "yolo" / "data.yaml").read_text(encoding="utf-8") == \
        'train: images\nval: images\nnames:\n  0: "dog"\n  1: "a <b> & \\"c\\" 🐶"\n  2: "object"\n'


def test_yolo_in_supervision(exports, inputs):
    supervision = pytest.importorskip("supervision")
    dataset = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(exports / "yolo" / "images"), force_masks=True,
        annotations_directory_path=str(exports / "yolo" / "labels"), data_yaml_path=str(exports / "yolo" / "data.yaml"))
    assert len(dataset) == len(TIMES)
    for path, _, detections in dataset:
        mask = inputs.ids[int(path[-9:-4])]
        for plane, kind in zip(detections.mask if len(detections) else [], detections.class_id, strict=True):
            if kind == 2:
                assert iou(plane, mask == 3) == 1


def test_what_yolo_loses_is_said(inputs, tmp_path, capsys):
    assert export(inputs.masks, "--video", inputs.video, "--output", tmp_path / "a", "--format", "yolo") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and "yolo" in notes[0] and "holes (7) and parts beside an object's largest (7)" in notes[0]
    assert export(inputs.masks, "--output", tmp_path / "b", "--format", "yolo", "--objects", "3") == 0
    assert "holes" not in capsys.readouterr().err


def test_cvat(exports, inputs):
    """CVAT reads the first mask of a track, so each mask is a track, which ends where there is a next frame."""
    root = ElementTree.parse(exports / "cvat.xml").getroot()
    assert root.tag == "annotations" and root.findtext("version") == "1.1"
    found = {}
    for track in root.iter("track"):
        first, *rest = track
        assert first.get("outside") == "0" and first.get("keyframe") == "1"
        number = int(first.get("frame"))
        assert [(shape.get("frame"), shape.get("outside")) for shape in rest] == [(str(number + 1), "1")]
        left, top, width, height = (int(first.get(name)) for name in ("left", "top", "width", "height"))
        runs = list(map(int, first.get("rle").split(",")))
        flat = np.concatenate([np.full(run, index % 2) for index, run in enumerate(runs)])
        plane = np.zeros(inputs.ids[0].shape, np.uint8)
        plane[top:top + height, left:left + width] = flat.reshape(height, width)
        object_id = int(track.get("group_id"))
        found[number, object_id] = plane
        assert track.get("label") == {1: "dog", 3: "object", 200: 'a <b> & "c" 🐶'}[object_id]
    assert same(found, planes(inputs.ids))
    assert [label.text for label in root.findall("meta/task/labels/label/name")] == ["dog", 'a <b> & "c" 🐶', "object"]


def test_cvat_says_nothing_of_frames_after_the_last(inputs, tmp_path):
    (tmp_path / "masks").mkdir()
    for number in range(3):
        (tmp_path / "masks" / f"{number}.png").write_bytes((inputs.masks / f"{number:05d}.png").read_bytes())
    assert export(tmp_path / "masks", "--output", tmp_path / "out", "--format", "cvat") == 0
    frames = [int(shape.get("frame")) for shape in ElementTree.parse(tmp_path / "out" / "cvat.xml").iter("mask")]
    assert max(frames) == 2


def test_mot_and_boxes(exports, inputs):
    expected = [[number + 1, object_id, *cv2.boundingRect(mask.astype(np.uint8))]
                for (number, object_id), mask in planes(inputs.ids).items()]
    rows = [list(map(int, row)) for row in csv.reader((exports / "mot" / "gt" / "gt.txt").open())]
    assert [row[:6] for row in rows] == expected
    assert [row[6:] for row in rows] == [[1, {1: 1, 200: 2, 3: 3}[row[1]], 1] for row in rows]
    assert (exports / "mot" / "gt" / "labels.txt").read_text() == 'dog\na <b> & "c" 🐶\nobject\n'
    assert "seqLength=8\nimWidth=160\nimHeight=120" in (exports / "mot" / "seqinfo.ini").read_text()
    table = list(csv.DictReader((exports / "boxes.csv").open()))
    sides = ("left", "top", "width", "height")
    assert [[int(row["frame"]) + 1, int(row["object"]), *(int(row[side]) for side in sides)] for row in table] == \
        expected
    assert all(float(row["time"]) == TIMES[int(row["frame"])] / 1000 for row in table)
    assert table[-1]["kind"] == 'a <b> & "c" 🐶' and [int(row["area"]) for row in table] == \
        [mask.sum() for mask in planes(inputs.ids).values()]


def test_pictures_of_ids(exports, inputs):
    table = np.zeros(256, np.uint16)
    table[[1, 3, 200]] = 1001, 3003, 2200
    for number, ids in enumerate(inputs.ids):
        with Image.open(exports / "mots" / f"{number:05d}.png") as picture:
            assert picture.mode.startswith("I;16") and np.array_equal(np.asarray(picture), table[ids])
        with Image.open(exports / "masks" / f"{number:05d}.png") as picture:
            assert picture.mode == "P" and np.array_equal(np.asarray(picture), ids)


def test_labelme(exports, inputs):
    found = {}
    for number in range(len(TIMES)):
        content = json.loads((exports / "labelme" / f"{number:05d}.json").read_text())
        with Image.open(exports / "labelme" / content["imagePath"]) as image:
            assert image.size == (content["imageWidth"], content["imageHeight"]) == SIZE
        for shape in content["shapes"]:
            (left, top), (right, bottom) = shape["points"]
            with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as picture:
                values = np.asarray(picture)
            plane = np.zeros(inputs.ids[0].shape, bool)
            plane[top:bottom + 1, left:right + 1] = values.astype(bool)
            found[number, shape["group_id"]] = plane
            assert shape["shape_type"] == "mask" and values.shape == (bottom - top + 1, right - left + 1)
    assert same(found, planes(inputs.ids))


def test_images_are_the_frames(exports, inputs):
    for frame in open_frames([str(inputs.video)]):
        with Image.open(exports / "images" / f"{frame.name}.jpg") as image:
            assert np.abs(np.asarray(image).astype(int) - frame.image).mean() < 4
    assert len(list((exports / "images").iterdir())) == len(TIMES)
