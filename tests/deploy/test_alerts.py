"""Alert rules as they stand in their files: each is explained, has its runbook, and is tried both ways by promtool."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus"
FILES = ("alerts.yml", "slo.yml")
CASES = sorted(RULES.glob("*_test.yml"))
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool command")


def alerts() -> list[dict[str, Any]]:
    groups = [group for name in FILES for group in yaml.safe_load((RULES / name).read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def anchors(page: Path) -> set[str]:
    """As Markdown renderers make them of headings of one word."""
    return {line.lstrip("# ").lower() for line in page.read_text().splitlines() if line.startswith("#")}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_it_is_and_where_to_look(alert: dict[str, Any]) -> None:
    said = alert["annotations"]
    assert set(said) == {"summary", "description", "runbook"}
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    page, _, anchor = said["runbook"].partition("#")
    assert anchor == alert["alert"].lower()
    assert anchor in anchors(ROOT / page)


def test_there_is_no_runbook_for_nothing() -> None:
    told = set(re.findall(r"^### (Headrace\w+)", (ROOT / "docs/operations.md").read_text(), re.MULTILINE))
    assert told == {alert["alert"] for alert in alerts()}


def test_every_alert_is_tried_before_and_while_it_fires() -> None:
    tried: dict[str, list[float]] = {}
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for step in case["promql_expr_test"]:
                assert case["name"] in step["expr"]
                tried.setdefault(case["name"], []).append(step["exp_samples"][0]["value"])
    assert set(tried) == {alert["alert"] for alert in alerts()}
    assert {name: values for name, values in tried.items() if values != [0, 1]} == {}


@needs_promtool
@pytest.mark.timeout(100)
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_promtool_sees_them_fire(path: Path) -> None:
    promtool("test", "rules", str(path))


@needs_promtool
def test_promtool_accepts_configuration_and_rules() -> None:
    """The configuration names the rule files."""
    promtool("check", "config", str(RULES / "prometheus.yml"))


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
