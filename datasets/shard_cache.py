"""Shards as local files: those of a folder where they are, those of a URL in a cache of bounded size."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from common.files import is_url, make_folder
from datasets.downloads import download
from datasets.limits import check_regular_file
from datasets.shard_index import Shard, ShardError, place_of

_PAUSE = 0.05  # seconds between looks at a cache whose files are all in use


def default_folder() -> Path:
    """Where shards are kept if the configuration names no folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sifa" / "shards"


class ShardCache:
    """The shards below a root, as files that can be read.

    The files of a cache are named by their SHA-256, so that several data sets, and all processes of a machine, share
    it. One process downloads a shard, the others wait for it. Before that, the shards that were used least recently are
    removed until all files together fit the limit; one that is being read stays.

    Args:
        root: a folder or a URL.
        folder: of the cache; None: `default_folder()`.
        limit: bytes that all files of the cache have together.
    """

    def __init__(self, root: str, folder: Path | None, limit: int) -> None:
        self.root, self.folder, self.limit = root, folder or default_folder(), limit

    @contextmanager
    def open(self, shard: Shard) -> Iterator[BinaryIO]:
        """Opens a shard; within the `with` block it is not removed.

        Raises:
            ShardError: it is missing, cannot be downloaded, is damaged, or does not fit into the cache.
        """
        with self._open_cached(shard) if is_url(self.root) else _open_file(place_of(self.root, shard.file)) as file:
            if (size := os.fstat(file.fileno()).st_size) != shard.bytes:
                raise ShardError(f"the shard {file.name} has {size} bytes, the index says {shard.bytes}: copy it again")
            yield file

    def has(self, shard: Shard) -> bool:
        """Whether a shard is a local file, or need not be one."""
        return not is_url(self.root) or self._file(shard).exists()

    def fetch(self, shard: Shard) -> None:
        """Makes a shard a local file. Raises as `open`."""
        with self.open(shard):
            pass

    def _open_cached(self, shard: Shard) -> BinaryIO:
        file = self._file(shard)
        while True:
            with suppress(FileNotFoundError):
                opened = open(file, "rb")  # noqa: SIM115 (the caller closes it)
                fcntl.flock(opened, fcntl.LOCK_SH)  # until it is closed
                if os.fstat(opened.fileno()).st_size == shard.bytes:
                    os.utime(file, ns=(time.time_ns(),) * 2)  # of its last use, finer than the system's own
                    return opened
                file.unlink()  # the machine went down while it was written
            self._download(shard)

    def _download(self, shard: Shard) -> None:
        """Downloads a shard, unless another process does: then waits until it has."""
        url = place_of(self.root, shard.file)
        if shard.bytes > self.limit:
            raise ShardError(
                f"the shard {url} has {shard.bytes} bytes, the cache may have {self.limit}: "
                "raise dataset.shard_cache_gb"
            )
        make_folder(self.folder)
        file = self._file(shard)
        with _locked(file.with_suffix(".lock")) as lock:
            if file.exists():
                return
            part = file.with_suffix(".part")
            try:
                self._reserve(shard.bytes, lock)
                download(url, part, bytes=shard.bytes, sha256=shard.sha256)
                part.rename(file)
            finally:
                part.unlink(missing_ok=True)

    def _reserve(self, bytes: int, lock: BinaryIO) -> None:
        """Removes files until a new one fits, and writes its size into its lock."""
        while True:
            with _locked(self.folder / "all.lock", remove=False):
                if self._make_room(bytes):
                    lock.write(b"%d" % bytes)
                    lock.flush()
                    return
            time.sleep(_PAUSE)  # every file is being read, or others download at the same time

    def _make_room(self, bytes: int) -> bool:
        """Whether there is room for so many bytes, after files were removed. The folder must be locked."""
        files = []
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):
                if entry.name.endswith(".tar"):
                    files.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
                elif entry.name.endswith(".lock") and entry.name != "all.lock":
                    bytes += _reserved(Path(entry.path))
        excess = sum(size for _, size, _ in files) + bytes - self.limit
        for _, size, path in sorted(files):
            if excess <= 0:
                break
            with suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
                excess -= size
        return excess <= 0

    def _file(self, shard: Shard) -> Path:
        return self.folder / f"{shard.sha256}.tar"


def _open_file(path: str) -> BinaryIO:
    check_regular_file(path, f"the shard {path}")
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise ShardError(f"the shard {path} is missing") from None
    except OSError as error:
        raise ShardError(f"the shard {path} cannot be opened: {error.strerror}") from None


@contextmanager
def _locked(path: Path, *, remove: bool = True) -> Iterator[BinaryIO]:
    """Locks a file for this process alone, and waits for it. The lock of a killed process ends with it."""
    while True:
        file = open(path, "a+b")  # noqa: SIM115 (another one may be tried)
        fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                break
        file.close()  # its last holder has removed it
    with file:
        file.truncate(0)
        try:
            yield file
        finally:
            if remove:
                path.unlink(missing_ok=True)


def _reserved(lock: Path) -> int:
    """The bytes that a process downloads; what a killed process left is removed."""
    with open(lock, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return int(file.read() or 0)
        lock.with_suffix(".part").unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
        return 0
