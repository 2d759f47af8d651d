"""Leadership among real processes' stand-ins: one leads, epochs grow, paused and partitioned leaders lose."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from headrace.mesh import leader as leader_module
from headrace.mesh.bus import Bus
from headrace.mesh.leader import LEASE_S, Leadership
from headrace.mesh.servers import NatsServer


async def until(condition: Callable[[], object], wait_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline_s, "did not happen in time"
        await asyncio.sleep(0.01)


class Contender:
    def __init__(self, bus: Bus, holder: str, incarnation: str) -> None:
        self.lost = 0
        self.bus = bus
        self.leadership = Leadership(bus, holder, incarnation, self._on_lost)

    def _on_lost(self) -> None:
        self.lost += 1


@pytest.fixture
async def buses(nats_server: NatsServer) -> AsyncIterator[list[Bus]]:
    made = [await Bus.connect(nats_server.url, f"qm-{i}") for i in range(2)]
    yield made
    for bus in made:
        await bus.close()


async def test_one_of_two_leads_and_the_other_follows_its_release(buses: list[Bus]) -> None:
    contenders = [Contender(bus, f"qm-{i}", f"a{i}") for i, bus in enumerate(buses)]
    tasks = [asyncio.create_task(one.leadership.acquire()) for one in contenders]
    await asyncio.sleep(LEASE_S + 1.5)
    done = [task.done() for task in tasks]
    assert sum(done) == 1, "exactly one leads although both lease times have passed"
    leader, standby = (0, 1) if done[0] else (1, 0)
    start_s = time.monotonic()
    await contenders[leader].leadership.release()
    epoch = await asyncio.wait_for(tasks[standby], 5.0)
    assert time.monotonic() - start_s < 1.0
    assert epoch > tasks[leader].result()
    assert [one.lost for one in contenders] == [0, 0]
    await contenders[standby].leadership.release()


async def test_a_restarted_leader_does_not_wait_for_its_own_lease(buses: list[Bus]) -> None:
    old, new = Contender(buses[0], "qm-0", "a0"), Contender(buses[1], "qm-0", "b0")
    first = await old.leadership.acquire()
    start_s = time.monotonic()
    assert await new.leadership.acquire() > first
    assert time.monotonic() - start_s < 1.0
    await until(lambda: old.lost == 1)
    await new.leadership.release()


async def test_a_paused_leader_loses(nats_server: NatsServer, buses: list[Bus]) -> None:
    program = """
import asyncio, sys, uvloop
from headrace.mesh.bus import Bus
from headrace.mesh.leader import Leadership
async def main():
    bus = await Bus.connect(sys.argv[1], "qm-9")
    gone = asyncio.Event()
    print(await Leadership(bus, "qm-9", "c9", gone.set).acquire(), flush=True)
    await gone.wait()
    print("lost", flush=True)
uvloop.run(main())
"""
    argv = [sys.executable, "-c", program, nats_server.url]
    child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    first = int(await child.stdout.readline())
    os.kill(child.pid, signal.SIGSTOP)
    standby = Contender(buses[0], "qm-0", "a0")
    assert await asyncio.wait_for(standby.leadership.acquire(), 3 * LEASE_S) > first
    os.kill(child.pid, signal.SIGCONT)
    out, _ = await asyncio.wait_for(child.communicate(), 20)
    assert out == b"lost\n"
    assert standby.lost == 0
    await standby.leadership.release()


async def test_an_outage_of_nats_changes_no_leader(
    nats_server: NatsServer, buses: list[Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "RENEW_S", 0.8 * LEASE_S)  # so that the standby looks before it renews
    leader, standby = Contender(buses[0], "qm-0", "a0"), Contender(buses[1], "qm-1", "a1")
    await leader.leadership.acquire()
    waiting = asyncio.create_task(standby.leadership.acquire())
    await asyncio.sleep(0.5)
    await asyncio.to_thread(nats_server.kill)
    await asyncio.sleep(LEASE_S + 0.5)
    await asyncio.to_thread(nats_server.start)
    await until(lambda: all(bus.up for bus in buses))
    await asyncio.sleep(LEASE_S + 0.5)
    assert not waiting.done()
    assert leader.lost == 0
    waiting.cancel()
    await leader.leadership.release()


async def test_the_epoch_grows_over_a_lost_storage(nats_server: NatsServer, buses: list[Bus], tmp_path: Path) -> None:
    leader = Contender(buses[0], "qm-0", "a0")
    first = await leader.leadership.acquire()
    await asyncio.sleep(1.2)  # two renewals
    await asyncio.to_thread(nats_server.stop)
    shutil.rmtree(tmp_path / "nats" / "jetstream")
    await asyncio.to_thread(nats_server.start)
    await until(lambda: leader.lost == 1)
    again = Contender(buses[1], "qm-0", "b0")
    assert await again.leadership.acquire() > first + 2
    await again.leadership.release()
