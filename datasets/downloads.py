"""Files from a URL, through fsspec: tried again after a failure, and compared with their digest."""

import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import one_line
from common.files import digest
from datasets.shard_index import ShardError

log = logging.getLogger("sifa.data")

_WAITS = (1, 4, 15, 60)  # seconds before a failed download is tried again
_PASSING = (408, 425, 429)  # refusals of HTTP that mean: later
_SILENCE = 60  # seconds without a byte, after which a connection counts as broken


def read_url(url: str) -> bytes:
    """The content of a small file.

    Raises:
        ShardError: it is missing, or cannot be read in several attempts.
    """
    return _attempts(url, lambda system, path: system.cat_file(path))


def download(url: str, file: Path, *, bytes: int, sha256: str) -> None:
    """Copies a file from a URL. What is at `file` afterwards is whole.

    Args:
        url: where it is.
        file: to write; an existing one is overwritten.
        bytes: its size.
        sha256: of its content.

    Raises:
        ShardError: it is missing, cannot be read in several attempts, or is another file than the digest says.
    """

    def fetch(system: Any, path: str) -> None:
        system.get_file(path, str(file))
        if (size := file.stat().st_size) != bytes:
            raise _OtherFileError(f"{size} bytes came, the index says {bytes}")
        if (found := digest(file)) != sha256:
            raise _OtherFileError(f"its SHA-256 is {found[:16]}..., the index says {sha256[:16]}...")

    _attempts(url, fetch)


class _OtherFileError(Exception):
    """What came is not the file that the index describes."""


def _attempts(url: str, fetch: Callable[[Any, str], Any]) -> Any:
    """Calls fetch(file system, path) until it succeeds."""
    for attempt, wait in enumerate((*_WAITS, None), start=1):
        try:
            return fetch(*_file_system(url))
        except FileNotFoundError:
            raise ShardError(f"{url} is missing") from None
        except ImportError as error:
            raise ShardError(f"{url} cannot be read: {one_line(error)}") from None
        except _OtherFileError as error:
            problem = f"{url} is damaged: {error}"
        except ShardError:
            raise
        except Exception as error:  # each kind of storage has its own errors
            problem = f"{url} cannot be read: {one_line(f'{type(error).__name__} {error}')}"
            if _is_lasting(error):
                break
        if wait is None:
            problem += f", also in attempt {attempt}"
        else:
            log.warning(f"{problem}; tried again in {wait} s")
            time.sleep(wait)
    raise ShardError(problem)


def _is_lasting(failure: Exception) -> bool:
    """Whether a failure stays the same however often one tries: a refusal, or no room on this machine."""
    status = getattr(failure, "status", 0)  # of HTTP
    refused = isinstance(failure, PermissionError) or (400 <= status < 500 and status not in _PASSING)
    return refused or getattr(failure, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    try:
        import fsspec
    except ImportError:
        raise ShardError(f"{url} cannot be read without fsspec: pip install fsspec") from None
    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        try:
            import aiohttp
        except ImportError:
            raise ShardError(f"{url} cannot be read without aiohttp: pip install aiohttp") from None
        # aiohttp would stop after five minutes in all, and not look for a proxy in the environment.
        silence = aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
        options["client_kwargs"] = {"timeout": silence, "trust_env": True}
    return fsspec.core.url_to_fs(url, **options)
