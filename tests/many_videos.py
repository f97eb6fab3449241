"""Short videos with masks, and runs of track_many.py on them in the process of the tests."""

import csv
import json

import track_many
from util.errors import run_script
from util.image_io import write_mask
from util.video_writer import VideoWriter


def write_videos(folder, clip, names, length=5, size=(100, 72)):
    """NAME.mp4 and NAME.png for each name: parts of a clip (frames, ids) that begin one frame after another.

    size: (width, height).
    """
    folder.mkdir(exist_ok=True)
    frames, truth = clip
    for number, name in enumerate(names):
        video = VideoWriter(folder / f"{name}.mp4", size, 24)
        for frame in frames[number:number + length]:
            video.write(frame)
        video.close()
        write_mask(folder / f"{name}.png", truth[number])
    return folder


def write_list(path, rows):
    """A list of videos as JSON lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def run(manifest, output, model, *options, overlay=False):
    """Run track_many.py with one thread a worker, and return its exit code."""
    words = [manifest, "--output", output, "--model", model, "--threads", 1, *([] if overlay else ["--no-overlay"]),
             *options]
    return run_script(track_many.get_args_parser(), track_many.main, [str(word) for word in words])


def read_table(output, name="videos.csv"):
    """{video's name: {column: text}} of a table."""
    with open(output / name, newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}
