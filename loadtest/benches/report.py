"""What every bench's JSON carries besides its figures: machine, date, commit, seeds, command.

Progress and tables go to standard error, so that the last line of standard output is the one JSON object.
"""

import json
import sys
from typing import Any

from headrace.report.provenance import provenance


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def finish(name: str, argv: list[str], seeds: list[int], figures: dict[str, Any]) -> None:
    """Print the one JSON object."""
    head = provenance(["headrace", "bench", name, *argv], seeds).head()
    print(json.dumps({"bench": name} | head | figures), flush=True)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank); nan for none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
