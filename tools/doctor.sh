# `bash make.sh doctor`: what is installed and what is missing. It installs nothing and builds nothing.
# make.sh reads this file; it defines fail.
# shellcheck shell=bash

doctor() {
  local candidate candidates=("${PYTHON:-python3}")  # as set_up in make.sh chooses
  [[ ${SIFA_NO_VENV:-0} == 1 ]] || candidates=("${VIRTUAL_ENV:-.venv}/bin/python" "${candidates[@]}")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c '' 2>/dev/null; then
      exec "$candidate" -m tools.doctor
    fi
  done
  fail "there is no ${PYTHON:-python3}; install Python 3.10 or later"
}
