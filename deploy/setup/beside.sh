#!/usr/bin/env bash
# Makes a virtual environment for one extra beside .venv, whose packages it sees after its own: for tools that bring
# versions of their own of what the mesh pins.
set -euo pipefail
venv=$1 extra=$2 main=.venv/bin/python

"$main" -m venv "$venv"
"$main" deploy/image/requirements.py "$extra" | tail -n +3 | "$venv/bin/python" -m pip install --disable-pip-version-check --quiet -r /dev/stdin
where='import site; print(site.getsitepackages()[0])'
# As a folder of packages, not as a path alone: Headrace itself stands there as a .pth file.
"$main" -c 'import site; print(f"import site; site.addsitedir({site.getsitepackages()[0]!r})")' \
  >"$("$venv/bin/python" -c "$where")/zz_headrace.pth"
