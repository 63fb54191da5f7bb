# `bash make.sh gpu [PART ...]`: builds, tests and measures on a GPU.
#
# Where the time for one command is limited, run it part by part, in this order. The minutes are expected, not measured,
# for 16 cores and one kind of GPU to build for (TORCH_CUDA_ARCH_LIST=9.0):
#   build 2, test 5, sanitize 3, op 5 (replaces the results file), network 4 (appends to it)
#
# With SIFA_NO_VENV=1 it installs nothing and needs no network: PyTorch and a CUDA compiler are enough. It skips what
# needs more than that, and says so. After a failure it goes on with the next part, and ends with exit code 2.
#
# make.sh reads this file; it defines say, fail, set_up, install_nvcc and compile.
# shellcheck shell=bash

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
    has_driver || fail "there is no GPU here: no NVIDIA driver is loaded"
    set_up requirements-dev.txt
    install_nvcc
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

# Fails if PyTorch cannot use a GPU, and prints why in one line.
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
    say "pytest is not installed: the tests are skipped"
    return
  fi
  local modules
  mapfile -t modules < <(runnable_tests)
  say "testing"
  "$python" -m pytest -m cuda --durations=10 "${modules[@]}"
}

# Prints the test modules whose packages are all installed, and names the others.
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
        print(f"skipped, {error.name} is not installed: {path}", file=sys.stderr)
    else:
        print(path)
PYTHON
}

# The release's cases and sizes of all kinds under CUDA's checkers, which find accesses out of bounds, races in shared
# memory and barriers that not all threads reach. In some containers the checkers do not run.
gpu_sanitize() {
  if ! command -v compute-sanitizer >/dev/null || ! "$python" -c 'import pytest' 2>/dev/null; then
    say "compute-sanitizer or pytest is not installed: memory is not checked"
    return
  fi
  local check=(compute-sanitizer --error-exitcode 1 --tool) tool status=0
  if ! "${check[@]}" memcheck "$python" -c 'import torch; torch.zeros(1, device="cuda")' >/dev/null 2>&1; then
    say "compute-sanitizer does not run on this machine: memory is not checked"
    return
  fi
  for tool in memcheck racecheck synccheck; do
    say "testing under compute-sanitizer, $tool"
    # Without PyTorch's memory pool, an access beyond a tensor's end is an access beyond an allocation's end.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 "${check[@]}" "$tool" "$python" -m pytest -m cuda tests/op/test_golden.py \
      tests/cuda/test_device.py::test_the_cpu_and_the_gpu_agree || status=1
  done
  return "$status"
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
