# `bash make.sh wheel`: wheels of the op in dist/, for every PyTorch from 2.11 on and every Python 3. One is for the CPU,
# one has the CUDA kernels, if nvcc is found. make.sh reads this file; it defines say and fail, and sets python.
# shellcheck shell=bash disable=SC2154

wheel() {
  local with
  mkdir -p dist
  rm -f dist/cuda_sifa-*.whl
  for with in 0 1; do
    if [[ $with == 1 ]] && ! "$python" -c 'import sys; sys.path.insert(0, "cuda_sifa"); import toolkit
sys.exit(toolkit.find_toolkit() is None)'; then
      say "no CUDA compiler is found: there is no wheel with CUDA kernels"
      break
    fi
    say "building a wheel, SIFA_WITH_CUDA=$with"
    SIFA_WITH_CUDA=$with "$python" -m pip wheel -q --no-deps --wheel-dir dist ./cuda_sifa ||
      fail "the wheel was not built, see above"
  done
  say "the wheels"
  local file
  for file in dist/cuda_sifa-*.whl; do
    printf '%s: %s\n' "$file" "$("$python" cuda_sifa/glibc.py "$file")"
  done
}
