"""Say in one screen what is installed, which op serves, and what is missing: the block for a bug report.

    python -m tools.doctor        (or bash make.sh doctor)

It needs no package, so that it works where PyTorch is missing or broken. The home folder is shown as ~, the name of the
machine is not shown. Exit code: 0; 2 if a package is missing or broken without which nothing works.
"""

import importlib.metadata as metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from common import cli
from common.errors import one_line

ROOT = Path(__file__).resolve().parents[1]
ONNX = ("onnx", "onnxscript", "onnxruntime")
OPTIONAL = (*ONNX, "torchcodec", "wandb")
INSTRUCTIONS = {"avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve"}
VARIABLES = re.compile(r"SIFA_|OMP_|MKL_|CUDA_|TORCH_|OPENCV_|PYTORCH_|LD_PRELOAD$|MAX_JOBS$|CXX$|PYTHONPATH$")
# What each says of itself, as `answer`. It runs in another process, which a broken library may end.
QUESTIONS = {
    "PyTorch": """import torch
cuda = f"CUDA {torch.version.cuda or 'none'}, cuDNN {torch.backends.cudnn.version() or 'none'}"
cpu = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
answer = f"{torch.__version__}, {cuda}, {cpu}"
""",
    "torchvision": "from torchvision import __version__ as answer",
    "OpenCV": """import cv2, re
codecs = re.search(r"avcodec: +YES .(.*).", cv2.getBuildInformation())
answer = f"{cv2.__version__}, FFmpeg's avcodec {codecs[1] if codecs else 'none'}"
""",
    "GPU": """import torch
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
named = [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, {gpu.major}.{gpu.minor}" for gpu in gpus]
answer = "; ".join(named) or "none that PyTorch can use"
""",
    "op": """import warnings
with warnings.catch_warnings(record=True) as caught:
    from cuda_sifa import library
kernels = ", ".join(sorted(library.devices - {"meta"}))
answer = f"compiled for {kernels} ({library.build})" if kernels else "plain PyTorch, many times slower"
missing = [str(warning.message) for warning in caught]
""",
}
ASK = """import json, sys
for name, question in json.loads(sys.argv[1]).items():
    names = {"missing": []}
    try:
        exec(question, names)
    except Exception as error:
        names["answer"] = f"does not load ({type(error).__name__}: {error})"
    print(json.dumps([name, names["answer"], names["missing"]]), flush=True)"""
run = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, errors="replace")


def main(argv: Sequence[str] | None = None) -> int:
    cli.parser("python -m tools.doctor", __doc__).parse_args(argv)
    return cli.run(examine)


def examine() -> int:
    """Prints what there is and what is missing; returns 2 if nothing can work, else 0."""
    needed, tests, optional = requirements("requirements.txt"), requirements("requirements-dev.txt"), versions(OPTIONAL)
    answers, missing = ask()
    broken = [name for name in QUESTIONS if answers[name].startswith("does not load")]
    if broken or None in needed.values():
        missing.append("what is above as none or broken: bash make.sh, or pip install -r requirements.txt")
    missing += advice({name: optional[name] for name in ONNX}, f"export to ONNX: pip install {' '.join(ONNX)}")
    missing += advice({name: tests[name] for name in tests if name not in ONNX}, "tests: bash make.sh test")
    rows = machine() | answers | {"packages": listed(needed), "optional": listed(optional | tests)}
    rows["variables"] = listed({name: value for name, value in sorted(os.environ.items()) if VARIABLES.match(name)})
    lines = [*rows.items(), *(("missing", line) for line in missing or ["nothing"])]
    cli.say("\n".join(f"{name:<11}  {one_line(text)}" for name, text in lines).replace(str(Path.home()), "~"))
    return 2 if broken or None in needed.values() else 0


def ask() -> tuple[dict[str, str], list[str]]:
    """The answer to each question, and what the op says that is missing."""
    done = run([sys.executable, "-c", ASK, json.dumps(QUESTIONS)])
    answers, missing = dict.fromkeys(QUESTIONS, f"does not load (exit code {done.returncode})"), []
    for line in re.findall(r'^\[".*', done.stdout, re.MULTILINE):  # a package may print, too
        name, answers[name], more = json.loads(line)
        missing += more
    return answers, missing


def machine() -> dict[str, str]:
    """The project, Python and the computer, by the name of the line."""
    flags = set(field(r"^(?:flags|Features)\s*: (.*)", "/proc/cpuinfo").split())
    model = field(r"^model name\s*: (.*)", "/proc/cpuinfo", platform.machine())
    system = field(r'^PRETTY_NAME="?([^"\n]*)', "/etc/os-release", platform.system())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    shared = shutil.disk_usage("/dev/shm").free / 2**30 if Path("/dev/shm").is_dir() else 0.0
    no_venv = sys.prefix == sys.base_prefix
    return {
        "SIFA": f"commit {output('.+', 'git', 'describe', '--always', '--dirty')} in {ROOT}",
        "Python": f"{platform.python_version()} in {sys.prefix}{' (no virtual environment)' * no_venv}",
        "system": f"{system}, {platform.release()}, {' '.join(platform.libc_ver())}",
        "processor": f"{model}, {cli.cores()} of {os.cpu_count()} cores, {' '.join(sorted(flags & INSTRUCTIONS))}",
        "memory": f"{memory:.1f} GiB; /dev/shm {shared:.1f} GiB free",
        "compilers": listed({name: output(r"\d+\.[\d.]+", name, "--version") for name in ("g++", "clang++", "nvcc")}),
        "driver": output(r"[\d.]+", "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    }


def output(pattern: str, *command: str) -> str:
    """What a command prints that fits the pattern, "none" if there is no such command."""
    try:
        done = run(command, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    match = re.search(pattern, done.stdout)
    return match[0] if match and done.returncode == 0 else "none"


def field(pattern: str, file: str, otherwise: str = "") -> str:
    text = Path(file).read_text(encoding="utf-8", errors="replace") if Path(file).is_file() else ""
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else otherwise


def requirements(file: str) -> dict[str, str | None]:
    return versions(re.findall(r"^[A-Za-z][\w.-]*", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE))


def versions(names: Iterable[str]) -> dict[str, str | None]:
    installed = {package.name.lower(): package.version for package in metadata.distributions()}
    return {name: installed.get(name.lower()) for name in names}


def listed(packages: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {number or 'none'}" for name, number in packages.items())


def advice(packages: Mapping[str, str | None], what: str) -> list[str]:
    names = [name for name, number in packages.items() if number is None]
    return [f"{', '.join(names)} ({what})"] if names else []


if __name__ == "__main__":
    sys.exit(main())
