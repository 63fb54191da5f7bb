"""An exported network computes what PyTorch does, in standard operators, for both networks and both formats."""

from pathlib import Path

import pytest
import torch

import sifa
from tests.tools.conftest import MakeCheckpoint
from tools import export

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

NETWORKS = {
    "SIFA-Net": {"net_name": "c2d_sifa_resnet50", "width": 4},
    "SIFA-Transformer": {"net_name": "c2d_sifa_swin_vit_s_p4_w7", "width": 6},
}


@pytest.fixture(scope="module", params=NETWORKS)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_checkpoint: MakeCheckpoint
) -> Path:
    path = tmp_path_factory.mktemp("export") / "last.pth"
    return make_checkpoint(path, network=NETWORKS[request.param])


def test_onnx(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "network.onnx"
    assert export.main([f"--checkpoint={checkpoint}", f"--out={path}"]) == 0
    out = capsys.readouterr().out
    assert "clips (N, 3, 8, 32, 32)" in out
    assert "equal to PyTorch within" in out
    nodes = onnx.load(path).graph.node
    assert {node.domain for node in nodes} == {""}, "standard operators only"
    assert any(node.op_type == "GridSample" for node in nodes)
    run, network = export.onnx_runner(path), sifa.load(checkpoint).model
    assert export.largest_difference(run, network, 8, 32)[0] < 1e-4
    # The comparison can fail: another network's answer is not this one's.
    assert isinstance(network.fc, torch.nn.Linear)
    network.fc.weight.data.neg_()
    assert export.largest_difference(run, network, 8, 32)[0] > 1e-2


def test_exported_program_with_any_batch(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "network.pt2"
    assert export.main([f"--checkpoint={checkpoint}", f"--out={path}", "--crop_size=48"]) == 0
    assert "equal to PyTorch within" in capsys.readouterr().out
    assert not [warning for warning in recwarn if "complete tensor" in str(warning.message)]
    run, network = export.program_runner(path), sifa.load(checkpoint).model
    for batch in (1, 3):
        clips = torch.randn(batch, 3, 8, 48, 48)
        with torch.no_grad():
            assert torch.allclose(run(clips), export.Probabilities(network)(clips), atol=1e-6)


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_other_results_than_pytorchs_are_an_error(
    suffix: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was written is what is checked: here it answers from another network."""
    name = "onnx_runner" if suffix == "onnx" else "program_runner"
    monkeypatch.setattr(export, "export_onnx", lambda program, path: path.write_bytes(b""))
    monkeypatch.setattr(export, name, lambda path: lambda clips: torch.full((len(clips), 5), 0.2))
    assert export.main([f"--checkpoint={checkpoint}", f"--out={tmp_path}/network.{suffix}"]) == 2
    assert "gives other results than PyTorch: they differ by" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_file_that_cannot_be_written(
    suffix: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"there.{suffix}"
    path.mkdir()
    monkeypatch.setattr(export, "export_program", lambda *_: program())
    assert export.main([f"--checkpoint={checkpoint}", f"--out={path}"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {path} cannot be written: Is a directory"


def program() -> torch.export.ExportedProgram:
    """A small one: what is in the file does not matter."""
    return torch.export.export(torch.nn.Linear(2, 3), (torch.ones(1, 2),))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=a.onnx", "--checkpoint=nowhere.pth"], "checkpoint nowhere.pth does not exist"),
        (["--out=a.tflite", "--checkpoint=nowhere.pth"], "--out must end in .onnx or .pt2, got a.tflite"),
        (["--out=a.pt2", "--checkpoint=nowhere.pth", "--crop_size=31"], "--crop_size must be at least 32, got 31"),
        (["--out=a.pt2", "--checkpoint=nowhere.pth", "--crop_size=0"], "--crop_size must be at least 32, got 0"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main(arguments) == 2
    assert message in capsys.readouterr().err
