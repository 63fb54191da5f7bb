"""Checkpoints: written whole or not at all, read without executing anything, refused in words."""

import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import checkpoint
from engine.checkpoint import CheckpointError, Training, read_checkpoint, save_checkpoint
from engine.distributed import Process
from engine.optim import build_optimizer, build_scheduler
from engine.schema import Optimization

ALONE = Process(0, 1, torch.device("cpu"))


def training(classes: int = 3, iterations: int = 10) -> Training:
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, classes))
    optimizer = build_optimizer(model, Optimization(epochs=4))
    return Training(model, optimizer, build_scheduler(optimizer, Optimization(epochs=4), iterations), iterations)


def step(run: Training) -> None:
    run.model(torch.randn(6, 4)).square().sum().backward()
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.scheduler.step()


def test_a_resumed_run_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    first = training()
    for _ in range(3):
        step(first)
    first.epoch = 1
    save_checkpoint(tmp_path / "a.pth", first.contents([checkpoint.random_state()]))
    for _ in range(3):
        step(first)
    numbers = random.random(), np.random.rand(), torch.rand(1).item()

    second = training()
    second.resume(tmp_path / "a.pth", ALONE)
    assert second.epoch == 1
    for _ in range(3):
        step(second)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == numbers
    for one, other in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, {"epoch": 1})

    def full_disk(contents: Any, file: Any) -> None:
        file.write(b"half a check")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(CheckpointError, match=r"last\.pth cannot be written: .*No space left"):
        save_checkpoint(path, {"epoch": 2})
    assert read_checkpoint(path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pth"]


def test_a_copy_is_the_same_and_survives_the_next_save(tmp_path: Path) -> None:
    last, kept = tmp_path / "last.pth", tmp_path / "epoch_1.pth"
    save_checkpoint(last, {"epoch": 1})
    checkpoint.copy_checkpoint(last, kept)
    save_checkpoint(last, {"epoch": 2})
    assert (read_checkpoint(kept), read_checkpoint(last)) == ({"epoch": 1}, {"epoch": 2})


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pth does not exist"):
        read_checkpoint(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_damaged_file(kept: float, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"model": {"weight": torch.randn(100)}})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"a\.pth is damaged") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


class Malicious:
    def __reduce__(self) -> tuple:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_malicious_file_is_refused_and_not_executed(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pth"
    write({"model": Malicious()}, path)
    with pytest.raises(CheckpointError, match=r"a\.pth is (refused|damaged)") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_other_contents(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds list"):
        read_checkpoint(tmp_path / "list.pth")
    torch.save({"weights": 1}, tmp_path / "dict.pth")
    with pytest.raises(CheckpointError, match=r"has no entry 'model'; it has weights"):
        checkpoint.entry(read_checkpoint(tmp_path / "dict.pth"), "model", tmp_path / "dict.pth")


def test_another_class_count(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", training(classes=3).contents([checkpoint.random_state()]))
    with pytest.raises(CheckpointError, match=r"a\.pth does not fit this model: .*2\.weight") as caught:
        training(classes=4).resume(tmp_path / "a.pth", ALONE)
    assert "\n" not in str(caught.value)


def test_epochs_of_another_length_and_other_processes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", training().contents([checkpoint.random_state()]))
    with pytest.raises(CheckpointError, match="10 iterations an epoch, this one has 11"):
        training(iterations=11).resume(tmp_path / "a.pth", ALONE)
    with pytest.raises(CheckpointError, match="of 1 processes, this run has 2"):
        training().resume(tmp_path / "a.pth", Process(1, 2, torch.device("cpu")))
