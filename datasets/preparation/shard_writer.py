"""Writer of the SHARDS format: extracted frames of many videos into tar files, with an index."""

import io
import json
import os
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from common.files import atomic_write, digest, write_text
from datasets.frames import FRAME_TEMPLATE
from datasets.preparation.writers import RECORD_FILE, lock_folder
from datasets.shard_index import INDEX_FILE, Shard, format_index, parse_index
from datasets.shards import ROW

RECORDS_FILE = "records.json"  # of all videos, for the extraction alone: nobody needs it for reading
TABLE_NAME = "__table__"  # WebDataset skips members with two underscores around


class ShardWriter:
    """Writes many videos into tar files `root/00000.tar`, `root/00001.tar` and so on, and their index.

    Finished videos wait in their folders until they fill a shard. The shard is then written at once, and after it the
    index, so that a killed process leaves whole shards and folders that need not be extracted again. A shard never
    changes. A video that is added again is in two shards, and the index counts the later one.

    The members are named as the files of the FRAME format, `path/00001.jpg`, so that `tar` unpacks shards to that
    format; `__table__` at the end says where each of them begins.

    Args:
        root: folder of the files; it is made if there is none.
        shard_bytes: frames of a shard together.

    Raises:
        DataError: the index cannot be read, or another process writes to the same root.
    """

    def __init__(self, root: Path, shard_bytes: int) -> None:
        self.root, self.shard_bytes = root, shard_bytes
        root.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(root, "shards")
        index, records = root / INDEX_FILE, root / RECORDS_FILE
        self._shards = parse_index(index.read_bytes(), str(index)) if index.exists() else []
        self._records: dict[str, dict[str, Any]] = json.loads(records.read_bytes()) if records.exists() else {}
        there = {path for shard in self._shards for path in shard.videos}
        self._records = {path: record for path, record in self._records.items() if path in there}
        self._waiting: dict[str, Path] = {}
        self._waiting_bytes = 0

    def read_record(self, path: str) -> bytes:
        """The record of a video, see `records.parse_record`; empty if the video is not there."""
        return json.dumps(self._records[path]).encode() if path in self._records else b""

    def add(self, path: str, folder: Path) -> None:
        """Adds the frames of a video.

        Args:
            path: of the video in the list file.
            folder: written with `open_writer`, with a record. It is removed when the shard of the video is written.
        """
        self._waiting[path] = folder
        self._waiting_bytes += sum(entry.stat().st_size for entry in os.scandir(folder))
        if self._waiting_bytes >= self.shard_bytes:
            self.finish()

    def finish(self) -> None:
        """Writes the videos that wait to a shard, however few they are."""
        if not self._waiting:
            return
        records = {path: json.loads((folder / RECORD_FILE).read_bytes()) for path, folder in self._waiting.items()}
        frames = {path: record["frames"] for path, record in records.items()}
        self._shards.append(_write_shard(self.root / f"{len(self._shards):05d}.tar", self._waiting, frames))
        self._records |= records
        write_text(self.root / RECORDS_FILE, json.dumps(self._records))
        write_text(self.root / INDEX_FILE, format_index(self._shards))
        for folder in self._waiting.values():
            shutil.rmtree(folder)
        self._waiting, self._waiting_bytes = {}, 0

    def close(self) -> None:
        """Lets other processes write to the root. Videos that wait stay in their folders."""
        os.close(self._lock)


def _write_shard(file: Path, folders: dict[str, Path], frames: dict[str, int]) -> Shard:
    """Writes a shard with the frames 1, 2, 3, ... of each folder."""
    rows = []
    with atomic_write(file) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for path, folder in folders.items():
            for number in range(1, frames[path] + 1):
                name = FRAME_TEMPLATE.format(number)
                rows.append(_add(archive, f"{path}/{name}", (folder / name).read_bytes()))
        table = np.array(rows, dtype=ROW).tobytes()
        offset, _, crc = _add(archive, TABLE_NAME, table)
    return Shard(file.name, file.stat().st_size, digest(file), offset, crc, frames)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> tuple[int, int, int]:
    """Adds a member without owner and time. Returns its row: where its data begins, its size, its CRC-32."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
    return archive.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, len(data), zlib.crc32(data)
