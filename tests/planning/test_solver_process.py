"""The solver's process: plans come back as events, the newest problem wins, a crash or a long solve ends itself."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest

from headrace.core.effects import DeleteRecord, SolvePlan
from headrace.core.events import Event, PlanSolved
from headrace.core.planning.cost import plan_cost
from headrace.core.planning.problem import Plan
from loadtest.benches.planner_problems import random_problem
from services.queue_manager.planner import STARTS_MOST, Planner

PROBLEM = random_problem(1, 5, 2)
ROOT = Path(__file__).parents[2]
ANSWER_S = 240.0  # with a process to be started on a busy machine


def by_version(effect: SolvePlan) -> Plan:
    """A solver that is told by the version what to do; in the process."""
    version = effect.problem.version
    if version == 13:
        os._exit(3)
    if version == 14:
        raise ValueError("no plan")
    if version == 15:
        time.sleep(60)
    if version == 16:
        time.sleep(1)
    return Plan(version, ())


class Told:
    def __init__(self) -> None:
        self.plans: asyncio.Queue[Plan] = asyncio.Queue()

    def __call__(self, event: Event) -> None:
        assert isinstance(event, PlanSolved)
        self.plans.put_nowait(event.plan)

    async def plan(self) -> Plan:
        return await asyncio.wait_for(self.plans.get(), ANSWER_S)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def planner(told: Told) -> AsyncIterator[Planner]:
    planner = Planner(told, solve_s=2.0, solving=by_version)
    planner.start()
    yield planner
    planner.close()


def asked(version: int) -> SolvePlan:
    return SolvePlan(replace(PROBLEM, version=version), node_limit=100, moves=1_000)


@pytest.mark.timeout(300)
async def test_a_plan_comes_back(told: Told) -> None:
    planner = Planner(told)
    planner.start()
    assert planner.take(SolvePlan(PROBLEM, node_limit=100, moves=1_000))
    assert not planner.take(DeleteRecord("r", 1))
    plan = await told.plan()
    planner.close()
    assert sorted(each for queue in plan.queues for each in queue) == [group.id for group in PROBLEM.groups]
    assert plan.cost == pytest.approx(plan_cost(PROBLEM, plan.queues))
    assert planner.solved == 1


@pytest.mark.timeout(300)
async def test_the_newest_of_those_that_wait_is_solved(planner: Planner, told: Told) -> None:
    planner.take(asked(1))
    assert (await told.plan()).version == 1  # its process has started
    for version in (16, 2, 3, 4):  # the first keeps the process busy
        planner.take(asked(version))
    assert [(await told.plan()).version, (await told.plan()).version] == [16, 4]
    assert (planner.solved, planner.replaced) == (3, 2)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("version", "what"), [(13, "crashes"), (14, "raises"), (15, "takes too long")])
async def test_one_that_fails_is_given_up(planner: Planner, told: Told, version: int, what: str) -> None:
    planner.take(asked(2))
    assert (await told.plan()).version == 2
    planner.take(asked(version))
    planner.take(asked(1))
    assert (await told.plan()).version == 1
    assert planner.failed == 1


@pytest.mark.timeout(600)
async def test_a_process_that_always_ends_is_started_ever_more_rarely(told: Told) -> None:
    """But not given up for good: what it dies of may be one problem, and the next is another."""
    planner = Planner(told, solve_s=ANSWER_S, rest_s=1.5, solving=by_version)  # none is ended for being slow
    planner.start()
    async with asyncio.timeout(500):
        for failed in range(1, STARTS_MOST + 1):
            planner.take(asked(13))
            while planner.failed < failed:  # noqa: ASYNC110 - a failure tells nobody but the log
                await asyncio.sleep(0.02)
    rests_until_s = time.monotonic() + 1.4
    planner.take(asked(1))
    assert (await told.plan()).version == 1
    assert time.monotonic() > rests_until_s
    assert planner.failed == STARTS_MOST
    planner.close()


@pytest.mark.timeout(60)
async def test_one_that_rests_can_be_closed(told: Told) -> None:
    planner = Planner(told, rest_s=0.2, solving=by_version)
    planner.start()
    async with asyncio.timeout(50):
        for failed in range(1, STARTS_MOST + 1):
            planner.take(asked(13))
            while planner.failed < failed:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    planner.close()
    await asyncio.sleep(0.5)
    assert not active_children()


PARENT = """
import asyncio, os
from services.queue_manager.planner import Planner
async def main():
    planner = Planner(print)
    planner.start()
    planner._pool.submit(os.getpid).add_done_callback(lambda done: print(done.result(), flush=True))
    await asyncio.sleep(60)
if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.timeout(300)
def test_a_killed_queue_manager_leaves_no_solver(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'libs'}"}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=env)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s and Path(f"/proc/{child}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.timeout(60)
async def test_closed_in_the_middle_of_a_solve_it_ends_at_once(told: Told) -> None:
    planner = Planner(told, solve_s=50.0, solving=by_version)
    planner.start()
    planner.take(asked(1))
    await told.plan()
    planner.take(asked(15))
    await asyncio.sleep(0.2)
    planner.close()
    async with asyncio.timeout(5):
        while active_children():  # noqa: ASYNC110 - a process that ends tells nobody
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    assert planner.failed == 0
