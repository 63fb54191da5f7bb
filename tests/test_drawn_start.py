"""benchmarks/drawn_start.py: one command makes the start, continues, and does not mix videos or settings."""

from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import drawn_motion, drawn_start
from benchmarks.drawn_motion import CLASSES
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
    weights = torch.load(out / "seed_0/checkpoints/last.pth", weights_only=True)["model"]
    assert any("temporal.offset" in name for name in weights)
    tested = {video.rpartition("/")[2] for video in load_scores(out / "seed_0").videos}
    assert tested == {"0002"}  # the number after those that are trained on
    assert len((out / "train.txt").read_text().splitlines()) == 2 * 18

    scores = (out / "seed_0/scores.npz").read_bytes()
    assert drawn_start.main(command) == 0
    assert (out / "seed_0/scores.npz").read_bytes() == scores
    assert drawn_start.main([*command, "--seed", "1"]) == 2
    assert "has other videos (seed 0, 2 + 1 videos" in capfd.readouterr().err
    assert drawn_start.main([*command, "optimization.epochs=2"]) == 2
    assert "other settings (optimization.epochs 1 -> 2" in capfd.readouterr().err


def test_a_mistake_is_said_before_anything_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "start"
    assert drawn_start.main(["--out", str(out), "--set", "network.wide=4"]) == 2
    assert "network.wide" in capsys.readouterr().err
    assert not out.exists()


def test_drawing_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there stays, also next to a file that is not finished; only what is missing is drawn."""
    monkeypatch.setattr(drawn_motion, "CLASSES", CLASSES[:1])
    folder = tmp_path / "height_up"
    draw = partial(drawn_motion.draw_all, tmp_path, range(3), size=32, frames=4, seed=0, keep=True)
    draw()
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "0001.mp4").rename(folder / ".0001.mp4")
    drawn = []
    monkeypatch.setattr(drawn_motion, "save_video", lambda file, _: drawn.append(file.name))
    draw()
    assert drawn == ["0001.mp4"]
    monkeypatch.undo()
    monkeypatch.setattr(drawn_motion, "CLASSES", CLASSES[:1])
    draw()
    assert {file.name: file.read_bytes() for file in folder.glob("[0-9]*.mp4")} == whole
