"""Small datasets in the benchmarks' own directory trees."""

import json

import numpy as np
from PIL import Image

from dataset.synthetic import render_clip
from util.image_io import write_grey, write_mask


def write_sequence(images, annotations, name, frames, masks, step=1, suffix="jpg"):
    """frames T×H×W×3 and {index: mask} as images/NAME/00000.jpg and annotations/NAME/00000.png."""
    for folder in (images / name, annotations / name):
        folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(images / name / f"{index * step:05d}.{suffix}", quality=95)
        if index in masks:
            write_mask(annotations / name / f"{index * step:05d}.png", masks[index])


def write_frames(folder, frames):
    """Write frames, H×W×3 each, as 00000.png and so on into a new folder, and return it."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(np.ascontiguousarray(frame)).save(folder / f"{number:05d}.png")
    return folder


def davis_tree(root, clip, names=("bear", "camel", "dog"), length=6):
    """DAVIS/2017: trainval with val.txt of 2016 and 2017 and every mask, test-dev with first masks alone."""
    frames, truth = clip
    for part, listings, masked in (("trainval", ("2016/val", "2017/val"), length), ("test-dev", ("2017/test-dev",), 1)):
        home = root / part
        for number, name in enumerate(names):
            shown = slice(number, number + length)
            write_sequence(home / "JPEGImages" / "480p", home / "Annotations" / "480p", name, frames[shown],
                           dict(enumerate(truth[shown][:masked])))
        for listing in listings:
            path = home / "ImageSets" / f"{listing}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(names) + "\n")
    return root


def youtube_tree(root, clip):
    """YouTube: valid with every fifth frame, all_frames, two videos; in the second, ids 3 and 9, the 9 late."""
    frames, truth = clip[0][:16], clip[1][:16]
    valid, every = root / "valid", root / "all_frames" / "valid_all_frames"
    ids = np.array([0, 3, 9], np.uint8)
    labels = {"0043f083b5": {0: truth[0]},
              "00f88c4f0a": {0: (truth[0] == 1).astype(np.uint8) * 3, 10: ids[truth[10]] * (truth[10] == 2)}}
    videos = {"0043f083b5": {1: [0, 5, 10, 15], 2: [0, 5, 10]}, "00f88c4f0a": {3: [0, 5, 10], 9: [10, 15]}}
    meta = {}
    for name, masks in labels.items():
        write_sequence(every / "JPEGImages", every / "Annotations", name, frames, masks)
        write_sequence(valid / "JPEGImages", valid / "Annotations", name, frames[::5],
                       {index // 5: mask for index, mask in masks.items()}, step=5)
        meta[name] = {"objects": {str(known): {"category": "x", "frames": [f"{index:05d}" for index in shown]}
                                  for known, shown in videos[name].items()}}
    (valid / "meta.json").write_text(json.dumps({"videos": meta}))
    return root


def lose_objects(split):
    """Give 0043f083b5 of `youtube_tree` the objects 5, with its only mask in a frame that is missing, and 7, with none.

    split: the folder with meta.json.
    """
    write_mask(split / "Annotations" / "0043f083b5" / "00003.png", np.full((72, 100), 5, np.uint8))
    meta = json.loads((split / "meta.json").read_text())
    for object_id in "57":
        meta["videos"]["0043f083b5"]["objects"][object_id] = {"category": "x", "frames": ["00010"]}
    (split / "meta.json").write_text(json.dumps(meta))


def static_tree(root, count=5):
    """Images with the masks of two rendered objects beside them."""
    root.mkdir(exist_ok=True)
    for number in range(count):
        frame, ids = next(iter(render_clip(photograph(number), [photograph(number + 10)], (90, 120), 1, seed=number)))
        Image.fromarray(frame).save(root / f"{number}.jpg")
        Image.fromarray((ids > 0) * np.uint8(255)).save(root / f"{number}.png")
    return root


def photograph(seed, size=(120, 160)):
    """Smooth colourful noise: what a photograph is good for in a test."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (6, 8, 3)).astype(np.uint8)
    rows = np.arange(size[0]) * 6 // size[0]
    columns = np.arange(size[1]) * 8 // size[1]
    return coarse[rows][:, columns]


def folder_bytes(folder):
    """{relative path: bytes} of the masks below a folder, hidden files left out."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))
            if not any(part.startswith(".") for part in path.relative_to(folder).parts)}


def training_tree(root, clip, names=("ant", "bee", "cow"), length=12):
    """Any folder in the layout of DAVIS with every mask: {JPEGImages, Annotations}/VIDEO."""
    frames, truth = clip
    for number, name in enumerate(names):
        shown = slice(number, number + length)
        write_sequence(root / "JPEGImages", root / "Annotations", name, frames[shown], dict(enumerate(truth[shown])))
    return root


def pairs_tree(root, clip, count=6):
    """X.jpg with X.png in DUTS-TR, and class/1.jpg with class/1.png in fss; masks 0 and 255."""
    frames, truth = clip
    for index in range(count):
        stem = root / (f"DUTS-TR/{index}" if index % 2 else f"fss/class_{index}/1")
        stem.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frames[index]).save(stem.with_suffix(".jpg"), quality=95)
        write_grey(stem.with_suffix(".png"), (truth[index] > 0).astype(np.uint8) * 255)
    return root
