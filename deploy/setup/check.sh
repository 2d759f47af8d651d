#!/usr/bin/env bash
# Every check a machine can make; runs all of them and fails at the end if one failed.
set -uo pipefail
failed=()
check() {
  local name=$1
  shift
  echo "== $name"
  "$@" || failed+=("$name")
}

typescript=clients/typescript

stubs() { # the committed stubs are what the protos give
  local out same=0
  out=$(mktemp -d)
  mkdir "$out/ts"
  bash deploy/setup/stubs.sh "$out" "$out/ts" &&
    diff -r -x __init__.py -x __pycache__ "$out/headrace/v1" libs/headrace/v1 &&
    diff -r -x __init__.py -x __pycache__ "$out/headrace/oip" libs/headrace/oip || same=1
  [[ ! -d $out/ts/headrace ]] || diff -r "$out/ts" $typescript/src/gen || same=1
  rm -rf "$out"
  return $same
}

# Without its cache: what counts as ours depends on which files exist, and the cache does not know.
check "ruff check" ruff check --no-cache .
check "ruff format" ruff format --check .
check "mypy" mypy
check "import contracts" lint-imports
check "buf lint" buf lint protos
check "stubs" stubs
if [[ -d $typescript/node_modules ]]; then
  check "typescript" npm --prefix $typescript run --silent check
else
  echo "== typescript: skipped, there is no npm here"
fi
check "tidy" python -m pytest -q tests/test_tidy.py

if ((${#failed[@]})); then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "all checks passed"
