"""Many clients leave at once, in the queue, in prefill and in decode: engines are free within a second, all else soon
after, and the next is served."""

import asyncio
import time

import grpc.aio

from headrace.cli.supervisor import Mesh
from headrace.v1 import gateway_pb2 as pb
from tests.e2e.asking import Answer, ask, picture, request, stub
from tests.e2e.leaks import left_after

STORM = 60
FREE_WITHIN_S = 1.0
SERVED_WITHIN_S = 5.0  # an answer of eight tokens, on a machine that other tests share


async def leave(channel: grpc.aio.Channel, number: int, gone: asyncio.Event) -> None:
    """Asks for an answer that takes long. At the signal every third one cancels, the others hang up."""
    answer, images = Answer(), [picture(number)] if number % 4 == 0 else []
    call = stub(channel).Generate(request(f"storm {number}", max_tokens=4000, images=images))
    answer.take(await call.read())
    await gone.wait()
    if number % 3 == 0:
        await stub(channel).Cancel(pb.CancelGenerateRequest(request_id=answer.request_id), timeout=10)
    call.cancel()


async def test_engines_are_free_within_a_second_and_the_next_is_served(mesh: Mesh) -> None:
    """8 slots: most of them wait in the queue, some are in prefill or in decode, some wait for their picture."""
    gone = asyncio.Event()
    async with grpc.aio.insecure_channel(mesh.grpc_addr) as channel:
        leaving = [asyncio.create_task(leave(channel, number, gone)) for number in range(STORM)]
        await asyncio.sleep(1.5)
        gone.set()
        await asyncio.gather(*leaving)
        left = await left_after(mesh, FREE_WITHIN_S)
    assert not [name for name in left if name.endswith(("slots_used", "blocks_used"))], left
    began_s = time.monotonic()
    after = await asyncio.gather(*(ask(mesh.grpc_addr, request(f"after {n}", max_tokens=8)) for n in range(8)))
    assert [(answer.reason, len(answer.tokens), answer.faults) for answer in after] == [("length", 8, [])] * 8
    assert time.monotonic() - began_s < SERVED_WITHIN_S
