"""The formats of frames: what all readers have in common, and the reader for each `dataset.format`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np

from datasets.decoders import Decoder, DecoderDevice
from datasets.frames import FRAME_TEMPLATE, FrameFolder
from datasets.lmdb_frames import KEY_TEMPLATE, LmdbFolders, PackedFrames
from datasets.shards import CACHE_GB, ShardedVideos
from datasets.video_files import VideoFiles

Format = Literal["FRAME", "LMDB", "PACKED", "SHARDS", "VIDEO"]
FORMATS: tuple[Format, ...] = get_args(Format)


class Reader(Protocol):
    """Frames of videos below a root. A reader can be pickled and copied into other processes at any time."""

    def read(self, video_path: str, positions: Sequence[int]) -> np.ndarray:
        """Decodes frames of a video.

        Args:
            video_path: of the video, relative to the root.
            positions: of the frames, 0-based, at least one.

        Returns:
            uint8 (T, H, W, 3), RGB, T = len(positions).

        Raises:
            DataError: the video or a frame is missing or broken, or the path leaves the root.
            ValueError: positions is empty.
        """
        ...

    def fingerprint(self, video_path: str, position: int) -> bytes:
        """Bytes that are equal if the frame (VIDEO: the video file) is equal.

        Raises:
            DataError: the frame or the video is missing, or the path leaves the root.
        """
        ...

    def count(self, video_path: str) -> int:
        """How many frames a video really has.

        Raises:
            DataError: the video is missing, or the path leaves the root.
        """
        ...

    def uncounted(self, video_path: str) -> str:
        """Which frames `count` leaves out, because they are before the first number or after a gap in the numbers.

        Returns:
            A sentence; empty if there are none.

        Raises:
            DataError: the video is missing, or the path leaves the root.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """How the frames below a root are named, kept and decoded. Each format ignores what it has no use for.

    Args:
        frame_template: file name (FRAME) or key (LMDB, PACKED) of a frame, with a placeholder for its number; empty:
            the default of the format.
        first_frame: number of the first frame of a video (FRAME, LMDB, PACKED).
        shard_cache: folder for the shards of a URL; empty: see `datasets.shard_cache.default_folder`.
        shard_cache_gb: gigabytes that the files of this folder have together.
        decoder, decoder_device: for VIDEO and video files in SHARDS, see `VideoFiles`.
    """

    frame_template: str = ""
    first_frame: int = 1
    shard_cache: str = ""
    shard_cache_gb: float = CACHE_GB
    decoder: Decoder = "auto"
    decoder_device: DecoderDevice = "cpu"


USUAL = ReaderOptions()


def open_reader(
    format: Format,
    root: str | os.PathLike[str],
    options: ReaderOptions = USUAL,
    *,
    lengths: Mapping[str, int] | None = None,
) -> Reader:
    """The reader of a format.

    Args:
        format: FRAME, a folder of pictures for each video; LMDB, an environment for each video; PACKED, many videos in
            few files; SHARDS, many videos in tar files; VIDEO, the video files themselves.
        root: folder that the paths of videos are relative to; for SHARDS a URL, too.
        options: how the frames are named, kept and decoded.
        lengths: for VIDEO, see `VideoFiles`.

    Raises:
        DataError: root does not exist, or is not of this format, or the decoder cannot be used.
        ValueError: format is unknown, or frame_template has no placeholder for a number.
    """
    template, first_frame = options.frame_template, options.first_frame
    decoder, device = options.decoder, options.decoder_device
    if format == "FRAME":
        return FrameFolder(root, template or FRAME_TEMPLATE, first_frame)
    if format == "LMDB":
        return LmdbFolders(root, template or KEY_TEMPLATE, first_frame)
    if format == "PACKED":
        return PackedFrames(root, template or KEY_TEMPLATE, first_frame)
    if format == "SHARDS":
        cache = Path(options.shard_cache) if options.shard_cache else None
        return ShardedVideos(root, cache, round(options.shard_cache_gb * 1e9), decoder=decoder, device=device)
    if format == "VIDEO":
        return VideoFiles(root, decoder=decoder, device=device, lengths=lengths)
    raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
