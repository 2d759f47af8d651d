"""Who is refused because it would be answered too late, when it is told to come back, and whether by itself."""

from dataclasses import replace
from typing import Any

import grpc
import pytest

from headrace.client import AsyncClient, Overloaded
from headrace.core.errors import Overloaded as Refused
from headrace.v1 import gateway_pb2, gateway_pb2_grpc, queue_pb2
from services.gateway.ask import Caller
from services.gateway.capacity import RETRY_S_MAX, Bid, Cell, ClassLoad, cell_of
from services.gateway.gate import STRETCH_FIRST, STRETCH_LEAST, STRETCH_MOST, Gate
from services.gateway.live import Facts, Live
from services.gateway.retries import FREE, Retries
from services.gateway.served import COUNTED_LEAST, OVER_S, Served
from services.gateway.streams import Streams
from tests.gateway.conftest import Edge, until
from tests.gateway.standin import StandIn

CALLER = Caller("t", 0.0, 0.0)
CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
NAME, MODEL = "interactive", "m"


def streams() -> Streams:
    return Streams(lambda live, now_s: None, lambda live, now_s: None)


def cell(wait_s: float = -1.0, queued: int = 100, least_s: float = -1.0, served: Served = Served()) -> Cell:  # noqa: B008
    load = ClassLoad(queued, 4096, 2.0, wait_s, least_s)
    return Cell(100.0, {NAME: load}, {"m": frozenset()}, served=served)


def refusal(gate: Gate, seen: Cell, held: Streams, caller: Caller = CALLER, patience_s: float = 20.0) -> float | None:
    """When it is told to come back; None: it is let in."""
    try:
        gate.admit(seen, 100.0, Bid("m", NAME, patience_s=patience_s), held, caller)
    except Refused as error:
        return error.retry_after_s
    return None


TEN_A_SECOND = Served(0, 50.0, 5.0)
CASES: dict[str, tuple[Cell, float, bool]] = {
    # what is seen, what is promised -> refused
    "in time": (cell(15.0), 20.0, False),
    "late": (cell(17.0), 20.0, True),
    "the mean is in time, one in ten is not": (cell(15.0, least_s=11.0), 20.0, True),
    "nobody waits: refusing helps nobody": (cell(30.0, queued=0), 20.0, False),
    "no estimate, and answers come fast enough": (cell(queued=100, served=TEN_A_SECOND), 20.0, False),
    "no estimate, and they do not": (cell(queued=170, served=TEN_A_SECOND), 20.0, True),
    "engines are fast, answers are not": (cell(2.0, queued=170, served=TEN_A_SECOND), 20.0, True),
    "it has more patience than its class": (cell(17.0), 40.0, False),
    "no early rejection": (cell(1e6), float("inf"), False),
}


@pytest.mark.parametrize(("seen", "patience_s", "refused"), CASES.values(), ids=CASES.keys())
def test_who_would_be_late_is_refused(seen: Cell, patience_s: float, refused: bool) -> None:
    assert (refusal(Gate(), seen, streams(), patience_s=patience_s) is not None) == refused


def test_those_who_were_let_in_since_the_status_count() -> None:
    """A status comes four times a second; in an overload that is many requests."""
    gate, seen = Gate(), cell(15.0, served=TEN_A_SECOND)
    let_in = next(count for count in range(100) if refusal(gate, seen, streams()) is not None)
    assert let_in == 11, "16 s are left of 20, and each makes it 0.1 s longer"


def test_the_refused_come_back_one_after_the_other() -> None:
    gate, seen = Gate(), cell(18.0, served=TEN_A_SECOND)
    told = [refusal(gate, seen, streams()) for _ in range(1_000)]
    assert told[:3] == pytest.approx([2.0, 2.1, 2.2])
    assert max(value for value in told if value is not None) == pytest.approx(RETRY_S_MAX)


def test_a_tenant_that_asks_little_is_not_refused_for_one_that_asks_much() -> None:
    held, gate = streams(), Gate()
    for number in range(40):
        held.open(_facts(f"{number}", "greedy"), 0.0)
    late = cell(30.0)
    assert refusal(gate, late, held, replace(CALLER, tenant="greedy")) is not None
    for number in range(30):
        let_in = refusal(gate, late, held, replace(CALLER, tenant="modest")) is None
        if not let_in:
            break
        held.open(_facts(f"m{number}", "modest"), 0.0)
    assert number == 14, "as long as it has less than half of an equal share"
    for number in range(40):
        held.moved(f"{number}")
    assert held.of_class(NAME) == held.of_tenant(NAME, "modest") == 14
    assert refusal(gate, late, held, replace(CALLER, tenant="modest")) is not None, "alone it has all of it"


def _facts(request_id: str, tenant: str) -> Facts:
    return Facts(request_id, tenant, "m", b"", (), 1, 0, slo_class=NAME)


def test_what_waits_turn_out_to_be_moves_what_is_promised() -> None:
    gate = Gate()
    assert gate.stretch(NAME, MODEL) == STRETCH_FIRST

    def began(ratio: float, expected_s: float = 10.0) -> None:
        live = Live(_facts("x", "t"), 0.0, expected_s=expected_s, patience_s=20.0)
        gate.began(live, ratio * expected_s)

    for _ in range(5):
        began(9.0, expected_s=1.0)
    assert gate.stretch(NAME, MODEL) == STRETCH_FIRST, "of a short wait it says nothing"
    for _ in range(4):
        began(2.0)
    late = gate.stretch(NAME, MODEL)
    assert late > 1.6
    for _ in range(40):
        began(1.0)
    assert STRETCH_LEAST < gate.stretch(NAME, MODEL) < late, "slowly back"
    for _ in range(100):
        began(50.0)
    assert gate.stretch(NAME, MODEL) == STRETCH_MOST
    assert gate.stretch(NAME, MODEL, media=True) == STRETCH_FIRST, (
        "of pictures it says nothing: they wait for encoders, too"
    )


def test_pictures_that_come_late_leave_texts_their_promise() -> None:
    gate = Gate()
    for _ in range(100):
        gate.began(Live(_facts("x", "t"), 0.0, expected_s=10.0, patience_s=20.0, media=True), 500.0)
    assert (gate.stretch(NAME, MODEL), gate.stretch(NAME, MODEL, media=True)) == (STRETCH_FIRST, STRETCH_MOST)


def test_the_rate_of_answers_is_of_a_mesh_that_has_no_room() -> None:
    served = Served(total=10)
    served = served.then(30, 1.0, waited=False)
    assert served.rps == 0.0, "it answered as it was asked"
    for second in range(1, 5):
        served = served.then(30 + 8 * second, 1.0, waited=True)
    assert served.rps == pytest.approx(8.0)
    for _ in range(10):
        served = served.then(served.total, OVER_S, waited=False)
    assert served.counted < COUNTED_LEAST
    assert served.rps == 0.0, "that was long ago"


def test_a_status_makes_the_rate() -> None:
    last = None
    for second in range(8):
        told = queue_pb2.CellStatus(classes=[queue_pb2.ClassStatus(slo_class=NAME, queued=5, queue_limit=9)])
        told.ended_by_reason["length"], told.ended_by_reason["cancelled"] = 3 * second, 100 * second
        last = cell_of(told, last, float(second))
    assert last is not None
    assert last.served.rps == pytest.approx(3.0), "those who left were not served"


def test_retries_have_a_budget() -> None:
    retries = Retries()
    for _ in range(int(FREE)):
        retries.arrived(True, 0.0)
    assert not retries.spent, "a few harm nobody"
    for _ in range(100):
        retries.arrived(False, 0.0)
        retries.arrived(True, 0.0)
    assert retries.spent
    retries.arrived(False, 60.0)
    assert not retries.spent, "a minute later"


async def test_over_both_protocols(edge: Edge, cell: StandIn) -> None:
    """429 and RESOURCE_EXHAUSTED, a time to come back in each protocol's words, and nothing in the journal."""
    cell.wait_s, cell.least_wait_s, cell.queued = 40.0, 39.0, 100
    await until(lambda: edge.front.gateway.cell and edge.front.gateway.cell.classes[NAME].queued == 100)
    reply = await edge.http.post(CHAT, json=BODY)
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "overloaded")
    assert 20_000 <= int(reply.headers["retry-after-ms"]) <= 60_000
    assert int(reply.headers["retry-after"]) * 1_000 >= int(reply.headers["retry-after-ms"])
    assert "x-should-retry" not in reply.headers
    trailing = await _trailing(edge)
    assert 20_000 <= int(trailing["grpc-retry-pushback-ms"]) <= 60_000
    assert cell.requests == []
    for _ in range(40):
        await edge.http.post(CHAT, json=BODY, headers={"x-stainless-retry-count": "1"})
    reply = await edge.http.post(CHAT, json=BODY)
    assert (reply.status_code, reply.headers["x-should-retry"]) == (429, "false")
    assert (await _trailing(edge))["grpc-retry-pushback-ms"] == "-1"


async def _trailing(edge: Edge) -> dict[str, Any]:
    async with grpc.aio.insecure_channel(edge.grpc) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)  # type: ignore[no-untyped-call]
        message = gateway_pb2.Message(role="user", content=[gateway_pb2.ContentPart(text="hi")])
        call = stub.Generate(gateway_pb2.GenerateRequest(messages=[message]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing: Any = caught.value.trailing_metadata() or ()
    return dict(trailing)


@pytest.mark.parametrize(("told", "tries"), [({}, 3), ({"max_retries": 0}, 1)])
async def test_the_sdk_gives_up_after_two_refusals(
    edge: Edge, cell: StandIn, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], tries: int
) -> None:
    """Or after as many as it was told."""
    cell.queued = cell.queue_limit = 1
    await until(lambda: edge.front.gateway.cell and edge.front.gateway.cell.classes[NAME].limit == 1)
    monkeypatch.setattr("services.gateway.capacity.RETRY_S_MIN", 0.01)
    async with AsyncClient(edge.grpc, **told) as client:
        with pytest.raises(Overloaded):
            await client.generate("hi").text()
    assert edge.front.gateway.metrics.refused["overloaded"] == tries


@pytest.mark.parametrize("n", [1, 2])
async def test_what_was_expected_is_kept_with_each_answer(edge: Edge, cell: StandIn, n: int) -> None:
    """The gate learns from all that it let in, those of one question among them."""
    cell.wait_s, cell.least_wait_s, cell.queued = 8.0, 7.0, 100
    await until(lambda: edge.front.gateway.cell and edge.front.gateway.cell.classes[NAME].queued == 100)
    lives = list[Live]()
    edge.front.gateway.on_end.append(lambda live, now_s: lives.append(live))
    assert (await edge.http.post(CHAT, json=BODY | {"n": n})).status_code == 200
    assert [(live.expected_s > 7.0, live.patience_s) for live in lives] == [(True, 20.0)] * n
