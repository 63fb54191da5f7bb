"""Builds the op: `pip install ./cuda_sifa`, or in place with `python setup.py build_ext --inplace` from this folder.

The library uses the stable ABI of PyTorch and nothing of Python. Built once, it loads in every PyTorch from 2.11 on,
CPU-only or with CUDA, and in every Python. CUDA kernels are built if a driver is loaded, or if SIFA_WITH_CUDA=1.

Environment variables:
    SIFA_WITH_CUDA: 0 builds for the CPU only; 1 builds the CUDA kernels too, or fails.
    CUDA_HOME: the folder of the toolkit.
    TORCH_CUDA_ARCH_LIST: the GPUs to build for ("9.0", "8.0;9.0+PTX"). Default: the visible GPUs, else all
        architectures of a list that the toolkit supports.
    CXX, CXXFLAGS, LDFLAGS: the C++ compiler, further options for it and for linking.
    MAX_JOBS: limits the number of parallel compilers.
    SIFA_SANITIZE: 1 builds the C++ with the address and undefined-behaviour sanitizers (`bash make.sh fuzz`).
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1: the package wheel has it; without both, only building in place works
    try:
        from wheel.bdist_wheel import bdist_wheel
    except ImportError:
        bdist_wheel = None

HERE = Path(__file__).resolve().parent
os.chdir(HERE)  # the package folder is relative to this file, not to the working directory

sys.path.insert(0, str(HERE))
import build_file  # noqa: E402
import toolkit as cuda  # noqa: E402

sys.path.pop(0)

BUILD_MODULES = {"setup", "toolkit", "build_backend", "build_file", "glibc"}
NO_COMPILER = (
    "cuda_sifa: there is no C++ compiler, so the op is not built, and plain PyTorch computes it, many times slower; on "
    "Debian and Ubuntu: apt install g++"
)


def find_compiler() -> str | None:
    """The command of the C++ compiler: CXX, or the first that is found."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++", "clang++"]
    return next((name for name in names if shutil.which(shlex.split(name)[0])), None)


class BuildPackage(build_py):
    """Installs the package without the files that build it."""

    def find_package_modules(self, package, package_dir):
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if module[1] not in BUILD_MODULES]


class BuildLibrary(build_ext):
    """Builds `_C.so`, which is a shared library and no module of Python, with ninja."""

    def get_ext_filename(self, name):
        return os.path.join(*name.split(".")) + ".so"

    def build_extension(self, extension):
        library = Path(self.get_ext_fullpath(extension.name)).resolve()
        file = Path(self.build_temp).resolve() / "build.ninja"
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            write_build_file(file, library)
        except OSError as error:
            raise SystemExit(f"cuda_sifa: the op cannot be built in {HERE} ({error}): copy the folder") from None
        jobs = [f"-j{os.environ['MAX_JOBS']}"] if os.environ.get("MAX_JOBS") else []
        try:
            subprocess.run(["ninja", "-v", *jobs, "-f", str(file)], check=True)
        except FileNotFoundError:
            raise SystemExit("cuda_sifa: there is no ninja: pip install ninja") from None
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"cuda_sifa: the op does not compile, see above ({error})") from None
        print(f"cuda_sifa/_C.so for {build}")


def write_build_file(file: Path, library: Path) -> None:
    """Writes what ninja does: sources, compilers, their options."""
    torch = cuda.torch_folder()
    include = ["-isystem", str(torch / "include")]
    version = "".join(f"{number:02x}" for number in cuda.OLDEST_TORCH)
    # -ffp-contract: what GCC does anyway and clang does not. -Wno-psabi: vectors never pass between libraries.
    flags = ["-O3", "-DNDEBUG", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-Wno-psabi"]
    flags += [f"-DTORCH_TARGET_VERSION=0x{version}000000000000"]
    link = ["-shared", "-s", *shlex.split(os.environ.get("LDFLAGS", ""))]
    if os.environ.get("SIFA_SANITIZE") == "1":
        sanitize = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g"]
        flags, link = [*flags, *sanitize], [*(flag for flag in link if flag != "-s"), *sanitize]
    sources = [HERE / "csrc/sifa.cpp", *sorted(HERE.glob("csrc/cpu/*.cpp"))]
    # The library must name one of PyTorch's: theirs are not visible to it otherwise. libtorch.so names that of the CPU
    # and, if there is one, that of the GPU.
    libraries = ["-Wl,--no-as-needed", f"-L{torch / 'lib'}", "-ltorch", "-Wl,--as-needed"]
    compilers = {}
    options = {"csrc/sifa.cpp": [f'-DSIFA_BUILD="{build}"']}
    if toolkit:
        sources += sorted([*HERE.glob("csrc/cuda/*.cpp"), *HERE.glob("csrc/cuda/*.cu")])
        options["cuda/inter_frame_attention.cpp"] = ["-isystem", str(toolkit / "include")]
        # The static runtime: a machine without CUDA must be able to load the library, too.
        libraries += [*(f"-L{toolkit / name}" for name in ("lib64", "lib")), "-lcudart_static", "-lrt", "-ldl"]
        host = ["-ccbin", os.environ["CXX"]] if os.environ.get("CXX") else []
        gpus = cuda.architecture_flags(cuda.architectures(toolkit))
        compilers[".cu"] = [str(toolkit / "bin/nvcc"), *host, *cuda.NVCC_FLAGS, "-Xcompiler=-fPIC", *gpus]
    cxx = shlex.split(compiler)
    compilers[".cpp"] = [*cxx, *shlex.split(os.environ.get("CXXFLAGS", "")), *flags, *include]
    build_file.write(file, sources, library, compilers, options, ([*cxx, *link], [*libraries, "-lpthread"]))


compiler = find_compiler()
toolkit = cuda.wanted_toolkit() if compiler else None
cuda_version = cuda.version_of(toolkit) if toolkit else "none"
build = f"torch >={'.'.join(map(str, cuda.OLDEST_TORCH))}, CUDA {cuda_version}"
commands = {"build_py": BuildPackage, "build_ext": BuildLibrary}
if not compiler:
    print(NO_COMPILER, file=sys.stderr)

if bdist_wheel:

    class Wheel(bdist_wheel):
        """A wheel for every Python 3: the library does not depend on Python's ABI."""

        def get_tag(self):
            _, _, platform = super().get_tag()
            return "py3", "none", platform

    commands["bdist_wheel"] = Wheel

setup(
    name="cuda_sifa",
    version="1.0.0" + (f"+cu{cuda_version.replace('.', '')}" if toolkit else ""),
    description="Stand-alone inter-frame attention (SIFA, CVPR 2022) as a PyTorch op",
    license="Apache-2.0",
    packages=["cuda_sifa"],
    package_dir={"cuda_sifa": "."},
    package_data={"cuda_sifa": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=["torch>=2.11"],
    ext_modules=[Extension("cuda_sifa._C", ["csrc/sifa.cpp"])] if compiler else [],
    options={"build_ext": {"force": True}},  # ninja decides what is out of date
    cmdclass=commands,
)
