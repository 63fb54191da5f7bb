"""A tiny untrained network's checkpoint and tiny videos, for the tests of what is done with trained networks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import models
from engine.checkpoint import save_checkpoint
from engine.schema import Config
from models.sifa_resnet import ClipBottleneck
from sifa.build import build_network

CLASSES = ["left", "right", "up", "down", "away", "back"]
RATE = 10  # frames a second
SETTINGS: dict[str, Any] = {
    "network": {"net_name": "c2d_sifa_resnet26", "width": 4},
    "dataset": {"num_classes": len(CLASSES), "clip_length": 8, "num_steps": 2},
    "evaluation": {"eva_crop_size": 48, "eva_num_clips": 2, "eva_num_crop": 3},
}


def build(settings: dict[str, Any]) -> tuple[models.Network, Config]:
    """A network whose offsets and residual branches do something, and that tells videos apart."""
    config = Config.model_validate(settings)
    network = build_network(config)
    for module in network.modules():
        if isinstance(module, ClipBottleneck):
            torch.nn.init.uniform_(module.bn3.weight, 0.2, 0.5)
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.ones_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics are those of the one pass below
    hooks = [
        module.register_forward_pre_hook(_offsets_of_a_position)
        for module in network.modules()
        if isinstance(module, models.InterFrameAttention) and module.offset is not None
    ]
    with torch.no_grad():
        network.train()(torch.randn(2, 3, 16, 64, 64))
    for hook in hooks:
        hook.remove()
    return network.eval(), config


def _offsets_of_a_position(module: models.InterFrameAttention, inputs: tuple[torch.Tensor]) -> None:
    """Gives a module weights whose offsets are one position on average."""
    assert module.offset is not None
    torch.nn.init.normal_(module.offset.weight)
    offset = module.predict_offset(inputs[0])
    assert offset is not None
    if (mean := offset.abs().mean()) > 0:  # there is a pair of frames, and not all is zero in it
        module.offset.weight /= mean


def write_checkpoint(path: Path, settings: dict[str, Any] = SETTINGS, **entries: Any) -> Path:
    torch.manual_seed(0)
    network, config = build(settings)
    contents = {"model": network.state_dict(), "epoch": 1, "config": config.model_dump(), "classes": CLASSES}
    save_checkpoint(path, {**contents, **entries})
    return path


def moving_square(frames: int, height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """uint8 (T, H, W, 3): a square on its way over noise."""
    random = np.random.default_rng(seed)
    video = np.broadcast_to(random.integers(0, 120, (height, width, 3), dtype=np.uint8), (frames, height, width, 3))
    video = video.copy()
    top, left = random.integers(0, height - 16), random.integers(0, width - 16)
    colour = random.integers(130, 256, 3)
    for t, frame in enumerate(video):
        x = (left + 3 * t) % (width - 16)
        frame[top : top + 16, x : x + 16] = colour
    return video


def write_video(path: Path, frames: Iterable[np.ndarray]) -> Path:
    """uint8 (H, W, 3), RGB, without loss; the name must end in .avi."""
    writer = None
    for frame in frames:
        if writer is None:
            size, codec = (frame.shape[1], frame.shape[0]), cv2.VideoWriter.fourcc(*"FFV1")
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, RATE, size)
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    assert writer is not None
    writer.release()
    return path
