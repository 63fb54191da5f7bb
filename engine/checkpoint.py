"""Checkpoints: everything a run needs to go on, written so that a crash leaves the one before intact."""

import os
import pickle
import random
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.distributed import Process
from engine.errors import UserError


class CheckpointError(UserError):
    """A checkpoint that cannot be read, written or used; the message names the file."""


def save_checkpoint(path: Path, contents: dict[str, Any]) -> None:
    """Writes a checkpoint at once or not at all: into a temporary file, to the disk, then under its name.

    Raises:
        CheckpointError: the disk is full or the folder not writable. What was there before is untouched.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            torch.save(contents, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its zip writer
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"checkpoint {path} cannot be written: {error}") from None


def copy_checkpoint(source: Path, path: Path) -> None:
    """Gives a written checkpoint a second name, without a second copy where the file system can."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            temporary.write_bytes(source.read_bytes())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"checkpoint {path} cannot be written: {error}") from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)  # the rename itself
    finally:
        os.close(handle)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint's tensors and plain values, on the CPU. Nothing in the file is executed.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it holds more than tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"checkpoint {path} is damaged, or no checkpoint at all") from None
        reason = next((line for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line), "")
        raise CheckpointError(
            f"checkpoint {path} is refused: it holds more than tensors and plain values, which could run code. {reason}"
        ) from None
    except Exception as error:  # a broken archive fails in many ways
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"checkpoint {path} is damaged: {first}") from None
    if not isinstance(contents, dict):
        raise CheckpointError(f"checkpoint {path} holds {type(contents).__name__}, not the entries of a checkpoint")
    return contents


def entry(contents: dict[str, Any], name: str, path: Path) -> Any:
    """One entry of a checkpoint that was read."""
    if name not in contents:
        raise CheckpointError(
            f"checkpoint {path} has no entry {name!r}; it has {', '.join(map(str, contents)) or 'none'}"
        )
    return contents[name]


def load_weights(model: nn.Module, state_dict: dict[str, torch.Tensor], path: Path) -> None:
    """Loads a model's weights, all of them.

    Raises:
        CheckpointError: a weight is missing, unexpected or of another shape; the message names the first few.
    """
    try:
        model.load_state_dict(state_dict)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        details = "; ".join(line if len(line) < 160 else line[:157] + "..." for line in lines[:3]) or str(error)
        more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
        raise CheckpointError(f"checkpoint {path} does not fit this model: {details}{more}") from None


@dataclass
class Training:
    """What goes on where a run was stopped: network, optimiser, schedule, and the epochs that are done."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    iterations_per_epoch: int
    epoch: int = 0

    def contents(self, random_states: list[dict[str, Any]]) -> dict[str, Any]:
        """The entries of a checkpoint; `random_states` of all processes, by rank."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "iterations_per_epoch": self.iterations_per_epoch,
            "epoch": self.epoch,
            "random": random_states,
        }

    def resume(self, path: Path, process: Process) -> None:
        """Takes over everything from a checkpoint, this process's random state included.

        Raises:
            CheckpointError: it cannot be read, or is of another network or of epochs of another length.
        """
        saved = read_checkpoint(path)
        load_weights(self.model, entry(saved, "model", path), path)
        iterations = entry(saved, "iterations_per_epoch", path)
        if iterations != self.iterations_per_epoch:
            raise CheckpointError(
                f"checkpoint {path} is of a run with {iterations} iterations an epoch, this one has "
                f"{self.iterations_per_epoch}: resume with the same list, batch_size, iter_size and number of processes"
            )
        try:
            self.optimizer.load_state_dict(entry(saved, "optimizer", path))
            self.scheduler.load_state_dict(entry(saved, "scheduler", path))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"checkpoint {path} does not fit this optimiser: {error}") from None
        self.epoch = entry(saved, "epoch", path)
        states = entry(saved, "random", path)
        if len(states) != process.world:
            raise CheckpointError(f"checkpoint {path} is of {len(states)} processes, this run has {process.world}")
        set_random_state(states[process.rank])


def random_state() -> dict[str, Any]:
    """The states of all random generators of this process, as tensors and plain values."""
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": [np.asarray(keys).tolist(), position, has_gauss, cached],
    }


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, cached))
