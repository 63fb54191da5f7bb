"""Scores come back as they were saved; other files are refused in one sentence."""

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from engine.scores import Scores, load_scores, save_scores


def scores(**changes: Any) -> Scores:
    """Three videos, two clips x three crops, four classes."""
    values: dict[str, Any] = {
        "videos": ["a b/c", "日本", "x"],
        "labels": np.array([0, 3, 1]),
        "probabilities": np.random.default_rng(0).dirichlet(np.ones(4), (3, 6)).astype(np.float32),
        "classes": ["jump", "<b>", "c", "d"],
        "clips": 2,
        "crops": 3,
        "list_file": "list.txt",
        "root_path": "frames",
        "format": "FRAME",
        "frame_template": "{:05d}.jpg",
        "first_frame": 1,
    }
    return Scores(**{**values, **changes})


def test_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "scores.npz"
    save_scores(path, scores())
    loaded, expected = load_scores(path), scores()
    for field in fields(Scores):
        one, other = getattr(loaded, field.name), getattr(expected, field.name)
        assert type(one) is type(other), field.name
        assert np.array_equal(one, other), field.name
    assert loaded.probabilities.dtype == np.float32
    assert [file.name for file in path.parent.iterdir()] == ["scores.npz"]


def test_one_view_and_all_views() -> None:
    some = scores()
    assert np.array_equal(some.of_middle_view(), some.probabilities[:, 4])  # clip 1 of 0..1, crop 1 of 0..2
    assert np.array_equal(some.of_all_views(), some.probabilities.mean(1))
    ten = scores(clips=10, crops=3, probabilities=np.zeros((3, 30, 4), np.float32))
    ten.probabilities[:, 16] = 1  # clip 5 begins in the middle of the room that a clip has
    assert ten.of_middle_view().min() == 1


def test_places() -> None:
    certain = np.eye(4, dtype=np.float32)[[0, 1, 1]]
    certain[1] = [0.4, 0.3, 0.2, 0.1]  # its label is 3
    assert scores().ranks(certain).tolist() == [0, 3, 0]


def test_sizes_that_contradict() -> None:
    with pytest.raises(ValueError, match=r"probabilities must be \(videos, views, classes\) = \(3, 3, 4\)"):
        scores(clips=1)
    with pytest.raises(ValueError, match="labels must be one for each of 3 videos"):
        scores(labels=np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.3"):
        scores(labels=np.array([0, 4, 1]))


def test_files_that_hold_no_scores(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist; train_val_3d.py --test writes it"):
        load_scores(tmp_path / "nowhere.npz")
    path = tmp_path / "scores.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"scores.npz does not hold scores"):
        load_scores(path)
    np.savez(path, videos=np.array(["a"]))
    with pytest.raises(UserError, match=r"scores.npz does not hold scores: .*labels"):
        load_scores(path)
    np.savez(path, videos=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"scores.npz does not hold scores"):
        load_scores(path)
    save_scores(path, scores())
    with np.load(path) as arrays:
        whole = dict(arrays)
    for name, value in (("list_file", 3), ("videos", "a"), ("first_frame", "x"), ("labels", whole["labels"] * 1.0)):
        np.savez(path, **{**whole, name: np.asarray(value)})
        with pytest.raises(UserError, match=rf"scores.npz does not hold scores: {name} must"):
            load_scores(path)
    save_scores(path, scores())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"scores.npz does not hold scores"):
        load_scores(path)
    save_scores(path, scores())
    for flag, message in ((1, "encrypted"), (64, "strong encryption")):
        path.write_bytes(re.sub(rb"(PK\x01\x02.{4}).", rb"\g<1>" + bytes([flag]), path.read_bytes(), flags=re.DOTALL))
        with pytest.raises(UserError, match=rf"scores.npz does not hold scores: .*{message}"):
            load_scores(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_scores(tmp_path / "file" / "scores.npz", scores())


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scores.npz")
    with pytest.raises(UserError, match=r"scores.npz does not hold scores: it is no regular file"):
        load_scores(tmp_path / "scores.npz")
