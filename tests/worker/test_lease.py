"""When a worker may trust that its requests are still its own."""

import pytest

from headrace.worker.lease import Lease

# why, when heartbeats went out, when it is asked, whether the lease holds
TABLE: list[tuple[str, list[float], float, bool]] = [
    ("from the start", [], 0.1, True),
    ("beats on time", [0.5, 1.0, 1.5], 1.9, True),
    ("one beat late", [0.5, 1.9], 2.0, True),
    ("silent for too long", [0.5], 2.1, False),
    ("just woken up: nobody has answered yet", [0.5, 5.0], 5.1, False),
    ("still waiting for releases while it beats", [0.5, 5.0, 5.5], 5.9, False),
    ("a second later", [0.5, 5.0, 5.5, 6.0], 6.1, True),
    ("stopped again", [0.5, 5.0, 5.5, 6.0, 9.0], 9.5, False),
]


@pytest.mark.parametrize(("why", "beats", "asked_s", "holds"), TABLE, ids=[row[0] for row in TABLE])
def test_lease(why: str, beats: list[float], asked_s: float, holds: bool) -> None:
    lease = Lease(0.0)
    for beat_s in beats:
        lease.renew(beat_s)
    assert lease.holds(asked_s) is holds, why
