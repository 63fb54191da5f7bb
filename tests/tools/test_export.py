"""An exported network computes what PyTorch does, in standard operators."""

from pathlib import Path
from typing import Any

import pytest
import torch

import models
from engine.checkpoint import save_checkpoint
from engine.schema import Config
from models.sifa_resnet import ClipBottleneck
from tools import export

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

OPTIONS: dict[str, Any] = {"net_name": "c2d_sifa_resnet50", "width": 4}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose learned offsets and residual branches do something."""
    torch.manual_seed(0)
    network = models.build_model(**OPTIONS, num_classes=5, clip_length=8, offset_init="kaiming")
    for module in network.modules():
        if isinstance(module, ClipBottleneck):
            torch.nn.init.uniform_(module.bn3.weight, 0.2, 0.5)
    config = Config.model_validate(
        {"network": OPTIONS, "dataset": {"num_classes": 5, "clip_length": 8}, "evaluation": {"eva_crop_size": 32}}
    )
    path = tmp_path_factory.mktemp("export") / "last.pth"
    save_checkpoint(path, {"model": network.state_dict(), "config": config.model_dump()})
    return path


def test_onnx(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "network.onnx"
    assert export.main([f"--checkpoint={checkpoint}", f"--out={path}"]) == 0
    assert "clips (N, 3, 8, 32, 32)" in capsys.readouterr().out
    nodes = onnx.load(path).graph.node
    assert {node.domain for node in nodes} == {""}, "standard operators only"
    assert any(node.op_type == "GridSample" for node in nodes)
    network, _ = export.load_network(checkpoint)
    assert export.largest_difference(path, network, 8, 32)[0] < 1e-4
    # The comparison can fail: another network's answer is not this one's.
    assert isinstance(network.fc, torch.nn.Linear)
    network.fc.weight.data.neg_()
    assert export.largest_difference(path, network, 8, 32)[0] > 1e-2


def test_exported_program_with_any_batch(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "network.pt2"
    assert export.main([f"--checkpoint={checkpoint}", f"--out={path}", "--crop_size=48"]) == 0
    program = torch.export.load(str(path))
    network, _ = export.load_network(checkpoint)
    clips = torch.randn(3, 3, 8, 48, 48)
    with torch.no_grad():
        assert torch.allclose(program.module()(clips), export.Probabilities(network)(clips), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=a.onnx", "--checkpoint=nowhere.pth"], "checkpoint nowhere.pth does not exist"),
        (["--out=a.tflite", "--checkpoint=nowhere.pth"], "--out must end in .onnx or .pt2, got a.tflite"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main(arguments) == 2
    assert message in capsys.readouterr().err
