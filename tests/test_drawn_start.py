"""benchmarks/drawn_start.py: one command makes the start, continues, and does not mix videos."""

from pathlib import Path

import pytest
import torch

from benchmarks import drawn_start
from engine.scores import load_scores
from tests.test_recipe_modules import NARROW


def test_one_command_makes_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drawn_start, "SIZE", 36)
    monkeypatch.setattr(drawn_start, "FRAMES", 6)
    monkeypatch.setattr(drawn_start, "TESTED", 1)
    out = tmp_path / "start"
    command = ["--videos", "2", "--epochs", "1", "--out", str(out), *NARROW]
    assert drawn_start.main(command) == 0, capfd.readouterr().err
    assert "last.pth" in capfd.readouterr().out
    weights = torch.load(out / "run/checkpoints/last.pth", weights_only=True)["model"]
    assert any("temporal.offset" in name for name in weights)
    tested = {video.rpartition("/")[2] for video in load_scores(out / "run").videos}
    assert tested == {"0002"}  # the number after those that are trained on
    assert len((out / "train.txt").read_text().splitlines()) == 2 * 18

    monkeypatch.setattr(drawn_start, "draw_all", lambda *_, **__: pytest.fail("drawn twice"))
    assert drawn_start.main(command) == 0
    assert drawn_start.main([*command, "--seed", "1"]) == 2
    assert "has other videos (seed 0, 2 + 1 videos" in capfd.readouterr().err
