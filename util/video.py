"""Frames of a video file, a camera, a stream or images, one at a time."""

import glob
import os
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np

from util.decoding import Decoder, is_stream, public_name
from util.errors import InputError
from util.frame_index import build_index
from util.frames import Frame, FrameRange, number_name
from util.image_frames import ImageFrames, StackFrames, count_pages
from util.image_io import IMAGE_SUFFIXES, check_size, choose_frames, is_image
from util.notices import list_notices
from util.pyav import av
from util.seekable import SeekableFrames
from util.video_store import VideoStore
from util.video_writer import UNSPECIFIED, Look

LARGEST_SLANT = 2
"""Degrees by which a video may be off a multiple of 90° without a word: some programs write -1° for none."""


def open_frames(paths, masks=(), *, start=None, end=None, threads=None):
    """The frames that `paths` stand for: a video file, a folder, a glob, image files, "-", a camera or an address.

    paths: one path, or a list of one or of several image files.
    masks: files that are masks, and no frames even where they lie beside them.
    start, end: the first and the last wanted frame, see `util.frames.read_position`; None: all. threads: how many
    decode a video, None for all cores.

    Returns an ImageFrames, StackFrames or VideoFrames. Each can be iterated once, yields `Frame`s, and has
        size       (width, height)
        length     the number of frames, None if it is not known; a video's header says it, and may be wrong
        rate       frames per second
        look       how a player is to show them, a Look
        files      the files that are read, as far as they are files
        names      the names of all frames; None for a video, whose frames are named after their numbers
        first      the name of the first frame
        notices    what the user should know, one sentence each; more may come with the frames
        complete   False as soon as a frame is known to be missing
        seekable() the same frames in any order, a `util.seekable.SeekableFrames`
    Raises InputError if nothing can be read.
    """
    paths = [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    if not paths:
        raise InputError("no video and no images were given")
    listed, notices = len(paths) > 1, []
    if not listed:
        path = Path(paths[0])
        if is_stream(paths[0]):
            return VideoFrames(paths[0], start=start, end=end, threads=threads)
        if path.is_dir():
            images, notices = choose_frames([file for file in path.iterdir() if is_image(file)], masks)
            if not images:
                raise InputError(f"{path}: no image in this folder ({', '.join(IMAGE_SUFFIXES)})")
        elif not path.exists() and glob.has_magic(paths[0]):
            images, notices = choose_frames([Path(file) for file in glob.glob(paths[0]) if is_image(Path(file))], masks)
            if not images:
                raise InputError(f"{paths[0]}: no image matches")
        elif not path.exists():
            raise InputError(f"{path}: no such file or folder")
        elif not is_image(path) and path.suffix.lower() != ".apng":
            return VideoFrames(paths[0], start=start, end=end, threads=threads)
        else:
            images = [path]
    else:
        images = [Path(path) for path in paths]
    if len(images) == 1 and count_pages(images[0]) > 1:
        return StackFrames(images[0], start=start, end=end)
    return ImageFrames(images, start=start, end=end, listed=listed, notices=list_notices(notices))


class VideoFrames:
    """Frames of a video file, a camera or a stream, decoded by FFmpeg and turned upright as the file says."""

    names = None

    def __init__(self, source, *, start=None, end=None, threads=None):
        self.files = () if is_stream(source) else (source,)
        self._title = "standard input" if source == "-" else public_name(source)
        self._source, self._threads = source, threads
        self._decoder = decoder = Decoder(source, self._title, threads)
        self._turn_notice = self._cut = None
        self._converting = threading.local()
        self.rate = decoder.rate
        self._digits_of = decoder.length
        self._range = FrameRange(start, end, self._title, decoder.rate, decoder.timecode)
        self.length = self._range.count(decoder.length)
        self._frames = self._range.select(decoder)
        number, time, frame = next(self._frames, (None, None, None))
        if frame is None:
            raise InputError(f"{self._title}: no frame could be decoded")
        self._first_number = number
        self._frame_bytes = sum(plane.buffer_size for plane in frame.planes)
        image = self._turn(frame)
        self._first = Frame(self.name(number), image, time)
        self.first = self._first.name
        self.size = image.shape[1::-1]
        transposed = self.size != (frame.width, frame.height)
        self.look = Look(
            time_base=decoder.time_base,
            pixel_aspect=1 / decoder.pixel_aspect if transposed else decoder.pixel_aspect,
            matrix=frame.colorspace,
            # What is stored as RGB is no YUV of full range.
            full_range=frame.color_range == 2 and frame.colorspace != 0,
            primaries=getattr(frame, "color_primaries", UNSPECIFIED),
            transfer=getattr(frame, "color_trc", UNSPECIFIED),
        )

    @property
    def notices(self):
        notices = self._decoder.notices + ([self._turn_notice] if self._turn_notice else [])
        if self._cut and not self._decoder.cut:
            notices.append(f"{self._title}: this file is cut short, {self._cut}")
        return notices

    @property
    def complete(self):
        return self._decoder.complete and not self._cut

    def name(self, number):
        """The name of the frame with this number, from 0."""
        return number_name(number, self._digits_of)

    def holds(self, number):
        """Whether there may be a frame with this number: False only if it is sure that there is none."""
        return number >= self._first_number and not self._range.is_after(number, None) and self._decoder.holds(number)

    def __iter__(self):
        yield self._first
        self._first = None
        for number, _, frame in self._frames:
            yield self._show(number, frame)

    def seekable(self):
        """These frames in any order, as SeekableFrames. This reads the file's packets once, see `build_index`.

        Frames that turn out to be damaged are told in `notices`. Raises InputError if the frames of this video can only
        be read in their order.
        """
        index = build_index(self._source, self._title, self._threads)
        first = index.position_of(self._first_number)
        last = len(index) - 1
        while self._range.is_after(int(index.numbers[last]), self._decoder.seconds(int(index.times[last]))):
            last -= 1
        if index.decoded:
            known = set(index.numbers.tolist())
            self._decoder.lost |= set(range(self._first_number, int(index.numbers[last]))) - known
            self._cut = index.cut if last == len(index) - 1 else None
        return SeekableFrames(lambda: VideoStore(
            self._source, self._title, self._threads, index, range(first, last + 1), self._frame_bytes, self._show,
            self.name, self._decoder.lost))

    def _show(self, number, frame):
        """A decoded frame as a Frame."""
        time = number / Fraction(self.rate) if frame.pts is None else self._decoder.seconds(frame.pts)
        image = check_size(self.size, self._turn(frame), f"{self._title}, frame {number}")
        return Frame(self.name(number), image, time)

    def _turn(self, frame):
        """A decoded frame as uint8 H×W×3, turned and mirrored as its file says."""
        # A frame keeps what it was converted with, which may be as large as the frame itself. So none converts itself.
        converting = self._converting
        if not hasattr(converting, "to_rgb"):
            converting.to_rgb, converting.to_little = (av.video.reformatter.VideoReformatter() for _ in range(2))
        # Converted by several threads, some formats come out differently from time to time.
        image = converting.to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
        # PyAV ties a frame that is asked for its side data into a cycle, and Python comes to free those late. A little
        # copy has them as well.
        matrix = display_matrix(converting.to_little.reformat(frame, width=16, height=16, format="gray8", threads=1,
                                                              interpolation="POINT"))
        if matrix is None:
            return image
        turned, off = apply_display_matrix(image, matrix)
        if off > LARGEST_SLANT:
            self._turn_notice = f"{self._title}: its frames are to be turned by an odd angle, {off:.0f}° off; they " \
                                "were turned by the nearest multiple of 90°"
        return np.ascontiguousarray(turned)


def display_matrix(frame):
    """How a decoded frame is to be turned: float 2×2, (x, y) @ matrix is where a pixel goes; None: as it is."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
        if data is None:
            return None
        return np.frombuffer(data, np.int32).reshape(3, 3)[:2, :2] / 65536
    except ValueError:
        # Beside what this version of PyAV does not know, it gives at least the angle.
        angle = np.deg2rad(frame.rotation)
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) if frame.rotation else None


def apply_display_matrix(image, matrix):
    """Turn and mirror an image H×W×3 as a display matrix says, to the nearest multiple of 90°.

    Returns the image and by how many degrees the matrix is off that multiple.
    """
    (a, b), (c, d) = matrix
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    if turned:
        image = image.swapaxes(0, 1)
        right, down, slant = c, b, max(abs(a), abs(d))
    else:
        right, down, slant = a, d, max(abs(b), abs(c))
    if right < 0:
        image = image[:, ::-1]
    if down < 0:
        image = image[::-1]
    straight = max(abs(right), abs(down))
    return image, float(np.rad2deg(np.arctan2(slant, straight)))
