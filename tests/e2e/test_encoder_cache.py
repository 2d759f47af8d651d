"""The same picture asked about by several requests of a real mesh: encoded once, until its encoder dies."""

import asyncio
import signal
from pathlib import Path

import pytest

from headrace.cli.supervisor import Mesh
from headrace.client import operator
from headrace.v1.common_pb2 import StageSpan
from tests.e2e.asking import Answer, ask, picture, request
from tests.e2e.leaks import assert_free
from tests.e2e.meshes import small_mesh, until_heard

pytestmark = pytest.mark.timeout(120)


def encodings(answer: Answer) -> list[StageSpan]:
    assert (answer.reason, answer.faults) == ("length", [])
    assert answer.end is not None
    return [span for span in answer.end.timeline if span.stage == "encode"]


async def asked(mesh: Mesh, number: int) -> tuple[list[int], bool, str]:
    """The answer's tokens, whether its picture's embedding was there already, and where."""
    answer = await ask(mesh.grpc_addr, request("what is it?", images=[picture(number)], max_tokens=12))
    [span] = encodings(answer)
    return answer.tokens, span.cached, span.worker


async def counts(mesh: Mesh) -> tuple[int, int, int]:
    """Parts encoded, hits and misses of all encoders, as the governor has them."""
    state = await operator.governor_state(mesh.addresses.grpc["governor-0"])
    latest = [worker.samples[-1] for worker in state.workers if worker.samples]
    return (
        sum(sample.encoded_parts for sample in latest),
        sum(sample.encoder_cache_hits for sample in latest),
        sum(sample.encoder_cache_misses for sample in latest),
    )


async def until_counted(mesh: Mesh, encoded: int, hits: int, misses: int) -> None:
    """Telemetry comes every second."""
    async with asyncio.timeout(15):
        while (seen := await counts(mesh)) != (encoded, hits, misses):
            assert seen[0] <= encoded, seen
            await asyncio.sleep(0.2)


async def test_one_encode_three_hits_and_anew_after_a_death(tmp_path: Path) -> None:
    async with Mesh(small_mesh(tmp_path, encoders=2)) as mesh:
        told = [await asked(mesh, 1) for _ in range(4)]
        tokens, _, home = told[0]
        assert [cached for _, cached, _ in told] == [False, True, True, True]
        assert {(tuple(each), worker) for each, _, worker in told} == {(tuple(tokens), home)}
        await until_counted(mesh, encoded=1, hits=3, misses=1)
        other, cached, _ = await asked(mesh, 2)
        assert other != tokens, "the picture decides the answer"
        assert not cached

        mesh.kill(home, signal.SIGKILL)
        assert (await asked(mesh, 1))[:2] == (tokens, False), "encoded anew, and right"
        assert (await asked(mesh, 1))[:2] == (tokens, True)
        await until_heard(mesh)
        await assert_free(mesh, 5.0)


async def test_without_a_cache_each_is_encoded(tmp_path: Path) -> None:
    async with Mesh(small_mesh(tmp_path, environment={"HEADRACE_ENCODER_CACHE_MB": "0"})) as mesh:
        told = [await asked(mesh, 1) for _ in range(3)]
        assert [cached for _, cached, _ in told] == [False] * 3
        assert len({tuple(tokens) for tokens, _, _ in told}) == 1
        await until_counted(mesh, encoded=3, hits=0, misses=0)
        await assert_free(mesh, 5.0)
