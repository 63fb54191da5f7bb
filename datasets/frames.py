"""The FRAME format: a folder of numbered JPEG (or PNG) files for each video."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from string import Formatter

import cv2
import numpy as np

from common.errors import DataError
from datasets.annotations import check_relative_path
from datasets.limits import check_clip_size, read_regular_file
from datasets.pictures import decode_image

FRAME_TEMPLATE = "{:05d}.jpg"  # the release's file names, 1-based

_LONGEST_NAME = 255  # bytes of a file name on all usual systems


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
                damaged, is too large or has another size than the first one.
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
        return contiguous(self._numbers(video_path), self.first)

    def uncounted(self, video_path: str) -> str:
        """Which frames `count` leaves out, in a sentence; empty if there are none. Raises as `count`."""
        return describe_uncounted(self._numbers(video_path), self.first)

    def _numbers(self, video_path: str) -> set[int]:
        check_relative_path(video_path)
        folder = self.root / video_path
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(f"there is no folder {folder}") from None
        except OSError as error:
            raise DataError(f"the folder {folder} cannot be read: {error.strerror}") from None
        return frame_numbers(names, self.template)

    def _file(self, video_path: str, position: int) -> Path:
        return self.root / video_path / self.template.format(self.first + position)


def check_template(template: str) -> None:
    """Checks the file name or key of a frame.

    Raises:
        ValueError: template has no placeholder for a number, or gives names that are too long.
    """
    if any(int(digits) > _LONGEST_NAME for digits in re.findall(r"[0-9]{1,18}", template.partition("{")[2])):
        raise ValueError(f"the frame template must give names of at most {_LONGEST_NAME} bytes, got {template!r}")
    try:
        usable = template.format(1) != template.format(2)
    except (AttributeError, IndexError, KeyError, ValueError):
        usable = False
    if not usable:
        raise ValueError(f"the frame template must hold a number like '{{:05d}}.jpg', got {template!r}")


def frame_numbers(names: Iterable[str], template: str) -> set[int]:
    """The numbers of the frames among some file names or keys."""
    literals = [(text, field is not None) for text, field, *_ in Formatter().parse(template)]
    pattern = re.compile("".join(re.escape(text) + "([0-9]+)" * is_number for text, is_number in literals))
    numbers = set()
    for name in names:
        # More digits than a file has frames are another number in the name.
        if (match := pattern.fullmatch(name)) and len(match[1]) < 19 and template.format(int(match[1])) == name:
            numbers.add(int(match[1]))
    return numbers


def contiguous(numbers: Collection[int], first: int) -> int:
    """How many numbers follow each other without a gap, from the first one."""
    count = 0
    while first + count in numbers:
        count += 1
    return count


def describe_uncounted(numbers: Collection[int], first: int) -> str:
    """Which numbers are before the first one or after a gap, in a sentence; empty if there are none."""
    count = contiguous(numbers, first)
    outside = sorted(number for number in numbers if not first <= number < first + count)
    if not outside:
        return ""
    if outside[0] < first:
        return f"frame {outside[0]} is there too, before the first one, {first} (dataset.first_frame)"
    gap = f"frame {first + count} is missing, but frame {outside[0]} is there"
    return f"{gap}: only the {count} frames before the gap count, {len(outside)} do not"


def decode_clip(positions: Sequence[int], frames: Iterable[tuple[str, Callable[[], np.ndarray]]]) -> np.ndarray:
    """Decodes the frames of a clip; a repeated position is fetched and decoded once.

    Args:
        positions: of the frames, at least one. Equal positions mean the same frame.
        frames: for each position, the name of the frame in messages, and a function that returns its JPEG or PNG data,
            uint8 (bytes,).

    Returns:
        uint8 (T, H, W, 3), RGB, T = len(positions).

    Raises:
        DataError: a frame does not decode, is damaged, is too large or has another size than the first one.
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
            check_clip_size(name, len(positions), frame.shape[1], frame.shape[0])
            clip = np.empty((len(positions), *frame.shape), dtype=np.uint8)
        if frame.shape != clip.shape[1:]:
            (height, width), (first_height, first_width) = frame.shape[:2], clip.shape[1:3]
            wanted = f"{first_width}x{first_height}, the size of the clip's other frames"
            raise DataError(f"{name} must be {wanted}, got {width}x{height}")
        cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=clip[index])
        decoded[position] = index
    assert clip is not None
    return clip


def _read_file(file: Path) -> np.ndarray:
    """The content of a frame's file, uint8 (bytes,)."""
    try:
        # Not cv2.imread, which cannot open every name on every system.
        return np.frombuffer(read_regular_file(file, f"the frame {file}"), dtype=np.uint8)
    except FileNotFoundError:
        where = "" if file.parent.is_dir() else f": there is no folder {file.parent}"
        raise DataError(f"the frame {file} is missing{where}") from None
    except OSError as error:
        raise DataError(f"the frame {file} cannot be read: {error.strerror}") from None
