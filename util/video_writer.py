"""Writing videos that show their frames as long, and in the shape and colours, as their source does."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from util.errors import InputError, pixels
from util.pyav import av, need_pyav

UNSPECIFIED = 2
"""FFmpeg's number for colours of which a file says nothing."""

MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""FFmpeg's numbers of how RGB becomes YUV: {as files give it: as its converter calls it}."""


class Look(NamedTuple):
    """How a video's frames are to be shown."""

    time_base: Fraction | None = None
    """The unit of frame times in seconds; None: the time of one frame."""

    pixel_aspect: Fraction = Fraction(1)
    """A pixel's width divided by its height."""

    matrix: int = UNSPECIFIED
    """How RGB becomes YUV, as FFmpeg counts it (AVColorSpace)."""

    full_range: bool = False
    """Whether black is 0 and white 255, instead of 16 and 235."""

    primaries: int = UNSPECIFIED
    """Which red, green and blue, as FFmpeg counts it (AVColorPrimaries)."""

    transfer: int = UNSPECIFIED
    """How values become light, as FFmpeg counts it (AVColorTransferCharacteristic)."""


class VideoWriter:
    """Writes H.264 in MP4 that plays in a browser: yuv420p, index in front. Odd sides are extended by a pixel.

    size: (width, height). rate: frames per second, where frames have no times. look: a Look. threads: how many encode,
    None for all cores. Raises OSError if the file cannot be written, InputError if it cannot be encoded.
    """

    def __init__(self, path, size, rate, look=None, threads=None):
        need_pyav()
        width, height = size
        self._rate = Fraction(rate).limit_denominator(100000)
        self._look = look = look or Look()
        self._container = av.open(str(Path(path).absolute()), "w", format="mp4", options={"movflags": "faststart"})
        # Without B-frames: with them, files of a variable rate say that they end before their last frames.
        self._stream = self._container.add_stream("libx264", rate=self._rate,
                                                  options={"crf": "20", "preset": "veryfast", "bf": "0"})
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        # A microsecond is fine enough, and MP4 counts its units in 32 bits.
        self._time_base = max(look.time_base or 1 / self._rate, Fraction(1, 10**6))
        context = self._stream.codec_context
        context.time_base = self._stream.time_base = self._time_base
        context.sample_aspect_ratio = look.pixel_aspect
        context.color_primaries, context.color_trc = look.primaries, look.transfer
        self._matrix = MATRICES.get(look.matrix)
        if self._matrix is not None:
            context.colorspace = look.matrix
        context.color_range = 2 if look.full_range else 1
        if threads:
            context.thread_count = threads
        self._first_time = None
        self._last = -1
        self._count = 0

    def write(self, image, time=None):
        """image uint8 H×W×3 RGB. time: when it is shown, in seconds; the video begins with its first frame's."""
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if time is None:
            time = self._count / self._rate
        if self._first_time is None:
            self._first_time = time
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=self._matrix, dst_color_range=2 if self._look.full_range else 1)
        # Damaged files give times twice, or backwards.
        self._last = max(self._last + 1, round((time - self._first_time) / self._time_base))
        frame.pts, frame.time_base = self._last, self._time_base
        self._count += 1
        self._encode(frame)

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
