"""The profile engine: decisions as a transcript, tokens that tell every mistake, books that add up, speed."""

from dataclasses import replace

import numpy as np
import pytest

from headrace.core.cost import Curve, StepCost, StepWork
from headrace.core.errors import ModelNotFound
from headrace.core.types import Key, MediaSpan, Sampling
from headrace.engines.base import KvMismatch, SequenceInput
from headrace.engines.families import family
from headrace.engines.profile import ProfileEngine
from headrace.profiles import EngineProfile, OutputRule, engine_profile
from tests.engines.driving import advance, export, run

TINY = family("profile-tiny")
COUNT = 10


def engine(
    profile: EngineProfile | None = None, *, slots: int = 8, blocks: int = 256, chunk_tokens: int = 16
) -> ProfileEngine:
    chosen = profile or engine_profile("zero")
    return ProfileEngine(TINY.spec, TINY.pieces, chosen, slots=slots, blocks=blocks, chunk_tokens=chunk_tokens)


def soft(value: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.full((4, TINY.spec.embed_width), value, np.float32)


def sequence(name: str = "r", length: int = 20, **sampling: object) -> SequenceInput:
    given = Sampling(**{"max_tokens": 64, **sampling})  # type: ignore[arg-type]
    spans, tokens = (MediaSpan(0, 2, 4), MediaSpan(1, 8, 4)), tuple(range(97, 97 + length))
    return SequenceInput(Key(name, 1), tokens, length, spans, (soft(0.5), soft(1.5)), "", given)


def tokens_of(given: SequenceInput, count: int = COUNT) -> list[int]:
    fresh = engine()
    fresh.add(given)
    return run(fresh, {given.key: count})[given.key]


UNDISTURBED = tokens_of(sequence())


def test_transcript() -> None:
    """Chunks of 16 tokens a step, first come first served, cut where each sequence would be cut alone."""
    running = engine()
    for name, length in (("a", 20), ("b", 14), ("c", 20), ("d", 12)):
        running.add(sequence(name, length))
    lines = []
    for _ in range(7):
        result = running.step()
        tokens = " ".join(f"{token.key.request_id}{token.index}" for token in result.emitted)
        prefilled = "".join(ended.key.request_id for ended in result.prefilled)
        lines.append(
            f"{result.prefill_tokens:2} prefilled [{prefilled}] {result.decode_tokens} decoded: {tokens}".strip()
        )
    assert lines == [
        "16 prefilled [] 0 decoded:",
        " 4 prefilled [a] 0 decoded: a0".strip(),
        "14 prefilled [b] 1 decoded: a1 b0",
        "16 prefilled [] 2 decoded: a2 b1",
        "16 prefilled [cd] 2 decoded: a3 b2 c0 d0",
        "0 prefilled [] 4 decoded: a4 b3 c1 d1",
        "0 prefilled [] 4 decoded: a5 b4 c2 d2",
    ]


@pytest.mark.parametrize("at", range(1, COUNT))
def test_resume_by_prefill_equals_undisturbed(at: int) -> None:
    given, resumed = sequence(), engine()
    resumed.add(replace(given, tokens=(*given.tokens, *UNDISTURBED[:at])))
    assert run(resumed, {given.key: COUNT}, {given.key: UNDISTURBED[:at]})[given.key] == UNDISTURBED


@pytest.mark.parametrize("profile", ["zero", "h100-qwen3-8b"])
@pytest.mark.parametrize("at", [1, 5])
def test_hand_over_equals_colocated(at: int, profile: str) -> None:
    costs = replace(engine_profile(profile), output=OutputRule())
    first, second, given = engine(costs), engine(costs), sequence()
    first.add(given)
    tokens = advance(first, given.key, at)
    first.pause(given.key)
    manifest, buffer = export(first, given.key)
    assert manifest.size_bytes == 24 + manifest.length * costs.kv_bytes_per_token
    moved = replace(given, tokens=(*given.tokens, *tokens), embeddings=())  # the KV holds them
    second.import_kv(moved, manifest, memoryview(buffer))
    assert export(second, given.key) == (manifest, buffer)
    assert run(second, {given.key: COUNT}, {given.key: tokens})[given.key] == UNDISTURBED
    assert not first.has_work()


GIVEN = sequence()


@pytest.mark.parametrize(
    ("mistake", "given"),
    [
        ("another token", replace(GIVEN, tokens=(98, *GIVEN.tokens[1:]))),
        ("images swapped", replace(GIVEN, embeddings=GIVEN.embeddings[::-1])),
        ("an image altered in one number", replace(GIVEN, embeddings=(soft(0.5), np.nextafter(soft(1.5), 2)))),
        ("an image dropped", replace(GIVEN, spans=GIVEN.spans[:1], embeddings=GIVEN.embeddings[:1])),
        ("an image at another place", replace(GIVEN, spans=(GIVEN.spans[0], MediaSpan(1, 9, 4)))),
    ],
)
def test_every_mistake_shows(mistake: str, given: SequenceInput) -> None:
    assert tokens_of(given) != UNDISTURBED, mistake


@pytest.mark.parametrize("byte", [0, 9, 17, 24 + 3 * 147456])
def test_a_corrupt_hand_over_shows(byte: int) -> None:
    costs = replace(engine_profile("h100-qwen3-8b"), output=OutputRule(mean_tokens=1e9))
    first, second, given = engine(costs), engine(costs), sequence()
    first.add(given)
    tokens = advance(first, given.key, 1)
    manifest, buffer = export(first, given.key)
    buffer[byte] ^= 1
    second.import_kv(replace(given, tokens=(*given.tokens, *tokens)), manifest, memoryview(buffer))
    moved = export(second, given.key)[1]
    assert moved != export(first, given.key)[1]
    if byte >= 8:  # the first eight only say when the output ends
        assert advance(second, given.key, 8) != advance(first, given.key, 8)


def test_a_kv_of_another_length_is_refused() -> None:
    first, second, given = engine(), engine(), sequence()
    first.add(given)
    tokens = advance(first, given.key, 2)
    manifest, buffer = export(first, given.key)
    for wrong in (tokens[:1], []):
        with pytest.raises(KvMismatch):
            second.import_kv(replace(given, tokens=(*given.tokens, *wrong)), manifest, memoryview(buffer))
    assert second.slots_used() == 0


def test_the_seed_counts_only_when_tokens_are_drawn() -> None:
    assert tokens_of(sequence(seed=5)) == UNDISTURBED
    warm = tokens_of(sequence(temperature=1.0, seed=5))
    assert warm == tokens_of(sequence(temperature=1.0, seed=5))
    assert warm != tokens_of(sequence(temperature=1.0, seed=6))


def test_output_lengths_follow_the_rule() -> None:
    costs = replace(engine_profile("zero"), output=OutputRule(mean_tokens=40))
    (eos,) = TINY.spec.eos_ids
    lengths = []
    for index in range(200):
        running, given = engine(costs), sequence(f"r{index}", max_tokens=400, ignore_eos=False)
        running.add(replace(given, tokens=(index, *given.tokens[1:])))
        tokens = advance(running, given.key, 400)
        assert tokens.count(eos) <= 1
        lengths.append(tokens.index(eos) if eos in tokens else 400)
    assert 30 < np.mean(lengths) < 50
    assert eos not in tokens_of(sequence(ignore_eos=True, max_tokens=400), 400)


def test_tokens_are_plain_text() -> None:
    text = b"".join(TINY.pieces[token] for token in tokens_of(sequence(max_tokens=500), 500)).decode()
    assert set(text) == set("abcdefghijklmnopqrstuvwxyz ")


def test_modelled_seconds_are_the_costs_of_the_step() -> None:
    cost = StepCost(Curve((0.0, 10.0), (1.0, 2.0)), 0.01, 0.2, 0.02)
    assert cost.step_s(StepWork()) == 0
    assert cost.step_s(StepWork(prefill_tokens=3, prefill_pairs=6)) == pytest.approx(1.0 + 0.3 + 0.06)
    running = engine(replace(engine_profile("zero"), cost=cost))
    running.add(sequence("a", 14))
    assert running.step().modelled_s == pytest.approx(1.0 + 14 * 0.1 + 14 * 15 / 2 * 0.01)
    running.add(sequence("b", 14))
    both = running.step()
    assert both.modelled_s == pytest.approx(1.0 + 15 * 0.1 + 105 * 0.01 + 1 * 0.2 + 15 * 0.02)


def test_each_name_of_the_model_answers_in_its_own_way() -> None:
    answers = []
    for name in ("profile-tiny", "profile-tiny-a", "profile-tiny-b"):
        kind = family(name)
        assert (kind.spec.name, kind.spec.family) == (name, "profile-tiny")
        fresh = ProfileEngine(kind.spec, kind.pieces, engine_profile("zero"), slots=8, blocks=64, chunk_tokens=16)
        fresh.add(sequence())
        answers.append(run(fresh, {sequence().key: COUNT})[sequence().key])
    assert len({tuple(answer) for answer in answers}) == 3
    with pytest.raises(ModelNotFound):
        family("profile-tiny-")
    with pytest.raises(ModelNotFound):
        family("profile-tinier-a")
