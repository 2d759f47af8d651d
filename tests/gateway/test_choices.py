"""Several answers to one question: requests of their own, one response; they come, fail and are cancelled together."""

import asyncio
import json
from collections import Counter
from typing import Any

import httpx
import pytest

from headrace.core.errors import Unavailable
from headrace.core.types import End, Failure, Request
from services.gateway.admission import Journal, choice_id
from tests.gateway.conftest import Edge, Edges, until
from tests.gateway.standin import Script, StandIn
from tests.gateway.test_http import picture

pytestmark = pytest.mark.timeout(30)
CHAT = "/v1/chat/completions"


def ask(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}], "n": 3, **more}


def numbered(request: Request) -> Script:
    """Each answers with its number, so many times, at its own pace."""
    index = int(request.id[-2:], 16) - BASE.get(request.id[:-2], int(request.id[-2:], 16))
    BASE.setdefault(request.id[:-2], int(request.id[-2:], 16))
    return Script(tokens=tuple(str(index).encode() * (index + 2)), wait_s=0.01 * (3 - index))


BASE: dict[str, int] = {}


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def test_whole(edge: Edge, cell: StandIn) -> None:
    cell.script = numbered
    reply = await edge.http.post(CHAT, json=ask())
    body = reply.json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["00", "111", "2222"]
    assert body["usage"]["prompt_tokens"] == len(cell.requests[0].prompt.tokens), "the question counts once"
    assert body["usage"]["completion_tokens"] == 2 + 3 + 4
    ids = reply.headers["x-headrace-choices"].split(",")
    assert [request.id for request in cell.requests] == ids == [choice_id(ids[0], index) for index in range(3)]
    assert body["id"] == f"chatcmpl-{ids[0]}"


async def test_streamed_as_they_come(edge: Edge, cell: StandIn) -> None:
    cell.script = numbered
    reply = await edge.http.post(CHAT, json=ask(stream=True, stream_options={"include_usage": True}))
    chunks = events(reply.text)
    usage = chunks.pop()
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 9)
    texts, roles, reasons = Counter[int](), Counter[int](), Counter[int]()
    order = []
    for chunk in chunks:
        (choice,) = chunk["choices"]
        order.append(choice["index"])
        assert set(choice["delta"].get("content", "")) <= {str(choice["index"])}
        texts[choice["index"]] += len(choice["delta"].get("content", ""))
        roles[choice["index"]] += "role" in choice["delta"]
        reasons[choice["index"]] += choice["finish_reason"] == "stop"
    assert texts == {0: 2, 1: 3, 2: 4}
    assert (roles, reasons) == ({0: 1, 1: 1, 2: 1}, {0: 1, 1: 1, 2: 1})
    assert order != sorted(order), "interleaved"
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_seeds_differ_and_the_first_is_what_it_is_alone(edge: Edge, cell: StandIn) -> None:
    await edge.http.post(CHAT, json=ask(seed=7, temperature=1.0))
    several = [request.sampling.seed for request in cell.requests]
    await edge.http.post(CHAT, json=ask(seed=7, temperature=1.0, n=1))
    assert several[0] == cell.requests[-1].sampling.seed == 7
    assert len(set(several)) == 3
    assert all(0 <= seed < 2**63 for seed in several)
    cell.requests.clear()
    await edge.http.post(CHAT, json=ask(temperature=1.0))
    assert len({request.sampling.seed for request in cell.requests}) == 3
    assert {request.choices for request in cell.requests} == {3, 0}


async def test_a_picture_is_stored_for_each(edge: Edge, cell: StandIn) -> None:
    body = ask(n=2)
    body["messages"][0]["content"] = [{"type": "image_url", "image_url": {"url": picture()}}]
    assert (await edge.http.post(CHAT, json=body)).status_code == 200
    assert [len(edge.blobs.stored[request.id]) for request in cell.requests] == [1, 1]
    assert len({request.media[0].sha256 for request in cell.requests}) == 1


@pytest.mark.parametrize("by", ["leaving", "its id"])
async def test_cancelled_together(edge: Edge, cell: StandIn, by: str) -> None:
    cell.script = lambda _: Script(tokens=tuple(b"x" * 1000), wait_s=0.02)
    async with edge.http.stream("POST", CHAT, json=ask(stream=True)) as reply:
        first = reply.headers["x-request-id"]
        await until(lambda: len(cell.running) == 3)
        if by == "its id":
            await edge.http.delete(f"/v1/requests/{first}")
            assert "error" in (await reply.aread()).decode()
    await until(lambda: not cell.running)
    assert len({line for line in cell.heard if line.startswith("cancel")}) == 3


async def test_a_key_names_all_of_them(edge: Edge, cell: StandIn) -> None:
    cell.script = numbered
    headers = {"idempotency-key": "several"}
    first, again = [await edge.http.post(CHAT, json=ask(), headers=headers) for _ in range(2)]
    assert first.json()["choices"] == again.json()["choices"]
    assert len(cell.requests) == 3, "nothing ran twice"
    for other in (ask(n=2), ask(n=1), ask(temperature=1.0)):
        assert (await edge.http.post(CHAT, json=other, headers=headers)).status_code == 409


async def test_each_goes_on_at_another_gateway(edges: Edges, edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=tuple(b"y" * 60), wait_s=0.01)
    other = await edges.start("gw-b")
    body = ask(stream=True, keep_on_disconnect=True)
    async with edge.http.stream("POST", CHAT, json=body) as reply:
        ids = reply.headers["x-headrace-choices"].split(",")
        async for _ in reply.aiter_bytes():
            break
    rest = await asyncio.gather(*(other.http.get(f"/v1/requests/{one}/events") for one in ids))
    for one in rest:
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in events(one.text)[:-1]) == "y" * 60


async def test_one_that_fails_ends_the_response_with_its_error(edge: Edge, cell: StandIn) -> None:
    bad = End("error", Failure("stage_error", "no"))

    def script(request: Request) -> Script:
        return Script(b"zz", wait_s=0.01) if request.choices else Script(b"z", bad, wait_s=0.05)

    cell.script = script
    assert (await edge.http.post(CHAT, json=ask(n=2))).status_code == 500
    chunks = events((await edge.http.post(CHAT, json=ask(n=2, stream=True))).text)
    assert chunks[-1]["error"]["code"] == "stage_error"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1] if chunk["choices"][0]["finish_reason"]]
    assert sorted(reasons) == ["error", "stop"]


async def test_admission_counts_all_of_them(edge: Edge, cell: StandIn) -> None:
    """The last two places of a class: two answers come in, three do not, and none of the three is left behind."""

    async def full(body: dict[str, Any]) -> httpx.Response:
        cell.queued = cell.queue_limit - 2
        await until(lambda: edge.front.gateway.cell and edge.front.gateway.cell.classes["interactive"].queued)
        return await edge.http.post(CHAT, json=body)

    assert (await full(ask())).status_code == 429
    assert cell.requests == []
    assert (await full(ask(n=2))).status_code == 200


class Full:
    """A journal that takes one record and then no more."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._left = journal, 1

    async def append(self, request: Request) -> bool:
        self._left -= 1
        if self._left < 0:
            raise Unavailable("the journal is full", retry_after_s=1.0)
        return await self._journal.append(request)


async def test_if_one_cannot_be_journaled_none_is_answered(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=tuple(b"x" * 500), wait_s=0.02)
    edge.front.admission._journal = Full(edge.front.admission._journal)
    assert (await edge.http.post(CHAT, json=ask())).status_code == 503
    await until(lambda: len(cell.requests) == 1 and not cell.running)
