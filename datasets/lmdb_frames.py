"""Frames in LMDB: one environment a video (LMDB, the release's storage) and many videos in few files (PACKED)."""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lmdb
import numpy as np

from common.errors import DataError
from datasets.annotations import check_relative_path
from datasets.frames import check_template, stack_frames

KEY = "{:06d}.jpg"  # the release's, 1-based
SHARD = "*.lmdb"  # the files of a packed folder
LONGEST_KEY = 511  # bytes: LMDB's limit

# Environments that stay open, in each process. A descriptor and a mapping each, of which a process has about 1000.
_OPEN_AT_MOST = 256


class LmdbFolders:
    """Frames of videos in one LMDB environment a video, `root/video_path`, a folder or a single file.

    root: the folder that every video's path is relative to.
    template: the key of a frame, given its number: "{:06d}.jpg" in the release.
    first: the number of a video's first frame: 1 in the release.

    Raises DataError if root is no folder, ValueError if the template has no place for the number.
    """

    def __init__(self, root: str | os.PathLike[str], template: str = KEY, first: int = 1) -> None:
        check_template(template)
        self.root = Path(root)
        self.template = template
        self.first = first
        if not self.root.is_dir():
            raise DataError(f"the folder of videos {self.root} does not exist or is no folder")

    def read(self, video_path: str, positions: Sequence[int]) -> np.ndarray:
        """The frames at 0-based `positions` as uint8 (T, H, W, 3), RGB; see `FrameFolder.read`."""
        check_relative_path(video_path)
        file = self.root / video_path
        with _reading(file) as transaction:
            keys = [self.template.format(self.first + position) for position in positions]
            return stack_frames(
                positions, ((_name(key, file), partial(_value, transaction, key, file)) for key in keys)
            )

    def encoded(self, video_path: str, position: int) -> bytes:
        """One frame as it is stored. Raises DataError if it is missing."""
        check_relative_path(video_path)
        file = self.root / video_path
        with _reading(file) as transaction:
            return _value(transaction, self.template.format(self.first + position), file).tobytes()

    def count(self, video_path: str) -> int:
        """How many frames follow one another from the first on. Raises DataError if there is no environment."""
        check_relative_path(video_path)
        with _reading(self.root / video_path) as transaction:
            return _count(transaction, self.template, self.first)


class PackedFrames:
    """Frames of many videos in few LMDB files `root/*.lmdb`, under keys `video_path/000001.jpg`.

    A video lies in one of the files, whichever: a look-up costs a few microseconds in each.

    root: the folder of the files. template, first: as for `LmdbFolders`, the key's part behind the video's path.

    Raises DataError if root holds no such file, ValueError if the template has no place for the number.
    """

    def __init__(self, root: str | os.PathLike[str], template: str = KEY, first: int = 1) -> None:
        check_template(template)
        self.root = Path(root)
        self.template = template
        self.first = first
        self.files = sorted(self.root.glob(SHARD))
        if not self.files:
            raise DataError(f"the folder {self.root} holds no packed frames ({SHARD})")

    def read(self, video_path: str, positions: Sequence[int]) -> np.ndarray:
        """The frames at 0-based `positions` as uint8 (T, H, W, 3), RGB; see `FrameFolder.read`."""
        file = self._file(video_path)
        with _reading(file) as transaction:
            keys = [f"{video_path}/{self.template.format(self.first + position)}" for position in positions]
            return stack_frames(
                positions, ((_name(key, file), partial(_value, transaction, key, file)) for key in keys)
            )

    def encoded(self, video_path: str, position: int) -> bytes:
        """One frame as it is stored. Raises DataError if it is missing."""
        file = self._file(video_path)
        with _reading(file) as transaction:
            return _value(transaction, f"{video_path}/{self.template.format(self.first + position)}", file).tobytes()

    def count(self, video_path: str) -> int:
        """How many frames follow one another from the first on. Raises DataError if the video is in no file."""
        with _reading(self._file(video_path)) as transaction:
            # A path may hold braces, so the template stays its own.
            return _count(transaction, self.template, self.first, prefix=f"{video_path}/")

    def _file(self, video_path: str) -> Path:
        check_relative_path(video_path)
        key = f"{video_path}/{self.template.format(self.first)}".encode()
        if len(key) <= LONGEST_KEY:
            for file in self.files:
                with _reading(file) as transaction:
                    if transaction.get(key) is not None:
                        return file
        raise DataError(f"the video {video_path!r} is missing from the packed frames in {self.root}")


class _Environments:
    """The environments this process has open: LMDB allows each to be opened once a process, and none after a fork."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.open: OrderedDict[str, tuple[lmdb.Environment, tuple[int, int]]] = OrderedDict()

    def get(self, file: Path) -> lmdb.Environment:
        if self.process != os.getpid():
            # Copies of the parent's, which are not to be read here. Closing them leaves the parent's alone: without a
            # lock file an environment is nothing but this process's own descriptor and mapping.
            for inherited, _ in self.open.values():
                inherited.close()
            self.process, self.open = os.getpid(), OrderedDict()
        name = os.path.realpath(file)
        data = os.path.join(name, "data.mdb") if os.path.isdir(name) else name
        try:
            status = os.stat(data)
        except OSError as error:
            raise DataError(f"the LMDB environment {file} cannot be opened: {error.strerror}") from None
        identity = status.st_dev, status.st_ino  # another file may have taken its place
        if name in self.open:
            environment, known = self.open[name]
            if known == identity:
                self.open.move_to_end(name)
                return environment
            self.open.pop(name)[0].close()
        try:
            # No lock file: the data may be read-only, and nobody writes while networks are trained.
            environment = lmdb.open(name, subdir=data != name, readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise DataError(f"the LMDB environment {file} cannot be opened: {_reason(error)}") from None
        self.open[name] = environment, identity
        if len(self.open) > _OPEN_AT_MOST:
            self.open.popitem(last=False)[1][0].close()
        return environment


_environments = _Environments()


def close_environments() -> None:
    """Close what this process has open, so that the files can be written to or removed."""
    if _environments.process == os.getpid():
        while _environments.open:
            _environments.open.popitem()[1][0].close()


@contextmanager
def _reading(file: Path) -> Iterator[lmdb.Transaction]:
    environment = _environments.get(file)
    try:
        # Values stay in the mapped file until they are decoded: only the pages of the frames wanted are touched.
        with environment.begin(buffers=True) as transaction:
            yield transaction
    except lmdb.Error as error:
        raise DataError(f"the LMDB environment {file} cannot be read: {_reason(error)}") from None


def _value(transaction: lmdb.Transaction, key: str, file: Path) -> np.ndarray:
    # An empty key, or one that is too long, is an error of LMDB's: such a frame cannot be there.
    value = transaction.get(key.encode()) if 0 < len(key.encode()) <= LONGEST_KEY else None
    if value is None:
        raise DataError(f"{_name(key, file)} is missing")
    return np.frombuffer(value, dtype=np.uint8)


def _count(transaction: lmdb.Transaction, template: str, first: int, prefix: str = "") -> int:
    frames = 0
    while transaction.get((prefix + template.format(first + frames)).encode()) is not None:
        frames += 1
    return frames


def _name(key: str, file: Path) -> str:
    return f"the frame {key!r} of {file}"


def _reason(error: Exception) -> str:
    return str(error).rpartition(": ")[2]
