"""A missing or unsuitable library causes a warning, and the reference is used."""

import re
import shutil
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
    assert library.build.startswith("torch >=2.11, CUDA ")


def test_the_library_needs_nothing_unstable() -> None:
    """Only C functions of PyTorch's stable ABI: no C++ of PyTorch (at::, c10::, torch::), nothing of Python or CUDA."""
    if not (shutil.which("nm") and shutil.which("readelf")):
        pytest.skip("no binutils")
    path = Path(library.__file__).with_name("_C.so")
    symbols = subprocess.run(["nm", "-D", "--undefined-only", path], capture_output=True, text=True, check=True)
    names = {line.split()[-1].partition("@")[0] for line in symbols.stdout.splitlines()}
    assert "torch_parallel_for" in names
    namespaces = r"\d(at|c10|caffe2|torch)[\dEN]|PyTorch"
    strange = [n for n in names if n.startswith(("Py", "_Py", "cuda", "cu")) or re.match(rf"_Z.*({namespaces})", n)]
    assert not strange
    libraries = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.+?)\.so", libraries))
    assert needed <= {
        "libtorch",
        "libstdc++",
        "libgcc_s",
        "libc",
        "libm",
        "ld-linux-x86-64",
        "librt",
        "libdl",
        "libpthread",
    }


def test_the_schemas() -> None:
    """Public names: torch.ops.sifa.*. The arguments that are younger than the others have a default."""
    expected = "(Tensor x, Tensor? offset, int kernel_size, int dilation, int groups, bool residual=False) -> Tensor"
    assert str(torch.ops.sifa.inter_frame_attention.default._schema) == f"sifa::inter_frame_attention{expected}"
    backward = str(torch.ops.sifa.inter_frame_attention_backward.default._schema)
    assert backward.endswith("int groups, bool deterministic=False, bool residual=False) -> (Tensor, Tensor)")
    assert str(torch.ops.sifa.motion_saliency.default._schema) == "sifa::motion_saliency(Tensor x) -> Tensor"
    backward = str(torch.ops.sifa.motion_saliency_backward.default._schema)
    assert backward == "sifa::motion_saliency_backward(Tensor grad, Tensor x) -> Tensor"


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
@pytest.mark.parametrize("build", ["torch 2.11.0+cu130, CUDA 13.0", "torch >=3.4, CUDA none"])
def test_a_library_for_another_pytorch_is_not_loaded(build: str, tmp_path: Path) -> None:
    """One of before the stable ABI, for one version alone; one for later versions."""
    path = tmp_path / "_C.so"
    path.write_bytes(f"\x7fELF...sifa-build:{build};...".encode())
    expected = f"built for {build}, but torch {torch.__version__} is running"
    with pytest.warns(library.NotBuiltWarning, match=re.escape(expected)):
        assert not library.load(path)


@pytest.mark.parametrize(
    ("built", "torch_cuda", "driver", "problem"),
    [
        ("none", "13.0", 13, "has no CUDA kernels"),
        ("13.0", None, 0, "has no CUDA kernels"),
        ("13.0", "13.2", 13, None),
        ("12.8", "13.0", 13, None),
        ("13.0", "12.8", 13, None),
        ("13.0", "12.8", 12, "needs a driver for CUDA 13.0"),
    ],
)
def test_for_which_gpu_the_library_has_kernels(
    built: str, torch_cuda: str | None, driver: int, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    monkeypatch.setattr(library, "_driver_version", lambda: driver)
    found = library._why_no_gpu_kernels(f"torch >=2.11, CUDA {built}")
    assert found is None if problem is None else problem in str(found)


@pytest.mark.usefixtures("_restored")
def test_without_a_compiler_the_warning_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.warns(
        library.NotBuiltWarning, match=r"not built, and there is no C\+\+ compiler \(.*apt install g\+\+"
    ):
        assert not library.load(tmp_path / "_C.so")


@pytest.mark.usefixtures("_restored")
def test_a_broken_library_is_named(tmp_path: Path) -> None:
    path = tmp_path / "_C.so"
    path.write_bytes(b"no library, sifa-build:torch >=2.11, CUDA none;")
    with pytest.warns(library.NotBuiltWarning, match="does not load"):
        assert not library.load(path)


@pytest.mark.usefixtures("_restored")
def test_a_library_that_is_older_than_its_python_code_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a `git pull` without a build."""
    monkeypatch.setattr(library, "NEWEST", "an_argument_of_tomorrow")
    with pytest.warns(library.NotBuiltWarning, match="older than its Python code"):
        assert not library.load()


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
        "cuda_sifa.motion_saliency(x).sum().backward()\n"
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
    """ATEN_CPU_CAPABILITY selects the kernels, but none that the processor cannot run: here avx512 may mean avx2."""
    code = (
        "import os, sys, torch\n"
        "torch.backends.cpu.get_cpu_capability()\n"  # PyTorch has chosen: it would believe in any name
        "os.environ['ATEN_CPU_CAPABILITY'] = sys.argv[1]\n"
        "from tests.op import test_saliency\n"
        "from tests.op.cases import CASES, finite_where_reference_is_not, relative_error, run_op, run_reference\n"
        "worst = 0.0\n"
        "for case in CASES[::2]:\n"
        "    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-5)):\n"
        "        x, offset = case.inputs(dtype)\n"
        "        grad = torch.randn_like(x)\n"
        "        expected = run_reference(case, x, offset, grad)\n"
        "        for name, result in run_op(case, x, offset, grad).items():\n"
        "            worst = max(worst, relative_error(result, expected[name]) / tolerance)\n"
        "    assert not finite_where_reference_is_not(case, torch.float64, 4), case\n"
        "for shape in test_saliency.SHAPES:\n"
        "    for dtype in test_saliency.TOLERANCE:\n"
        "        for scale in (1.0, 1e4):\n"
        "            x = test_saliency.clip(shape, dtype, scale=scale)\n"
        "            test_saliency.assert_equals_the_reference(x, test_saliency.gradient_for(x))\n"
        "    for dtype in (torch.float16, torch.bfloat16):\n"
        "        test_saliency.test_half_precision_is_rounded_once(shape, dtype, torch.device('cpu'))\n"
        "print(worst)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, capability],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    worst = float(result.stdout.split()[-1])
    assert worst < 1, f"{worst} times the tolerance"
