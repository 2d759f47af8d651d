"""A live queue manager with its planner: whatever the planner does, its tape replays to the same effects."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.client import operator
from headrace.core.queue import QueueConfig
from headrace.core.tape import Frame, read_tape
from headrace.v1.queue_pb2 import InspectResponse
from tests.e2e.asking import Answer, ask, request
from tests.e2e.meshes import small_mesh
from tests.parity.replaying import (
    OPERATIONS,
    PLANNED_EFFECTS,
    PLANNED_EVENTS,
    SWITCHES,
    differs,
    kinds,
    replayed,
    reverse_victims,
    without,
)

FIRST, SECOND, BROKEN = "profile-tiny", "profile-tiny-b", "profile-tiny-c"
LONG = 500  # tokens: 4 s
TAKES = 3
PROFILE = """
source = "[I] chosen: 8 ms a token, and loads that a test can wait for"
kv_bytes_per_token = 256
load_cold_s = 1.5
load_warm_s = 0.2
[cost]
tokens = [1, 200, 1200]
tokens_s = [8e-3, 8e-3, 28e-3]
"""
CLASSES = """
[classes.interactive]
ttft_s = 0.3
[classes.batch-1]
[classes.impatient]
ttft_s = 1.0
timeout_s = 60.0
queue_limit = 64
ttl_s = 1.0
"""


@dataclass
class Cell:
    """The mesh, what was asked of it, and what its queue manager says that it did."""

    mesh: Mesh
    asked: list[asyncio.Task[Answer]] = field(default_factory=list)

    def ask(self, model: str, slo_class: str, max_tokens: int, timeout_s: float = 0.0) -> asyncio.Task[Answer]:
        message = request("a question", max_tokens=max_tokens, timeout_s=timeout_s)
        message.model, message.slo_class = model, slo_class
        task = asyncio.create_task(ask(self.mesh.grpc_addr, message))
        self.asked.append(task)
        return task

    async def inspected(self) -> InspectResponse:
        return await operator.inspect(self.mesh.addresses.grpc["qm-0"])

    async def until(self, holds: Callable[[InspectResponse], bool], within_s: float = 20.0) -> None:
        async with asyncio.timeout(within_s):
            while True:
                if holds(await self.inspected()):
                    return
                await asyncio.sleep(0.02)

    async def until_done(self, operation: str, times: int = 1, within_s: float = 20.0) -> None:
        await self.until(lambda shown: shown.operations.get(operation, 0) >= times, within_s)

    async def until_at_work(self, running: int, waiting: int) -> None:
        await self.until(lambda shown: at_work(shown) == (running, waiting))

    async def leave(self) -> None:
        """Every client gives up; nothing runs, waits or is loaded any more."""
        for task in self.asked:
            task.cancel()
        await asyncio.gather(*self.asked, return_exceptions=True)
        self.asked.clear()
        await self.until(lambda shown: at_work(shown) == (0, 0) and not any(each.loading for each in shown.queues))


def at_work(shown: InspectResponse) -> tuple[int, int]:
    """Requests that run, and that wait."""
    waiting = sum(group.waiting for queue in shown.queues for group in queue.groups)
    return sum(queue.running for queue in shown.queues), waiting


def failure(answer: Answer) -> str:
    assert answer.end is not None
    return answer.end.failure.code


async def a_load_fails(cell: Cell, profile: Path) -> None:
    """Only the second worker has that model. Nobody can serve it then, so that its request expires."""
    with lost(profile):
        expiring = cell.ask(BROKEN, "impatient", 8)
        await cell.until_done("load_failed")
    assert failure(await expiring) == "ttl_expired"


@contextlib.contextmanager
def lost(path: Path) -> Iterator[None]:
    text = path.read_text()
    path.unlink()
    try:
        yield
    finally:
        path.write_text(text)


async def one_comes_too_late(cell: Cell) -> None:
    """Both workers are at work with the first model, and loading the second takes longer than the request has got."""
    for _ in range(2):
        cell.ask(FIRST, "batch-1", LONG)
    await cell.until_at_work(2, 0)
    assert failure(await cell.ask(SECOND, "impatient", 8, timeout_s=1.0)) == "deadline_unreachable"
    await cell.leave()


async def the_idle_one_helps(cell: Cell) -> None:
    """Four wait in one group for one worker. One request leaves each worker: the other one takes of the four, too."""
    leaving = [cell.ask(FIRST, "batch-1", LONG) for _ in range(2)]
    await cell.until_at_work(2, 0)
    for _ in range(2):
        cell.ask(FIRST, "batch-1", LONG)
    await cell.until_at_work(4, 0)
    for _ in range(4):
        cell.ask(FIRST, "batch-1", LONG)
    await cell.until_at_work(4, 4)
    for task in leaving:
        task.cancel()
    await cell.until_done("balance")


async def the_urgent_evict(cell: Cell) -> None:
    """Whoever is evicted goes on at the other worker, which has room before the urgent ones have ended: on a machine
    that is busy with others it may have begun again where it was, and the scene is played anew."""
    for take in range(1, TAKES + 1):
        try:
            await _the_urgent_evict(cell)
            break
        except TimeoutError:
            if take == TAKES:
                raise


async def _the_urgent_evict(cell: Cell) -> None:
    await cell.leave()
    before = (await cell.inspected()).operations.get("evict", 0)
    for tokens in (350, 600, 350, 600):
        cell.ask(FIRST, "batch-1", tokens)
    await cell.until_at_work(4, 0)
    await asyncio.sleep(1.2)  # nobody is evicted who has just begun
    for _ in range(2):
        cell.ask(FIRST, "interactive", LONG)
    await cell.until_done("evict", before + 1)
    await cell.until_done("move", within_s=8.0)


async def models_change(cell: Cell) -> None:
    for _ in range(4):
        cell.ask(SECOND, "interactive", 60)
    await cell.until_done("load_cold", times=2)  # the first one failed
    await cell.leave()
    for _ in range(2):
        cell.ask(FIRST, "batch-1", LONG)
    await cell.until_at_work(2, 0)
    await asyncio.sleep(0.3)  # it is known how long they will take
    for _ in range(4):
        cell.ask(FIRST, "interactive", LONG)
    await cell.until_done("load_warm")


async def an_eviction_is_declined(cell: Cell) -> None:
    """The workers hang when they are asked to. Their first word after that is a heartbeat: they still decode."""
    await cell.leave()
    for _ in range(4):
        cell.ask(FIRST, "batch-1", 2 * LONG)
    await cell.until_at_work(4, 0)
    for _ in range(5):
        await asyncio.sleep(1.2)
        asked = (await cell.inspected()).operations.get("evict_asked", 0)
        with hanging(cell.mesh), contextlib.suppress(TimeoutError):
            cell.ask(FIRST, "interactive", 20)
            await cell.until_done("evict_asked", times=asked + 1, within_s=0.5)
            await asyncio.sleep(1.1)  # longer than a command may take
        with contextlib.suppress(TimeoutError):
            await cell.until_done("evict_declined", within_s=1.0)
            return
    raise AssertionError("no eviction was declined")


@contextlib.contextmanager
def hanging(mesh: Mesh) -> Iterator[None]:
    """All workers, for less than a lease."""
    for worker in mesh.workers:
        mesh.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in mesh.workers:
            mesh.kill(worker, signal.SIGCONT)


async def all_has_happened(cell: Cell) -> None:
    """Who goes on where depends on who ends when: waves of requests, until all of it has been seen."""
    async with asyncio.timeout(15.0):
        while not set((await cell.inspected()).operations) >= OPERATIONS:
            for model, slo_class, tokens in ((FIRST, "interactive", 100), (FIRST, "batch-1", 300)):
                for _ in range(3):
                    cell.ask(model, slo_class, tokens)
            await asyncio.sleep(1.5)
    await cell.leave()


def mesh_config(path: Path) -> MeshConfig:
    """Two workers that prefill and decode, with two slots each; the second one has a profile of its own to lose."""
    profiles = [path / f"{worker}.toml" for worker in ("worker-0", "worker-1")]
    for profile in profiles:
        profile.write_text(PROFILE)
    classes = path / "classes.toml"
    classes.write_text(CLASSES)
    return small_mesh(
        path / "mesh",
        models=(FIRST, SECOND, BROKEN),
        colocate=("prefill", "decode"),
        encoders=0,
        prefill=2,
        decode=2,
        gateways=1,
        environment={
            "HEADRACE_SLOTS": "2",
            "HEADRACE_PLANNER": "headrace",
            "HEADRACE_PREDICT": "off",
            "HEADRACE_REPLAN_S": "0.9",
            "HEADRACE_EVICT_REST_S": "0.8",
            "HEADRACE_CLASSES_FILE": str(classes),
            "HEADRACE_TAPE": str(path / "tape"),
        },
        service_environment={
            "worker-0": {"HEADRACE_PROFILE": str(profiles[0]), "HEADRACE_MODELS": f"{FIRST},{SECOND}"},
            "worker-1": {"HEADRACE_PROFILE": str(profiles[1])},
            "gateway-0": {"HEADRACE_EARLY_REJECTION": "off"},  # the queue manager is to do it
        },
    )


@dataclass(frozen=True)
class Recording:
    config: QueueConfig
    frames: list[Frame]
    inspected: InspectResponse  # at its end


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Made once, in a loop of its own."""
    return asyncio.run(record(tmp_path_factory.mktemp("planned")))


async def record(path: Path) -> Recording:
    config = mesh_config(path)
    async with Mesh(config) as mesh:
        cell = Cell(mesh)
        await a_load_fails(cell, path / "worker-1.toml")
        await one_comes_too_late(cell)
        await the_idle_one_helps(cell)
        await the_urgent_evict(cell)
        await models_change(cell)
        await an_eviction_is_declined(cell)
        await all_has_happened(cell)
        inspected = await cell.inspected()
    with (path / "tape").open() as lines:
        queue_config, frames = read_tape(lines)
        return Recording(queue_config, list(frames), inspected)


def test_all_that_the_planner_does_is_on_the_tape(recording: Recording) -> None:
    events, effects = kinds(recording.frames)
    assert events.keys() >= PLANNED_EVENTS
    assert effects.keys() >= PLANNED_EFFECTS
    assert recording.inspected.operations.keys() >= OPERATIONS
    assert recording.inspected.planner.plans_applied


def test_the_queue_manager_plans_as_often_as_it_is_told(recording: Recording) -> None:
    assert (recording.config.replan_s, recording.config.evict_rest_s) == (0.9, 0.8)


def test_it_replays_to_every_effect(recording: Recording) -> None:
    core, differing = replayed(recording.config, recording.frames)
    assert differing == []
    now_s = recording.frames[-1].now_s
    assert core.inspect(now_s).operations == dict(recording.inspected.operations)


@pytest.mark.parametrize("off", SWITCHES)
def test_the_comparison_sees_each_operation(recording: Recording, off: str) -> None:
    assert differs(without(recording.config, off), recording.frames)


def test_it_sees_another_victim(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    reverse_victims(monkeypatch)
    assert differs(recording.config, recording.frames)
