"""Checkpoints: written whole or not at all, read without executing anything, refused in words."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine import checkpoint
from engine.checkpoint import CheckpointError, checkpoint_file, fingerprint, read_checkpoint, save_checkpoint


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


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"run is a folder without last\.pth or checkpoints/last\.pth$"):
        read_checkpoint(tmp_path / "run")
    file = tmp_path / "run/checkpoints/last.pth"
    save_checkpoint(file, {"epoch": 1})
    for folder in ("run", "run/checkpoints"):
        assert checkpoint_file(tmp_path / folder) == file
        assert read_checkpoint(tmp_path / folder) == {"epoch": 1}
        assert fingerprint(tmp_path / folder) == fingerprint(file)


@pytest.mark.parametrize("kept", [2, 4, 100, 0.5, 0.99])
def test_a_file_that_was_cut_off(kept: float, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"model": {"weight": torch.randn(100)}})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"a\.pth is damaged: its end is missing$"):
        read_checkpoint(path)


def test_a_file_of_the_old_format_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": torch.randn(1000)}, path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(path)["model"].shape == (1000,)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"a\.pth is damaged: unexpected EOF, expected \d+ more bytes$"):
        read_checkpoint(path)


def _archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("notes.txt", "no weights")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no checkpoint at all: it is empty"),
        (b"hello world\n" * 500, "no checkpoint at all"),
        (b"<!DOCTYPE html>\n", "no checkpoint at all"),
        (bytes(1000), "no checkpoint at all"),
        (_archive(), "no checkpoint at all, but another archive"),
    ],
    ids=["empty", "text", "a page", "zeros", "another archive"],
)
def test_a_file_of_another_kind(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"a\.pth is {message}$"):
        read_checkpoint(path)


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"PK")

    def forbidden(*args: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(CheckpointError, match=r"a\.pth cannot be read: Permission denied$"):
        read_checkpoint(path)


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """A megabyte may unpack to gigabytes, and torch.save compresses nothing."""
    path, bomb = tmp_path / "a.pth", tmp_path / "bomb.pth"
    torch.save({"model": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for info in archive.infolist():
            packed.writestr(info.filename, archive.read(info))
    with pytest.raises(CheckpointError, match=r"bomb\.pth is damaged: its entry .* is compressed"):
        read_checkpoint(bomb)


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


def test_bare_weights_are_told_where_they_belong(tmp_path: Path) -> None:
    path = tmp_path / "r50.pth"
    bare = {f"layer{number}.weight": torch.zeros(1) for number in range(320)}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.weights(bare, path)
    assert str(caught.value) == (
        f"checkpoint {path} has no entry 'model'; it has {', '.join(list(bare)[:5])} and 315 more; these are weights, "
        "not a checkpoint of train_val_3d.py: network.pretrained_model takes them"
    )
    with pytest.raises(CheckpointError, match=r"it has epoch, model$"):  # no weights: nothing is said about them
        checkpoint.entry({"epoch": 1, "model": bare}, "config", path)


def test_other_classes_are_told_a_way_out(tmp_path: Path) -> None:
    def network(classes: int, features: int = 3) -> nn.Module:
        return nn.ModuleDict({name: nn.Linear(features, classes) for name in ("fc", "fc_dual")})

    path, way_out = (
        tmp_path / "a.pth",
        f"; network.pretrained_model={tmp_path}/a.pth starts from it with a new classifier",
    )
    with pytest.raises(CheckpointError, match=r"size mismatch for fc\.weight.*and 1 more") as caught:
        checkpoint.load_weights(network(4), network(5).state_dict(), path)
    assert str(caught.value).endswith(way_out)
    more = {**network(5).state_dict(), "conv.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:  # another network altogether
        checkpoint.load_weights(network(4), more, path)
    assert way_out not in str(caught.value)


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
    last, before = tmp_path / checkpoint.LAST, tmp_path / checkpoint.PREVIOUS
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
            assert line.endswith(f"{expected} is used instead")
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
