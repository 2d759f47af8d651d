"""What stages of requests cost by a model's profiles: the engines' own batch, a profile's seconds, nothing waiting."""

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.characterize.parts import Parts
from headrace.core.cost import StepWork
from headrace.core.stages.batch import Batch, Chunk, work_of
from headrace.core.types import Key
from headrace.profiles import EncoderProfile, InstanceProfile
from headrace.sim.held import Counted

_BLOCKS = 1 << 40  # room is no matter here


@dataclass(frozen=True, slots=True)
class Input:
    """Of one request: text, and media that join its sequence (decoder-only) or stand beside it (cross-attention)."""

    text_tokens: int
    media_tokens: int = 0
    images: int = 0  # of a cross-attention model each takes one position of the sequence
    crosses: bool = False

    @property
    def positions(self) -> int:
        return self.text_tokens + (self.images if self.crosses else self.media_tokens)

    @property
    def rows(self) -> int:
        return self.media_tokens if self.crosses else 0


@dataclass(frozen=True, slots=True)
class Shown:
    """The request that is characterised: so much text, and one image of so many pixels."""

    width: int = 896
    height: int = 896
    text_tokens: int = 128

    def input(self, parts: Parts) -> Input:
        if not parts.encoders:
            return Input(self.text_tokens)
        tokens = parts.card.media_tokens(self.width, self.height)
        return Input(self.text_tokens, tokens, 1, parts.crosses)

    @property
    def words(self) -> str:
        return f"{self.text_tokens} text tokens and one image of {self.width} x {self.height}"


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds until the first token of one request that meets nobody."""

    preprocess_s: float
    encode_s: float
    transfer_s: float
    prefill_s: float

    @property
    def ttft_s(self) -> float:
        return self.preprocess_s + self.encode_s + self.transfer_s + self.prefill_s

    @property
    def shares(self) -> tuple[float, ...]:
        return tuple(each / self.ttft_s for each in (self.preprocess_s, self.encode_s, self.transfer_s, self.prefill_s))

    @property
    def encode_share_together(self) -> float:
        """On an instance that does all stages nothing is transferred: what the paper's Fig. 5 shows."""
        return self.encode_s / (self.ttft_s - self.transfer_s)


def stages(parts: Parts, shown: Shown) -> Stages:
    one = shown.input(parts)
    prefill = prefill_s(parts.llm, [one])
    if not parts.encoders:
        return Stages(0.0, 0.0, 0.0, prefill)
    tower = parts.encoder
    return Stages(
        tower.cost.preprocess_s(shown.width * shown.height),
        tower.cost.tiles_s(parts.card.tiles(shown.width, shown.height)),
        parts.link.transfer_s(one.media_tokens * tower.embed_bytes_per_token),
        prefill,
    )


def prefill_s(llm: InstanceProfile, requests: Sequence[Input]) -> float:
    """From the first iteration to the last first token, of requests that come together."""
    return sum(llm.step.step_s(work) for work in iterations(llm, requests))


def iterations(llm: InstanceProfile, requests: Sequence[Input]) -> list[StepWork]:
    """What each iteration prefills, as headrace.core.stages.batch cuts it."""
    batch: Batch[Counted, Input] = Batch(
        slots=len(requests),
        blocks=_BLOCKS,
        block_tokens=llm.block_tokens,
        context_tokens=max(one.positions for one in requests) + 1,
        chunk_tokens=llm.chunk_tokens,
    )
    for number, one in enumerate(requests):
        batch.add(Counted(Key(str(number), 0), one.positions, one.positions, 1, 0), 0, one)
    works = []
    while chunks := batch.next_chunks():
        works.append(_with_rows(work_of((), chunks), chunks))
        for chunk in chunks:
            batch.filled(chunk)
    return works


def _with_rows(work: StepWork, chunks: Sequence[Chunk[Counted, Input]]) -> StepWork:
    """Cross KV of a request is made with its first chunk; every chunk attends to all of its rows."""
    made = sum(chunk.live.state.rows for chunk in chunks if not chunk.start)
    pairs = sum((chunk.stop - chunk.start) * chunk.live.state.rows for chunk in chunks)
    return StepWork(work.prefill_tokens, work.prefill_pairs, cross_tokens=made, cross_pairs=pairs)


def decode_s(llm: InstanceProfile, sequences: int, one: Input) -> float:
    """An iteration of so many sequences that have read such a request and say their second token."""
    return llm.step.step_s(
        StepWork(
            decode_sequences=sequences,
            decode_context_tokens=sequences * (one.positions + 1),
            decode_cross_tokens=sequences * one.rows,
        )
    )


def decode_most(llm: InstanceProfile, one: Input) -> int:
    """Such sequences whose KV fits."""
    each = (one.positions + 1) * llm.kv_bytes_per_token + one.rows * llm.cross_kv_bytes_per_token
    return llm.kv_room_bytes // max(1, each)


def encode_s(tower: EncoderProfile, tiles: int, images: int = 1) -> float:
    """The tower alone."""
    return tower.cost.tiles_s(tiles * images)
