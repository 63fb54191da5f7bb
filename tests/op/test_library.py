"""A missing or unsuitable library causes a warning, and the reference is used."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import cuda_sifa
from cuda_sifa import library


def test_the_op_is_built() -> None:
    """All other tests of the op would pass with the reference too."""
    assert "cpu" in library.devices, "build the op first: bash make.sh"
    assert library.build is not None
    assert library.build.startswith(f"torch {torch.__version__}")


@pytest.fixture
def _restored() -> object:
    before = library.build, library.devices
    yield
    library.build, library.devices = before


@pytest.mark.usefixtures("_restored")
def test_without_a_library(tmp_path: Path) -> None:
    with pytest.warns(library.NotBuiltWarning, match=r"the compiled op is not built\..*bash make\.sh"):
        assert not library.load(tmp_path / "_C.so")


@pytest.mark.usefixtures("_restored")
def test_a_library_for_another_pytorch_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "_C.so"
    path.write_bytes(b"\x7fELF...sifa-build:torch 1.11.0+cu113, CUDA 11.3;...")
    expected = f"built for torch 1.11.0+cu113, CUDA 11.3, but torch {torch.__version__} is running"
    with pytest.warns(library.NotBuiltWarning, match=re.escape(expected)):
        assert not library.load(path)


@pytest.mark.usefixtures("_restored")
def test_a_broken_library_is_named(tmp_path: Path) -> None:
    path = tmp_path / "_C.so"
    path.write_bytes(f"no library, sifa-build:torch {torch.__version__}, CUDA none;".encode())
    with pytest.warns(library.NotBuiltWarning, match="does not load"):
        assert not library.load(path)


@pytest.mark.usefixtures("_restored")
def test_the_reference_is_used_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    x, offset = torch.randn(1, 2, 3, 4, 5), torch.randn(1, 1, 18, 4, 5)
    compiled = cuda_sifa.inter_frame_attention(x, offset)
    monkeypatch.setattr(library, "devices", frozenset())
    result = cuda_sifa.inter_frame_attention(x, offset)
    assert torch.allclose(result, compiled, atol=1e-5)
    assert result.is_contiguous()  # from the reference: the op returns channels innermost


def test_importing_a_copy_without_library_warns_once_and_works(tmp_path: Path) -> None:
    package = tmp_path / "cuda_sifa"
    package.mkdir()
    for file in Path(cuda_sifa.__file__).parent.glob("*.py"):
        (package / file.name).write_text(file.read_text())
    code = (
        "import warnings, torch\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import cuda_sifa\n"
        "x = torch.randn(1, 3, 4, 5, 6, requires_grad=True)\n"
        "cuda_sifa.inter_frame_attention(x).sum().backward()\n"
        "print(len([w for w in caught if w.category is cuda_sifa.library.NotBuiltWarning]), bool(x.grad.any()))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1", "True"]


def test_loading_again_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", library.NotBuiltWarning)
        assert library.load()


@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_each_instruction_set_computes_the_same(capability: str) -> None:
    """ATEN_CPU_CAPABILITY selects the kernels. PyTorch does not lower it to what the processor has."""
    ascending = ["default", "avx2", "avx512"]
    available = torch.backends.cpu.get_cpu_capability().lower()
    if capability not in ascending[: ascending.index(available) + 1 if available in ascending else 1]:
        pytest.skip(f"this processor has no {capability}")
    code = (
        "import torch\n"
        "from tests.op.cases import CASES, relative_error, run_op, run_reference\n"
        "worst = 0.0\n"
        "for case in CASES[::2]:\n"
        "    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-5)):\n"
        "        x, offset = case.inputs(dtype)\n"
        "        grad = torch.randn_like(x)\n"
        "        expected = run_reference(case, x, offset, grad)\n"
        "        for name, result in run_op(case, x, offset, grad).items():\n"
        "            worst = max(worst, relative_error(result, expected[name]) / tolerance)\n"
        "print(torch.backends.cpu.get_cpu_capability(), worst)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    chosen, worst = result.stdout.split()[-2:]
    assert float(worst) < 1, f"{chosen}: {worst} times the tolerance"
