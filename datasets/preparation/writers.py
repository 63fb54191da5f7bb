"""Writers of extracted frames: files, an LMDB environment for each video, or many videos in few LMDB files."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from common.errors import DataError
from datasets.frames import FRAME_TEMPLATE, FrameFolder
from datasets.lmdb_files import check_environment
from datasets.lmdb_frames import KEY_TEMPLATE, MAX_KEY_BYTES, SHARD_PATTERN, LmdbFolders, close_environments
from datasets.readers import Format

# In the folder of each finished video: the number of its frames, the file that they come from, and the settings.
RECORD_FILE = "extracted.json"

_MAP_SIZE = 1 << 36  # bytes of address space, not of disk space, that one video may take

WriteFrame = Callable[[int, bytes], object]  # takes the number of a frame, 1, 2, 3, ..., and its JPEG data


@contextmanager
def open_writer(format: Format, folder: Path) -> Iterator[WriteFrame]:
    """Opens a folder for the frames of one video.

    Args:
        format: FRAME and SHARDS write files; LMDB and PACKED write an environment; VIDEO writes nothing.
        folder: empty.
    """
    if format in ("LMDB", "PACKED"):
        # No lock file: nobody reads before the folder has its final name.
        with lmdb.open(str(folder), map_size=_MAP_SIZE, lock=False) as environment:
            with environment.begin(write=True) as transaction:
                yield lambda number, data: transaction.put(KEY_TEMPLATE.format(number).encode(), data)
    elif format in ("FRAME", "SHARDS"):
        # Not cv2.imwrite, which cannot write to every name.
        yield lambda number, data: (folder / FRAME_TEMPLATE.format(number)).write_bytes(data)
    else:
        yield lambda number, data: None


def has_frames(format: Format, folder: Path, num_frames: int) -> bool:
    """Whether a folder with a record still has all of its frames.

    Args:
        format: of the folder.
        folder: of one video.
        num_frames: of the video.
    """
    if format == "VIDEO":
        return True
    try:
        if format in ("FRAME", "SHARDS"):
            return FrameFolder(folder.parent).count(folder.name) >= num_frames
        return LmdbFolders(folder.parent).count(folder.name) >= num_frames
    except DataError:
        return False
    finally:
        close_environments()  # the folder may be removed


def lock_folder(root: Path, what: str) -> int:
    """Locks a folder of many videos for this process. Returns a descriptor, which ends the lock when it is closed.

    Args:
        root: the folder.
        what: it holds, for messages.

    Raises:
        DataError: another process writes to it.
    """
    lock = os.open(root, os.O_RDONLY)
    # Workers of a killed run hold its lock for up to a second after it.
    for attempts_left in reversed(range(20)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if not attempts_left:
                os.close(lock)
                raise DataError(f"another process is writing to the {what} in {root}") from None
            time.sleep(0.1)
    return lock


class PackedWriter:
    """Writes many videos into few LMDB files `root/00000.lmdb`, `root/00001.lmdb` and so on.

    A video is added in one transaction: it is there completely or not at all, whenever the process is killed.

    Args:
        root: folder of the files; it is made if there is none.
        shard_bytes: a new file begins when the last one is larger.

    Raises:
        DataError: a file is no LMDB environment, or another process writes to the same root.
    """

    def __init__(self, root: Path, shard_bytes: int) -> None:
        self.root = root
        self.shard_bytes = shard_bytes
        root.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(root, "packed frames")
        self._shards = [(file, self._open(file)) for file in sorted(root.glob(SHARD_PATTERN))]

    def read_record(self, path: str) -> bytes:
        """The record of a video, see `records.parse_record`; empty if the video is not there."""
        for _, shard in self._shards:
            with shard.begin() as transaction:
                if (value := transaction.get(_key(path, RECORD_FILE))) is not None:
                    return value
        return b""

    def add(self, path: str, folder: Path) -> None:
        """Moves the frames and the record of a video into the files; replaces what they had of this video.

        Args:
            path: of the video in the list file.
            folder: written with `open_writer`, with a record. It is removed.
        """
        self._remove(path)
        if not self._shards or os.path.getsize(self._shards[-1][0]) > self.shard_bytes:
            file = self.root / f"{len(self._shards):05d}.lmdb"
            self._shards.append((file, self._open(file)))
        with lmdb.open(str(folder), readonly=True, lock=False) as source:
            with self._shards[-1][1].begin(write=True) as transaction, source.begin(buffers=True) as frames:
                for key, data in frames.cursor():
                    transaction.put(_key(path, bytes(key).decode()), data)
                transaction.put(_key(path, RECORD_FILE), (folder / RECORD_FILE).read_bytes())
        shutil.rmtree(folder)

    def finish(self) -> None:
        """Does nothing: every video that was added is there."""

    def close(self) -> None:
        """Closes the files, and lets other processes write to the root."""
        for _, shard in self._shards:
            shard.close()
        os.close(self._lock)

    def _remove(self, path: str) -> None:
        for _, shard in self._shards:
            with shard.begin(write=True) as transaction:
                if (value := transaction.get(_key(path, RECORD_FILE))) is None:
                    continue
                for number in range(1, json.loads(value)["frames"] + 1):
                    transaction.delete(_key(path, KEY_TEMPLATE.format(number)))
                transaction.delete(_key(path, RECORD_FILE))

    def _open(self, file: Path) -> lmdb.Environment:
        map_size = max(2 * self.shard_bytes, 1 << 30) + _MAP_SIZE
        if file.exists():  # it is mapped: damage would end the process
            check_environment(str(file), str(file))
        try:
            return lmdb.open(str(file), subdir=False, lock=False, map_size=map_size)
        except lmdb.Error as error:
            raise DataError(f"{file} cannot be written to: {str(error).rpartition(': ')[2]}") from None


def check_packed_path(path: str) -> None:
    """Checks that a path fits into the keys of packed frames.

    Raises:
        DataError: the path is too long.
    """
    if (length := len(_key(path, RECORD_FILE))) > MAX_KEY_BYTES:
        longest = MAX_KEY_BYTES - (length - len(path.encode()))
        raise DataError(f"the path must have at most {longest} bytes to be packed, got {len(path.encode())}")


def _key(path: str, name: str) -> bytes:
    return f"{path}/{name}".encode()
