# `bash make.sh demo`: from an empty folder to a trained network, without any download of data.
# make.sh reads this file; it defines set_up and build, and sets python.
# shellcheck shell=bash disable=SC2154

demo() {
  local began=$SECONDS packages
  set_up requirements.txt
  packages=$((SECONDS - began))
  build
  "$python" -m tools.demo --before "environment and packages=$packages" "the op=$((SECONDS - began - packages))" "$@"
}
