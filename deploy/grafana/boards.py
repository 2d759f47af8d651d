"""Makes Grafana's boards from the short tables in deploy/grafana/boards: python deploy/grafana/boards.py

A table lists panels, three to a row, each with PromQL and legends; what Grafana wants beside that is always the same.
Quantiles show exemplars: dots that lead to the trace of one request.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TABLES, BOARDS = HERE / "boards", HERE / "dashboards"
ROW = 3  # panels
WIDTH, HEIGHT = 24 // ROW, 8  # in cells of Grafana's grid, which is 24 wide
SOURCE = {"type": "prometheus", "uid": "prometheus"}
RATE = "[$__rate_interval]"  # Grafana's own: never shorter than four scrapes


def queries(panel: dict[str, Any]) -> list[tuple[str, str]]:
    """(PromQL, legend) of a panel: written out, the quantiles of a histogram, or the means of several."""
    found = [(query, legend) for query, legend in panel.get("queries", [])]
    if histogram := panel.get("quantiles"):
        summed = f"sum by (le) (rate({histogram}_bucket{RATE}))"
        found += [(f"histogram_quantile({q}, {summed})", f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)]
    for legend, histogram in panel.get("means", {}).items():
        total, count = (f"sum(rate({histogram}_{part}{RATE}))" for part in ("sum", "count"))
        found.append((f"{total} / {count}", legend))
    return found


def board(name: str) -> dict[str, Any]:
    table = tomllib.loads((TABLES / f"{name}.toml").read_text())
    return {
        "uid": f"headrace-{name}",
        "title": table["title"],
        "tags": ["headrace"],
        "schemaVersion": 41,
        "version": 1,
        "editable": False,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {"list": []},
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "tags": ["headrace"], "title": "Headrace", "icon": "dashboard"}],
        "panels": [_panel(n, panel) for n, panel in enumerate(table["panel"])],
    }


def _panel(n: int, panel: dict[str, Any]) -> dict[str, Any]:
    stacked = panel.get("stacked", False)
    custom = {
        "drawStyle": "line",
        "showPoints": "never",
        "fillOpacity": 25 if stacked else 8,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    defaults = {"unit": panel["unit"], "min": panel.get("min", 0), "custom": custom}
    return {
        "id": n + 1,
        "type": "timeseries",
        "title": panel["title"],
        "description": panel.get("text", ""),
        "datasource": SOURCE,
        "gridPos": {"x": n % ROW * WIDTH, "y": n // ROW * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [_target(letter, *query) for letter, query in zip("ABCDEFGH", queries(panel), strict=False)],
    }


def _target(letter: str, query: str, legend: str) -> dict[str, Any]:
    made = {"refId": letter, "datasource": SOURCE, "expr": query, "legendFormat": legend}
    return made | {"exemplar": True} if "_bucket" in query else made


def names() -> list[str]:
    return sorted(table.stem for table in TABLES.glob("*.toml"))


def render(name: str) -> str:
    return json.dumps(board(name), indent=1) + "\n"


if __name__ == "__main__":
    BOARDS.mkdir(exist_ok=True)
    for name in names():
        (BOARDS / f"{name}.json").write_text(render(name))
