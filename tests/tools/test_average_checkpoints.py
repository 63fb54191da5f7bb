"""The mean of checkpoints: of which files, of which of their weights, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import read_checkpoint, save_checkpoint
from tools.average_checkpoints import main


def checkpoint(path: Path, value: float, classes: int = 2, **more: Any) -> Path:
    model = {"fc.weight": torch.full((classes, 3), float(value)), "norm.num_batches_tracked": torch.tensor(int(value))}
    save_checkpoint(path, {"model": model, "epoch": int(value), "config": {"seed": 1}, "classes": ["a"], **more})
    return path


def test_the_mean_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = checkpoint(tmp_path / "one.pth", 1), checkpoint(tmp_path / "two.pth", 4)
    assert main([str(one), str(two), "--out", str(tmp_path / "mean.pth")]) == 0
    assert "mean of 2 checkpoints, one.pth, two.pth" in capsys.readouterr().out
    mean = read_checkpoint(tmp_path / "mean.pth")
    assert torch.equal(mean["model"]["fc.weight"], torch.full((2, 3), 2.5))
    assert mean["model"]["norm.num_batches_tracked"] == 4
    assert (mean["epoch"], mean["config"], mean["classes"]) == (4, {"seed": 1}, ["a"])
    assert "optimizer" not in mean


def test_the_last_epochs_of_a_folder(tmp_path: Path) -> None:
    for epoch in (2, 9, 10, 11):
        checkpoint(tmp_path / f"epoch_{epoch}.pth", epoch)
    checkpoint(tmp_path / "last.pth", 100)
    assert main([str(tmp_path), "--last", "3", "--out", str(tmp_path / "mean.pth")]) == 0
    assert read_checkpoint(tmp_path / "mean.pth")["model"]["fc.weight"][0, 0] == 10


def test_averages_over_time_are_what_is_averaged(tmp_path: Path) -> None:
    for name, value in (("a.pth", 1.0), ("b.pth", 2.0)):
        average = {"fc.weight": torch.full((2, 3), -value), "norm.num_batches_tracked": torch.tensor(0)}
        checkpoint(tmp_path / name, value, ema=average)
    assert main([str(tmp_path / "a.pth"), str(tmp_path / "b.pth"), "--out", str(tmp_path / "mean.pth")]) == 0
    assert read_checkpoint(tmp_path / "mean.pth")["model"]["fc.weight"][0, 0] == -1.5


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = checkpoint(tmp_path / "one.pth", 1), checkpoint(tmp_path / "other.pth", 1, classes=5)
    for arguments, message in (
        ([one, other], "other.pth is of another network than"),
        ([tmp_path / "nowhere.pth"], "nowhere.pth does not exist"),
        ([tmp_path, "--last", "3"], "has 0 checkpoints epoch_N.pth, 3 are wanted"),
    ):
        assert main([*map(str, arguments), "--out", str(tmp_path / "mean.pth")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "mean.pth").exists()
