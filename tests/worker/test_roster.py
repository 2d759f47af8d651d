"""Room in the engine: who enters, who waits, what is free. Free and used always add up."""

from dataclasses import replace

from headrace.core.commands import PrefillCommand
from headrace.core.stages.roster import Roster
from headrace.core.types import Key, Prompt, Sampling
from headrace.engines.base import ModelSpec
from headrace.worker.holds import Held
from headrace.worker.intake import Intake

SPEC = ModelSpec("m", "f", 512, 100, frozenset({2}), 0, 8, 64, 16, (), 0, {"chat": 16})
COMMAND = PrefillCommand(Key("r" * 32, 1), "m", Prompt((5,) * 16), Sampling(16), "gateway-0", "w-0", 0.0)


def held(name: str, *, max_tokens: int = 16, decode_worker: str = "w-0", prefix: str = "") -> Held:
    command = replace(
        COMMAND,
        key=Key(name, 1),
        sampling=Sampling(max_tokens),
        decode_worker=decode_worker,
        prompt=Prompt((5,) * 16, (), prefix),
    )
    return Intake("w-0", SPEC, (), 8).prefill(command, 0.0, traced=False)


def test_blocks_cover_prefix_prompt_and_output_here() -> None:
    assert held("a").blocks == 2
    assert held("a", max_tokens=17).blocks == 3
    assert held("a", prefix="chat").blocks == 3
    assert held("a", max_tokens=400, decode_worker="w-1").blocks == 2, "one token, then it is handed over"


def test_first_come_first_served_and_nobody_overtakes() -> None:
    roster = Roster[Held](slots=4, blocks=5)
    small, large, tiny = held("small"), held("large", max_tokens=64), held("tiny")
    for one in (small, large, tiny):
        roster.wait(one)
    assert roster.turn().entering == [small], "5 blocks for the large one are not free"
    assert not roster.has_turn()
    roster.leave(small)
    assert roster.has_turn()
    turn = roster.turn()
    assert (turn.leaving, turn.entering) == ([small], [large])
    roster.leave(large)
    assert roster.turn().entering == [tiny]


def test_slots_bound_too() -> None:
    roster = Roster[Held](slots=1, blocks=100)
    first, second = held("first"), held("second")
    roster.wait(first)
    roster.wait(second)
    assert roster.turn().entering == [first]
    assert (roster.slots_free, roster.blocks_free) == (0, 98)


def test_one_who_leaves_while_waiting_never_enters() -> None:
    roster = Roster[Held](slots=1, blocks=100)
    gone = held("gone")
    roster.wait(gone)
    roster.leave(gone)
    turn = roster.turn()
    assert (turn.leaving, turn.entering) == ([], [])
    assert (roster.slots_free, roster.blocks_free) == (1, 100)


def test_the_engine_refuses_one_that_was_cancelled_meanwhile() -> None:
    roster = Roster[Held](slots=1, blocks=100)
    one = held("one")
    roster.wait(one)
    roster.turn()
    roster.leave(one)
    roster.refused(one)
    assert roster.turn().leaving == [], "it is not in the engine: nothing to remove"
    assert (roster.slots_free, roster.blocks_free) == (1, 100)
