#!/usr/bin/env bash
# Generates the stubs of protos/: Python's into one folder, those of the TypeScript client into another.
set -euo pipefail
python_out=$1 typescript_out=$2
plugin=clients/typescript/node_modules/.bin/protoc-gen-es

python -m grpc_tools.protoc -I protos --python_out="$python_out" --pyi_out="$python_out" --grpc_python_out="$python_out" \
  protos/headrace/*/*.proto
if [[ ! -x $plugin ]]; then
  echo "the TypeScript stubs are left as they are: there is no npm here" >&2
  exit 0
fi
# What a client speaks, and no more.
python -m grpc_tools.protoc -I protos --plugin=protoc-gen-es=$plugin --es_out="$typescript_out" \
  --es_opt=target=ts,import_extension=js protos/headrace/v1/{common,gateway}.proto
