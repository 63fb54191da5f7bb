"""Extraction of one video: from its file to stored frames, with a record of what they were made from."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np

from common.errors import DataError, one_line
from datasets.frames import FrameFolder
from datasets.preparation.records import ExtractionJob, clash, expected_record, is_up_to_date, read_record
from datasets.preparation.writers import RECORD_FILE, WriteFrame, has_frames, open_writer
from datasets.video_files import VideoFiles, decode_with_repeats, open_video
from datasets.video_formats import codec_hint


def extract_video(job: ExtractionJob) -> tuple[int, str]:
    """Extracts a video, unless its frames are there already, from the same file and with the same settings.

    Args:
        job: the video and the settings.

    Returns:
        The number of frames, and a problem, which is empty if there is none. With 0 frames, the video must be skipped.
        With frames and a problem, the video is usable, but much shorter than its file announces.
    """
    try:
        if job.is_used_in_place:
            given = FrameFolder(job.video.parent)
            frames, gap = given.count(job.video.name), given.uncounted(job.video.name)
            return frames, gap if frames else gap or "there is no frame 00001.jpg in it"
        expected = expected_record(job)
        if job.folder.exists():
            record = read_record(job.folder)
            if not record:
                return 0, f"the folder {job.folder} is in the way: it was not made by extract_frames"
            if difference := clash(record, expected):  # another process has written it since the command began
                return 0, f"{job.folder} is taken: {difference}"
            if is_up_to_date(record, expected) and has_frames(job.format, job.folder, record["frames"]):
                return record["frames"], record.get("problem", "")
        return _extract_to_folder(job, expected)
    except (DataError, OSError, cv2.error, lmdb.Error) as error:
        return 0, one_line(str(error).replace(f"the video {job.video}", "it"))


def _extract_to_folder(job: ExtractionJob, expected: dict[str, Any]) -> tuple[int, str]:
    """Extracts a video to a temporary folder, which gets its name when it is complete. Returns as `extract_video`."""
    partial = job.folder.with_name(f".{job.folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
    try:
        partial.mkdir(parents=True)
        frames, decoded, announced = _write_frames(job, partial)
        if not frames:
            return 0, f"no frame of it can be decoded{'' if job.video.is_dir() else codec_hint(job.video)}"
        # Often a file announces a frame too many, or an estimate from the duration. A truncated file lacks more.
        incomplete = f"only {decoded} of {announced} announced frames can be decoded; it is kept with {frames}"
        problem = incomplete if decoded < 0.9 * announced else ""
        if job.video.is_dir():
            problem = FrameFolder(job.video.parent).uncounted(job.video.name)
        record = expected | {"frames": frames} | ({"problem": problem} if problem else {})
        (partial / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
        if job.folder.exists():  # of an earlier state of the file
            shutil.rmtree(job.folder)
        partial.rename(job.folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return frames, problem


def _write_frames(job: ExtractionJob, folder: Path) -> tuple[int, int, int]:
    """Writes the frames of a video to a folder. Returns how many were written, were decoded and are announced."""
    if job.video.is_dir():
        with open_writer(job.format, folder) as write:
            copied = _copy_frames(job.video, write)
        return copied, copied, copied
    announced = _announced_frames(job.video)
    if job.format == "VIDEO":
        frames = VideoFiles(job.video.parent).count(job.video.name)  # in less time than decoding to pictures
        return frames, frames, announced
    with open_writer(job.format, folder) as write:
        return *_encode_frames(job, write), announced


def _copy_frames(video: Path, write: WriteFrame) -> int:
    """Writes the frames of a folder as they are. Returns how many."""
    given = FrameFolder(video.parent)
    frames = given.count(video.name)
    for position in range(frames):
        write(position + 1, given.read_encoded(video.name, position))
    return frames


def _announced_frames(video: Path) -> int:
    """How many frames a file announces, which may be wrong. Raises DataError as `open_video`."""
    with open_video(video) as capture:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT))


def _encode_frames(job: ExtractionJob, write: WriteFrame) -> tuple[int, int]:
    """Decodes, resizes, encodes and writes the frames of a video. Returns how many were written and were decoded."""
    frames = decoded = 0
    size: tuple[int, int] | None = None  # W, H
    for frame, repeats in decode_with_repeats(job.video, fps=job.fps, num_frames=job.num_frames):
        decoded += 1
        if size is None:  # the first frame decides: all frames of a video must have one size
            size = _resized(frame, job.short_side)
        if repeats:
            data = _encode(frame, size, job.quality, number=frames + 1)
            for number in range(frames + 1, frames + repeats + 1):
                write(number, data)
        frames += repeats
    return frames, decoded


def _resized(frame: np.ndarray, short_side: int) -> tuple[int, int]:
    """Width and height of a frame (H, W, 3) after it is shrunk to a short side; 0: as it is."""
    height, width = frame.shape[:2]
    scale = min(1.0, short_side / min(height, width)) if short_side else 1.0
    return max(1, round(width * scale)), max(1, round(height * scale))


def _encode(frame: np.ndarray, size: tuple[int, int], quality: int, number: int) -> bytes:
    """A frame, uint8 (H, W, 3), BGR, as JPEG data of a size (W, H)."""
    if (frame.shape[1], frame.shape[0]) != size:
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    encoded, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise OSError(f"frame {number} cannot be encoded as JPEG")
    return data.tobytes()
