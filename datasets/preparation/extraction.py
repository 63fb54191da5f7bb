"""One video from its file to stored frames: what it takes, whether that was done before, what is wrong with it."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import lmdb

from common.errors import DataError
from datasets.frames import FrameFolder
from datasets.preparation.writers import RECORD, is_stored, storing
from datasets.video_files import chosen_frames


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs: the video, the folder of its frames, short side (pixels, 0: as it is), JPEG quality.

    format, fps, num_frames: see `storing` and `chosen_frames`.
    """

    video: Path
    folder: Path
    short_side: int
    quality: int
    format: str = "FRAME"
    fps: float = 0
    num_frames: int = 0


def extract(job: Job) -> tuple[int, str]:
    """Extract one video, unless that was done before. Returns the number of frames and, where there is one, a problem.

    No frames: the video must be skipped. Frames and a problem: it is usable, but much shorter than it announces.
    """
    try:
        if job.video.is_dir() and job.format == "FRAME":
            frames = FrameFolder(job.video.parent).count(job.video.name)
            return (frames, "") if frames else (0, "there is no frame 00001.jpg in it")
        made = made_from(job)
        if isinstance(made, str):
            return 0, made
        if job.folder.exists():
            record = read_record(job.folder)
            if not record:
                return 0, f"the folder {job.folder} is in the way: it was not made by extract_frames"
            if is_made(record, made) and is_stored(job.format, job.folder, record["frames"]):
                return record["frames"], record.get("problem", "")
        partial = job.folder.with_name(f".{job.folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
        try:
            partial.mkdir(parents=True)
            frames, decoded, announced = _decode(job, partial)
            if not frames:
                return 0, "no frame of it can be decoded"
            # Announcing a frame too many, or an estimate from the duration, is common. A truncated file lacks more.
            incomplete = f"only {decoded} of {announced} announced frames can be decoded; it is kept with {frames}"
            problem = incomplete if decoded < 0.9 * announced else ""
            made |= {"frames": frames} | ({"problem": problem} if problem else {})
            (partial / RECORD).write_text(json.dumps(made), encoding="utf-8")
            if job.folder.exists():  # made with other settings, or from another file
                shutil.rmtree(job.folder)
            partial.rename(job.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (DataError, OSError, cv2.error, lmdb.Error) as error:
        return 0, " ".join(str(error).split())
    return frames, problem


def made_from(job: Job) -> dict[str, Any] | str:
    """What frames are made from, and how; or why they cannot be."""
    if not job.video.exists():
        return "there is no such file"
    if not job.video.is_file() and not job.video.is_dir():
        return "this is no file"
    status = job.video.stat()
    if not status.st_size:
        return "the file is empty"
    made: dict[str, Any] = {"source": job.video.name, "bytes": status.st_size, "modified": status.st_mtime_ns}
    made |= {"short_side": job.short_side, "quality": job.quality}
    choice = {"format": job.format, "fps": job.fps, "num_frames": job.num_frames}
    return made | {name: value for name, value in choice.items() if value not in (0, "FRAME")}


def is_made(record: dict[str, Any], made: dict[str, Any]) -> bool:
    return {name: value for name, value in record.items() if name not in ("frames", "problem")} == made


def _decode(job: Job, folder: Path) -> tuple[int, int, int]:
    """Store the frames of a video in a folder. Returns how many, how many were decoded, how many it announces."""
    frames = decoded = announced = 0
    if job.video.is_file():
        capture = cv2.VideoCapture(os.path.abspath(job.video), cv2.CAP_FFMPEG)
        announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        opened = capture.isOpened()
        capture.release()
        if not opened:
            return 0, 0, 0
    with storing(job.format, folder) as store:
        if job.video.is_dir():  # of frames, which are stored as they are
            given = FrameFolder(job.video.parent)
            decoded = given.count(job.video.name)
            for frames in range(1, decoded + 1):
                store(frames, given.encoded(job.video.name, frames - 1))
            return frames, decoded, decoded
        size: tuple[int, int] | None = None
        for frame, times in chosen_frames(job.video, fps=job.fps, num_frames=job.num_frames):
            decoded += 1
            height, width = frame.shape[:2]
            if size is None:  # the first frame decides: all frames of a video must be of one size
                scale = min(1.0, job.short_side / min(height, width)) if job.short_side else 1.0
                size = (max(1, round(width * scale)), max(1, round(height * scale)))
            if not times:
                continue
            if job.format == "VIDEO":
                frames += times
                continue
            if (width, height) != size:
                frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            encoded, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, job.quality])
            if not encoded:
                raise OSError(f"frame {frames + 1} cannot be encoded as JPEG")
            for _ in range(times):
                frames += 1
                store(frames, data.tobytes())
    return frames, decoded, announced


def read_record(folder: Path) -> dict[str, Any]:
    """What the frames in a folder were made from, and how; empty where no extraction made them."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("frames"), int) else {}
