#!/usr/bin/env bash
# Lint, render each set of values, validate what comes out, and hold it to the product. There is no cluster in this.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=$1 python=$2
helm=$venv/bin/helm chart=deploy/helm/headrace
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$venv/bin/python" deploy/helm/readme.py --check || { echo "README.md: run $venv/bin/python deploy/helm/readme.py" >&2; exit 1; }
for values in deploy/helm/sets/*.yaml; do
  name=$(basename "$values" .yaml)
  "$helm" lint --quiet --strict "$chart" --values "$values" 2> "$out/said" || { cat "$out/said" >&2; exit 1; }
  "$helm" template headrace "$chart" --namespace trial --values "$values" > "$out/$name.yaml" 2> "$out/said" || { cat "$out/said" >&2; exit 1; }
  # Kinds of the Prometheus operator are not Kubernetes' own: it has no schema for them.
  "$venv/bin/python" - "$out/$name.yaml" << 'PY'
import sys
import yaml
from pathlib import Path
path = Path(sys.argv[1])
found = [each for each in yaml.safe_load_all(path.read_text()) if each]
path.write_text(yaml.safe_dump_all([each for each in found if "monitoring.coreos.com" not in each["apiVersion"]]))
PY
  "$venv/bin/kubernetes-validate" --strict --quiet "$out/$name.yaml"
  echo "chart: $name: $(grep -c '^kind:' "$out/$name.yaml") objects"
done
HEADRACE_HELM=$helm "$python" -m pytest -q -p no:cacheprovider tests/deploy/test_chart.py
echo "chart: rendered and validated; it has not run in a cluster"
