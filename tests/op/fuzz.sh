# `bash make.sh fuzz`: runs fuzz.py on an op built with the address and undefined-behaviour sanitizers. Arguments go to
# fuzz.py. make.sh reads this file; it defines set_up, say and fail, and sets python.
# shellcheck shell=bash disable=SC2154

fuzz() {
  set_up requirements.txt
  say "building the op with sanitizers in output/fuzz"  # not over the op in use
  local lib=$PWD/output/fuzz
  mkdir -p "$lib"
  if ! (PATH=$(dirname "$python"):$PATH SIFA_SANITIZE=1 SIFA_WITH_CUDA=0 "$python" cuda_sifa/setup.py -q build \
    --build-lib "$lib" --build-temp "$lib/temp") >"$lib.log" 2>&1; then
    cat "$lib.log" >&2
    fail "the op does not build, see above"
  fi
  say "calling it with random arguments"
  # Python is not built with the sanitizers: their libraries must be loaded before it. Its leaks are not the op's.
  local asan ubsan
  asan=$(g++ -print-file-name=libasan.so) ubsan=$(g++ -print-file-name=libubsan.so)
  LD_PRELOAD="$asan $ubsan" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=2 \
    PYTHONPATH=$lib "$python" tests/op/fuzz.py "$@"
}
