"""An exported network computes what PyTorch does, for both networks and formats; one of int8 stays near it."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sifa
from models.inference import Probabilities
from sifa import export, forms
from sifa.quantization import sample_clips
from tests.sifa.clips import VIDEOS, settings_with_videos
from tests.tools.conftest import MakeCheckpoint
from tools import export as tool

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[2]
NETWORKS = {
    "SIFA-Net": {"net_name": "c2d_sifa_resnet26", "width": 4},
    "SIFA-Transformer": {"net_name": "c2d_sifa_swin_vit_s_p4_w7", "width": 6},
}


@pytest.fixture(scope="module", params=NETWORKS)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_checkpoint: MakeCheckpoint
) -> Path:
    path = tmp_path_factory.mktemp("export") / "last.pth"
    return make_checkpoint(path, network=NETWORKS[request.param])


def description_in(path: Path) -> dict[str, Any]:
    """The metadata of an ONNX file."""
    stored = {one.key: one.value for one in onnx.load(path).metadata_props}
    about = {name: json.loads(stored[name]) for name in ("network", "classes", "trained_on", "frames", "segments")}
    about |= {name: json.loads(stored[name]) for name in ("step", "size", "mean", "std")}
    return about | {name: tuple(about[name]) for name in ("mean", "std")}  # JSON knows no tuples


def test_onnx(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "network.onnx"
    assert tool.main([f"--checkpoint={checkpoint}", f"--out={path}"]) == 0
    out = capsys.readouterr().out
    assert "clips (N, 3, 8, 32, 32)" in out
    assert "equal to PyTorch within" in out
    nodes = onnx.load(path).graph.node
    assert {node.domain for node in nodes} == {""}, "standard operators only"
    assert any(node.op_type == "GridSample" for node in nodes)
    (given,), about = onnx.load(path).graph.input, description_in(path)
    assert given.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert about == export.description(sifa.load(checkpoint))
    run, network = export.onnx_runner(path), sifa.load(checkpoint).model
    assert export.largest_difference(run, network, 8, 32)[0] < 1e-4
    # The same file, as `sifa.load` computes with it.
    monkeypatch.setattr(forms, "export_network", lambda network, frames, size, file: shutil.copy(path, file))
    predictor = sifa.load(checkpoint, form="onnx", threads=1)
    assert predictor.form.name == "onnx"
    assert export.largest_difference(predictor.form.run, network, 8, 32)[0] < 1e-4
    # The comparison can fail: another network's answer is not this one's.
    assert isinstance(network.fc, torch.nn.Linear)
    network.fc.weight.data.neg_()
    assert export.largest_difference(run, network, 8, 32)[0] > 1e-2


def test_exported_program_with_any_batch(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "network.pt2"
    assert tool.main([f"--checkpoint={checkpoint}", f"--out={path}", "--crop_size=48"]) == 0
    assert "equal to PyTorch within" in capsys.readouterr().out
    assert not [warning for warning in recwarn if "complete tensor" in str(warning.message)]
    extra = {export.ABOUT: ""}
    torch.export.load(str(path), extra_files=extra)
    about = json.loads(extra[export.ABOUT])
    assert (about["size"], about["frames"], about["step"]) == (48, 8, 1)
    assert about["classes"] == [f"class {label}" for label in range(5)]
    run, network = export.program_runner(path), sifa.load(checkpoint).model
    for batch in (1, 3):
        clips = torch.randn(batch, 3, 8, 48, 48)
        with torch.no_grad():
            assert torch.allclose(run(clips), Probabilities(network)(clips), atol=1e-6)


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_other_results_than_pytorchs_are_an_error(
    suffix: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was written is what is checked: here it answers from another network."""
    name = "onnx_runner" if suffix == "onnx" else "program_runner"
    monkeypatch.setattr(export, "export_onnx", lambda program, path, about: path.write_bytes(b""))
    monkeypatch.setattr(export, name, lambda path: lambda clips: torch.full((len(clips), 5), 0.2))
    assert tool.main([f"--checkpoint={checkpoint}", f"--out={tmp_path}/network.{suffix}"]) == 2
    assert "gives other results than PyTorch: they differ by" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_file_that_cannot_be_written(
    suffix: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"there.{suffix}"
    path.mkdir()
    monkeypatch.setattr(export, "export_program", lambda *_: program())
    assert tool.main([f"--checkpoint={checkpoint}", f"--out={path}"]) == 2
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
        (["--out=a.pt2", "--checkpoint=nowhere.pth", "--videos=9"], "--calibrate and --videos go with --int8"),
        (
            ["--out=a.onnx", "--checkpoint=nowhere.pth", "--int8=static", "--crop_size=32"],
            "--crop_size does not go with --int8",
        ),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(arguments) == 2
    assert message in capsys.readouterr().err


# ---- int8 ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_videos(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: MakeCheckpoint) -> Path:
    """A narrow SIFA-Net and six videos of five classes."""
    folder = tmp_path_factory.mktemp("int8")
    return make_checkpoint(folder / "last.pth", **settings_with_videos(folder))


@pytest.mark.parametrize(("how", "operator"), [("static", "QuantizeLinear"), ("dynamic", "ConvInteger")])
def test_a_quantised_file(
    how: str, operator: str, with_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new folder" / "int8.onnx"
    level = logging.getLogger().level
    assert tool.main([f"--checkpoint={with_videos}", f"--out={path}", f"--int8={how}", "--calibrate=4"]) == 0
    assert logging.getLogger().level == level, "the warnings of the process go on"
    assert "on 6 validation clips the same class as float32 in " in capsys.readouterr().out
    graph = onnx.load(path).graph
    assert description_in(path)["frames"] == 8
    assert any(node.op_type == operator for node in graph.node)
    kernels = [weight for weight in graph.initializer if len(weight.dims) == 4 and weight.dims[-1] in (3, 7)]
    integers = onnx.TensorProto.INT8, onnx.TensorProto.UINT8
    assert kernels
    assert all(weight.data_type in integers for weight in kernels)

    loaded = sifa.load(with_videos)
    clips = torch.cat(sample_clips(loaded.config, VIDEOS, train=False)[0])
    with torch.no_grad():
        expected = Probabilities(loaded.model)(clips)
    got = export.onnx_runner(path)(clips)  # any batch
    assert 0 < (got - expected).abs().max() < 0.1 * expected.max()


def test_a_file_needs_pytorch_and_the_op_alone(with_videos: Path, tmp_path: Path) -> None:
    """The lines of docs/deploy.md, in a process that knows of this repository only the folder cuda_sifa."""
    assert tool.main([f"--checkpoint={with_videos}", f"--out={tmp_path}/demo.pt2"]) == 0
    video = torch.randint(0, 256, (9, 32, 40, 3), dtype=torch.uint8)
    torch.save(video, tmp_path / "video.pt")
    (code,) = re.findall(r"^```python\n(import json\n.*?)^```$", (ROOT / "docs/deploy.md").read_text(), re.M | re.S)
    check = """
import sys
assert not {"sifa", "models", "engine", "datasets"} & set(sys.modules)
print(json.dumps([*predict(torch.load("video.pt")).tolist(), about["classes"]]))
"""
    (tmp_path / "wheel").mkdir()
    (tmp_path / "wheel/cuda_sifa").symlink_to(ROOT / "cuda_sifa")
    done = subprocess.run(
        [sys.executable, "-c", code + check],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "wheel")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *probabilities, classes = json.loads(done.stdout)
    predictor = sifa.load(with_videos, num_clips=1, num_crops=1)
    torch.testing.assert_close(torch.tensor(probabilities), predictor.predict(video), rtol=1e-4, atol=1e-6)
    assert classes == predictor.classes


def test_mistakes_of_int8(with_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def mistake(*arguments: str) -> str:
        assert tool.main(["--int8=static", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error

    assert "nowhere.pth does not exist" in mistake("--checkpoint=nowhere.pth", "--out=a.onnx")
    assert "--out must end in .onnx, got a.pt2" in mistake(f"--checkpoint={with_videos}", "--out=a.pt2")
    assert "at least 1" in mistake(f"--checkpoint={with_videos}", "--out=a.onnx", "--videos=0")
