"""/v1/batches through a gateway whose cell is a stand-in: checks, answers, errors, refusals, cancels, deadlines."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from headrace.core.slo import CLASSES, Classes
from headrace.core.types import End, Failure, Request
from headrace.mesh import servers
from headrace.mesh.errors import BadSetup
from services.gateway import batch_crew, batch_lines_run, batch_run
from services.gateway.batch_errand import Asgi
from services.gateway.batch_lines import Check
from services.gateway.batch_windows import windows_of
from services.gateway.front import Front
from services.gateway.http_reply import Disconnects, Receive, Send
from tests.gateway.batching import CHAT, Office, begin, content, ended, jsonl, line, office, upload
from tests.gateway.conftest import Edges, until
from tests.gateway.standin import Script, StandIn

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of these tests alone: records stay, and a gateway takes every batch that it sees."""
    server = servers.nats_server(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for comes sooner than to people."""
    monkeypatch.setattr(batch_lines_run, "RETRY_S", 0.1)
    monkeypatch.setattr(batch_run, "RENEW_S", 0.2)
    monkeypatch.setattr(batch_crew, "FAILED_S", 0.2)


@pytest.fixture
async def desk(edges: Edges, tmp_path: Path) -> AsyncIterator[Office]:
    async with office(await edges.start(), tmp_path, batches_open=2, batch_lines=100) as running:
        yield running


def ids(lines: list[dict[str, Any]]) -> list[str]:
    return sorted(one["custom_id"] for one in lines)


async def test_the_openai_client_gets_every_answer_and_every_error(desk: Office, cell: StandIn) -> None:
    lines = [line(0), line(1, model="no-such"), line(2, temperature=9), line(3), line(4, colour="red")]
    async with AsyncOpenAI(base_url=f"{desk.url}/v1", api_key="x", max_retries=0) as client:
        file = await client.files.create(file=("in.jsonl", jsonl(lines) + b"\n  \n"), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"why": "test"},
        )
        assert (batch.status, batch.metadata) == ("validating", {"why": "test"})
        await ended(desk.http, batch.id)
        batch = await client.batches.retrieve(batch.id)
        assert (batch.status, batch.errors) == ("completed", None)
        assert batch.request_counts is not None
        assert batch.request_counts.model_dump() == {"total": 5, "completed": 2, "failed": 3}
        assert None not in (batch.in_progress_at, batch.finalizing_at, batch.completed_at)
        assert batch.output_file_id is not None
        text = (await client.files.content(batch.output_file_id)).text
        assert [one.id for one in (await client.batches.list(limit=1)).data] == [batch.id]
    answers = [json.loads(one) for one in text.splitlines()]
    assert ids(answers) == ["line-0", "line-3"]
    reply = answers[0]["response"]
    assert (reply["status_code"], answers[0]["error"]) == (200, None)
    assert reply["body"]["choices"][0]["message"]["content"] == "hello"
    assert reply["body"]["id"] == "chatcmpl-" + reply["request_id"]
    errors = await content(desk.http, batch.error_file_id)
    assert {one["custom_id"]: one["response"]["status_code"] for one in errors} == {
        "line-1": 404,
        "line-2": 400,
        "line-4": 400,
    }
    assert {one["response"]["body"]["error"]["param"] for one in errors} == {"model", "temperature", "colour"}
    assert {request.slo_class for request in cell.requests} == {"batch-2"}
    assert all(request.keep_on_disconnect for request in cell.requests)


BAD_FILES: dict[str, tuple[bytes, list[tuple[str, int | None]]]] = {
    "nothing in it": (b"\n\n", [("empty_file", None)]),
    "no JSON": (jsonl([line(0)]) + b"{oops\n", [("invalid_json_line", 2)]),
    "not a request": (b'{"custom_id": "a"}\n', [("invalid_json_line", 1)]),
    "twice the same id": (jsonl([line(0), line(1), line(0)]), [("duplicate_custom_id", 3)]),
    "an empty id": (jsonl([line(0) | {"custom_id": ""}]), [("invalid_custom_id", 1)]),
    "another method": (jsonl([line(0) | {"method": "GET"}]), [("invalid_method", 1)]),
    "another endpoint": (jsonl([line(0) | {"url": "/v1/other"}]), [("invalid_url", 1)]),
    "a body that is none": (jsonl([line(0) | {"body": [1]}]), [("invalid_request", 1)]),
    "a stream": (jsonl([line(0, stream=True), line(1, stream=False)]), [("invalid_request", 1)]),
    "too many lines": (jsonl([line(number) for number in range(101)]), [("too_many_tasks", None)]),
    "bytes": (b"\xff\xfe\n", [("invalid_json_line", 1)]),
    "bytes in a body": (jsonl([line(0, stream="x")]).replace(b'"x"', b'"\xff"'), [("invalid_json_line", 1)]),
    "a number beyond all": (jsonl([line(0, stream=7)]).replace(b"7", b"1e999"), [("invalid_json_line", 1)]),
}


@pytest.mark.parametrize(("data", "errors"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_is_wrong_with_a_file_is_told_by_line(data: bytes, errors: list[tuple[str, int | None]]) -> None:
    check = Check(CHAT, 100)
    for text in data.splitlines(keepends=True):
        if text.strip():
            check.feed(text)
    check.end()
    assert [(one.code, one.line) for one in check.errors] == errors


async def test_a_bad_file_fails_before_anything_runs(desk: Office, cell: StandIn) -> None:
    batch = await begin(desk.http, jsonl([line(0)]) + b"{oops\n")
    batch = await ended(desk.http, batch["id"])
    assert (batch["status"], batch["output_file_id"]) == ("failed", None)
    assert [(one["code"], one["line"]) for one in batch["errors"]["data"]] == [("invalid_json_line", 2)]
    assert cell.requests == []


REFUSED = {
    "another endpoint": ({"endpoint": "/v1/images"}, 400, "endpoint"),
    "another window": ({"completion_window": "3d"}, 400, "completion_window"),
    "no such file": ({"input_file_id": "file-" + "0" * 32}, 404, "input_file_id"),
    "no id at all": ({"input_file_id": "../../etc"}, 400, "input_file_id"),
    "too much metadata": ({"metadata": {str(n): "x" for n in range(17)}}, 400, "metadata"),
    "unknown": ({"colour": "red"}, 400, "body"),
}


@pytest.mark.parametrize(("change", "status", "field"), REFUSED.values(), ids=REFUSED)
async def test_refused_at_the_desk(desk: Office, change: dict[str, Any], status: int, field: str) -> None:
    body = {"input_file_id": "file-" + "1" * 32, "endpoint": CHAT, "completion_window": "24h", **change}
    reply = await desk.http.post("/v1/batches", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, field)


async def test_open_batches_are_bounded_and_a_cancelled_one_makes_room(desk: Office, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"x" * 50), wait_s=0.1)
    first = await begin(desk.http, jsonl([line(number) for number in range(3)]))
    second = await begin(desk.http, jsonl([line(9)]))
    body = {"input_file_id": first["input_file_id"], "endpoint": CHAT, "completion_window": "24h"}
    refused = await desk.http.post("/v1/batches", json=body)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    await until(lambda: len(cell.running) == 4)
    cancelling = (await desk.http.post(f"/v1/batches/{first['id']}/cancel")).json()
    assert cancelling["status"] == "cancelling"
    batch = await ended(desk.http, first["id"], 5.0)
    assert (batch["status"], batch["request_counts"]) == ("cancelled", {"total": 3, "completed": 0, "failed": 3})
    errors = await content(desk.http, batch["error_file_id"])
    assert ids(errors) == ["line-0", "line-1", "line-2"]
    assert {one["error"]["code"] for one in errors} == {"batch_cancelled"}
    assert sum(heard.startswith("cancel ") for heard in cell.heard) >= 3
    again = await desk.http.post("/v1/batches", json=body)
    assert again.status_code == 200
    for one in (again.json()["id"], second["id"]):
        await desk.http.post(f"/v1/batches/{one}/cancel")
        await ended(desk.http, one, 5.0)


async def test_refusals_are_waited_for_and_passing_failures_tried_again(desk: Office, cell: StandIn) -> None:
    """A full queue before acceptance, an expiry after it, a lost time, and one that fails for good."""
    seen: dict[str, int] = {}

    def script(request: Request) -> Script:
        name = request.question.split()[-1]
        seen[name] = seen.get(name, 0) + 1
        if name == "1" and seen[name] <= 2:
            return Script((), End("error", Failure("ttl_expired", "waited long enough", retry_after_s=0.1)))
        if name == "2" and seen[name] == 1:
            return Script((), End("deadline"))
        if name == "3":
            return Script((), End("error", Failure("stage_error", "killed three workers")))
        if name == "4":
            return Script((), End("deadline"))
        return Script()

    cell.script = script
    cell.servable = False  # 503 before anything is accepted
    await until(lambda: desk.edge.front.gateway.cell is not None and not desk.edge.front.servable("profile-tiny"))
    batch = await begin(desk.http, jsonl([line(number) for number in range(5)]))
    await until(lambda: desk.edge.front.gateway.metrics.refused["unavailable"] >= 5)
    assert cell.requests == []
    cell.servable = True
    batch = await ended(desk.http, batch["id"])
    assert batch["request_counts"] == {"total": 5, "completed": 3, "failed": 2}
    assert seen == {"0": 1, "1": 3, "2": 2, "3": 1, "4": 3}
    errors = {one["custom_id"]: one for one in await content(desk.http, batch["error_file_id"])}
    assert {name: one["response"]["status_code"] for name, one in errors.items()} == {"line-3": 500, "line-4": 504}


async def test_what_has_not_ended_in_its_window_expires(edges: Edges, cell: StandIn, tmp_path: Path) -> None:
    cell.script = lambda request: Script(wait_s=30.0 if request.question.endswith("1") else 0.0)
    async with office(await edges.start(), tmp_path, batch_windows=("1s=batch-2",)) as desk:
        batch = await begin(desk.http, jsonl([line(0), line(1)]), completion_window="1s")
        batch = await ended(desk.http, batch["id"])
        assert (batch["status"], batch["request_counts"]) == ("expired", {"total": 2, "completed": 1, "failed": 1})
        assert [one["error"]["code"] for one in await content(desk.http, batch["error_file_id"])] == ["batch_expired"]
        assert ids(await content(desk.http, batch["output_file_id"])) == ["line-0"]


async def test_at_most_so_many_lines_are_at_work(edges: Edges, cell: StandIn, tmp_path: Path) -> None:
    cell.script = lambda _: Script(wait_s=0.02)
    most = 0
    async with office(await edges.start(), tmp_path, batch_inflight=4) as desk:
        batch = await begin(desk.http, jsonl([line(number) for number in range(20)]))
        while (await desk.http.get(f"/v1/batches/{batch['id']}")).json()["status"] in ("validating", "in_progress"):
            most = max(most, len(cell.running))
            await asyncio.sleep(0.01)
        batch = await ended(desk.http, batch["id"])
    assert (batch["request_counts"]["completed"], most) == (20, 4)


WINDOWS = {
    "built in": ((), BUILT := Classes(CLASSES), {"24h": "batch-2", "1h": "batch-1"}),
    "their classes unknown": ((), Classes({"x": CLASSES["interactive"]}, "x"), {"24h": "x", "1h": "x"}),
    "said": (("30m=interactive",), BUILT, {"30m": "interactive"}),
}


@pytest.mark.parametrize(("said", "classes", "found"), WINDOWS.values(), ids=WINDOWS)
def test_windows(said: tuple[str, ...], classes: Classes, found: dict[str, str]) -> None:
    assert {name: window.slo_class for name, window in windows_of(said, classes).items()} == found


@pytest.mark.parametrize("said", ["24h", "0h=batch-2", "25h=batch-2", "1h=nobody"])
def test_bad_windows_are_named(said: str) -> None:
    with pytest.raises(BadSetup, match="HEADRACE_BATCH_WINDOWS"):
        windows_of((said,), BUILT)


async def test_a_line_that_breaks_its_endpoint_breaks_no_other(edges: Edges, tmp_path: Path) -> None:
    def endpoint(front: Front, disconnects: Disconnects) -> Asgi:
        async def answer(scope: Any, receive: Receive, send: Send) -> None:
            assert json.loads((await receive())["body"])["n"] != 1, "a bug"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

        return answer

    edge = await edges.start()
    async with office(edge, tmp_path, {"/v1/other": endpoint}) as desk:
        lines = [{"custom_id": str(n), "method": "POST", "url": "/v1/other", "body": {"n": n}} for n in range(3)]
        batch = await ended(desk.http, (await begin(desk.http, jsonl(lines), endpoint="/v1/other"))["id"])
        assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
        (error,) = await content(desk.http, batch["error_file_id"])
        assert (error["custom_id"], error["response"]["status_code"]) == ("1", 500)


async def test_a_full_queue_is_waited_for(edges: Edges, cell: StandIn, tmp_path: Path) -> None:
    cell.queued, cell.queue_limit, cell.wait_s = 2, 2, 0.1
    edge = await edges.start()
    async with office(edge, tmp_path, batch_windows=("24h=interactive",)) as desk:
        await until(
            lambda: edge.front.gateway.cell is not None and edge.front.gateway.cell.classes["interactive"].queued
        )
        batch = await begin(desk.http, jsonl([line(number) for number in range(4)]))
        await until(lambda: edge.front.gateway.metrics.refused["overloaded"] >= 4)
        assert cell.requests == []
        cell.queued = 0
        batch = await ended(desk.http, batch["id"])
    assert batch["request_counts"] == {"total": 4, "completed": 4, "failed": 0}


async def test_a_line_goes_before_nobody(desk: Office, cell: StandIn) -> None:
    """Whatever its body asks for itself, its class and its place are the batch's."""
    body: dict[str, Any] = {
        "slo_class": "interactive",
        "priority": -3,
        "ttft_target_ms": 50,
        "timeout_s": 9.0,
        "flow": "mine",
    }
    await ended(desk.http, (await begin(desk.http, jsonl([line(0, **body)])))["id"])
    (request,) = cell.requests
    assert (request.slo_class, request.priority, request.ttft_s, request.flow) == ("batch-2", 0, 0.0, "default mine")
    assert request.deadline_s - request.accepted_s == pytest.approx(9.0, abs=0.5)


@pytest.mark.parametrize("harm", ["changed", "gone"])
async def test_a_file_that_came_to_harm_fails_its_batch(edges: Edges, tmp_path: Path, harm: str) -> None:
    async with office(await edges.start(), tmp_path, batch_windows=("1s=batch-2",)) as desk:
        file = await upload(desk.http, jsonl([line(0)]))
        path = tmp_path / "files" / file["id"].removeprefix("file-")
        if harm == "changed":
            path.write_bytes(jsonl([line(1)]))
        else:
            path.unlink()
        body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "1s"}
        batch = await ended(desk.http, (await desk.http.post("/v1/batches", json=body)).json()["id"])
    code = {"changed": "corrupt_file", "gone": "input_file_missing"}[harm]
    assert (batch["status"], [one["code"] for one in batch["errors"]["data"]]) == ("failed", [code])


OTHER_ENDPOINTS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": ["one", "two"]},
    "/v1/responses": {"input": "hi", "store": False},
    CHAT: {"messages": [{"role": "user", "content": "hi"}], "n": 3},
}


@pytest.mark.parametrize(("path", "body"), OTHER_ENDPOINTS.items(), ids=OTHER_ENDPOINTS)
async def test_whatever_answers_can_be_asked_in_a_batch(
    desk: Office, cell: StandIn, path: str, body: dict[str, Any]
) -> None:
    asked = {"custom_id": "a", "method": "POST", "url": path, "body": {"model": "profile-tiny", **body}}
    batch = await ended(desk.http, (await begin(desk.http, jsonl([asked]), endpoint=path))["id"])
    assert batch["request_counts"] == {"total": 1, "completed": 1, "failed": 0}, batch
    (answer,) = await content(desk.http, batch["output_file_id"])
    assert json.dumps(answer["response"]["body"]).count("hello") == {"/v1/completions": 2, CHAT: 3}.get(path, 1)
    assert {request.slo_class for request in cell.requests} == {"batch-2"}
