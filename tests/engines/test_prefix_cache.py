"""The prefix cache: keys that tell every difference, eviction from the leaves, and answers that it never changes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given as example
from hypothesis import settings
from hypothesis import strategies as st

from headrace.core.types import MediaSpan
from headrace.engines.base import KvManifest, SequenceInput
from headrace.engines.prefix_cache import Chain, PrefixCache
from tests.engines.backends import BACKENDS, COUNT, Backend, sequences, undisturbed
from tests.engines.driving import advance, export, prefill, run

pytestmark = pytest.mark.timeout(60)
BACKEND = BACKENDS[0]
BLOCK = BACKEND.spec.block_tokens
IMAGES = sequences(BACKEND)["images"]  # 40 tokens: parts at 3..6 and 29..34
CACHE_BYTES = 1 << 20


def keys(given: SequenceInput, fingerprint: str = "model") -> list[bytes]:
    return Chain(fingerprint, BACKEND.spec, given).keys(given.tokens)


def test_a_block_for_each_sixteen_tokens() -> None:
    for length, blocks in ((1, 0), (15, 0), (16, 1), (47, 2), (48, 3)):
        assert len(keys(BACKEND.text("t", BACKEND.tokens(1, length)))) == blocks


def test_keys_grow_with_the_output_and_shrink_with_the_tokens() -> None:
    tokens = BACKEND.tokens(1, 70)
    given = BACKEND.text("t", tokens[:40])
    chain, whole = Chain("model", BACKEND.spec, given), keys(BACKEND.text("w", tokens))
    for length in (40, 33, 70, 20, 69):
        assert chain.keys(tokens[:length]) == whole[: length // BLOCK]


@pytest.mark.parametrize(
    ("difference", "other", "equal_blocks"),
    [
        ("none", replace(IMAGES), 2),
        ("the name of the request", replace(IMAGES, key=replace(IMAGES.key, request_id="x")), 2),
        ("the last token, in no whole block", replace(IMAGES, tokens=(*IMAGES.tokens[:-1], 96)), 2),
        ("the first token", replace(IMAGES, tokens=(96, *IMAGES.tokens[1:])), 0),
        ("a token of the second block", replace(IMAGES, tokens=(*IMAGES.tokens[:20], 96, *IMAGES.tokens[21:])), 1),
        ("first image", replace(IMAGES, embeddings=(BACKEND.image(9, 4), IMAGES.embeddings[1])), 0),
        ("second image", replace(IMAGES, embeddings=(IMAGES.embeddings[0], BACKEND.image(9, 6))), 1),
        ("one number of it", replace(IMAGES, embeddings=(IMAGES.embeddings[0], IMAGES.embeddings[1] + 1e-7)), 1),
        ("its grid", replace(IMAGES, spans=(IMAGES.spans[0], replace(IMAGES.spans[1], grid=(1, 2, 3)))), 1),
        ("its place", replace(IMAGES, spans=(IMAGES.spans[0], replace(IMAGES.spans[1], offset=28))), 1),
        ("no second image", replace(IMAGES, spans=IMAGES.spans[:1], embeddings=IMAGES.embeddings[:1]), 1),
        ("no prefix", replace(IMAGES, prefix=""), 0),
    ],
)
def test_keys_tell_every_difference(difference: str, other: SequenceInput, equal_blocks: int) -> None:
    same = [mine == theirs for mine, theirs in zip(keys(IMAGES), keys(other), strict=True)]
    assert same == [index < equal_blocks for index in range(2)], difference


def test_keys_tell_models_apart() -> None:
    assert not set(keys(IMAGES)) & set(keys(IMAGES, "another model"))


def test_the_same_image_elsewhere_in_its_own_rows_differs() -> None:
    """Two blocks of equal placeholders inside one long image: the offset within it tells them apart."""
    rows, tokens = np.zeros((32, 4), np.float32), (1,) * 32
    given = replace(IMAGES, tokens=tokens, prompt_len=32, embeddings=(rows,), prefix="")
    whole = replace(given, spans=(MediaSpan(0, 0, 32),))
    shifted = replace(given, spans=(MediaSpan(0, 0, 31),), embeddings=(rows[:31],))
    assert keys(whole)[0] != keys(shifted)[0]
    assert len({*keys(whole)}) == 2


def test_media_whose_embeddings_stayed_away_have_no_keys() -> None:
    assert keys(replace(IMAGES, embeddings=())) == []
    assert keys(replace(IMAGES, embeddings=IMAGES.embeddings[:1])) == keys(IMAGES)[:1]


def test_transcript_of_a_cache_of_four_blocks() -> None:
    cache = PrefixCache[str](4)

    def put(run: str) -> None:
        """A block's key is the run up to it, as a chain makes it."""
        cache.put(chain(run), lambda index: run[: index + 1])

    def chain(run: str) -> list[bytes]:
        return [run[: end + 1].encode() for end in range(len(run))]

    put("abc")
    assert cache.run(chain("abd")) == ["a", "ab"]
    put("x")
    assert cache.run(chain("x")) == ["x"]
    put("y")  # the oldest leaf goes: abc, not x and never a
    assert [cache.run(chain(run)) for run in ("abc", "x", "y")] == [["a", "ab"], ["x"], ["y"]]
    put("vwxyz")  # longer than the cache: its start is held
    assert cache.run(chain("vwxyz")) == ["v", "vw", "vwx", "vwxy"]
    assert len(cache) == 4
    cache.check_integrity()


@example(st.integers(0, 6), st.lists(st.tuples(st.booleans(), st.text("ab", max_size=5)), max_size=40))
@settings(max_examples=80, deadline=None)
def test_a_run_is_whole_and_true(blocks: int, calls: list[tuple[bool, str]]) -> None:
    cache = PrefixCache[str](blocks)
    for is_put, run_ in calls:
        chain = [run_[: end + 1].encode() for end in range(len(run_))]
        if is_put:
            cache.put(chain, lambda index, run_=run_: run_[: index + 1])  # type: ignore[misc]
        found = cache.run(chain)
        assert found == [run_[: end + 1] for end in range(len(found))]
        assert len(found) == min(blocks, len(run_)) or not is_put
        cache.check_integrity()


# --- in an engine ---

on_backends = pytest.mark.parametrize("backend", BACKENDS, ids=str)


@on_backends
@pytest.mark.parametrize(
    ("first", "second", "cached"),
    [
        ("long", "long", 64),  # of 70
        ("long", "long, another end", 48),  # of 60, alike to 50
        ("one chunk", "one chunk", 16),  # of 32: the last token is always computed
        ("one token", "one token", 0),
        ("images", "images", 32),
        ("images", "other images", 0),  # the same question about another first image
        ("images", "second image changed", 16),
        ("long", "images", 0),
    ],
)
def test_tokens_are_equal_with_the_cache_and_without(backend: Backend, first: str, second: str, cached: int) -> None:
    engine = backend.make(prefix_cache_bytes=CACHE_BYTES)
    for name in (first, second):
        given = sequences(backend)[name]
        renamed = replace(given, key=replace(given.key, request_id=f"{name} again"))
        engine.add(renamed)
        results = [engine.step()]
        while not results[-1].prefilled:
            results.append(engine.step())
        tokens = [token.token for token in results[-1].emitted]
        assert run(engine, {renamed.key: COUNT}, {renamed.key: tokens})[renamed.key] == undisturbed(backend)[name]
        engine.check_integrity()
    assert results[-1].prefilled[0].cached_tokens == backend.spec.prefix_tokens.get(given.prefix, 0) + cached
    assert sum(result.prefill_tokens for result in results) == given.prompt_len - cached


@on_backends
def test_cached_blocks_are_copied_bit_by_bit(backend: Backend) -> None:
    engine, given = backend.make(prefix_cache_bytes=CACHE_BYTES), sequences(backend)["long"]
    exports = list[tuple[KvManifest, bytearray]]()
    for _ in range(2):
        engine.add(given)
        engine.step() if exports else advance(engine, given.key, 1)
        exports.append(export(engine, given.key))
        engine.remove(given.key)
    (manifest, first), (again, second) = exports
    assert manifest == again
    if manifest.dtype == "float32":
        held = [np.frombuffer(raw, np.float32).reshape(manifest.shape)[:, :, :64] for raw in (first, second)]
        np.testing.assert_array_equal(held[0].view(np.uint32), held[1].view(np.uint32))
    else:
        assert first == second


@on_backends
def test_a_conversation_finds_its_own_answer(backend: Backend) -> None:
    """The next turn starts with the prompt and the answer before it: the answer's blocks are there too."""
    engine, given = backend.make(prefix_cache_bytes=CACHE_BYTES), sequences(backend)["one chunk"]
    engine.add(given)
    answer = run(engine, {given.key: COUNT})[given.key]
    turn = backend.text("next turn", [*given.tokens, *answer, *backend.tokens(30, 9)])
    engine.add(turn)
    (ended,) = engine.step().prefilled
    assert ended.cached_tokens == (48 if backend.name != "profile" else 32)  # of 61; an answer is not hashed by blocks


@on_backends
@pytest.mark.parametrize("size_blocks", [0, 1, 3])
def test_a_small_cache_holds_what_fits(backend: Backend, size_blocks: int) -> None:
    size_bytes = size_blocks * BLOCK * backend.spec.kv_bytes_per_token
    engine, given = backend.make(prefix_cache_bytes=size_bytes), sequences(backend)["long"]
    cached = []
    for _ in range(3):
        engine.add(given)
        advance(engine, given.key, 1)
        engine.remove(given.key)
        engine.add(given)
        cached.append(prefill(engine, given.key).cached_tokens)
        engine.remove(given.key)
        engine.check_integrity()
    assert cached == [size_blocks * BLOCK] * 3


@on_backends
def test_sequences_that_came_together_find_what_the_first_left(backend: Backend) -> None:
    """The cache is asked when a sequence's turn comes, not when it is added."""
    engine = backend.make(prefix_cache_bytes=CACHE_BYTES)
    names = ("long", "long, another end")
    for name in names:
        engine.add(sequences(backend)[name])
    cached = dict[str, int]()
    while len(cached) < 2:
        cached.update({ended.key.request_id: ended.cached_tokens for ended in engine.step().prefilled})
    assert [cached[name] for name in names] == [0, 48]


@on_backends
def test_moved_while_it_stands_on_cached_blocks(backend: Backend) -> None:
    """An export in the middle of a prefill carries the cached blocks; the importer needs no cache."""
    engine, other = backend.make(prefix_cache_bytes=CACHE_BYTES), backend.make()
    first, given = sequences(backend)["long"], sequences(backend)["long, another end"]
    engine.add(first)
    run(engine, {first.key: 1})
    engine.add(backend.text("before", backend.tokens(31, 30)))
    engine.add(given)
    engine.step()
    manifest, buffer = export(engine, given.key)
    assert manifest.length == 48
    other.import_kv(given, manifest, memoryview(buffer))
    assert run(other, {given.key: COUNT})[given.key] == undisturbed(backend)["long, another end"]
