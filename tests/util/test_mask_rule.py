"""What mask pictures of all kinds mean, through the function that every reader uses."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from evaluation.decoding import read_ids
from util.errors import InputError
from util.image_io import davis_palette, open_mask, read_grey, read_palette, write_mask
from util.mask_rule import VOID, interpret_mask
from util.notices import list_notices

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

ONE = np.zeros((48, 64), np.uint8)
"""One object."""
ONE[10:30, 15:40] = 1

TWO = ONE.copy()
"""Two objects."""
TWO[10:30, 45:60] = 2


def paint(ids, colours):
    """A picture of ids with one colour for each."""
    return Image.fromarray(np.array(colours, np.uint8)[ids])


def saved(image, kind="PNG", **options):
    """The picture as it is after saving and opening."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


def blurred(image):
    return image.filter(ImageFilter.GaussianBlur(2))


GREY = Image.fromarray(ONE * np.uint8(255))
PHOTOGRAPH = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
CUT_OUT = Image.fromarray(np.dstack([PHOTOGRAPH, ONE * np.uint8(255)]))
SOFT = "cut at half"
ADAPTIVE = "the palette's colour 0 is not the background"


def indexed(ids, colours):
    image = Image.fromarray(ids)
    image.putpalette(np.array(colours, np.uint8).tobytes())
    return image


ONE_OBJECT = {
    "black and white": (GREY, ""),
    "one bit": (GREY.convert("1"), ""),
    "16 bits": (Image.fromarray(ONE.astype(np.uint16) * 65535), ""),
    "16 bits, soft": (Image.fromarray(np.asarray(blurred(GREY)).astype(np.uint16) * 257), SOFT),
    "16 bits, soft, odd": (Image.fromarray(np.asarray(blurred(GREY)).astype(np.uint16) * 251 + 3), SOFT),
    "soft": (blurred(GREY), SOFT),
    "soft, indexed": (blurred(GREY).convert("P"), SOFT),
    "soft, three levels": (Image.fromarray((ONE * 255 + np.roll(ONE, 1, 1) * 127).clip(0, 255).astype(np.uint8) // 2
                                           + ONE * np.uint8(127)), SOFT),
    "JPEG": (saved(GREY, "JPEG"), SOFT),
    "JPEG in colours": (saved(GREY.convert("RGB"), "JPEG", quality=60), SOFT),
    "JPEG noise": (saved(saved(GREY, "JPEG", quality=60)), SOFT),
    "RGB": (GREY.convert("RGB"), ""),
    "RGB, soft": (blurred(GREY.convert("RGB")), SOFT),
    "RGBA": (GREY.convert("RGBA"), ""),
    "a colour": (paint(ONE, [BLACK, (250, 40, 30)]), "#fa281e is object 1"),
    "a colour on white": (paint(ONE, [WHITE, (250, 40, 30)]), "#ffffff, is taken as background"),
    "cut-out of a photograph": (CUT_OUT, "what is opaque"),
    "cut-out, soft": (Image.fromarray(np.dstack([PHOTOGRAPH, np.asarray(blurred(GREY))])), "what is opaque"),
    "cut-out of flat colours, soft": (Image.fromarray(np.dstack(
        [paint(ONE, [(90, 120, 90), (200, 40, 40)]), np.asarray(blurred(GREY))])), "#c82828 is object 1"),
    "cut-out with a palette": (saved(indexed(np.array([0, 1, 2], np.uint8)[ONE + np.roll(ONE, 1, 1) * ONE],
                                             [(1, 2, 3), (9, 9, 90), (90, 9, 9)]), transparency=bytes([0, 200, 255])),
                               "what is opaque"),
    "white on nothing": (Image.merge("LA", (Image.new("L", GREY.size, 255), GREY)), ""),
    "black on nothing": (Image.merge("RGBA", (*[Image.new("L", GREY.size)] * 3, GREY)), ""),
    "red brush on nothing": (Image.merge("RGBA", (*Image.new("RGB", GREY.size, (255, 0, 0)).split(), GREY)),
                             "#ff0000 is object 1"),
    "adaptive, black and white": (indexed(1 - ONE, [WHITE, BLACK]), ADAPTIVE),
    "adaptive, colour": (indexed(1 - ONE, [(128, 0, 0), BLACK]), ADAPTIVE),
    "adaptive, no black": (indexed(1 - ONE, [(200, 0, 0), (9, 9, 90)]), ADAPTIVE),
    "adaptive, 0 not used": (indexed(2 - ONE, [(7, 7, 7), (128, 0, 0), BLACK]), ADAPTIVE),
    "index 1 transparent": (saved(indexed(1 - ONE, [(200, 0, 0), (9, 9, 90)]), transparency=1), ADAPTIVE),
    "of Pillow's web palette": (saved(paint(ONE, [BLACK, (128, 0, 0)]).convert("P", dither=0)), ""),
}


@pytest.mark.parametrize("kind", ONE_OBJECT)
def test_pictures_of_one_object(kind):
    image, notice = ONE_OBJECT[kind]
    mask = interpret_mask(image, "mask.png", {})
    wrong = np.count_nonzero((mask.ids > 0) != (ONE > 0))
    # Blurring rounds the corners off.
    assert wrong <= (16 if "soft" in kind or "JPEG" in kind else 0)
    assert mask.ids.dtype == np.uint8 and len(np.unique(mask.ids)) == 2
    if kind != "of Pillow's web palette":
        assert mask.ids.max() == 1
    assert any(notice in text for text in mask.notices) if notice else mask.notices == ()


@pytest.mark.parametrize("image, expected", [
    (paint(TWO, davis_palette()), TWO),
    (paint(TWO * 3, davis_palette()), TWO * 3),
    (paint(TWO, [BLACK, (255, 0, 0), (0, 255, 0)]), TWO),
    (paint(TWO, [BLACK, (0, 255, 0), (255, 0, 0)]), np.array([0, 2, 1], np.uint8)[TWO]),
    (paint(TWO, [BLACK, (0, 128, 0), (255, 0, 0)]), np.array([0, 2, 1], np.uint8)[TWO]),
    (paint(TWO, [(0, 0, 0, 0), (128, 0, 0, 255), (0, 128, 0, 255)]), TWO),
    (indexed(TWO, davis_palette()), TWO),
    (indexed(TWO * np.uint8(127), davis_palette()), TWO * np.uint8(127)),
    (indexed(TWO, [WHITE, (255, 0, 0), (0, 255, 0)]), TWO),
    (saved(indexed(TWO, [BLACK, (1, 2, 3), (7, 2, 9)]), transparency=0), TWO),
    (Image.fromarray(TWO), TWO),
    (Image.fromarray(TWO * np.uint8(60)), TWO * np.uint8(60)),
    (Image.fromarray(TWO * np.uint8(75)), TWO * np.uint8(75)),
    (Image.fromarray(TWO * np.uint8(127)), TWO * np.uint8(127)),
    (Image.fromarray(ONE * np.uint8(200)), ONE * np.uint8(200)),
    (Image.fromarray(TWO.astype(np.uint16)), TWO),
    (indexed(TWO, [[i, i, i] for i in range(256)]), TWO),
])
def test_pictures_of_several_objects(image, expected):
    mask = interpret_mask(image, "mask.png", {})
    np.testing.assert_array_equal(mask.ids, expected)
    assert mask.numbered


def test_ids_with_do_not_care_stay_as_they_are():
    """Grey ids beside 255 are no soft edges; neither is 255 alone in an indexed mask an object of id 1."""
    void = TWO.copy()
    void[40:] = VOID
    assert (interpret_mask(Image.fromarray(void), "m").ids == void).all()
    assert (interpret_mask(indexed(void, davis_palette()), "m").ids == void).all()
    assert (interpret_mask(indexed(void * (void == VOID), davis_palette()), "m").ids == void * (void == VOID)).all()


@pytest.mark.parametrize("image, message", [
    (blurred(Image.fromarray(ONE * np.uint8(100))), "under 20 pixels, .* without any solid area: soft edges"),
    (blurred(Image.fromarray(ONE * np.uint8(100))).resize((1280, 960)), "without any solid area: soft edges"),
    (blurred(paint(TWO, [BLACK, (255, 0, 0), (0, 255, 0)])), "colours; a mask has one flat colour"),
    (paint(TWO, [BLACK, (255, 0, 0), (0, 255, 0)]).resize((60, 45), Image.Resampling.BILINEAR), "colours"),
    (Image.fromarray(PHOTOGRAPH), "one flat colour"),
    (saved(paint(TWO, davis_palette()), "JPEG"), "JPEG has changed"),
    (saved(Image.fromarray(TWO * np.uint8(20)), "JPEG", quality=60), "JPEG changes object ids"),
    (Image.fromarray(ONE.astype(np.float32)), "fractions"),
    (Image.fromarray(ONE.astype(np.uint16) * 1001), "object id 1001, ids go from 1 to 255"),
    (Image.fromarray(ONE.astype(np.int32) * -1), "object id -1"),
])
def test_what_is_no_mask_is_refused_with_the_cure(image, message):
    with pytest.raises(InputError, match=f"mask.png: .*{message}"):
        interpret_mask(image, "mask.png", {})


def test_colours_keep_their_ids_throughout_a_video(tmp_path):
    red, green, colours = (255, 0, 0), (0, 255, 0), {}
    assert interpret_mask(paint(ONE, [BLACK, green]), "a", colours).ids.max() == 1
    assert set(np.unique(interpret_mask(paint(TWO, [BLACK, red, green]), "b", colours).ids)) == {0, 1, 2}
    assert interpret_mask(paint(ONE, [BLACK, red]), "c", colours).ids.max() == 2
    # A picture alone cannot tell, unless its colours are those of DAVIS.
    with pytest.raises(InputError, match="not known which ids"):
        interpret_mask(paint(TWO, [BLACK, red, green]), "d")


@pytest.mark.parametrize("ids, notice", [
    (1 - ONE, "object 1 takes most of the border"),
    (2 - ONE, "no pixel is 0, the background; is 2 the background"),
    (ONE, None),
])
def test_a_background_that_is_no_background_is_said(ids, notice):
    for image in (Image.fromarray(ids), indexed(ids, davis_palette())):
        assert [notice in text for text in interpret_mask(image, "m").notices] == ([True] if notice else [])


def test_palette_for_masks_need_not_begin_with_black():
    """It has colours that the picture does not use. A palette of the picture's own colours has them in any order."""
    colours = [WHITE, (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    mask = interpret_mask(indexed(2 - ONE, colours), "m")
    assert (mask.ids == 2 - ONE).all() and "no pixel is 0" in mask.notices[0]
    mask = interpret_mask(indexed(1 - ONE, colours), "m")
    assert (mask.ids == 1 - ONE).all() and "object 1 takes most of the border" in mask.notices[0]


def test_few_ids_without_a_solid_area_are_said():
    lines = ONE.copy()
    lines[9, 15:40], lines[30, 15:40] = 2, 3
    assert any("2 without any solid area: soft edges?" in text
               for text in interpret_mask(Image.fromarray(lines * np.uint8(30)), "m").notices)


def test_the_fast_reader_of_scoring_follows_the_rule(tmp_path):
    path = tmp_path / "mask.png"
    for kind, (image, _) in ONE_OBJECT.items():
        image.save(path)
        np.testing.assert_array_equal(read_ids(path), open_mask(path).ids, err_msg=kind)


def test_palette_of_a_mask_whose_numbers_do_not_count_is_davis_s(tmp_path):
    indexed(1 - ONE, [(200, 0, 0), BLACK]).save(tmp_path / "adaptive.png")
    assert (read_palette(tmp_path / "adaptive.png") == davis_palette()).all()
    indexed(ONE, [BLACK, (200, 0, 0)]).save(tmp_path / "own.png")
    assert read_palette(tmp_path / "own.png")[1].tolist() == [200, 0, 0]


def test_masks_of_single_images_may_have_any_colours(tmp_path):
    """A dark colour counts as much as a bright one, and 255 among ids means \"do not care\"."""
    paint(TWO, [BLACK, (90, 0, 0), (255, 255, 0)]).save(tmp_path / "colours.png")
    assert (read_grey(tmp_path / "colours.png") == (TWO > 0) * np.uint8(255)).all()
    CUT_OUT.save(tmp_path / "alpha.png")
    assert (read_grey(tmp_path / "alpha.png") == ONE * np.uint8(255)).all()
    write_mask(tmp_path / "void.png", np.where(TWO == 2, VOID, TWO).astype(np.uint8))
    assert (read_grey(tmp_path / "void.png") == ONE * np.uint8(255)).all()
    blurred(GREY).save(tmp_path / "soft.png")
    assert (read_grey(tmp_path / "soft.png") == np.asarray(blurred(GREY))).all()


def test_notices_are_said_once():
    assert list_notices([("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")]) == ["a and 1 more: x", "a: y"]
