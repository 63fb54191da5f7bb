"""A network of one's own with the op as ONNX: ONNX Runtime computes what the op does."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cuda_sifa
from tests.op.cases import Case

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import cuda_sifa.onnx  # noqa: E402  (it needs these packages)

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(not cuda_sifa.library.devices, reason="the op is not built"),
    pytest.mark.filterwarnings("ignore:.*axis name:UserWarning"),
]


class Network(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.settings: dict[str, Any] = case.settings | {"residual": case.residual}

    def forward(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        return cuda_sifa.inter_frame_attention(x, offset, **self.settings)


def write(network: nn.Module, inputs: tuple[Tensor, ...], file: Path, axes: dict[int, str]) -> None:
    """As docs/op.md says. `axes` are dynamic in all inputs."""
    torch.onnx.export(
        network.eval(),
        inputs,
        file,
        dynamic_shapes=(axes,) * len(inputs) if axes else None,
        custom_translation_table=cuda_sifa.onnx.TRANSLATIONS,
        verbose=False,
    )


def run(file: Path, inputs: tuple[Tensor, ...]) -> Tensor:
    assert {node.domain for node in onnx.load(file).graph.node} <= {""}, "standard operators only"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    (result,) = session.run(None, dict(zip(names, (given.numpy() for given in inputs), strict=True)))
    return torch.from_numpy(result)


def given(case: Case, dtype: torch.dtype) -> tuple[Tensor, ...]:
    x, offset = case.inputs(dtype)
    return (x,) if offset is None else (x, offset)


@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(groups=2, dilation=2, offset=4.0),  # many taps outside
        Case(kernel_size=5, offset=None),
        Case(shape=(2, 1, 3, 4, 5)),  # one frame
        Case(residual=True),
        Case(shape=(2, 1, 3, 4, 5), residual=True),
    ],
    ids=str,
)
def test_the_same_as_the_op(case: Case, tmp_path: Path) -> None:
    inputs = given(case, torch.float64)
    write(Network(case), inputs, tmp_path / "op.onnx", {})
    torch.testing.assert_close(run(tmp_path / "op.onnx", inputs), Network(case)(*inputs), rtol=1e-12, atol=1e-12)


def test_other_sizes_than_those_it_was_written_for(tmp_path: Path) -> None:
    axes: Any = {0: "batch", 1: torch.export.Dim.AUTO, 3: "height", 4: "width"}
    network = Network(Case())
    write(network, given(Case(), torch.float16), tmp_path / "op.onnx", axes)
    inputs = given(Case(shape=(3, 4, 6, 9, 8)), torch.float16)
    torch.testing.assert_close(run(tmp_path / "op.onnx", inputs), network(*inputs), rtol=2e-2, atol=2e-2)


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```py\n(.*?)^```$", (ROOT / "docs/op.md").read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"torch": torch, "inter_frame_attention": cuda_sifa.inter_frame_attention}
    exec(code, names)
    clip = torch.randn(3, 4, 8, 7, 9)
    torch.testing.assert_close(run(tmp_path / "smooth.onnx", (clip,)), names["Smooth"]()(clip), rtol=1e-5, atol=1e-5)
    sizes = onnx.load(tmp_path / "smooth.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param for size in sizes] == ["batch", "", "", "height", "width"]


class Saliency(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return cuda_sifa.motion_saliency(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_the_motion_saliency(dtype: torch.dtype, tmp_path: Path) -> None:
    axes: Any = {0: "batch", 1: torch.export.Dim.AUTO, 3: "height", 4: "width"}
    write(Saliency(), (torch.randn(2, 4, 6, 5, 7).to(dtype),), tmp_path / "op.onnx", axes)
    x = torch.randn(3, 5, 6, 9, 8).to(dtype)
    tolerance = 1e-12 if dtype == torch.float64 else torch.finfo(dtype).eps
    torch.testing.assert_close(run(tmp_path / "op.onnx", (x,)), Saliency()(x), rtol=tolerance, atol=tolerance)


def test_channels_must_be_fixed() -> None:
    with pytest.raises(ValueError, match=r"^the channels of x must be fixed for ONNX, got C$"):
        cuda_sifa.onnx.inter_frame_attention(SimpleNamespace(shape=(2, 3, "C", 4, 5)))
