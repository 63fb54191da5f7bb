"""Checkpoints: everything a run needs to resume, written so that a crash leaves the previous one intact."""

import errno
import hashlib
import os
import pickle
import random
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from common.errors import UserError, describe
from common.files import atomic_write, check_stored_archive, sync_folder

LAST, PREVIOUS = "last.pth", "before_last.pth"
_OTHER_CLASSES = re.compile(r"size mismatch for fc(_dual)?\.")
_NUMBERED = re.compile(r"epoch_(\d+)\.pth$")


class CheckpointError(UserError):
    """A checkpoint that cannot be read, written or used; the message names the file."""


def save_checkpoint(path: Path, contents: dict[str, Any], *, keep: Path | None = None) -> None:
    """Writes a checkpoint completely or not at all: into a temporary file, to the disk, then under its name.

    Args:
        keep: the name that the previous checkpoint of this path gets.

    Raises:
        CheckpointError: the disk is full or the folder not writable. The previous checkpoint is unchanged.
    """
    try:
        with atomic_write(path) as file:
            torch.save(contents, file)
            if keep is not None and path.exists():
                copy_checkpoint(path, keep)  # not a rename: at every moment there is a checkpoint at `path`
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its zip writer
        raise CheckpointError(f"checkpoint {path} cannot be written: {describe(error)}") from None


def copy_checkpoint(source: Path, path: Path) -> None:
    """Gives a written checkpoint a second name, without a second copy where the file system can."""
    temporary = path.with_name(path.name + ".link")
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except OSError:
            with atomic_write(path) as file:
                file.write(source.read_bytes())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"checkpoint {path} cannot be written: {describe(error)}") from None


def checkpoint_file(path: Path) -> Path:
    """The file that a path means: of the folder of a run, or of its checkpoints, last.pth; else the path itself."""
    return next((file for file in (path / LAST, path / "checkpoints" / LAST) if file.is_file()), path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint's tensors and plain values, on the CPU. Nothing in the file is executed.

    Raises:
        CheckpointError: there is no such file, it is damaged or no checkpoint, or it holds more than tensors and plain
            values.
    """
    path = checkpoint_file(path)
    if path.is_dir():
        raise CheckpointError(f"checkpoint {path} is a folder without {LAST} or checkpoints/{LAST}")
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    _check_archive(path)
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
        # PyTorch goes on with a paragraph about what may have happened.
        reason = re.split(r"\. |\n", str(error).strip(), maxsplit=1)[0] or type(error).__name__
        raise CheckpointError(f"checkpoint {path} is damaged: {reason}") from None
    if not isinstance(contents, dict):
        raise CheckpointError(f"checkpoint {path} holds {type(contents).__name__}, not the entries of a checkpoint")
    return contents


def _check_archive(path: Path) -> None:
    """torch.save writes an archive with a checksum of each tensor; torch.load does not look at them, and fails at what
    is no archive, or half of one, in words of its own.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from None
    if start[:1] == b"\x80":
        return  # a pickle: the format of PyTorch before 1.6, which has no checksums
    if start != b"PK":
        empty = "" if start else ": it is empty"
        raise CheckpointError(f"checkpoint {path} is no checkpoint at all{empty}")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"checkpoint {path} is damaged: its end is missing")
    try:
        check_stored_archive(path)
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("data.pkl") for name in archive.namelist()):
                raise CheckpointError(f"checkpoint {path} is no checkpoint at all, but another archive")
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError) as error:  # RuntimeError: encrypted
        # A directory that was cut off points to before the file's beginning, which the system calls invalid.
        cut = isinstance(error, OSError) and error.errno == errno.EINVAL
        raise CheckpointError(f"checkpoint {path} is damaged: {'its end is missing' if cut else error}") from None
    if broken is not None:
        raise CheckpointError(f"checkpoint {path} is damaged: the checksum of {broken} in it is wrong")


def fingerprint(path: Path) -> str:
    """What tells two checkpoints apart: their checksums, so that no tensor is read; of an old file, its bytes."""
    path = checkpoint_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = " ".join(f"{info.filename} {info.CRC}" for info in archive.infolist()).encode()
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any], list[str]] | None:
    """The newest checkpoint of a run that is whole: its path, what was read, and a line for each newer one that is not.

    None where there is none.

    Raises:
        CheckpointError: there are checkpoints, and each of them is damaged.
    """
    damaged: list[str] = []
    for path in newest_first(folder):
        try:
            contents = read_checkpoint(path)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        return path, contents, [f"{line}: {path} is used instead" for line in damaged]
    if damaged:
        raise CheckpointError(f"no checkpoint in {folder} can be read: {damaged[0]}")
    return None


def newest_first(folder: Path) -> Iterator[Path]:
    """The checkpoints of a run: last.pth, the previous one, epoch_N.pth from the last epoch down."""
    for name in (LAST, PREVIOUS):
        if (folder / name).is_file():
            yield folder / name
    numbered = [(int(match[1]), path) for path in folder.glob("epoch_*.pth") if (match := _NUMBERED.match(path.name))]
    for _, path in sorted(numbered, reverse=True):
        yield path


def entry(contents: dict[str, Any], name: str, path: Path) -> Any:
    """One entry of a checkpoint that was read."""
    if name not in contents:
        more = f" and {len(contents) - 5} more" if len(contents) > 5 else ""
        advice = ""
        if contents and all(isinstance(value, torch.Tensor) for value in contents.values()):
            advice = "; these are weights, not a checkpoint of train_val_3d.py: network.pretrained_model takes them"
        raise CheckpointError(
            f"checkpoint {path} has no entry {name!r}; it has {', '.join(map(str, list(contents)[:5])) or 'none'}{more}"
            f"{advice}"
        )
    value, wanted = contents[name], _TYPES.get(name, object)
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not (is_count if wanted is int else isinstance(value, wanted)):
        kind = "whole number" if wanted is int else wanted.__name__
        raise CheckpointError(f"checkpoint {path} is damaged: its entry {name!r} must be a {kind}, got {_short(value)}")
    return value


_TYPES: dict[str, type] = {
    **dict.fromkeys(("epoch", "iteration", "iterations_per_epoch", "average_steps"), int),
    **dict.fromkeys(("config", "model", "ema", "optimizer", "scheduler", "scaler"), dict),
    **dict.fromkeys(("classes", "processes"), list),
    "trained_on": str,
}


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, int | float | str | bool | None) else type(value).__name__
    return text if len(text) <= 40 else text[:39] + "…"


def weights(contents: dict[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """The network's weights in a checkpoint: their mean over time, where the run kept one."""
    name = "ema" if "ema" in contents else "model"
    state_dict = entry(contents, name, path)
    if not state_dict or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise CheckpointError(
            f"checkpoint {path} is damaged: its entry {name!r} does not hold the weights of a network"
        )
    return state_dict


def class_names_of(contents: dict[str, Any], path: Path, num_classes: int) -> list[str]:
    """The class names in a checkpoint, or none if it has none.

    Raises:
        CheckpointError: they are not one text for each class.
    """
    names = contents.get("classes") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"checkpoint {path} is damaged: its entry 'classes' does not hold names")
    if names and len(names) != num_classes:
        raise CheckpointError(f"checkpoint {path} is damaged: it names {len(names)} classes of {num_classes}")
    return names


def load_weights(model: nn.Module, state_dict: dict[str, torch.Tensor], path: Path) -> None:
    """Loads a model's weights, all of them.

    Raises:
        CheckpointError: a weight is missing, unexpected or of another shape; the message names the first few, and the
            way out where the classes alone are others.
    """
    wanted = model.state_dict()
    for name, value in state_dict.items():
        if name in wanted and isinstance(value, torch.Tensor) and _kind(value) != _kind(wanted[name]):
            raise CheckpointError(f"checkpoint {path} does not fit this model: {name} is of type {value.dtype}")
    try:
        model.load_state_dict(state_dict)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        details = "; ".join(line if len(line) < 160 else line[:157] + "..." for line in lines[:3]) or str(error)
        more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
        if lines and all(_OTHER_CLASSES.match(line) for line in lines):
            more += f"; network.pretrained_model={path} starts from it with a new classifier"
        raise CheckpointError(f"checkpoint {path} does not fit this model: {details}{more}") from None


def _kind(tensor: torch.Tensor) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


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
