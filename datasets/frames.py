"""The FRAME format: a folder of numbered JPEG (or PNG) files for each video."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from common.errors import DataError
from datasets.annotations import check_relative_path

FRAME_TEMPLATE = "{:05d}.jpg"  # the release's file names, 1-based

# JPEG markers: start of image, start of scan, end of image.
_START_OF_IMAGE, _START_OF_SCAN, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


class FrameFolder:
    """Frames of videos in files `root/video_path/template.format(first + position)`.

    Args:
        root: folder that the paths of videos are relative to.
        template: file name of a frame, with a placeholder for its number.
        first: number of the first frame of a video.

    Raises:
        DataError: root is no folder.
        ValueError: template has no placeholder for a number.
    """

    def __init__(self, root: str | os.PathLike[str], template: str = FRAME_TEMPLATE, first: int = 1) -> None:
        check_template(template)
        self.root = Path(root)
        self.template = template
        self.first = first
        if not self.root.is_dir():
            raise DataError(f"the folder of frames {self.root} does not exist or is no folder")

    def read(self, video_path: str, positions: Sequence[int]) -> np.ndarray:
        """Decodes frames of a video; a repeated position is decoded once.

        Args:
            video_path: of the video, relative to the root.
            positions: of the frames, 0-based, at least one.

        Returns:
            uint8 (T, H, W, 3), RGB, T = len(positions).

        Raises:
            DataError: the path leaves the root; or a frame, which the message names, is missing, does not decode, is
                cut short or has another size than the first one.
            ValueError: positions is empty.
        """
        check_relative_path(video_path)
        files = (self._file(video_path, position) for position in positions)
        return decode_clip(positions, ((f"the frame {file}", partial(_read_file, file)) for file in files))

    def read_encoded(self, video_path: str, position: int) -> bytes:
        """The content of a frame's file.

        Raises:
            DataError: the path leaves the root, or the frame is missing or cannot be read.
        """
        check_relative_path(video_path)
        return _read_file(self._file(video_path, position)).tobytes()

    def fingerprint(self, video_path: str, position: int) -> bytes:
        """Bytes that are equal for equal frames: the content of the file. Raises as `read_encoded`."""
        return self.read_encoded(video_path, position)

    def count(self, video_path: str) -> int:
        """How many frames a video has, from the first one to the first gap in the numbers.

        Raises:
            DataError: the path leaves the root, or the video has no folder.
        """
        check_relative_path(video_path)
        folder = self.root / video_path
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}")
        names, frames = set(os.listdir(folder)), 0
        while self.template.format(self.first + frames) in names:
            frames += 1
        return frames

    def _file(self, video_path: str, position: int) -> Path:
        return self.root / video_path / self.template.format(self.first + position)


def check_template(template: str) -> None:
    """Checks the file name or key of a frame.

    Raises:
        ValueError: template has no placeholder for a number.
    """
    try:
        usable = template.format(1) != template.format(2)
    except (IndexError, KeyError, ValueError):
        usable = False
    if not usable:
        raise ValueError(f"the frame template must hold a number like '{{:05d}}.jpg', got {template!r}")


def decode_clip(positions: Sequence[int], frames: Iterable[tuple[str, Callable[[], np.ndarray]]]) -> np.ndarray:
    """Decodes the frames of a clip; a repeated position is fetched and decoded once.

    Args:
        positions: of the frames, at least one. Equal positions mean the same frame.
        frames: for each position, the name of the frame in messages, and a function that returns its JPEG or PNG data,
            uint8 (bytes,).

    Returns:
        uint8 (T, H, W, 3), RGB, T = len(positions).

    Raises:
        DataError: a frame does not decode, is cut short or has another size than the first one.
        ValueError: positions is empty.
    """
    if not positions:
        raise ValueError("positions must name at least one frame, got none")
    clip: np.ndarray | None = None
    decoded: dict[int, int] = {}  # position -> index in the clip
    for index, (position, (name, fetch)) in enumerate(zip(positions, frames, strict=True)):
        if position in decoded:
            assert clip is not None
            clip[index] = clip[decoded[position]]
            continue
        frame = decode_image(fetch(), name)  # (H, W, 3), BGR
        if clip is None:
            clip = np.empty((len(positions), *frame.shape), dtype=np.uint8)
        if frame.shape != clip.shape[1:]:
            (height, width), (first_height, first_width) = frame.shape[:2], clip.shape[1:3]
            wanted = f"{first_width}x{first_height}, the size of the clip's other frames"
            raise DataError(f"{name} must be {wanted}, got {width}x{height}")
        cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=clip[index])
        decoded[position] = index
    assert clip is not None
    return clip


def decode_image(data: np.ndarray, name: str) -> np.ndarray:
    """Decodes a JPEG or PNG image.

    Args:
        data: uint8 (bytes,), the content of the file.
        name: of the image in messages.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        DataError: the image does not decode or is cut short.
    """
    if _is_cut_short(data.tobytes()):
        raise DataError(f"{name} is broken: the file ends before the picture does ({data.size} bytes)")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:
        image = None
    if image is None:
        raise DataError(f"{name} is broken: it does not decode as an image ({data.size} bytes)")
    return image


def _read_file(file: Path) -> np.ndarray:
    """The content of a frame's file, uint8 (bytes,)."""
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
    return data.startswith(_START_OF_IMAGE) and data.rfind(_END_OF_IMAGE) < data.rfind(_START_OF_SCAN)
