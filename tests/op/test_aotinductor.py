"""A compiled package that C++ runs without Python, as docs/deploy.md describes it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cuda_sifa
from cuda_sifa import library

ROOT = Path(__file__).parents[2]


class Network(nn.Module):
    """From clips (N, 3, T, H, W) to probabilities (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 4)
        self.offset = nn.Conv2d(4, 18, 1)
        self.classifier = nn.Linear(4, 4)

    def forward(self, clips: Tensor) -> Tensor:
        frames = self.stem(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(clips), -1))  # (N, T, 4, H/4, W/4)
        offset = self.offset(frames[:, :-1].flatten(0, 1)).unflatten(0, (len(clips), -1))
        attended = cuda_sifa.inter_frame_attention(frames, offset)
        return self.classifier((frames + attended).mean((1, 3, 4))).softmax(1)


def block(language: str, start: str) -> str:
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (found,) = (text for text in blocks if text.startswith(start))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++ to compile with")
@pytest.mark.skipif(not library.devices, reason="the op is not built")
def test_the_program_of_the_page_gives_what_pytorch_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = Network().eval()
    clips = torch.linspace(-2, 2, 3 * 8 * 48 * 48).view(1, 3, 8, 48, 48)
    with torch.no_grad():
        expected = network(clips)
        torch.export.save(torch.export.export(network, (clips,)), tmp_path / "demo.pt2")
        monkeypatch.chdir(tmp_path)
        exec(block("py", "program = "), {"torch": torch})
    (tmp_path / "run.cpp").write_text(block("cpp", "#include"))
    done = subprocess.run(
        ["bash", "-ec", block("bash", "TORCH=")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    printed = torch.tensor([float(number) for number in done.stdout.splitlines()[0].split()])
    torch.testing.assert_close(printed, expected[0], atol=1e-4, rtol=0)  # four digits are printed
