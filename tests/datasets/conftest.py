"""Small frame folders to read from."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

MakeVideo = Callable[..., Path]


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """make_video(path, num_frames, size=(height, width), still=False): JPEG frames below tmp_path / "frames".

    Frame i (0-based) is grey 10 * i + 5 all over, so that a decoded frame tells its number; a still video shows the
    same picture in every frame.
    """
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)

    def make(path: str, num_frames: int, size: tuple[int, int] = (48, 64), still: bool = False) -> Path:
        folder = tmp_path / "frames" / path
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(num_frames):
            frame = picture if still else np.full((*size, 3), 10 * index + 5, dtype=np.uint8)
            (folder / f"{index + 1:05d}.jpg").write_bytes(cv2.imencode(".jpg", frame)[1].tobytes())
        return folder

    return make


def channels_first(clip: np.ndarray) -> Tensor:
    """A clip (T, H, W, 3) as torchvision's transforms take it: (T, 3, H, W)."""
    return torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous()
