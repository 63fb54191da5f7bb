"""The commands on a GPU."""

import json
from pathlib import Path

import pytest

from tests.tiny import CLASSES, moving_square, write_checkpoint, write_video
from tools import predict

pytestmark = pytest.mark.cuda


def test_predict_says_the_same_on_either_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(tmp_path / "last.pth")
    write_video(tmp_path / "a.avi", moving_square(30))
    found = []
    for device in ("cpu", "cuda"):
        arguments = [str(tmp_path / "a.avi"), f"--checkpoint={tmp_path}/last.pth", f"--device={device}", "--json"]
        assert predict.main([*arguments, "--top", str(len(CLASSES))]) == 0
        best = json.loads(capsys.readouterr().out)["top"]
        found.append({one["class"]: one["probability"] for one in best})
    assert found[0] == pytest.approx(found[1], abs=0.01)  # convolutions round to 10 bits on the GPU
    assert sum(found[1].values()) == pytest.approx(1.0, abs=1e-3)
