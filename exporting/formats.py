"""The one table of the formats that masks are exported to. To add one, write a function and add a row."""

from collections.abc import Callable
from typing import NamedTuple

from exporting import annotations, pictures


class Format(NamedTuple):
    """One format."""

    write: Callable
    """The writer, see `exporting.annotations`: it takes the path of what it writes, and a MaskedVideo."""

    target: str
    """The file or folder that it writes, in the folder of --output."""

    frames: str
    """Whether it wants the video's frames: "needed", "useful" (with them it writes more), or "unused"."""

    numbered: bool = False
    """Whether it says the frames' numbers in the video."""

    soft: bool = False
    """Whether it can hold soft edges: --feather and --soft."""


FORMATS = {
    "coco": Format(annotations.write_coco, "coco.json", "unused", numbered=True),
    "yolo": Format(annotations.write_yolo, "yolo", "useful"),
    "cvat": Format(annotations.write_cvat, "cvat.xml", "unused", numbered=True),
    "mot": Format(annotations.write_mot, "mot", "unused", numbered=True),
    "mots": Format(annotations.write_mots, "mots", "unused"),
    "labelme": Format(annotations.write_labelme, "labelme", "useful"),
    "sa-v": Format(annotations.write_sa_v, "sa-v.json", "unused"),
    "boxes-csv": Format(annotations.write_boxes_csv, "boxes.csv", "unused", numbered=True),
    "indexed-png": Format(annotations.write_indexed, "masks", "unused"),
    "images": Format(annotations.write_images, "images", "needed"),
    "mattes": Format(pictures.write_mattes, "mattes", "useful", soft=True),
    "matte-video": Format(pictures.write_matte_video, "matte-video", "needed", soft=True),
    "prores": Format(pictures.write_prores, "prores.mov", "needed", soft=True),
    "webm-alpha": Format(pictures.write_webm_alpha, "alpha.webm", "needed", soft=True),
    "cutout-png": Format(pictures.write_cutout_png, "cutout", "needed", soft=True),
    "gif": Format(pictures.write_gif, "cutout.gif", "needed"),
}
"""{name: Format}; `util.hyper_para.EXPORT_FORMATS` has the same names."""
