"""To which stage each instant before the first token belongs."""

import pytest

from headrace.characterize.spans import STAGES, attribute
from headrace.client.types import Stage


def stages(*spans: tuple[str, float, float]) -> list[Stage]:
    """From second 100 on, as a gateway's interval would begin there."""
    return [Stage(name, 100 + start_s, 100 + end_s, "worker-0") for name, start_s, end_s in spans]


CASES = [
    ("nothing is told", [], {"mesh": 2.0}),
    (
        "one after the other, and the mesh's own in between",
        [("gateway", 0, 9), ("queue", 0.1, 0.3), ("prefill", 0.3, 1.9), ("decode", 1.9, 9)],
        {"mesh": 0.2, "queue": 0.2, "prefill": 1.6},
    ),
    (
        "two parts side by side: encoding is counted once, waiting only where nobody works",
        [("gateway", 0, 9), ("media", 0, 1), ("preprocess", 0.1, 0.2), ("encode", 0.2, 0.6), ("encode", 0.4, 0.9),
         ("transfer", 1.0, 1.1), ("prefill", 1.1, 2.0)],
        {"media": 0.2, "preprocess": 0.1, "encode": 0.7, "transfer": 0.1, "prefill": 0.9},
    ),
    (
        "the KV cache's way to decode keeps nobody from the first token",
        [("gateway", 0, 9), ("prefill", 0, 1.5), ("transfer", 1.5, 3.0), ("decode", 3.0, 9)],
        {"prefill": 1.5, "mesh": 0.5},
    ),
    ("a late end of prefill is cut at the first token", [("gateway", 0, 9), ("prefill", 1, 3)],
     {"mesh": 1, "prefill": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("why", "spans", "wanted"), CASES, ids=[case[0] for case in CASES])
def test_every_instant_belongs_to_one_stage(
    why: str, spans: list[tuple[str, float, float]], wanted: dict[str, float]
) -> None:
    found = attribute(stages(*spans), 2.0)
    assert found == pytest.approx(dict.fromkeys(STAGES, 0.0) | wanted), why
    assert sum(found.values()) == pytest.approx(2.0)
