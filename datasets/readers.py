"""What the storages of frames have in common, and which `dataset.format` names which."""

import os
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from datasets.frames import FrameFolder
from datasets.lmdb_frames import KEY, LmdbFolders, PackedFrames
from datasets.video_files import VideoFiles

Format = Literal["FRAME", "LMDB", "PACKED", "VIDEO"]
FORMATS: tuple[Format, ...] = ("FRAME", "LMDB", "PACKED", "VIDEO")


class Reader(Protocol):
    """Frames of videos below a root. A reader can be pickled and copied into other processes at any time."""

    def read(self, video_path: str, positions: Sequence[int]) -> np.ndarray:
        """The frames at 0-based positions of a video, uint8 (T, H, W, 3), RGB; DataError where they are not."""
        ...

    def encoded(self, video_path: str, position: int) -> bytes:
        """Bytes that are the same where the frame (VIDEO: the video) is the same."""
        ...

    def count(self, video_path: str) -> int:
        """How many frames the video really has; DataError if it is missing."""
        ...


def open_reader(
    format: Format, root: str | os.PathLike[str], *, frame_template: str = "", first_frame: int = 1
) -> Reader:
    """The reader of a format.

    format: FRAME, a folder of pictures a video; LMDB, an environment a video; PACKED, many videos in few files; VIDEO,
        the video files themselves.
    frame_template: name (FRAME) or key (LMDB, PACKED) of a frame, given its number; empty: the format's own.
    first_frame: the number of a video's first frame. Both are of no use for VIDEO.

    Raises DataError if the root is none of this format, ValueError for an unknown format or a bad template.
    """
    if format == "FRAME":
        return FrameFolder(root, frame_template or "{:05d}.jpg", first_frame)
    if format == "LMDB":
        return LmdbFolders(root, frame_template or KEY, first_frame)
    if format == "PACKED":
        return PackedFrames(root, frame_template or KEY, first_frame)
    if format == "VIDEO":
        return VideoFiles(root)
    raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
