"""Builds the op: `pip install ./cuda_sifa`, or in place with `python setup.py build_ext --inplace` from this folder.

CUDA kernels are built if PyTorch is a CUDA build and a CUDA compiler is found, whether or not a GPU is visible.

Environment variables:
    SIFA_WITH_CUDA: 0 builds for the CPU only; 1 fails without CUDA.
    CUDA_HOME: the folder of the toolkit.
    TORCH_CUDA_ARCH_LIST: the GPUs to build for ("9.0", "8.0;9.0+PTX"). Default: the visible GPUs, else all
        architectures of a list that the toolkit supports.
    MAX_JOBS: limits the number of parallel compilers.
    SIFA_SANITIZE: 1 builds the C++ with the address and undefined-behaviour sanitizers (`bash make.sh fuzz`).
"""

import os
import sys
from pathlib import Path

import torch
from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
os.chdir(HERE)  # sources and package folder are relative to this file, not to the working directory

sys.path.insert(0, str(HERE))
import toolkit as cuda  # noqa: E402

sys.path.pop(0)

toolkit = cuda.wanted_toolkit()
if toolkit:
    os.environ["CUDA_HOME"] = str(toolkit)  # PyTorch reads it on import
    if not os.environ.get("TORCH_CUDA_ARCH_LIST") and torch.cuda.device_count() == 0:
        os.environ["TORCH_CUDA_ARCH_LIST"] = cuda.architectures(toolkit)

from torch.utils.cpp_extension import BuildExtension, CppExtension  # noqa: E402

sources = [HERE / "csrc/sifa.cpp", *HERE.glob("csrc/cpu/*.cpp")]
include_dirs: list[str] = []
link: list[str] = ["-s"]
if toolkit:
    sources += [*HERE.glob("csrc/cuda/*.cu"), *HERE.glob("csrc/cuda/*.cpp")]
    include_dirs = [str(toolkit / "include")]
    # Linked by file name: PyPI's toolkit has a libcudart.so.13, but no libcudart.so.
    runtime = cuda.runtime_library(toolkit)
    torch_libraries = Path(torch.__file__).parent / "lib"
    link += [f"-L{torch_libraries}", "-lc10_cuda", str(runtime)]

optimise = ["-O3"]
if os.environ.get("SIFA_SANITIZE") == "1":
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g"]
    optimise, link = ["-O1", *sanitize], [*sanitize, *(flag for flag in link if flag != "-s")]


class BuildPackage(build_py):
    """Installs the package without the files that build it."""

    def find_package_modules(self, package, package_dir):
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if module[1] not in ("setup", "toolkit", "build_backend")]


build = f"torch {torch.__version__}, CUDA {cuda.version_of(toolkit) if toolkit else 'none'}"

setup(
    name="cuda_sifa",
    version="1.0.0",
    description="Stand-alone inter-frame attention (SIFA, CVPR 2022) as a PyTorch op",
    license="Apache-2.0",
    packages=["cuda_sifa"],
    package_dir={"cuda_sifa": "."},
    python_requires=">=3.10",
    install_requires=["torch>=2.11"],
    ext_modules=[
        CppExtension(
            "cuda_sifa._C",
            sorted(str(path.relative_to(HERE)) for path in sources),
            include_dirs=include_dirs,
            extra_compile_args={
                # -fopenmp for its headers only: the threads belong to PyTorch, so torch.set_num_threads controls them.
                # -fno-wrapv because Python is often built with -fwrapv and passes it on. No code here relies on
                # overflow. Without -fwrapv, code on addresses is faster (43 ns instead of 100 to list the pixels of a
                # position, GCC 12), and sanitizers find overflows.
                "cxx": [*optimise, "-fno-wrapv", "-fopenmp", "-fvisibility=hidden", f'-DSIFA_BUILD="{build}"'],
                "nvcc": cuda.NVCC_FLAGS,
            },
            extra_link_args=link,
        )
    ],
    # ninja decides what is out of date, with headers and flags; setuptools looks at the sources only.
    options={"build_ext": {"force": True}},
    cmdclass={"build_py": BuildPackage, "build_ext": BuildExtension.with_options(no_python_abi_suffix=True)},
)
