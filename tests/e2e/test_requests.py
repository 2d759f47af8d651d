"""A request through real processes: streamed, cancelled, attached, repeated; afterwards nothing is held."""

import asyncio
import time
import uuid

import grpc
import grpc.aio
import pytest

from headrace.cli.supervisor import Mesh
from headrace.client import operator
from headrace.v1 import gateway_pb2 as pb
from tests.e2e.asking import Answer, ask, attach, follow, picture, read, request, stub
from tests.e2e.leaks import assert_free
from tests.e2e.meshes import until_heard

# The contract of cancel, disconnect and deadline, at every stage.
FREE_WITHIN_S = 1.0


def key() -> str:
    return uuid.uuid4().hex


def gateways(mesh: Mesh) -> list[str]:
    return [mesh.addresses.grpc["gateway-0"], mesh.addresses.grpc["gateway-1"]]


async def test_text_is_streamed(mesh: Mesh) -> None:
    answer = await ask(mesh.grpc_addr, request("hello", max_tokens=20))
    assert (answer.reason, len(answer.tokens), answer.faults) == ("length", 20, [])
    assert answer.text
    assert answer.end is not None
    assert answer.end.usage.completion_tokens == 20
    stages = [span.stage for span in answer.end.timeline]
    assert {"gateway", "queue", "prefill", "decode"} <= set(stages), stages


async def test_images_in_order_decide_the_answer(mesh: Mesh) -> None:
    """The profile engine's tokens are a hash of all it was given: another order is another answer."""
    one, two = picture(1), picture(2)
    answers = [
        await ask(mesh.grpc_addr, request("which?", images=images, max_tokens=12))
        for images in ([one, two], [two, one], [one, two])
    ]
    assert [answer.reason for answer in answers] == ["length"] * 3
    assert answers[0].tokens == answers[2].tokens
    assert answers[0].tokens != answers[1].tokens
    assert answers[0].end is not None
    assert answers[0].end.usage.image_tokens == 2 * 6, "four of a picture, one before and one after"
    assert sum(span.stage == "encode" for span in answers[0].end.timeline) == 2


async def test_many_at_once(mesh: Mesh) -> None:
    asked = [request(f"question {n}", images=[picture(n)] * (n % 3), max_tokens=5 + n % 7) for n in range(24)]
    answers = await asyncio.gather(*(ask(gateways(mesh)[n % 2], message) for n, message in enumerate(asked)))
    assert [answer.faults for answer in answers] == [[]] * 24
    assert [len(answer.tokens) for answer in answers] == [5 + n % 7 for n in range(24)]
    assert len({answer.request_id for answer in answers}) == 24


async def test_one_token_needs_no_decode_worker(mesh: Mesh) -> None:
    answer = await ask(mesh.grpc_addr, request("short", max_tokens=1))
    assert (answer.reason, len(answer.tokens), answer.faults) == ("length", 1, [])


@pytest.mark.parametrize("tokens_first", [0, 1, 10], ids=["before the first token", "after prefill", "in decode"])
async def test_cancel_frees_everything_within_a_second(mesh: Mesh, tokens_first: int) -> None:
    answer = Answer()
    async with grpc.aio.insecure_channel(mesh.grpc_addr) as channel:
        call = stub(channel).Generate(request("cancel me", max_tokens=4000, images=[picture(3)]))
        async for event in call:
            answer.take(event)
            if answer.request_id and len(answer.tokens) >= tokens_first and answer.end is None:
                await stub(channel).Cancel(pb.CancelGenerateRequest(request_id=answer.request_id), timeout=5)
                cancelled_s = time.monotonic()
                break
        await read(call, answer)
    assert answer.reason == "cancelled"
    await assert_free(mesh, FREE_WITHIN_S - (time.monotonic() - cancelled_s))


@pytest.mark.parametrize("tokens_first", [1, 10])
async def test_a_lost_connection_frees_everything_within_a_second(mesh: Mesh, tokens_first: int) -> None:
    answer = Answer()
    async with grpc.aio.insecure_channel(mesh.grpc_addr) as channel:
        call = stub(channel).Generate(request("leave me", max_tokens=4000))
        async for event in call:
            answer.take(event)
            if len(answer.tokens) >= tokens_first:
                call.cancel()
                break
    await assert_free(mesh, FREE_WITHIN_S)


async def test_a_deadline_ends_the_request_and_frees_everything(mesh: Mesh) -> None:
    began_s = time.monotonic()
    answer = await ask(mesh.grpc_addr, request("too long", max_tokens=4000, timeout_s=0.7))
    took_s = time.monotonic() - began_s
    assert answer.reason == "deadline"
    assert answer.tokens, "what was ready in time is delivered"
    assert 0.6 < took_s < 0.7 + FREE_WITHIN_S
    await assert_free(mesh, FREE_WITHIN_S)


async def test_attach_at_another_gateway_goes_on_where_it_stood(mesh: Mesh) -> None:
    message = request("move me", max_tokens=80, key=key(), keep=True)
    answer = Answer()
    async with grpc.aio.insecure_channel(gateways(mesh)[0]) as channel:
        call = stub(channel).Generate(message)
        async for event in call:
            answer.take(event)
            if len(answer.tokens) >= 5:
                call.cancel()
                break
    await attach(gateways(mesh)[1], answer)
    assert (answer.reason, len(answer.tokens), answer.faults) == ("length", 80, [])
    undisturbed = await ask(mesh.grpc_addr, request("move me", max_tokens=80))
    assert answer.tokens == undisturbed.tokens


async def test_attach_after_the_end_reads_the_result(mesh: Mesh) -> None:
    first = await ask(mesh.grpc_addr, request("ended", max_tokens=9))
    again = Answer(request_id=first.request_id, tokens=first.tokens[:4])
    await attach(gateways(mesh)[1], again)
    assert (again.tokens, again.reason, again.faults) == (first.tokens, "length", [])


async def test_attach_to_nothing_is_not_found(mesh: Mesh) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await attach(mesh.grpc_addr, Answer(request_id="0" * 32))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_same_key_is_the_same_request(mesh: Mesh) -> None:
    name = key()
    first, second = await asyncio.gather(
        ask(gateways(mesh)[0], request("once", max_tokens=30, key=name)),
        ask(gateways(mesh)[1], request("once", max_tokens=30, key=name, keep=True)),
        return_exceptions=True,
    )
    answers = [answer for answer in (first, second) if isinstance(answer, Answer)]
    assert answers, (first, second)
    later = await ask(gateways(mesh)[1], request("once", max_tokens=30, key=name))
    assert {answer.request_id for answer in answers} == {later.request_id}
    assert later.tokens == max((answer.tokens for answer in answers), key=len)


async def test_the_same_key_with_another_body_is_a_conflict(mesh: Mesh) -> None:
    name = key()
    await ask(mesh.grpc_addr, request("this", key=name))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(gateways(mesh)[1], request("that", key=name))
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_a_drained_worker_is_missed_by_nobody(mesh: Mesh) -> None:
    """SIGTERM: its requests move or finish, none is lost, none is blamed."""
    asked = [request(f"drain {n}", max_tokens=60, key=key(), keep=True) for n in range(6)]
    running = [asyncio.create_task(follow(gateways(mesh), message)) for message in asked]
    await asyncio.sleep(0.3)
    await mesh.restart("decode-0")
    answers = await asyncio.gather(*running)
    assert [(answer.reason, len(answer.tokens), answer.faults) for answer in answers] == [("length", 60, [])] * 6


async def test_a_killed_workers_lease_is_not_taken_for_its_successor(mesh: Mesh) -> None:
    """It is listed for two seconds more; whoever counts on that is refused when they are over."""
    killed_s = time.time()
    mesh.kill("prefill-0")
    await until_heard(mesh)
    cell = await operator.cell_status(mesh.addresses.grpc["qm-0"])
    assert {worker.worker for worker in cell.workers if worker.last_seen_s > killed_s + 0.1} == set(mesh.workers)


async def test_a_drained_gateway_lets_its_streams_end(mesh: Mesh) -> None:
    asked = [request(f"gateway drain {n}", max_tokens=60, key=key(), keep=True) for n in range(4)]
    running = [asyncio.create_task(follow(gateways(mesh), message, first=1)) for message in asked]
    await asyncio.sleep(0.3)
    await mesh.restart("gateway-1")
    answers = await asyncio.gather(*running)
    assert [(answer.reason, len(answer.tokens), answer.faults) for answer in answers] == [("length", 60, [])] * 4
