"""Batches and two gateways: one goes on where the other stopped, and one that was taken for dead does no harm."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.mesh import servers, subjects
from headrace.mesh.jetstream import api
from services.gateway import batch_crew, batch_run
from tests.gateway.batching import begin, content, ended, jsonl, line, office
from tests.gateway.conftest import Edges, until
from tests.gateway.standin import Script, StandIn

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of these tests alone: records stay, and a gateway takes every batch that it sees."""
    server = servers.nats_server(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server.url
    server.stop()


async def test_a_second_gateway_goes_on_where_the_first_stopped(edges: Edges, cell: StandIn, tmp_path: Path) -> None:
    """In an orderly way: its lease is given back, its lines run on and are attached to, none runs twice."""
    cell.script = lambda _: Script(tuple(b"abc"), wait_s=0.2)
    other = await edges.start("gw-b")
    async with office(await edges.start("gw-a"), tmp_path, batch_inflight=3) as first:
        batch = await begin(first.http, jsonl([line(number) for number in range(9)]))
        await until(lambda: len(cell.requests) >= 4)
    async with office(other, tmp_path) as second:
        batch = await ended(second.http, batch["id"])
        assert batch["request_counts"] == {"total": 9, "completed": 9, "failed": 0}
        assert sorted(one["custom_id"] for one in await content(second.http, batch["output_file_id"])) == [
            f"line-{n}" for n in range(9)
        ]
    assert len(cell.requests) == 9


async def test_a_gateway_that_was_taken_for_dead_does_no_harm(
    edges: Edges, cell: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_crew, "LEASE_S", -1.0)  # anybody's at once: both work, by turns and together
    cell.script = lambda _: Script(tuple(b"abc"), wait_s=0.1)
    one, two = await edges.start("gw-a"), await edges.start("gw-b")
    async with office(one, tmp_path, batch_inflight=2) as first, office(two, tmp_path, batch_inflight=2):
        batch = await begin(first.http, jsonl([line(number) for number in range(12)]))
        await until(lambda: len(cell.requests) >= 6, 20.0)
        monkeypatch.setattr(batch_crew, "LEASE_S", 2.0)
        batch = await ended(first.http, batch["id"], 30.0)
        assert batch["request_counts"] == {"total": 12, "completed": 12, "failed": 0}
        assert sorted(one["custom_id"] for one in await content(first.http, batch["output_file_id"])) == sorted(
            f"line-{n}" for n in range(12)
        )
    assert len(cell.requests) == 12, "the same key is the same request"


@pytest.mark.parametrize("stream", [subjects.STREAM_LINES, subjects.STREAM_BATCHES])
async def test_what_a_stream_has_lost_is_done_or_written_again(
    edges: Edges, cell: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    """In the middle of a batch. A line's request is known to the results: it is not run again."""
    monkeypatch.setattr(batch_run, "RENEW_S", 0.2)
    monkeypatch.setattr(batch_crew, "FAILED_S", 0.2)
    cell.script = lambda _: Script(tuple(b"abc"), wait_s=0.1)
    edge = await edges.start("gw-a")
    async with office(edge, tmp_path, batch_inflight=2) as desk:
        batch = await begin(desk.http, jsonl([line(number) for number in range(6)]))
        await until(lambda: len(cell.requests) >= 4)
        await api(edge.front.gateway.bus, f"STREAM.PURGE.{stream}", {})
        batch = await ended(desk.http, batch["id"])
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
        found = await content(desk.http, batch["output_file_id"])
    assert sorted(one["custom_id"] for one in found) == [f"line-{n}" for n in range(6)]
    assert len(cell.requests) == 6
