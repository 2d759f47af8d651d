"""What takes longer on three real nats-servers; `make test-cluster` runs it, `make test` does not."""

import asyncio
import contextlib
import json
import time
from dataclasses import replace

import pytest

from headrace.core.errors import Unavailable
from headrace.mesh import journal as journal_module
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.jetstream import ApiFailure, api, leaders_record
from headrace.mesh.journal import Journal, Record
from headrace.mesh.leader import LEASE_S, Leadership
from tests.cluster.nats_cluster import NODES, NatsCluster, ids

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

READERS = 15  # each begins at a replica by chance
BACK_S = 40.0  # an election takes 4 to 9 s


def node_of(cluster: NatsCluster, bus: Bus) -> int:
    return int(str(bus.server_info["server_name"]).removeprefix("n"))


async def append_on(journal: Journal, names: list[str], acked: list[str], over: asyncio.Event) -> None:
    """One after the other, each until it is accepted."""
    for name in names:
        while not over.is_set():
            try:
                await journal.append(name, b"x")
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                acked.append(name)
                break


async def test_the_end_of_the_journal_is_the_leaders_not_a_laggards(
    cluster: NatsCluster, bus: Bus, settings: Settings
) -> None:
    """A reader that begins at a replica which lacks the newest records has not seen all before it is told so."""
    journal = await Journal.open(bus, settings)
    behind = (await cluster.leader_of("REQUESTS") + 1) % NODES
    if node_of(cluster, bus) == behind:
        behind = (behind + 1) % NODES
    cluster.pause(behind)
    wanted = 300
    await asyncio.gather(*(journal.append(name, b"x" * 60_000) for name in ids(1_000, wanted)))
    cluster.resume(behind)
    for _ in range(READERS):  # one after the other, while it catches up
        assert await asyncio.wait_for(_read(journal), 30.0) == wanted


async def _read(journal: Journal) -> int:
    seen, caught_up = list[Record](), asyncio.Event()
    follower = journal.follow(seen.extend, caught_up.set)
    await caught_up.wait()
    at_end = len(seen)
    await follower.stop()
    return at_end


async def test_a_streams_leader_dies_while_it_is_written(cluster: NatsCluster, bus: Bus, settings: Settings) -> None:
    """Whatever was acknowledged is there; the others are refused with a typed error, and taken later."""
    journal = await Journal.open(bus, settings)
    seen: list[Record] = []
    follower = journal.follow(seen.extend)
    victim = await cluster.leader_of("REQUESTS")
    acked, over = list[str](), asyncio.Event()
    writers = [
        asyncio.create_task(append_on(journal, ids(100_000 + 10_000 * n, 10_000), acked, over)) for n in range(4)
    ]
    await asyncio.sleep(0.5)
    before = len(acked)
    began_s = time.monotonic()
    await asyncio.to_thread(cluster.nodes[victim].kill)
    while len(acked) < before + 100:
        assert time.monotonic() - began_s < BACK_S, "no record was taken any more"
        await asyncio.sleep(0.05)
    over.set()
    await asyncio.gather(*writers)
    await asyncio.to_thread(cluster.nodes[victim].start)
    for name in acked:
        assert await journal.record(name) is not None
    while not {record.request_id for record in seen}.issuperset(acked):
        assert time.monotonic() - began_s < 2 * BACK_S, "the reader does not go on"
        await asyncio.sleep(0.05)
    assert len({record.seq for record in seen}) == len(seen), "a record was read twice"
    await follower.stop()
    await cluster.until_formed()


async def test_a_journal_on_one_server_is_spread_over_three(bus: Bus, settings: Settings) -> None:
    """HEADRACE_JOURNAL_REPLICAS is raised: nothing is lost, and the records stay where they are read from."""
    for name in ("REQUESTS", "RESULTS"):
        await api(bus, f"STREAM.DELETE.{name}", {})
    single = await Journal.open(bus, replace(settings, journal_replicas=1))
    await single.append("b" * 32, b"old")
    spread = await Journal.open(bus, settings)
    assert (await api(bus, "STREAM.INFO.REQUESTS", {}))["config"]["num_replicas"] == NODES
    assert await spread.record("b" * 32) == b"old"
    assert (await spread.append("b" * 32, b"new")).duplicate


async def test_too_few_servers_are_said_with_what_to_do(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "START_S", 1.0)
    await api(bus, "STREAM.DELETE.REQUESTS", {})
    with pytest.raises(BadSetup, match="HEADRACE_JOURNAL_REPLICAS"):
        await Journal.open(bus, replace(settings, journal_replicas=5))


class Contender:
    def __init__(self, bus: Bus, holder: str) -> None:
        self.lost = asyncio.Event()
        self.bus = bus
        self.leadership = Leadership(bus, holder, holder, self.lost.set, NODES)


async def test_a_leader_whose_server_is_cut_off_goes_on_elsewhere_or_is_replaced(
    cluster: NatsCluster, settings: Settings
) -> None:
    """The server stays with its clients, but sees no other: it says so, and its clients leave it. Whether the leader is
    back before the others have elected a leader of the stream is chance; there is one that leads either way."""
    first = Contender(await Bus.open(settings, "qm-0"), "qm-0")
    epoch = await first.leadership.acquire()
    alone = node_of(cluster, first.bus)
    elsewhere = ",".join(node.url for index, node in enumerate(cluster.nodes) if index != alone)
    second = Contender(await Bus.connect(elsewhere, "qm-1"), "qm-1")
    waiting = asyncio.create_task(second.leadership.acquire())
    await asyncio.sleep(LEASE_S + 0.5)
    assert not waiting.done()
    cluster.isolate(alone)
    async with asyncio.timeout(BACK_S):
        while True:
            if first.bus.up and node_of(cluster, first.bus) != alone:
                break
            await asyncio.sleep(0.1)
        if await writer_of_the_next(first.bus) == "qm-1":
            assert await waiting > epoch
            await first.lost.wait()
    assert first.lost.is_set() == waiting.done(), "one leads, and knows it"
    journal = await Journal.open(first.bus, settings)
    await journal.append("a" * 32, b"x")
    assert not second.lost.is_set()
    cluster.heal()
    if not waiting.done():
        await first.leadership.release()
        assert await asyncio.wait_for(waiting, BACK_S) > epoch
    await second.leadership.release()
    for contender in (first, second):
        await contender.bus.close()
    await cluster.until_formed()


async def writer_of_the_next(bus: Bus) -> str:
    """Who writes the next record of leadership, as soon as one can be read and written."""
    seen = 0
    while True:
        with contextlib.suppress(Unavailable, ApiFailure):
            found = await leaders_record(bus, subjects.STREAM_LEADER, subjects.LEADER)
            if found is not None and 0 < seen < found.seq:
                return str(json.loads(found.data)["holder"])
            seen = seen or (found.seq if found is not None else 0)
        await asyncio.sleep(0.1)
