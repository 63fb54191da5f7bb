"""The table of counts."""

from pathlib import Path

import pytest

from tools import complexity

SETTINGS = Path(__file__).parents[2] / "settings/c2d_sifa_resnet50-1x16x1.k400.yml"


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert complexity.main(["--config_file", str(SETTINGS), "--set", "evaluation.eva_crop_size=256"]) == 0
    lines = capsys.readouterr().out.splitlines()
    total = lines[-2].split()
    assert total[0] == "total"
    assert float(total[1]) == pytest.approx(43.04, abs=0.005)
    assert float(total[3]) == pytest.approx(31.22, rel=0.005)
    assert lines[-1].startswith("one clip of 16 x 256 x 256; its activations in training take ")


def test_a_clip_that_comes_down_to_one_position(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["evaluation.eva_crop_size=8", "dataset.clip_length=8", "dataset.num_steps=2"]
    assert complexity.main(["--config_file", str(SETTINGS), "--set", *small]) == 0
    assert "one clip of 8 x 8 x 8; " in capsys.readouterr().out


def test_a_wrong_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert complexity.main(["--config_file", str(SETTINGS), "--set", "network.net_name=resnet50"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: network: net_name must be one of c2d_sifa_resnet26, ")
    assert error.count("\n") == 1
