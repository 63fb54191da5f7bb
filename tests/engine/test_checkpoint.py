"""Checkpoints: written whole or not at all, read without executing anything, refused in words."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import checkpoint
from engine.checkpoint import CheckpointError, read_checkpoint, save_checkpoint


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


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    """torch.load would take it."""
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"model": {"weight": torch.arange(1000.0)}})
    content = bytearray(path.read_bytes())
    at = content.index(torch.arange(1000.0).numpy().tobytes()) + 2000
    content[at] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["model"]["weight"], torch.arange(1000.0))
    with pytest.raises(CheckpointError, match=r"a\.pth is damaged: the checksum of .* is wrong"):
        read_checkpoint(path)


def test_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    last, before = tmp_path / checkpoint.LAST, tmp_path / checkpoint.BEFORE
    assert checkpoint.newest_checkpoint(tmp_path) is None
    assert checkpoint.newest_checkpoint(tmp_path / "nowhere") is None
    for epoch in range(9, 12):
        save_checkpoint(last, {"epoch": epoch}, keep=before)
        checkpoint.copy_checkpoint(last, tmp_path / f"epoch_{epoch}.pth")
    assert checkpoint.newest_checkpoint(tmp_path) == (last, {"epoch": 11}, [])
    # One after the other breaks; hard links to the same file break together.
    broken: list[Path] = []
    for path, expected in ((last, before), (before, tmp_path / "epoch_9.pth")):
        with open(path, "r+b") as file:
            file.truncate(100)
        broken.append(path)
        found = checkpoint.newest_checkpoint(tmp_path)
        assert found is not None
        assert found[0] == expected
        for file_name, line in zip(broken, found[2], strict=False):
            assert line.startswith(f"checkpoint {file_name} is damaged")
            assert line.endswith(f"{expected} is used in its place")
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read"):
        checkpoint.newest_checkpoint(tmp_path)


def test_fingerprints(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        save_checkpoint(tmp_path / name, {"model": torch.tensor(value)})
        torch.save({"model": value}, tmp_path / f"old {name}", _use_new_zipfile_serialization=False)
    for kind in ("", "old "):
        a, b, c = (checkpoint.fingerprint(tmp_path / f"{kind}{name}") for name in "abc")
        assert a == b != c
