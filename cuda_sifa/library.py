"""Finds and loads the compiled library, and says loudly when that is not possible."""

import re
import warnings
from pathlib import Path

import torch

HOW_TO_BUILD = "build it with `bash make.sh` (or `pip install ./cuda_sifa`)"

_PATH = Path(__file__).with_name("_C.so")

#: Kinds of device the loaded library has kernels for; empty while none is loaded. "meta" is for shapes alone.
devices: frozenset[str] = frozenset()

#: What the library was built for, e.g. "torch 2.11.0+cu130, CUDA 13.0"; None where there is none.
build: str | None = None


class NotBuiltWarning(UserWarning):
    """The compiled op is missing or does not fit, and plain PyTorch serves in its place."""


def read_build(path: Path = _PATH) -> str | None:
    """What the library at `path` was built for, read from its bytes without loading it. None: there is no such file."""
    if not path.is_file():
        return None
    found = re.search(rb"sifa-build:([^;\0]+);", path.read_bytes())
    return found.group(1).decode() if found else "an unknown PyTorch"


def load(path: Path = _PATH) -> bool:
    """Loads the compiled op. Where that fails, warns once (NotBuiltWarning) and returns False: the reference serves."""
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
            f"cuda_sifa: {problem}. Plain PyTorch serves in its place: the same results, many times slower. "
            f"To have the op, {HOW_TO_BUILD}.",
            NotBuiltWarning,
            stacklevel=3,
        )
        return False
    devices = frozenset({"cpu", "meta"} if str(build).endswith("CUDA none") else {"cpu", "cuda", "meta"})
    if "cuda" not in devices and torch.cuda.is_available():
        warnings.warn(
            f"cuda_sifa: the compiled op has no CUDA kernels (built for {build}). On the GPU plain PyTorch serves in "
            f"its place: the same results, many times slower. With a CUDA toolkit at hand, {HOW_TO_BUILD}.",
            NotBuiltWarning,
            stacklevel=3,
        )
    return True
