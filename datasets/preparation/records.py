"""The record of extracted frames: which file they come from, with which settings, and what came out."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import DataError
from datasets.preparation.writers import RECORD_FILE
from datasets.readers import Format

_SETTINGS = ("format", "short_side", "quality", "fps", "num_frames")
_DEFAULTS = {"format": "FRAME", "fps": 0, "num_frames": 0}  # these have no entry in a record


@dataclass(frozen=True, slots=True)
class ExtractionJob:
    """A video to extract, and the settings.

    Attributes:
        video: a file, or a folder of frames.
        folder: to write the frames to.
        short_side: of the frames in pixels; 0: as in the video. Smaller videos are not enlarged.
        quality: of the JPEG files, 1 to 100.
        format: see `open_writer`.
        fps: see `decode_with_repeats`.
        num_frames: see `decode_with_repeats`.
    """

    video: Path
    folder: Path
    short_side: int
    quality: int
    format: Format = "FRAME"
    fps: float = 0
    num_frames: int = 0

    @property
    def is_used_in_place(self) -> bool:
        """Whether the frames are given in a folder, and the list can name them where they are."""
        return self.format == "FRAME" and self.video.is_dir()


def read_record(folder: Path) -> dict[str, Any]:
    """The record of extracted frames: their number, the file that they come from, the settings, and a problem if any.

    Args:
        folder: of one video.

    Returns:
        The record; empty if the folder was not written by `extract_video`.
    """
    file = folder / RECORD_FILE
    try:
        return parse_record(file.read_bytes()) if file.is_file() else {}
    except OSError:
        return {}


def parse_record(data: bytes) -> dict[str, Any]:
    """The record in the contents of a file; empty if they are none."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("frames"), int) else {}


def expected_record(job: ExtractionJob) -> dict[str, Any]:
    """What the record of a job will say of the file and the settings.

    Raises:
        DataError: the file is missing, empty or no file; the message says which.
    """
    if not job.video.exists():
        raise DataError("there is no such file")
    if not job.video.is_file() and not job.video.is_dir():
        raise DataError("this is no file")
    status = job.video.stat()
    if not status.st_size:
        raise DataError("the file is empty")
    record: dict[str, Any] = {"source": job.video.name, "path": os.path.realpath(job.video)}
    record |= {"bytes": status.st_size, "modified": status.st_mtime_ns}
    settings = {name: getattr(job, name) for name in _SETTINGS}
    return record | {name: value for name, value in settings.items() if value != _DEFAULTS.get(name)}


def is_up_to_date(record: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether frames with this record need not be extracted again.

    Versions before 1.1 did not write the path. Then name, size and time of the file decide.

    Args:
        record: see `read_record`.
        expected: see `expected_record`.
    """
    return bool(record) and not clash(record, expected) and _state(record) == _state(expected)


def clash(record: dict[str, Any], expected: dict[str, Any]) -> str:
    """How frames that are there differ from those that a job would write in their place.

    A source file that has changed is no clash: its frames may be replaced.

    Args:
        record: see `read_record`; not empty.
        expected: see `expected_record`.

    Returns:
        What is there, and what is wanted: other settings, or another source. Empty: there is no clash.
    """
    if settings_of(record) != settings_of(expected):
        there, wanted = (_settings_text(one) for one in (record, expected))
        return f"the frames there have {there}, this command has {wanted}"
    there, wanted = str(record.get("path", record.get("source", ""))), str(expected["path"])
    if "path" in record:
        is_other = there != wanted
    else:
        is_other = (record.get("source"), *_state(record)) != (expected["source"], *_state(expected))
        there = f"another file {there!r} of {record.get('bytes')} bytes, or of an earlier state of it"
    return f"the frames there are of {there}, this command reads {wanted}" if is_other else ""


def settings_of(record: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide on the frames, by name. VIDEO stores none, so that only the format matters."""
    settings = {name: record.get(name, _DEFAULTS.get(name)) for name in _SETTINGS}
    return {"format": "VIDEO"} if settings["format"] == "VIDEO" else settings


def _settings_text(record: dict[str, Any]) -> str:
    settings = settings_of(record)
    return ", ".join(f"--{name} {settings[name]}" for name in settings if settings[name] != _DEFAULTS.get(name))


def _state(record: dict[str, Any]) -> tuple[Any, Any]:
    return record.get("bytes"), record.get("modified")
