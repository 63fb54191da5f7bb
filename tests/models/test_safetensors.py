"""The safetensors format, as files that were written byte by byte."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from models import is_safetensors, read_safetensors


def write(path: Path, header: Any, data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_tensors_of_several_types(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "kernel": {"dtype": "F32", "shape": [2, 1, 2], "data_offsets": [0, 16]},
        "count": {"dtype": "I64", "shape": [], "data_offsets": [16, 24]},
        "half": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]},
        "empty": {"dtype": "F32", "shape": [0, 3], "data_offsets": [28, 28]},
    }
    data = struct.pack("<4fq", 1.0, -2.0, 0.5, 3.0, -7) + b"\x80\x3f\x00\xc0"
    path = write(tmp_path / "weights.bin", header, data)
    assert is_safetensors(path)
    tensors = read_safetensors(path)
    assert set(tensors) == {"kernel", "count", "half", "empty"}
    assert torch.equal(tensors["kernel"], torch.tensor([[[1.0, -2.0]], [[0.5, 3.0]]]))
    assert torch.equal(tensors["count"], torch.tensor(-7))
    assert torch.equal(tensors["half"], torch.tensor([1.0, -2.0], dtype=torch.bfloat16))
    assert tensors["empty"].shape == (0, 3)


def test_other_files_are_not_taken_for_one(tmp_path: Path) -> None:
    assert not is_safetensors(tmp_path / "nowhere")
    for contents in (b"", b"PK\x03\x04", struct.pack("<Q", 100) + b"{}"):
        (tmp_path / "file").write_bytes(contents)
        assert not is_safetensors(tmp_path / "file")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "torch.pth")
    assert not is_safetensors(tmp_path / "torch.pth")


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": tensor([2], 0, 12)},
        {"a": tensor([2], 4, 12)},
        {"a": tensor([1], 0, 8)},
        {"a": tensor([1], 0, 4)},  # four bytes are left over
        {"a": tensor([2], 0, 8), "b": tensor([2], 0, 8)},
        {"a": tensor([2], 0, 8), "b": tensor([1], 4, 8)},
        {"a": tensor([-1], 0, 8)},
        {"a": tensor([2**62], 0, 8)},
        {"a": tensor([2**62, 4], 0, 8)},
        {"a": tensor([2], 0, 8), "b": tensor([0, 2**62, 2**62], 8, 8)},
        {"a": tensor([2], 0, 8, "F33")},
        {"a": tensor([16], 0, 8, "F4")},
        {"a": {"dtype": "F32"}},
        {"a": 3},
    ],
)
def test_damaged_files(tmp_path: Path, header: Any) -> None:
    with pytest.raises(ValueError, match=r"^the safetensors file is damaged: [^\n]+$"):
        read_safetensors(write(tmp_path / "damaged.safetensors", header, bytes(8)))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{ab}", "JSON"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion limit"),
        (b'{"a":%(entry)s,"a":%(entry)s}' % {b"entry": json.dumps(tensor([2], 0, 8)).encode()}, "the name a .* twice"),
        (b'{"\xff":3}', "UTF-8"),
    ],
)
def test_damaged_headers(tmp_path: Path, header: bytes, message: str) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ValueError, match=message):
        read_safetensors(path)
