"""Whom Prometheus scrapes of a mesh on one machine: <data dir>/targets.json, in the form of its file_sd_configs.

Prometheus reads it again when it changes: workers that an autoscaler starts are found by themselves.
"""

import json
from collections.abc import Mapping
from pathlib import Path

NAME = "targets.json"
_JOBS = {"qm": "queue-manager"}  # as in containers (deploy/prometheus/prometheus.yml); others go by their ids' words


def job_of(service: str) -> str:
    word = service.rpartition("-")[0]
    return _JOBS.get(word, word)


def write(data_dir: Path, addresses: Mapping[str, str]) -> None:
    """addresses: host:port of each service's metrics."""
    groups = [{"targets": [address], "labels": {"job": job_of(name)}} for name, address in addresses.items()]
    fresh = data_dir / f"{NAME}.new"
    fresh.write_text(json.dumps(groups, indent=1))
    fresh.replace(data_dir / NAME)


def forget(data_dir: Path) -> None:
    (data_dir / NAME).unlink(missing_ok=True)
