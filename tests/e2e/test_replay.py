"""An open loop replayed at a live mesh: every request at its time, with the tokens and pictures that were drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.cli.supervisor import Mesh
from headrace.client.aio import AsyncClient
from headrace.client.protocol import RETRIES
from headrace.workload.scenario import Scenario, ScenarioError, parse
from loadtest.replay import replay

WORKLOAD = {
    "kind": "generated",
    "rate_rps": 15,
    "image_share": 0.3,
    "profile": "flat",
    "bursty": False,
    "clip": {"input_tokens": 400, "output_tokens": 12, "parts": 2},
    "sizes": {"median_px": 80},
}


def scenario(**changes: Any) -> Scenario:
    raw = {"about": "x", "duration_s": 2.0, "drain_s": 20, "model": "profile-tiny", "workload": WORKLOAD}
    return parse(raw | changes, Path("small.toml"))


async def test_a_replay_asks_what_the_scenario_draws(mesh: Mesh) -> None:
    wanted = list(scenario().arrivals())
    done = await replay(scenario(), mesh.grpc_addr)
    columns = done.requests
    assert len(columns) == len(wanted) > 15
    assert columns.finished.all(), done.summary()["failures"]
    assert columns.output_tokens.tolist() == [arrival.output_tokens for arrival in wanted]
    assert columns.media_parts.tolist() == [len(arrival.parts) for arrival in wanted]
    assert (columns.media_tokens > 0).tolist() == [bool(arrival.parts) for arrival in wanted]
    # To the token, but for prompts that are shorter than the chat's template.
    assert all(row.input_tokens == row.wanted_tokens for row in done.rows if row.wanted_tokens > 60)
    assert np.all(columns.first_token_s > columns.arrival_s)
    assert np.all(columns.end_s >= columns.first_token_s)
    assert np.all(columns.dispatch_s >= columns.ready_s - 0.05)
    assert int(done.result.tbt.counts.sum()) == int((columns.output_tokens - 1).sum())
    assert done.in_flight_max > 1, "nobody waits for an answer before asking"
    # Locally its requests are sent within a few milliseconds; a busy machine may be late, and says so.
    assert done.late == sum(row.sent_s - row.arrival_s > 0.1 for row in done.rows)


async def test_a_bound_on_what_is_in_flight_makes_requests_late(mesh: Mesh) -> None:
    done = await replay(scenario(duration_s=1.0), mesh.grpc_addr, in_flight_max=1)
    assert done.in_flight_max == 1
    assert done.requests.finished.all()
    assert done.late > 0
    late = [row.first_token_s - row.arrival_s for row in done.rows if row.late_s > 0.1]
    assert min(late) > 0.1, "waiting to be sent is waiting"


async def test_who_is_refused_does_not_come_back(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be late by then, and take the place of one that is not."""
    told = list[int]()

    class Watched(AsyncClient):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            told.append(self._access.max_retries)

    monkeypatch.setattr("loadtest.replay.AsyncClient", Watched)
    await replay(scenario(duration_s=0.5), mesh.grpc_addr)
    assert told == [RETRIES, 0], "what is learnt before may wait"


async def test_what_no_mesh_can_be_asked(mesh: Mesh) -> None:
    gold = {"gold": {"ttft_s": 1, "timeout_s": 9, "queue_limit": 9}}
    with pytest.raises(ScenarioError, match="a mesh has no class 'gold'"):
        await replay(scenario(classes=gold), mesh.grpc_addr)
    sounds = {**WORKLOAD, "image_share": 0.0, "audio_share": 1.0}
    with pytest.raises(ScenarioError, match="it has no audio"):
        await replay(scenario(workload=sounds), mesh.grpc_addr)
