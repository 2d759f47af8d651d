"""In which order a worker takes what waits: at the tower, and for prefill."""

from dataclasses import dataclass, field

import pytest

from headrace.core.stages.batch import Batch
from headrace.core.stages.encoder_batch import EncodeLine
from headrace.core.stages.places import Line, Waiting, place, urgency
from headrace.core.types import Key

# name, seq, due_s, alone_s, work_s
TEXT_LATER = Waiting("text", 3, 10.3, 0.05, 0.05)
PICTURE = Waiting("picture", 2, 13.4, 0.3, 0.3)
NINE = Waiting("nine pictures", 1, 13.3, 0.3, 2.7)


@pytest.mark.parametrize(
    ("line", "order", "why"),
    [
        ("fifo", ["nine pictures", "picture", "text"], "as they came"),
        ("slack", ["text", "nine pictures", "picture"], "the tightest target first, then who came first"),
        ("shortest", ["text", "picture", "nine pictures"], "the least work first"),
    ],
)
def test_who_goes_first(line: Line, order: list[str], why: str) -> None:
    waiting = [NINE, PICTURE, TEXT_LATER]
    assert [each.name for each in sorted(waiting, key=lambda each: place(line, each))] == order, why


def test_random_is_the_same_each_time_and_no_order() -> None:
    waiting = [Waiting(f"{number:032x}", number, 0.0, 0.0, 0.0) for number in range(100)]
    order = [each.seq for each in sorted(waiting, key=lambda each: place("random", each))]
    assert order == [each.seq for each in sorted(waiting, key=lambda each: place("random", each))]
    assert order != sorted(order)


@dataclass(eq=False)
class Part:
    place: float
    modality: str = "image"


def test_a_tower_takes_the_least_place_first_and_equals_as_they_came() -> None:
    line: EncodeLine[Part] = EncodeLine(lambda part: True, lambda part: part.place)
    parts = [Part(3.0), Part(1.0), Part(2.0), Part(1.0)]
    for part in parts:
        line.add(part, None)
    assert [encoding.parts[0] for encoding in line.next(3)] == [parts[1], parts[3], parts[2]]
    line.add(late := Part(0.5), None)
    assert [encoding.parts[0] for encoding in line.next(8)] == [late, parts[0]]


@dataclass(frozen=True)
class Sequence:
    key: Key
    length: int
    max_tokens: int = 8
    kv_beside: int = 0
    tokens: tuple[int, ...] = field(default=())

    @property
    def prompt_len(self) -> int:
        return self.length

    @property
    def reach(self) -> int:
        return self.length


def test_prefill_goes_by_place_and_who_has_begun_goes_on() -> None:
    batch: Batch[Sequence, float] = Batch(
        slots=8, blocks=64, block_tokens=16, context_tokens=512, chunk_tokens=32, place=lambda live: live.state
    )
    batch.add(Sequence(Key("long", 1), 80), 0, 5.0)
    batch.add(Sequence(Key("late", 1), 16), 0, 9.0)
    ran = []
    for step in range(6):
        if step == 1:  # urgent, but the long one is under way
            batch.add(Sequence(Key("urgent", 1), 16), 0, 1.0)
        chunks = batch.next_chunks()
        ran.append(" ".join(chunk.live.key.request_id for chunk in chunks))
        for chunk in chunks:
            batch.filled(chunk)
    assert ran[:4] == ["long", "long", "long urgent", "late"]


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ((20.0, 5.0), (3_600.0, 0.0), "due first, though it came later"),
        ((3_600.0, 0.0), (80.0, 10.0), "what has waited a minute goes before who is due later than that"),
        ((0.0, 0.0), (0.0, 1.0), "nobody says when it is due: as they came"),
        ((30.0, 0.0), (0.0, 0.0), "said beats unsaid, if it is due within the minute"),
    ],
)
def test_an_encoder_takes_first_what_is_due_and_all_grow_old(
    first: tuple[float, float], second: tuple[float, float], why: str
) -> None:
    """(due, came)."""
    assert urgency(*first) < urgency(*second), why
