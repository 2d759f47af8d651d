"""The console's backend on a real gateway: who may look, what is sent, one request's life; over a stand-in cell."""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from headrace.cli.top import merged
from headrace.core.access import Key, Scope
from headrace.core.errors import InvalidInput, Overloaded, PermissionDenied, Unauthenticated
from headrace.core.types import End, Failure, StageSpan
from headrace.mesh import subjects
from headrace.mesh.keyfile import digest
from headrace.mesh.keyring import Keys
from headrace.v1 import governor_pb2
from services.gateway.console import feed
from services.gateway.console.access import check_own_page, operator_of
from services.gateway.console.changes import changes
from services.gateway.console.heard import Hearing
from tests.gateway.conftest import Edge, Edges, Options, until
from tests.gateway.standin import Script, StandIn

pytestmark = pytest.mark.timeout(30)
CHAT = "/v1/chat/completions"
ASK = {"model": "profile-tiny", "messages": [{"role": "user", "content": "hi"}]}
ASKS: frozenset[Scope] = frozenset({"generate", "batch", "metrics"})  # what a keys file without scopes gives everybody
KEYS = [
    Key("", digest("op"), "operator", ASKS),
    Key("", digest("acme"), "acme", ASKS),
    Key("night-shift", digest("night"), "acme", frozenset({"operate"})),
]


# --- who may ---

LOCAL = {b"host": b"127.0.0.1:8000"}


@pytest.mark.parametrize(
    ("keys", "headers", "peer", "outcome"),
    [
        (None, LOCAL, "127.0.0.1", "loopback"),
        (None, {b"host": b"[::1]:8000"}, "::1", "loopback"),
        (None, {b"host": b"localhost"}, "127.0.0.1", "loopback"),
        (None, LOCAL, "::ffff:127.0.0.1", "loopback"),
        (None, LOCAL, "::ffff:10.0.0.5", PermissionDenied),
        (None, LOCAL, "10.0.0.5", PermissionDenied),
        (None, {b"host": b"rebound.example:8000"}, "127.0.0.1", PermissionDenied),  # another's name for this machine
        (None, {}, "127.0.0.1", PermissionDenied),
        (KEYS, LOCAL, "127.0.0.1", Unauthenticated),
        (KEYS, LOCAL | {b"authorization": b"Bearer wrong"}, "127.0.0.1", Unauthenticated),
        (KEYS, LOCAL | {b"authorization": b"Bearer acme"}, "127.0.0.1", PermissionDenied),
        (KEYS, {b"authorization": b"Bearer op"}, "10.0.0.5", "operator"),
        (KEYS, {b"authorization": b"Bearer night"}, "10.0.0.5", "night-shift"),
    ],
)
def test_who_operates(keys: Any, headers: dict[bytes, bytes], peer: str, outcome: Any) -> None:
    if isinstance(outcome, str):
        assert operator_of(Keys(keys), headers, peer) == outcome
    else:
        with pytest.raises(outcome):
            operator_of(Keys(keys), headers, peer)


JSON = {b"content-type": b"application/json", b"host": b"127.0.0.1:8000"}


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        (JSON, None),
        (JSON | {b"origin": b"http://127.0.0.1:8000", b"sec-fetch-site": b"same-origin"}, None),
        (JSON | {b"origin": b"https://evil.example"}, PermissionDenied),
        (JSON | {b"origin": b"null"}, PermissionDenied),
        (JSON | {b"sec-fetch-site": b"cross-site"}, PermissionDenied),
        (JSON | {b"sec-fetch-site": b"same-site"}, PermissionDenied),
        ({b"content-type": b"text/plain"}, InvalidInput),  # what a form of another page can send
        ({}, InvalidInput),
    ],
)
def test_changes_come_from_the_page_itself(headers: dict[bytes, bytes], error: type[Exception] | None) -> None:
    if error is None:
        check_own_page(headers)
    else:
        with pytest.raises(error):
            check_own_page(headers)


async def test_every_way_in_asks_for_an_operator(edges: Edges) -> None:
    edge = await edges.start(options=Options(keys=Keys(KEYS)))
    gets = ("/console/api/state", "/console/api/events", "/console/api/requests/" + "0" * 32)
    for key, status in (("", 401), ("acme", 403)):
        headers = {"authorization": f"Bearer {key}"} if key else {}
        for path in gets:
            assert (await edge.http.get(path, headers=headers)).status_code == status
        for path in ("/console/api/governor", "/console/api/switch"):
            assert (await edge.http.post(path, json={}, headers=headers)).status_code == status
    assert (await edge.http.get("/console/api/state", headers={"authorization": "Bearer op"})).status_code == 200
    assert (await edge.http.get("/console")).status_code == 200, "the page itself holds nothing"


# --- files ---


async def test_files_are_small_kept_and_under_a_strict_policy(edge: Edge) -> None:
    page = await edge.http.get("/console", headers={"accept-encoding": "identity"})
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", page.text), (
        "nothing is written into the page"
    )
    names = re.findall(r"/console/([\w.]+)", page.text)
    assert {"app.js", "style.css", "icon.svg"} <= set(names)
    for name in names:
        file = await edge.http.get(f"/console/{name}")
        assert (file.status_code, file.headers["content-encoding"]) == (200, "gzip")
        again = await edge.http.get(f"/console/{name}", headers={"if-none-match": file.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert (await edge.http.get("/console/../auth.py")).status_code == 404
    assert (await edge.http.get("/console/nothing.js")).status_code == 404


def test_every_import_of_a_script_is_there() -> None:
    found = feed_files()
    for name, file in found.items():
        text = file.body.decode()
        assert gzip.decompress(file.packed).decode() == text
        for wanted in re.findall(r'from "\./([\w.]+)"|import\("\./([\w.]+)"\)', text):
            assert (wanted[0] or wanted[1]) in found, f"{name} wants {wanted}"


def feed_files() -> Any:
    from services.gateway.console.files import read_files

    return read_files()


# --- state and its stream ---


@asynccontextmanager
async def watching(edge: Edge) -> AsyncIterator[Any]:
    """The gateway of these tests is built without listen.serve: its feed is started here."""
    await edge.front.console.feed.start()
    try:
        yield edge.front.console.feed
    finally:
        await edge.front.console.feed.stop()


async def test_the_state_tells_what_is_heard_and_who_does_not_answer(edge: Edge, cell: StandIn) -> None:
    async with watching(edge):
        cell.queued, cell.wait_s = 7, 3.21
        sample = governor_pb2.Telemetry(worker="w", incarnation="a", host="h", sent_s=1.0)
        sample.devices.add(device="plant:0", source="plant", power_w=400.0, temp_c=61.0, cap_w=0.0, busy=-1.0)
        cell.bus.send(subjects.TELEMETRY, sample.SerializeToString())
        await edge.http.post(CHAT, json=ASK)
        async with asyncio.timeout(5.0):
            while True:
                state = (await edge.http.get("/console/api/state")).json()
                if state["point"] and state["point"]["power_w"] and state["classes"][0]["answered"]:
                    break
                cell.bus.send(subjects.TELEMETRY, sample.SerializeToString())
                await asyncio.sleep(0.2)
        (load,) = [one for one in state["classes"] if one["name"] == "interactive"]
        assert (load["queued"], load["wait_s"], load["answered"], load["kept"]) == (7, 3.2, 1, 1.0)
        assert state["point"]["power_w"] == 400.0
        assert state["point"]["hottest_c"] == 61.0
        assert "HEADRACE_QUEUE_MANAGER_ADDR" in state["trouble"]["queue"]
        assert "HEADRACE_GOVERNOR_ADDR" in state["trouble"]["governor"]
        (row,) = state["recent"]
        assert (row["reason"], row["tokens"], row["tenant"]) == ("stop", 5, "default")
        assert "NaN" not in json.dumps(state)


async def test_the_stream_is_a_snapshot_and_then_what_differs(edge: Edge, cell: StandIn) -> None:
    async with watching(edge), edge.http.stream("GET", "/console/api/events") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = read_events(reply)
        name, state = await anext(events)
        assert name == "snapshot"
        assert {"classes", "workers", "queues", "history", "switches"} <= state.keys()
        cell.queued = 99
        began = asyncio.get_running_loop().time()
        told: list[dict[str, Any]] = []
        async for name, change in events:
            assert name == "change"
            assert "history" not in change
            told.append(change)
            if any(one["queued"] == 99 for one in change.get("classes", ())):
                break
        took_s = asyncio.get_running_loop().time() - began
        assert len(told) <= 4 * took_s + 2, "at most four a second"
        assert took_s < 2.0


async def test_a_quiet_stream_beats_and_ends_with_the_gateway(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BEAT_S", 0.2)
    async with watching(edge) as made:
        with made.listening():
            follow = made.follow()
            await anext(follow)
            made.current = {}
            kinds = [(await anext(follow))[0] for _ in range(3)]
        assert "beat" in kinds or "change" in kinds
        async with edge.http.stream("GET", "/console/api/events") as reply:
            events = read_events(reply)
            await anext(events)
            await made.stop()
            async with asyncio.timeout(3.0):
                assert [name async for name, _ in events if name == "snapshot"] == []


async def test_listeners_are_bounded(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LISTENERS_MAX", 1)
    async with watching(edge) as made:
        with made.listening():
            with pytest.raises(Overloaded), made.listening():
                raise AssertionError("the second was let in")
            refused = await edge.http.get("/console/api/events")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        async with edge.http.stream("GET", "/console/api/events") as reply:
            assert reply.status_code == 200
        await until(lambda: not made._listeners)


async def read_events(reply: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for line in reply.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_changes_name_what_differs_alone() -> None:
    before = {"workers": [{"id": "a", "used": 1}, {"id": "b", "used": 1}], "mode": "observe", "history": [1]}
    after = {"workers": [{"id": "b", "used": 2}, {"id": "c", "used": 0}], "mode": "observe", "history": [1, 2]}
    assert changes(before, before) == {}
    told = changes(before, after)
    assert told == {"workers": {"set": [{"id": "b", "used": 2}, {"id": "c", "used": 0}], "gone": ["a"]}}
    same_order = {**before, "workers": [{"id": "a", "used": 2}, {"id": "b", "used": 1}]}
    assert changes(before, same_order) == {"workers": {"set": [{"id": "a", "used": 2}]}}
    turned = {**before, "workers": before["workers"][::-1]}
    assert changes(before, turned) == {"workers": {"set": [], "order": ["b", "a"]}}
    for state in (after, turned, before):
        assert merged(before, changes(before, state))["workers"] == state["workers"], "as headrace top takes them"
    assert changes({}, {"workers": [{"id": "a"}]}) == {"workers": [{"id": "a"}]}


def test_what_is_heard_is_bounded_and_ends() -> None:
    now_s = 100.0
    hearing = Hearing(lambda: now_s)
    for tokens in (0, 30):
        sample = governor_pb2.Telemetry(worker="w", incarnation="a", host="h", sent_s=tokens / 10, decode_tokens=tokens)
        sample.devices.add(device="nvml:0", source="nvml", power_w=300.0, temp_c=50.0, gpus=2)
        hearing.on_telemetry(sample.SerializeToString())
        hearing.on_telemetry(governor_pb2.Telemetry.FromString(sample.SerializeToString()).SerializeToString())
    twin = governor_pb2.Telemetry(worker="twin", incarnation="a", host="h", sent_s=1.0)
    twin.devices.add(device="nvml:0", source="nvml", power_w=300.0, temp_c=50.0, gpus=2)
    hearing.on_telemetry(twin.SerializeToString())
    assert hearing.power_w() == 600.0, "two workers on one device"
    hearing.on_telemetry(b"\xff")
    hearing.on_caps(b"\xff")
    assert hearing.unread == 2
    hearing.on_caps(
        governor_pb2.CapBatch(epoch=2, sequence=5, lease_s=5.0, workers=[{"worker": "w"}]).SerializeToString()
    )
    hearing.on_caps(governor_pb2.CapBatch(epoch=1, sequence=9, lease_s=5.0).SerializeToString())
    assert list(hearing.caps) == ["w"], "an older governor does not count"
    now_s = 106.0
    hearing.sweep()
    assert (hearing.caps, hearing.power_w(), hearing.rate("decode_tokens")) == ({}, None, 0)


# --- one request ---


async def test_a_request_from_admission_to_its_end(edge: Edge, cell: StandIn) -> None:
    spans = (StageSpan("queue", 1.0, 1.5, "qm-0"), StageSpan("decode", 2.0, 4.0, "w", joules=12.34))
    cell.script = lambda _: Script(end=End("stop", timeline=spans))
    reply = await edge.http.post(CHAT, json=ASK)
    told = (await edge.http.get("/console/api/requests/" + reply.headers["x-request-id"])).json()
    assert [span["stage"] for span in told["timeline"]] == ["admit", "queue", "decode"]
    assert told["timeline"][-1]["joules"] == 12.3
    assert (told["reason"], told["tokens"], told["class"], told["target_s"]) == ("stop", 5, "interactive", 20.0)
    assert told["usage"]["completion"] == 5
    assert told["received_s"] < told["first_token_s"] <= told["ended_s"]
    assert "hello" not in json.dumps(told), "what was said is nobody else's business"


async def test_a_request_that_runs_elsewhere_is_looked_at_and_left_there(edges: Edges, cell: StandIn) -> None:
    here, there = await edges.start("gw-a"), await edges.start("gw-b")
    cell.script = lambda _: Script(wait_s=0.2)
    asked = asyncio.ensure_future(there.http.post(CHAT, json=ASK, headers={"idempotency-key": "k"}))
    await until(lambda: cell.running)
    (request_id,) = cell.running
    assert (await here.http.get(f"/console/api/requests/{request_id}")).status_code == 404, "no queue manager to ask"
    assert (await asked).status_code == 200
    assert not [said for said in cell.heard if said.startswith("attach")]
    told = (await here.http.get(f"/console/api/requests/{request_id}")).json()
    assert (told["reason"], told["received_s"], told["gateway"]) == ("stop", None, "")


async def test_a_failed_request_says_why(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=(), end=End("error", Failure("stage_error", "corrupt image")))
    reply = await edge.http.post(CHAT, json=ASK)
    told = (await edge.http.get("/console/api/requests/" + reply.headers["x-request-id"])).json()
    assert told["failure"] == {"code": "stage_error", "message": "corrupt image"}


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("governor", {"action": "explode"}, 400, "set-budget, emergency or clear"),
        ("governor", {"action": "set-budget", "watts": 5}, 400, "makes no sense"),
        ("governor", {"action": "set-budget", "budget_w": "x"}, 400, "makes no sense"),
        ("governor", {"action": "clear"}, 503, "HEADRACE_GOVERNOR_ADDR"),
        ("switch", {"name": "evict", "value": "off"}, 503, "HEADRACE_QUEUE_MANAGER_ADDR"),
        ("switch", {"name": "governor", "value": "observe"}, 503, "HEADRACE_GOVERNOR_ADDR"),
        ("switch", {"name": "x" * 5000, "value": ""}, 413, "bytes"),
    ],
)
async def test_commands_that_make_no_sense(edge: Edge, path: str, body: Any, status: int, word: str) -> None:
    reply = await edge.http.post(f"/console/api/{path}", json=body)
    assert reply.status_code == status
    assert word in reply.json()["error"]["message"]
