"""Files in the safetensors format, read by the package of that name. Reading executes no code."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor


def is_safetensors(path: Path) -> bool:
    """Whether a file begins like one: with the header's length, then the header's brace."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        length, brace = int.from_bytes(file.read(8), "little"), file.read(1)
    return brace == b"{" and 8 + length <= path.stat().st_size


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name.

    Raises:
        ValueError: the header is damaged or names a tensor twice; a type is unknown; or the tensors overlap, leave
            bytes of the file over, or are not of their shape.
    """
    contents = path.read_bytes()
    try:
        tensors = safetensors.torch.load(contents)
        # The package takes the last of two entries with one name.
        names = json.loads(contents[8 : 8 + int.from_bytes(contents[:8], "little")], object_pairs_hook=_unique)
    except (safetensors.SafetensorError, RuntimeError, KeyError, TypeError, OverflowError, ValueError) as error:
        raise ValueError(f"the safetensors file is damaged: {error}") from None
    return {name: tensors[name] for name in names if name in tensors}  # in the order of the file


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = Counter(name for name, _ in pairs)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"the name {twice[0]} is in its header twice")
    return dict(pairs)
