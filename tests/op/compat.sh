# `bash make.sh compat [VERSION[@PYTHON] ...]`: one library in several versions of PyTorch.
#
# The library that the newest PyTorch built is tested in the others, and that of the oldest in the newest. The newest is
# that of make.sh's own environment. The others are VERSION, with the interpreter PYTHON; the default is 2.11.0 with the
# oldest Python that is found and 2.12 with the newest. Each has an environment of several gigabytes, which stays in
# $SIFA_COMPAT_DIR (output/compat). make.sh reads this file; it defines set_up, say and fail, and sets python.
# shellcheck shell=bash disable=SC2154

compat() {
  local pairs=("$@") pair version folder=${SIFA_COMPAT_DIR:-$PWD/output/compat}
  local newest oldest
  set_up requirements-dev.txt
  newest=$python
  [[ $# -gt 0 ]] || pairs=("2.11.0@$(first_python 3.10 3.11 3.12)" "2.12.*@$(first_python 3.14 3.13 3.12)")
  for pair in "${pairs[@]}"; do
    version=${pair%%@*}
    [[ $pair == *@* ]] || pair+=@${PYTHON:-python3}
    compat_environment "$folder/torch-$version" "$version" "${pair#*@}"
  done
  oldest=$folder/torch-${pairs[0]%%@*}/bin/python
  compat_build "$newest" "$folder/by-newest"
  compat_build "$oldest" "$folder/by-oldest"
  for pair in "${pairs[@]}"; do
    compat_test "$folder/torch-${pair%%@*}/bin/python" "$folder/by-newest"
  done
  compat_test "$newest" "$folder/by-oldest"
}

# The first Python of these versions that runs; python3 if none does.
first_python() {
  local version
  for version in "$@"; do
    if "python$version" -c '' 2>/dev/null; then
      echo "python$version"
      return
    fi
  done
  echo "${PYTHON:-python3}"
}

compat_environment() {
  local environment=$1 version=$2 base=$3
  [[ -f $environment/complete ]] && return
  say "installing torch $version for $("$base" -V) in $environment"
  "$base" -m venv "$environment" || fail "$base -m venv failed"
  "$environment/bin/python" -m pip install -q "torch==$version" torchvision numpy safetensors pytest hypothesis \
    setuptools ninja || fail "pip could not install torch $version"
  touch "$environment/complete"
}

# The library alone, as it is in a wheel, with a copy of its tests: not the folder of this checkout.
compat_build() {
  say "building the op with $(what_is "$1")"
  rm -rf "$2"
  mkdir -p "$2/tests"
  (PATH=$(dirname "$1"):$PATH "$1" cuda_sifa/setup.py -q build --build-lib "$2" --build-temp "$2/temp") >"$2/log" 2>&1 ||
    { cat "$2/log" >&2; fail "the op does not build, see above"; }
  cp -r models docs pyproject.toml "$2"  # tests run the examples of pages
  cp -r tests/__init__.py tests/conftest.py tests/data tests/op "$2/tests"
}

compat_test() {
  say "testing the library of ${2##*/} in $(what_is "$1")"
  (cd "$2" && "$1" -m pytest -p no:cacheprovider tests/op) || fail "the tests failed, see above"
}

what_is() { "$1" -c 'import sys, torch; print(f"torch {torch.__version__}, Python {sys.version.split()[0]}")'; }
