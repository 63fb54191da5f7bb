#!/usr/bin/env bash
# Sets up what a job needs, then does the job:
#
#   bash make.sh          build the op in place
#   bash make.sh demo     train and validate on videos drawn here: a few minutes on two CPU cores, no download of data
#   bash make.sh test     the test suite
#   bash make.sh fuzz     ten thousand random calls of the op, built with sanitizers
#   bash make.sh lint     ruff, mypy, clang-format
#   bash make.sh bench    the op beside plain PyTorch
#   bash make.sh gpu      on a GPU: build, test and measure there; the figures go to benchmarks/results/<gpu>.md
#   bash make.sh gpu PART ...   only these: build, test, sanitize, op, network
#
# Python packages go to .venv beside this file, unless a virtual environment is active, or SIFA_NO_VENV=1 says to use the
# interpreter at hand. PYTHON names another interpreter than python3; MAX_JOBS limits the parallel compilers. The op is
# built with CUDA kernels where PyTorch has CUDA and a compiler is found (cuda_sifa/setup.py names its own settings).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf 'make.sh: %s\n' "$*" >&2
  exit 2
}

# The interpreter with the packages of $1 (a requirements file) installed; sets $python.
set_up() {
  local base=${PYTHON:-python3}
  command -v "$base" >/dev/null || fail "there is no $base; install Python 3.10 or later"
  "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "Python 3.10 or later is needed, $base is $("$base" -V 2>&1)"

  if [[ ${SIFA_NO_VENV:-0} == 1 ]]; then
    python=$(command -v "$base")
    has_packages "$1" && return
  elif [[ -n ${VIRTUAL_ENV:-} ]]; then
    python=$VIRTUAL_ENV/bin/python
  else
    python=$PWD/.venv/bin/python
    if ! "$python" -c '' 2>/dev/null; then
      # PyTorch is gigabytes: where the interpreter has a working pair already, the environment sees it.
      local share=()
      "$base" -c 'import torch, torchvision' 2>/dev/null && share=(--system-site-packages)
      say "creating .venv"
      rm -rf .venv
      "$base" -m venv "${share[@]}" .venv || fail "venv failed; on Debian and Ubuntu: apt install python3-venv"
    fi
  fi

  # One stamp for each environment: the interpreter and the requirements it was last brought up to date with.
  local wanted stamp
  stamp=$("$python" -c 'import sys; print(sys.prefix)')/.sifa-$(basename "$1")
  wanted=$("$python" -V; cat requirements.txt "$1")
  if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]] || ! has_packages "$1"; then
    say "installing $1 (PyTorch with CUDA is some gigabytes the first time)"
    "$python" -m pip install -r "$1" | grep -v '^Requirement already satisfied' || true
    has_packages "$1" || fail "pip could not install $1, see above"
    printf '%s\n' "$wanted" >"$stamp" 2>/dev/null || true
  fi
}

# Whether every package that $1 and requirements.txt name is there, and torch and torchvision fit each other.
has_packages() {
  "$python" - requirements.txt "$1" 2>/dev/null <<'PYTHON'
import importlib.metadata as metadata
import re
import sys

for file in sys.argv[1:]:
    for line in open(file):
        name = re.match(r"[A-Za-z][\w.-]*", line)
        if name:
            metadata.version(name.group())
import torchvision
PYTHON
}

build() {
  set_up "${1:-requirements.txt}"
  bring_nvcc
  compile
}

# Whether there is a driver of NVIDIA's, or Windows' below Linux, and so maybe a GPU.
has_driver() { [[ -e /dev/nvidiactl || -e /proc/driver/nvidia || -e /dev/dxg ]]; }

# A GPU but no CUDA compiler: PyPI has one, of the version that PyTorch names; nothing is installed outside Python.
bring_nvcc() {
  has_driver || return 0
  local package
  package=$("$python" cuda_sifa/toolkit.py) || fail "CUDA's compiler cannot be looked for, see above"
  [[ -n $package ]] || return 0
  say "installing CUDA's compiler ($package)"
  "$python" -m pip install "$package" | grep -v '^Requirement already satisfied' ||
    say "pip could not install it: the op is built for the CPU alone"
}

compile() {
  command -v "${CXX:-g++}" >/dev/null || fail "there is no C++ compiler; on Debian and Ubuntu: apt install g++"
  say "building the op"
  local log
  log=$(mktemp)
  if ! (PATH=$(dirname "$python"):$PATH "$python" cuda_sifa/setup.py build_ext --inplace) >"$log" 2>&1; then
    cat "$log" >&2
    fail "the op does not build, see above; SIFA_WITH_CUDA=0 builds it for the CPU alone"
  fi
  grep '^cuda_sifa: ' "$log" || true  # why there are no CUDA kernels
  rm -f "$log"
  "$python" -c 'from cuda_sifa import library; print(f"cuda_sifa/_C.so for {library.build}")'
}

demo() {
  build
  say "drawing videos: eight kinds of motion, 100 of each for training, 25 for validation"
  "$python" -m tools.make_demo_videos data/demo/videos --train 100 --val 25
  say "decoding them to frames and lists"
  for split in train val; do
    "$python" -m tools.extract_frames "data/demo/videos/$split" "data/demo/frames/$split" --list "data/demo/$split.txt" \
      --classes data/demo/classes.txt --short_side 80
  done
  say "training a narrow SIFA-Net on two processes"
  rm -rf output/demo
  OMP_NUM_THREADS=1 "$python" -m torch.distributed.run --nproc_per_node=2 train_val_3d.py \
    --config_file=settings/demo.yml
  cat <<TEXT

The log is output/demo/log.txt, the figures are output/demo/metrics.jsonl and, as curves,
  ${python#"$PWD"/} -m tensorboard.main --logdir output/demo/tensorboard
Next: ask the network about a video, and see where it looks,
  ${python#"$PWD"/} -m tools.predict data/demo/videos/val/move_up/0000.mp4 --checkpoint output/demo/checkpoints/last.pth
  ${python#"$PWD"/} -m tools.visualize data/demo/videos/val/move_up/0000.mp4 --checkpoint output/demo/checkpoints/last.pth \\
    --stage res3 --crop_size 128
or teach it classes of your own: README.md, "Your own videos".
TEXT
}

run_tests() {
  build requirements-dev.txt
  say "testing"
  "$python" -m pytest "$@"
}

fuzz() {
  set_up requirements.txt
  say "building the op with sanitizers, apart from the one in use"
  local lib=$PWD/output/fuzz
  mkdir -p "$lib"
  (PATH=$(dirname "$python"):$PATH SIFA_SANITIZE=1 SIFA_WITH_CUDA=0 "$python" cuda_sifa/setup.py -q build \
    --build-lib "$lib" --build-temp "$lib/temp") >"$lib.log" 2>&1 || { cat "$lib.log" >&2; fail "the op does not build"; }
  say "calling"
  # Python is not built with the sanitizers, so their libraries must be loaded before it; its own leaks are not ours.
  local asan ubsan
  asan=$(g++ -print-file-name=libasan.so) ubsan=$(g++ -print-file-name=libubsan.so)
  LD_PRELOAD="$asan $ubsan" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=2 \
    PYTHONPATH=$lib "$python" tests/op/fuzz.py "$@"
}

lint() {
  set_up requirements-dev.txt
  say "ruff"
  "$python" -m ruff check .
  "$python" -m ruff format --check .
  say "mypy"
  "$python" -m mypy .
  say "clang-format"
  find cuda_sifa/csrc tests/cuda -name '*.cpp' -o -name '*.h' -o -name '*.cu*' -type f | xargs "$(dirname "$python")/clang-format" --dry-run --Werror
}

bench() {
  build
  say "measuring"
  "$python" -m benchmarks.bench_op "$@"
}

# Runs with SIFA_NO_VENV=1 too, beside a PyTorch and a CUDA compiler without a network; what else is missing is left out,
# and said. Goes on to measure where a test fails, and fails then. Where a command may not take long, part by part, in this
# order; minutes expected with 16 cores and one kind of GPU to build for (TORCH_CUDA_ARCH_LIST=9.0), none measured yet:
#   build 2, test 5, sanitize 3, op 5 (writes the results anew), network 4 (adds to them)
gpu() {
  local parts=("$@") part failed=()
  [[ $# -gt 0 ]] || parts=(build test sanitize op network)
  for part in "${parts[@]}"; do
    [[ $part =~ ^(build|test|sanitize|op|network)$ ]] ||
      fail "unknown part $part; there are build, test, sanitize, op and network"
  done
  if [[ ${SIFA_NO_VENV:-0} == 1 ]]; then
    python=$(command -v "${PYTHON:-python3}") || fail "there is no ${PYTHON:-python3}"
  else
    has_driver || fail "there is no GPU here: no driver of NVIDIA's is loaded"
    set_up requirements-dev.txt
    bring_nvcc
  fi
  local why
  why=$(why_no_gpu 2>/dev/null) || fail "PyTorch cannot use a GPU: ${why:-$python does not run}"
  results=benchmarks/results/$("$python" -c \
    'import re, torch; print(re.sub(r"\W+", "-", torch.cuda.get_device_name()).lower())').md
  for part in "${parts[@]}"; do
    "gpu_$part" || failed+=("$part")
  done
  [[ ${#failed[@]} == 0 ]] || fail "failed: ${failed[*]}, see above"
}

# Fails where PyTorch cannot use a GPU and prints why, in one line.
why_no_gpu() {
  "$python" - <<'PYTHON'
import sys

try:
    import torch

    torch.zeros(1, device="cuda")
except Exception as error:
    print(str(error).splitlines()[0])
    sys.exit(1)
PYTHON
}

gpu_build() { SIFA_WITH_CUDA=1 compile; }

gpu_test() {
  if ! "$python" -c 'import pytest' 2>/dev/null; then
    say "there is no pytest: the tests are left out"
    return
  fi
  local modules
  mapfile -t modules < <(runnable_tests)
  say "testing"
  "$python" -m pytest -m cuda --durations=10 "${modules[@]}"
}

# The test modules whose packages are all here; the others are named.
runnable_tests() {
  "$python" - <<'PYTHON'
import importlib
import pathlib
import sys

for path in sorted(pathlib.Path("tests").glob("*/test_*.py")):
    try:
        for file in (path.with_name("conftest.py"), path):
            if file.exists():
                importlib.import_module(".".join(file.with_suffix("").parts))
    except ModuleNotFoundError as error:
        print(f"left out, there is no {error.name}: {path}", file=sys.stderr)
    else:
        print(path)
PYTHON
}

# The authors' cases and all kinds of sizes under CUDA's checkers, where they are installed and run (in some containers they do not): accesses out
# of bounds, races in shared memory, barriers that not all threads reach.
gpu_sanitize() {
  if ! command -v compute-sanitizer >/dev/null || ! "$python" -c 'import pytest' 2>/dev/null; then
    say "compute-sanitizer or pytest is missing: memory is not checked"
    return
  fi
  local check=(compute-sanitizer --error-exitcode 1 --tool) tool failed=0
  if ! "${check[@]}" memcheck "$python" -c 'import torch; torch.zeros(1, device="cuda")' >/dev/null 2>&1; then
    say "compute-sanitizer does not run on this machine: memory is not checked"
    return
  fi
  for tool in memcheck racecheck synccheck; do
    say "testing under compute-sanitizer, $tool"
    # Without PyTorch's own pool each tensor ends where its memory ends.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 "${check[@]}" "$tool" "$python" -m pytest -m cuda tests/op/test_golden.py \
      tests/cuda/test_device.py::test_the_cpu_and_the_gpu_agree || failed=1
  done
  return "$failed"
}

gpu_op() {
  say "measuring the op"
  "$python" -m benchmarks.bench_op --device cuda --out "$results" || return 1
  echo "the figures are in $results"
}

gpu_network() {
  say "measuring the network"
  "$python" -m benchmarks.bench_network --out "$results" || return 1
  echo "the figures are in $results"
}

job=${1:-build}
[[ $# -gt 0 ]] && shift
case $job in
  build) build ;;
  demo) demo ;;
  test) run_tests "$@" ;;
  fuzz) fuzz "$@" ;;
  lint) lint ;;
  bench) bench "$@" ;;
  gpu) gpu "$@" ;;
  *) fail "unknown job $job; there are build, demo, test, fuzz, lint, bench and gpu" ;;
esac
