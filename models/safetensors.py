"""Files in the safetensors format: a length, a JSON header and the bytes of the tensors. Reading executes no code."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


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
        ValueError: the header is damaged, a dtype is unknown, or a tensor does not lie within the file.
    """
    contents = path.read_bytes()
    start = 8 + int.from_bytes(contents[:8], "little")
    data = memoryview(contents)[start:]
    try:
        header = json.loads(contents[8:start])
        return {name: _tensor(data, entry) for name, entry in header.items() if name != "__metadata__"}
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"the header is damaged: {error!r}") from None


def _tensor(data: memoryview, entry: dict[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {entry['dtype']}")
    empty = torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]])
    if not 0 <= begin <= end <= len(data) or end - begin != empty.nbytes:
        raise ValueError(
            f"a tensor of {empty.nbytes} bytes must lie within the {len(data)} bytes of data, got {begin} to {end}"
        )
    if empty.numel() == 0:
        return empty
    return torch.frombuffer(bytearray(data[begin:end]), dtype=empty.dtype).view(entry["shape"])
