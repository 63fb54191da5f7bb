# `bash make.sh gpu [--out DIR] [PART ...]`: builds, tests and measures on a GPU that may be lent for minutes only.
#
#   gpu first    build golden op network limits profile test: 8 minutes at most
#   gpu second   contestants compile sanitize: 7 minutes at most, after `gpu first` on the same machine
#   gpu PART...  only these; without a part: all of both
#
# Each part but the build has a limit in seconds, and is ended there. Each writes to a file of its own in DIR as it goes, so that
# nothing is lost with the machine. DIR is benchmarks/results/<gpu> if --out does not name it. Wrong results of the op
# (part golden) end the run: figures of a wrong op mean nothing. After other failures the next part runs; the exit code
# is then 2.
#
# With SIFA_NO_VENV=1 it installs nothing and needs no network: PyTorch and a CUDA compiler are enough, and on a machine
# with other Pythons PYTHON names the one to use. It skips what needs more than that, and says so.
#
# make.sh reads this file; it defines say, fail, set_up, has_driver, install_nvcc and compile.
# shellcheck shell=bash disable=SC2154

declare -A limit=(
  [build]=none [golden]=40 [op]=70 [network]=50 [limits]=15 [profile]=25 [test]=160
  [contestants]=180 [compile]=90 [sanitize]=150
)
first=(build golden op network limits profile test)
second=(contestants compile sanitize)

gpu() {
  local out="" parts=() part failed=()
  while [[ $# -gt 0 ]]; do
    case $1 in
      --out) out=${2:?make.sh: --out needs a folder}; shift ;;
      first) parts+=("${first[@]}") ;;
      second) parts+=("${second[@]}") ;;
      *) [[ -n ${limit[$1]:-} ]] || fail "unknown part $1; there are first (${first[*]}) and second (${second[*]})"
         parts+=("$1") ;;
    esac
    shift
  done
  [[ ${#parts[@]} -gt 0 ]] || parts=("${first[@]}" "${second[@]}")
  find_gpu
  out=${out:-benchmarks/results/$gpu_name}
  mkdir -p "$out" || fail "the folder $out cannot be made"
  for part in "${parts[@]}"; do
    say "$part (limit in seconds: ${limit[$part]})"
    if ! "gpu_$part" 2>&1 | tee "$out/$part.log"; then
      failed+=("$part")
      [[ $part != golden ]] || fail "the op's results are wrong on this GPU, see $out/golden.log; nothing is measured"
    fi
  done
  echo "the figures are in $out"
  [[ ${#failed[@]} == 0 ]] || fail "failed: ${failed[*]}, see the logs in $out"
}

# Sets python, and gpu_name to the GPU's name as a file name; ends if PyTorch cannot use one.
find_gpu() {
  if [[ ${SIFA_NO_VENV:-0} == 1 ]]; then
    python=$(command -v "${PYTHON:-python3}") || fail "there is no ${PYTHON:-python3}"
  else
    has_driver || fail "there is no GPU here: no NVIDIA driver is loaded"
    set_up requirements-dev.txt
    install_nvcc
  fi
  gpu_name=$("$python" - 2>/dev/null <<'PYTHON'
import re
import sys

try:
    import torch

    torch.zeros(1, device="cuda")
    print(re.sub(r"\W+", "-", torch.cuda.get_device_name()).lower())
except Exception as error:
    print(str(error).splitlines()[0])
    sys.exit(1)
PYTHON
) || fail "PyTorch cannot use a GPU: ${gpu_name:-$python does not run}"
}

# Runs a command of a part ($1) within the part's limit.
limited() {
  local part=$1 status=0
  shift
  timeout --kill-after=5 "${limit[$part]}" "$@" || status=$?
  [[ $status != 124 ]] || echo "ended after ${limit[$part]} s: what was written before is kept"
  return "$status"
}

measure() { limited "$1" "$python" -m "benchmarks.$2" --out "$out/$1.md" "${@:3}"; }

# Runs pytest within the limit of a part ($1); says so if it is not installed.
pytest_within() {
  local part=$1 parallel=()
  shift
  if ! "$python" -c 'import pytest' 2>/dev/null; then
    echo "skipped: pytest is not installed"
    return
  fi
  [[ $part != test ]] || ! "$python" -c 'import xdist' 2>/dev/null || parallel=(-n 4 --dist loadfile)
  limited "$part" "$python" -m pytest -m cuda --durations=5 "${parallel[@]}" "$@"
}

gpu_build() { SIFA_WITH_CUDA=1 compile; }
gpu_golden() { pytest_within golden tests/op/test_golden.py; }
gpu_op() { measure op bench_op --device cuda --alone; }
gpu_network() { measure network bench_network --only op; }
gpu_limits() { measure limits device_limits; }
gpu_profile() { measure profile profile_op; }
gpu_contestants() { measure contestants bench_op --device cuda; }

gpu_test() {
  local modules
  mapfile -t modules < <(runnable_tests)
  pytest_within test -k "not compile" "${modules[@]}"
}

gpu_compile() {
  local modules
  mapfile -t modules < <(runnable_tests)
  pytest_within compile -k compile "${modules[@]}"
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

# The release's cases under CUDA's checkers, which find accesses out of bounds, and races in shared memory. They check
# the op's kernels alone: PyTorch's own take long, and some of them are reported. In some containers they do not run.
gpu_sanitize() {
  local check=(compute-sanitizer --error-exitcode 1 --kernel-name kernel_substring=sifa --tool) tool status=0
  if ! command -v compute-sanitizer >/dev/null; then
    echo "skipped: compute-sanitizer is not installed"
    return
  fi
  if ! "${check[@]}" memcheck "$python" -c 'import torch; torch.zeros(1, device="cuda")' >/dev/null 2>&1; then
    echo "skipped: compute-sanitizer does not run on this machine"
    return
  fi
  for tool in memcheck racecheck; do
    echo "compute-sanitizer, $tool"
    # Without PyTorch's memory pool, an access beyond a tensor's end is an access beyond an allocation's end.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 limited sanitize "${check[@]}" "$tool" "$python" -m pytest -m cuda \
      tests/op/test_golden.py || status=1
  done
  return "$status"
}
