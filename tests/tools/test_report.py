"""tools.report as its users run it: a page, a printed matrix, and mistakes in one line."""

from pathlib import Path

import pytest

from engine.scores import save_scores
from tests.visualization.test_report import Page, scores
from tools import report


def test_page_and_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_scores(tmp_path / "out/scores.npz", scores(tmp_path))
    assert report.main([str(tmp_path / "out")]) == 0, "the folder of a run"
    (tmp_path / "out/report.html").unlink()
    capsys.readouterr()
    assert report.main([str(tmp_path / "out/scores.npz")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "true"
    assert lines[-1] == str(tmp_path / "out/report.html")
    top1, top3 = Page((tmp_path / "out/report.html").read_text()).rows[1:3]
    assert (top1[2], top3[0]) == ("50.00 (18.8 to 81.2)", "top-3, %")


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path)]) == 2
    assert "scores.npz does not exist; train_val_3d.py --test writes it" in capsys.readouterr().err
    assert report.main([str(tmp_path / "nowhere.npz")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    (tmp_path / "file").write_text("")
    save_scores(tmp_path / "scores.npz", scores(tmp_path))
    assert report.main([str(tmp_path / "scores.npz"), f"--out={tmp_path}/file/out"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert report.main([str(tmp_path / "scores.npz"), "--worst=-1"]) == 2
    assert capsys.readouterr().err == "error: --worst must be at least 0, got -1\n"
