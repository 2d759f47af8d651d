"""Log-probabilities through real processes: whole and in order, also when the worker that draws them is killed."""

import asyncio

import grpc.aio
import pytest

from headrace.cli.supervisor import Mesh
from headrace.v1 import gateway_pb2 as pb
from headrace.v1.common_pb2 import TokenLogprobs
from tests.e2e.asking import request, stub


def told(text: str, max_tokens: int) -> pb.GenerateRequest:
    asked = request(text, max_tokens=max_tokens)
    asked.sampling.logprobs = 2
    return asked


async def heard(address: str, asked: pb.GenerateRequest) -> tuple[list[int], list[TokenLogprobs]]:
    tokens, logprobs = list[int](), list[TokenLogprobs]()
    async with grpc.aio.insecure_channel(address) as channel:
        async for event in stub(channel).Generate(asked):
            tokens += event.delta.tokens
            logprobs += event.delta.logprobs
    return tokens, logprobs


@pytest.mark.parametrize("killed", ["", "decode-0", "prefill-0"])
async def test_every_token_comes_with_its_own(mesh: Mesh, killed: str) -> None:
    """The profile engine's likeliest token is the drawn one: an entry at another token's place would show."""
    asking = asyncio.create_task(heard(mesh.grpc_addr, told(f"tell me {killed}", 60)))
    if killed:
        await asyncio.sleep(0.25)
        mesh.kill(killed)
    tokens, logprobs = await asking
    await mesh.until_servable()
    assert len(tokens) == 60
    assert [one.row for one in logprobs] == list(range(60)), "none is lost: gateway and token log have them"
    assert [one.top[0] for one in logprobs] == tokens
    assert all(len(one.top) == len(one.top_text) == 2 and one.text == one.top_text[0] for one in logprobs)
