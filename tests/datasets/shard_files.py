"""Shards of small videos for the tests."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from datasets.preparation.shard_writer import ShardWriter


def noise(frames: int, seed: int) -> list[bytes]:
    """PNG pictures, 3 bytes for each pixel: about 500 bytes."""
    random = np.random.default_rng(seed)
    pictures = (random.integers(0, 256, (10, 16, 3), dtype=np.uint8) for _ in range(frames))
    return [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]


def write_shards(root: Path, videos: Mapping[str, Sequence[bytes]], shard_bytes: int = 0) -> Path:
    """Writes pictures as shards below a folder; 0 bytes: a shard for each video."""
    root.mkdir(exist_ok=True)
    writer = ShardWriter(root, shard_bytes)
    for number, (path, pictures) in enumerate(videos.items()):
        folder = root.parent / f"staged {number}"
        folder.mkdir()
        for frame, data in enumerate(pictures, start=1):
            (folder / f"{frame:05d}.jpg").write_bytes(data)
        (folder / "extracted.json").write_text(json.dumps({"frames": len(pictures)}))
        writer.add(path, folder)
    writer.finish()
    writer.close()
    return root
