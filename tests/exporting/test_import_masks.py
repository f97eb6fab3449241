"""import_masks.py: masks of other programs become masks that track.py takes."""

import base64
import io
import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

import import_masks
from exporting.importing import fill_polygon
from inference_core.annotations import find_masks
from tests.exporting.conftest import SIZE, export, iou, no_larger_files
from util.errors import run_script
from util.image_io import read_mask
from util.video import open_frames


def run(*arguments):
    return run_script(import_masks.get_args_parser(), import_masks.main, [str(argument) for argument in arguments])


def refused(capsys, *parts):
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if "error:" in line]
    assert len(errors) == 1 and all(str(part) in errors[0] for part in parts), lines
    return True


def read_all(folder):
    """{name: ids}"""
    return {path.stem: read_mask(path) for path in folder.glob("*.png")}


@pytest.fixture(scope="module")
def exports(inputs, tmp_path_factory):
    output = tmp_path_factory.mktemp("exports")
    assert export(inputs.masks, "--video", inputs.video, "--output", output, "--names", "1=dog", "3=cat", "--format",
                  "coco", "cvat", "labelme", "sa-v", "mattes", "indexed-png") == 0
    return output


@pytest.mark.parametrize("name", ["coco.json", "cvat.xml", "labelme", "sa-v.json", "mattes", "masks"])
def test_what_is_exported_is_imported(exports, inputs, tmp_path, name, capsys):
    assert run(exports / name, "--video", inputs.video, "--output", tmp_path / "a") == 0
    masks = read_all(tmp_path / "a")
    expected = {f"{number:05d}": ids for number, ids in enumerate(inputs.ids) if ids.any()}
    if name == "sa-v.json":
        masks = {key: mask for key, mask in masks.items() if mask.any()}
    assert masks.keys() == expected.keys()
    assert all(np.array_equal(masks[key], expected[key]) for key in expected)
    assert f"--mask {tmp_path / 'a'}" in capsys.readouterr().out
    kinds = {"1": "dog", "3": "cat", "200": "object"}
    file = tmp_path / "a" / "names.json"
    assert not file.exists() if name in ("sa-v.json", "mattes", "masks") else json.loads(file.read_text()) == kinds
    # track.py takes the folder, names.json and all.
    assert set(find_masks([str(tmp_path / "a")], open_frames([str(inputs.video)]))) == expected.keys()


def circle(centre=(70, 60), radius=30):
    """uint8 H×W, and the points of a polygon around it."""
    rows, columns = np.mgrid[:SIZE[1], :SIZE[0]] + 0.5
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    points = np.stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)], 1)
    return (np.hypot(columns - centre[0], rows - centre[1]) < radius).astype(np.uint8), points


def test_polygons_cover_the_pixels_whose_middle_they_hold():
    mask, points = circle()
    assert iou(fill_polygon(points, mask.shape), mask) > 0.99
    square = fill_polygon(np.array([[2, 3], [5, 3], [5, 7], [2, 7]]), (10, 10))
    assert square.sum() == 12 and cv2.boundingRect(square) == (2, 3, 3, 4)
    beyond = fill_polygon(np.array([[-5, -5], [5, -5], [5, 50], [-5, 50]]), (10, 10))
    assert beyond[:, :5].all() and not beyond[:, 5:].any()


def write_coco(path, annotations, count=1):
    width, height = SIZE
    path.write_text(json.dumps({
        "images": [{"id": 10 + number, "file_name": f"some/{number:05d}.jpg", "width": width, "height": height}
                   for number in range(count)],
        "categories": [{"id": 7, "name": "dog"}],
        "annotations": [{"id": number, "image_id": 10, "category_id": 7, **annotation}
                        for number, annotation in enumerate(annotations)]}))
    return path


def test_coco_of_polygons_and_uncompressed_runs(tmp_path):
    """Without track ids, the objects of the only image are numbered."""
    mask, points = circle()
    other, _ = circle((120, 100), 10)
    flat = other.ravel(order="F")
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], flat, [2]])))).tolist()
    path = write_coco(tmp_path / "a.json", [
        {"segmentation": [points.ravel().tolist()]}, {"segmentation": {"size": list(other.shape), "counts": runs}}])
    assert run(path, "--output", tmp_path / "a") == 0
    ids = read_all(tmp_path / "a")["00000"]
    assert iou(ids == 1, mask) > 0.99 and np.array_equal(ids == 2, other > 0)


def test_several_images_need_ids(tmp_path, capsys):
    polygons = [{"segmentation": [circle(centre, 9)[1].ravel().tolist()], "image_id": image}
                for image in (10, 11) for centre in ((30, 30), (90, 90))]
    path = write_coco(tmp_path / "a.json", polygons, count=2)
    assert run(path, "--output", tmp_path / "a") == 2
    assert refused(capsys, "'dog'", "track_id") and read_all(tmp_path / "a") == {}
    for number, polygon in enumerate(polygons):
        polygon["attributes"] = {"track_id": 5 + number % 2}
    assert run(write_coco(path, polygons, count=2), "--output", tmp_path / "a") == 0
    assert [set(np.unique(mask)) for mask in read_all(tmp_path / "a").values()] == [{0, 5, 6}] * 2


def test_cvat_with_tracks_of_several_masks_and_polygons(tmp_path):
    points = ";".join(f"{x:.2f},{y:.2f}" for x, y in circle()[1])
    mask = '<mask frame="{}" keyframe="{}" outside="{}" rle="1, 2, 3" left="4" top="5" width="3" height="2"/>'
    path = tmp_path / "a.xml"
    path.write_text('<annotations><meta><job><original_size><width>160</width><height>120</height></original_size>'
                    '</job></meta><track id="0" label="dog">' + mask.format(2, 1, 0) + mask.format(3, 0, 0) +
                    mask.format(4, 1, 0) + mask.format(5, 1, 1) + '</track><track id="1" label="dog">'
                    f'<polygon frame="4" keyframe="1" outside="0" points="{points}"/></track></annotations>')
    assert run(path, "--output", tmp_path / "a") == 0
    masks = read_all(tmp_path / "a")
    assert sorted(masks) == ["00002", "00004"]
    assert np.argwhere(masks["00002"]).tolist() == [[5, 5], [5, 6]] and masks["00002"].max() == 1
    assert iou(masks["00004"] == 2, circle()[0]) > 0.98


def test_cvat_for_images(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text('<annotations><image id="0" name="frames/img_7.png" width="10" height="8"><mask label="dog" '
                    'rle="0, 4" left="1" top="1" width="2" height="2"/></image></annotations>')
    assert run(path, "--output", tmp_path / "a") == 0
    assert list(read_all(tmp_path / "a")) == ["img_7"] and read_mask(tmp_path / "a" / "img_7.png").sum() == 4


def test_a_number_of_two_objects_is_refused(tmp_path, capsys):
    """Otherwise the two would be one object, of the later one's name."""
    points = [circle((40 + 60 * number, 60), 20)[1] for number in range(2)]
    shapes = [{"label": kind, "shape_type": "polygon", "points": polygon.tolist(), "group_id": 1}
              for kind, polygon in zip(("dog", "cat"), points, strict=True)]
    (tmp_path / "a.json").write_text(json.dumps({"shapes": shapes, "imageWidth": 160, "imageHeight": 120}))
    path = write_coco(tmp_path / "b.json", [{"segmentation": [polygon.ravel().tolist()], "track_id": 1,
                                             "category_id": 7 + number} for number, polygon in enumerate(points)])
    path.write_text(path.read_text().replace('[{"id": 7, "name": "dog"}]',
                                             '[{"id": 7, "name": "dog"}, {"id": 8, "name": "cat"}]'))
    track = ('<track id="{0}" label="{1}" group_id="1"><mask frame="{0}" keyframe="1" outside="0" rle="0, 4" '
             'left="{0}" top="1" width="2" height="2"/></track>')
    (tmp_path / "c.xml").write_text("<annotations><original_size><width>160</width><height>120</height>"
                                    f"</original_size>{track.format(0, 'dog')}{track.format(1, 'cat')}</annotations>")
    for name in ("a.json", "b.json", "c.xml"):
        assert run(tmp_path / name, "--output", tmp_path / "out") == 2
        assert refused(capsys, name, "object 1 is 'dog' and 'cat'") and read_all(tmp_path / "out") == {}


def test_boxes_are_no_masks(tmp_path, capsys):
    """A frame whose objects have boxes alone would get a mask in which nothing is."""
    polygon = {"segmentation": [circle()[1].ravel().tolist()], "track_id": 1}
    boxes = [{"track_id": 1, "image_id": 11, "bbox": [1, 1, 9, 9], **more}
             for more in ({}, {"segmentation": []}, {"segmentation": None}, {"segmentation": [[]]})]
    path = write_coco(tmp_path / "a.json", [polygon, *boxes], count=2)
    assert run(path, "--output", tmp_path / "a") == 0
    assert list(read_all(tmp_path / "a")) == ["00000"]
    assert "a box without an outline is left out" in capsys.readouterr().err
    assert run(write_coco(path, boxes, count=2), "--output", tmp_path / "b") == 2
    assert refused(capsys, "no mask", "a box without an outline is left out")


def test_folders_of_windows_are_no_part_of_a_frame_s_name(tmp_path):
    path = write_coco(tmp_path / "a.json", [{"segmentation": [circle()[1].ravel().tolist()]}])
    path.write_text(path.read_text().replace("some/00000.jpg", "C:\\\\some\\\\00000.jpg"))
    assert run(path, "--output", tmp_path / "a") == 0 and list(read_all(tmp_path / "a")) == ["00000"]


def test_a_full_disk_is_no_damage(exports, tmp_path, capsys):
    with no_larger_files(100):
        assert run(exports / "coco.json", "--output", tmp_path / "a") == 2
    assert refused(capsys, tmp_path / "a", ".png: File too large") and read_all(tmp_path / "a") == {}


def test_several_videos_are_not_mixed(tmp_path, capsys):
    annotations = [{"segmentation": [circle()[1].ravel().tolist()], "image_id": image, "track_id": 1}
                   for image in (10, 11)]
    path = write_coco(tmp_path / "a.json", annotations, count=2)
    content = json.loads(path.read_text())
    first, second = content["images"]
    first["video_id"], second["video_id"] = 1, 2
    path.write_text(json.dumps(content))
    assert run(path, "--output", tmp_path / "a") == 2
    assert refused(capsys, path, "2 videos (video_id 1, 2)", "a file for each video")
    second |= {"video_id": 1, "file_name": "other/00000.jpg"}
    path.write_text(json.dumps(content))
    assert run(path, "--output", tmp_path / "a") == 2
    assert refused(capsys, path, "some/00000.jpg and other/00000.jpg", "frame 00000")
    # Of an image without masks nothing can be mixed.
    content["annotations"] = annotations[:1]
    path.write_text(json.dumps(content))
    assert run(path, "--output", tmp_path / "a") == 0 and list(read_all(tmp_path / "a")) == ["00000"]
    path = tmp_path / "b.xml"
    image = ('<image id="0" name="{}/7.png" width="10" height="8"><mask label="dog" rle="0, 4" left="1" top="1" '
             'width="2" height="2"/></image>')
    path.write_text(f"<annotations>{image.format('a')}{image.format('b')}</annotations>")
    assert run(path, "--output", tmp_path / "b") == 2
    assert refused(capsys, path, "a/7.png and b/7.png", "frame 7")
    track = ('<track id="0" label="dog" task_id="{}"><mask frame="0" keyframe="1" outside="0" rle="0, 4" left="1" '
             'top="1" width="2" height="2"/></track>')
    path.write_text(f"<annotations>{track.format(4)}{track.format(5)}</annotations>")
    assert run(path, "--output", tmp_path / "b") == 2
    assert refused(capsys, path, "2 videos (task_id 4, 5)", "a file for each task")


def test_boxes_of_other_videos_are_left_out(tmp_path, capsys):
    outline = [circle()[1].ravel().tolist()]
    path = write_coco(tmp_path / "a.json", [{"segmentation": outline, "track_id": 1},
                                            {"image_id": 11, "bbox": [1, 1, 9, 9]}], count=2)
    content = json.loads(path.read_text())
    for number, image in enumerate(content["images"]):
        image |= {"video_id": number, "file_name": f"{number}/00000.jpg"}
    path.write_text(json.dumps(content))
    mask = '<mask frame="0" keyframe="1" outside="0" rle="0, 4" left="1" top="1" width="2" height="2"/>'
    box = '<box frame="0" keyframe="1" outside="0" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    (tmp_path / "b.xml").write_text(
        "<annotations><original_size><width>160</width><height>120</height></original_size>"
        f'<track id="0" label="dog" task_id="4">{mask}</track><track id="1" label="cat" task_id="5">{box}</track>'
        "</annotations>")
    (tmp_path / "c.xml").write_text(
        f'<annotations><image id="0" name="a/00000.png" width="160" height="120">{mask}</image>'
        f'<image id="1" name="b/00000.png" width="160" height="120">{box}</image></annotations>')
    for name in ("a.json", "b.xml", "c.xml"):
        assert run(tmp_path / name, "--output", tmp_path / name[0]) == 0
        assert len(read_all(tmp_path / name[0])) == 1
        assert "is left out" in capsys.readouterr().err


def test_labelme_shapes(tmp_path):
    picture = io.BytesIO()
    Image.fromarray(np.eye(3, dtype=np.uint8) * 255).save(picture, format="PNG")
    shapes = [{"label": "dog", "shape_type": "polygon", "points": circle()[1].tolist()},
              {"label": "cat", "shape_type": "rectangle", "points": [[150, 110], [140, 100]], "group_id": None},
              {"label": "ant", "shape_type": "mask", "points": [[1, 2], [3, 4]], "group_id": 9,
               "mask": base64.b64encode(picture.getvalue()).decode()}]
    content = {"shapes": shapes, "imageWidth": 160, "imageHeight": 120, "imagePath": "f_3.png", "imageData": None}
    (tmp_path / "f_3.json").write_text(json.dumps(content))
    Image.new("RGB", SIZE).save(tmp_path / "f_3.png")
    assert run(tmp_path, "--output", tmp_path / "a") == 0
    ids = read_all(tmp_path / "a")["f_3"]
    assert iou(ids == 1, circle()[0]) > 0.98 and (ids == 2).sum() == 100
    assert np.argwhere(ids == 9).tolist() == [[2, 1], [3, 2], [4, 3]]
    assert json.loads((tmp_path / "a" / "names.json").read_text()) == {"1": "dog", "2": "cat", "9": "ant"}


def test_what_is_left_out_and_what_lies_over_another_is_said(tmp_path, capsys):
    circles = [{"label": name, "shape_type": "polygon", "points": circle((70 + 10 * number, 60))[1].tolist()}
               for number, name in enumerate("ab")]
    content = {"shapes": [*circles, {"label": "c", "shape_type": "point", "points": [[1, 1]]}],
               "imageWidth": 160, "imageHeight": 120}
    (tmp_path / "0.json").write_text(json.dumps(content))
    assert run(tmp_path / "0.json", "--output", tmp_path / "a") == 0
    ids = read_all(tmp_path / "a")["0"]
    assert iou(ids == 2, circle((80, 60))[0]) > 0.98 and (ids == 1).any()
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2 and "type point" in notes[0] and "over others" in notes[1]


def test_sa_v_where_every_fourth_frame_is_annotated(exports, inputs, tmp_path):
    content = json.loads((exports / "sa-v.json").read_text())
    content |= {"masklet": content["masklet"][:2], "video_frame_count": 8.0, "masklet_id": [0, 1, 2]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert run(tmp_path / "a.json", "--output", tmp_path / "a") == 0
    masks = read_all(tmp_path / "a")
    assert sorted(masks) == ["00000", "00004"]
    assert np.array_equal(masks["00000"] == 2, inputs.ids[0] == 3)


def test_colours_are_the_same_objects_in_all_pictures(tmp_path, capsys):
    (tmp_path / "colours").mkdir()
    for number, order in enumerate(([0, 1], [1])):
        image = np.zeros((40, 40, 3), np.uint8)
        for index in order:
            image[5:15, 5 + 20 * index:15 + 20 * index] = [(250, 10, 90), (10, 200, 30)][index]
        Image.fromarray(image).save(tmp_path / "colours" / f"{number}.png")
    assert run(tmp_path / "colours", "--output", tmp_path / "a") == 0
    masks = read_all(tmp_path / "a")
    assert masks["1"][8, 28] == masks["0"][8, 28] and set(np.unique(masks["0"])) == {0, 1, 2}
    assert "#fa0a5a is object" in capsys.readouterr().err


def test_numbers_become_names_of_frames(exports, inputs, tmp_path):
    (tmp_path / "frames").mkdir()
    for number in range(len(inputs.ids)):
        Image.new("RGB", SIZE).save(tmp_path / "frames" / f"img_{number + 5}.jpg")
    assert run(exports / "cvat.xml", "--video", tmp_path / "frames", "--output", tmp_path / "a") == 0
    assert np.array_equal(read_all(tmp_path / "a")["img_5"], inputs.ids[0])


def test_names_with_a_number_are_frames_of_a_video_file(inputs, tmp_path, capsys):
    """CVAT's COCO calls a video's frames so."""
    path = write_coco(tmp_path / "a.json", [{"segmentation": [circle()[1].ravel().tolist()], "image_id": 12}], count=3)
    path.write_text(path.read_text().replace("some/00002.jpg", "frame_000002.PNG"))
    assert run(path, "--video", inputs.video, "--output", tmp_path / "a") == 0
    assert list(read_all(tmp_path / "a")) == ["00002"]
    path.write_text(path.read_text().replace("frame_000002.PNG", "take_1_frame_000002.PNG"))
    assert run(path, "--video", inputs.video, "--output", tmp_path / "b") == 2
    assert refused(capsys, "frame take_1_frame_000002 is not in the video")


def test_bad_input(exports, inputs, tmp_path, capsys):
    assert run(tmp_path / "gone.json", "--output", tmp_path / "a") == 2
    assert refused(capsys, "gone.json", "no such file")
    for name, text, part in (("a.json", "{", "damaged"), ("b.json", "{}", "expected"), ("c.xml", "<a>", "damaged"),
                             ("d.json", '{"annotations": [], "images": []}', "no mask"), ("e.txt", "", "expected"),
                             ("f.json", '{"annotations": [{"image_id": 1}], "images": []}', "format")):
        (tmp_path / name).write_text(text)
        assert run(tmp_path / name, "--output", tmp_path / "a") == 2
        assert refused(capsys, name, part)
    path = write_coco(tmp_path / "g.json", [{"segmentation": {"size": [120, 160], "counts": [5, 10]}}])
    assert run(path, "--output", tmp_path / "a") == 2
    assert refused(capsys, "15 pixels")
    write_coco(path, [{"segmentation": {"size": [160, 120], "counts": [5, 160 * 120 - 5]}}])
    assert run(path, "--output", tmp_path / "a") == 2
    assert refused(capsys, "120×160", "160×120")
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (50, 50)).save(tmp_path / "frames" / "00000.jpg")
    assert run(exports / "coco.json", "--video", tmp_path / "frames", "--output", tmp_path / "a") == 2
    assert refused(capsys, "160×120", "50×50")
    assert read_all(tmp_path / "a") == {}


def test_earlier_imports(exports, tmp_path, capsys):
    assert run(exports / "coco.json", "--output", tmp_path / "a") == 0
    assert run(exports / "coco.json", "--output", tmp_path / "a") == 2
    assert refused(capsys, "--overwrite")
    one = tmp_path / "labelme"
    one.mkdir()
    shutil.copy(exports / "labelme" / "00002.json", one)
    assert run(one, "--output", tmp_path / "a", "--overwrite") == 0
    assert list(read_all(tmp_path / "a")) == ["00002"]
    (tmp_path / "a" / "mine.png").write_text("mine")
    capsys.readouterr()
    assert run(one, "--output", tmp_path / "a", "--overwrite") == 2
    assert refused(capsys, "mine.png") and (tmp_path / "a" / "mine.png").exists()
