"""Frames of a video file, a stream or a folder of images, one at a time."""

import glob
from pathlib import Path

import av
import numpy as np

from util.errors import InputError, pixels
from util.image_io import IMAGE_SUFFIXES, check_size, choose_frames, frames_in_order, is_image, read_image
from util.mask_rule import list_notices
from util.pipeline import read_ahead

DECODING_THREADS = 2
"""Threads that decode image files: faster than any network tracks."""

DEFAULT_RATE = 25
"""Frames per second of a folder of images."""


def open_frames(paths, masks=()):
    """The frames that `paths` stand for: a video file, a folder, a glob, "-", or image files.

    masks: files that are masks, and no frames even where they lie beside them.

    Returns an ImageFrames or a VideoFrames. Each can be iterated once, yields (name, uint8 H×W×3 RGB), and has
        size    (width, height)
        length  the number of frames, None if it is not known; a video's header says it, and may be wrong
        rate    frames per second
        names   the names of all frames; None for a video, whose frames are named after their numbers
        notices lines about what may not be as it was meant
    Raises InputError if nothing can be read.
    """
    if len(paths) == 1:
        path = Path(paths[0])
        if paths[0] == "-":
            return VideoFrames("pipe:0", "standard input")
        if path.is_dir():
            images, notices = choose_frames([file for file in path.iterdir() if is_image(file)], masks)
            if not images:
                raise InputError(f"{path}: no image in this folder ({', '.join(IMAGE_SUFFIXES)})")
            return ImageFrames(images, notices=list_notices(notices))
        if not path.exists() and glob.has_magic(paths[0]):
            images, notices = choose_frames([Path(file) for file in glob.glob(paths[0]) if is_image(Path(file))], masks)
            if not images:
                raise InputError(f"{paths[0]}: no image matches")
            return ImageFrames(images, notices=list_notices(notices))
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if not is_image(path):
            # As an absolute path: FFmpeg takes what stands before a colon for a protocol.
            return VideoFrames(str(path.absolute()), str(path))
    return ImageFrames([Path(path) for path in paths], listed=True)


class ImageFrames:
    """Image files in the order of their names, in which numbers count as numbers; decoded ahead in threads.

    listed: see `frames_in_order`. notices: lines about the choice of the files.
    """

    def __init__(self, files, listed=False, notices=()):
        self._files = frames_in_order(files, listed)
        self.notices = list(notices)
        if listed and list(self._files) != list(files):
            self.notices.append(f"note: {self._files[0]} and the others are sorted by the numbers in their names")
        elif self._files != frames_in_order(files):
            self.notices.append(f"note: {self._files[0]} and the others keep the order in which they are listed, which "
                                "is not that of their names")
        self.names = [file.stem for file in self._files]
        self.length = len(self._files)
        self.rate = DEFAULT_RATE
        self._first = read_image(self._files[0])
        self.size = self._first.shape[1::-1]

    def __iter__(self):
        yield self.names[0], self._first
        self._first = None
        for file, image in zip(self._files[1:], read_ahead(read_image, self._files[1:], DECODING_THREADS), strict=True):
            yield file.stem, check_size(self.size, image, file)


class VideoFrames:
    """Frames of a video file or stream, decoded by FFmpeg and turned upright as the file says."""

    names = None
    notices = ()

    def __init__(self, url, title):
        self._url, self._title = url, title
        try:
            self._container = av.open(url)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{title}: not a readable video ({error.strerror})") from None
        if not self._container.streams.video:
            raise InputError(f"{title}: no video in this file")
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        self.rate = stream.average_rate or DEFAULT_RATE
        self.length = stream.frames or None
        self._frames = self._decode(stream)
        self._first = next(self._frames, None)
        if self._first is None:
            raise InputError(f"{title}: no frame could be decoded")
        self.size = self._first.shape[1::-1]
        # Eight digits are enough for a week of a stream that does not say how long it is.
        self._digits = 8 if self.length is None else max(5, len(str(self.length)))

    def _decode(self, stream):
        number = 0
        try:
            for frame in self._container.decode(stream):
                image = frame.to_ndarray(format="rgb24")
                yield np.ascontiguousarray(np.rot90(image, frame.rotation // 90))
                number += 1
        except av.error.FFmpegError as error:
            where = f"damaged after frame {number - 1}" if number else "no frame could be decoded"
            raise InputError(f"{self._title}: {where} ({error.strerror})") from None

    def name(self, number):
        """The name of the frame with this number, from 0."""
        return f"{number:0{self._digits}d}"

    def holds(self, number):
        """Return whether there may be a frame with this number: False only if it is sure that there is none."""
        if self.length is None or number < self.length or self._url.startswith("pipe:"):
            return True
        # The header may promise too few.
        with av.open(self._url) as container:
            return number < sum(packet.size > 0 for packet in container.demux(video=0))

    def __iter__(self):
        yield self.name(0), self._first
        self._first = None
        for number, image in enumerate(self._frames, 1):
            yield self.name(number), check_size(self.size, image, f"{self._title}, frame {number}")


class VideoWriter:
    """Writes H.264 in MP4 that plays in a browser: yuv420p, index in front. Odd sides are extended by a pixel.

    Raises OSError if the file cannot be written, InputError if it cannot be encoded.
    """

    def __init__(self, path, size, rate):
        width, height = size
        self._container = av.open(str(Path(path).absolute()), "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"

    def write(self, image):
        """image uint8 H×W×3 RGB."""
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._encode(av.VideoFrame.from_ndarray(image, format="rgb24"))

    def close(self):
        try:
            self._encode(None)
        finally:
            self._container.close()

    def _encode(self, frame):
        try:
            self._container.mux(self._stream.encode(frame))
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            size = pixels((self._stream.width, self._stream.height))
            raise InputError(f"an overlay of {size} pixels cannot be encoded ({error.strerror}); --no-overlay does "
                             "without") from None
