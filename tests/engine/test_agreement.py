"""Processes with other settings, lists or class files are stopped at the start, with what differs and where."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from engine import agreement
from engine.schema import Config


def check(monkeypatch: pytest.MonkeyPatch, *configs: Config, arguments: Callable[[int], dict[str, Any]]) -> None:
    """As rank 0 sees it."""
    facts = [dict(agreement._facts(config, arguments(rank))) for rank, config in enumerate(configs)]
    monkeypatch.setattr(agreement, "all_gather", lambda own: facts)
    agreement.check_agreement(configs[0], arguments(0))


def config(**dataset: Any) -> Config:
    return Config.model_validate({"dataset": dataset})


def test_what_differs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a", "b", "same"):
        (tmp_path / name).write_text("x" if name == "same" else name)
    one = config(list_file=str(tmp_path / "a"), num_classes=7)
    same: Callable[[int], dict[str, Any]] = lambda rank: {"--resume": None}  # noqa: E731
    check(monkeypatch, one, one, arguments=same)
    with pytest.raises(UserError, match=r"the content of dataset\.list_file is .* on rank 1, .* on rank 0"):
        check(monkeypatch, one, config(list_file=str(tmp_path / "b"), num_classes=7), arguments=same)
    with pytest.raises(UserError, match=r"dataset\.num_classes is 8 on rank 2, 7 on rank 0"):
        check(monkeypatch, one, one, config(list_file=str(tmp_path / "a"), num_classes=8), arguments=same)
    with pytest.raises(UserError, match="--resume is 1 on rank 1, 0 on rank 0"):
        check(monkeypatch, one, one, arguments=lambda rank: {"--resume": rank})


def test_copies_of_the_data_in_other_places_agree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "list.txt").write_text("v 8 0\n")
    here, there = (config(root_path=name, list_file=str(tmp_path / name / "list.txt")) for name in ("one", "two"))
    check(monkeypatch, here, there, arguments=lambda rank: {})
