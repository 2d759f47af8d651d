"""The bus on a real NATS: messages, answers, time-outs, restarts, a server that hangs."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping

import pytest

from headrace.mesh import bus as bus_module
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BadSetup, BusDown, NoResponder, Uncertain
from headrace.mesh.servers import NatsServer, free_port


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    one = await Bus.connect(nats_url, "test")
    yield one
    await one.close()


async def until(condition: object, wait_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + wait_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline_s, "did not happen in time"
        await asyncio.sleep(0.01)


async def test_messages_arrive_in_order_with_their_headers(bus: Bus) -> None:
    got: list[tuple[bytes, Mapping[str, str]]] = []
    await bus.subscribe("t.order", lambda data, headers: got.append((data, headers)))
    for i in range(500):
        await bus.publish("t.order", b"%d" % i, {"traceparent": f"00-{i}"} if i % 2 else None)
    await bus.flush()
    assert [data for data, _ in got] == [b"%d" % i for i in range(500)]
    assert got[7][1] == {"traceparent": "00-7"}
    assert got[8][1] == {}


async def test_a_megabyte_arrives_whole(bus: Bus) -> None:
    got: list[bytes] = []
    await bus.subscribe("t.big", lambda data, _headers: got.append(data))
    payload = os.urandom(1_000_000)
    await bus.publish("t.big", payload)
    await until(lambda: got)
    assert got == [payload]


async def test_unsubscribed_hears_nothing_more(bus: Bus) -> None:
    got: list[bytes] = []
    subscription = await bus.subscribe("t.un", lambda data, _headers: got.append(data))
    await bus.publish("t.un", b"1")
    await bus.flush()
    await subscription.unsubscribe()
    await bus.publish("t.un", b"2")
    await bus.flush()
    assert got == [b"1"]


async def test_request_and_answer(bus: Bus) -> None:
    async def answer(data: bytes) -> bytes:
        return data.upper()

    await bus.respond("t.ask", answer)
    replies = await asyncio.gather(*[bus.request("t.ask", b"q%d" % i, 5.0) for i in range(100)])
    assert replies == [b"Q%d" % i for i in range(100)]


async def test_nobody_there_is_told_at_once(bus: Bus) -> None:
    start_s = time.monotonic()
    with pytest.raises(NoResponder):
        await bus.request("t.nobody", b"", 5.0)
    assert time.monotonic() - start_s < 1.0


async def test_silence_ends_at_the_time_out(bus: Bus) -> None:
    await bus.subscribe("t.silent", lambda _data, _headers: None)
    start_s = time.monotonic()
    with pytest.raises(Uncertain):
        await bus.request("t.silent", b"", 0.3)
    assert 0.3 <= time.monotonic() - start_s < 1.0
    assert not bus._waiting


async def test_a_handler_that_raises_does_not_end_the_connection(bus: Bus) -> None:
    got: list[bytes] = []

    def handler(data: bytes, _headers: Mapping[str, str]) -> None:
        if data == b"bad":
            raise KeyError("bug")
        got.append(data)

    await bus.subscribe("t.raise", handler)
    for data in (b"bad", b"good"):
        await bus.publish("t.raise", data)
    await bus.flush()
    assert got == [b"good"]


async def test_restart_restores_subscriptions_and_tells(nats_server: NatsServer) -> None:
    states: list[bool] = []
    got: list[bytes] = []
    bus = await Bus.connect(nats_server.url, "test", states.append)
    await bus.subscribe("t.a", lambda data, _headers: got.append(data))
    nats_server.kill()
    await until(lambda: not bus.up)
    with pytest.raises(BusDown):
        await bus.publish("t.a", b"lost")
    await asyncio.sleep(0.5)
    nats_server.start()
    await until(lambda: bus.up)
    await bus.publish("t.a", b"after")
    await until(lambda: got)
    assert (states, got) == ([True, False, True], [b"after"])
    await bus.close()


async def test_a_lost_connection_fails_what_waits(nats_server: NatsServer) -> None:
    bus = await Bus.connect(nats_server.url, "test")
    await bus.subscribe("t.silent", lambda _data, _headers: None)
    asking = asyncio.ensure_future(bus.request("t.silent", b"", 60.0))
    await bus.flush()
    nats_server.kill()
    with pytest.raises(Uncertain, match="lost"):
        await asyncio.wait_for(asking, 5.0)
    await bus.close()


async def test_a_hanging_server_is_noticed(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "PING_S", 0.2)
    bus = await Bus.connect(nats_server.url, "test")
    os.kill(nats_server.pid, signal.SIGSTOP)
    await until(lambda: not bus.up, 5.0)
    os.kill(nats_server.pid, signal.SIGCONT)
    await until(lambda: bus.up, 10.0)
    await bus.close()


async def test_no_server_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "CONNECT_WAIT_S", 0.5)
    with pytest.raises(BadSetup, match="HEADRACE_NATS_URL"):
        await Bus.connect(f"nats://127.0.0.1:{free_port()}", "test")
