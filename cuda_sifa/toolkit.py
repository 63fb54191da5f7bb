"""Finds the CUDA toolkit that setup.py builds with, and says which kinds of GPU to build for."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

# Kinds of GPU for a build where none is visible: what the toolkit knows of these, and PTX of the last for later ones.
DEFAULT_ARCHITECTURES = ["7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"]

NVCC_FLAGS = ["-O3", "-std=c++17", "-Xcompiler=-fvisibility=hidden"]


def has_nvcc(home: Path) -> bool:
    return (home / "bin/nvcc").is_file() and (home / "include/cuda_runtime_api.h").is_file()


def toolkit_behind(command: Path) -> Path | None:
    """The folder of the toolkit whose nvcc `command` is, or calls: on some machines a script or a link stands in."""
    home = command.resolve().parent.parent
    if has_nvcc(home):
        return home
    # nvcc says where it is at home when it is asked what it would do.
    plan = subprocess.run([str(command), "--dryrun", "-E", "x.cu"], capture_output=True, text=True)
    found = re.search(r"^#\$ TOP=(.+)$", plan.stderr, re.MULTILINE)
    return Path(found.group(1)).resolve() if found and has_nvcc(Path(found.group(1))) else None


def find_toolkit() -> Path | None:
    """The folder of the CUDA toolkit: CUDA_HOME, the nvcc on the PATH, CUDA's default folder, PyPI's cuda-toolkit."""
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
    packages = Path(torch.__file__).parents[1]  # where pip put PyTorch's own parts of the toolkit
    return next(filter(has_nvcc, sorted(packages.glob("nvidia/cu[0-9]*"), reverse=True)), None)


def version_of(home: Path) -> str:
    text = subprocess.run([str(home / "bin/nvcc"), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    return found.group(1) if found else "unknown"


def architectures(home: Path) -> str:
    """TORCH_CUDA_ARCH_LIST for a build where no GPU is visible."""
    text = subprocess.run([str(home / "bin/nvcc"), "--list-gpu-code"], capture_output=True, text=True).stdout
    known = [arch for arch in DEFAULT_ARCHITECTURES if f"sm_{arch.replace('.', '')}\n" in text + "\n"]
    return ";".join(known) + "+PTX"


def wanted_toolkit() -> Path | None:
    """The toolkit to build CUDA kernels with; None for a build for the CPU alone, and says why."""
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
    """libcudart of the toolkit, with or without a version in its name."""
    found = [path for lib in ("lib64", "lib") for path in sorted((home / lib).glob("libcudart.so*"))]
    if not found:
        raise SystemExit(f"there is no libcudart.so in {home}/lib64 or {home}/lib")
    return found[0]


def missing_package() -> str | None:
    """What pip has to install for a compiler of PyTorch's CUDA version; None where one is there, or none is wanted."""
    if os.environ.get("SIFA_WITH_CUDA") == "0" or torch.version.cuda is None or find_toolkit():
        return None
    names = " ".join(metadata.requires("torch") or [])
    found = re.search(r"cuda-toolkit\[[^\]]*\]==([\d.]+)", names)
    return f"cuda-toolkit[nvcc,cccl]=={found.group(1) if found else torch.version.cuda + '.*'}"


if __name__ == "__main__":
    print(missing_package() or "")
