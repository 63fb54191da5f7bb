"""Writer of the SHARDS format: many videos, as extracted frames or as they are, into tar files with an index."""

import io
import json
import os
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.errors import DataError
from common.files import atomic_write, digest, write_text
from datasets.frames import FRAME_TEMPLATE
from datasets.preparation.writers import RECORD_FILE, lock_folder
from datasets.shard_index import INDEX_FILE, Shard, format_index, parse_index
from datasets.shards import ROW

RECORDS_FILE = "records.jsonl"  # path and record of each video, for the next extraction; reading does without it
TABLE_NAME = "__table__"  # WebDataset skips members with two underscores around


class ShardWriter:
    """Writes many videos into tar files `root/00000.tar`, `root/00001.tar` and so on, and their index.

    Finished videos wait in their folders until they fill a shard. The shard is then written at once, and after it the
    index, so that a killed process leaves whole shards and folders that need not be extracted again. A shard never
    changes. A video that is added again is in two shards, and the index counts the later one.

    The members are named as the files of the FRAME format, `path/00001.jpg`, or as the video files, so that `tar`
    unpacks shards to the format FRAME or VIDEO; `__table__` at the end says where each of them begins.

    Args:
        root: folder of the files; it is made if there is none.
        shard_bytes: size of a shard, about.
        holds: "frames", or "videos" for the video files as they are.

    Raises:
        DataError: the index cannot be read, the root holds the other kind of shards, or another process writes to it.
    """

    def __init__(self, root: Path, shard_bytes: int, holds: Literal["frames", "videos"] = "frames") -> None:
        self.root, self.shard_bytes, self.holds = root, shard_bytes, holds
        root.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(root, "shards")
        index, records = root / INDEX_FILE, root / RECORDS_FILE
        self._shards = parse_index(index.read_bytes(), str(index)) if index.exists() else []
        if others := {shard.holds for shard in self._shards} - {holds}:
            os.close(self._lock)
            raise DataError(f"{root} holds shards of {others.pop()}, not of {holds}: give another OUT_DIR")
        there = {path for shard in self._shards for path in shard.videos}
        lines = records.read_bytes().splitlines() if records.exists() else []
        self._records = {path: record for path, record in map(_parse_line, lines) if path in there}
        self._waiting: dict[str, Path] = {}
        self._waiting_bytes = 0

    def read_record(self, path: str) -> bytes:
        """The record of a video, see `records.parse_record`; empty if the video is not there."""
        return json.dumps(self._records[path]).encode() if path in self._records else b""

    def add(self, path: str, folder: Path) -> None:
        """Adds a video.

        Args:
            path: of the video in the list file.
            folder: written with `open_writer`, with a record. It is removed when the shard of the video is written.
        """
        self._waiting[path] = folder
        if self.holds == "videos":
            self._waiting_bytes += _read_record(folder)["bytes"]
        else:
            self._waiting_bytes += sum(file.stat().st_size for file in os.scandir(folder))
        if self._waiting_bytes >= self.shard_bytes:
            self.finish()

    def finish(self) -> None:
        """Writes the videos that wait to a shard, however few they are."""
        if not self._waiting:
            return
        records = {path: _read_record(folder) for path, folder in self._waiting.items()}
        file = self.root / f"{len(self._shards):05d}.tar"
        self._shards.append(_write_shard(file, self.holds, self._waiting, records))
        self._records |= records
        with open(self.root / RECORDS_FILE, "a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(item) + "\n" for item in records.items())
        write_text(self.root / INDEX_FILE, format_index(self._shards))
        for folder in self._waiting.values():
            shutil.rmtree(folder)
        self._waiting, self._waiting_bytes = {}, 0

    def close(self) -> None:
        """Lets other processes write to the root. Videos that wait stay in their folders."""
        os.close(self._lock)


def _write_shard(file: Path, holds: str, folders: dict[str, Path], records: dict[str, dict[str, Any]]) -> Shard:
    """Writes a shard with the frames 1, 2, 3, ... of each folder, or with the video files of the records."""
    rows = []
    with atomic_write(file) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for path, folder in folders.items():
            if holds == "videos":
                rows.append(_add(archive, path, Path(records[path]["path"]).read_bytes()))
                continue
            for number in range(1, records[path]["frames"] + 1):
                name = FRAME_TEMPLATE.format(number)
                rows.append(_add(archive, f"{path}/{name}", (folder / name).read_bytes()))
        offset, _, crc = _add(archive, TABLE_NAME, np.array(rows, dtype=ROW).tobytes())
    frames = {path: record["frames"] for path, record in records.items()}
    return Shard(file.name, file.stat().st_size, digest(file), offset, crc, holds, frames)


def _read_record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RECORD_FILE).read_bytes())


def _parse_line(line: bytes) -> tuple[str, dict[str, Any]]:
    """Path and record of a line; nothing of a damaged one, so that its video is extracted again."""
    try:
        path, record = json.loads(line)
        return (path, record) if isinstance(path, str) and isinstance(record["frames"], int) else ("", {})
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", {}


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> tuple[int, int, int]:
    """Adds a member without owner and time. Returns its row: where its data begins, its size, its CRC-32."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
    return archive.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, len(data), zlib.crc32(data)
