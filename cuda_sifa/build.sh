# How `bash make.sh` builds the op in place, with a CUDA compiler from PyPI if a GPU machine has none.
# make.sh reads this file; it defines say and fail, and sets python.
# shellcheck shell=bash disable=SC2154

# Succeeds if an NVIDIA driver is loaded (/dev/dxg: by Windows, around WSL), so that there may be a GPU.
has_driver() { [[ -e /dev/nvidiactl || -e /proc/driver/nvidia || -e /dev/dxg ]]; }

# Where there is a GPU but no CUDA compiler: installs PyPI's, in the version that PyTorch names. It is a Python package.
install_nvcc() {
  has_driver || return 0
  local package
  package=$("$python" cuda_sifa/toolkit.py) || fail "the search for a CUDA compiler failed, see above"
  [[ -n $package ]] || return 0
  say "installing CUDA's compiler ($package)"
  "$python" -m pip install "$package" | grep -v '^Requirement already satisfied' ||
    say "pip could not install it: the op is built for the CPU alone"
}

# Builds cuda_sifa/_C.so. Without a C++ compiler plain PyTorch serves, and setup.py says so in one line.
compile() {
  say "building the op"
  local log
  log=$(mktemp)
  if ! (PATH=$(dirname "$python"):$PATH "$python" cuda_sifa/setup.py build_ext --inplace) >"$log" 2>&1; then
    cat "$log" >&2
    fail "the op does not build, see above; SIFA_WITH_CUDA=0 builds it for the CPU alone"
  fi
  grep '^cuda_sifa' "$log" || true  # what was built, or why not
  grep -q '^ninja: no work to do' "$log" || "$python" -c 'import cuda_sifa'  # a new library: does it load?
  rm -f "$log"
}
