"""The mean of several checkpoints' weights, often better than each of them (Izmailov et al. 2018)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from engine.checkpoint import CheckpointError, entry, newest_first, read_checkpoint, weights
from engine.config import checkpoint_config
from engine.run_dir import CHECKPOINTS


def find_checkpoints(paths: Sequence[Path], last: int | None) -> list[Path]:
    """The files among the paths, and of each folder the last epochs, oldest first.

    Args:
        paths: files, folders of epoch_N.pth, or folders of runs.
        last: epochs of a folder; None: all.

    Raises:
        UserError: a folder has fewer.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        folder = path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path
        epochs = [file for file in newest_first(folder) if file.name.startswith("epoch_")][:last]
        if not epochs or len(epochs) < (last or 1):
            raise UserError(f"{path} has {len(epochs)} checkpoints epoch_N.pth, {last or 1} are wanted")
        found += reversed(epochs)
    return found


def average_checkpoints(paths: Sequence[Path]) -> dict[str, Any]:
    """The entries of a checkpoint with the mean of the weights that would be validated (of each "ema", or "model").

    BatchNorm's statistics are averaged like weights. Counters, which are not floating-point numbers, are those of the
    last checkpoint, as are configuration, class names and epoch.

    Raises:
        CheckpointError: a file cannot be read, or is of another network than the first.
    """
    sums: dict[str, torch.Tensor] = {}
    contents: dict[str, Any] = {}
    for path in paths:
        contents = read_checkpoint(path)
        state = weights(contents, path)
        # Networks that compute other things over time can have weights of the same kinds.
        modelling = checkpoint_config(contents, path).SIFA.model_dump(exclude={"offset_init", "branch_scale"})
        network = modelling, {name: (value.shape, value.dtype) for name, value in state.items()}
        if not sums:
            sums = {name: value.double() if value.is_floating_point() else value for name, value in state.items()}
            first = network
            continue
        if network != first:
            raise CheckpointError(f"checkpoint {path} is of another network than {paths[0]}")
        for name, value in state.items():
            sums[name] = sums[name] + value if value.is_floating_point() else value
    model = {
        name: (value / len(paths)).to(state[name].dtype) if value.is_floating_point() else value
        for name, value in sums.items()
    }
    names = ["epoch", "config", "classes", *(["trained_on"] if "trained_on" in contents else [])]
    return {"model": model, **{name: entry(contents, name, paths[-1]) for name in names}}
