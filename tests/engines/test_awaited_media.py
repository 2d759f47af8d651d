"""Sequences that begin on their first media parts: prefilled as far as those go, and then the same as any other."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from headrace.core.errors import StageError
from headrace.core.types import MediaSpan
from headrace.engines.base import Engine, SequenceInput
from tests.engines.backends import BACKENDS, CHUNK_TOKENS, COUNT, Backend
from tests.engines.driving import export, prefill, run

pytestmark = [pytest.mark.parametrize("backend", BACKENDS, ids=str), pytest.mark.timeout(60)]
PARTS = 3
CACHE_BYTES = 1 << 20


@cache
def about(backend: Backend, name: str = "three images") -> SequenceInput:
    """The first image in the first chunk, the second in the second, the third in the fourth."""
    spans = (MediaSpan(0, 3, 4), MediaSpan(1, 40, 6), MediaSpan(2, 100, 5))
    rows = tuple(backend.image(10 + span.part, span.length) for span in spans)
    plain = backend.text(name, backend.tokens(20, 115), prefix=backend.prefix)
    return replace(plain, spans=spans, embeddings=rows)


def first(given: SequenceInput, parts: int) -> SequenceInput:
    return replace(given, embeddings=given.embeddings[:parts], awaits_media=parts < PARTS)


@cache
def expected(backend: Backend) -> list[int]:
    given, engine = about(backend), backend.make()
    engine.add(given)
    return run(engine, {given.key: COUNT})[given.key]


def starve(engine: Engine) -> int:
    """Step until nothing can be computed; returns the prompt tokens that were."""
    computed = 0
    while engine.has_work():
        result = engine.step()
        computed += result.prefill_tokens
        assert not result.emitted
    assert engine.step().prefill_tokens == 0
    return computed


@pytest.mark.parametrize("cache_bytes", [0, CACHE_BYTES])
@pytest.mark.parametrize("begins_with", range(PARTS))
def test_part_by_part_gives_the_same_tokens(backend: Backend, begins_with: int, cache_bytes: int) -> None:
    given, engine = about(backend), backend.make(prefix_cache_bytes=cache_bytes)
    engine.add(first(given, begins_with))
    computed = 0
    for parts in range(begins_with, PARTS):
        engine.feed(first(given, parts))
        computed += starve(engine)
        reach = given.spans[parts].offset
        assert computed == reach - reach % CHUNK_TOKENS, "whole chunks, as far as the media go"
    engine.feed(first(given, PARTS))
    assert run(engine, {given.key: COUNT})[given.key] == expected(backend)
    engine.check_integrity()
    assert (engine.slots_used(), engine.blocks_used()) == (0, 0)


def test_whoever_is_complete_goes_first(backend: Backend) -> None:
    """One that waits for media takes a slot, and of an iteration what the others leave."""
    given, engine = about(backend), backend.make()
    text = backend.text("text", backend.tokens(21, 80))
    engine.add(first(given, 1))
    engine.add(text)
    steps = [engine.step() for _ in range(5)]
    assert [step.prefill_tokens for step in steps] == [32, 32, 16, 32, 0]
    emitted = [token.token for step in steps for token in step.emitted]
    engine.feed(given)
    out = run(engine, {given.key: COUNT, text.key: COUNT}, {text.key: emitted})
    other = backend.make()
    other.add(text)
    assert out == {given.key: expected(backend), text.key: run(other, {text.key: COUNT})[text.key]}


def test_removed_while_it_waits(backend: Backend) -> None:
    given, engine = about(backend), backend.make(prefix_cache_bytes=CACHE_BYTES)
    engine.add(first(given, 2))
    starve(engine)
    engine.remove(given.key)
    engine.check_integrity()
    assert (engine.slots_used(), engine.blocks_used(), engine.has_work()) == (0, 0, False)
    again = replace(given, key=replace(given.key, attempt=2))
    engine.add(again)
    assert run(engine, {again.key: COUNT})[again.key] == expected(backend)


def test_evicted_while_it_waits(backend: Backend) -> None:
    given, engine = about(backend), backend.make()
    engine.add(first(given, 1))
    starve(engine)
    before = export(engine, given.key)
    engine.evict(given.key)
    engine.feed(given)
    assert not engine.has_work()
    engine.restore(given.key)
    assert export(engine, given.key) == before
    assert run(engine, {given.key: COUNT})[given.key] == expected(backend)


def test_a_cached_beginning_goes_as_far_as_the_media(backend: Backend) -> None:
    """Its blocks are known by their media: those of parts that are not here yet cannot be."""
    given, engine = about(backend), backend.make(prefix_cache_bytes=CACHE_BYTES)
    engine.add(given)
    run(engine, {given.key: COUNT})
    again = replace(given, key=replace(given.key, attempt=2))
    engine.add(first(again, 1))
    assert starve(engine) == 0, "all that could be computed was known"
    engine.feed(again)
    assert run(engine, {again.key: COUNT})[again.key] == expected(backend)


def test_all_of_it_is_remembered_whenever_its_media_came(backend: Backend) -> None:
    given, cached = about(backend), list[int]()
    for begins_with in (PARTS, 0):
        engine = backend.make(prefix_cache_bytes=CACHE_BYTES)
        engine.add(first(given, begins_with))
        for parts in range(begins_with + 1, PARTS + 1):
            starve(engine)
            engine.feed(first(given, parts))
        run(engine, {given.key: COUNT})
        again = replace(given, key=replace(given.key, attempt=2))
        engine.add(again)
        cached.append(prefill(engine, again.key).cached_tokens)
    assert cached[0] == cached[1] > given.spans[-1].offset


def test_embeddings_that_are_no_numbers_are_refused(backend: Backend) -> None:
    if backend.name == "profile":
        pytest.skip("it computes nothing with them")
    given, engine = about(backend), backend.make()
    engine.add(first(given, 1))
    broken = np.full_like(given.embeddings[1], np.nan)
    with pytest.raises(StageError, match="media part 1"):
        engine.feed(replace(first(given, 2), embeddings=(given.embeddings[0], broken)))
    engine.remove(given.key)
    engine.check_integrity()
