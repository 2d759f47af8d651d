"""The journal on a real JetStream: appends, duplicates, replay, restarts, a full stream, a lost storage directory."""

import asyncio
import json
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.mesh import servers
from headrace.mesh.bus import Bus, Reply
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup, BusDown, JournalFull
from headrace.mesh.jetstream import check_server, is_deleted
from headrace.mesh.journal import Appended, Follower, Journal, Record, _head
from headrace.mesh.servers import NatsServer

SMALL = Settings(journal_bytes=1 << 27, results_bytes=1 << 27)


async def until(condition: Callable[[], object], wait_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline_s, "did not happen in time"
        await asyncio.sleep(0.01)


def new_id() -> str:
    return uuid.uuid4().hex


class Pair:
    """A bus and a journal on one server."""

    def __init__(self, bus: Bus, journal: Journal) -> None:
        self.bus, self.journal = bus, journal

    @staticmethod
    async def open(server: NatsServer, settings: Settings = SMALL) -> "Pair":
        bus = await Bus.connect(server.url, "test")
        return Pair(bus, await Journal.open(bus, settings))


@pytest.fixture
async def pair(nats_server: NatsServer) -> AsyncIterator[Pair]:
    one = await Pair.open(nats_server)
    yield one
    await one.bus.close()


class Reader:
    """What a follower handed over."""

    def __init__(self, journal: Journal) -> None:
        self.records: list[Record] = []
        self.caught_up = 0
        self.follower = journal.follow(self.records.extend, self._on_caught_up)

    def _on_caught_up(self) -> None:
        self.caught_up += 1


async def test_append_read_delete(pair: Pair) -> None:
    journal, request_id = pair.journal, new_id()
    appended = await journal.append(request_id, b"record", "00-ab-cd-01")
    assert not appended.duplicate
    assert await journal.record(request_id) == b"record"
    assert await journal.live_records() == 1
    await journal.delete([appended.seq, appended.seq + 1000])
    assert await journal.record(request_id) is None
    assert await journal.live_records() == 0


async def test_the_same_id_again_is_a_duplicate_of_the_same_record(pair: Pair) -> None:
    request_id = new_id()
    first = await pair.journal.append(request_id, b"a")
    second = await pair.journal.append(request_id, b"b")
    assert (second.seq, second.duplicate) == (first.seq, True)
    assert await pair.journal.record(request_id) == b"a"


async def test_an_id_is_a_duplicate_after_the_dedupe_window_too(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its message id the server cannot dedupe: as after two minutes."""
    request_id = new_id()
    first = await pair.journal.append(request_id, b"a")
    later = _head("0" * 32, "")
    monkeypatch.setattr("headrace.mesh.journal._head", lambda *_: later)
    second = await pair.journal.append(request_id, b"b")
    assert (second.seq, second.duplicate) == (first.seq, True)
    await pair.journal.delete([first.seq])
    assert not (await pair.journal.append(request_id, b"c")).duplicate


async def test_the_first_result_counts(pair: Pair) -> None:
    request_id = new_id()
    assert await pair.journal.result(request_id) is None
    assert await pair.journal.store_result(request_id, b"end")
    assert not await pair.journal.store_result(request_id, b"other end")
    assert await pair.journal.result(request_id) == b"end"


async def test_follow_reads_old_and_new_in_order(pair: Pair) -> None:
    for i in range(50):
        await pair.journal.append(f"{i:032x}", b"%d" % i, f"00-{i}")
    reader = Reader(pair.journal)
    await until(lambda: reader.caught_up)
    assert [record.data for record in reader.records] == [b"%d" % i for i in range(50)]
    assert reader.records[7].request_id == f"{7:032x}"
    assert reader.records[7].traceparent == "00-7"
    await pair.journal.append(f"{50:032x}", b"50")
    await until(lambda: len(reader.records) == 51)
    assert reader.caught_up == 1
    await reader.follower.stop()


async def test_an_empty_journal_is_caught_up_at_once(pair: Pair) -> None:
    reader = Reader(pair.journal)
    await until(lambda: reader.caught_up, 2.0)
    assert reader.records == []
    await reader.follower.stop()


class Laggard:
    """A bus whose new consumers sit at a replica that has nothing yet, as a paused one was seen to say when it went on.
    The rest is the bus's."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def call(self, subject: str, data: bytes, **more: Any) -> asyncio.Future[Reply]:
        answer = self._bus.call(subject, data, **more)
        return asyncio.ensure_future(self._behind(answer)) if "CONSUMER.CREATE" in subject else answer

    async def _behind(self, answer: asyncio.Future[Reply]) -> Reply:
        said = json.loads((await answer).data)
        return Reply(b"", json.dumps(said | {"num_pending": 0}).encode())


async def test_the_end_is_the_leaders_not_that_of_a_replica_behind(pair: Pair) -> None:
    for number in range(100):
        await pair.journal.append(new_id(), b"%d" % number)
    bus: Any = Laggard(pair.bus)
    seen, at_end = list[Record](), list[int]()
    follower = Follower(bus, "REQUESTS", pair.journal.ensure, seen.extend, lambda: at_end.append(len(seen)))
    await until(lambda: at_end)
    assert at_end == [100]
    await follower.stop()


async def test_deleted_records_are_not_replayed(pair: Pair) -> None:
    seqs = [(await pair.journal.append(new_id(), b"%d" % i)).seq for i in range(10)]
    await pair.journal.delete(seqs[::2])
    reader = Reader(pair.journal)
    await until(lambda: reader.caught_up)
    assert [record.data for record in reader.records] == [b"1", b"3", b"5", b"7", b"9"]
    await reader.follower.stop()


@pytest.mark.parametrize("kill", [False, True])
async def test_a_restart_loses_no_record_and_repeats_none(pair: Pair, nats_server: NatsServer, kill: bool) -> None:
    reader = Reader(pair.journal)
    accepted: list[str] = []
    stop = asyncio.Event()

    async def append_all_the_time() -> None:
        while not stop.is_set():
            request_id = new_id()
            try:
                await pair.journal.append(request_id, b"x")
                accepted.append(request_id)
            except BusDown:
                await asyncio.sleep(0.02)

    writers = [asyncio.create_task(append_all_the_time()) for _ in range(4)]
    for _ in range(2):
        await asyncio.sleep(0.4)
        await asyncio.to_thread(nats_server.restart, kill=kill)
        before = len(accepted)
        await until(lambda before=before: len(accepted) > before + 50)  # type: ignore[misc]
    stop.set()
    await asyncio.gather(*writers)
    await until(lambda: set(accepted) <= {record.request_id for record in reader.records})
    seqs = [record.seq for record in reader.records]
    assert seqs == sorted(set(seqs))
    await reader.follower.stop()


async def test_a_lost_storage_is_made_again(pair: Pair, nats_server: NatsServer, tmp_path: Path) -> None:
    reader = Reader(pair.journal)
    first = await pair.journal.append(new_id(), b"before")
    await until(lambda: reader.records)
    nats_server.stop()
    shutil.rmtree(tmp_path / "nats" / "jetstream")
    nats_server.start()
    await until(lambda: pair.bus.up)
    second = await pair.journal.append(new_id(), b"after")
    assert second.seq > first.seq, "a sequence number must never come back"
    await until(lambda: len(reader.records) == 2)
    assert await pair.journal.store_result(new_id(), b"end")
    await reader.follower.stop()


async def test_a_deleted_stream_is_made_again(pair: Pair) -> None:
    reader = Reader(pair.journal)
    await until(lambda: reader.caught_up)
    await pair.bus.request("$JS.API.STREAM.DELETE.REQUESTS", b"", 5.0)
    await pair.journal.append(new_id(), b"x")
    await until(lambda: len(reader.records) == 1)
    await reader.follower.stop()


@pytest.mark.parametrize("after", [0, 2], ids=["the heartbeat tells", "the next record tells"])
async def test_a_lost_delivery_is_read_again_once(pair: Pair, after: int) -> None:
    reader = Reader(pair.journal)
    await pair.journal.append(new_id(), b"0")
    await until(lambda: len(reader.records) == 1)
    handlers = pair.bus._reader.handlers
    newest = max(handlers, key=int)
    real = handlers[newest]

    def lose_one(*_message: bytes) -> None:
        handlers[newest] = real

    handlers[newest] = lose_one
    for i in range(1, 2 + after):
        await pair.journal.append(new_id(), b"%d" % i)
    await until(lambda: len(reader.records) == 2 + after, 6.0)
    await asyncio.sleep(0.2)
    assert [record.data for record in reader.records] == [b"%d" % i for i in range(2 + after)]
    await reader.follower.stop()


async def test_a_follower_whose_bus_closes_can_be_cancelled(nats_server: NatsServer) -> None:
    """A process that fails cancels its tasks right after the bus went: none may swallow that."""
    pair = await Pair.open(nats_server)
    reader = Reader(pair.journal)
    await until(lambda: reader.caught_up)
    await pair.bus.close()
    async with asyncio.timeout(5.0):
        await reader.follower.stop()


async def test_a_full_journal_says_so_and_takes_again_after_deletes(nats_server: NatsServer) -> None:
    pair = await Pair.open(nats_server, Settings(journal_bytes=1 << 20, results_bytes=1 << 20))
    answers = await asyncio.gather(
        *[pair.journal.append(new_id(), b"x" * 10_000) for _ in range(200)], return_exceptions=True
    )
    seqs = [answer.seq for answer in answers if isinstance(answer, Appended)]
    refused = [answer for answer in answers if isinstance(answer, JournalFull)]
    assert 90 < len(seqs) < 110
    assert len(seqs) + len(refused) == 200
    await pair.journal.delete(seqs[:50])
    await pair.journal.append(new_id(), b"x" * 10_000)
    for _ in range(200):  # RESULTS makes room instead
        await pair.journal.store_result(new_id(), b"x" * 10_000)
    await pair.bus.close()


async def test_limits_are_brought_up_to_date_on_open(nats_server: NatsServer) -> None:
    first = await Pair.open(nats_server, Settings(journal_bytes=1 << 20))
    await first.journal.append(new_id(), b"x")
    second = await Pair.open(nats_server, Settings(journal_bytes=1 << 22))
    answer = await second.bus.request("$JS.API.STREAM.INFO.REQUESTS", b"", 5.0)
    assert b'"max_bytes":4194304' in answer
    assert await second.journal.live_records() == 1
    await first.bus.close()
    await second.bus.close()


async def test_ten_thousand_records_replay_in_seconds(pair: Pair) -> None:
    waves = [[pair.journal.append(f"{wave * 500 + i:032x}", b"x" * 1500) for i in range(500)] for wave in range(20)]
    for wave in waves:
        await asyncio.gather(*wave)
    start_s = time.monotonic()
    reader = Reader(pair.journal)
    await until(lambda: reader.caught_up)
    took_s = time.monotonic() - start_s
    assert len(reader.records) == 10_000
    assert took_s < 3.0
    await reader.follower.stop()


async def test_no_jetstream_is_found_at_start(tmp_path: Path) -> None:
    server = servers.nats_server(tmp_path / "bare", jetstream=False)
    server.start()
    bus = await Bus.connect(server.url, "test")
    with pytest.raises(BadSetup, match="no JetStream"):
        await Journal.open(bus, SMALL)
    await bus.close()
    server.stop()


@pytest.mark.parametrize(
    ("answer", "gone"),
    [
        (b'{"type":"x","success":true}', True),
        (b'{"error":{"code":500,"err_code":10057,"description":"no message found"}}', True),
        (b'{"error":{"code":503,"err_code":10008,"description":"temporarily unavailable"}}', False),
        (b'{"error":{"code":500,"err_code":10009,"description":"not leader"}}', False),
    ],
    ids=["deleted", "was gone before", "no leader elected yet", "another one leads now"],
)
def test_a_record_is_gone_when_the_stream_says_so(answer: bytes, gone: bool) -> None:
    assert is_deleted(answer) == gone


def test_an_old_server_is_refused_with_what_to_do() -> None:
    with pytest.raises(BadSetup, match=r"2\.10\.4 is too old.*pip install"):
        check_server({"version": "2.10.4", "jetstream": True})
    check_server({"version": "2.11.0", "jetstream": True})
    check_server({"version": "3.0.0-beta.1", "jetstream": True})
