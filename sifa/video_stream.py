"""Videos by file, folder and pattern; the frames of a file or a camera one by one."""

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from common.errors import DataError, UserError, shown_name
from datasets.decoders import Capture
from datasets.preparation.class_folders import videos_below
from datasets.preparation.sources import VIDEO_EXTENSIONS
from datasets.video_files import open_video

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # Path makes one slash of two
_MOST_NAMED = 3  # skipped files of a folder


def find_videos(paths: Sequence[str], warn: Callable[[str], None] = lambda text: None) -> list[Path]:
    """The files, the videos in the folders and the matches of the patterns, in the given order.

    Folders are searched with all folders below them, behind symbolic links too. A folder without a video is in the list
    itself, so that it fails as an unreadable file does: alone, not all.

    Args:
        paths: files, folders and patterns such as `clips/**/*.mp4`.
        warn: called with a sentence about the files of a folder that are no videos.

    Raises:
        UserError: a path is no file or folder and matches nothing, or there are only folders without videos.
    """
    videos: list[Path] = []
    for text in paths:
        # Path("") is the current folder; an empty argument is a mistake in the caller's script.
        if _ADDRESS.match(text) and not Path(text).exists():
            raise UserError(_is_address(text))
        matches = [text] if text and Path(text).exists() else sorted(glob.glob(text, recursive=True))
        if not matches:
            raise UserError(
                f"{text or 'an empty name'}: there is no such file or folder, and as a pattern it fits none"
            )
        for path in map(Path, matches):
            videos += (_videos_in(path, warn) or [path]) if path.is_dir() else [path]
    if videos and all(path.is_dir() for path in videos):
        raise UserError("; ".join(map(no_video_in, videos)))
    return videos


def check_video(path: Path) -> None:
    """Raises DataError, which says what it is instead, unless a path is that of a regular file."""
    if path.is_file():
        return
    text = shown_name(path)
    if path.is_dir():
        raise DataError(f"VIDEO must be a file, {text} is a folder")
    if path.exists():
        raise DataError(
            f"VIDEO must be a regular file, {text} is a pipe or a device: save what it gives in a file first"
        )
    raise DataError(_is_address(text) if _ADDRESS.match(text) else f"the video {text} is missing")


def _is_address(text: str) -> str:
    return f"{text} is an address: videos are read from files, download it first"


def _videos_in(folder: Path, warn: Callable[[str], None]) -> list[Path]:
    found, skipped = videos_below(folder)
    if skipped:
        named = "; ".join(f"{shown_name(path)}: {reason}" for path, reason in list(skipped.items())[:_MOST_NAMED])
        more = f"; and {len(skipped) - _MOST_NAMED} more" if len(skipped) > _MOST_NAMED else ""
        warn(f"skipped in {shown_name(folder)}: {named}{more}")
    return [folder / path for path in found]


def no_video_in(folder: Path) -> str:
    """The error message for a folder without a video."""
    return f"there is no video in the folder {folder} (extensions: {', '.join(sorted(VIDEO_EXTENSIONS))})"


@contextmanager
def open_camera(number: int) -> Iterator[cv2.VideoCapture]:
    """A camera, released at the end.

    Raises:
        UserError: there is no such camera, or another program uses it.
    """
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise UserError(f"there is no camera {number}, or it is in use")
        yield capture
    finally:
        capture.release()


def read_frames(capture: Capture) -> Iterator[np.ndarray]:
    """Every frame until the end, uint8 (H, W, 3), RGB."""
    while (result := capture.read())[0]:
        yield cv2.cvtColor(result[1], cv2.COLOR_BGR2RGB)


def announced_frames(capture: Capture) -> int:
    """The number of frames in the header of a file, 0 if there is none. Not all of them need to decode."""
    return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)


def short_video(video: Path, frames: int, span: int) -> str:
    """The warning for a video file that is shorter than a clip.

    Args:
        frames: that decode.
        span: frames of the video that a clip takes.
    """
    with open_video(video) as capture:
        announced = announced_frames(capture)
    lost = f", though the file announces {announced}" if announced > frames else ""
    return f"{video} has only {frames} of the {span} frames of a clip{lost}: the last is repeated"
