"""Encoders that come and go by the load, from none to three and back to none; every request is answered once, right.

The profile's encoder takes 20 ms a token, 120 ms a picture: eight pictures a second keep one busy.
"""

import asyncio
import contextlib
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from headrace.cli.supervisor import Mesh
from headrace.client import operator
from headrace.v1.scaling_pb2 import PoolStatus, ScalingStatus
from tests.e2e.asking import Answer, ask, follow, picture, request
from tests.e2e.leaks import assert_free
from tests.e2e.meshes import small_mesh

pytestmark = pytest.mark.timeout(90)

PROFILE = Path(__file__).parent / "elastic.toml"
HEARD_S = 1.0  # several times what lies between two statuses that a gateway hears
CLASSES = """
[classes.interactive]
ttft_s = 4.0
timeout_s = 60.0
queue_limit = 500
ttl_s = 60.0

[classes.hasty]
ttft_s = 0.2
timeout_s = 60.0
queue_limit = 500
ttl_s = 0.3
"""
ENVIRONMENT = {
    "HEADRACE_AUTOSCALE_LOOK_S": "0.25",
    "HEADRACE_AUTOSCALE_EPOCH_S": "2",
    "HEADRACE_AUTOSCALE_START_S": "2",
    "HEADRACE_ENCODER_CACHE_MB": "0",  # every picture is encoded
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def elastic(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    directory = tmp_path_factory.mktemp("elastic")
    (directory / "classes.toml").write_text(CLASSES)
    config = small_mesh(
        directory / "mesh",
        gateways=1,
        encoders=0,
        profile=str(PROFILE),
        autoscale="headrace",
        least={"encode": 0},
        most={"encode": 3, "prefill": 1, "decode": 1},
        environment=ENVIRONMENT | {"HEADRACE_CLASSES_FILE": str(directory / "classes.toml")},
    )
    async with Mesh(config) as mesh:
        yield mesh


async def status(mesh: Mesh) -> ScalingStatus:
    """Of the leader; waits for one that is being started."""
    for _ in range(200):
        with contextlib.suppress(grpc.RpcError):
            if (found := await operator.scaling_status(mesh.addresses.grpc["qm-0"])) is not None:
                return found
        await asyncio.sleep(0.1)
    raise AssertionError("no queue manager leads")


async def until(mesh: Mesh, holds: Callable[[PoolStatus], bool], within_s: float = 40.0) -> None:
    """Of the encoders."""
    for _ in range(round(within_s / 0.1)):
        pools = (await status(mesh)).pools
        if any(pool.pool == "encode" and holds(pool) for pool in pools):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"still not: {pools}")


async def until_none(mesh: Mesh) -> None:
    """Also no process that is on its way out; and the gateway has heard that there could be one."""
    await until(mesh, lambda pool: not (pool.ready or pool.starting or pool.draining or encoders(mesh)))
    await asyncio.sleep(HEARD_S)


def encoders(mesh: Mesh) -> list[str]:
    return [worker for worker in mesh.workers if worker.startswith("encoder")]


async def burst(mesh: Mesh, stop: asyncio.Event, first: int) -> list[Answer]:
    """Twenty pictures a second, what two and a half encoders take, until it is told to stop."""
    running, number = list[asyncio.Task[Answer]](), first
    while not stop.is_set():
        message = request("what?", images=[picture(number)], max_tokens=6, key=uuid.uuid4().hex, keep=True)
        running.append(asyncio.create_task(follow([mesh.grpc_addr], message, within_s=50.0)))
        number += 1
        await asyncio.sleep(0.05)
    return await asyncio.gather(*running)


def assert_answered(answers: list[Answer]) -> None:
    assert {(answer.reason, len(answer.tokens), *answer.faults) for answer in answers} == {("length", 6)}
    assert len({answer.request_id for answer in answers}) == len(answers)


async def test_a_request_that_finds_no_encoder_waits_for_one_but_not_for_ever(elastic: Mesh) -> None:
    await until_none(elastic)
    hasty, patient = (request("what?", images=[picture(1)], max_tokens=6) for _ in range(2))
    hasty.slo_class = "hasty"
    refused, answer = await asyncio.gather(ask(elastic.grpc_addr, hasty), ask(elastic.grpc_addr, patient))
    assert refused.end is not None
    assert (refused.reason, refused.end.failure.code) == ("error", "ttl_expired")
    assert_answered([answer])
    again = await ask(elastic.grpc_addr, request("what?", images=[picture(1)], max_tokens=6))
    assert again.tokens == answer.tokens
    await assert_free(elastic, 5.0)


async def test_a_burst_grows_the_pool_through_deaths_and_it_shrinks_again(elastic: Mesh) -> None:
    """A start that is killed is made again by who keeps processes up, and not ordered twice; a new leadership goes on
    with what the last one ordered."""
    began, stop = set(encoders(elastic)), asyncio.Event()
    asking = asyncio.create_task(burst(elastic, stop, 300))
    starting = set[str]()
    while not starting:
        await asyncio.sleep(0.02)
        starting = set(encoders(elastic)) - began
    elastic.kill(min(starting), signal.SIGKILL)
    await until(elastic, lambda pool: pool.target > 1)
    before = len(encoders(elastic))
    elastic.kill("qm-0", signal.SIGKILL)
    counts = list[int]()
    while len(encoders(elastic)) < 3 or len(counts) < 100:
        counts.append(len(encoders(elastic)))
        await asyncio.sleep(0.02)
    assert min(counts) == before, "a new leadership drains nothing that is needed"
    stop.set()
    answers = await asking
    assert_answered(answers)
    again = await ask(elastic.grpc_addr, request("what?", images=[picture(300)], max_tokens=6))
    assert again.tokens == answers[0].tokens
    await until_none(elastic)
    told = await status(elastic)
    [pool] = [pool for pool in told.pools if pool.pool == "encode"]
    assert 25 < pool.capacity_per_s < 55, "a token takes 20 ms, and what the mesh adds"
    assert {made.pool for made in told.decisions} == {"encode"}, "text's pools stay as they are"
    assert all(made.reason and not made.error for made in told.decisions)
    await assert_free(elastic, 5.0)
