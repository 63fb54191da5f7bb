"""What setup.py builds with: the installed PyTorch, the CUDA toolkit, and the GPUs to build for.

It does not import PyTorch, which takes seconds: a build that finds nothing to do ends in a fraction of one.
"""

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

OLDEST_TORCH = (2, 11)  # the op is built on its stable ABI

# For a build without a visible GPU: those that the toolkit supports, and PTX of the last one for later GPUs.
DEFAULT_ARCHITECTURES = ["7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"]

NVCC_FLAGS = ["-O3", "-std=c++17", "-Xcompiler=-fvisibility=hidden"]

# What an NVIDIA driver shows; /dev/dxg belongs to Windows, around WSL.
DRIVER_FILES = ["/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg"]


# ---- PyTorch --------------------------------------------------------------------------------------------------------


def torch_folder() -> Path:
    """The folder of the installed PyTorch.

    Raises:
        SystemExit: there is none, or it is too old.
    """
    oldest = ".".join(map(str, OLDEST_TORCH))
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise SystemExit(
            f"cuda_sifa: PyTorch is not installed for {sys.executable}, and the build downloads none: "
            f"install torch>={oldest} first"
        )
    folder = Path(found.origin).parent
    version = str(torch_version(folder)["__version__"])
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST_TORCH:
        raise SystemExit(f"cuda_sifa: torch {version} is installed, {oldest} or later is needed")
    return folder


def torch_version(folder: Path) -> dict[str, object]:
    """What the file version.py of PyTorch states: "__version__", and "cuda", None for a CPU build."""
    return runpy.run_path(str(folder / "version.py"))


# ---- CUDA -----------------------------------------------------------------------------------------------------------


def has_driver() -> bool:
    """Whether an NVIDIA driver is loaded, so that there may be a GPU."""
    return any(map(os.path.exists, DRIVER_FILES))


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
    packages = torch_folder().parent  # where pip installs the parts of the toolkit that PyTorch needs
    return next(filter(has_nvcc, sorted(packages.glob("nvidia/cu[0-9]*"), reverse=True)), None)


def version_of(home: Path) -> str:
    """The version of the toolkit, for example "13.0"."""
    text = subprocess.run([str(home / "bin/nvcc"), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    return found.group(1) if found else "unknown"


def visible_gpus() -> list[str]:
    """The compute capabilities of the GPUs of this machine, for example ["9.0"]; empty if there is none."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    return sorted(set(re.findall(r"^\d+\.\d+$", subprocess.run(query, capture_output=True, text=True).stdout, re.M)))


def architectures(home: Path) -> str:
    """The GPUs to build for, as in TORCH_CUDA_ARCH_LIST: those that are visible, else all that the toolkit knows."""
    if wanted := os.environ.get("TORCH_CUDA_ARCH_LIST") or ";".join(visible_gpus()):
        return wanted
    text = subprocess.run([str(home / "bin/nvcc"), "--list-gpu-code"], capture_output=True, text=True).stdout
    known = [arch for arch in DEFAULT_ARCHITECTURES if f"sm_{arch.replace('.', '')}\n" in text + "\n"]
    return ";".join(known) + "+PTX"


def architecture_flags(architectures: str) -> list[str]:
    """The options of nvcc for a list of GPUs such as "8.0;9.0+PTX".

    Raises:
        SystemExit: the list is not such.
    """
    flags = []
    for arch in re.split(r"[;, ]+", architectures.strip()):
        if not (found := re.fullmatch(r"(\d+)\.(\d[af]?)(\+PTX)?", arch)):
            raise SystemExit(f'TORCH_CUDA_ARCH_LIST is {architectures!r}, expected a list like "8.0;9.0+PTX"')
        number = found.group(1) + found.group(2)
        flags += [f"-gencode=arch=compute_{number},code=sm_{number}"]
        if found.group(3):
            flags += [f"-gencode=arch=compute_{number},code=compute_{number}"]
    return flags


def wanted_toolkit() -> Path | None:
    """The toolkit to build CUDA kernels with.

    Returns:
        The folder; None to build for the CPU only, with the reason printed if it is not obvious.

    Raises:
        SystemExit: SIFA_WITH_CUDA=1, and there is no toolkit.
    """
    wanted = os.environ.get("SIFA_WITH_CUDA", "")
    if wanted == "0":
        return None
    home = find_toolkit()
    if wanted == "1":
        if home is None:
            raise SystemExit("SIFA_WITH_CUDA=1, but no CUDA compiler is found (set CUDA_HOME to the toolkit's folder)")
        return home
    problem = why_not(home)
    if problem:
        print(f"cuda_sifa: building for the CPU alone: {problem}", file=sys.stderr)
    return None if home is None or problem else home


def why_not(home: Path | None) -> str | None:
    """Why a build that was not told whether to use CUDA does not use it; None if it does, or if no GPU is expected."""
    if not has_driver():
        return "no NVIDIA driver is loaded here; SIFA_WITH_CUDA=1 builds the CUDA kernels too" if home else None
    version = torch_version(torch_folder())
    if version["cuda"] is None:
        return f"torch {version['__version__']} is built without CUDA"
    if home is None:
        return "no CUDA compiler is found (set CUDA_HOME to the toolkit's folder)"
    if version_of(home).split(".")[0] != str(version["cuda"]).split(".")[0]:
        return f"torch is built for CUDA {version['cuda']}, but {home} is CUDA {version_of(home)}"
    return None


def missing_package() -> str | None:
    """The package that pip must install for a compiler of PyTorch's CUDA version.

    Returns:
        A requirement; None if there is a compiler, or if none is needed.
    """
    cuda = torch_version(torch_folder())["cuda"]
    if os.environ.get("SIFA_WITH_CUDA") == "0" or not has_driver() or cuda is None or find_toolkit():
        return None
    names = " ".join(metadata.requires("torch") or [])
    found = re.search(r"cuda-toolkit\[[^\]]*\]==([\d.]+)", names)
    return f"cuda-toolkit[nvcc,cccl]=={found.group(1) if found else f'{cuda}.*'}"


if __name__ == "__main__":
    print(missing_package() or "")
