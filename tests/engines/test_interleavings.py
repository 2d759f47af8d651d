"""Two engines of a backend and any interleaving of all that may happen to sequences: tokens, KV and books hold."""

from dataclasses import dataclass, replace
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from headrace.core.stages.kv import blocks_for
from headrace.engines.base import SequenceInput, StepResult
from tests.engines.backends import BACKENDS, COUNT, Backend, sequences, undisturbed
from tests.engines.driving import export

pytestmark = pytest.mark.timeout(120)
SLOTS, BLOCKS = 3, 14  # of one sequence: three to six
PICK = st.integers(0, 99)
T = TypeVar("T")


def some(of: list[T], pick: int) -> list[T]:
    """One of them, if there are any."""
    return of[pick % len(of) :][:1] if of else []


@dataclass
class Seat:
    """A sequence in one of the engines, as the model knows it."""

    given: SequenceInput
    home: int
    tokens: list[int]
    phase: str  # live, paused
    evicted: bool = False


class Interleavings(RuleBasedStateMachine):
    backend: Backend

    def __init__(self) -> None:
        super().__init__()
        caches = (0, 8 * 16 * self.backend.spec.kv_bytes_per_token)  # eight blocks: fewer than the prompts have
        self.engines = [self.backend.make(slots=SLOTS, blocks=BLOCKS, prefix_cache_bytes=size) for size in caches]
        self.seats: dict[str, Seat] = {}
        self.emitted: dict[str, list[int]] = {}  # of those that were removed and may come again

    @rule(pick=PICK, home=st.integers(0, 1))
    def add(self, pick: int, home: int) -> None:
        """A new sequence, or one that was removed and is replayed."""
        for name in some([name for name in sequences(self.backend) if name not in self.seats], pick):
            given, tokens = sequences(self.backend)[name], self.emitted.pop(name, [])
            if self.fits(given, home):
                self.engines[home].add(replace(given, tokens=(*given.tokens, *tokens)))
                self.seats[name] = Seat(given, home, tokens, "live")

    @rule(home=st.integers(0, 1), count=st.integers(1, 4))
    def step(self, home: int, count: int) -> None:
        for _ in range(count):
            self.take(self.engines[home].step(), home)

    def take(self, result: StepResult, home: int) -> None:
        ended = {end.key for end in result.prefilled}
        for token in result.emitted:
            seat = self.seats[token.key.request_id]
            assert (seat.home, seat.phase, seat.evicted) == (home, "live", False)
            assert token.index == len(seat.tokens)
            seat.tokens.append(token.token)
            ended.discard(token.key)
            if len(seat.tokens) == COUNT:
                self.engines[home].remove(token.key)
                del self.seats[token.key.request_id]
            assert seat.tokens == undisturbed(self.backend)[token.key.request_id][: len(seat.tokens)]
        assert not ended, "the step that ends a prefill emits its token"

    @rule(pick=PICK)
    def pause(self, pick: int) -> None:
        for seat in some(list(self.seats.values()), pick):
            self.engines[seat.home].pause(seat.given.key)
            seat.phase = "paused"

    @rule(pick=PICK)
    def evict(self, pick: int) -> None:
        for seat in some([seat for seat in self.seats.values() if not seat.evicted], pick):
            engine, key = self.engines[seat.home], seat.given.key
            before = export(engine, key)
            engine.evict(key)
            assert export(engine, key) == before
            seat.evicted = True

    @rule(pick=PICK)
    def restore(self, pick: int) -> None:
        for seat in some([seat for seat in self.seats.values() if seat.evicted], pick):
            engine, key = self.engines[seat.home], seat.given.key
            if self.fits(seat.given, seat.home):
                before = export(engine, key)
                engine.restore(key)
                assert export(engine, key) == before
                seat.evicted = False

    @rule(pick=PICK, home=st.integers(0, 1))
    def move(self, pick: int, home: int) -> None:
        """To the other engine, or out of one and into it again: a paused or evicted sequence goes on there."""
        for seat in some(list(self.seats.values()), pick):
            key, sequence = seat.given.key, replace(seat.given, tokens=(*seat.given.tokens, *seat.tokens))
            if self.fits(seat.given, home, leaving=seat):
                manifest, buffer = export(self.engines[seat.home], key)
                self.engines[seat.home].remove(key)
                self.engines[home].import_kv(sequence, manifest, memoryview(buffer))
                assert export(self.engines[home], key) == (manifest, buffer)
                seat.home, seat.phase, seat.evicted = home, "live", False

    @rule(pick=PICK)
    def remove(self, pick: int) -> None:
        for seat in some(list(self.seats.values()), pick):
            name = seat.given.key.request_id
            self.engines[seat.home].remove(seat.given.key)
            self.emitted[name] = self.seats.pop(name).tokens

    @invariant()
    def books_add_up(self) -> None:
        for home, engine in enumerate(self.engines):
            engine.check_integrity()
            seats = [seat for seat in self.seats.values() if seat.home == home]
            present = [seat for seat in seats if not seat.evicted]
            assert engine.slots_used() == len(present)
            assert engine.blocks_used() == sum(map(self.blocks, present))
            assert engine.has_work() == any(seat.phase == "live" for seat in present)
            assert any(seat.evicted for seat in seats) or not engine.evicted_bytes()

    def blocks(self, seat: Seat) -> int:
        return self.blocks_of(seat.given)

    def blocks_of(self, given: SequenceInput) -> int:
        prefix_len = self.backend.spec.prefix_tokens.get(given.prefix, 0)
        return blocks_for(prefix_len + given.prompt_len + given.sampling.max_tokens, self.backend.spec.block_tokens)

    def fits(self, given: SequenceInput, home: int, leaving: Seat | None = None) -> bool:
        present = [s for s in self.seats.values() if s.home == home and not s.evicted and s is not leaving]
        return len(present) < SLOTS and sum(map(self.blocks, present)) + self.blocks_of(given) <= BLOCKS


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_any_interleaving(backend: Backend) -> None:
    machine = type("Machine", (Interleavings,), {"backend": backend})
    run_state_machine_as_test(machine, settings=settings(max_examples=20, stateful_step_count=40, deadline=None))
