"""What a simulated worker does when it is told to evict, resume, move and load: told as transcripts.

The queue manager of these tests is the test itself (tests/sim/scripted.py).
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core import effects as fx
from headrace.core.commands import MoveCommand
from headrace.core.events import Ended, Evicted, Joined, StageFailed
from headrace.core.types import Key
from tests.sim.scripted import COLD_S, FIRST, POOL, SECOND, WARM_S, Stage

EVICT, RESUME = fx.SendEvict, fx.SendResume


def move(key: Key, to: str, owner: str = "llm-0") -> fx.SendMove:
    return fx.SendMove(owner, MoveCommand(key, to))


def test_who_is_evicted_pauses_and_goes_on_where_it_was() -> None:
    stage = Stage()
    key = stage.ask(output=200)
    stage.at(1.0, stage.tell, EVICT("llm-0", key))
    stage.until(1.9)
    [(told_s, evicted)] = stage.said(Evicted)
    seen = stage.shown(key)
    assert 50 < seen == evicted.next_index < 150
    hold = stage.hold(key)
    assert hold is not None
    assert (hold.state, hold.next_index, hold.handle) == ("evicted", seen, evicted.kv)
    assert told_s < 1.0 + 0.05
    stage.until(4.0)
    assert stage.shown(key) == seen, "it stands still"
    stage.at(4.0, stage.tell, RESUME("llm-0", key))
    stage.until(5.0)
    assert [name for name in stage.names() if name != "CaughtUp"] == ["Evicted", "Joined"]
    hold = stage.hold(key)
    assert hold is not None
    assert (hold.state, hold.handle) == ("decode", None)
    assert hold.next_index > seen
    stage.until(8.0)
    [(ended_s, ended)] = stage.said(Ended)[:1]
    assert len(ended.tokens) == 200
    assert ended_s == pytest.approx(undisturbed_s() + 3.0, abs=0.05)
    assert stage.world.ledger.gaps.histogram().counts.sum() == 199
    stage.quiet()


def undisturbed_s() -> float:
    stage = Stage()
    stage.ask(output=200)
    stage.until(8.0)
    return stage.said(Ended)[0][0]


def test_a_copy_takes_what_the_link_to_host_memory_takes() -> None:
    """The bytes of its KV cache at 25 GB/s, out and back, each with an iteration before or behind it."""
    stage = Stage()
    key = stage.ask(prompt=20_000, output=800)
    stage.at(5.0, stage.tell, EVICT("llm-0", key))
    stage.at(5.5, stage.tell, RESUME("llm-0", key))
    stage.until(7.0)
    [(evicted_s, evicted)], [(joined_s, _)] = stage.said(Evicted), stage.said(Joined)
    assert evicted.kv.size_bytes == (20_000 + evicted.next_index - 1) * stage.kind.kv_bytes_per_token
    copy_s = evicted.kv.size_bytes / 25e9
    assert copy_s > 0.1
    for took_s in (evicted_s - 5.0, joined_s - 5.5):
        assert copy_s < took_s < copy_s + 0.02


@pytest.mark.parametrize("evicts", [True, False])
def test_the_others_wait_while_a_kv_cache_is_copied(evicts: bool) -> None:
    stage = Stage()
    large = stage.ask(prompt=20_000, output=800)
    stage.until(5.0)
    stage.ask(prompt=100, output=400)
    stage.at(6.0, stage.tell, EVICT("llm-0", large if evicts else Key("nobody", 1)))
    stage.until(20.0)
    longest_s = stage.world.ledger.gaps.histogram().percentile(1.0)
    assert (longest_s > 0.1) == evicts
    stage.quiet()


@pytest.mark.parametrize(
    ("when_s", "told", "why"),
    [
        (0.001, [], "it does not decode yet"),
        (1.0, ["Evicted"], "it decodes"),
        (5.0, [], "it has ended"),
    ],
)
def test_only_what_decodes_is_evicted(when_s: float, told: list[str], why: str) -> None:
    stage = Stage()
    key = stage.ask(prompt=4_000, output=150)
    stage.at(when_s, stage.tell, EVICT("llm-0", key))
    stage.at(when_s, stage.tell, EVICT("llm-0", Key("nobody", 1)))
    stage.at(when_s, stage.tell, RESUME("llm-0", Key("nobody", 1)))
    stage.until(6.0)
    assert [name for name in stage.names() if name == "Evicted"] == told, why
    stage.quiet()


def test_an_eviction_that_is_said_again_is_answered_again() -> None:
    stage = Stage()
    key = stage.ask(output=500)
    for at_s in (1.0, 2.0):
        stage.at(at_s, stage.tell, EVICT("llm-0", key))
    stage.until(3.0)
    first, second = (event for _, event in stage.said(Evicted))
    assert first == second
    stage.quiet()


def test_without_room_in_host_memory_nothing_happens() -> None:
    room = 1_200 * 131_072  # bytes: for one of them
    stage = Stage(host_bytes=room)
    keys = [stage.ask(output=300) for _ in range(2)]
    for key in keys:
        stage.at(1.0, stage.tell, EVICT("llm-0", key))
    stage.until(2.0)
    assert [event.key for _, event in stage.said(Evicted)] == keys[:1]
    other = stage.hold(keys[1])
    assert other is not None
    assert other.state == "decode"
    assert stage.world.ledger.counters["evictions_refused"] == 1
    stage.tell(fx.SendCancel("llm-0", keys[0]))
    stage.tell(EVICT("llm-0", keys[1]))
    stage.until(2.5)
    assert [event.key for _, event in stage.said(Evicted)] == keys, "the first has made room"
    stage.quiet()


@pytest.mark.parametrize("command", [fx.SendCancel, fx.SendRelease])
@pytest.mark.parametrize("state", ["evicted", "resuming", "evicting"])
def test_an_evicted_request_ends_and_its_memory_is_free(command: Any, state: str) -> None:
    stage = Stage()
    key = stage.ask(prompt=20_000, output=500)
    stage.at(5.0, stage.tell, EVICT("llm-0", key))
    at_s = {"evicting": 5.03, "evicted": 6.0, "resuming": 6.0015}[state]
    if state == "resuming":
        stage.at(6.0, stage.tell, RESUME("llm-0", key))
    held = stage.until(at_s).world.workers["llm-0"].held[key.request_id]
    assert held.state == state
    stage.world.workers["llm-0"].take(1, command("llm-0", key))
    assert stage.world.workers["llm-0"].parking.used_bytes == 0
    stage.until(8.0)
    assert ("Ended" in stage.names()) == (command is fx.SendCancel)
    stage.quiet()


def test_an_evicted_request_goes_on_at_another_worker() -> None:
    stage = Stage()
    key = stage.ask(output=300)
    stage.at(1.0, stage.tell, EVICT("llm-0", key))
    stage.at(2.0, stage.tell, move(key, "llm-1"))
    stage.until(3.0)
    seen = stage.said(Evicted)[0][1].next_index
    [(_, joined)] = stage.said(Joined)
    assert joined.worker == "llm-1"
    held = stage.hold(key)
    assert held is not None
    assert (held.state, held.decode_worker) == ("handover", "llm-1"), "until it is released"
    other = stage.hold(key, "llm-1")
    assert other is not None
    assert other.state == "decode"
    assert other.next_index > seen
    stage.tell(fx.SendRelease("llm-0", key))
    stage.until(8.0)
    assert {event.worker for _, event in stage.said(Ended)} == {"llm-1"}
    assert stage.shown(key) == 300
    assert stage.world.ledger.gaps.histogram().counts.sum() == 299
    stage.quiet()


def test_a_move_whose_owner_has_died_fails_where_it_went() -> None:
    stage = Stage()
    key = stage.ask(output=300)
    stage.at(1.0, stage.tell, EVICT("llm-0", key))
    stage.at(2.0, stage.tell, move(key, "llm-1"))
    stage.at(2.0013, stage.world.workers["llm-0"].die)
    stage.until(4.0)
    [(_, failed)] = stage.said(StageFailed)
    assert (failed.worker, failed.retryable) == ("llm-1", True)
    assert not stage.world.workers["llm-1"].held


def test_a_model_is_loaded_and_the_old_one_stays_warm() -> None:
    stage = Stage()
    stage.at(1.0, stage.tell, fx.SendLoad("llm-0", SECOND))
    stage.at(20.0, stage.tell, fx.SendLoad("llm-0", FIRST))
    stage.until(30.0)
    turns: list[tuple[float, str, str]] = []
    for at_s, beat in stage.beats():
        if not turns or turns[-1][1:] != (beat.model, beat.loading):
            turns.append((round(at_s, 2), beat.model, beat.loading))
    assert turns == [
        (0.0, FIRST, ""),
        (1.0, FIRST, SECOND),
        (1.0 + COLD_S, SECOND, ""),
        (20.0, SECOND, FIRST),
        (20.0 + WARM_S, FIRST, ""),
    ]
    loadable = {beat.model: beat.loadable for _, beat in stage.beats()}
    assert [(each.model, each.load_s, each.warm) for each in loadable[SECOND]] == [(FIRST, WARM_S, True)]
    assert [(each.model, each.load_s, each.warm) for each in loadable[FIRST]] == [(SECOND, WARM_S, True)]
    assert [(each.model, each.load_s) for each in stage.beats()[0][1].loadable] == [(SECOND, COLD_S)]
    counters = stage.world.ledger.counters
    assert (counters["swaps"], counters["loads_cold"], counters["loads_warm"]) == (2, 1, 1)


def test_what_a_worker_is_follows_its_model() -> None:
    stage = Stage(POOL)
    key = stage.ask(output=100)
    stage.at(4.0, stage.tell, fx.SendLoad("llm-0", SECOND))
    stage.until(20.0)
    first, last = stage.beats()[0][1], stage.beats()[-1][1]
    assert (first.blocks, first.pace) != (last.blocks, last.pace)
    assert first.loadable[0].blocks == last.blocks
    assert first.loadable[0].pace == last.pace
    before = [beat.done for at_s, beat in stage.beats() if at_s < 4.0][-1]
    assert (before.prefill_tokens, before.decode_tokens) == (1_000, 99)
    assert before.iterations == 100
    assert 0.5 < before.busy_s < 4.0
    assert last.done.iterations == 0, "counted anew"
    stage.release(key)
    stage.ask(model=SECOND, output=50)
    stage.until(24.0)
    assert stage.beats()[-1][1].done.decode_tokens == 49
    stage.quiet()


def test_who_still_decodes_is_evicted_by_a_load_and_goes_on_when_its_model_is_back() -> None:
    stage = Stage()
    key = stage.ask(output=300)
    stage.at(1.0, stage.tell, fx.SendLoad("llm-0", SECOND))
    stage.at(15.0, stage.tell, fx.SendLoad("llm-0", FIRST))
    stage.at(18.0, stage.tell, RESUME("llm-0", key))
    stage.until(14.0)
    hold = stage.hold(key)
    assert hold is not None
    assert hold.state == "evicted"
    stage.until(25.0)
    assert [name for name in stage.names() if name != "CaughtUp"][:3] == ["Evicted", "Joined", "Ended"]
    assert len(stage.said(Ended)[0][1].tokens) == 300
    stage.quiet()


def test_what_is_for_another_model_fails_and_may_be_tried_again() -> None:
    stage = Stage()
    evicted = stage.ask(output=300)
    stage.at(1.0, stage.tell, EVICT("llm-0", evicted))
    stage.at(2.0, stage.tell, fx.SendLoad("llm-0", SECOND))
    stage.until(3.0)
    while_loading = stage.ask(model=SECOND)
    stage.until(14.0)
    old = stage.ask(model=FIRST)
    stage.tell(RESUME("llm-0", evicted))
    handed_over = stage.ask(worker="llm-1", decode="llm-0", output=50)
    stage.until(20.0)
    failed = stage.said(StageFailed)
    assert [event.key for _, event in failed] == [while_loading, old, evicted, handed_over]
    assert all(event.retryable and event.worker == "llm-0" for _, event in failed)
    stage.quiet()


def test_a_load_that_finds_requests_waiting_gives_them_back() -> None:
    """They were not to be there; none is forgotten."""
    stage = Stage()
    keys = [stage.ask(prompt=8_000, output=20) for _ in range(4)]
    stage.at(0.3, stage.tell, fx.SendLoad("llm-0", SECOND))
    stage.until(14.0)
    told = {event.key for _, event in stage.said(StageFailed, Evicted, Ended)}
    assert told == set(keys)
    assert stage.said(StageFailed)
    assert stage.beats()[-1][1].model == SECOND
    stage.quiet()


def test_a_model_that_is_none_of_its_own_is_refused() -> None:
    stage = Stage()
    stage.at(1.0, stage.tell, fx.SendLoad("llm-0", "gpt-2"))
    stage.until(3.0)
    beat = stage.beats()[-1][1]
    assert (beat.model, beat.loading) == (FIRST, "")
    assert beat.load_error.startswith("gpt-2: ")


@pytest.mark.parametrize("at_s", [1.05, 1.5, 6.0])
def test_a_worker_that_dies_while_it_loads_comes_back_with_its_first_model(at_s: float) -> None:
    stage = Stage()
    stage.ask(prompt=20_000, output=500)
    stage.at(1.0, stage.tell, fx.SendLoad("llm-0", SECOND))
    stage.until(at_s)
    stage.world.workers["llm-0"].die()
    stage.world.launch("llm-0", stage.world.workers["llm-0"].first)
    stage.until(20.0)
    beat = stage.beats()[-1][1]
    assert (beat.model, beat.loading, beat.holds) == (FIRST, "", ())
    assert not beat.loadable[0].warm


@pytest.mark.parametrize("at_s", [1.05, 1.5, 6.0])
def test_a_worker_that_hangs_while_it_loads_goes_on_afterwards(at_s: float) -> None:
    stage = Stage()
    key = stage.ask(prompt=2_000, output=500)
    worker = stage.world.workers["llm-0"]
    stage.at(1.0, stage.tell, fx.SendLoad("llm-0", SECOND))
    stage.at(at_s, worker.stop)
    stage.at(at_s + 30.0, worker.go_on)
    stage.until(60.0)
    assert stage.beats()[-1][1].model == SECOND
    hold = stage.hold(key)
    assert hold is not None
    assert hold.state == "evicted"
    stage.quiet()


scripts = st.lists(
    st.tuples(
        st.floats(0.2, 6.0),
        st.sampled_from(["evict", "resume", "move", "back", "load"]),
        st.integers(0, 5),
    ),
    max_size=14,
)


@settings(max_examples=20, deadline=None)
@given(scripts)
def test_iterations_taken_together_are_the_same_as_one_by_one_whatever_leaves_and_comes(script: list[Any]) -> None:
    fast, slow = (played(script, one_by_one=single) for single in (False, True))
    assert fast.names() == slow.names()
    for (at_s, one), (other_at_s, other) in zip(fast.said(), slow.said(), strict=True):
        assert at_s == pytest.approx(other_at_s, abs=1e-6)
        assert type(one) is type(other)
    for (_, one), (_, other) in zip(fast.beats(), slow.beats(), strict=True):
        assert [(hold.key, hold.state, hold.next_index) for hold in one.holds] == [
            (hold.key, hold.state, hold.next_index) for hold in other.holds
        ]
        assert one.done.busy_s == pytest.approx(other.done.busy_s, abs=1e-6)
        assert (one.done.iterations, one.done.decode_tokens) == (other.done.iterations, other.done.decode_tokens)
    fast.quiet()


def played(script: list[Any], *, one_by_one: bool) -> Stage:
    stage = Stage(one_by_one=one_by_one)
    keys = [stage.ask(prompt=500 + 700 * at, output=150 + 40 * at, worker=f"llm-{at % 2}") for at in range(6)]
    for at_s, what, at in script:
        key, here, there = keys[at], f"llm-{at % 2}", f"llm-{1 - at % 2}"
        stage.at(
            at_s,
            stage.tell,
            {
                "evict": EVICT(here, key),
                "resume": RESUME(here, key),
                "move": move(key, there, here),
                "back": EVICT(there, key),
                "load": fx.SendLoad(here, SECOND if at < 3 else FIRST),
            }[what],
        )
    return stage.until(9.0)
