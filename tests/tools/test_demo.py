"""tools.demo: what it leaves and prints. The training itself is tests/test_script.py's; here it is a small network."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.annotations import read_list
from datasets.preparation.demo_videos import MOTIONS
from engine.config import load_config
from engine.scores import Scores, save_scores
from tests.tiny import CLASSES, write_checkpoint
from tools import demo

ROOT = Path(__file__).parents[2]


def leave_a_run(seed: int) -> None:
    """What a training leaves."""
    write_checkpoint(demo.OUT / "checkpoints/last.pth")
    videos = [video.path for video in read_list(demo.DATA / "val.txt", num_classes=8)][: len(CLASSES)]
    probabilities = np.eye(len(CLASSES), dtype=np.float32)[:, None].copy()
    where: dict[str, Any] = {"list_file": str(demo.DATA / "val.txt"), "root_path": str(demo.DATA / "videos/val")}
    where |= {"format": "VIDEO", "frame_template": "", "first_frame": 1, "clips": 1, "crops": 1}
    save_scores(demo.OUT / "scores.npz", Scores(videos, np.arange(len(CLASSES)), probabilities, list(CLASSES), **where))


def test_it_ends_with_report_pictures_times_and_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings").symlink_to(ROOT / "settings")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "COUNTS", {"train": 1, "val": 3})
    monkeypatch.setattr(demo, "train", leave_a_run)
    assert demo.main(["--before", "environment and packages=80", "the op=5"]) == 0
    out = capsys.readouterr().out
    assert [len(read_list(f"data/demo/{split}.txt", num_classes=8)) for split in ("train", "val")] == [8, 24]
    assert Path("data/demo/classes.txt").read_text().splitlines() == sorted(MOTIONS)
    for name in ("report.html", "attention.png", "attention.html", "checkpoints/last.pth"):
        assert (demo.OUT / name).is_file()
        assert f"output/demo/{name}" in out
    assert "100.0 % of 6 validation videos are right" in out
    parts = ["environment and packages", "the op", "videos", "lists", "training", "report and pictures", "in all"]
    table = [line for line in out.splitlines() if line.startswith(tuple(parts)) and " s" in line]
    assert [line[:26].strip() for line in table] == parts
    assert int(table[-1].split()[-2]) >= 85
    for tool in ("predict", "visualize", "finetune"):
        assert f" -m tools.{tool} " in out


def test_settings_and_demo_name_the_same_files() -> None:
    config = load_config(ROOT / demo.SETTINGS, [])
    assert config.output_dir == str(demo.OUT)
    assert config.dataset.classes_file == str(demo.DATA / "classes.txt")
    for root, file, split in (
        (config.dataset.root_path, config.dataset.list_file, "train"),
        (config.dataset.eva_root_path, config.dataset.eva_list_file, "val"),
    ):
        assert (root, file) == (str(demo.DATA / "videos" / split), str(demo.DATA / f"{split}.txt"))


def test_a_training_that_fails_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert demo.SETTINGS == "settings/demo.yml"
    monkeypatch.chdir(tmp_path)
    assert demo.main([]) == 2
    assert capsys.readouterr().err == (
        "error: there is no settings/demo.yml here: run the demo in the folder of the project\n"
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 3))
    with pytest.raises(demo.UserError, match="the training ended with exit code 3, see above"):
        demo.train(0)
