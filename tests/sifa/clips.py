"""Six videos of five classes as frames, and the sections of a configuration that names them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

FRAMES, SIZE, VIDEOS = 8, 32, 6


def settings_with_videos(folder: Path) -> dict[str, Any]:
    """Writes the frames; returns sections of a narrow SIFA-Net."""
    random = np.random.default_rng(0)
    for video in range(VIDEOS):
        (folder / f"frames/{video}").mkdir(parents=True)
        for frame in range(1, FRAMES + 1):
            image = random.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"frames/{video}/{frame:05d}.jpg"), image)
    (folder / "list.txt").write_text("".join(f"{video} {FRAMES} {video % 5}\n" for video in range(VIDEOS)))
    files = {"root_path": f"{folder}/frames", "list_file": f"{folder}/list.txt", "eva_list_file": f"{folder}/list.txt"}
    return {
        "network": {"net_name": "c2d_sifa_resnet26", "width": 4, "dual_head": False},
        "SIFA": {"offset_init": "kaiming", "stages": ["res5"]},
        "dataset": {"num_classes": 5, "clip_length": FRAMES, **files},
        "evaluation": {"eva_crop_size": SIZE},
    }
