"""Masks as annotations: what labelling programs, trainings and scorings read.

Each writer is a generator: `next` begins, `send` takes a MaskedFrame, and `send(None)` ends it. It then returns a list
of sentences about what the format could not hold. `exporting.formats` lists them all.
"""

import base64
import csv
import io
import json
import tempfile
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
from PIL import Image

from exporting.run_lengths import compress, count_runs, encode_coco
from util.errors import InputError
from util.files import JsonWriter
from util.image_io import davis_palette, encode_jpeg


def write_coco(path, video):
    """COCO: path is a JSON file with videos, images, annotations (with track_id) and categories."""
    with open(path, "w", encoding="utf-8") as file, tempfile.TemporaryFile("w+", dir=path.parent) as kept:
        writer, count = JsonWriter(file), 0
        width, height = video.size
        writer.add("videos", [{"id": 1, "name": video.name, "width": width, "height": height}])
        writer.begin_list("images")
        while (frame := (yield)) is not None:
            if not frame.has_mask:
                continue
            number = frame.number + 1
            writer.append({"id": number, "file_name": f"{frame.name}.jpg", "width": width, "height": height,
                           "video_id": 1, "frame_id": frame.number})
            for mask in frame.masks:
                count += 1
                # Some readers skip crowds, so none is one, even with holes or in several parts.
                annotation = {"id": count, "image_id": number, "video_id": 1, "track_id": mask.object_id,
                              "category_id": video.kind(mask.object_id) + 1, "iscrowd": 0, "area": mask.area,
                              "bbox": mask.box, "segmentation": encode_coco(mask, video.size)}
                kept.write(json.dumps(annotation) + "\n")
        writer.end_list()
        writer.begin_list("annotations")
        kept.seek(0)
        for line in kept:
            writer.append(json.loads(line))
        writer.end_list()
        writer.add("categories", [{"id": index, "name": kind} for index, kind in enumerate(video.kinds, 1)])
        writer.close()
    return []


def write_yolo(path, video):
    """YOLO segmentation: path is a folder with data.yaml, labels/NAME.txt, and images/NAME.jpg of the same frames."""
    labels, images = path / "labels", path / "images"
    labels.mkdir(parents=True)
    images.mkdir()
    holes = parts = 0
    while (frame := (yield)) is not None:
        if not frame.has_mask:
            continue
        rows = []
        for mask in frame.masks:
            outlines, levels = cv2.findContours(mask.pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
            outer = [outline for outline, level in zip(outlines, levels[0], strict=True) if level[3] < 0]
            holes += len(outlines) - len(outer)
            parts += len(outer) - 1
            points = max(outer, key=cv2.contourArea)[:, 0]
            points = np.concatenate([points, np.repeat(points[-1:], max(0, 3 - len(points)), 0)])
            # A quarter of a pixel on: whether readers round down or to the nearest, they find this pixel.
            points = (points + np.array([mask.left + 0.25, mask.top + 0.25])) / video.size
            rows.append(f"{video.kind(mask.object_id)} {' '.join(f'{value:.6f}' for value in points.ravel())}\n")
        (labels / f"{frame.name}.txt").write_text("".join(rows))
        _write_jpeg(images / f"{frame.name}.jpg", frame)
    # YAML knows no letters of two escapes.
    names = "".join(f"  {index}: {json.dumps(kind, ensure_ascii=False)}\n" for index, kind in enumerate(video.kinds))
    (path / "data.yaml").write_text(f"train: images\nval: images\nnames:\n{names}", encoding="utf-8")
    lost = [f"{what} ({count})" for count, what in ((holes, "holes"), (parts, "parts beside an object's largest"))
            if count]
    return [f"a polygon cannot hold {' and '.join(lost)}, which are lost; coco can"] if lost else []


def write_cvat(path, video):
    """CVAT for video 1.1: path is an XML file.

    CVAT keeps no track of several masks: of one that has them it reads the first, and it writes each mask as a track
    of its own. So does this; the tracks of an object have its id as their group.
    """
    width, height = video.size
    count, waiting = 0, []
    # The name of the video is that of a file, which need not be text.
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file, \
            tempfile.TemporaryFile("w+", dir=path.parent) as kept:

        def write_waiting(more):
            # As CVAT does: where there is no next frame, nothing says that the mask is not there.
            for begin, mask, end in waiting:
                kept.write(f"{begin}{mask}{end if more else ''}  </track>\n")

        last = -1
        while (frame := (yield)) is not None:
            write_waiting(more=True)
            waiting, last = [], frame.number
            for mask in frame.masks:
                left, top, columns, rows = mask.box
                shape = (f'occluded="0" rle="{", ".join(map(str, count_runs(mask.pixels.ravel())))}" left="{left}" '
                         f'top="{top}" width="{columns}" height="{rows}" z_order="0"></mask>\n')
                kind = video.kinds[video.kind(mask.object_id)]
                begin = f'  <track id="{count}" label={quoteattr(kind)} source="file" group_id="{mask.object_id}">\n'
                waiting.append((begin, f'    <mask frame="{frame.number}" keyframe="1" outside="0" {shape}',
                                f'    <mask frame="{frame.number + 1}" keyframe="1" outside="1" {shape}'))
                count += 1
        write_waiting(more=False)
        labels = "".join(f"        <label><name>{quoteattr(kind)[1:-1]}</name><type>mask</type></label>\n"
                         for kind in video.kinds)
        file.write(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n'
                   f'    <task>\n      <name>{quoteattr(video.name)[1:-1]}</name>\n      <size>{last + 1}</size>\n'
                   f'      <mode>interpolation</mode>\n      <start_frame>0</start_frame>\n'
                   f'      <stop_frame>{last}</stop_frame>\n      <labels>\n{labels}      </labels>\n'
                   f'      <original_size><width>{width}</width><height>{height}</height></original_size>\n'
                   f'    </task>\n  </meta>\n')
        _copy(kept, file)
        file.write("</annotations>\n")
    return []


def write_mot(path, video):
    """MOT: path is a folder with gt/gt.txt, gt/labels.txt (the classes, from 1) and seqinfo.ini. Boxes only."""
    (path / "gt").mkdir(parents=True)
    last = 0
    with open(path / "gt" / "gt.txt", "w") as file:
        while (frame := (yield)) is not None:
            last = frame.number + 1
            for mask in frame.masks:
                box = ",".join(map(str, mask.box))
                file.write(f"{last},{mask.object_id},{box},1,{video.kind(mask.object_id) + 1},1\n")
    (path / "gt" / "labels.txt").write_text("".join(f"{kind}\n" for kind in video.kinds), encoding="utf-8")
    width, height = video.size
    rate = max(1, round(video.rate))  # some readers want a whole number
    (path / "seqinfo.ini").write_text(f"[Sequence]\nname={video.name}\nimDir=img1\nframeRate={rate}\n"
                                      f"seqLength={last}\nimWidth={width}\nimHeight={height}\nimExt=.jpg\n",
                                      encoding="utf-8", errors="backslashreplace")
    return []


def write_mots(path, video):
    """MOTS: path is a folder with NAME.png of 16 bits, 1000 · class (from 1) + object id, and labels.txt."""
    path.mkdir()
    table = np.zeros(256, np.uint16)
    while (frame := (yield)) is not None:
        if frame.has_mask:
            for mask in frame.masks:
                kind = video.kind(mask.object_id) + 1
                if kind > 64:
                    raise InputError("mots: 16 bits hold 64 kinds of objects, --names gives more")
                table[mask.object_id] = 1000 * kind + mask.object_id
            Image.fromarray(table[frame.draw_ids()]).save(path / f"{frame.name}.png")
    (path / "labels.txt").write_text("".join(f"{kind}\n" for kind in video.kinds), encoding="utf-8")
    return []


def write_labelme(path, video):
    """LabelMe: path is a folder with NAME.json, and NAME.jpg of the same frames."""
    path.mkdir()
    width, height = video.size
    while (frame := (yield)) is not None:
        if not frame.has_mask:
            continue
        shapes = []
        for mask in frame.masks:
            picture, (left, top, columns, rows) = io.BytesIO(), mask.box
            Image.fromarray(mask.pixels).save(picture, format="PNG")
            shapes.append({"label": video.name_of(mask.object_id), "shape_type": "mask", "group_id": mask.object_id,
                           "points": [[left, top], [left + columns - 1, top + rows - 1]], "description": "",
                           "flags": {}, "mask": base64.b64encode(picture.getvalue()).decode()})
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{frame.name}.jpg",
                   "imageData": None, "imageHeight": height, "imageWidth": width}
        (path / f"{frame.name}.json").write_text(json.dumps(content, indent=1) + "\n")
        _write_jpeg(path / f"{frame.name}.jpg", frame)
    return []


def write_sa_v(path, video):
    """SA-V: path is a JSON file with masklet[frame][object], and sizes and first frame of each object."""
    width, height = video.size
    objects, count, first_number, last_number = video.objects, 0, 0, -1
    first, shown, area, changes = (dict.fromkeys(objects, 0) for _ in range(4))
    before = None
    empty = {"size": [height, width], "counts": compress([width * height])}
    with open(path, "w", encoding="utf-8") as file:
        writer = JsonWriter(file)
        writer.add("video_id", video.name)
        writer.add("video_height", height)
        writer.add("video_width", width)
        writer.add("video_resolution", width * height)
        writer.add("masklet_id", objects)
        writer.add("masklet_num", len(objects))
        writer.begin_list("masklet")
        while (frame := (yield)) is not None:
            if not frame.has_mask:
                continue
            masks = {mask.object_id: mask for mask in frame.masks}
            writer.append([encode_coco(masks[object_id], video.size) if object_id in masks else empty
                           for object_id in objects])
            for object_id in objects:
                changes[object_id] += before is not None and (object_id in before) != (object_id in masks)
                if object_id in masks:
                    first[object_id] = first[object_id] if shown[object_id] else count
                    shown[object_id] += 1
                    area[object_id] += masks[object_id].area
            first_number, last_number = frame.number if before is None else first_number, frame.number
            before = set(masks)
            count += 1
        writer.end_list()
        sizes = [area[object_id] / max(1, shown[object_id]) for object_id in objects]
        writer.add("masklet_frame_count", [shown[object_id] for object_id in objects])
        writer.add("masklet_first_appeared_frame", [first[object_id] for object_id in objects])
        writer.add("masklet_visibility_changes", [changes[object_id] for object_id in objects])
        writer.add("masklet_size_abs", sizes)
        writer.add("masklet_size_rel", [size / (width * height) for size in sizes])
        writer.add("masklet_type", ["auto"] * len(objects))
        writer.add("video_frame_count", count)
        writer.close()
    if (first_number, last_number) != (0, count - 1):
        return [f"has no numbers of frames: its {count} are of the video's frames {first_number} to {last_number}"]
    return []


def write_boxes_csv(path, video):
    """path is a CSV file, a row for each object in each frame; left and top from 0, time in seconds."""
    # A name of a file need not be text.
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["frame", "name", "time", "object", "kind", "left", "top", "width", "height", "area"])
        while (frame := (yield)) is not None:
            time = "" if frame.time is None else f"{float(frame.time):.6f}"
            for mask in frame.masks:
                table.writerow([frame.number, frame.name, time, mask.object_id, video.name_of(mask.object_id),
                                *mask.box, mask.area])
    return []


def write_indexed(path, video):
    """path is a folder with NAME.png, object ids with the palette of DAVIS: as track.py writes masks."""
    path.mkdir()
    palette = davis_palette().tobytes()
    while (frame := (yield)) is not None:
        if frame.has_mask:
            image = Image.fromarray(frame.draw_ids())
            image.putpalette(palette)
            image.save(path / f"{frame.name}.png")
    return []


def write_images(path, video):
    """path is a folder with every frame as NAME.jpg: coco.json means these."""
    path.mkdir()
    while (frame := (yield)) is not None:
        _write_jpeg(path / f"{frame.name}.jpg", frame)
    return []


def _write_jpeg(path, frame):
    if frame.image is not None:
        path.write_bytes(encode_jpeg(Image.fromarray(frame.image)))


def _copy(source, target):
    source.seek(0)
    while text := source.read(2**20):
        target.write(text)
