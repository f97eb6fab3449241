"""What a mask picture means: the one rule by which tracking, evaluation, scoring and training read masks.

Masks of object ids, indexed or grey, mean what they say. Whatever else people draw is either turned into ids, with a
notice that says how, or refused with a way to mend it:

    grey, 0 and 255                        one object
    grey, other levels above 127           one object, cut at half (soft edges, JPEG noise), unless each level has
                                           a solid area: then they are ids
    grey, up to 127, many levels           refused, since soft edges would be objects
    colours, few and flat                  an object for each; DAVIS's colours have their own ids
    colours, all of them greys             as grey
    partly transparent                     what is opaque is one object, or one for each of few flat colours
    indexed, but 0 is not the background   by the palette's colours
    JPEG                                   one object, cut at half, or refused, since JPEG changes ids
"""

from typing import NamedTuple

import numpy as np

from util.errors import InputError

VOID = 255
"""The value that means "do not care" in a mask of ids."""

MANY_IDS = 12
"""A mask with more objects than this is refused if most of them have no solid area."""

MANY_COLOURS = 20
"""A picture with more colours than this is not a mask of flat colours."""

SMALL_IDS = 32
"""Beside 255, a grey mask of ids holds no value from here on; otherwise its levels count as soft edges."""

GREY_SPREAD = 24
"""A pixel is grey if its red, green and blue differ by no more than this, which JPEG stays below."""

CURE = "save it as an indexed PNG with hard edges, or as black and white"
"""What to do with a picture that is no mask."""


class Mask(NamedTuple):
    """A mask picture as it was understood."""

    ids: np.ndarray
    """Object ids uint8 H×W, 0 for background."""

    notices: tuple = ()
    """Sentences about what is probably not what was meant."""

    numbered: bool = True
    """Whether the picture itself says which ids its objects have. If not, it shows one object, which has id 1."""

    levels: np.ndarray | None = None
    """Of a grey mask that was cut at half: its levels before, uint8 H×W."""

    indexed_or_grey: bool = True
    """Whether it came from a file of one number a pixel. Official tools read no others."""


def davis_palette():
    """The colours of DAVIS and PASCAL VOC for ids 0 to 255: uint8 256×3.

    Bit b of an id's red, green and blue part is bit 3·(7 - b), +1, +2 of the id.
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for channel in range(3):
        for bit in range(8):
            palette[:, channel] |= ((ids >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def _pack(rgb):
    """Return colours uint8 …×3 as numbers of 24 bits, uint32 …."""
    return rgb[..., 0].astype(np.uint32) << 16 | rgb[..., 1].astype(np.uint32) << 8 | rgb[..., 2]


DAVIS_COLOURS = davis_palette().tobytes()
"""The colours of DAVIS as a file's palette."""

DAVIS_IDS = {int(code): number for number, code in enumerate(_pack(davis_palette()))}
"""{24-bit RGB: object id} of DAVIS's colours, black included. Some tools write 191 where others write 192."""
DAVIS_IDS |= {int(code): number for number, code in enumerate(_pack(np.where(davis_palette() == 192, 191,
                                                                            davis_palette())))}


def interpret_mask(image, title, colours=None):
    """Return the Mask that a PIL image shows.

    title: the file's name in messages. colours: {24-bit RGB: object id} of the masks of this video so far; new colours
    are added. Without it, several colours that DAVIS does not have are refused: a single picture cannot tell which ids
    they have in others.

    Raises InputError for a picture that cannot be a mask, and what PIL raises for a damaged file.
    """
    mode, lossy = image.mode, image.format in ("JPEG", "MPO", "JPEG2000")
    if mode == "P":
        transparent = image.info.get("transparency", b"")
        if isinstance(transparent, int):
            transparent = b"\xff" * transparent + b"\0"
        palette = bytes(image.getpalette("RGB") or b"")
        mask = interpret_indexed(np.array(image), palette, transparent, title, colours)
    elif mode in ("1", "L"):
        mask = interpret_grey(np.array(image).astype(np.uint8), title, lossy=lossy)
        mask = mask._replace(numbered=mask.numbered and mode != "1")
    elif mode.startswith("I"):
        mask = _interpret_deep(np.array(image), title)
    elif mode == "F":
        raise InputError(f"{title}: values with fractions, a mask of object ids was expected; {CURE}")
    elif mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        mask = _interpret_transparent(np.array(image.convert("RGBA")), title, colours)
    else:
        mask = _interpret_colours(np.array(image.convert("RGB")), title, colours, lossy=lossy)
    return mask._replace(notices=tuple(dict.fromkeys((*mask.notices, *_check_background(mask.ids)))),
                         indexed_or_grey=mode in ("P", "1", "L") or mode.startswith("I"))


def interpret_grey(values, title, lossy=False):
    """Return the Mask of grey levels uint8 H×W. lossy: they went through a JPEG, which changes levels."""
    highest = int(values.max(initial=0))
    if highest <= MANY_IDS and not lossy:
        return Mask(values)
    levels = _find_values(values)
    between = levels[(levels > 0) & (levels < 255)]
    if not len(between):
        return Mask((values > 0).view(np.uint8), numbered=highest == 0)
    if (highest < 128 or (highest == VOID and between[-1] < SMALL_IDS)) and not lossy:
        return Mask(values, _check_solid(values, title))
    if len(levels) <= MANY_IDS and not lossy and _is_solid(values)[levels].all():
        return Mask(values, ("grey levels, each an area of its own, taken as object ids",))
    if highest < 128:
        raise InputError(f"{title}: a JPEG without values above 127; JPEG changes object ids, {CURE}")
    return Mask((values > 127).view(np.uint8), ("grey levels, taken as one object, cut at half; for several objects "
                                                "save an indexed PNG",), numbered=False, levels=values)


def interpret_indexed(ids, palette, transparent, title, colours=None):
    """Return the Mask of an indexed PNG.

    ids: uint8 H×W, the indices. palette: bytes RGBRGB…. transparent: bytes, the opacity of the first colours.
    """
    # Tools differ in later colours of DAVIS's palette. No palette that was made of a picture's colours has the first 8.
    if DAVIS_COLOURS.startswith(palette[:24]):
        return Mask(ids)
    table = np.zeros((256, 3), np.uint8)
    table.reshape(-1)[:len(palette)] = np.frombuffer(palette, np.uint8)
    used = _find_values(ids)
    if (table[used] == used[:, None]).all():
        # A grey image in other clothes: each index is its own level.
        return interpret_grey(ids, title)

    # Is 0 the background? By convention it is black or transparent, or else it takes most of the border.
    opacity = np.full(256, 255)
    opacity[:len(transparent)] = list(transparent)
    ground = ~table.any(1) | (opacity < 128)
    others = used[used > 0]
    is_background = ground[0] and (0 in used or not ground[others].any())
    if (opacity[others] < 255).any():
        is_background = False
    elif not is_background and not ground[others].any():
        # A palette with colours that this picture does not use was made for masks. Only one that was made of this
        # picture's colours has them in any order.
        own = not np.delete(table, used, 0).any()
        is_background = not own or np.count_nonzero(_border(ids)) * 2 < len(_border(ids))
    if is_background:
        notices = [*_check_solid(ids, title), *_check_background(ids)]
        if len(np.unique(table[others], axis=0)) < len(others):
            notices.append("several ids have the same colour")
        return Mask(ids, tuple(notices))

    # No: what the picture shows counts.
    picture = np.concatenate([table, opacity[:, None].astype(np.uint8)], 1)[ids]
    mask = _interpret_transparent(picture, title, colours)
    return mask._replace(notices=("the palette's colour 0 is not the background, so the colours count and not their "
                                  "numbers", *mask.notices))


def refuse_soft_edges(ids, title):
    """Raise InputError if ids uint8 H×W hold many objects of which most have no solid area."""
    if int(ids.max(initial=0)) > MANY_IDS:
        _check_solid(ids, title)


def _interpret_deep(values, title):
    """Return the Mask of grey levels of 16 or 32 bits, H×W."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low >= 0 and high <= 255:
        return interpret_grey(values.astype(np.uint8), title)
    if low >= 0 and high <= 65535:
        if not (values % 257).any():
            # 8 bits, stretched to 16.
            return interpret_grey((values // 257).astype(np.uint8), title)
        if high > 32767 and len(np.unique(values)) > MANY_COLOURS:
            return interpret_grey((values >> 8).astype(np.uint8), title)
    raise InputError(f"{title}: object id {low if low < 0 else high}, ids go from 1 to 255")


def _interpret_transparent(picture, title, colours):
    """Return the Mask of a picture uint8 H×W×4 with opacity."""
    rgb, opaque = picture[..., :3], picture[..., 3] > 127
    if opaque.all() or (not opaque.any() and rgb.any()):
        return _interpret_colours(rgb, title, colours)
    codes = np.where(opaque, _pack(rgb), np.uint32(1 << 24))
    shown, places = np.unique(codes, return_inverse=True)
    if len(shown) <= MANY_COLOURS:
        solid = _is_solid(places.reshape(codes.shape).astype(np.uint8))[:len(shown)]
        if solid[shown < 1 << 24].all() or np.count_nonzero(shown < 1 << 24) == 1:
            return _interpret_colours(rgb, title, colours, opaque=opaque)
    return Mask(opaque.view(np.uint8), ("what is opaque is taken as one object",), numbered=False)


def _interpret_colours(rgb, title, colours, lossy=False, opaque=None):
    """Return the Mask of colours uint8 H×W×3. opaque: bool H×W, where they count; None for everywhere."""
    codes = _pack(rgb)
    shown = np.unique(codes if opaque is None else codes[opaque])
    if len(shown) > MANY_COLOURS or not all(int(code) in DAVIS_IDS for code in shown):
        # If all of it is grey, it is a grey mask.
        spread = rgb.max(-1).astype(int) - rgb.min(-1)
        limit = GREY_SPREAD if lossy or len(shown) > MANY_COLOURS else 0
        if (spread if opaque is None else spread[opaque]).max(initial=0) <= limit:
            if opaque is not None and len(shown) == 1:
                return Mask(opaque.view(np.uint8), numbered=False)
            grey = rgb[..., 1] if opaque is None else rgb[..., 1] * opaque
            return interpret_grey(np.ascontiguousarray(grey), title, lossy)
        if len(shown) > MANY_COLOURS or lossy:
            more = " that JPEG has changed" if lossy else ""
            raise InputError(f"{title}: {len(shown)} colours{more}; a mask has one flat colour for each object: {CURE}")

    # What is the background?
    notices = []
    if opaque is not None:
        if list(shown) == [0]:
            # A black silhouette.
            return Mask(opaque.view(np.uint8), numbered=False)
        codes, shown = np.where(opaque, codes, 0), np.union1d(shown, [0])
    elif 0 not in shown:
        border = np.bincount(np.searchsorted(shown, _border(codes)))
        background = shown[border.argmax()]
        codes = np.where(codes == background, 0, codes)
        shown = np.union1d(shown[shown != background], [0])
        notices.append(f"no black: the colour of most of the border, #{background:06x}, is taken as background")

    # Give each other colour an id. Blends of colours, which soft edges consist of, have no solid area.
    objects = [int(code) for code in shown if code][::-1]
    places = np.searchsorted(shown, codes).astype(np.uint8)
    edges = len(objects) - np.count_nonzero(_is_solid(places)[np.flatnonzero(shown)])
    if edges and len(objects) > 1:
        raise InputError(f"{title}: {len(objects)} colours, {edges} of them without any solid area: soft edges? {CURE}")
    table = {} if colours is None else colours
    foreign = [code for code in objects if code not in DAVIS_IDS and code not in table]
    if colours is None and len(objects) > 1 and foreign:
        raise InputError(f"{title}: several colours that DAVIS's palette does not have, such as #{foreign[0]:06x}: it "
                         f"is not known which ids they have; {CURE}")
    for code in objects:
        if code in DAVIS_IDS and DAVIS_IDS[code] not in table.values():
            table.setdefault(code, DAVIS_IDS[code])
    for code in objects:
        free = next((number for number in range(1, 255) if number not in table.values()), 255)
        table.setdefault(code, free)
    if objects:
        shares = ", ".join(f"#{code:06x} is object {table[code]}" for code in objects)
        notices.append(f"colours: {shares}")
    ids = np.array([table.get(int(code), 0) for code in shown], np.uint8)[places]
    return Mask(ids, tuple(notices), numbered=len(objects) != 1 or objects[0] in DAVIS_IDS or colours is not None)


def _check_solid(ids, title):
    """Return notices about ids that look like soft edges. Raises InputError if there are many of them."""
    found = _find_values(ids)
    found = found[found > 0]
    if len(found) < 3:
        return ()
    edges = len(found) - np.count_nonzero(_is_solid(ids)[found])
    if edges * 2 <= len(found):
        return ()
    small = np.count_nonzero(np.bincount(ids.ravel(), minlength=256)[found] < 20)
    text = f"{len(found)} ids, {small} of them under 20 pixels, {edges} without any solid area: soft edges?"
    if len(found) > MANY_IDS:
        raise InputError(f"{title}: {text} {CURE}")
    return (text,)


def _find_values(ids):
    """Return the values in uint8 H×W, sorted."""
    highest = int(ids.max(initial=0))
    if highest <= MANY_IDS:
        # Twenty times as fast as counting.
        return np.flatnonzero([(ids == value).any() for value in range(highest + 1)])
    return np.flatnonzero(np.bincount(ids.ravel(), minlength=256))


def _is_solid(ids):
    """Return bool 256: which values of uint8 H×W have a pixel whose four neighbours are all like it."""
    near = np.pad(ids, 1, mode="edge")
    alike = ((near[:-2, 1:-1] == ids) & (near[2:, 1:-1] == ids) & (near[1:-1, :-2] == ids) & (near[1:-1, 2:] == ids))
    return np.bincount(ids[alike], minlength=256) > 0


def _check_background(ids):
    """Return a notice if 0 is probably not the background of ids uint8 H×W."""
    border = np.bincount(_border(ids), minlength=256)
    largest = int(border[1:].argmax()) + 1
    if ids.all():
        return (f"no pixel is 0, the background; is {largest} the background?",)
    if border[largest] * 2 > border.sum() and largest != VOID:
        return (f"object {largest} takes most of the border; is it the background?",)
    return ()


def _border(values):
    """Return the outermost pixels of H×W."""
    return np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])
