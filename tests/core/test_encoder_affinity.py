"""Where a media part goes: to the encoder that had the same content, unless that one is gone, full or overloaded."""

from dataclasses import dataclass, replace

import pytest

from headrace.core import effects as fx
from headrace.core import events as ev
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.stages.content import Home
from headrace.core.stages.routing import least_pending, least_pending_at_home
from headrace.core.types import Failure, Key, Media, MediaMeta, TensorHandle
from tests.core.queue_world import make_request

NOW_S = 1000.0
META = MediaMeta("image", "image/png", 8, 8, 100)


@dataclass(frozen=True)
class Load:
    id: str
    media_pending: int = 0
    media_held: int = 0
    incarnation: str = "1"
    encode_speed: float = 1.0
    risky: bool = False


# Three encoders; a part of 100 tokens; a window of 1,000; four times the least loaded.
TABLE = [
    # homes, pending of a b c, held of a b c, chosen, why
    ([], (0, 0, 0), (0, 0, 0), "a", "nobody has had it: the first of the idle ones"),
    (["b"], (0, 0, 0), (0, 0, 0), "b", "its home is as idle as the others"),
    (["b"], (0, 400, 0), (0, 0, 0), "b", "its home has four such parts to do: what is kept is quicker"),
    (["b"], (0, 401, 0), (0, 0, 0), "a", "its home is overloaded"),
    (["b"], (100, 800, 100), (0, 0, 0), "b", "all are busy: the measure is the least loaded"),
    (["b", "c"], (0, 200, 100), (0, 0, 0), "c", "two homes: the less loaded"),
    (["b", "c"], (0, 900, 500), (0, 0, 0), "a", "two homes, both overloaded"),
    (["b"], (0, 0, 0), (0, 901, 0), "a", "its home has no room"),
    (["b"], (0, 0, 0), (1000, 901, 1000), "", "nobody has room: it waits"),
    (["x"], (50, 0, 0), (0, 0, 0), "b", "its home is gone: the least loaded"),
    (["b/2"], (0, 0, 0), (0, 0, 0), "a", "its home is another life of that process"),
]


@pytest.mark.parametrize(("homes", "pending", "held", "chosen", "why"), TABLE, ids=[row[-1] for row in TABLE])
def test_where_it_goes(
    homes: list[str], pending: tuple[int, ...], held: tuple[int, ...], chosen: str, why: str
) -> None:
    loads = [Load(name, *load) for name, load in zip("abc", zip(pending, held, strict=True), strict=True)]
    known = [Home(name, life or "1") for name, _, life in (home.partition("/") for home in homes)]
    found = least_pending_at_home(loads, known, 100, 1000, 4.0)
    assert (found.id if found is not None else "") == chosen, why
    assert least_pending_at_home(loads, (), 100, 1000, 4.0) == least_pending(loads, 100, 1000)


# One encoder, a part of 100 tokens, a window of 300, a memory of 1,000: pending, kept, whether it goes there, why.
ROOM = [
    (200, 0, True, "it fills the window"),
    (201, 0, False, "the window is for parts that are out of the queue's order"),
    (0, 900, True, "what waits for prefill is no line: an encoder that rests takes more"),
    (200, 701, False, "its memory is full, were all of it encoded"),
    (0, 901, False, "its memory is full"),
]


@pytest.mark.parametrize(("pending", "held", "goes", "why"), ROOM, ids=[row[-1] for row in ROOM])
def test_what_is_kept_takes_memory_and_no_place_in_the_window(pending: int, held: int, goes: bool, why: str) -> None:
    assert (least_pending([Load("a", pending, held)], 100, 300, 1000) is not None) == goes, why


def test_a_part_larger_than_all_room_goes_where_nothing_is() -> None:
    assert least_pending([Load("a")], 5000, 300, 1000) is not None
    assert least_pending([Load("a", 0, 1)], 5000, 300, 1000) is None


class Stage:
    """Two or more encoders and a worker, told to a core."""

    def __init__(self, *encoders: str, **config: object) -> None:
        self.core = QueueCore(QueueConfig(epoch=1, **config))  # type: ignore[arg-type]
        self.now_s, self.seq = NOW_S, 0
        self.core.handle(ev.CaughtUp(), NOW_S)
        self.beats = {
            name: ev.Heartbeat(name, f"{name}-1", ("encode",), "m", modalities=("image",)) for name in encoders
        }
        self.beats["w"] = ev.Heartbeat("w", "w-1", ("prefill", "decode"), "m", slots=64, blocks=4096, block_tokens=16)
        for name in self.beats:
            self.beat(name)

    def beat(self, name: str, **changes: object) -> None:
        self.beats[name] = beat = replace(self.beats[name], sent_s=self.now_s, **changes)  # type: ignore[arg-type]
        self.core.handle(beat, self.now_s)

    def ask(self, *pictures: str, tenant: str = "t", tokens: int = 16) -> list[tuple[str, str]]:
        """Which encoder each part goes to, and whose requests its embedding is shared with."""
        self.seq += 1
        media = tuple([Media(META, name, tokens) for name in pictures])
        request = make_request(self.seq, self.now_s, images=len(pictures), media=media, tenant=tenant)
        return self.sent(self.core.handle(ev.RequestAccepted(request, self.seq), self.now_s))

    def sent(self, effects: list[fx.Effect]) -> list[tuple[str, str]]:
        self.core.check()
        sent = sorted((e for e in effects if isinstance(e, fx.SendEncode)), key=lambda each: each.command.part)
        return [(each.worker, each.command.cache_scope) for each in sent]

    def key(self, number: int, attempt: int = 1) -> Key:
        return Key(f"{number:032x}", 4096 + attempt)

    def encoded(self, worker: str, number: int, part: int = 0) -> None:
        handle = TensorHandle("x", worker, "", "", "h", "", "f4", (1,), "", 4, 0, 1)
        self.core.handle(ev.PartEncoded(worker, self.key(number), part, handle), self.now_s)
        self.core.check()

    def joined(self, number: int) -> None:
        """Its prefill has the embeddings."""
        self.core.handle(ev.Joined("w", self.key(number)), self.now_s)

    def pass_s(self, seconds: float, *beating: str) -> list[tuple[str, str]]:
        """Ticks; whoever is not named falls silent."""
        told = []
        for _ in range(round(seconds / 0.25)):
            self.now_s += 0.25
            for name in beating:
                self.beat(name)
            told += self.sent(self.core.handle(ev.Tick(), self.now_s))
        return told


def where(sent: list[tuple[str, str]]) -> str:
    return " ".join(worker for worker, _ in sent)


def test_the_same_picture_goes_where_it_went_before() -> None:
    stage = Stage("e1", "e2", "e3")
    assert where(stage.ask("cat", "dog", "cow")) == "e1 e2 e3"
    for part, worker in enumerate(("e1", "e2", "e3")):
        stage.encoded(worker, 1, part)
    for picture, worker in (("cow", "e3"), ("dog", "e2"), ("cat", "e1"), ("cow", "e3"), ("cow", "e3")):
        assert where(stage.ask(picture)) == worker, picture


def test_it_is_told_who_waits_for_encoders() -> None:
    """A gateway's door lets texts in that do not stand behind them."""
    stage = Stage("e1")

    def told() -> tuple[int, int]:
        (load,) = [each for each in stage.core.view(NOW_S).classes if each.slo_class == "interactive"]
        return load.encoding, load.queued + load.running

    stage.ask("cat")
    stage.ask("dog")
    assert told() == (2, 2)
    stage.encoded("e1", 1)
    assert told() == (1, 2)


def test_who_asks_at_the_same_moment_goes_there_too_until_it_is_too_much() -> None:
    """Pending are 16, 32, 48, 64, 80 tokens; idle ones would have 16 with this part: four times that is 64."""
    stage = Stage("e1", "e2")
    assert [where(stage.ask("cat")) for _ in range(7)] == ["e1"] * 5 + ["e2"] * 2


@pytest.mark.parametrize(
    ("sharing", "scopes", "workers"),
    [
        ("tenant", ["tenant a", "tenant b", "tenant a"], "e1 e2 e1"),
        ("all", ["all", "all", "all"], "e1 e1 e1"),
        ("off", ["", "", ""], "e1 e2 e1"),
    ],
)
def test_tenants_share_only_where_they_are_told_to(sharing: str, scopes: list[str], workers: str) -> None:
    stage = Stage("e1", "e2", encoder_cache=sharing)
    sent = [stage.ask("cat", tenant=tenant)[0] for tenant in "aba"]
    assert [scope for _, scope in sent] == scopes
    assert where(sent) == workers


def test_a_dead_home_is_forgotten() -> None:
    stage = Stage("e1", "e2")
    assert where(stage.ask("dog")) == "e1"
    stage.encoded("e1", 1)
    assert where(stage.ask("dog")) == "e1"
    # e1 falls silent: what it had not encoded yet goes to the other, and so do later ones.
    assert where(stage.pass_s(3.0, "e2", "w")) == "e2"
    assert where(stage.ask("dog", "cat")) == "e2 e2"


@pytest.mark.parametrize(("life", "worker"), [("e2-1", "e2"), ("e2-2", "e1")], ids=["it goes on", "it was restarted"])
def test_a_process_that_was_started_again_has_forgotten_all(life: str, worker: str) -> None:
    stage = Stage("e1", "e2")
    assert where(stage.ask("ant", "cat")) == "e1 e2"
    for part, encoder in enumerate(("e1", "e2")):
        stage.encoded(encoder, 1, part)
    stage.joined(1)
    stage.beat("e2", incarnation=life)
    assert where(stage.ask("cat")) == worker


def test_what_has_failed_is_computed_anew_for_itself() -> None:
    stage = Stage("e1", "e2")
    assert stage.ask("cat") == [("e1", "tenant t")]
    failed = ev.StageFailed("e1", stage.key(1), Failure("stage_error", "broken"), retryable=True)
    assert [scope for _, scope in stage.sent(stage.core.handle(failed, stage.now_s))] == [""]
    assert stage.ask("cat") == [("e1", "tenant t")]


def test_what_is_remembered_is_bounded() -> None:
    stage = Stage("e1", "e2", affinity_contents_max=8)
    for number in range(50):
        stage.ask(f"picture {number}", tokens=1)  # Stage.sent looks at the invariants
    cell = stage.core._cell
    assert len(cell.affinity) == 8
