"""Finds and loads the compiled library, and warns if that is not possible."""

import contextlib
import ctypes
import os
import re
import shlex
import shutil
import warnings
from pathlib import Path

import torch

HOW_TO_BUILD = "build it with `bash make.sh` (or `pip install ./cuda_sifa`)"

_PATH = Path(__file__).with_name("_C.so")

#: The argument of inter_frame_attention that was added last: a library without it was built before.
NEWEST = "residual"

#: The types of device for which the loaded library has kernels; empty if none is loaded. "meta" computes shapes only.
devices: frozenset[str] = frozenset()

#: What the library was built for, for example "torch >=2.11, CUDA 13.0"; None if there is no library.
build: str | None = None


class NotBuiltWarning(UserWarning):
    """The compiled op is missing or does not fit this PyTorch, and plain PyTorch is used instead."""


def read_build(path: Path = _PATH) -> str | None:
    """Reads what a library was built for, from its bytes, without loading it.

    Args:
        path: the library.

    Returns:
        For example "torch >=2.11, CUDA 13.0"; None if there is no such file.
    """
    if not path.is_file():
        return None
    found = re.search(rb"sifa-build:([^;\0]+);", path.read_bytes())
    return found.group(1).decode() if found else "an unknown PyTorch"


def _numbers(version: str) -> tuple[int, int]:
    """The first two numbers of a version."""
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def _not_built() -> str:
    if shutil.which(shlex.split(os.environ.get("CXX") or "g++")[0]):
        return "the compiled op is not built"
    return "the compiled op is not built, and there is no C++ compiler (on Debian and Ubuntu: apt install g++)"


def _driver_version() -> int:
    """The major version of CUDA that the driver of this machine supports; 0 if there is none."""
    version = ctypes.c_int()
    with contextlib.suppress(OSError):
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))  # 12080 for CUDA 12.8
    return version.value // 1000


def _why_no_gpu_kernels(build: str) -> str | None:
    """Why the GPU of this machine cannot use the library; None if it can, or if PyTorch uses no GPU of NVIDIA's."""
    cuda = build.rpartition("CUDA ")[2]
    if cuda == "none" or torch.version.cuda is None:
        return f"the compiled op has no CUDA kernels (built for {build})"
    if _numbers(cuda)[0] <= _numbers(torch.version.cuda)[0]:
        return None  # a driver that is new enough for PyTorch is new enough for the library
    if _driver_version() >= _numbers(cuda)[0]:
        return None
    return f"the compiled op needs a driver for CUDA {cuda} (built for {build})"


def _warn(problem: str, remedy: str) -> None:
    warnings.warn(
        f"cuda_sifa: {problem} instead: the same results, many times slower. {remedy}, {HOW_TO_BUILD}.",
        NotBuiltWarning,
        stacklevel=4,
    )


def load(path: Path = _PATH) -> bool:
    """Loads the compiled op. If that fails, gives a NotBuiltWarning, and the reference is used instead.

    Args:
        path: the library.

    Returns:
        Whether the library is loaded.
    """
    global build, devices
    build = read_build(path)
    oldest = re.match(r"torch >=([\d.]+),", build or "")
    problem = None
    if build is None:
        problem = _not_built()
    elif not oldest or _numbers(torch.__version__) < _numbers(oldest.group(1)):
        problem = f"the compiled op was built for {build}, but torch {torch.__version__} is running"
    else:
        try:
            torch.ops.load_library(str(path))
        except OSError as error:
            problem = f"the compiled op, built for {build}, does not load ({error})"
        if problem is None and NEWEST not in str(torch.ops.sifa.inter_frame_attention.default._schema):
            problem = f"the compiled op, built for {build}, is older than its Python code"
    if build is None or problem is not None:
        _warn(f"{problem}. Plain PyTorch is used", "To use the compiled op")
        return False
    no_gpu_kernels = _why_no_gpu_kernels(build)
    devices = frozenset({"cpu", "meta"} if no_gpu_kernels else {"cpu", "cuda", "meta"})
    if no_gpu_kernels and torch.cuda.is_available():
        _warn(f"{no_gpu_kernels}. On the GPU plain PyTorch is used", "With a CUDA toolkit installed")
    return True
