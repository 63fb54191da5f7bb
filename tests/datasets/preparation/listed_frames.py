"""Frames of three videos in folders, and their list."""

from pathlib import Path

import cv2
import numpy as np

VIDEOS = {"a/one two": 5, "a/b": 3, "č": 4}


def picture(video: str, number: int, size: tuple[int, int] = (24, 32)) -> bytes:
    seed = sum(video.encode()) * 100 + number
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def write_videos(folder: Path) -> Path:
    """Writes folder/frames and folder/list.txt."""
    for video, frames in VIDEOS.items():
        frames_of = folder / "frames" / video
        frames_of.mkdir(parents=True)
        for number in range(1, frames + 1):
            (frames_of / f"{number:05d}.jpg").write_bytes(picture(video, number))
    write_list(folder / "list.txt", *(f"{video} {frames} {i % 2}" for i, (video, frames) in enumerate(VIDEOS.items())))
    return folder


def write_list(file: Path, *lines: str) -> None:
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
