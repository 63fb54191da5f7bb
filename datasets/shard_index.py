"""The index of videos in shards: which shard has which video, and what proves that a shard is whole."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import DataError
from common.files import is_url

INDEX_FILE = "index.json"
ROW_BYTES = 20  # of the table of a shard

_VERSION = 1


class ShardError(DataError):
    """A shard, or the index, is missing, damaged or out of reach: not one video is wrong, but many at once."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file with some videos, as frames or as video files, and a table of these members at its end.

    Attributes:
        file: its name, relative to the index.
        bytes: its size.
        sha256: of its content.
        table: where the rows of the table begin, in bytes from the start of the file.
        table_crc: CRC-32 of the rows.
        holds: "frames" or "videos": a row of the table is a frame, or a video file.
        videos: number of frames of each video by its path, in the order of the table.
    """

    file: str
    bytes: int
    sha256: str
    table: int
    table_crc: int
    holds: str
    videos: dict[str, int]

    @property
    def rows(self) -> int:
        """Of the table."""
        return sum(self.videos.values()) if self.holds == "frames" else len(self.videos)


def format_index(shards: Sequence[Shard]) -> str:
    """The content of an index file."""
    entries = [{name: getattr(shard, name) for name in Shard.__slots__} for shard in shards]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    return f'{{"version": {_VERSION}, "shards": [\n{lines}\n]}}\n'


def parse_index(content: bytes, name: str) -> list[Shard]:
    """The shards that the content of an index file describes.

    Args:
        content: of the file.
        name: of the file in messages.

    Raises:
        ShardError: it is no such index, or of another version.
    """
    try:
        index = json.loads(content)
        if index["version"] != _VERSION:
            raise ShardError(f"{name} has version {index['version']}, this program reads {_VERSION}")
        return [_parse_shard(entry) for entry in index["shards"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ShardError(f"{name} is no index of shards: {type(error).__name__} {error}") from None


def _parse_shard(entry: dict[str, Any]) -> Shard:
    shard = Shard(**entry)
    for name, kind in Shard.__annotations__.items():
        if not isinstance(getattr(shard, name), dict if name == "videos" else kind):
            raise ValueError(f"{name} of a shard is {getattr(shard, name)!r}")
    if "/" in shard.file or shard.file.startswith(".") or len(bytes.fromhex(shard.sha256)) != 32:
        raise ValueError(f"a shard has the file {shard.file!r} with the SHA-256 {shard.sha256!r}")
    if shard.holds not in ("frames", "videos"):
        raise ValueError(f"the shard {shard.file!r} holds {shard.holds!r}")
    if min(shard.table, *shard.videos.values()) < 0 or shard.table + ROW_BYTES * shard.rows > shard.bytes:
        raise ValueError(f"the table of the shard {shard.file!r} is not within its {shard.bytes} bytes")
    return shard


def index_digest(content: bytes) -> str:
    """A short name of what an index says: the order of a training depends on it."""
    return hashlib.sha256(content).hexdigest()[:16]


def place_of(root: str, file: str) -> str:
    """Path or URL of a file below a root."""
    return f"{root.rstrip('/')}/{file}" if is_url(root) else os.path.join(root, file)
