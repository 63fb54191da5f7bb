"""Pictures as PNG files and as films."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from common.errors import UserError


def check_writable(out: Path) -> None:
    """Makes the folder and opens the file, before hours of computation. An existing file stays as it is.

    OpenCV does not say why it cannot write a file.

    Raises:
        OSError: the folder cannot be made, or the file cannot be written.
    """
    exists = out.exists()
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "ab"):
        pass
    if not exists:
        out.unlink()


def brighten(frames: np.ndarray, gamma: float) -> np.ndarray:
    """Frames uint8 with the exponent gamma on their grey levels; below 1 they are brighter."""
    levels = np.round(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return levels[frames]


def write_picture(out: Path, picture: np.ndarray) -> None:
    """Writes uint8 (H, W, 3), RGB, as PNG."""
    out.write_bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())


def write_film(out: Path, pictures: Iterable[np.ndarray], rate: float) -> None:
    """Writes pictures of one size, uint8 (H, W, 3), RGB, as MPEG-4.

    Args:
        rate: pictures per second.

    Raises:
        UserError: OpenCV cannot write such a file.
    """
    writer = None
    try:
        for picture in pictures:
            if writer is None:
                size = picture.shape[1], picture.shape[0]
                writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
                if not writer.isOpened():
                    raise UserError(f"{out} cannot be written as a video: OpenCV encodes no MPEG-4 here")
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    finally:
        if writer is not None:
            writer.release()
