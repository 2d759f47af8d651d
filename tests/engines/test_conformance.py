"""What every backend keeps to: the same tokens whatever happens to a sequence, KV moved bit by bit, true books."""

from dataclasses import replace

import pytest

from headrace.core.types import Key
from headrace.engines.base import Engine, KvMismatch, SequenceInput
from tests.engines.backends import BACKENDS, COUNT, Backend, sequences, undisturbed
from tests.engines.driving import advance, export, prefill, run

pytestmark = [pytest.mark.parametrize("backend", BACKENDS, ids=str), pytest.mark.timeout(60)]
NAMES = list(sequences(BACKENDS[0]))
CACHE_BYTES = 1 << 20


class Sink:
    """Remembers what was said to be final, when it was said."""

    def __init__(self, size_bytes: int) -> None:
        self.bytes = bytearray(size_bytes)
        self.final: list[bytes] = []

    @property
    def buffer(self) -> memoryview:
        return memoryview(self.bytes)

    def ready(self, size_bytes: int) -> None:
        self.final.append(bytes(self.bytes[:size_bytes]))


def resumed(given: SequenceInput, tokens: list[int]) -> SequenceInput:
    return replace(given, tokens=(*given.tokens, *tokens))


def moved(engine: Engine, other: Engine, given: SequenceInput, tokens: list[int]) -> None:
    """From one engine to another, bit by bit; the first forgets it."""
    manifest, buffer = export(engine, given.key)
    engine.remove(given.key)
    other.import_kv(resumed(given, tokens), manifest, memoryview(buffer))
    assert export(other, given.key) == (manifest, buffer)


def at_stage(engine: Engine, given: SequenceInput, stage: str) -> list[int]:
    """Add the sequence and bring it there; returns its tokens so far."""
    engine.add(given)
    if stage == "half prefilled":
        engine.step()
        return []
    tokens = {"added": 0, "prefilled": 1, "decoding": 4, "paused": 3}[stage]
    out = advance(engine, given.key, tokens)
    if stage == "paused":
        engine.pause(given.key)
    return out


STAGES = ["added", "half prefilled", "prefilled", "decoding"]


def test_together_equals_alone(backend: Backend) -> None:
    engine = backend.make(slots=len(NAMES))
    for given in sequences(backend).values():
        engine.add(given)
    out = run(engine, {given.key: COUNT for given in sequences(backend).values()})
    assert {key.request_id: tokens for key, tokens in out.items()} == undisturbed(backend)
    engine.check_integrity()
    assert (engine.slots_used(), engine.blocks_used(), engine.has_work()) == (0, 0, False)


def test_each_iteration_tells_whose_prompts_it_computed(backend: Backend) -> None:
    """Energy is shared out by it."""
    engine, computed = backend.make(slots=len(NAMES)), dict[Key, int]()
    for given in sequences(backend).values():
        engine.add(given)
    prefilled = 0
    while prefilled < len(NAMES):
        result = engine.step()
        prefilled += len(result.prefilled)
        assert sum(tokens for _, tokens in result.chunks) == result.prefill_tokens
        for key, tokens in result.chunks:
            computed[key] = computed.get(key, 0) + tokens
    assert computed == {given.key: given.length for given in sequences(backend).values()}


@pytest.mark.parametrize("name", ["long", "images", "drawn"])
@pytest.mark.parametrize("stage", STAGES)
def test_moved_at_any_iteration(backend: Backend, name: str, stage: str) -> None:
    engine, other, given = backend.make(), backend.make(), sequences(backend)[name]
    tokens = at_stage(engine, given, stage)
    moved(engine, other, given, tokens)
    assert run(other, {given.key: COUNT}, {given.key: tokens})[given.key] == undisturbed(backend)[name]


@pytest.mark.parametrize("name", ["long", "images", "drawn"])
@pytest.mark.parametrize("stage", [*STAGES, "paused"])
def test_evicted_and_restored(backend: Backend, name: str, stage: str) -> None:
    engine, given = backend.make(), sequences(backend)[name]
    tokens = at_stage(engine, given, stage)
    before = export(engine, given.key)
    engine.evict(given.key)
    assert (engine.slots_used(), engine.blocks_used(), engine.has_work()) == (0, 0, False)
    assert engine.evicted_bytes() >= before[0].size_bytes
    assert export(engine, given.key) == before
    assert not engine.step().emitted
    engine.restore(given.key)
    assert engine.evicted_bytes() == 0
    assert export(engine, given.key) == before
    assert engine.has_work() == (stage != "paused")
    if stage == "paused":
        moved(engine, engine, given, tokens)  # a paused sequence goes on nowhere but elsewhere
    assert run(engine, {given.key: COUNT}, {given.key: tokens})[given.key] == undisturbed(backend)[name]


def test_room_is_free_while_a_sequence_is_evicted_and_needed_to_restore_it(backend: Backend) -> None:
    first, second = (sequences(backend)[name] for name in ("long", "images"))
    engine = backend.make(slots=1)
    tokens = at_stage(engine, first, "decoding")
    engine.evict(first.key)
    engine.add(second)
    with pytest.raises(AssertionError, match="no free slot"):
        engine.restore(first.key)
    engine.check_integrity()
    assert run(engine, {second.key: COUNT})[second.key] == undisturbed(backend)["images"]
    engine.restore(first.key)
    assert run(engine, {first.key: COUNT}, {first.key: tokens})[first.key] == undisturbed(backend)["long"]


@pytest.mark.parametrize("stage", STAGES)
def test_an_evicted_sequence_may_be_removed(backend: Backend, stage: str) -> None:
    engine, given = backend.make(), sequences(backend)["long"]
    at_stage(engine, given, stage)
    engine.evict(given.key)
    with pytest.raises(AssertionError, match="evicted"):
        engine.evict(given.key)
    engine.remove(given.key)
    engine.check_integrity()
    assert (engine.slots_used(), engine.blocks_used(), engine.evicted_bytes()) == (0, 0, 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_sink_gets_what_export_writes_in_final_parts(backend: Backend, name: str) -> None:
    """The others of the batch are prefilled in the same calls."""
    engine, given = backend.make(slots=len(NAMES), prefix_cache_bytes=CACHE_BYTES), sequences(backend)[name]
    told = engine.prefilled_manifest(given)
    sink = Sink(told.size_bytes)
    for other in sequences(backend).values():
        engine.add(other, sink if other is given else None)
    while given.key not in [ended.key for ended in engine.step().prefilled]:
        assert not any(len(part) == told.size_bytes for part in sink.final)
    assert export(engine, given.key) == (told, sink.bytes)
    assert len(sink.final[-1]) == told.size_bytes
    assert [len(part) for part in sink.final] == sorted({len(part) for part in sink.final})
    assert all(sink.bytes.startswith(part) for part in sink.final)


def test_a_sink_waits_for_a_sequence_that_is_evicted_meanwhile(backend: Backend) -> None:
    engine, given = backend.make(), sequences(backend)["long"]
    sink = Sink(engine.prefilled_manifest(given).size_bytes)
    engine.add(given, sink)
    engine.step()
    engine.evict(given.key)
    engine.step()
    engine.restore(given.key)
    prefill(engine, given.key)
    assert export(engine, given.key) == (engine.prefilled_manifest(given), sink.bytes)
    said = len(sink.final)
    engine.step()
    assert len(sink.final) == said, "it is whole and left alone"


def test_a_replayed_sequence_pours_its_replayed_tokens_too(backend: Backend) -> None:
    engine, given = backend.make(), resumed(sequences(backend)["images"], undisturbed(backend)["images"][:5])
    sink = Sink(engine.prefilled_manifest(given).size_bytes)
    engine.add(given, sink)
    advance(engine, given.key, 1)
    assert export(engine, given.key) == (engine.prefilled_manifest(given), sink.bytes)


def test_a_kv_that_its_tokens_do_not_continue_is_refused(backend: Backend) -> None:
    engine, other, given = backend.make(), backend.make(), sequences(backend)["images"]
    engine.add(given)
    engine.step()
    half = export(engine, given.key)
    tokens = advance(engine, given.key, 4)
    whole = export(engine, given.key)
    for wrong, (manifest, buffer), why in [
        (given, whole, "does not fit"),
        (resumed(given, tokens[:3]), whole, "does not fit"),
        (resumed(given, tokens), (replace(whole[0], layout="another"), whole[1]), "this engine continues"),
        (resumed(given, tokens), (replace(whole[0], next_position=3), whole[1]), "this engine continues"),
        (resumed(given, tokens), (replace(whole[0], cross_length=3), whole[1]), "this engine continues"),
        (replace(given, embeddings=()), half, "media part 1"),
    ]:
        with pytest.raises(KvMismatch, match=why):
            other.import_kv(wrong, manifest, memoryview(buffer))
        assert (other.slots_used(), other.blocks_used()) == (0, 0)


def test_parked_for_another_model_and_back(backend: Backend) -> None:
    """With its caches gone it computes what a new engine would; what was exported before goes on."""
    engine, given = backend.make(prefix_cache_bytes=CACHE_BYTES), sequences(backend)["drawn"]
    engine.add(given)
    tokens = advance(engine, given.key, 4)
    manifest, buffer = export(engine, given.key)
    with pytest.raises(AssertionError):
        engine.park()
    engine.remove(given.key)
    for _ in range(2):
        engine.park()
        assert (engine.slots_used(), engine.blocks_used(), engine.has_work()) == (0, 0, False)
        engine.unpark()
        engine.import_kv(resumed(given, tokens), manifest, memoryview(buffer))
        assert run(engine, {given.key: COUNT}, {given.key: list(tokens)})[given.key] == undisturbed(backend)["drawn"]
        other = sequences(backend)["long"]
        engine.add(other)
        assert prefill(engine, other.key).cached_tokens == 0, "the prefix cache is empty"
        engine.remove(other.key)
        engine.check_integrity()
