"""Files that are either complete or absent, whenever the program or the machine stops."""

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from common.errors import DataError


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write into. It gets its name, and replaces the file of that name, once it is complete on the disk.

    After an error the previous file is unchanged.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_text(file: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 file completely or not at all. Several processes may write the same file."""
    temporary = Path(f"{os.fspath(file)}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        temporary.replace(file)
    except OSError as error:
        error.filename = os.fspath(file)  # the name of the temporary file would tell the user nothing
        raise
    finally:
        temporary.unlink(missing_ok=True)


def is_url(root: str | os.PathLike[str]) -> bool:
    """Whether a root names a place on a network, such as https://host/path, and no folder."""
    return "://" in os.fspath(root)


def table_cell(text: str) -> str:
    """A cell of a table that no spreadsheet takes for a formula: an apostrophe before = + - @, a tab or a line end."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def make_folder(folder: Path) -> None:
    """Makes a folder, and its parents, that files can be written to.

    Raises:
        DataError: there is a file of this name, or the folder cannot be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, a folder is wanted")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Permissions do not tell everything: a disk may be read-only, or full.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be written to: {error.strerror}") from None


def digest(path: str | Path) -> str:
    """SHA-256 of the content of a file, of which little is in memory at a time."""
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def check_stored_archive(path: Path) -> None:
    """Refuses a zip archive that takes more memory than disk: PyTorch and NumPy never write such ones.

    Raises:
        ValueError: an entry is compressed, or entries overlap; or it is a pipe, a socket or a device.
        zipfile.BadZipFile, OSError: it is not an archive, or cannot be read.
    """
    if path.exists() and not path.is_file() and not path.is_dir():  # to open a pipe may never end
        raise ValueError("it is no regular file")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if compressed := [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]:
        raise ValueError(f"its entry {compressed[0]} is compressed")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("its entries overlap")


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
