"""Quantised networks hold integers and stay near the network; the comparison says how near."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

import sifa
from tests.tools.conftest import MakeCheckpoint
from tools import export, quantize

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

FRAMES, SIZE, VIDEOS = 8, 32, 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: MakeCheckpoint) -> Path:
    """A narrow SIFA-Net and six videos of five classes."""
    folder = tmp_path_factory.mktemp("quantize")
    random = np.random.default_rng(0)
    for video in range(VIDEOS):
        (folder / f"frames/{video}").mkdir(parents=True)
        for frame in range(1, FRAMES + 1):
            image = random.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"frames/{video}/{frame:05d}.jpg"), image)
    (folder / "list.txt").write_text("".join(f"{video} {FRAMES} {video % 5}\n" for video in range(VIDEOS)))
    files = {"root_path": f"{folder}/frames", "list_file": f"{folder}/list.txt", "eva_list_file": f"{folder}/list.txt"}
    return make_checkpoint(
        folder / "last.pth",
        network={"net_name": "c2d_sifa_resnet50", "width": 4, "dual_head": False},
        SIFA={"offset_init": "kaiming", "stages": ["res5"]},
        dataset={"num_classes": 5, "clip_length": FRAMES, **files},
    )


@pytest.mark.parametrize(("how", "operator"), [("static", "QuantizeLinear"), ("dynamic", "ConvInteger")])
def test_a_quantised_file(
    how: str, operator: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new folder" / "int8.onnx"
    assert quantize.main([f"--checkpoint={checkpoint}", f"--out={path}", f"--int8={how}", "--calibrate=4"]) == 0
    assert "on 6 validation clips the same class as float32 in " in capsys.readouterr().out
    graph = onnx.load(path).graph
    assert any(node.op_type == operator for node in graph.node)
    kernels = [weight for weight in graph.initializer if len(weight.dims) == 4 and weight.dims[-1] in (3, 7)]
    integers = onnx.TensorProto.INT8, onnx.TensorProto.UINT8
    assert kernels
    assert all(weight.data_type in integers for weight in kernels)

    loaded = sifa.load(checkpoint)
    clips = torch.cat(quantize.clips_of(loaded.config, VIDEOS, train=False)[0])
    with torch.no_grad():
        expected = export.Probabilities(loaded.model)(clips)
    got = export.onnx_runner(path)(clips)  # any batch
    assert 0 < (got - expected).abs().max() < 0.1 * expected.max()


def test_calibration_is_on_training_videos_and_the_comparison_on_others(checkpoint: Path, tmp_path: Path) -> None:
    config = sifa.load(checkpoint).config
    other = tmp_path / "list.txt"
    other.write_text(f"1 {FRAMES} 1\n3 {FRAMES} 3\n")
    config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"list_file": str(other)})})
    assert quantize.clips_of(config, 99, train=True)[1] == [1, 3]
    clips, labels = quantize.clips_of(config, 3, train=False)
    assert labels == [0, 2, 0], "spread over the list's six"
    assert all(clip.shape == (1, 3, FRAMES, SIZE, SIZE) for clip in clips)
    assert abs(torch.cat(clips).mean().item()) < 0.5, "normalised"


def test_the_comparison() -> None:
    def network(answers: list[list[float]]) -> export.Runner:
        rows = {clip: torch.tensor([row]) for clip, row in enumerate(answers)}
        return lambda clip: rows[int(clip.flatten()[0])]

    clips: list[Tensor] = [torch.full((1, 3, 1, 1, 1), float(i)) for i in range(4)]
    one = network([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    other = network([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.6, 0.4]])
    result = quantize.compare({"one": one, "other": other}, clips, [0, 1, 1, 1])["other"]
    assert (result.clips, result.agreement, result.right) == (4, 75.0, (75.0, 50.0))
    assert result.difference == pytest.approx(0.1)
    assert result.largest == pytest.approx(0.2)
    same = quantize.compare({"one": one, "same": one}, clips, [0, 1, 1, 1])["same"]
    assert (same.agreement, same.largest) == (100.0, 0.0)


def test_mistakes(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def mistake(*arguments: str) -> str:
        assert quantize.main(list(arguments)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error

    assert "nowhere.pth does not exist" in mistake("--checkpoint=nowhere.pth", "--out=a.onnx")
    assert "--out must end in .onnx, got a.pt2" in mistake(f"--checkpoint={checkpoint}", "--out=a.pt2")
    assert "at least 1" in mistake(f"--checkpoint={checkpoint}", "--out=a.onnx", "--videos=0")
