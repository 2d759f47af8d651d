"""The profile engine's beat: steady while it works, whole after a rest."""

import asyncio
import time

from headrace.worker.pace import CARRY_S, Pace

STEP_S = 0.02


async def took_s(pace: Pace, rested_until_s: float) -> float:
    began_s = time.perf_counter()
    await pace.wait(STEP_S, rested_until_s)
    return time.perf_counter() - began_s


async def test_after_a_rest_an_iteration_takes_all_its_time() -> None:
    """What was late before the rest is not made up for behind it: a lone prompt would come back too soon."""
    loop, pace = asyncio.get_running_loop(), Pace()
    for _ in range(3):
        await asyncio.sleep(0.01)
        assert await took_s(pace, loop.time()) >= STEP_S - 1e-4


async def test_what_sending_takes_is_made_up_for_while_it_works() -> None:
    loop = asyncio.get_running_loop()
    took = []
    for _ in range(20):  # a busy machine wakes late; at its best it is the pace's own doing
        pace, began_s, rested_until_s = Pace(), time.perf_counter(), loop.time()
        for _ in range(10):
            await pace.wait(STEP_S, rested_until_s)
            time.sleep(CARRY_S / 2)  # noqa: ASYNC251 the work between two iterations
        took.append(time.perf_counter() - began_s)
    assert min(took) < 10 * STEP_S + 5 * CARRY_S


async def test_stages_of_one_device_take_turns() -> None:
    """A batch of pictures in a colocated worker: the iteration that comes meanwhile waits for its end."""
    loop, pace, began_s = asyncio.get_running_loop(), Pace(), time.perf_counter()
    encoding = asyncio.create_task(pace.wait(5 * STEP_S, loop.time()))
    await asyncio.sleep(0)
    await pace.wait(STEP_S, loop.time())
    assert encoding.done()
    assert time.perf_counter() - began_s >= 6 * STEP_S - 1e-4


async def test_who_waits_for_the_device_waits_for_what_is_booked_then() -> None:
    """A second batch of pictures that is booked meanwhile does not come before it."""
    loop, pace = asyncio.get_running_loop(), Pace()
    first_s = pace.book(2 * STEP_S, loop.time())
    waiting = asyncio.create_task(pace.free())
    await asyncio.sleep(0)
    second_s = pace.book(5 * STEP_S, loop.time())
    await waiting
    assert first_s <= loop.time() < second_s


async def test_nobody_waits_for_an_idle_device() -> None:
    loop, pace = asyncio.get_running_loop(), Pace()
    began_s = pace.book(STEP_S, loop.time())
    await pace.until(began_s)
    waiting = asyncio.create_task(pace.free())
    await asyncio.sleep(0)
    assert waiting.done()
