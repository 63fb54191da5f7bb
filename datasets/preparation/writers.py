"""Where extracted frames are written: folders, one LMDB environment a video, many videos in few LMDB files."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from common.errors import DataError
from datasets.lmdb_frames import KEY, LONGEST_KEY, SHARD

RECORD = "extracted.json"  # beside the frames of every finished video: what they were made from, and how

_ROOM = 1 << 36  # bytes: the address space, not the disk space, that one video may take
_FRAME = "{:05d}.jpg"


Store = Callable[[int, bytes], object]  # takes the numbers 1, 2, 3, ... and JPEG data of a video's frames


@contextmanager
def storing(format: str, folder: Path) -> Iterator[Store]:
    """A store of one video's frames in an empty folder: files (FRAME), an environment (LMDB, PACKED) or nothing."""
    if format in ("LMDB", "PACKED"):
        # No lock file: nobody reads before the folder has its final name.
        with lmdb.open(str(folder), map_size=_ROOM, lock=False) as environment:
            with environment.begin(write=True) as transaction:
                yield lambda number, data: transaction.put(KEY.format(number).encode(), data)
    elif format == "FRAME":
        # Not cv2.imwrite, which cannot write to every name.
        yield lambda number, data: (folder / _FRAME.format(number)).write_bytes(data)
    else:
        yield lambda number, data: None


def is_stored(format: str, folder: Path, frames: int) -> bool:
    """Whether a folder that has a record still has its frames: a look at the last one, or at the environment."""
    if format == "FRAME":
        return (folder / _FRAME.format(frames)).exists()
    return format == "VIDEO" or (folder / "data.mdb").exists()


class Pack:
    """Many videos in few LMDB files `root/00000.lmdb`, ..., a new one when the last is larger than shard_bytes.

    A video is added in one transaction: it is there as a whole or not at all, whenever the process is killed.
    Raises DataError where a file is no LMDB environment, and where another process writes to the same root.
    """

    def __init__(self, root: Path, shard_bytes: int) -> None:
        self.root = root
        self.shard_bytes = shard_bytes
        root.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(root, os.O_RDONLY)
        # Workers of a run that was killed hold its lock for up to a second more.
        for left in reversed(range(20)):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if not left:
                    os.close(self._lock)
                    raise DataError(f"another process is writing to the packed frames in {root}") from None
                time.sleep(0.1)
        self._shards = [(file, self._open(file)) for file in sorted(root.glob(SHARD))]

    def record(self, path: str) -> dict[str, Any]:
        """What a video was made from and how; empty if it is not there."""
        for _, shard in self._shards:
            with shard.begin() as transaction:
                if (value := transaction.get(_key(path, RECORD))) is not None:
                    return json.loads(value)
        return {}

    def add(self, path: str, folder: Path) -> None:
        """Move a video's frames and record in, from where `storing` put them; replaces what the video had before."""
        self._remove(path)
        if not self._shards or os.path.getsize(self._shards[-1][0]) > self.shard_bytes:
            file = self.root / f"{len(self._shards):05d}.lmdb"
            self._shards.append((file, self._open(file)))
        with lmdb.open(str(folder), readonly=True, lock=False) as source:
            with self._shards[-1][1].begin(write=True) as transaction, source.begin(buffers=True) as frames:
                for key, data in frames.cursor():
                    transaction.put(_key(path, bytes(key).decode()), data)
                transaction.put(_key(path, RECORD), (folder / RECORD).read_bytes())
        shutil.rmtree(folder)

    def close(self) -> None:
        for _, shard in self._shards:
            shard.close()
        os.close(self._lock)

    def _remove(self, path: str) -> None:
        for _, shard in self._shards:
            with shard.begin(write=True) as transaction:
                if (value := transaction.get(_key(path, RECORD))) is None:
                    continue
                for number in range(1, json.loads(value)["frames"] + 1):
                    transaction.delete(_key(path, KEY.format(number)))
                transaction.delete(_key(path, RECORD))

    def _open(self, file: Path) -> lmdb.Environment:
        try:
            return lmdb.open(str(file), subdir=False, lock=False, map_size=max(2 * self.shard_bytes, 1 << 30) + _ROOM)
        except lmdb.Error as error:
            raise DataError(f"{file} cannot be written to: {str(error).rpartition(': ')[2]}") from None


def check_packed_path(path: str) -> None:
    """Raise DataError if the path is too long for the keys of packed frames."""
    if (length := len(_key(path, RECORD))) > LONGEST_KEY:
        longest = LONGEST_KEY - (length - len(path.encode()))
        raise DataError(f"the path must have at most {longest} bytes to be packed, got {len(path.encode())}")


def _key(path: str, name: str) -> bytes:
    return f"{path}/{name}".encode()
