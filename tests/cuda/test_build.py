"""The build: the toolkit that it finds, the kernels that the library registers."""

import re
import stat
import subprocess
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from cuda_sifa import library, toolkit

Machine = Callable[[str | None, bool, str | None], Path | None]
OPS = [
    "sifa::inter_frame_attention",
    "sifa::inter_frame_attention_backward",
    "sifa::motion_saliency",
    "sifa::motion_saliency_backward",
]


def registered(op: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(op, key)


@pytest.mark.parametrize("op", OPS)
def test_cuda_kernels_are_built_and_registered(op: str) -> None:
    if toolkit.wanted_toolkit() is None:
        pytest.skip("SIFA_WITH_CUDA is not 1, and there is no driver or no CUDA compiler")
    assert library.build is not None
    assert not library.build.endswith("CUDA none"), "CUDA kernels are wanted, but the library is old: bash make.sh"
    assert registered(op, "CUDA")


@pytest.mark.parametrize("op", OPS)
def test_devices_names_what_is_registered(op: str) -> None:
    assert registered(op, "CPU") == ("cpu" in library.devices)
    if "cuda" in library.devices:
        assert registered(op, "CUDA")
    elif registered(op, "CUDA"):  # not named because PyTorch cannot use it
        assert library.build is not None
        assert library._why_no_gpu_kernels(library.build)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that looks like a toolkit."""
    home = tmp_path / "cuda-13.0"
    for file in ("bin/nvcc", "include/cuda_runtime_api.h"):
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).touch()
    script(home / "bin/nvcc", f"echo '#$ TOP={home}/bin/..' >&2\necho 'sm_80'\necho 'sm_90'")
    return home


def script(path: Path, lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_toolkit_of_cuda_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(home))
    assert toolkit.find_toolkit() == home


def test_a_cuda_home_without_a_compiler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match="holds no bin/nvcc"):
        toolkit.find_toolkit()


@pytest.mark.parametrize("how", ["in place", "link", "script"])
def test_the_toolkit_of_the_nvcc_on_the_path(
    how: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nvcc on the PATH may be a link or a script that starts the nvcc of a toolkit."""
    folder = home / "bin" if how == "in place" else tmp_path / "bin"
    if how == "link":
        folder.mkdir()
        (folder / "nvcc").symlink_to(home / "bin/nvcc")
    elif how == "script":
        script(folder / "nvcc", f'exec {home}/bin/nvcc "$@"')
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    found = toolkit.find_toolkit()
    assert found is not None
    assert found.samefile(home)


def test_the_gpus_to_build_for(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are named, else those that are visible, else all that the toolkit knows."""
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script(tmp_path / "nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    assert toolkit.architectures(home) == "8.0;9.0+PTX"
    script(tmp_path / "nvidia-smi", "echo 9.0; echo 8.6; echo 9.0")
    assert toolkit.architectures(home) == "8.6;9.0"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5")
    assert toolkit.architectures(home) == "7.5"


def test_architectures_as_options_of_nvcc() -> None:
    expected = [
        "compute_80,code=sm_80",
        "compute_90a,code=sm_90a",
        "compute_120,code=sm_120",
        "compute_120,code=compute_120",
    ]
    assert toolkit.architecture_flags("8.0 9.0a;12.0+PTX") == [f"-gencode=arch={flag}" for flag in expected]
    with pytest.raises(SystemExit, match=r"TORCH_CUDA_ARCH_LIST is 'Hopper', expected a list like"):
        toolkit.architecture_flags("Hopper")


@pytest.fixture
def machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with a toolkit of CUDA 13.0. The function that is returned says what else it has, and what is built."""
    script(home / "bin/nvcc", "echo 'Cuda compilation tools, release 13.0, V13.0.88'")
    monkeypatch.setenv("CUDA_HOME", str(home))

    def wanted(with_cuda: str | None, driver: bool, torch_cuda: str | None) -> Path | None:
        if with_cuda is None:
            monkeypatch.delenv("SIFA_WITH_CUDA", raising=False)
        else:
            monkeypatch.setenv("SIFA_WITH_CUDA", with_cuda)
        monkeypatch.setattr(toolkit, "DRIVER_FILES", ["/dev/null"] if driver else [])
        monkeypatch.setattr(toolkit, "torch_version", lambda folder: {"__version__": "2.15.0", "cuda": torch_cuda})
        return toolkit.wanted_toolkit()

    return wanted


@pytest.mark.parametrize(
    ("with_cuda", "driver", "torch_cuda", "built", "said"),
    [
        (None, True, "13.2", True, ""),
        (None, False, "13.2", False, "no NVIDIA driver is loaded here; SIFA_WITH_CUDA=1 builds the CUDA kernels too"),
        (None, True, None, False, "torch 2.15.0 is built without CUDA"),
        (None, True, "12.8", False, "torch is built for CUDA 12.8, but"),
        ("1", False, None, True, ""),
        ("0", True, "13.0", False, ""),
    ],
)
def test_when_cuda_kernels_are_built(
    with_cuda: str | None,
    driver: bool,
    torch_cuda: str | None,
    built: bool,
    said: str,
    machine: Machine,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert machine(with_cuda, driver, torch_cuda) == (home if built else None)
    message = capsys.readouterr().err
    assert message.startswith(f"cuda_sifa: building for the CPU alone: {said}") if said else not message


def test_cuda_that_was_asked_for_needs_a_compiler(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit, "find_toolkit", lambda: None)
    with pytest.raises(SystemExit, match="SIFA_WITH_CUDA=1, but no CUDA compiler is found"):
        machine("1", True, "13.0")


@pytest.mark.parametrize(
    ("requires", "expected"),
    [
        (["filelock", 'cuda-toolkit[cublas,nvtx]==13.2.2; platform_system == "Linux"'], "13.2.2"),
        (["filelock"], "13.0.*"),
    ],
)
def test_the_compiler_of_the_version_that_pytorch_names(
    requires: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIFA_WITH_CUDA", raising=False)
    monkeypatch.setattr(toolkit, "torch_version", lambda folder: {"__version__": "2.15.0", "cuda": "13.0"})
    monkeypatch.setattr(toolkit, "DRIVER_FILES", ["/dev/null"])
    monkeypatch.setattr(toolkit, "find_toolkit", lambda: None)
    monkeypatch.setattr(toolkit.metadata, "requires", lambda name: requires)
    assert toolkit.missing_package() == f"cuda-toolkit[nvcc,cccl]=={expected}"
    monkeypatch.setattr(toolkit, "DRIVER_FILES", [])
    assert toolkit.missing_package() is None
    monkeypatch.setattr(toolkit, "DRIVER_FILES", ["/dev/null"])
    monkeypatch.setattr(toolkit, "find_toolkit", lambda: Path("/somewhere"))
    assert toolkit.missing_package() is None


def test_a_pytorch_that_is_missing_or_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"PyTorch is not installed for .*: install torch>=2\.11 first"):
        toolkit.torch_folder()
    (tmp_path / "version.py").write_text("__version__ = '2.9.1'\ncuda = None\n")
    spec = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(toolkit.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(SystemExit, match=r"torch 2\.9\.1 is installed, 2\.11 or later is needed"):
        toolkit.torch_folder()


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["float", "bfloat16"])
def test_no_kernel_spills_registers(kernels: str, tmp_path: Path) -> None:
    """The resource report of the compiler for compute capability 9.0: no kernel spills registers."""
    home = toolkit.wanted_toolkit()
    if home is None:
        pytest.skip("SIFA_WITH_CUDA is not 1, and there is no driver or no CUDA compiler")
    source = Path(toolkit.__file__).parent / "csrc" / "cuda" / f"kernels_{kernels}.cu"
    command = [str(home / "bin/nvcc"), *toolkit.NVCC_FLAGS, "-arch=sm_90", "-Xptxas=-v", "-cubin", str(source)]
    done = subprocess.run([*command, "-o", str(tmp_path / "kernels")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = re.findall(r"Function properties for (\w+)\n\s*(.*)", done.stderr)
    assert len(report) > 15
    for name, uses in report:
        assert uses == "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", name
