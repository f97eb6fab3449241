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


class Encoding(NamedTuple):
    """How a video file is encoded, in FFmpeg's names."""

    container: str
    codec: str
    pixel_format: str

    options: dict
    """Of the encoder."""

    container_options: dict | None = None

    finest: Fraction = Fraction(1, 10**6)
    """The finest unit of time in seconds that the container holds, or that is of use."""

    shortest: Fraction = Fraction(0)
    """A frame that comes less than so many seconds after the one before is left out."""

    even: bool = False
    """Whether odd sides are extended by a pixel."""

    full_range: bool = True
    """Whether the file can say that black is 0 and white 255."""


# Without B-frames: with them, files of a variable rate say that they end before their last frames.
# MP4 counts its units in 32 bits.
H264 = Encoding("mp4", "libx264", "yuv420p", {"crf": "20", "preset": "veryfast", "bf": "0"},
                {"movflags": "faststart"}, even=True)
"""Plays in a browser; the index is in front."""

PRORES_4444 = Encoding("mov", "prores_ks", "yuva444p10le", {"profile": "4444", "vendor": "apl0"}, full_range=False)
"""With opacity, for programs that cut and compose."""

VP9_WITH_ALPHA = Encoding("webm", "libvpx-vp9", "yuva420p", {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "5",
                                                             "row-mt": "1", "auto-alt-ref": "0"},
                          finest=Fraction(1, 1000))
"""With opacity, for browsers."""


class VideoWriter:
    """Writes a video file, H.264 in MP4 unless told otherwise.

    size: (width, height). rate: frames per second, where frames have no times. look: a Look. threads: how many encode,
    None for all cores. encoding: an Encoding. cure: what else the user can do, for the message that this cannot be
    encoded. Raises OSError if the file cannot be written, InputError if it cannot be encoded.
    """

    def __init__(self, path, size, rate, look=None, threads=None, encoding=H264, cure="--no-overlay does without"):
        need_pyav()
        width, height = size
        self._rate = Fraction(rate).limit_denominator(100000)
        self._look, self._encoding, self._cure = look or Look(), encoding, cure
        if not encoding.full_range:
            self._look = self._look._replace(full_range=False)
        look = self._look
        self._container = av.open(str(Path(path).absolute()), "w", format=encoding.container,
                                  options=encoding.container_options or {})
        self._stream = self._container.add_stream(encoding.codec, rate=self._rate, options=encoding.options)
        self._padding = (height % 2, width % 2) if encoding.even else (0, 0)
        self._stream.width, self._stream.height = width + self._padding[1], height + self._padding[0]
        self._stream.pix_fmt = encoding.pixel_format
        self._time_base = max(look.time_base or 1 / self._rate, encoding.finest)
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
        self._error = None
        self.left_out = 0

    def write(self, image, time=None):
        """Write a frame.

        image: uint8 H×W×3 RGB, or H×W×4 with opacity. time: when it is shown, in seconds; the video begins with its
        first frame's.
        """
        if any(self._padding):
            image = np.pad(image, ((0, self._padding[0]), (0, self._padding[1]), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(image, format="rgb24" if image.shape[2] == 3 else "rgba")
        # Converted by several threads, some formats come out differently from time to time.
        frame = frame.reformat(format=self._encoding.pixel_format, dst_colorspace=self._matrix,
                               dst_color_range=2 if self._look.full_range else 1, threads=1)
        # ProRes takes these from the frame.
        frame.color_primaries, frame.color_trc = self._look.primaries, self._look.transfer
        self.write_encoded(frame, time)

    def write_encoded(self, frame, time=None):
        """Write an av.VideoFrame that is in the encoding's pixel format."""
        if time is None:
            time = self._count / self._rate
        if self._first_time is None:
            self._first_time = time
        self._count += 1
        position = round((time - self._first_time) / self._time_base)
        if 0 <= self._last <= position and (position - self._last) * self._time_base < self._encoding.shortest:
            self.left_out += 1
            return
        # Damaged files give times twice, or backwards.
        self._last = max(self._last + 1, position)
        frame.pts, frame.time_base = self._last, self._time_base
        self._encode(frame)

    def close(self):
        try:
            self._encode(None)
        finally:
            self._container.close()

    def _encode(self, frame):
        # FFmpeg crashes if frames follow a header that it could not write, to a full disk say.
        if self._error is not None:
            raise self._error
        try:
            self._container.mux(self._stream.encode(frame))
        except av.error.FFmpegError as error:
            size = pixels((self._stream.width, self._stream.height))
            self._error = error if isinstance(error, OSError) else \
                InputError(f"a video of {size} pixels cannot be encoded ({error.strerror}); {self._cure}")
            raise self._error from None
