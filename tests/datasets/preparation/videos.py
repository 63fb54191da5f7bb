"""Videos to extract frames from."""

from pathlib import Path

import cv2
import numpy as np


def make_video(file: Path, frames: int, size: tuple[int, int] = (64, 48), codec: str = "mp4v") -> Path:
    """A video of (width, height); frame i is grey 10 * i + 20, with a bright bar along its upper border."""
    file.parent.mkdir(parents=True, exist_ok=True)
    suffix = ".avi" if codec == "MJPG" else ".mp4"  # the writer picks the container by the name
    written = file.with_name(f"written{suffix}")
    writer = cv2.VideoWriter(str(written), cv2.VideoWriter.fourcc(*codec), 10, size)
    for index in range(frames):
        picture = np.full((size[1], size[0], 3), 10 * index + 20, dtype=np.uint8)
        picture[: size[1] // 4] = 250
        writer.write(picture)
    writer.release()
    return written.rename(file)
