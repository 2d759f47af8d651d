"""When a NATS server is left for another one, as transcripts of what servers said and what was done."""

import asyncio
from itertools import pairwise

import pytest

from headrace.mesh import quorum
from headrace.mesh.quorum import Quorum

pytestmark = pytest.mark.timeout(10)

A, B, C = "a:4222", "b:4222", "c:4222"


@pytest.mark.parametrize(
    ("servers", "said", "leaves"),
    [
        (3, [[A]], 1),
        (3, [[A, B, C], [A, B], [A]], 1),
        (3, [[A, B]], 0),
        (3, [[A], [A, B]], 0),
        (3, [[]], 0),
        (3, [None], 0),
        (1, [[A]], 0),
        (2, [[A]], 0),
        (5, [[A, B]], 1),
        (5, [[A, B, C]], 0),
    ],
    ids=[
        "alone from the first",
        "alone after a while",
        "one of three is missing",
        "found again in time",
        "says nobody",
        "does not say",
        "a single server",
        "two know no majority",
        "two of five",
        "three of five",
    ],
)
async def test_a_server_without_a_majority_is_left(
    servers: int, said: list[list[str] | None], leaves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quorum, "GRACE_S", 0.05)
    left: list[int] = []
    watch = Quorum(servers, lambda: left.append(1))
    for urls in said:
        watch.heard({} if urls is None else {"connect_urls": urls})
    await asyncio.sleep(0.15)
    assert len(left) == leaves
    watch.close()


async def test_where_every_server_is_alone_it_stays_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quorum, "GRACE_S", 0.02)
    monkeypatch.setattr(quorum, "AGAIN_S", 0.1)
    loop, left = asyncio.get_running_loop(), list[float]()
    watch = Quorum(3, lambda: left.append(loop.time()))
    while len(left) < 4:
        watch.heard({"connect_urls": [A]})  # as after each connection
        await asyncio.sleep(0.005)
    stays = [later - earlier for earlier, later in pairwise(left)]
    assert stays[0] >= 0.1
    assert stays[1] > 1.5 * stays[0]
    assert stays[2] > 1.5 * stays[1]
    watch.heard({"connect_urls": [A, B, C]})
    watch.heard({"connect_urls": [A]})
    await asyncio.sleep(0.08)
    assert len(left) == 5, "a majority that was seen makes it quick again"
    watch.close()
