"""Which chunks run when some sequences wait for media: the same chunks, and nobody who is complete waits for them."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.stages.batch import Batch, Chunk, Live
from headrace.core.types import Key

CHUNK = 32
Told = list[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class Given:
    name: str
    length: int
    reach: int
    tokens: tuple[int, ...] = ()
    max_tokens: int = 4
    kv_beside: int = 0

    @property
    def key(self) -> Key:
        return Key(self.name, 1)

    @property
    def prompt_len(self) -> int:
        return self.length


def batch() -> Batch[Given, None]:
    return Batch(slots=8, blocks=1024, block_tokens=16, context_tokens=4096, chunk_tokens=CHUNK)


def step(made: Batch[Given, None]) -> Told:
    """One iteration; whoever has its first token leaves."""
    chunks: list[Chunk[Given, None]] = made.next_chunks()
    for chunk in chunks:
        made.filled(chunk)
        if chunk.ends_prefill:
            chunk.live.emit(0)
            made.remove(chunk.live.key)
    made.check_integrity()
    return [(chunk.live.key.request_id, chunk.start, chunk.stop) for chunk in chunks]


def test_a_turn_of_its_own_begins_when_all_media_are_there() -> None:
    made = batch()
    made.add(Given("filling", 70, 40), 0, None)
    made.add(Given("first", 40, 40), 0, None)
    assert step(made) == [("first", 0, 32)], "whoever is complete goes before who came first"
    made.add(Given("second", 64, 64), 0, None)
    made.feed(Key("filling", 1), Given("filling", 70, 70))
    assert step(made) == [("first", 32, 40)], "a whole chunk does not fit into the rest"
    assert [step(made) for _ in range(4)] == [
        [("second", 0, 32)],
        [("second", 32, 64)],
        [("filling", 0, 32)],
        [("filling", 32, 64)],
    ]


def test_what_is_spared_is_used_as_far_as_media_go() -> None:
    made = batch()
    made.add(Given("filling", 110, 70), 0, None)
    assert [step(made), step(made), step(made)] == [[("filling", 0, 32)], [("filling", 32, 64)], []]
    assert not made.has_work()
    made.feed(Key("filling", 1), Given("filling", 110, 100))
    assert made.has_work()
    assert step(made) == [("filling", 64, 96)]
    assert not made.has_work()
    made.feed(Key("filling", 1), Given("filling", 110, 110))
    assert step(made) == [("filling", 96, 110)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 150), st.lists(st.tuples(st.integers(0, 12), st.integers(0, 150)), max_size=3)),
        min_size=1,
        max_size=6,
    )
)
def test_others_lose_nothing(asked: list[tuple[int, list[tuple[int, int]]]]) -> None:
    """asked: lengths, and for those with media when they come how far one can compute. Beside the same without overlap:
    nobody's prefill ends later, and every sequence is cut at the same places."""
    early, late = _run(asked, overlap=True), _run(asked, overlap=False)
    assert early.keys() == late.keys()
    for name, cuts in early.items():
        assert [cut[1:] for cut in cuts] == [cut[1:] for cut in late[name]]
        assert cuts[-1][0] <= late[name][-1][0]


def _run(asked: list[tuple[int, list[tuple[int, int]]]], *, overlap: bool) -> dict[str, list[tuple[int, int, int]]]:
    """By name: iteration, start and stop of each chunk."""
    made, cuts = batch(), dict[str, list[tuple[int, int, int]]]()
    plans = {f"s{number}": _plan(*each) for number, each in enumerate(asked)}
    for at in range(60):
        for name, (length, reaches) in plans.items():
            reach = max((reach for when, reach in reaches if when <= at), default=-1)
            known = Key(name, 1) in {live.key for live in made}
            if known:
                made.feed(Key(name, 1), Given(name, length, reach))
            elif name not in cuts and (reach == length or (overlap and reach >= 0)):
                cuts[name] = []
                made.add(Given(name, length, reach), 0, None)
        for name, start, stop in step(made):
            cuts[name].append((at, start, stop))
    assert not list[Live[Given, None]](made)
    return cuts


def _plan(length: int, media: list[tuple[int, int]]) -> tuple[int, list[tuple[int, int]]]:
    """When it reaches how far; all of it at last."""
    last = max((when for when, _ in media), default=0) + bool(media)
    return length, [*((when, min(reach, length - 1)) for when, reach in media), (last, length)]
