"""Every form of a network gives the predictions of the network; the fastest is the one that measures fastest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sifa
from common.errors import UserError
from engine.metrics import mean_softmax
from sifa import forms
from tests.tiny import moving_square, write_checkpoint, write_video
from tools import predict

CLIP = (8, 48, 48)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("forms") / "last.pth")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """What was given to torch.compile, which takes minutes and does nothing here."""
    modules: list[nn.Module] = []

    def compile(module: nn.Module, *, options: dict[str, Any]) -> nn.Module:
        assert options == {"freezing": True}
        modules.append(module)
        return module

    monkeypatch.setattr(torch, "compile", compile)
    return modules


@torch.inference_mode()
def expected(predictor: sifa.Predictor, clips: Tensor) -> Tensor:
    return mean_softmax(predictor.model(clips))


def test_forms_of_pytorch(checkpoint: Path, compiled: list[nn.Module]) -> None:
    clips = torch.randn(2, 3, *CLIP)
    plain, folded = sifa.load(checkpoint, fold=False), sifa.load(checkpoint, form="compiled")
    with torch.inference_mode():
        assert torch.equal(plain.form.run(clips), expected(plain, clips))
        torch.testing.assert_close(folded.form.run(clips), expected(plain, clips), rtol=1e-4, atol=1e-6)
        half = sifa.load(checkpoint, dtype=torch.bfloat16)
        scores = half.form.run(clips)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in compiled[0].modules())
    assert [one.form.name for one in (plain, folded, half)] == ["eager", "compiled", "eager bfloat16"]
    assert scores.dtype == torch.float32
    assert 0 < (scores - expected(plain, clips)).abs().max() < 0.05
    assert {value.dtype for value in half.model.parameters()} == {torch.float32}, "the trained network stays"


def test_onnx_computes_on_the_cpu_in_float32(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"in torch.float32, got device cpu and torch.bfloat16"):
        sifa.load(checkpoint, form="onnx", dtype=torch.bfloat16)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float]], None]:
    """seconds({form: time}): what each form takes; torch.compile and ONNX Runtime cost nothing here.

    The processor has no instructions for bfloat16, whichever runs the tests.
    """
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    names: dict[forms.Run, str] = {}

    def set_times(times: dict[str, float]) -> None:
        build = forms.build_form

        def build_form(network: Any, name: forms.FormName, clip: Any, **options: Any) -> forms.Form:
            form = build(network, "eager", clip, **options)
            full = name + form.name.removeprefix("eager")
            if full not in times:
                raise UserError(f"{name} is missing: pip install {name}. Or not")
            names[form.run] = full
            return forms.Form(names[form.run], form.run)

        monkeypatch.setattr(forms, "build_form", build_form)
        monkeypatch.setattr(forms, "_seconds", lambda run, clips, threads: times[names[run]])
        monkeypatch.setattr(forms, "SECONDS", 0)

    return set_times


def test_the_fastest_is_kept_and_told(checkpoint: Path, seconds: Callable[[dict[str, float]], None]) -> None:
    seconds({"eager": 0.16, "compiled": 0.08, "onnx": 0.032})
    form = sifa.load(checkpoint, form="fastest").form
    assert form.name == "onnx"
    assert form.report.startswith(
        "fastest form here: onnx (eager 10 ms, compiled 5 ms, onnx 2 ms a clip; probabilities "
    )


def test_what_this_machine_lacks_is_told(checkpoint: Path, seconds: Callable[[dict[str, float]], None]) -> None:
    seconds({"eager": 0.16})
    lacks = "no compiled: compiled is missing: pip install compiled, no onnx: onnx is missing: pip install onnx"
    assert sifa.load(checkpoint, form="fastest").form.report == (
        f"fastest form here: eager (eager 10 ms a clip, {lacks})"
    )


def test_bfloat16_counts_where_the_processor_has_it(
    checkpoint: Path, seconds: Callable[[dict[str, float]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds({"eager": 0.16, "eager bfloat16": 0.08})
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    form = sifa.load(checkpoint, form="fastest").form
    assert form.name == "eager bfloat16"
    assert form.report.startswith("fastest form here: eager bfloat16 (eager 10 ms, eager bfloat16 5 ms a clip, no com")
    assert form.report.count("no compiled") == 1, "said once, and not for bfloat16 again"
    assert sifa.load(checkpoint, form="fastest", dtype=torch.float32).form.name == "eager"
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert not forms.computes_in_bfloat16()


def test_a_form_that_lacks_bfloat16_alone_keeps_its_name(
    checkpoint: Path, seconds: Callable[[dict[str, float]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds({"eager": 0.16, "compiled": 0.08, "onnx": 0.1})
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    report = sifa.load(checkpoint, form="fastest").form.report
    assert "no eager bfloat16: eager is missing" in report
    assert "no eager:" not in report


def test_the_command_says_it_beside_its_output(
    checkpoint: Path,
    seconds: Callable[[dict[str, float]], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seconds({"eager": 0.16})
    video = write_video(tmp_path / "video.avi", moving_square(16))
    assert predict.main([str(video), f"--checkpoint={checkpoint}", "--form=fastest", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("fastest form here: eager (")
    assert json.loads(out)["frames"] == 16
