"""Frames from image files: one in each file, or several in one (TIFF stack, animated WebP or PNG)."""

import itertools
import struct
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from util.errors import InputError
from util.files import atomic_path, refuse_special_file
from util.frames import Frame, FrameRange, number_name
from util.image_io import check_size, find_numbers, frames_in_order, read_image
from util.pipeline import read_ahead
from util.seekable import SeekableFrames
from util.video_writer import Look

DECODING_THREADS = 2
"""Threads that decode image files: faster than any network tracks."""

IMAGE_RATE = 25
"""Frames per second of images, which do not say it."""

WITH_PAGES = (".tif", ".tiff", ".webp", ".png", ".apng")
"""Suffixes of the image files that may hold several frames. The several images of a JPEG are previews."""

DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error)
"""What Pillow raises for damaged files, TIFF above all."""

LONGEST_PIXEL = 14
"""Cameras give 10, 12 or 14 bits in 16. Values that need more bits than this are taken to use all 16."""


class ImageFrames:
    """Image files in the order of their names, in which numbers count as numbers; decoded ahead in threads.

    start, end: the first and the last wanted frame, as its name or its number, None for all. listed: see
    `frames_in_order`. notices: lines about the choice of the files. See `open_frames` for the attributes.
    """

    rate = IMAGE_RATE
    look = Look()
    complete = True

    def __init__(self, files, *, start=None, end=None, listed=False, notices=()):
        self._files = self.files = frames_in_order(files, listed)
        self.notices = list(notices)
        if listed and list(self._files) != list(files):
            self.notices.append(f"{self._files[0]} and the others are sorted by the numbers in their names")
        elif self._files != frames_in_order(files):
            self.notices.append(f"{self._files[0]} and the others keep the order in which they are listed, which is "
                                "not that of their names")
        # Of the whole video, so that a part of it looks the same.
        self._bits = self._find_bits()
        self._all_names = names = [file.stem for file in self._files]
        first = 0 if start is None else self._find_position(start, "--start")
        last = len(names) - 1 if end is None else self._find_position(end, "--end")
        if first > last:
            raise InputError(f"--start {start} is after --end {end}")
        self._files = self._files[first:last + 1]
        self.names = names[first:last + 1]
        self.first = self.names[0]
        self.length = len(self._files)
        self._first = self._read(self._files[0])
        self.size = self._first.shape[1::-1]

    def __iter__(self):
        yield Frame(self.names[0], self._first)
        self._first = None
        for file, image in zip(self._files[1:], read_ahead(self._read, self._files[1:], DECODING_THREADS), strict=True):
            yield Frame(file.stem, check_size(self.size, image, file))

    def seekable(self):
        """These frames in any order, as SeekableFrames."""
        return SeekableFrames(lambda: _FileStore(self._files, self.names, self.size, self._read))

    def find(self, key, title, counts=True):
        """Return the name of the frame that `key` means, and a notice or None; for the parameters see `_find_name`.

        Raises InputError if there is no such frame, or none from start to end.
        """
        index, notice = _find_name(self._all_names, key, title, counts)
        name = self._all_names[index]
        if name not in self.names:
            raise InputError(f"{title}: frame {name} is not between --start and --end; the frames there are "
                             f"{self.names[0]} to {self.names[-1]}")
        return name, notice

    def _find_position(self, text, option):
        names = self._all_names
        if text not in names and not text.isdecimal():
            raise InputError(f"{option}: no frame is called {text}; the frames are {names[0]} to {names[-1]}, and "
                             "images have no times")
        index, notice = _find_name(names, text, option)
        self.notices += [f"{option}: {notice}"] if notice else []
        return index

    def _find_bits(self):
        """How many bits the values of this video's images of 16 bits have; 16 if they are none, or bright."""
        if not has_16_bits(self._files[0]):
            return 16
        bits = bits_of(int(values.max()) for values in read_ahead(_read_deep, self._files, DECODING_THREADS)
                       if values is not None)
        if bits < 16:
            self.notices.append(scaling_notice(bits))
        return bits

    def _read(self, file):
        pages = count_pages(file)
        if pages > 1:
            raise InputError(f"{file}: {pages} frames in one file, one was expected; give this file alone as --video")
        values = _read_deep(file) if self._bits < 16 else None
        return read_image(file) if values is None else to_rgb(values, self._bits)


class StackFrames:
    """The frames of one image file that holds several: a TIFF stack, an animated WebP or PNG.

    They are numbered from 0, like those of a video file. start, end: as in `FrameRange`, None for all.
    """

    names = None

    def __init__(self, path, *, start=None, end=None):
        self._path, self.title = Path(path), str(path)
        self.files = (self._path,)
        self._image, self._pages, whole = _open_pages(path)
        self._count = len(self._pages)
        self.notices = [] if whole else [f"{path}: this file is cut short or damaged after frame {self._count - 1}"]
        self.complete = whole
        self._bits = 16
        if self._image.mode.startswith("I;16"):
            self._bits = bits_of(np.asarray(image).max() for image in
                                 (_load_page(self._image, page) for page in self._pages) if image is not None)
            if self._bits < 16:
                self.notices.append(f"{path}: {scaling_notice(self._bits)}")
        self._timed = self._image.format != "TIFF"
        self.rate, self.look = IMAGE_RATE, Look()
        if self._timed and _load_page(self._image, self._pages[0]):
            self.rate, self.look = 1 / _duration(self._image), Look(time_base=Fraction(1, 1000))
        self._range = FrameRange(start, end, path, self.rate, timed=self._timed)
        self.length = self._range.count(self._count)
        self._frames = self._range.select(self._read())
        first = next(self._frames, None)
        if first is None:
            raise InputError(f"{path}: damaged image, no frame could be decoded")
        number, time, image = first
        self._first_number = number
        self._first = Frame(self.name(number), image, time)
        self.first = self._first.name
        self.size = image.shape[1::-1]

    def name(self, number):
        """The name of the frame with this number, from 0."""
        return number_name(number, self._count)

    def holds(self, number):
        """Whether there is a frame with this number, as far as is known."""
        return self._first_number <= number < self._count and not self._range.is_after(number, None)

    def __iter__(self):
        yield self._first
        self._first = None
        for number, time, values in self._frames:
            yield self.show(number, time, values)

    def seekable(self):
        """These frames in any order, as SeekableFrames. An animation is decoded once, to find out its frames' times."""
        numbers, times = list(range(self._count)), None
        if self._timed:
            times = [Fraction(0)]
            image, pages, _ = _open_pages(self._path)
            while len(times) <= len(pages) and _load_page(image, pages[len(times) - 1]):
                times.append(times[-1] + _duration(image))
            numbers = numbers[:len(times) - 1]
        wanted = [number for number in numbers if number >= self._first_number and
                  not self._range.is_after(number, times and times[number])]
        return SeekableFrames(lambda: _PageStore(self, wanted, times and times[wanted[0]:]))

    def open_pages(self):
        """Open the file anew: (image, its frames' pages)."""
        return _open_pages(self._path)[:2]

    def show(self, number, time, values):
        """The values of a page as a Frame."""
        return Frame(self.name(number), check_size(self.size, values, f"{self._path}, frame {number}"), time)

    def values(self, image):
        """A page that is loaded as uint8 H×W×3 RGB."""
        if image.mode in ("I", "F"):
            raise InputError(f"{self._path}: values of 32 bits, an image of 8 or 16 bits was expected")
        deep = image.mode.startswith("I;16")
        return to_rgb(np.asarray(image), self._bits) if deep else np.asarray(image.convert("RGB"))

    def _read(self):
        """Yield (number, time, image)."""
        time = Fraction(0)
        for number, page in enumerate(self._pages):
            image = _load_page(self._image, page)
            if image is None:
                self.report_damage(number)
                if self._timed:
                    # Each frame of an animation is drawn upon the one before.
                    return
                continue
            values, shown = self.values(image), _duration(image)
            yield number, time if self._timed else None, values
            time += shown

    def report_damage(self, number):
        """Note that the frame with this number is damaged."""
        self.complete = False
        what = f"damaged from frame {number} on, of {self._count}" if self._timed else \
            f"frame {number} is damaged and left out"
        if f"{self._path}: {what}" not in self.notices:
            self.notices.append(f"{self._path}: {what}")


class _FileStore:
    """Image files for `util.seekable.SeekableFrames`. read: reads one."""

    times = None

    def __init__(self, files, names, size, read):
        self._files, self._names, self._size, self._read = files, names, size, read
        self.count, self.frame_bytes = len(files), 3 * size[0] * size[1]

    def name(self, position):
        return self._names[position]

    def position(self, name):
        return self._names.index(name) if name in self._names else None

    def begin(self, position):
        return position

    def forget(self):
        pass

    def load(self, first, last):
        images = read_ahead(self._read, self._files[first:last + 1], DECODING_THREADS)
        return dict(zip(range(first, last + 1), images, strict=True))

    def frame(self, position, image):
        return Frame(self._names[position], check_size(self._size, image, self._files[position]))


class _PageStore:
    """The pages of a StackFrames for `util.seekable.SeekableFrames`.

    numbers: those of the wanted frames, in a row. times: of these frames, Fractions; None for a stack, whose pages can
    be read one by one.
    """

    def __init__(self, stack, numbers, times):
        self._stack, self._numbers, self._times = stack, numbers, times
        self._image, self._pages = stack.open_pages()
        self.count, self.frame_bytes = len(numbers), 3 * stack.size[0] * stack.size[1]
        self.times = None if times is None else np.array(times[:self.count], float)

    def name(self, position):
        return self._stack.name(self._numbers[position])

    def position(self, name):
        number = int(name) if name.isdecimal() else -1
        return self._numbers.index(number) if number in self._numbers else None

    def begin(self, position):
        return position if self._times is None else 0

    def forget(self):
        pass

    def load(self, first, last):
        found = {}
        for position in range(first, last + 1):
            image = _load_page(self._image, self._pages[self._numbers[position]])
            if image is None:
                self._stack.report_damage(self._numbers[position])
            else:
                found[position] = self._stack.values(image)
        return found

    def frame(self, position, values):
        time = None if self._times is None else self._times[position]
        return self._stack.show(self._numbers[position], time, values)

    def damaged(self, position):
        return InputError(f"{self._stack.title}: frame {self.name(position)} is damaged")


def _load_page(image, page):
    """An image file at this page, decoded; None if the page is damaged."""
    try:
        image.seek(page)
        image.load()
    except DAMAGE:
        return None
    return image


def _duration(image):
    """How many seconds the frame that was decoded last is shown."""
    # Browsers show a frame that says 0 for a tenth of a second, too.
    return Fraction(image.info.get("duration") or 100).limit_denominator(1000) / 1000


def count_pages(path):
    """How many frames an image file holds: pages of the size of the first, or frames of an animation. 1 if unknown."""
    if Path(path).suffix.lower() not in WITH_PAGES:
        return 1
    refuse_special_file(path)
    try:
        image, pages, whole = _open_pages(path)
    except DAMAGE:
        return 1
    image.close()
    return max(len(pages), 1 if whole else 2)


def _open_pages(path):
    """Open an image file: (image, indices of its frames, whether all could be found).

    Previews are left out, and the still image for programs that cannot show the others.
    """
    image = Image.open(path)
    if image.format == "TIFF":
        size, pages = image.size, []
        try:
            for index in itertools.count():
                image.seek(index)
                # Tag 254, bit 0: a reduced copy of another page.
                if image.size == size and not image.tag_v2.get(254, 0) & 1:
                    pages.append(index)
        except EOFError:
            return image, pages or [0], True
        except DAMAGE:
            return image, pages or [0], False
    count = getattr(image, "n_frames", 1) if image.format in ("PNG", "WEBP") else 1
    return image, list(range(int(bool(getattr(image, "default_image", False))), count)), True


def has_16_bits(path):
    """Whether an image file holds whole numbers of 16 bits, one or three a pixel."""
    refuse_special_file(path)
    try:
        with Image.open(path) as image:
            # Pillow opens 16-bit colour as 8-bit; only its decoder's arguments tell.
            return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG") or \
                any(";16" in str(tile[3]) for tile in image.tile)
    except DAMAGE:
        return False


def bits_of(maxima):
    """The bits that a video's values have, given the largest value of each frame: 8 to LONGEST_PIXEL, or 16."""
    bits = max(8, int(max(maxima, default=2**16 - 1)).bit_length())
    return bits if bits <= LONGEST_PIXEL else 16


def scaling_notice(bits):
    """What to tell the user about a video whose values of 16 bits are that small."""
    return f"no value above {2**bits - 1} in these images of 16 bits; they are read as {bits} bits, brighter"


def to_rgb(values, bits):
    """Grey or colour values uint16 H×W or H×W×3 below 2^bits as uint8 H×W×3."""
    values = (values >> (bits - 8)).astype(np.uint8)
    return np.repeat(values[..., None], 3, 2) if values.ndim == 2 else values


def _read_deep(path):
    """An image of 16 bits as uint16 H×W or H×W×3 RGB; None if it is none, or damaged."""
    refuse_special_file(path)
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        return None
    return values if values.ndim == 2 else np.ascontiguousarray(values[..., 2::-1])


def _find_name(names, key, title, counts=True):
    """Return the index of the frame that `key` means in a video's `names`, and a notice or None.

    A name is matched as it is, or by its number: 125 is 00125, whatever frame comes first. Only where frames' names
    are more than a number, a number alone counts frames from 0, unless `counts` is False. title: what gave the key, in
    messages. Raises InputError if no frame is meant, or it is not clear which.
    """
    if key in names:
        return names.index(key), None
    numbers = find_numbers(key)
    same = [index for index, name in enumerate(names)
            if numbers and numbers in (find_numbers(name), find_numbers(name)[-1:])]
    if key.isdecimal() and counts and not any(name.isdecimal() for name in names):
        same, other = [int(key)] if int(key) < len(names) else [], same
        if same and other and same != other:
            return same[0], f"{key} counts frames from 0 and means {names[same[0]]}, not {names[other[0]]}"
    if len(same) == 1:
        return same[0], None
    if same:
        raise InputError(f"{title}: {key} may be frame {names[same[0]]} or {names[same[1]]}; give the frame's whole "
                         "name")
    raise InputError(f"{title}: no frame is called {key}; the frames are {names[0]} to {names[-1]}")


def write_image(path, image):
    """Write uint8 H×W×3 RGB as PNG, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
