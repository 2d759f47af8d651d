"""Operators switch what runs: who, when, from what to what; what cannot be switched is refused by name."""

import asyncio

import pytest

from headrace.core.errors import InvalidInput
from headrace.core.events import Event
from headrace.core.queue import QueueConfig, QueueCore
from services.queue_manager.inbox import Inbox
from services.queue_manager.switching import KEPT, Switching
from tests.queue_manager.test_live_scaling import Cell, Shop


def switching(cell: Cell | None = None) -> Switching:
    core = cell.core if cell is not None else QueueCore(QueueConfig(epoch=1, planner="headrace"))

    def take(events: list[Event]) -> None:
        for event in events:
            core.handle(event, 0.0)

    return Switching(core, cell.scaling if cell is not None else None, Inbox(take).put)


async def test_a_switch_is_carried_out_and_remembered(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")  # a line of the log is part of it
    made = switching()
    assert {status.name: status.value for status in await made.switch("evict", "off", "ada")}["evict"] == "off"
    await made.switch("evict", "off", "nobody: it is off")
    await made.switch("evict", "on", "bob" * 100)
    told = [(one.who[:3], one.name, one.before, one.after) for one in made.entries]
    assert told == [("ada", "evict", "on", "off"), ("bob", "evict", "off", "on")]
    assert len(made.entries[-1].who) == 80
    assert [record.message for record in caplog.records] == ["switched", "switched"]


async def test_the_autoscaler_follows_another_policy() -> None:
    cell = Cell(Shop())
    made = switching(cell)
    (status,) = [one for one in made.shown() if one.name == "autoscale"]
    assert (status.value, list(status.values)) == ("headrace", ["published", "headrace"])
    await made.switch("autoscale", "published", "ada")
    assert cell.scaling.options.policy == "published"


@pytest.mark.parametrize(
    ("name", "value", "field", "word"),
    [
        ("move", "off", "name", "there are solve, evict"),
        ("evict", "maybe", "value", "on, off"),
        ("autoscale", "off", "name", "there is none"),
    ],
)
async def test_what_cannot_be_switched_is_refused(name: str, value: str, field: str, word: str) -> None:
    with pytest.raises(InvalidInput, match=word) as refused:
        await switching().switch(name, value, "ada")
    assert refused.value.field == field


async def test_the_log_is_bounded() -> None:
    made = switching()
    for number in range(KEPT + 5):
        await made.switch("fair", ("off", "on")[number % 2], "ada")
    await asyncio.sleep(0)
    assert len(made.entries) == KEPT
