import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import make_pack
from dataset import scenes as scenes_module
from dataset.pack import CUT_OUT, EVERY_ID, IN_PLACE, read_pack, write_pack
from dataset.scene_catalogue import KINDS
from dataset.scenes import SceneMaker
from dataset.training_sets import find_pairs, find_videos
from tests.trees import photograph
from util.errors import InputError, run_script
from util.image_io import read_mask, write_mask

SIZE = 64
SHAPES = {"rgb": (5, 3, SIZE, SIZE), "gt": (5, 1, SIZE, SIZE), "sec_gt": (5, 1, SIZE, SIZE), "cls_gt": (5, SIZE, SIZE),
          "pgt": (1, 1, SIZE, SIZE), "sec_pgt": (1, 1, SIZE, SIZE), "selector": (2,)}
COLOURS = {1: (250, 20, 20), 2: (20, 20, 250)}
"""The objects' colours in the pictures; nothing else has them."""


def draw(image, ids, object_id, centre, radius):
    cv2.circle(image, centre, radius, COLOURS[object_id], -1)
    cv2.circle(ids, centre, radius, object_id, -1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three images with two plain discs on grey and an ignored corner, and a video of a disc that moves."""
    root = tmp_path_factory.mktemp("data")
    for folder in ("park", "park_instances", "JPEGImages/ball", "Annotations/ball"):
        (root / folder).mkdir(parents=True)
    for number in range(3):
        image, ids = np.full((120, 160, 3), 100 + 20 * number, np.uint8), np.zeros((120, 160), np.uint8)
        draw(image, ids, 1, (50, 50), 20)
        draw(image, ids, 2, (110, 70), 24)
        ids[90:, :60] = 255
        Image.fromarray(image).save(root / "park" / f"{number}.jpg", quality=98, subsampling=0)
        write_mask(root / "park_instances" / f"{number}.png", ids)
    for time in range(7):
        image, ids = np.full((120, 160, 3), 120, np.uint8), np.zeros((120, 160), np.uint8)
        draw(image, ids, 1, (45 + 8 * time, 60), 22)
        Image.fromarray(image).save(root / "JPEGImages/ball" / f"{time:05d}.jpg", quality=98, subsampling=0)
        write_mask(root / "Annotations/ball" / f"{time:05d}.png", ids)
    return root


@pytest.fixture(scope="module")
def pack(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack") / "pack"
    write_pack(folder, find_pairs(root / "park", instances=True), find_videos(root))
    return read_pack(folder)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_pack_keeps_pictures_and_exact_masks(root, pack):
    assert pack.names == ("ball",) and pack.videos.tolist() == [[0, 7]]
    assert pack.sizes.tolist() == [[120, 160]] * 10
    for picture, name in ((3, "Annotations/ball/00003"), (8, "park_instances/1")):
        pixels = pack.pixels[pack.offsets[picture]:][:120 * 160].view(120, 160, 4).numpy()
        assert np.array_equal(pixels[..., 3], read_mask(root / f"{name}.png"))
        image = np.asarray(Image.open(root / f"{name.replace('Annotations', 'JPEGImages').split('_')[0]}"
                                      f"{'/1' if picture == 8 else ''}.jpg"))
        assert np.abs(pixels[..., :3].astype(int) - image).mean() < 6


def test_masks_in_colours_are_packed_as_they_are_trained_on(tmp_path):
    """A colour is one object all through a video."""
    for folder in ("JPEGImages/ball", "Annotations/ball"):
        (tmp_path / folder).mkdir(parents=True)
    for time in range(8):
        image, ids = np.full((120, 160, 3), 120, np.uint8), np.zeros((120, 160), np.uint8)
        for object_id in (2, 1) if time else (1,):
            draw(image, ids, object_id, (40 + 60 * object_id - 6 * time, 60), 20)
        Image.fromarray(image).save(tmp_path / "JPEGImages/ball" / f"{time:05d}.jpg")
        colours = np.array([[0, 0, 0], [20, 30, 40], [210, 220, 230]], np.uint8)[ids]
        Image.fromarray(colours).save(tmp_path / "Annotations/ball" / f"{time:05d}.png")
    write_pack(tmp_path / "pack", [], find_videos(tmp_path))
    pack = read_pack(tmp_path / "pack")
    for time, mask in enumerate(pack.pixels.view(8, 120, 160, 4)[..., 3]):
        assert mask[60, 100 - 6 * time] == 1 and mask[60, 155 - 6 * time] == (2 if time else 0)


def test_pack_knows_objects(pack):
    image = pack.objects[pack.objects[:, 0] == 7]
    assert image[:, 1:3].tolist() == [[1, 1], [2, 2]]
    assert image[0, 3:7].tolist() == [30, 30, 41, 41] and (image[:, 8] == CUT_OUT + IN_PLACE).all()
    assert np.abs(pack.object_tones[pack.objects[:, 0] == 7][0] - COLOURS[1]).max() < 25


def test_parts_of_one_thing_are_one_object(tmp_path):
    """Clothes of a person are objects, and the whole person can be cut out, too."""
    ids = np.zeros((100, 100), np.uint8)
    ids[20:40, 30:70], ids[40:60, 30:70], ids[60:80, 30:70] = 1, 2, 3
    for folder in ("a", "a_instances"):
        (tmp_path / folder).mkdir()
    Image.fromarray(photograph(1, (100, 100))).save(tmp_path / "a/1.jpg")
    write_mask(tmp_path / "a_instances/1.png", ids)
    write_pack(tmp_path / "pack", find_pairs(tmp_path / "a", instances=True), [])
    objects = read_pack(tmp_path / "pack").objects
    assert EVERY_ID in [tuple(row[1:3]) for row in objects if row[8] == CUT_OUT]


def test_large_pictures_are_reduced(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(photograph(1, (400, 1000))).save(tmp_path / "a/1.jpg")
    write_mask(tmp_path / "a/1.png", np.pad(np.ones((100, 300), np.uint8), ((100, 200), (100, 600))))
    write_pack(tmp_path / "pack", find_pairs(tmp_path / "a"), [])
    assert read_pack(tmp_path / "pack").sizes.tolist() == [[230, 576]]


@pytest.mark.parametrize("kind", KINDS)
def test_same_number_gives_the_same_sample_in_any_batch(pack, kind, monkeypatch):
    maker = SceneMaker(pack, size=SIZE, kinds={kind: 1}, seed=3)
    monkeypatch.setattr(maker, "_together", 64)
    whole = maker.make(range(10, 16))
    assert {name: tuple(value.shape[1:]) for name, value in whole.items()} == SHAPES
    assert all(value.dtype == (torch.float32 if name == "selector" else torch.uint8) for name, value in whole.items())
    for numbers in ([12], [15, 11, 12, 10]):
        part = maker.make(numbers)
        assert equal(part, {name: value[[number - 10 for number in numbers]] for name, value in whole.items()})
    assert not equal(whole, maker.make(range(16, 22)))
    assert not equal(whole, SceneMaker(pack, size=SIZE, kinds={kind: 1}, seed=4).make(range(10, 16)))


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_consistent_and_first_frames_show_an_object(pack, kind):
    batch = SceneMaker(pack, size=SIZE, kinds={kind: 1}).make(range(24))
    classes = batch["cls_gt"]
    assert torch.equal(batch["gt"][:, :, 0], (classes == 1).byte())
    assert torch.equal(batch["sec_gt"][:, :, 0], (classes == 2).byte())
    assert set(classes.unique().tolist()) <= {0, 1, 2, 255}
    shown = batch["gt"][:, 0].sum((1, 2, 3)) > 0
    assert shown.float().mean() > 0.9
    second = batch["sec_gt"][:, 0].sum((1, 2, 3)) > 0
    assert torch.equal(second, batch["selector"][:, 1] == 1) and (batch["selector"][:, 0] == 1).all()
    assert second.float().mean() > 0.2 or kind == "clip"


def test_pixels_to_ignore_are_carried(pack):
    classes = SceneMaker(pack, size=SIZE, kinds={"place": 1}).make(range(12))["cls_gt"]
    assert (classes == 255).any()
    assert not (SceneMaker(pack, size=SIZE, kinds={"clip": 1}).make(range(3))["cls_gt"][:, 0] == 255).all()


@pytest.fixture
def plain(monkeypatch):
    """Without changes of colour, light, blur and noise, so that colours tell what each pixel is."""
    def unchanged(draws, mean, strength, turn, grey, shape=()):
        return np.broadcast_to(np.eye(3, 4), (len(mean), *shape, 3, 4)).copy()

    plans = scenes_module.draw_plan

    def calm(*arguments):
        plan = plans(*arguments)
        colours = np.tile(np.eye(3, 4).ravel(), (len(plan["colours"]), 1))
        return plan | {"gains": 1 + 0 * plan["gains"], "noise": 0 * plan["noise"], "blurred": plan["blurred"] & False,
                       "streaks": 0 * plan["streaks"], "colours": colours,
                       "film": np.broadcast_to(np.eye(3, 4).ravel(), plan["film"].shape)}

    monkeypatch.setattr("dataset.scene_assembly.recolourings", unchanged)
    monkeypatch.setattr(scenes_module, "draw_plan", calm)


@pytest.mark.parametrize("kind", ["clip", "place", "alike"])
def test_masks_lie_on_what_they_name(pack, kind, plain):
    """Every object is a plain disc: seen over all samples, its mask is where its colour is, to less than a pixel."""
    batch = SceneMaker(pack, size=128, kinds={kind: 1}).make(range(16))
    rgb = batch["rgb"].int()
    coloured = (rgb.amax(2) - rgb.amin(2)) > 110
    found = 0
    for key in ("gt", "sec_gt"):
        for mask, colour in zip(batch[key][:, :, 0].flatten(0, 1), coloured.flatten(0, 1), strict=True):
            if mask.sum() < 60:
                continue
            found += 1
            mask, colour = mask.numpy(), colour.byte().numpy()
            core = cv2.erode(mask, np.ones((5, 5), np.uint8))
            assert colour[core > 0].mean() > 0.97 if core.any() else True
    assert found > 20


def test_look_alikes_keep_their_identities(pack, plain):
    """Two copies cross. Each one's mask moves on a smooth path and does not jump to the other."""
    batch = SceneMaker(pack, size=SIZE, kinds={"alike": 1}, shots=9).make(range(40))
    axis = torch.arange(SIZE).float()
    jumps, crossings = [], 0
    for first, second, both in zip(batch["gt"][:, :, 0].float(), batch["sec_gt"][:, :, 0].float(), batch["selector"],
                                   strict=True):
        if both[1] != 1:
            continue
        centres = []
        for masks in (first, second):
            size = masks.sum((1, 2))
            whole = size > 0.6 * size[0]
            centre = torch.stack([(masks.sum(1) * axis).sum(1), (masks.sum(2) * axis).sum(1)], 1) / size[:, None]
            centres.append(torch.where(whole[:, None], centre, torch.nan))
        apart = centres[0] - centres[1]
        apart = apart[~apart.isnan().any(1)]
        if len(apart) > 2:
            crossings += int((apart[0] @ apart[-1]) < 0)
            jumps.append((apart[1:] - apart[:-1]).norm(dim=1).max().item())
    assert crossings >= 3, "no two followed look-alikes pass one another"
    assert np.median(jumps) < SIZE / 4


def test_damaged_masks_keep_their_targets(pack):
    """The IoU with the true mask is within the range, empty masks stay empty, and without `perturb` nothing changes."""
    batch = SceneMaker(pack, size=128, perturb=(0.8, 0.9)).make(range(16))
    overlaps = []
    for damaged, true in ((batch["pgt"][:, 0], batch["gt"][:, 0]), (batch["sec_pgt"][:, 0], batch["sec_gt"][:, 0])):
        common, either = (damaged & true).sum((1, 2, 3)), (damaged | true).sum((1, 2, 3))
        overlaps += [(a / b).item() for a, b in zip(common, either, strict=True) if b > 200]
        assert (damaged.sum((1, 2, 3))[true.sum((1, 2, 3)) == 0] == 0).all()
    assert min(overlaps) > 0.75 and np.mean(np.array(overlaps) < 0.97) > 0.5
    clean = SceneMaker(pack, size=SIZE, perturb=None).make(range(4))
    assert torch.equal(clean["pgt"], clean["gt"][:, :1]) and torch.equal(clean["sec_pgt"], clean["sec_gt"][:, :1])


def test_long_samples(pack):
    assert SceneMaker(pack, size=SIZE, shots=7).make([5])["rgb"].shape == (1, 7, 3, SIZE, SIZE)


@pytest.mark.parametrize("kind", ["place", "pasted"])
def test_objects_stay_in_sight_in_long_samples(pack, kind):
    """Whether they move, or the camera, they mostly turn back, so that there is something to learn in every frame."""
    batch = SceneMaker(pack, size=SIZE, shots=25, kinds={kind: 1}).make(range(40))
    assert (batch["gt"][:, 12:].sum((2, 3, 4)) > 0).float().mean() > 0.85


def test_packs_of_images_or_of_videos_alone_serve(root, tmp_path):
    write_pack(tmp_path / "images", find_pairs(root / "park", instances=True), [])
    write_pack(tmp_path / "videos", [], find_videos(root))
    for name in ("images", "videos"):
        batch = SceneMaker(read_pack(tmp_path / name), size=SIZE).make(range(8))
        assert (batch["gt"][:, 0].sum((1, 2, 3)) > 0).float().mean() > 0.8
    with pytest.raises(InputError, match="kind place"):
        SceneMaker(read_pack(tmp_path / "videos"), kinds={"place": 1})
    with pytest.raises(InputError, match=r"kind clip.*frames"):
        SceneMaker(read_pack(tmp_path / "videos"), shots=8, kinds={"clip": 1})


@pytest.mark.parametrize("options, expected", [({"kinds": {"cilp": 1}}, "cilp"), ({"kinds": {"clip": 0}}, "none"),
                                               ({"size": 100}, "multiple of 8")])
def test_settings_that_cannot_be_met_are_refused(pack, options, expected):
    with pytest.raises(InputError, match=expected):
        SceneMaker(pack, **options)


def test_damaged_packs_are_named(root, tmp_path):
    with pytest.raises(InputError, match=r"index.npz: no such file"):
        read_pack(tmp_path)
    write_pack(tmp_path, find_pairs(root / "park", instances=True), [])
    part = tmp_path / "data-00.bin"
    data = part.read_bytes()
    part.write_bytes(data[:-5] + b"wrong")
    with pytest.raises(InputError, match=r"data-00.bin: damaged"):
        read_pack(tmp_path)
    part.unlink()
    with pytest.raises(InputError, match=r"data-00.bin: this part of the pack is missing"):
        read_pack(tmp_path)
    (tmp_path / "index.npz").write_bytes(b"not an archive")
    with pytest.raises(InputError, match=r"index.npz: not the index"):
        read_pack(tmp_path)


def test_script(root, tmp_path, capsys):
    parser, main = make_pack.get_args_parser(), make_pack.main
    arguments = ["--static-root", str(root / "park"), "--output", str(tmp_path / "pack")]
    assert run_script(parser, main, [*arguments, "--video-root", str(root)]) == 0
    assert "3 images and 1 videos with 7 frames, 13 usable objects" in capsys.readouterr().out
    names = tmp_path / "names.txt"
    names.write_text("ball")
    for wrong, message in (([], "nothing to pack"), (["--static-root", "x", "--exclude", str(names)], "--exclude"),
                           (["--video-root", str(root), "--exclude", str(names)], "every video"),
                           (["--static-root", str(tmp_path / "none")], "no image")):
        assert run_script(parser, main, [*wrong, "--output", str(tmp_path / "other")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
