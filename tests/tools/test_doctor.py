"""tools.doctor: the block for a bug report, whatever is broken."""

from pathlib import Path

import cv2
import pytest
import torch

from cuda_sifa import library
from tools import doctor


def rows(text: str) -> dict[str, str]:
    return {line.partition(" ")[0]: line.partition(" ")[2].strip() for line in text.splitlines()}


def test_what_is_installed_and_which_op_serves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(doctor.ROOT.parent))
    monkeypatch.setenv("SIFA_WITH_CUDA", "0")
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 24, "one screen"
    assert str(doctor.ROOT) not in text
    found = rows(text)
    assert found["SIFA"].endswith(f" in ~/{doctor.ROOT.name}")
    assert found["PyTorch"].startswith(f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}, cuDNN ")
    assert found["OpenCV"].startswith(f"{cv2.__version__}, FFmpeg's avcodec ")
    served = f"compiled for cpu ({library.build})" if library.devices == {"cpu", "meta"} else f"({library.build})"
    assert served in found["op"] or "plain PyTorch" in found["op"]
    assert "pydantic 2." in found["packages"]
    assert "SIFA_WITH_CUDA 0" in found["variables"]


BROKEN = {
    "not to be imported": ("raise ImportError('no libgomp')", "does not load (ImportError: no libgomp)"),
    "ends the process": ("import os; os.abort()", "does not load (exit code -6)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_torch(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, answer = BROKEN[name]
    (tmp_path / "torch.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert doctor.main([]) == 2
    found = rows(capsys.readouterr().out)
    assert found["PyTorch"] == found["op"] == answer
    assert found["OpenCV"].startswith(cv2.__version__) == (name == "not to be imported")
    assert "system" in found
    assert "packages" in found


def test_a_missing_package_is_named_with_its_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ask", lambda: (dict.fromkeys(doctor.QUESTIONS, "there"), ["the op is not built"]))
    monkeypatch.setattr(doctor, "versions", lambda names: {name: None if name == "lmdb" else "1" for name in names})
    assert doctor.main([]) == 2
    lines = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if line.startswith("missing")]
    assert lines[0] == "the op is not built"
    assert lines[1].endswith("bash make.sh, or pip install -r requirements.txt")
    monkeypatch.setattr(doctor, "versions", lambda names: {name: None if name == "onnx" else "1" for name in names})
    assert doctor.main([]) == 0
    assert "onnx (export to ONNX: pip install onnx onnxscript onnxruntime)" in capsys.readouterr().out
