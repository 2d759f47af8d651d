#!/usr/bin/env bash
# Makes the virtual environment with a Python that Headrace runs on, or says what is missing.
set -euo pipefail
venv=$1

usable() { # a launcher may be on PATH and still not run, so each candidate is tried
  "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null
}
embedded() { "$1" -c 'import sys; sys.exit(sys.version_info >= (3, 13))' 2>/dev/null; }

newer=""
for python in ${PYTHON:-} python3.11 python3.12 python3 python; do
  usable "$python" || continue
  if embedded "$python"; then
    echo "making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
    exit 0
  fi
  newer=$python
done

if [[ -z $newer ]]; then
  echo "Headrace needs Python 3.11 or 3.12 with its venv module (Debian, Ubuntu: apt install python3-venv)." >&2
  echo "Where it has another name: make PYTHON=/path/to/python" >&2
  exit 1
fi
if ! command -v redis-server >/dev/null; then
  echo "$("$newer" --version) was found. The packaged redis-server exists for Python 3.11 and 3.12 only:" >&2
  echo "install one of these, or a redis-server on PATH (Debian, Ubuntu: apt install redis-server)." >&2
  exit 1
fi
echo "making $venv with $("$newer" --version) and the redis-server on PATH"
"$newer" -m venv "$venv"
