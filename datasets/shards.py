"""The SHARDS format: many videos, as frames or as files, in tar files of a folder or of a URL, with an index."""

import os
import tempfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.errors import DataError
from common.files import is_url
from datasets.annotations import check_relative_path
from datasets.decoders import Decoder, DecoderDevice, choose_decoder
from datasets.downloads import read_url
from datasets.frames import FRAME_TEMPLATE, decode_clip
from datasets.limits import read_regular_file
from datasets.shard_cache import ShardCache
from datasets.shard_index import INDEX_FILE, ROW_BYTES, Shard, ShardError, index_digest, parse_index, place_of
from datasets.video_files import VideoFiles

ROW = np.dtype([("offset", "<u8"), ("bytes", "<u8"), ("crc", "<u4")])  # a frame or video in the table of its shard
assert ROW.itemsize == ROW_BYTES
CACHE_GB = 50.0

_MAX_TABLES = 64  # that each process keeps: some 0.3 MB each


class ShardedVideos:
    """Many videos in the tar files that `root/index.json` names.

    A look-up costs nothing: the index says which shard has a video. The shard of a URL is downloaded as a whole when
    its first video is read. The checksum of every frame, or video file, is compared when it is read.

    Args:
        root: a folder, or a URL that fsspec understands, such as https://host/path or s3://bucket/path.
        cache: folder for the shards of a URL; None: `datasets.shard_cache.default_folder()`.
        cache_bytes: that all files of the cache have together.
        decoder: of video files, see `VideoFiles`.
        device: of the decoder.

    Attributes:
        digest: of the index.

    Raises:
        DataError: there is no index, or it cannot be read.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        cache: Path | None = None,
        cache_bytes: int = round(CACHE_GB * 1e9),
        *,
        decoder: Decoder = "auto",
        device: DecoderDevice = "cpu",
    ) -> None:
        self.root = os.fspath(root)
        content = _read_index(self.root)
        self.digest = index_digest(content)
        self.shards = parse_index(content, place_of(self.root, INDEX_FILE))
        self.cache = ShardCache(self.root, cache, cache_bytes)
        holds_videos = any(shard.holds == "videos" for shard in self.shards)
        self.decoder = choose_decoder(decoder, device) if holds_videos else decoder
        self.device = device
        self._places: dict[str, tuple[int, int]] = {}  # number of the shard, row of the first frame
        for number, shard in enumerate(self.shards):
            row = 0
            for path, frames in shard.videos.items():
                self._places[path] = number, row  # a video that was extracted again is in two: the later one counts
                row += frames if shard.holds == "frames" else 1
        self._tables: OrderedDict[str, np.ndarray] = OrderedDict()  # by the digest of the shard
        self._fetching: set[int] = set()  # shards that `prepare` downloads

    def read(self, video_path: str, positions: Sequence[int]) -> np.ndarray:
        """Decodes frames of a video: uint8 (T, H, W, 3), RGB. See `datasets.readers.Reader`."""
        shard, row = self._find(video_path)
        with self.cache.open(shard) as file:
            if shard.holds == "frames":
                frames = (self._member(file, shard, video_path, row, position) for position in positions)
                return decode_clip(positions, frames)
            name, fetch = self._member(file, shard, video_path, row, max(positions, default=0))
            data = fetch()
        with tempfile.TemporaryDirectory(prefix="sifa_video_") as folder:  # decoders read files
            copy = Path(folder, f"video{Path(video_path).suffix}")
            copy.write_bytes(data.tobytes())
            lengths = {copy.name: shard.videos[video_path]}
            try:
                videos = VideoFiles(folder, decoder=self.decoder, device=self.device, lengths=lengths)
                return videos.read(copy.name, positions)
            except DataError as error:
                raise DataError(str(error).replace(f"the video {copy}", name)) from None

    def fingerprint(self, video_path: str, position: int) -> bytes:
        """The frame, or video file, as it is stored. See `datasets.readers.Reader`."""
        shard, row = self._find(video_path)
        with self.cache.open(shard) as file:
            _, fetch = self._member(file, shard, video_path, row, position)
            return fetch().tobytes()

    def count(self, video_path: str) -> int:
        """How many frames the index counts; reading each compares it with the shard. See `datasets.readers.Reader`."""
        shard, _ = self._find(video_path)
        return shard.videos[video_path]

    def uncounted(self, video_path: str) -> str:
        """Nothing: the frames of a shard follow each other. See `datasets.readers.Reader`."""
        return ""

    def prepare(self, video_path: str) -> None:
        """Begins to download the shard of a video that is read later. If that fails, reading it says why."""
        number = self.shard_of(video_path)
        if number < 0 or number in self._fetching or self.cache.has(self.shards[number]):
            return
        self._fetching.add(number)

        def fetch() -> None:
            with suppress(ShardError, OSError):
                self.cache.fetch(self.shards[number])
            self._fetching.discard(number)

        threading.Thread(target=fetch, daemon=True).start()

    def shard_of(self, video_path: str) -> int:
        """The number of a video's shard; -1 for a video that is missing."""
        return self._places.get(video_path, (-1, 0))[0]

    def _find(self, video_path: str) -> tuple[Shard, int]:
        check_relative_path(video_path)
        if (place := self._places.get(video_path)) is None:
            raise DataError(f"the video {video_path!r} is missing from the shards of {self.root}")
        return self.shards[place[0]], place[1]

    def _member(
        self, file: BinaryIO, shard: Shard, video_path: str, row: int, position: int
    ) -> tuple[str, "partial[np.ndarray]"]:
        """The name of a frame, or of its video file, and the function that reads its data."""
        place, frames = place_of(self.root, shard.file), shard.videos[video_path]
        frame = f"the frame '{video_path}/{FRAME_TEMPLATE.format(position + 1)}' of {place}"
        if not 0 <= position < frames:
            raise DataError(f"{frame} is missing: the video has {frames} frames")
        if shard.holds == "videos":
            name = f"the video {video_path!r} of {place}"
            return name, partial(_read_member, file, self._table(file, shard)[row], name)
        return frame, partial(_read_member, file, self._table(file, shard)[row + position], frame)

    def _table(self, file: BinaryIO, shard: Shard) -> np.ndarray:
        """The rows of a shard, of type `ROW`."""
        if shard.sha256 in self._tables:
            self._tables.move_to_end(shard.sha256)
            return self._tables[shard.sha256]
        size = ROW.itemsize * shard.rows
        rows = os.pread(file.fileno(), size, shard.table)
        if len(rows) != size or zlib.crc32(rows) != shard.table_crc:
            raise ShardError(f"the shard {file.name} is damaged: the checksum of its table is wrong")
        table = np.frombuffer(rows, dtype=ROW)
        self._tables[shard.sha256] = table
        if len(self._tables) > _MAX_TABLES:
            self._tables.popitem(last=False)
        return table


def _read_index(root: str) -> bytes:
    place = place_of(root, INDEX_FILE)
    if is_url(root):
        return read_url(place)
    try:
        return read_regular_file(Path(place), f"the index {place}")
    except OSError as error:
        reason = "" if isinstance(error, FileNotFoundError) else f": {error.strerror}"
        raise ShardError(f"the folder {root} holds no shards ({INDEX_FILE}){reason}") from None


def _read_member(file: BinaryIO, row: np.void, name: str) -> np.ndarray:
    """The data of a frame (JPEG or PNG) or of a video file, uint8 (bytes,)."""
    size = int(row["bytes"])
    data = os.pread(file.fileno(), size, int(row["offset"]))
    if len(data) != size or zlib.crc32(data) != row["crc"]:
        raise DataError(f"{name} is damaged: its checksum is wrong (in {file.name})")
    return np.frombuffer(data, dtype=np.uint8)
