"""Workers are told to leave while they work: nothing accepted is lost, and every answer is what it would have been.

The orders come from the test, over the bus, as the queue manager's would; its own autoscaler hardly ever looks.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
import pytest_asyncio

from headrace.cli.supervisor import Mesh
from headrace.mesh import subjects
from headrace.v1.scaling_pb2 import PoolOrder, ScaleOrder, ScaleReply
from tests.e2e.asking import Answer, follow, picture, request
from tests.e2e.leaks import assert_free
from tests.e2e.meshes import small_mesh, until_heard

pytestmark = pytest.mark.timeout(90)

EPOCH = 1 << 40  # of an order after which the mesh's own queue manager is a former one
POOLS = ("encode", "prefill", "decode")
ENVIRONMENT = {"HEADRACE_AUTOSCALE_LOOK_S": "100000"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def elastic(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    config = small_mesh(tmp_path_factory.mktemp("drain"), gateways=1, autoscale="published", environment=ENVIRONMENT)
    async with Mesh(config) as mesh:
        yield mesh


@pytest_asyncio.fixture(loop_scope="session")
async def hasty(tmp_path: Path) -> AsyncIterator[Mesh]:
    """Its workers have two seconds to leave."""
    environment = {**ENVIRONMENT, "HEADRACE_DRAIN_S": "2"}
    async with Mesh(small_mesh(tmp_path, gateways=1, autoscale="published", environment=environment)) as mesh:
        yield mesh


async def order(mesh: Mesh, instances: int, epoch: int = EPOCH, *pools: str) -> dict[str, tuple[int, int]]:
    """So many of each pool. Returns how many are kept, and how many leave."""
    client = await nats.connect(mesh.addresses.nats_url, max_reconnect_attempts=1)
    orders = [PoolOrder(pool=pool, instances=instances) for pool in pools or POOLS]
    reply = await client.request(subjects.SCALE, ScaleOrder(epoch=epoch, orders=orders).SerializeToString(), 5.0)
    await client.close()
    told = ScaleReply.FromString(reply.data)
    return {pool.pool: (pool.instances, len(pool.leaving)) for pool in told.pools}


async def until_left(mesh: Mesh, workers: int) -> None:
    for _ in range(300):
        if len(mesh.workers) <= workers:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"still there: {mesh.workers}")


async def asked(mesh: Mesh, number: int, max_tokens: int) -> Answer:
    images = [picture(number)] * (number % 2)
    message = request(f"question {number}", images=images, max_tokens=max_tokens, key=uuid.uuid4().hex, keep=True)
    return await follow([mesh.grpc_addr], message, within_s=30.0)


async def assert_right(mesh: Mesh, answers: list[Answer], max_tokens: int) -> None:
    """As the same questions are answered again, undisturbed."""
    assert {(answer.reason, len(answer.tokens), *answer.faults) for answer in answers} == {("length", max_tokens)}
    some = range(0, len(answers), 3)
    again = await asyncio.gather(*(asked(mesh, number, max_tokens) for number in some))
    assert [answer.tokens for answer in again] == [answers[number].tokens for number in some]


def recovered(answers: list[Answer]) -> int:
    """Requests that a worker left unfinished."""
    ends = [answer.end for answer in answers if answer.end is not None]
    return sum(any(span.stage == "recover" for span in end.timeline) for end in ends)


async def test_more_is_started_and_less_drains_under_load(elastic: Mesh) -> None:
    assert await order(elastic, 2) == dict.fromkeys(POOLS, (2, 0))
    assert await order(elastic, 2) == dict.fromkeys(POOLS, (2, 0)), "an order given twice is one"
    await until_heard(elastic)
    asking = [asyncio.create_task(asked(elastic, number, 40)) for number in range(40)]
    await asyncio.sleep(0.3)  # some are encoded, some prefilled, some decode, some wait
    assert await order(elastic, 1) == dict.fromkeys(POOLS, (1, 1))
    await until_left(elastic, 3)
    answers = await asyncio.gather(*asking)
    await assert_right(elastic, answers, 40)
    assert not recovered(answers), "workers end what they have, and what was on its way, before they leave"
    await assert_free(elastic, 5.0)


async def test_orders_of_a_former_leadership_are_refused(elastic: Mesh) -> None:
    before = await order(elastic, 1)
    assert await order(elastic, 3, EPOCH - 1) == before
    assert len(elastic.workers) == 3


async def test_what_takes_longer_than_a_drain_goes_on_elsewhere(hasty: Mesh) -> None:
    """Four seconds of decoding, two of drain: the rest is decoded by the worker that stays."""
    await order(hasty, 2, EPOCH, "decode")
    await until_heard(hasty)
    asking = [asyncio.create_task(asked(hasty, number, 500)) for number in range(8)]
    await asyncio.sleep(0.7)
    await order(hasty, 1, EPOCH, "decode")
    await until_left(hasty, 3)
    answers = await asyncio.gather(*asking)
    await assert_right(hasty, answers, 500)
    assert 0 < recovered(answers) < 8
    await assert_free(hasty, 5.0)
