"""Admission by the queue manager's last status: what counts as knowing that nobody serves."""

import contextlib
from dataclasses import replace

import pytest

from headrace.core.access import Key
from headrace.core.errors import HeadraceError, Overloaded, TooLate, Unavailable
from headrace.v1 import queue_pb2
from headrace.wire.status import status_to_proto
from services.gateway.auth import patient
from services.gateway.capacity import (
    RETRY_S_MAX,
    SETTLE_S,
    STALE_S,
    Bid,
    Cell,
    ClassLoad,
    admit,
    cell_of,
    leave_room,
    led_since_s,
)
from services.gateway.served import Served
from services.gateway.targets import Targets
from tests.core.grouped_world import config
from tests.core.queue_world import World

SERVED = {"m": frozenset({"image"})}
FULL = {"interactive": ClassLoad(queued=4, limit=4, oldest_wait_s=2.0)}


@pytest.mark.parametrize(
    ("cell", "kinds", "refused"),
    [
        (None, (), True),
        (Cell(100.0, modalities=SERVED), ("image",), False),
        (Cell(100.0, modalities=SERVED), ("audio",), True),
        (Cell(100.0), (), True),
        (Cell(100.0 - STALE_S - 0.1), (), False),
        (Cell(100.0, led_s=100.0), (), False),
        (Cell(100.0, modalities=SERVED, led_s=100.0), ("audio",), False),
        (Cell(100.0, led_s=100.0 - SETTLE_S), (), True),
    ],
    ids=["never heard", "served", "no encoder", "nobody", "stale", "new: nobody", "new: no encoder", "heard them all"],
)
def test_who_is_refused_because_nobody_serves(cell: Cell | None, kinds: tuple[str, ...], refused: bool) -> None:
    try:
        admit(cell, 100.0, Bid("m", "interactive", kinds), lambda: 0)
    except Unavailable:
        assert refused
    else:
        assert not refused


def test_a_text_does_not_wait_behind_pictures_that_are_still_to_be_encoded() -> None:
    """Twenty of the class wait, all before an encoder: at an answer in half a second a picture waits too long."""
    load = ClassLoad(20, 100, 4.0, estimated_wait_s=0.1, least_wait_s=0.0, encoding=20)
    cell = Cell(100.0, {"interactive": load}, SERVED, served=Served(counted=20.0, over_s=10.0))
    assert admit(cell, 100.0, Bid("m", "interactive", patience_s=5.0), lambda: 0) == 0.0
    with pytest.raises(Overloaded, match="about 10"):
        admit(cell, 100.0, Bid("m", "interactive", ("image",), patience_s=5.0), lambda: 0)


def of_two_models() -> Cell:
    """A hundred of the class wait for `busy`, which answers two a second, and nobody for `idle`."""
    busy = queue_pb2.ClassOfModel(model="busy", queued=100, estimated_wait_s=50.0, estimated_wait_least_s=40.0)
    idle = queue_pb2.ClassOfModel(model="idle", estimated_wait_s=0.2, estimated_wait_least_s=0.1)
    told = queue_pb2.ClassStatus(
        slo_class="interactive", queued=100, queue_limit=200, estimated_wait_s=0.2, models=[busy, idle]
    )
    models = [queue_pb2.ModelStatus(model=name, servable=True, modalities=["image"]) for name in ("busy", "idle")]
    cell = cell_of(queue_pb2.CellStatus(classes=[told], models=models), None, 100.0)
    return replace(cell, served=Served(counted=20.0, over_s=10.0))


def test_a_long_line_for_one_model_closes_the_door_of_no_other() -> None:
    cell = of_two_models()
    with pytest.raises(Overloaded, match="about"):
        admit(cell, 100.0, Bid("busy", "interactive", patience_s=20.0), lambda: 0)
    with pytest.raises(TooLate, match="at least 40"):
        admit(cell, 100.0, Bid("busy", "interactive", time_left_s=30.0), lambda: 0)
    assert admit(cell, 100.0, Bid("idle", "interactive", patience_s=20.0, time_left_s=30.0), lambda: 0) == 0.0


def test_what_the_queue_manager_tells_of_each_model_reaches_the_door() -> None:
    """A worker of its own for each; twenty wait for the one."""
    world = World(config(evict=False))
    for model in ("busy", "idle"):
        world.add_worker(model, "prefill", "decode", slots=1, models=(model,))
    world.pass_time(0.5)
    for _ in range(21):
        world.submit(model="busy", max_tokens=20)
    world.pass_time(1.0)
    cell = cell_of(status_to_proto(world.core.view(world.now_s)), None, 100.0)
    assert cell.classes["interactive"].of("busy").queued == cell.classes["interactive"].queued == 20
    admit(cell, 100.0, Bid("idle", "interactive", patience_s=5.0), lambda: 0)
    with pytest.raises(Overloaded, match="now wait about"):
        admit(cell, 100.0, Bid("busy", "interactive", patience_s=5.0), lambda: 0)


def test_a_class_is_full_of_all_its_models_requests() -> None:
    cell = of_two_models()
    admit(cell, 100.0, Bid("busy", "interactive", count=60), lambda: 0)
    with pytest.raises(Overloaded, match="is full"):
        admit(cell, 100.0, Bid("idle", "interactive", count=60), lambda: 0)


def test_who_was_let_in_since_the_status_counts_where_it_stands() -> None:
    """At an answer in half a second; a picture that has just come is at an encoder, and before no text."""
    load = ClassLoad(1, 100, 1.0, estimated_wait_s=0.5, least_wait_s=0.0)
    cell = Cell(100.0, {"interactive": load}, SERVED, served=Served(counted=20.0, over_s=10.0))
    for media, count in (((), 4), (("image",), 10)):
        admit(cell, 100.0, Bid("m", "interactive", media, count=count), lambda: 0)
    text_s, picture_s = (admit(cell, 100.0, Bid("m", "interactive", media), lambda: 0) for media in ((), ("image",)))
    assert picture_s - text_s == pytest.approx(11 * 0.5), "ten pictures, and the text that came just before"


def test_a_new_leadership_knows_how_full_a_class_is() -> None:
    """It has read the journal; only workers it may not have heard."""
    with pytest.raises(Overloaded):
        admit(Cell(100.0, FULL, led_s=100.0), 100.0, Bid("m", "interactive"), lambda: 0)


@pytest.mark.parametrize(
    ("oldest_s", "estimated_s", "told_s"),
    [(2.5, -1.0, 2.5), (2.5, 7.0, 7.0), (2.5, 0.0, 1.0), (0.1, -1.0, 1.0), (2.5, 900.0, RETRY_S_MAX)],
    ids=["no estimate", "the estimate", "at least a second", "as without one", "no longer than clients obey"],
)
def test_when_to_come_back_to_a_full_class(oldest_s: float, estimated_s: float, told_s: float) -> None:
    load = ClassLoad(4, 4, oldest_s, estimated_s, 0.0)
    refused = refusal(Cell(100.0, {"interactive": load}, SERVED), time_left_s=1.0)
    assert (type(refused), refused and refused.retry_after_s) == (Overloaded, told_s)


EARLY: dict[str, tuple[float, float, float, float | None]] = {
    # least wait, time left, age of the status -> when to come back
    "the queue is longer than its time": (30.0, 10.0, 0.0, 20.0),
    "just in time": (10.0, 10.0, 0.0, None),
    "no estimate": (-1.0, 0.5, 0.0, None),
    "no early rejection": (1e9, float("inf"), 0.0, None),
    "over already: the deadline's own error is to come": (30.0, -1.0, 0.0, None),
    "an old estimate says nothing": (30.0, 10.0, STALE_S + 0.1, None),
    "a moment short": (10.2, 10.0, 0.0, 1.0),
    "hours short": (9_000.0, 10.0, 0.0, RETRY_S_MAX),
}


@pytest.mark.parametrize(("least_s", "left_s", "age_s", "told_s"), EARLY.values(), ids=EARLY.keys())
def test_what_cannot_begin_in_time_is_refused_at_once(
    least_s: float, left_s: float, age_s: float, told_s: float | None
) -> None:
    cell = Cell(100.0 - age_s, {"interactive": ClassLoad(1, 4, 2.0, -1.0, least_s)}, SERVED)
    refused = refusal(cell, left_s)
    if told_s is None:
        assert refused is None
    else:
        assert isinstance(refused, TooLate)
        assert refused.retry_after_s == pytest.approx(told_s)


def test_a_new_leadership_does_not_know_yet_how_long_the_queue_takes() -> None:
    load = ClassLoad(1, 4, 2.0, -1.0, 30.0)
    assert refusal(Cell(100.0, {"interactive": load}, SERVED, led_s=100.0), 10.0) is None


def refusal(cell: Cell, time_left_s: float) -> HeadraceError | None:
    try:
        admit(cell, 100.0, Bid("m", "interactive", (), time_left_s), lambda: 0)
    except HeadraceError as error:
        return error
    return None


def test_a_leadership_is_new_to_a_gateway_that_knew_another() -> None:
    first_s = led_since_s(None, 7, 100.0)
    assert first_s < 100.0 - SETTLE_S, "a gateway that has just started knows nobody who served before"
    cell = Cell(100.0, epoch=7, led_s=first_s)
    assert led_since_s(cell, 7, 100.25) == first_s
    cell = Cell(101.0, epoch=9, led_s=led_since_s(cell, 9, 101.0))
    assert (cell.led_s, led_since_s(cell, 9, 101.25)) == (101.0, 101.0)


@pytest.mark.parametrize(
    ("encoded", "startable", "refused"),
    [(["image"], [], False), ([], ["image"], False), ([], [], True), (["audio"], [], True)],
    ids=["an encoder is there", "one can be started", "nobody, and nobody scales", "another kind"],
)
def test_a_picture_may_wait_for_an_encoder_that_can_be_started(
    encoded: list[str], startable: list[str], refused: bool
) -> None:
    told = queue_pb2.ModelStatus(model="m", servable=True, modalities=encoded, startable=startable)
    cell = cell_of(queue_pb2.CellStatus(models=[told]), None, 100.0)
    with pytest.raises(Unavailable) if refused else contextlib.nullcontext():
        admit(cell, 100.0, Bid("m", "interactive", ("image",)), lambda: 0)


@pytest.mark.parametrize(
    ("queued", "mine", "room"),
    [(49, 100, True), (50, 49, True), (50, 50, False), (99, 10, True), (99, 99, False)],
)
def test_one_tenant_fills_half_of_a_queue(queued: int, mine: int, room: bool) -> None:
    cell = Cell(0.0, {"interactive": ClassLoad(queued, 100, 2.0)})
    if room:
        leave_room(cell, Bid("m", "interactive"), lambda: mine)
        return
    with pytest.raises(Overloaded, match="this tenant's"):
        leave_room(cell, Bid("m", "interactive"), lambda: mine)


@pytest.mark.parametrize(
    ("soonest_s", "asked", "given"),
    [
        (0.0, Targets(ttft_s=0.05, priority=3), Targets(ttft_s=0.05, priority=3)),
        (20.0, Targets(ttft_s=0.05, priority=3), Targets(ttft_s=20.0)),
        (20.0, Targets(priority=1), Targets(ttft_s=20.0)),
        (20.0, Targets(), Targets()),
        (20.0, Targets(priority=-2), Targets(priority=-2)),
        (5.0, Targets(priority=2), Targets(priority=2)),  # 20 s / 4
        (5.0, Targets(priority=3), Targets(ttft_s=5.0)),
        (60.0, Targets(), Targets()),  # never later than the class
    ],
)
def test_nobody_hurries_further_than_the_key_allows(soonest_s: float, asked: Targets, given: Targets) -> None:
    key = Key("k", b"", "t", frozenset(("generate",)), soonest_s=soonest_s)
    assert patient(key, asked, 20.0) == given
