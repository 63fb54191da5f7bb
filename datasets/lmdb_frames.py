"""Frames in LMDB: an environment for each video (LMDB, the release's format) or many videos in few files (PACKED)."""

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
from datasets.frames import check_template, decode_clip, describe_uncounted, frame_numbers
from datasets.limits import check_regular_file
from datasets.lmdb_files import check_environment

KEY_TEMPLATE = "{:06d}.jpg"  # the release's keys, 1-based
SHARD_PATTERN = "*.lmdb"  # the files of a packed folder
MAX_KEY_BYTES = 511  # LMDB's limit

# Environments that each process keeps open. Each takes a file descriptor, of which a process has about 1000.
_MAX_OPEN = 256


class LmdbFolders:
    """Frames of videos in an LMDB environment for each video, `root/video_path`, a folder or a single file.

    Args:
        root: folder that the paths of videos are relative to.
        template: key of a frame, with a placeholder for its number.
        first: number of the first frame of a video.

    Raises:
        DataError: root is no folder.
        ValueError: template has no placeholder for a number.
    """

    def __init__(self, root: str | os.PathLike[str], template: str = KEY_TEMPLATE, first: int = 1) -> None:
        check_template(template)
        self.root = Path(root)
        self.template = template
        self.first = first
        if not self.root.is_dir():
            raise DataError(f"the folder of videos {self.root} does not exist or is no folder")

    def read(self, video_path: str, positions: Sequence[int]) -> np.ndarray:
        """Decodes frames of a video: uint8 (T, H, W, 3), RGB. See `datasets.readers.Reader`."""
        check_relative_path(video_path)
        with _read_transaction(self.root / video_path) as transaction:
            keys = [self.template.format(self.first + position) for position in positions]
            return _read_clip(transaction, self.root / video_path, positions, keys)

    def fingerprint(self, video_path: str, position: int) -> bytes:
        """The frame as it is stored. See `datasets.readers.Reader`."""
        check_relative_path(video_path)
        file = self.root / video_path
        with _read_transaction(file) as transaction:
            return _read_frame(transaction, self.template.format(self.first + position), file).tobytes()

    def count(self, video_path: str) -> int:
        """How many frames follow each other without a gap in their numbers. See `datasets.readers.Reader`."""
        check_relative_path(video_path)
        with _read_transaction(self.root / video_path) as transaction:
            return _count_frames(transaction, self.template, self.first)

    def uncounted(self, video_path: str) -> str:
        """Which frames `count` leaves out. See `datasets.readers.Reader`."""
        check_relative_path(video_path)
        with _read_transaction(self.root / video_path) as transaction:
            return describe_uncounted(frame_numbers(_keys(transaction), self.template), self.first)


class PackedFrames:
    """Frames of many videos in few LMDB files `root/*.lmdb`, with keys `video_path/000001.jpg`.

    A video may be in any of the files; a look-up takes a few microseconds in each.

    Args:
        root: folder of the files.
        template: end of a frame's key, after the path of the video, with a placeholder for the number of the frame.
        first: number of the first frame of a video.

    Raises:
        DataError: root has no such file.
        ValueError: template has no placeholder for a number.
    """

    def __init__(self, root: str | os.PathLike[str], template: str = KEY_TEMPLATE, first: int = 1) -> None:
        check_template(template)
        self.root = Path(root)
        self.template = template
        self.first = first
        self.files = sorted(self.root.glob(SHARD_PATTERN))
        if not self.files:
            raise DataError(f"the folder {self.root} holds no packed frames ({SHARD_PATTERN})")

    def read(self, video_path: str, positions: Sequence[int]) -> np.ndarray:
        """Decodes frames of a video: uint8 (T, H, W, 3), RGB. See `datasets.readers.Reader`."""
        file = self._find(video_path)
        with _read_transaction(file) as transaction:
            return _read_clip(transaction, file, positions, [self._key(video_path, index) for index in positions])

    def fingerprint(self, video_path: str, position: int) -> bytes:
        """The frame as it is stored. See `datasets.readers.Reader`."""
        file = self._find(video_path)
        with _read_transaction(file) as transaction:
            return _read_frame(transaction, self._key(video_path, position), file).tobytes()

    def count(self, video_path: str) -> int:
        """How many frames follow each other without a gap in their numbers. See `datasets.readers.Reader`."""
        with _read_transaction(self._find(video_path)) as transaction:
            # Not one template of both: a path may contain braces.
            return _count_frames(transaction, self.template, self.first, prefix=f"{video_path}/")

    def uncounted(self, video_path: str) -> str:
        """Which frames `count` leaves out. See `datasets.readers.Reader`."""
        with _read_transaction(self._find(video_path)) as transaction:
            names = _keys(transaction, prefix=f"{video_path}/")
            return describe_uncounted(frame_numbers(names, self.template), self.first)

    def _key(self, video_path: str, position: int) -> str:
        return f"{video_path}/{self.template.format(self.first + position)}"

    def _find(self, video_path: str) -> Path:
        """The file that has the first frame of a video."""
        check_relative_path(video_path)
        key = self._key(video_path, 0).encode()
        if len(key) <= MAX_KEY_BYTES:
            for file in self.files:
                with _read_transaction(file) as transaction:
                    if transaction.get(key) is not None:
                        return file
        raise DataError(f"the video {video_path!r} is missing from the packed frames in {self.root}")


class _EnvironmentCache:
    """The open environments of this process. LMDB allows to open each once in a process, and to use none after a fork.

    Attributes:
        process: id of the process that opened the environments.
        environments: by the real path; with device, inode and size of the file.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.environments: OrderedDict[str, tuple[lmdb.Environment, tuple[int, int, int]]] = OrderedDict()

    def get(self, file: Path) -> lmdb.Environment:
        """Opens an environment, unless it is open.

        Args:
            file: a folder with data.mdb, or a single file.

        Raises:
            DataError: there is no such environment, or it cannot be opened.
        """
        if self.process != os.getpid():
            self._leave_parent()
        name = os.path.realpath(file)
        data = os.path.join(name, "data.mdb") if os.path.isdir(name) else name
        try:
            status = os.stat(data)
        except OSError as error:
            raise DataError(f"the LMDB environment {file} cannot be opened: {error.strerror}") from None
        identity = status.st_dev, status.st_ino, status.st_size  # the file may be another one than before
        if name in self.environments:
            environment, known_identity = self.environments[name]
            if known_identity == identity:
                self.environments.move_to_end(name)
                return environment
            self.environments.pop(name)[0].close()
        check_regular_file(data, f"the LMDB environment {file}")
        try:
            check_environment(data, f"the LMDB environment {file}")
            # No lock file: the data may be read-only, and nobody writes while networks are trained.
            environment = lmdb.open(name, subdir=data != name, readonly=True, lock=False, readahead=False)
        except OSError as error:
            raise DataError(f"the LMDB environment {file} cannot be opened: {error.strerror}") from None
        except lmdb.Error as error:
            raise DataError(f"the LMDB environment {file} cannot be opened: {_reason(error)}") from None
        self.environments[name] = environment, identity
        if len(self.environments) > _MAX_OPEN:
            self.environments.popitem(last=False)[1][0].close()
        return environment

    def close(self) -> None:
        """Closes all environments of this process."""
        if self.process == os.getpid():
            while self.environments:
                self.environments.popitem()[1][0].close()

    def _leave_parent(self) -> None:
        """Closes the copies of the parent's environments, which must not be used after a fork.

        The parent's own stay open: without a lock file, an environment is only a descriptor and a mapping, and a
        process has its own of both.
        """
        for environment, _ in self.environments.values():
            environment.close()
        self.process, self.environments = os.getpid(), OrderedDict()


_cache = _EnvironmentCache()


def close_environments() -> None:
    """Closes all environments of this process, so that their files can be written or removed."""
    _cache.close()


@contextmanager
def _read_transaction(file: Path) -> Iterator[lmdb.Transaction]:
    environment = _cache.get(file)
    try:
        # Values stay in the mapped file until they are decoded: only the pages of the wanted frames are read.
        with environment.begin(buffers=True) as transaction:
            yield transaction
    except lmdb.Error as error:
        raise DataError(f"the LMDB environment {file} cannot be read: {_reason(error)}") from None


def _read_clip(transaction: lmdb.Transaction, file: Path, positions: Sequence[int], keys: Sequence[str]) -> np.ndarray:
    """Decodes the frames with these keys, of an environment: uint8 (T, H, W, 3), RGB."""
    frames = ((_frame_name(key, file), partial(_read_frame, transaction, key, file)) for key in keys)
    return decode_clip(positions, frames)


def _read_frame(transaction: lmdb.Transaction, key: str, file: Path) -> np.ndarray:
    """The JPEG or PNG data of a frame, uint8 (bytes,)."""
    # LMDB refuses a key that is empty or too long: such a frame cannot be there.
    value = transaction.get(key.encode()) if 0 < len(key.encode()) <= MAX_KEY_BYTES else None
    if value is None:
        raise DataError(f"{_frame_name(key, file)} is missing")
    return np.frombuffer(value, dtype=np.uint8)


def _count_frames(transaction: lmdb.Transaction, template: str, first: int, prefix: str = "") -> int:
    frames = 0
    while transaction.get((prefix + template.format(first + frames)).encode()) is not None:
        frames += 1
    return frames


def _keys(transaction: lmdb.Transaction, prefix: str = "") -> Iterator[str]:
    """The keys that begin with a prefix, without it."""
    begin = prefix.encode()
    cursor = transaction.cursor()
    if cursor.set_range(begin) if begin else cursor.first():
        for key in cursor.iternext(values=False):
            if bytes(key[: len(begin)]) != begin:
                return
            yield bytes(key[len(begin) :]).decode("utf-8", "replace")


def _frame_name(key: str, file: Path) -> str:
    return f"the frame {key!r} of {file}"


def _reason(error: Exception) -> str:
    return str(error).rpartition(": ")[2]
