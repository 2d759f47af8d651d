"""Every PromQL expression of the boards and the alert rules, from the files that Grafana and Prometheus read."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = [DEPLOY / "prometheus" / name for name in ("alerts.yml", "slo.yml")]
# Of processes, not of rules: a recorded series has colons (headrace:slo_burn:rate5m).
METRIC = re.compile(r"(?<![\w:])(?:(?:headrace|process)_\w+|vllm:\w+)")


def board_queries(rate: str = "10s") -> list[tuple[str, str]]:
    """(board and panel, PromQL) as Grafana would send it. rate: its $__rate_interval."""
    found = []
    for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            where = f"{path.stem}: {panel['title']}"
            found += [(where, target["expr"].replace("$__rate_interval", rate)) for target in panel["targets"]]
    return found


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alert_queries() -> list[tuple[str, str]]:
    """(alert or record, PromQL)"""
    return [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
