"""The OpenAI API of a real gateway: formats, statuses, keys, disconnects."""

import asyncio
import base64
import io
import json
from typing import Any

import httpx
import pytest
from openai import APIError, AsyncOpenAI, InternalServerError, RateLimitError
from PIL import Image

from headrace.core.types import End, Failure
from services.gateway.auth import Keys
from services.gateway.capacity import SETTLE_S
from tests.gateway.conftest import Edge, Edges, Options, until
from tests.gateway.standin import Script, StandIn
from tests.model.clip_makers import sound_file, tone, video_file

pytestmark = pytest.mark.timeout(30)
CHAT = "/v1/chat/completions"


def ask(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": "profile-tiny", "messages": [{"role": "user", "content": text}], **more}


def picture() -> str:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def test_whole_answer(edge: Edge) -> None:
    reply = await edge.http.post(CHAT, json=ask())
    body = reply.json()
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "hello"
    assert body["choices"][0]["finish_reason"] == "stop"
    prompt = body["usage"]["prompt_tokens"]
    assert prompt > 10
    assert (body["usage"]["completion_tokens"], body["usage"]["total_tokens"]) == (5, prompt + 5)
    assert body["id"] == "chatcmpl-" + reply.headers["x-request-id"]
    assert "headrace" not in body


async def test_one_event_per_token_then_one_terminal_chunk(edge: Edge) -> None:
    reply = await edge.http.post(CHAT, json=ask(stream=True, stream_options={"include_usage": True}))
    chunks = events(reply.text)
    assert reply.headers["content-type"].startswith("text/event-stream")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0] == {"role": "assistant", "content": "h"}
    assert [delta.get("content") for delta in deltas] == [*"hello", None]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 5 + ["stop"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_usage_is_absent_unless_asked_for(edge: Edge) -> None:
    chunks = events((await edge.http.post(CHAT, json=ask(stream=True))).text)
    assert not any("usage" in chunk for chunk in chunks)


async def test_json_in_tokens_is_escaped(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=tuple('a"\\\n\x01é'.encode()))
    chunks = events((await edge.http.post(CHAT, json=ask(stream=True))).text)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == 'a"\\\n\x01é'


async def test_stop_string_is_trimmed(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=tuple(b"one END"))
    body = (await edge.http.post(CHAT, json=ask(stop=" END"))).json()
    assert body["choices"][0]["message"]["content"] == "one"
    assert cell.requests[-1].sampling.stop == (" END",)


async def test_an_image_reaches_blobs_and_journal(edge: Edge, cell: StandIn) -> None:
    image = {"type": "image_url", "image_url": {"url": picture(), "detail": "low"}}
    body = ask()
    body["messages"][0]["content"] = [image, {"type": "text", "text": "what?"}]
    reply = await edge.http.post(CHAT, json=body)
    (media,) = cell.requests[-1].media
    assert (media.meta.width, media.meta.mime) == (8, "image/png")
    assert reply.json()["usage"]["prompt_tokens_details"]["image_tokens"] == media.tokens
    assert len(edge.blobs.stored[cell.requests[-1].id]) == 1


async def test_the_journal_has_the_last_question_in_short(edge: Edge, cell: StandIn) -> None:
    """Of a long one the beginning and the end: that is what lengths are predicted from."""
    body = ask()
    long = "Sum this up. " + "word " * 1_000 + "In one sentence."
    turns = [("system", "be brief"), ("user", "first"), ("assistant", "yes"), ("user", long)]
    body["messages"] = [{"role": role, "content": text} for role, text in turns]
    await edge.http.post(CHAT, json=body)
    asked = cell.requests[-1].question
    assert asked.startswith("Sum this up. word")
    assert asked.endswith("word In one sentence.")
    assert len(asked) == 512 + 1 + 1_536


async def test_sound_and_video_are_counted_apart(edge: Edge, cell: StandIn) -> None:
    sound = base64.b64encode(sound_file(tone(1.0, 8_000), 8_000, "mp3", "libmp3lame")).decode()
    video = base64.b64encode(video_file([9] * 10, "gif", "gif")).decode()
    body = ask()
    body["messages"][0]["content"] = [
        {"type": "input_audio", "input_audio": {"data": sound, "format": "mp3"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/mpeg;base64,{sound}"}},
        {"type": "video_url", "video_url": {"url": f"data:image/gif;base64,{video}"}},
        {"type": "text", "text": "what?"},
    ]
    details = (await edge.http.post(CHAT, json=body)).json()["usage"]["prompt_tokens_details"]
    one, two, three = cell.requests[-1].media
    assert (one.meta.mime, one.meta.duration_s, one.sha256) == ("audio/mpeg", two.meta.duration_s, two.sha256)
    assert (three.meta.mime, three.meta.width, three.tokens) == ("video/gif", 64, 2 * 9)
    assert (details["image_tokens"], details["audio_tokens"], details["video_tokens"]) == (0, 2 * one.tokens, 18)


async def test_timeline_for_those_who_ask(edge: Edge) -> None:
    headers = {"x-headrace-trace": "1"}
    reply = await edge.http.post(CHAT, json=ask(), headers=headers)
    extras = reply.json()["headrace"]
    assert [stage["stage"] for stage in extras["timeline"]] == ["gateway", "admit", "queue", "prefill"]
    assert extras["trace_id"] == reply.headers["x-headrace-trace-id"]
    chunks = events((await edge.http.post(CHAT, json=ask(stream=True), headers=headers)).text)
    assert chunks[-1]["headrace"]["timeline"]


async def test_traceparent_goes_on(edge: Edge, cell: StandIn) -> None:
    trace, span = "a" * 32, "b" * 16
    for flag, sampled in (("01", True), ("00", False)):
        await edge.http.post(CHAT, json=ask(), headers={"traceparent": f"00-{trace}-{span}-{flag}"})
        assert cell.requests[-1].traceparent.startswith(f"00-{trace}-") == sampled


ENDS = [
    (Script((), End("error", Failure("stage_error", "broken image"))), 500, "stage_error"),
    (Script((), End("error", Failure("invalid_input", "corrupt", "messages")), by_manager=True), 400, "invalid_input"),
    (Script((), End("error", Failure("overloaded", "full", "", 2.0)), by_manager=True), 429, "overloaded"),
    (Script((), End("deadline")), 504, "deadline_exceeded"),
    (Script((), End("cancelled")), 499, "cancelled"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("script", "status", "code"), ENDS, ids=[code for _, _, code in ENDS])
async def test_an_end_before_the_first_token_is_a_status(
    edge: Edge, cell: StandIn, script: Script, status: int, code: str, stream: bool
) -> None:
    cell.script = lambda _: script
    reply = await edge.http.post(CHAT, json=ask(stream=stream))
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert reply.headers["x-request-id"] == cell.requests[-1].id


async def test_an_error_inside_a_stream(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"ab"), End("error", Failure("stage_error", "boom")))
    chunks = events((await edge.http.post(CHAT, json=ask(stream=True))).text)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if "choices" in chunk] == [None, None, "error"]
    assert chunks[-1]["error"]["message"] == "boom"


# --- the official client ---


def openai(edge: Edge, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=edge.url + "/v1", api_key="none", **options)


async def test_openai_client(edge: Edge, cell: StandIn) -> None:
    async with openai(edge) as client:
        whole = await client.chat.completions.create(**ask())
        assert whole.choices[0].message.content == "hello"
        stream = await client.chat.completions.create(
            **ask(stream=True, stream_options={"include_usage": True}), extra_body={"top_k": 5}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "hello"
        assert chunks[-1].usage.completion_tokens == 5
        assert cell.requests[-1].sampling.top_k == 5
        assert [model.id async for model in await client.models.list()] == ["profile-tiny"]
        assert (await client.models.retrieve("profile-tiny")).id == "profile-tiny"


async def test_openai_client_sees_an_error_inside_a_stream(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"ab"), End("error", Failure("stage_error", "boom")))
    async with openai(edge) as client:
        stream = await client.chat.completions.create(**ask(stream=True))
        with pytest.raises(APIError, match="boom"):
            [chunk async for chunk in stream]


async def test_openai_client_and_overload(edge: Edge, cell: StandIn) -> None:
    cell.queued = cell.queue_limit = 7
    await until(lambda: (c := edge.front.gateway.cell) and c.classes["interactive"].limit == 7)
    async with openai(edge, max_retries=0) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.chat.completions.create(**ask())
    assert caught.value.response.headers["retry-after-ms"] == "2500"
    assert cell.requests == []


async def test_no_workers_is_unavailable(edge: Edge, cell: StandIn) -> None:
    cell.servable = False
    await until(lambda: (c := edge.front.gateway.cell) and not c.modalities)
    async with openai(edge, max_retries=0) as client:
        with pytest.raises(InternalServerError) as caught:
            await client.chat.completions.create(**ask())
    assert caught.value.status_code == 503


async def test_a_new_leadership_that_has_heard_nobody_yet_refuses_nobody(edge: Edge, cell: StandIn) -> None:
    """Its first statuses name no worker, though all of them live."""
    cell.epoch, cell.servable = 2, False
    await until(lambda: (c := edge.front.gateway.cell) and not c.modalities)
    assert (await edge.http.post(CHAT, json=ask())).status_code == 200
    await asyncio.sleep(SETTLE_S)
    assert (await edge.http.post(CHAT, json=ask())).status_code == 503, "by now it has heard whoever lives"


# --- one request, many calls ---


async def test_same_key_same_body_is_the_same_request(edge: Edge, cell: StandIn) -> None:
    headers = {"idempotency-key": "k-same"}
    replies = await asyncio.gather(*(edge.http.post(CHAT, json=ask(), headers=headers) for _ in range(4)))
    replies.append(await edge.http.post(CHAT, json=ask(stream=True), headers=headers))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.headers["x-request-id"] for reply in replies}) == 1
    assert len(cell.requests) == 1


async def test_same_key_other_body_is_a_conflict(edge: Edge) -> None:
    headers = {"x-request-id": "k-conflict"}
    assert (await edge.http.post(CHAT, json=ask("one"), headers=headers)).status_code == 200
    reply = await edge.http.post(CHAT, json=ask("two"), headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "idempotency_conflict")


async def test_another_gateway_knows_the_key_from_results(edge: Edge, edges: Edges, cell: StandIn) -> None:
    headers = {"idempotency-key": "k-results"}
    first = await edge.http.post(CHAT, json=ask(), headers=headers)
    other = await edges.start("gw-b")
    await until(lambda: not cell.running)
    again = await other.http.post(CHAT, json=ask(), headers=headers)
    conflict = await other.http.post(CHAT, json=ask("other"), headers=headers)
    assert again.json()["choices"] == first.json()["choices"]
    assert (len(cell.requests), conflict.status_code) == (1, 409)


async def test_attach_at_another_gateway_moves_the_stream(edge: Edge, edges: Edges, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"abcdefgh"), wait_s=0.1)
    other = await edges.start("gw-b")
    first = asyncio.ensure_future(edge.http.post(CHAT, json=ask(stream=True)))
    await until(lambda: cell.running and next(iter(cell.running.values())).sent >= 3)
    request_id = cell.requests[-1].id
    attached = events((await other.http.get(f"/v1/requests/{request_id}/events?next_index=2")).text)
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in attached if chunk["choices"])
    assert text == "cdefgh"
    moved = events((await first).text)
    assert moved[-1]["error"]["code"] == "cancelled"
    assert "abc".startswith(moved[0]["choices"][0]["delta"]["content"])
    assert f"cancel {request_id}" not in cell.heard


async def test_attach_after_the_end(edge: Edge, edges: Edges, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=tuple(b"one END"))
    request_id = (await edge.http.post(CHAT, json=ask(stop=" END"))).headers["x-request-id"]
    other = await edges.start("gw-b")
    await until(lambda: not cell.running)
    for gateway in (edge, other):
        chunks = events((await gateway.http.get(f"/v1/requests/{request_id}/events?next_index=1")).text)
        assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == "ne"
        assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


async def test_attach_to_nothing(edge: Edge) -> None:
    for path, status in (("f" * 32, 404), ("nonsense", 400), ("f" * 32 + "?next_index=-1", 400)):
        name, _, query = path.partition("?")
        assert (await edge.http.get(f"/v1/requests/{name}/events?{query}")).status_code == status


async def test_lost_messages_are_asked_for(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"hello"), lose=frozenset({1, 2}), lose_end=True)
    reply = await edge.http.post(CHAT, json=ask(stream=True))
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in events(reply.text))
    assert text == "hello"
    assert any(heard.startswith("stalled") for heard in cell.heard)


async def test_a_lost_end_is_found_in_results(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"hello"), lose=frozenset(range(5)), lose_end=True)
    assert (await edge.http.post(CHAT, json=ask())).json()["choices"][0]["message"]["content"] == "hello"


# --- leaving ---


async def leave_early(edge: Edge, cell: StandIn, **more: Any) -> str:
    cell.script = lambda _: Script(tuple(b"x" * 200), wait_s=0.05)
    client = httpx.AsyncClient(base_url=edge.url)
    task = asyncio.ensure_future(client.post(CHAT, json=ask(**more)))
    await until(lambda: cell.running)
    await asyncio.sleep(0.2)
    task.cancel()
    await client.aclose()
    return cell.requests[-1].id


@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnect_cancels_within_a_second(edge: Edge, cell: StandIn, stream: bool) -> None:
    request_id = await leave_early(edge, cell, stream=stream)
    await until(lambda: f"cancel {request_id}" in cell.heard, 1.0)
    await until(lambda: len(edge.front.gateway.streams) == 0, 1.0)


async def test_a_request_may_outlive_its_connection(edge: Edge, cell: StandIn) -> None:
    request_id = await leave_early(edge, cell, stream=True, keep_on_disconnect=True)
    await asyncio.sleep(1.0)
    assert f"cancel {request_id}" not in cell.heard
    assert (await edge.http.delete(f"/v1/requests/{request_id}")).json()["known"] is True
    await until(lambda: f"cancel {request_id}" in cell.heard)


async def test_cancel_at_another_gateway(edge: Edge, edges: Edges, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"x" * 200), wait_s=0.05)
    other = await edges.start("gw-b")
    first = asyncio.ensure_future(edge.http.post(CHAT, json=ask()))
    await until(lambda: cell.running)
    request_id = cell.requests[-1].id
    assert (await other.http.delete(f"/v1/requests/{request_id}")).status_code == 200
    assert (await first).status_code == 499
    assert (await other.http.delete("/v1/requests/" + "0" * 32)).status_code == 404


async def test_the_sdk_says_how_long_it_waits(edge: Edge, cell: StandIn) -> None:
    await edge.http.post(CHAT, json=ask(), headers={"x-stainless-read-timeout": "33"})
    request = cell.requests[-1]
    assert 32.0 < request.deadline_s - request.accepted_s <= 33.0


# --- the rest ---


async def test_keys(edges: Edges, tmp_path: Any) -> None:
    path = tmp_path / "keys"
    path.write_text("# keys\nsecret-1 alice\nsecret-2 bob\n")
    edge = await edges.start(options=Options(keys=Keys.read(str(path))))
    for key, status in (("", 401), ("Bearer wrong", 401), ("Bearer secret-1", 200)):
        reply = await edge.http.post(CHAT, json=ask(), headers={"authorization": key})
        assert reply.status_code == status
    request_id = reply.headers["x-request-id"]
    assert edges.cell.requests[-1].tenant == "alice"
    for key, status in (("secret-2", 404), ("secret-1", 200)):
        attached = await edge.http.get(f"/v1/requests/{request_id}/events", headers={"authorization": f"Bearer {key}"})
        assert attached.status_code == status


async def test_pages(edge: Edge) -> None:
    await edge.http.post(CHAT, json=ask())
    assert (await edge.http.get("/health")).json() == {"status": "ok", "models": {"profile-tiny": True}}
    metrics = (await edge.http.get("/metrics")).text
    assert 'vllm:time_to_first_token_seconds_count{model_name="profile-tiny"} 1.0' in metrics
    assert 'vllm:request_success_total{finished_reason="stop",model_name="profile-tiny"} 1.0' in metrics
    assert "headrace_accepted_total 1.0" in metrics
    document = (await edge.http.get("/openapi.json")).json()
    assert "max_completion_tokens" in document["components"]["schemas"]["ChatRequest"]["properties"]
    assert (await edge.http.get("/nothing")).json()["error"]["code"] == "not_found"
    assert (await edge.http.get(CHAT)).status_code == 405


async def test_draining(edge: Edge) -> None:
    edge.front.admission.draining = True
    assert (await edge.http.get("/health")).status_code == 503
    assert (await edge.http.post(CHAT, json=ask())).status_code == 503
