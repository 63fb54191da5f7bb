"""Finds the CUDA toolkit for setup.py, and the GPU architectures to build for."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

# For a build without a visible GPU: those that the toolkit supports, and PTX of the last one for later GPUs.
DEFAULT_ARCHITECTURES = ["7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"]

NVCC_FLAGS = ["-O3", "-std=c++17", "-Xcompiler=-fvisibility=hidden"]


def has_nvcc(home: Path) -> bool:
    """Whether `home` is the folder of a toolkit."""
    return (home / "bin/nvcc").is_file() and (home / "include/cuda_runtime_api.h").is_file()


def toolkit_behind(command: Path) -> Path | None:
    """The folder of the toolkit to which an nvcc belongs.

    Args:
        command: nvcc, or a script or a link that starts it, as on some machines.

    Returns:
        The folder; None if it is not found.
    """
    home = command.resolve().parent.parent
    if has_nvcc(home):
        return home
    # A dry run of nvcc prints its folder.
    plan = subprocess.run([str(command), "--dryrun", "-E", "x.cu"], capture_output=True, text=True)
    found = re.search(r"^#\$ TOP=(.+)$", plan.stderr, re.MULTILINE)
    return Path(found.group(1)).resolve() if found and has_nvcc(Path(found.group(1))) else None


def find_toolkit() -> Path | None:
    """The folder of the CUDA toolkit: CUDA_HOME, the nvcc on the PATH, the default folder, PyPI's cuda-toolkit.

    Raises:
        SystemExit: CUDA_HOME names a folder without a toolkit.
    """
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if named:
        if not has_nvcc(Path(named)):
            raise SystemExit(f"CUDA_HOME is {named}, which holds no bin/nvcc and include/cuda_runtime_api.h")
        return Path(named)
    command = shutil.which("nvcc")
    if command and (home := toolkit_behind(Path(command))):
        return home
    for home in [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]:
        if has_nvcc(home):
            return home
    packages = Path(torch.__file__).parents[1]  # where pip installs the parts of the toolkit that PyTorch needs
    return next(filter(has_nvcc, sorted(packages.glob("nvidia/cu[0-9]*"), reverse=True)), None)


def version_of(home: Path) -> str:
    """The version of the toolkit, for example "13.0"."""
    text = subprocess.run([str(home / "bin/nvcc"), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    return found.group(1) if found else "unknown"


def architectures(home: Path) -> str:
    """TORCH_CUDA_ARCH_LIST for a build without a visible GPU."""
    text = subprocess.run([str(home / "bin/nvcc"), "--list-gpu-code"], capture_output=True, text=True).stdout
    known = [arch for arch in DEFAULT_ARCHITECTURES if f"sm_{arch.replace('.', '')}\n" in text + "\n"]
    return ";".join(known) + "+PTX"


def wanted_toolkit() -> Path | None:
    """The toolkit to build CUDA kernels with.

    Returns:
        The folder; None to build for the CPU only, with the reason printed.

    Raises:
        SystemExit: SIFA_WITH_CUDA=1, and there is no toolkit for this PyTorch.
    """
    wanted = os.environ.get("SIFA_WITH_CUDA", "")
    if wanted == "0":
        return None
    problem = None
    if torch.version.cuda is None:
        problem = f"torch {torch.__version__} is built without CUDA"
    elif (home := find_toolkit()) is None:
        problem = "no CUDA compiler is found (set CUDA_HOME to the toolkit's folder)"
    elif version_of(home).split(".")[0] != torch.version.cuda.split(".")[0]:
        problem = f"torch is built for CUDA {torch.version.cuda}, but {home} is CUDA {version_of(home)}"
    else:
        return home
    if wanted == "1":
        raise SystemExit(f"SIFA_WITH_CUDA=1, but {problem}")
    print(f"cuda_sifa: building for the CPU alone: {problem}", file=sys.stderr)
    return None


def runtime_library(home: Path) -> Path:
    """The file libcudart.so of the toolkit, with or without a version in its name.

    Raises:
        SystemExit: there is none.
    """
    found = [path for lib in ("lib64", "lib") for path in sorted((home / lib).glob("libcudart.so*"))]
    if not found:
        raise SystemExit(f"there is no libcudart.so in {home}/lib64 or {home}/lib")
    return found[0]


def missing_package() -> str | None:
    """The package that pip must install for a compiler of PyTorch's CUDA version.

    Returns:
        A requirement; None if there is a compiler, or if none is needed.
    """
    if os.environ.get("SIFA_WITH_CUDA") == "0" or torch.version.cuda is None or find_toolkit():
        return None
    names = " ".join(metadata.requires("torch") or [])
    found = re.search(r"cuda-toolkit\[[^\]]*\]==([\d.]+)", names)
    return f"cuda-toolkit[nvcc,cccl]=={found.group(1) if found else torch.version.cuda + '.*'}"


if __name__ == "__main__":
    print(missing_package() or "")
