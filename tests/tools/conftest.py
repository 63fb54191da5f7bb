"""Checkpoints of small networks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from engine.checkpoint import save_checkpoint
from engine.schema import Config
from models import sifa_swin
from models.sifa_resnet import ClipBottleneck
from models.sifa_swin import ClipSwinBlock
from sifa.build import build_network

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="module")
def make_checkpoint() -> Iterator[MakeCheckpoint]:
    """Writes a checkpoint, (path, **sections) -> path, whose learned offsets and residual branches do something.

    While the fixture lives networks have few blocks: exporters take minutes for all. What is left has all there is,
    context and SIFA, shifted windows and convolutions.
    """

    def make(path: Path, **sections: Any) -> Path:
        torch.manual_seed(0)
        sections = {
            "dataset": {"num_classes": 5, "clip_length": 8},
            "evaluation": {"eva_crop_size": 32},
            "SIFA": {"offset_init": "kaiming"},
            **sections,
        }
        config = Config.model_validate(sections)
        network = build_network(config)
        for module in network.modules():
            if isinstance(module, ClipBottleneck):
                torch.nn.init.uniform_(module.bn3.weight, 0.2, 0.5)
            if isinstance(module, ClipSwinBlock) and isinstance(module.norm_temporal, torch.nn.LayerNorm):
                torch.nn.init.uniform_(module.norm_temporal.weight, 0.2, 0.5)
        classes = [f"class {label}" for label in range(config.dataset.num_classes)]
        save_checkpoint(
            path, {"model": network.state_dict(), "config": config.model_dump(), "classes": classes, "epoch": 1}
        )
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sifa_swin, "DEPTHS", (2, 1, 1, 1))
        small = models.SIFANetOptions(depths=(1, 2, 1, 2))
        patch.setitem(models.NETWORKS, "c2d_sifa_resnet50", (models.SIFANet, small))
        yield make
