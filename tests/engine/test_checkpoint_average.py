"""The mean of checkpoints: of which files, and of which of their weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import CheckpointError, save_checkpoint
from engine.checkpoint_average import average_checkpoints, find_checkpoints


def write_checkpoint(path: Path, value: float, classes: int = 2, **more: Any) -> Path:
    model = {"fc.weight": torch.full((classes, 3), float(value)), "norm.num_batches_tracked": torch.tensor(int(value))}
    save_checkpoint(path, {"model": model, "epoch": int(value), "config": {"seed": 1}, "classes": ["a"], **more})
    return path


def test_the_last_epochs_of_a_folder(tmp_path: Path) -> None:
    for epoch in (2, 9, 10, 11):
        write_checkpoint(tmp_path / f"epoch_{epoch}.pth", epoch)
    write_checkpoint(tmp_path / "last.pth", 100)
    assert average_checkpoints(find_checkpoints([tmp_path], last=3))["model"]["fc.weight"][0, 0] == 10


def test_averages_over_time_are_what_is_averaged(tmp_path: Path) -> None:
    for name, value in (("a.pth", 1.0), ("b.pth", 2.0)):
        ema = {"fc.weight": torch.full((2, 3), -value), "norm.num_batches_tracked": torch.tensor(0)}
        write_checkpoint(tmp_path / name, value, ema=ema)
    assert average_checkpoints([tmp_path / "a.pth", tmp_path / "b.pth"])["model"]["fc.weight"][0, 0] == -1.5


def test_networks_that_differ_in_their_attention_alone_are_not_averaged(tmp_path: Path) -> None:
    """Their weights have the same names and shapes."""
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for path, cosine in zip(paths, (False, True), strict=True):
        write_checkpoint(path, 1.0, config={"SIFA": {"cosine": cosine}})
    with pytest.raises(CheckpointError, match=r"b\.pth is of another network than .*a\.pth"):
        average_checkpoints(paths)
