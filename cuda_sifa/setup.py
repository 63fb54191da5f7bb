"""Builds the op: `pip install ./cuda_sifa`, or in place with `python setup.py build_ext --inplace` from this folder.

Environment: SIFA_WITH_CUDA=0 builds for the CPU alone; MAX_JOBS limits the parallel compilers.
"""

import os
from pathlib import Path

import torch
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

HERE = Path(__file__).resolve().parent
os.chdir(HERE)  # sources and package folder are relative to this file, whatever the working directory

SOURCES = sorted(str(path.relative_to(HERE)) for path in [HERE / "csrc/sifa.cpp", *HERE.glob("csrc/cpu/*.cpp")])
BUILD = f"torch {torch.__version__}, CUDA none"

setup(
    name="cuda_sifa",
    version="1.0.0",
    description="Stand-alone inter-frame attention (SIFA, CVPR 2022) as a PyTorch op",
    license="Apache-2.0",
    packages=["cuda_sifa"],
    package_dir={"cuda_sifa": "."},
    python_requires=">=3.10",
    ext_modules=[
        CppExtension(
            "cuda_sifa._C",
            SOURCES,
            # OpenMP's headers only: the threads are PyTorch's, so that torch.set_num_threads governs them.
            extra_compile_args=["-O3", "-fopenmp", "-fvisibility=hidden", f'-DSIFA_BUILD="{BUILD}"'],
            extra_link_args=["-s"],
        )
    ],
    cmdclass={"build_ext": BuildExtension.with_options(no_python_abi_suffix=True)},
)
