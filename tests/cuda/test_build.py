"""The build: the toolkit that it finds, the kernels that the library registers."""

import re
import stat
import subprocess
from pathlib import Path

import pytest
import torch

from cuda_sifa import library, toolkit

OPS = ["sifa::inter_frame_attention", "sifa::inter_frame_attention_backward"]


def registered(op: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(op, key)


@pytest.mark.parametrize("op", OPS)
def test_cuda_kernels_are_built_and_registered(op: str) -> None:
    if torch.version.cuda is None:
        pytest.skip(f"torch {torch.__version__} is built without CUDA")
    if toolkit.wanted_toolkit() is None:
        pytest.skip("no CUDA compiler is found, or SIFA_WITH_CUDA=0")
    assert library.build is not None
    assert not library.build.endswith("CUDA none"), "a CUDA compiler is here, but the library is old: bash make.sh"
    assert "cuda" in library.devices
    assert registered(op, "CUDA")


@pytest.mark.parametrize("op", OPS)
def test_devices_names_what_is_registered(op: str) -> None:
    assert registered(op, "CPU") == ("cpu" in library.devices)
    assert registered(op, "CUDA") == ("cuda" in library.devices)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that looks like a toolkit."""
    home = tmp_path / "cuda-13.0"
    for file in ("bin/nvcc", "include/cuda_runtime_api.h", "lib/libcudart.so.13"):
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


def test_without_a_visible_gpu_all_architectures_of_the_toolkit(home: Path) -> None:
    assert toolkit.architectures(home) == "8.0;9.0+PTX"


def test_the_runtime_library_with_a_version_in_its_name(home: Path) -> None:
    assert toolkit.runtime_library(home).name == "libcudart.so.13"


def test_sifa_with_cuda(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.delenv("SIFA_WITH_CUDA", raising=False)
    assert toolkit.wanted_toolkit() is None
    assert "building for the CPU alone: torch" in capsys.readouterr().err
    monkeypatch.setenv("SIFA_WITH_CUDA", "1")
    with pytest.raises(SystemExit, match=r"SIFA_WITH_CUDA=1, but torch .* is built without CUDA"):
        toolkit.wanted_toolkit()
    monkeypatch.setenv("SIFA_WITH_CUDA", "0")
    assert toolkit.wanted_toolkit() is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("built", "fits"), [("12.8", False), ("13.9", True)])
def test_the_major_version_has_to_fit(
    built: str, fits: bool, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(home / "bin/nvcc", "echo 'Cuda compilation tools, release 13.0, V13.0.88'")
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setenv("CUDA_HOME", str(home))
    monkeypatch.delenv("SIFA_WITH_CUDA", raising=False)
    assert toolkit.wanted_toolkit() == (home if fits else None)
    assert ("torch is built for CUDA 12.8, but" in capsys.readouterr().err) != fits


@pytest.mark.parametrize(
    ("requires", "expected"),
    [
        (["filelock", 'cuda-toolkit[cublas,nvtx]==13.2.2; platform_system == "Linux"'], "13.2.2"),
        (["filelock"], f"{torch.version.cuda}.*"),
    ],
)
def test_the_compiler_of_the_version_that_pytorch_names(
    requires: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.version.cuda is None:
        monkeypatch.setattr(torch.version, "cuda", "None")
    monkeypatch.delenv("SIFA_WITH_CUDA", raising=False)
    monkeypatch.setattr(toolkit, "find_toolkit", lambda: None)
    monkeypatch.setattr(toolkit.metadata, "requires", lambda name: requires)
    assert toolkit.missing_package() == f"cuda-toolkit[nvcc,cccl]=={expected}"
    monkeypatch.setattr(toolkit, "find_toolkit", lambda: Path("/somewhere"))
    assert toolkit.missing_package() is None


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["float", "bfloat16"])
def test_no_kernel_spills_registers(kernels: str, tmp_path: Path) -> None:
    """The resource report of the compiler for compute capability 9.0: no kernel spills registers."""
    home = toolkit.wanted_toolkit()
    if home is None:
        pytest.skip("no CUDA compiler is found, or SIFA_WITH_CUDA=0")
    source = Path(toolkit.__file__).parent / "csrc" / "cuda" / f"kernels_{kernels}.cu"
    command = [str(home / "bin/nvcc"), *toolkit.NVCC_FLAGS, "-arch=sm_90", "-Xptxas=-v", "-cubin", str(source)]
    done = subprocess.run([*command, "-o", str(tmp_path / "kernels")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = re.findall(r"Function properties for (\w+)\n\s*(.*)", done.stderr)
    assert len(report) > 15
    for name, uses in report:
        assert uses == "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", name
