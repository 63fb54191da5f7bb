"""The FRAME storage: a folder of numbered JPEG (or PNG) files for every video."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from common.errors import DataError
from datasets.annotations import check_relative_path

_JPEG, _SCAN, _END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"  # markers: start of image, start of scan, end of image


class FrameFolder:
    """Frames of videos as files `root/video_path/template.format(first + position)`.

    root: the folder that every video's path is relative to.
    template: the name of a frame's file, given its number: "{:05d}.jpg" in the release.
    first: the number of a video's first frame: 1 in the release.

    Raises DataError if root is no folder, ValueError if the template has no place for the number.
    """

    def __init__(self, root: str | os.PathLike[str], template: str = "{:05d}.jpg", first: int = 1) -> None:
        check_template(template)
        self.root = Path(root)
        self.template = template
        self.first = first
        if not self.root.is_dir():
            raise DataError(f"the folder of frames {self.root} does not exist or is no folder")

    def read(self, video_path: str, positions: Sequence[int]) -> np.ndarray:
        """Decode the frames at 0-based `positions` of one video; a repeated position is decoded once.

        Returns uint8 (T, H, W, 3), RGB, T = len(positions).

        Raises DataError, naming the frame's file, if the frame is missing, cannot be decoded, was cut short or is not
        of the clip's size, and if the path leaves the root.
        """
        check_relative_path(video_path)
        folder = self.root / video_path
        files = (folder / self.template.format(self.first + position) for position in positions)
        return stack_frames(positions, (("the frame " + str(file), partial(_bytes_of, file)) for file in files))

    def encoded(self, video_path: str, position: int) -> bytes:
        """One frame as it is stored. Raises DataError if it is missing."""
        check_relative_path(video_path)
        return _bytes_of(self.root / video_path / self.template.format(self.first + position)).tobytes()

    def count(self, video_path: str) -> int:
        """How many frames follow one another from the first on. Raises DataError if the video has no folder."""
        check_relative_path(video_path)
        folder = self.root / video_path
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}")
        names, frames = set(os.listdir(folder)), 0
        while self.template.format(self.first + frames) in names:
            frames += 1
        return frames


def check_template(template: str) -> None:
    """Raise ValueError unless the name of a frame has a place for its number."""
    try:
        usable = template.format(1) != template.format(2)
    except (IndexError, KeyError, ValueError):
        usable = False
    if not usable:
        raise ValueError(f"the frame template must hold a number like '{{:05d}}.jpg', got {template!r}")


def stack_frames(positions: Sequence[int], sources: Iterable[tuple[str, Callable[[], np.ndarray]]]) -> np.ndarray:
    """Decode the frames of a clip; a repeated position is fetched and decoded once.

    positions: which frames, at least one; they say which are the same.
    sources: for every position the frame's name in messages, and what gives its JPEG or PNG data (uint8, 1D).

    Returns uint8 (T, H, W, 3), RGB. Raises DataError if a frame is broken or not of the size of the others.
    """
    if not positions:
        raise ValueError("positions must name at least one frame, got none")
    clip: np.ndarray | None = None
    decoded: dict[int, int] = {}  # position -> where it stands in the clip
    for index, (position, (name, fetch)) in enumerate(zip(positions, sources, strict=True)):
        if position in decoded:
            assert clip is not None
            clip[index] = clip[decoded[position]]
            continue
        frame = decode_image(fetch(), name)
        if clip is None:
            clip = np.empty((len(positions), *frame.shape), dtype=np.uint8)
        if frame.shape != clip.shape[1:]:
            (height, width), (other_height, other_width) = frame.shape[:2], clip.shape[1:3]
            wanted = f"{other_width}x{other_height}, the size of the clip's other frames"
            raise DataError(f"{name} must be {wanted}, got {width}x{height}")
        cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=clip[index])
        decoded[position] = index
    assert clip is not None
    return clip


def decode_image(data: np.ndarray, name: str) -> np.ndarray:
    """JPEG or PNG data as uint8 (H, W, 3), BGR. Raises DataError, with the name in it, if it is broken or cut short."""
    if _is_cut_short(data.tobytes()):
        raise DataError(f"{name} is broken: the file ends before the picture does ({data.size} bytes)")
    try:
        frame = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:
        frame = None
    if frame is None:
        raise DataError(f"{name} is broken: it does not decode as an image ({data.size} bytes)")
    return frame


def _bytes_of(file: Path) -> np.ndarray:
    try:
        # Not cv2.imread, which cannot open every name on every system.
        return np.fromfile(file, dtype=np.uint8)
    except FileNotFoundError:
        where = "" if file.parent.is_dir() else f": there is no folder {file.parent}"
        raise DataError(f"the frame {file} is missing{where}") from None
    except OSError as error:
        raise DataError(f"the frame {file} cannot be read: {error.strerror}") from None


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG file ends within its last scan. OpenCV decodes such a file and fills the rest with grey."""
    return data.startswith(_JPEG) and data.rfind(_END) < data.rfind(_SCAN)
