"""Damaged masks, lists and JSON files give a result or an error of one line, in seconds, whatever is in them."""

import collections
import json
import random
import signal
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dataset.evaluation_sets import EVALUATION_SETS
from dataset.trees import read_meta, read_names
from evaluation.check import check_results, open_results
from evaluation.decoding import read_ids
from evaluation.results import Results
from inference_core.results_folder import MANIFEST, find_earlier_results
from tests.trees import training_tree
from util.errors import InputError
from util.image_io import image_size, read_grey, read_image, read_mask, read_palette, write_mask

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs alarms")]

FILES = 250
"""Damaged files of each kind."""

LIMIT = 10
"""Seconds that reading one of them may take."""

JSON_VALUES = (None, True, 0, -1, 1e308, float("inf"), float("nan"), 10**400, "", "\0", "../x", "\udcff", "x" * 300, [],
               [[]], {}, {"": ""})
"""What is put in the place of a value of a JSON file."""


class TooSlow(BaseException):
    pass


def damage(data, rng):
    """Change bytes: flip, cut, repeat, zero, or insert some."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(data) + 1)
        size = min(len(data) - at, rng.choice((1, 2, 4, 16, 100)))
        kind = rng.choice(("flip", "flip", "cut", "end", "zero", "ones", "insert", "repeat"))
        if kind == "flip" and size:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del data[at:at + size]
        elif kind == "end":
            del data[at:]
        elif kind in ("zero", "ones"):
            data[at:at + size] = (b"\0" if kind == "zero" else b"\xff") * size
        elif kind == "insert":
            data[at:at] = rng.randbytes(size)
        else:
            data[at:at] = data[at:at + size] * rng.choice((1, 50))
    return bytes(data)


def mend_checksums(data):
    """Return a PNG with right checksums, so that its damage is not found by them alone."""
    mended, at = data[:8], 8
    while at + 12 <= len(data):
        size, = struct.unpack_from(">I", data, at)
        if size > len(data):
            break
        chunk = data[at + 4:at + 8 + size]
        mended += struct.pack(">I", size) + chunk + struct.pack(">I", zlib.crc32(chunk))
        at += size + 12
    return mended + data[at:]


def damage_json(content, rng):
    """Change one value somewhere in what JSON holds."""
    if isinstance(content, (dict, list)) and content and rng.random() < 0.8:
        key = rng.choice(sorted(content)) if isinstance(content, dict) else rng.randrange(len(content))
        content = content.copy()
        if rng.random() < 0.1:
            del content[key]
        else:
            content[key] = damage_json(content[key], rng)
        return content
    return rng.choice(JSON_VALUES)


def read_all(readers):
    """Call every function. Returns how many raised an InputError of one line or an error with a file's name."""
    refused = 0
    for reader in readers:
        previous = signal.signal(signal.SIGALRM, raise_too_slow)
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        try:
            reader()
        except InputError as error:
            assert str(error).strip()
            refused += 1
        except OSError as error:
            assert error.filename, error
            refused += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
    return refused


def raise_too_slow(*_):
    raise TooSlow



def test_damaged_masks(tmp_path):
    rng = random.Random(11)
    ids = np.random.default_rng(0).integers(0, 4, (40, 60), np.uint8)
    write_mask(tmp_path / "indexed.png", ids)
    Image.fromarray(ids * 60).save(tmp_path / "grey.png")
    Image.fromarray(ids * 60).save(tmp_path / "grey.jpg")
    Image.fromarray(ids).quantize(4).save(tmp_path / "bits.png", bits=2)
    Image.fromarray(ids.astype(np.uint16)).save(tmp_path / "deep.png")
    originals = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    path, count = tmp_path / "damaged.png", collections.Counter()
    for number in range(FILES):
        data = damage(rng.choice(originals), rng)
        path.write_bytes(mend_checksums(data) if number % 2 else data)
        count["refused"] += read_all([lambda read=read: read(path) for read in (
            read_mask, read_ids, read_grey, read_palette, read_image, image_size)])
    assert FILES < count["refused"] < 6 * FILES


def test_scoring_reads_a_damaged_mask_as_tracking_does(tmp_path):
    rng = random.Random(12)
    ids = np.random.default_rng(0).integers(0, 4, (40, 60), np.uint8)
    write_mask(tmp_path / "a.png", ids)
    original, path = (tmp_path / "a.png").read_bytes(), tmp_path / "b.png"
    for _ in range(FILES):
        path.write_bytes(mend_checksums(damage(original, rng)))
        try:
            expected = read_mask(path)
        except InputError:
            continue
        try:
            found = read_ids(path)
        except InputError:
            # It is stricter where the file goes on after its pixels.
            continue
        assert (found == expected).all()


@pytest.fixture
def evaluation(tmp_path, clip):
    """(videos, Results, how they are finished) of a small dataset."""
    davis = EVALUATION_SETS["generic"]
    videos = davis.find(training_tree(tmp_path / "G", clip, ("ant",), length=3), "val")
    results = Results(tmp_path / "out", davis, {"mode": "stm"})
    results.begin(videos[0])
    for name in ("00000", "00001"):
        results.write_frame(videos[0], name, np.ones((72, 100), np.uint8), np.zeros((256, 3), np.uint8))
    results.finish(videos[0], ["00000.png", "00001.png"], seconds=1.0)
    return videos, results


def test_damaged_records(tmp_path, evaluation):
    rng = random.Random(13)
    (video,), results = evaluation
    path = tmp_path / "out" / ".evaluation" / "ant.json"
    original, finished = path.read_bytes(), 0
    assert results.read_finished(video)
    (tmp_path / "mine.png").write_text("of the user")
    for number in range(FILES):
        changed = json.dumps(damage_json(json.loads(original), rng)).encode()
        path.write_bytes(changed if number % 2 else damage(original, rng))

        def go_on():
            nonlocal finished
            finished += results.read_finished(video) is not None
            results.prepare([video], overwrite=True)

        read_all([go_on])
        # A record names files in its own folders, and nothing else is removed.
        assert (tmp_path / "mine.png").exists() and (tmp_path / "G" / "Annotations" / "ant" / "00000.png").exists()
        (tmp_path / "out" / "ant").mkdir(exist_ok=True)
        for name in ("00000", "00001"):
            results.write_frame(video, name, np.ones((72, 100), np.uint8), np.zeros((256, 3), np.uint8))
    assert 0 < finished < FILES


def test_damaged_descriptions_of_videos(tmp_path):
    rng = random.Random(14)
    content = {"videos": {name: {"objects": {"1": {"category": "x", "frames": ["00000", "00005"]},
                                             "2": {"category": "y", "frames": ["00005"]}}} for name in ("a", "b")}}
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "Annotations").mkdir()
    path, refused = tmp_path / "meta.json", 0
    for number in range(FILES):
        changed = json.dumps(damage_json(content, rng)).encode()
        path.write_bytes(changed if number % 2 else damage(json.dumps(content).encode(), rng))
        refused += read_all([lambda: read_meta(path), lambda: EVALUATION_SETS["youtube"].find(tmp_path, "valid")])
    path.write_text("[" * 100000)
    assert read_all([lambda: read_meta(path)]) == 1 and refused > FILES


def test_damaged_lists(tmp_path):
    rng = random.Random(15)
    home = tmp_path / "trainval"
    for folder in ("JPEGImages/480p", "Annotations/480p", "ImageSets/2017"):
        (home / folder).mkdir(parents=True)
    path = home / "ImageSets" / "2017" / "val.txt"
    original = b"bear\ncamel\n/JPEGImages/480p/dog/00000.jpg /Annotations/480p/dog/00000.png\n"
    for _ in range(FILES):
        path.write_bytes(damage(original, rng))
        read_all([lambda: read_names(path), lambda: EVALUATION_SETS["davis17"].find(tmp_path, "val")])


def test_damaged_manifests_of_a_video(tmp_path):
    rng = random.Random(16)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "00000.png").write_text("a mask")
    contents = {"summary.json": {"written_by": "track.py", "frames": [{"name": "00000"}]},
                MANIFEST: {"written_by": "track.py", "video": {"files": ["a.mp4"]}}}
    for number in range(FILES):
        for name, content in contents.items():
            whole = json.dumps(content).encode()
            changed = json.dumps(damage_json(content, rng)).encode()
            (tmp_path / name).write_bytes(changed if number % 2 else damage(whole, rng))
        read_all([lambda: find_earlier_results(tmp_path, {"files": ["a.mp4"]})])


def test_damaged_archives(tmp_path, evaluation):
    rng = random.Random(17)
    videos, results = evaluation
    results.write_archive({"ant": results.read_finished(videos[0])})
    original, path = (tmp_path / "out.zip").read_bytes(), tmp_path / "damaged.zip"
    for _ in range(FILES):
        path.write_bytes(damage(original, rng))
        read_all([lambda: check_results(EVALUATION_SETS["generic"], videos, open_results(path))])
