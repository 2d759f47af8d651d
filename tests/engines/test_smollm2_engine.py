"""The default model: greedy tokens do not depend on batching or on where a sequence runs."""

from dataclasses import replace

import numpy as np
import pytest

from headrace.core.types import Key, Media, MediaMeta, Sampling
from headrace.engines.base import Engine, SequenceInput
from headrace.engines.families import ChatMessage, MediaPart, TextPart, family
from headrace.engines.registry import load_engine
from tests.engines.driving import advance, export, prefill, run

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]  # a first start writes the graph
COUNT = 24
QUESTIONS = [
    "What is the capital of France? Answer in one sentence.",
    "List three fruits.",
    "Why is the sky blue?",
    "Write one sentence about a river, then one about a mountain, then one about the sea.",
]


@pytest.fixture(scope="module")
def engines() -> tuple[Engine, Engine]:
    """The second one remembers prompts."""
    first, second = (
        load_engine("onnx", "smollm2-135m", threads=1, slots=4, blocks=64, prefix_cache_mb=size) for size in (0, 64)
    )
    return first, second


def sequence(index: int) -> SequenceInput:
    prompt = family("smollm2-135m").render([ChatMessage("user", (TextPart(QUESTIONS[index]),))], ())
    sampling = Sampling(max_tokens=COUNT)
    return SequenceInput(Key(f"q{index}", 1), prompt.tokens, len(prompt.tokens), (), (), "", sampling)


@pytest.fixture(scope="module")
def alone(engines: tuple[Engine, Engine]) -> dict[Key, list[int]]:
    out: dict[Key, list[int]] = {}
    for index in range(4):
        given = sequence(index)
        engines[0].add(given)
        run(engines[0], {given.key: COUNT}, out)
    return out


def test_it_answers(alone: dict[Key, list[int]]) -> None:
    pieces = family("smollm2-135m").pieces
    assert b"The capital of France is Paris." in b"".join(pieces[token] for token in alone[Key("q0", 1)])


def test_batched_equals_one_by_one(engines: tuple[Engine, Engine], alone: dict[Key, list[int]]) -> None:
    for index in range(4):
        engines[0].add(sequence(index))
    assert run(engines[0], dict.fromkeys(alone, COUNT)) == alone


def test_handed_over_midway_equals_undisturbed(engines: tuple[Engine, Engine], alone: dict[Key, list[int]]) -> None:
    first, second = engines
    out: dict[Key, list[int]] = {}
    for index, decoded in enumerate((1, 2, 9, 17)):
        given = sequence(index)
        first.add(given)
        out[given.key] = advance(first, given.key, decoded)
        first.pause(given.key)
        manifest, buffer = export(first, given.key)
        second.import_kv(replace(given, tokens=(*given.tokens, *out[given.key])), manifest, memoryview(buffer))
        assert export(second, given.key) == (manifest, buffer)
        first.remove(given.key)
    assert run(second, dict.fromkeys(alone, COUNT), out) == alone
    assert (first.blocks_used(), second.blocks_used()) == (0, 0)


def test_a_resumed_answer_equals_undisturbed(engines: tuple[Engine, Engine], alone: dict[Key, list[int]]) -> None:
    given = sequence(0)
    tokens = alone[given.key]
    engines[1].add(replace(given, tokens=(*given.tokens, *tokens[:5])))
    assert run(engines[1], {given.key: COUNT}, {given.key: tokens[:5]})[given.key] == tokens


def test_a_remembered_prompt_is_answered_as_before(engines: tuple[Engine, Engine], alone: dict[Key, list[int]]) -> None:
    """The system turn is common to all, and asked again a prompt is there but for its last tokens."""
    cached = []
    for index in (0, 1, 0):
        given = sequence(index)
        engines[1].add(given)
        cached.append(prefill(engines[1], given.key).cached_tokens)
        first = alone[given.key][:1]
        assert run(engines[1], {given.key: 8}, {given.key: first})[given.key] == alone[given.key][:8]
    assert cached[1] >= 16
    assert cached[2] == (len(sequence(0).tokens) - 1) // 16 * 16


def test_the_torch_engine_answers_alike(engines: tuple[Engine, Engine], alone: dict[Key, list[int]]) -> None:
    """Text, and rows in place of an image behind the learned prefix: two backends, one model."""
    pytest.importorskip("torch")
    torch_engine = load_engine("torch", "smollm2-135m", threads=1, slots=4, blocks=64)
    texts = {sequence(index).key: 8 for index in range(3)}
    for key in texts:
        torch_engine.add(sequence(int(key.request_id[1:])))
    assert run(torch_engine, texts) == {key: alone[key][:8] for key in texts}
    media = (Media(MediaMeta("image", "image/png", 32, 32, 100), "0" * 64, 4),)
    prompt = family("smollm2-135m").render([ChatMessage("user", (MediaPart(0), TextPart("What is this?")))], media)
    rows = 0.1356 * np.random.default_rng(3).normal(size=(4, 576)).astype(np.float32)
    given = SequenceInput(
        Key("media", 1), prompt.tokens, len(prompt.tokens), prompt.spans, (rows,), prompt.prefix, Sampling(COUNT)
    )
    assert prompt.prefix
    out = []
    for engine in (engines[0], torch_engine):
        engine.add(given)
        out.append(run(engine, {given.key: 8}))
    assert out[0] == out[1]
