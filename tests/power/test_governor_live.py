"""The governor process on a real NATS and Redis: it hears devices that follow the power law, and caps them."""

import argparse
import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from headrace.cli import governor as command
from headrace.cli import runstate
from headrace.client import operator
from headrace.core.errors import InvalidInput, Unavailable
from headrace.mesh import rpc, servers, subjects
from headrace.mesh.bus import Bus
from headrace.mesh.store import Store
from headrace.v1 import governor_pb2
from services.governor.governing import Governing
from services.governor.history import History
from services.governor.options import Options
from tests.power.governed import World, fleet

STAGES = ("encode", "prefill", "decode")
TICK_S = 0.5


class Workers:
    """Three processes' worth of telemetry: the small world, in real time, with caps as they come over the bus."""

    def __init__(self, bus: Bus, load: tuple[float, ...] = (0.9, 0.9, 0.9)) -> None:
        self.world = World(fleet(STAGES), np.array(load), noise=0.01)
        self.batches: list[governor_pb2.CapBatch] = []
        self.busy_s = np.zeros(3)
        self.silent: set[int] = set()
        self.bus = bus

    async def listen(self) -> None:
        await self.bus.subscribe(subjects.CAPS, self._on_caps)

    def _on_caps(self, data: bytes, _headers: Any) -> None:
        batch = governor_pb2.CapBatch.FromString(data)
        self.batches.append(batch)
        told = {worker.worker: worker for worker in batch.workers}
        for at, stage in enumerate(STAGES):
            caps = told.get(f"{stage}-0")
            cap_w = caps.devices[0].cap_w if caps is not None and caps.devices else 0.0
            self.world.cap_w[at] = cap_w or np.inf

    def second(self) -> None:
        seen = self.world.second()
        self.busy_s += seen.busy
        for at, stage in enumerate(STAGES):
            if at in self.silent:
                continue
            sample = governor_pb2.Telemetry(worker=f"{stage}-0", incarnation="a", host="h", stages=[stage])
            setattr(sample, f"{stage}_busy_s", self.busy_s[at])
            sample.waiting_s = seen.waiting_s[at]
            sample.devices.add(
                device="plant:0",
                source="plant",
                kind="h100",
                power_w=seen.power_w[at],
                temp_c=seen.temp_c[at],
                energy_j=-1.0,
                cap_w=0.0 if np.isinf(self.world.cap_w[at]) else self.world.cap_w[at],
                cap_least_w=150.0,
                cap_most_w=700.0,
                speed=seen.speed[at],
                full_w=seen.full_w[at],
                busy=seen.busy[at],
            )
            self.bus.send(subjects.TELEMETRY, sample.SerializeToString())

    async def run(self, until: Callable[[], bool], seconds: float = 12.0) -> None:
        """Telemetry goes on until something holds."""
        async with asyncio.timeout(seconds):
            while not until():
                self.second()
                await asyncio.sleep(TICK_S)


@asynccontextmanager
async def started(nats: str, redis: str, **more: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The governor's address and what it said at its start."""
    env = os.environ | {"HEADRACE_NATS_URL": nats, "HEADRACE_REDIS_URL": redis} | more
    argv = [sys.executable, "-m", "services.governor", "--id", "governor-0"]
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        facts = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
        yield facts["grpc"], facts
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 10)


@pytest.fixture
async def workers(nats_url: str) -> AsyncIterator[Workers]:
    bus = await Bus.connect(nats_url, "workers")
    made = Workers(bus)
    await made.listen()
    yield made
    await bus.close()


@pytest.mark.timeout(60)
async def test_a_budget_is_kept_told_and_survives_a_restart(
    workers: Workers, nats_url: str, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell, audit = {"HEADRACE_CELL": "keeps"}, tmp_path / "audit.jsonl"
    world = workers.world
    async with started(nats_url, redis_url, HEADRACE_AUDIT_FILE=str(audit), **cell) as (address, facts):
        await workers.run(lambda: len(workers.batches) >= 2)
        assert workers.batches[-1].workers == [], "without a budget nothing is asked of anybody"
        (row,) = (await operator.set_budget(address, 1_300.0)).rows
        assert (row.row, row.limit_w) == ("row-0", 1_300.0)
        assert list(row.workers) == ["decode-0", "encode-0", "prefill-0"]
        await asyncio.sleep(0.1)
        assert world.may_draw_w()[0] <= 1_300.0, "at once"
        await workers.run(lambda: len(workers.batches) >= 5)
        told = workers.batches[-1]
        assert [told.sequence, told.lease_s] == [len(workers.batches), 5.0]
        assert sum(one.devices[0].fallback_w for one in told.workers) <= 1_300.0
        assert all(one.devices[0].reason for one in told.workers if one.devices[0].cap_w)
        assert all(0.5 < one.prefill_factor <= 1.0 for one in told.workers if one.worker == "prefill-0")
        text = await asyncio.to_thread(scraped, facts["metrics_port"])
        assert 'headrace_row_limit_watts{row="row-0"} 1300.0' in text
        assert 'headrace_governor_actions_total{action="budget"} 1.0' in text
        assert 'headrace_device_cap_watts{device="plant:0",worker="decode-0"}' in text
        show(address, tmp_path, "status")
        show(address, tmp_path, "log")
        shown = capsys.readouterr().out
        assert "row-0 keeps to 1300 W" in shown
        assert "prefill-0" in shown
        assert "set by an operator" in shown
    assert [json.loads(line)["action"] for line in audit.read_text().splitlines()][:2] == ["budget", "cap"]
    heard, caps = len(workers.batches), world.cap_w.copy()
    async with started(nats_url, redis_url, **cell) as (address, _):
        await workers.run(lambda: len(workers.batches) > heard + 1)
        state = await operator.governor_state(address)
        assert state.rows[0].budget_w == 1_300.0
        assert world.may_draw_w()[0] <= 1_300.0
        assert world.cap_w == pytest.approx(caps, abs=60.0), "it goes on with the caps that hold"
        assert workers.batches[-1].epoch > told.epoch


class Cell:
    """The governor in this process, on the real bus and store, with a clock that the test moves."""

    def __init__(self, bus: Bus, store: Store, workers: Workers, env: dict[str, str]) -> None:
        self.now_s = 1_000.0
        self.workers = workers
        self.history = History()
        self.governing = Governing("governor-1", Options.from_env(env), bus, store, self.history, lambda: self.now_s)
        self.bus, self.store = bus, store

    async def listen(self) -> None:
        def heard(data: bytes, _headers: Any) -> None:
            self.history.on_telemetry(governor_pb2.Telemetry.FromString(data), self.now_s)

        await self.bus.subscribe(subjects.TELEMETRY, heard)
        await self.bus.flush()

    async def seconds(self, count: int) -> None:
        for _ in range(count):
            self.now_s += 1.0
            self.workers.second()
            await self.settle()
            await self.governing.second()
            await self.settle()

    async def settle(self) -> None:
        """All that is on its way has come."""
        await self.workers.bus.flush()
        await self.bus.flush()
        await asyncio.sleep(0.02)


@asynccontextmanager
async def cell(workers: Workers, nats: str, redis: str, name: str, **env: str) -> AsyncIterator[Cell]:
    bus, store = await Bus.connect(nats, "governor"), await Store.connect(redis, name)
    made = Cell(bus, store, workers, env)
    await made.listen()
    yield made
    await store.close()
    await bus.close()


@pytest.mark.timeout(60)
async def test_emergencies_rows_and_a_worker_that_falls_silent(
    workers: Workers, nats_url: str, redis_url: str, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.toml"
    rows.write_text(
        '[[row]]\nname = "a"\nworkers = ["prefill-*", "decode-*"]\nbudget_w = 1400\n'
        '[[row]]\nname = "b"\nhosts = ["h"]\n'
    )
    async with cell(workers, nats_url, redis_url, "rows", HEADRACE_ROWS=str(rows)) as made:
        governing, world = made.governing, workers.world
        await made.seconds(2)
        assert workers.batches == [], "not before everybody has been heard"
        await made.seconds(2)
        found = {row.row: row for row in await governing.declare("ups")}
        await made.settle()
        assert (found["a"].limit_w, list(found["a"].emergencies)) == (1_050.0, ["ups"])
        assert found["b"].limit_w == 525.0, "of its device's own limit, where nobody gave it a budget"
        assert world.cap_w[0] <= 525.0, "at once"
        assert np.minimum(world.cap_w[1:], 700.0).sum() <= 1_050.0
        workers.silent.add(2)
        await made.seconds(4)
        (decode,) = [one.devices[0] for one in workers.batches[-1].workers if one.worker == "decode-0"]
        assert decode.reason == "its readings are not believed: safe cap"
        assert decode.cap_w <= decode.fallback_w
        await made.seconds(6)
        actions = [(entry.action, entry.subject) for entry in governing.audit.latest()]
        assert actions.index(("distrust", "decode-0/plant:0")) < actions.index(("fallback", "decode-0/plant:0"))
        assert [row.limit_w for row in await governing.clear("")] == [1_400.0, 0.0]


@pytest.mark.timeout(60)
async def test_what_makes_no_sense_is_refused_by_name(nats_url: str, redis_url: str, tmp_path: Path) -> None:
    state = {"HEADRACE_CELL": "errors", "HEADRACE_GOVERNOR": "observe"}
    async with started(nats_url, redis_url, **state) as (address, _):
        for call, field, word in (
            (operator.set_budget(address, -1.0), "budget_w", "watts above 0"),
            (operator.set_budget(address, float("nan")), "budget_w", "watts above 0"),
            (operator.set_budget(address, 5.0, "row-9"), "row", "rows are row-0"),
            (operator.declare_emergency(address, "flood"), "kind", "ups, ahu"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            error = rpc.from_rpc_error(refused.value)
            assert error.field == field
            assert word in error.message
        told = await operator.governor_state(address)
        assert told.mode == "observe"
        assert any("nobody is told" in note for note in told.notes)


@pytest.mark.timeout(60)
async def test_observing_says_what_it_would_do_and_tells_nobody(
    workers: Workers, nats_url: str, redis_url: str
) -> None:
    watch = {"HEADRACE_GOVERNOR": "observe", "HEADRACE_ROW_BUDGET_W": "1200"}
    async with cell(workers, nats_url, redis_url, "watch", **watch) as made:
        await made.seconds(15)
        caps = [one.devices[0].cap_w for one in made.governing.batch.workers]
        assert len(caps) == 3
        assert sum(caps) <= 1_200.0
        assert made.governing.rows()[0].power_w > 1_200.0
        assert not [entry for entry in made.governing.audit.latest() if entry.action == "distrust"]
    assert workers.batches == []


@pytest.mark.timeout(60)
async def test_a_governor_is_switched_to_observe_and_back(workers: Workers, nats_url: str, redis_url: str) -> None:
    async with cell(workers, nats_url, redis_url, "switched", HEADRACE_ROW_BUDGET_W="1200") as made:
        governing, world = made.governing, workers.world
        await made.seconds(8)
        assert world.may_draw_w()[0] <= 1_200.0
        governing.set_mode("observe", "ada")
        await made.settle()
        assert np.isinf(world.cap_w).all(), "nobody has a cap, at once"
        await made.seconds(12)
        heard, told = len(workers.batches), governing.rows()[0]
        assert (told.limit_w, told.power_w > 1_200.0) == (1_200.0, True), "the limit stays, nobody keeps it"
        assert sum(one.devices[0].cap_w for one in governing.batch.workers) <= 1_200.0
        await made.seconds(2)
        assert len(workers.batches) == heard, "it has said so long enough"
        governing.set_mode("enforce", "bob")
        await made.seconds(6)
        assert world.may_draw_w()[0] <= 1_200.0
        modes = [(one.who, one.reason) for one in governing.audit.latest() if one.action == "mode"]
        said = ": set by an operator"
        assert modes == [("ada", "enforce -> observe" + said), ("bob", "observe -> enforce" + said)]
        for mode in ("off", "loud", ""):
            with pytest.raises(InvalidInput, match="observe, enforce"):
                governing.set_mode(mode)


@pytest.mark.timeout(60)
async def test_off_does_nothing_and_says_so(workers: Workers, nats_url: str, redis_url: str) -> None:
    async with cell(workers, nats_url, redis_url, "off", HEADRACE_GOVERNOR="off") as made:
        with pytest.raises(Unavailable, match="HEADRACE_GOVERNOR"):
            await made.governing.set_budget("", 5.0)
        with pytest.raises(Unavailable, match="HEADRACE_GOVERNOR"):
            made.governing.set_mode("enforce")


@pytest.mark.timeout(60)
async def test_while_nobody_knows_the_limits_no_caps_are_sent_unless_an_operator_speaks(
    workers: Workers, nats_url: str, redis_server: servers.RedisServer
) -> None:
    async with cell(workers, nats_url, redis_server.url, "dark") as made:
        await made.seconds(1)
        await made.governing.set_budget("", 1_000.0)
        redis_server.stop()
        dark = Cell(made.bus, made.store, workers, {})
        await dark.listen()
        before = len(workers.batches)
        await dark.seconds(5)
        assert len(workers.batches) == before
        assert any("no caps are sent" in note for note in dark.governing.notes())
        await dark.governing.set_budget("row-0", 900.0)
        await dark.settle()
        await dark.seconds(1)
        assert np.minimum(workers.world.cap_w, 700.0).sum() <= 900.0
        assert any("would not survive a restart" in note for note in dark.governing.notes())


def show(address: str, data_dir: Path, what: str) -> None:
    state = runstate.for_this_process("ready", services={"governor-0": address})
    runstate.write(data_dir, state)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["--data-dir", str(data_dir), what])
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(command.run, args).result(10) == 0


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        return str(reply.read().decode())
