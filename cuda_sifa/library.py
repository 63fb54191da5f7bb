"""Finds and loads the compiled library, and warns if that is not possible."""

import re
import warnings
from pathlib import Path

import torch

HOW_TO_BUILD = "build it with `bash make.sh` (or `pip install ./cuda_sifa`)"

_PATH = Path(__file__).with_name("_C.so")

#: The types of device for which the loaded library has kernels; empty if none is loaded. "meta" computes shapes only.
devices: frozenset[str] = frozenset()

#: What the library was built for, for example "torch 2.11.0+cu130, CUDA 13.0"; None if there is no library.
build: str | None = None


class NotBuiltWarning(UserWarning):
    """The compiled op is missing or does not fit this PyTorch, and plain PyTorch is used instead."""


def read_build(path: Path = _PATH) -> str | None:
    """Reads what a library was built for, from its bytes, without loading it.

    Args:
        path: the library.

    Returns:
        For example "torch 2.11.0+cu130, CUDA 13.0"; None if there is no such file.
    """
    if not path.is_file():
        return None
    found = re.search(rb"sifa-build:([^;\0]+);", path.read_bytes())
    return found.group(1).decode() if found else "an unknown PyTorch"


def load(path: Path = _PATH) -> bool:
    """Loads the compiled op. If that fails, gives a NotBuiltWarning, and the reference is used instead.

    Args:
        path: the library.

    Returns:
        Whether the library is loaded.
    """
    global build, devices
    build = read_build(path)
    running = f"torch {torch.__version__}"
    problem = None
    if not build:
        problem = "the compiled op is not built"
    elif not build.startswith(running + ","):
        problem = f"the compiled op was built for {build}, but {running} is running"
    else:
        try:
            torch.ops.load_library(str(path))
        except OSError as error:
            problem = f"the compiled op, built for {build}, does not load ({error})"
    if problem is not None:
        warnings.warn(
            f"cuda_sifa: {problem}. Plain PyTorch is used instead: the same results, many times slower. "
            f"To use the compiled op, {HOW_TO_BUILD}.",
            NotBuiltWarning,
            stacklevel=3,
        )
        return False
    devices = frozenset({"cpu", "meta"} if str(build).endswith("CUDA none") else {"cpu", "cuda", "meta"})
    if "cuda" not in devices and torch.cuda.is_available():
        warnings.warn(
            f"cuda_sifa: the compiled op has no CUDA kernels (built for {build}). On the GPU plain PyTorch is used "
            f"instead: the same results, many times slower. With a CUDA toolkit installed, {HOW_TO_BUILD}.",
            NotBuiltWarning,
            stacklevel=3,
        )
    return True
