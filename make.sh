#!/usr/bin/env bash
# Prepares what a job needs, then runs the job:
#
#   bash make.sh          build the op in place
#   bash make.sh demo     train and validate on videos drawn here: a few minutes on two CPU cores, no download of data
#   bash make.sh doctor   what is installed, which op serves, what is missing: the block for a bug report
#   bash make.sh test     the test suite; further arguments go to pytest
#   bash make.sh fuzz     ten thousand random calls of the op, built with sanitizers
#   bash make.sh attack   two thousand damaged files, odd texts, names and variables; or COUNT of them
#   bash make.sh lint     ruff, mypy, clang-format
#   bash make.sh wheel    dist/*.whl: the op for every PyTorch from 2.11 on, for the CPU and, if nvcc is here, with CUDA
#   bash make.sh compat   the tests of the op with one library in the oldest, a middle and the newest PyTorch
#   bash make.sh bench    compare the op with plain PyTorch
#   bash make.sh gpu      on a GPU: build, test and measure there; the figures go to benchmarks/results/<gpu>/
#   bash make.sh gpu [--out DIR] PART ...   only these parts, see benchmarks/gpu.sh
#
# Python packages go to .venv in this folder. An active virtual environment is used instead; SIFA_NO_VENV=1 uses the
# interpreter's own packages. PYTHON names another interpreter than python3; MAX_JOBS limits the parallel compilers. The
# op gets CUDA kernels if there is an NVIDIA driver, or with SIFA_WITH_CUDA=1 (cuda_sifa/setup.py lists its variables).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source cuda_sifa/build.sh  # has_driver, install_nvcc, compile

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf 'make.sh: %s\n' "$*" >&2
  exit 2
}

# Sets $python to an interpreter that has the packages of $1 (a requirements file); installs what is missing.
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
    "$python" -c '' 2>/dev/null || create_venv "$base"
  fi

  # The stamp file of an environment holds the Python version and the requirements of the last installation.
  local wanted stamp
  stamp=$("$python" -c 'import sys; print(sys.prefix)')/.sifa-$(basename "$1")
  wanted=$("$python" -V; cat requirements.txt "$1")
  if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]] || ! has_packages "$1"; then
    say "installing $1 (PyTorch with CUDA is several gigabytes the first time)"
    "$python" -m pip install -r "$1" | grep -v '^Requirement already satisfied' || true
    has_packages "$1" || fail "pip could not install $1, see above"
    printf '%s\n' "$wanted" >"$stamp" 2>/dev/null || true
  fi
}

# PyTorch is several gigabytes: if the interpreter has a working torch and torchvision, the environment shares them.
create_venv() {
  local share=()
  "$1" -c 'import torch, torchvision' 2>/dev/null && share=(--system-site-packages)
  say "creating .venv"
  rm -rf .venv
  "$1" -m venv "${share[@]}" .venv || fail "venv failed; on Debian and Ubuntu: apt install python3-venv"
}

# Succeeds if every package of requirements.txt and $1 is installed, and torch and torchvision fit each other. Imports
# none of them: that takes seconds.
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
torch = metadata.version("torch").partition("+")[0]
sys.exit(any(re.match(rf"torch==(?!{re.escape(torch)}$)", need) for need in metadata.requires("torchvision") or []))
PYTHON
}

build() {
  set_up "${1:-requirements.txt}"
  install_nvcc
  compile
}

run_tests() {
  build requirements-dev.txt
  say "testing"
  # The tests share the cores between processes, so each computes on one thread. More than four would need much memory.
  OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$python" -m pytest -n auto --maxprocesses 4 \
    --dist loadfile --no-loadscope-reorder "$@"  # in the order of tests/conftest.py
}

lint() {
  set_up requirements-dev.txt
  say "ruff"
  "$python" -m ruff check .
  "$python" -m ruff format --check .
  say "mypy"
  "$python" -m mypy .
  say "clang-format"
  find cuda_sifa/csrc tests/cuda -type f \( -name '*.cpp' -o -name '*.h' -o -name '*.cu*' \) \
    -exec "$(dirname "$python")/clang-format" --dry-run --Werror {} +
}

# A longer job is a function of the same name in a script of its own.
job=${1:-build}
[[ $# -gt 0 ]] && shift
case $job in
  build) build ;;
  demo) source tools/demo.sh; demo "$@" ;;
  doctor) source tools/doctor.sh; doctor ;;
  test) run_tests "$@" ;;
  fuzz) source tests/op/fuzz.sh; fuzz "$@" ;;
  attack) build; "$python" -m tests.attacks.attack "$@" ;;
  lint) lint ;;
  bench) build; say "measuring"; "$python" -m benchmarks.bench_op "$@" ;;
  wheel) set_up requirements.txt; source cuda_sifa/wheel.sh; wheel ;;
  compat) source tests/op/compat.sh; compat "$@" ;;
  gpu) source benchmarks/gpu.sh; gpu "$@" ;;
  *) fail "unknown job $job; there are build, demo, doctor, test, fuzz, attack, lint, bench, wheel, compat and gpu" ;;
esac
