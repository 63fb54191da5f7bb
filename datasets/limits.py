"""What is refused before it takes a machine down: files that are not regular, pictures and clips that are too large."""

import os
import stat
from pathlib import Path

from common.errors import DataError

PIXELS_VARIABLE = "SIFA_MAX_FRAME_PIXELS"
_FRAME_PIXELS = 1 << 25  # a frame of 8K video, 7680 x 4320, fits
_CLIP_FRAMES = 16  # of the largest size: a clip of 64 frames of 4K video fits, 1.6 GB


def max_frame_pixels() -> int:
    """How many pixels a frame may have: the environment variable SIFA_MAX_FRAME_PIXELS, 2^25 by default.

    Raises:
        DataError: the variable is not a whole number of at least 1.
    """
    text = os.environ.get(PIXELS_VARIABLE, "")
    if not text:
        return _FRAME_PIXELS
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text)):
        raise DataError(f"{PIXELS_VARIABLE} must be a whole number of at least 1, got {text[:40]!r}")
    return int(text)


def max_clip_pixels() -> int:
    """How many pixels all frames of a clip may have: as many as 16 frames of the largest size. Raises as above."""
    return _CLIP_FRAMES * max_frame_pixels()


def check_frame_size(name: str, width: int, height: int) -> None:
    """Checks the size of a frame before it is decoded.

    Raises:
        DataError: it has too many pixels.
    """
    if width * height > (limit := max_frame_pixels()):
        raise DataError(
            f"{name} has {width}x{height} pixels, more than the {limit} that {PIXELS_VARIABLE} allows; set the "
            "variable to a larger number if the size is right"
        )


def check_clip_size(name: str, frames: int, width: int, height: int) -> None:
    """Checks the size of a clip before it is allocated.

    Raises:
        DataError: it has too many pixels.
    """
    if frames * width * height > (limit := max_clip_pixels()):
        raise DataError(
            f"{name}: a clip of {frames} frames of {width}x{height} has more than the {limit} pixels that are "
            f"{_CLIP_FRAMES} times {PIXELS_VARIABLE}: resize the videos (tools.extract_frames --short_side), or set "
            "the variable to a larger number"
        )


def check_regular_file(file: str | os.PathLike[str], name: str) -> None:
    """Checks that a file is a regular one: to open a pipe may never end.

    Args:
        file: to check. A missing one, or a folder, passes: opening it says what is wrong.
        name: of the file in messages.

    Raises:
        DataError: it is a pipe, a socket or a device.
    """
    try:
        mode = os.stat(file).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError(f"{name} must be a regular file, it is a pipe, a socket or a device")


def read_regular_file(file: Path, name: str) -> bytes:
    """The contents of a regular file. Raises DataError as `check_regular_file`, OSError if it cannot be read."""
    check_regular_file(file, name)
    return file.read_bytes()
