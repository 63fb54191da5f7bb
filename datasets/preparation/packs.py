"""Folders that hold many videos in few files: which format a folder has, and the writer for it."""

import os
from contextlib import AbstractContextManager, closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import Protocol

from common.errors import DataError
from datasets.lmdb_frames import SHARD_PATTERN
from datasets.preparation.records import read_record
from datasets.preparation.shard_writer import ShardWriter
from datasets.preparation.writers import RECORD_FILE, PackedWriter
from datasets.readers import Format
from datasets.shard_index import INDEX_FILE

PACKS: tuple[Format, ...] = ("PACKED", "SHARDS")  # the formats with many videos in a file
STAGING = ".staging"  # below the folder: finished videos that are not in a file yet

_FILE_GB = {"PACKED": 32.0, "SHARDS": 0.25}  # a shard is downloaded as a whole
_MOST_FOLDERS = 10_000  # that are searched for a record


class Pack(Protocol):
    """Writer of many videos into few files."""

    def read_record(self, path: str) -> bytes:
        """The record of a video, see `records.parse_record`; empty if the video is not there."""
        ...

    def add(self, path: str, folder: Path) -> None:
        """Moves a finished video into the files.

        Args:
            path: of the video in the list file.
            folder: written with `open_writer`, with a record.
        """
        ...

    def finish(self) -> None:
        """Writes what still waits to be written."""
        ...

    def close(self) -> None:
        """Lets other processes write to the folder."""
        ...


def open_pack(
    format: Format, out_dir: Path, file_gb: float | None, *, keep_videos: bool = False
) -> AbstractContextManager[Pack | None]:
    """The writer of a folder, as a context; of None for a format with a file, or several, for each video.

    Args:
        format: of the folder.
        out_dir: the folder.
        file_gb: size of a file in gigabytes; None: the format's own.
        keep_videos: SHARDS holds the video files as they are, in place of frames.

    Raises:
        DataError: a file cannot be written to, or another process writes to the folder.
    """
    if format not in PACKS:
        return nullcontext()
    size = round((_FILE_GB[format] if file_gb is None else file_gb) * 1e9)
    if format == "PACKED":
        return closing(PackedWriter(out_dir, size))
    return closing(ShardWriter(out_dir, size, "videos" if keep_videos else "frames"))


def check_format(out_dir: Path, format: Format) -> None:
    """Raises DataError if an earlier run wrote frames of another format."""
    if (present := _format_of(out_dir)) not in ("", format):
        raise DataError(f"{out_dir} holds frames as {present}, not as {format}: give another OUT_DIR")


def _format_of(out_dir: Path) -> str:
    """The format that an earlier run wrote to a folder, or nothing. A packed file or the record of any video tells."""
    if any(path.is_file() for path in out_dir.glob(SHARD_PATTERN)):
        return "PACKED"
    if (out_dir / INDEX_FILE).is_file():
        return "SHARDS"
    # Where there is a record it is found soon; a search among millions of other frames would take too long.
    for folder, subfolders, names in islice(os.walk(out_dir), _MOST_FOLDERS):
        # Hidden folders are unfinished work of a killed run; they have no format yet.
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if RECORD_FILE in names and (record := read_record(Path(folder))):
            return str(record.get("format", "FRAME"))
    return ""
