"""Answers under a grammar, of every backend: what they must be, and the same whatever happens to the sequence."""

import json
from dataclasses import replace

import numpy as np
import pytest

from headrace.core.types import Sampling
from headrace.engines import grammar
from headrace.engines.base import Engine, SequenceInput
from headrace.engines.sampling import Draw, sample
from tests.engines.backends import BACKENDS, COUNT, Backend, sequences, undisturbed
from tests.engines.driving import advance, export, run

pytestmark = pytest.mark.timeout(60)
backends = pytest.mark.parametrize("backend", BACKENDS, ids=str)
SCHEMA = {
    "type": "object",
    "properties": {
        "k": {"enum": ["a", "bc"]},
        "n": {"type": "integer", "minimum": 0, "maximum": 999},
        "l": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        "s": {"type": "string", "maxLength": 8},
    },
    "required": ["k", "n", "l", "s"],
    "additionalProperties": False,
}
GREEDY = Sampling(max_tokens=120, grammar=grammar.json_schema(SCHEMA))
WARM = replace(GREEDY, temperature=1.0, seed=5)
CUT = replace(GREEDY, temperature=0.9, top_k=12, top_p=0.9, seed=6, repetition_penalty=1.3, logprobs=2)
SAMPLINGS = pytest.mark.parametrize("sampling", [GREEDY, WARM, CUT], ids=["greedy", "warm", "cut"])


def to_the_end(engine: Engine, given: SequenceInput, tokens: list[int]) -> list[int]:
    """The rest of its answer; it leaves the engine with its end token, as a worker would have it."""
    out = list(tokens)
    while not (out and out[-1] in engine.spec.eos_ids):
        result = engine.step()
        assert result.failed == ()
        out += [token.token for token in result.emitted if token.key == given.key]
    engine.remove(given.key)
    return out


def alone(backend: Backend, given: SequenceInput) -> list[int]:
    engine = backend.make()
    engine.add(given)
    return to_the_end(engine, given, [])


def text_of(backend: Backend, tokens: list[int]) -> str:
    return b"".join([backend.pieces[token] for token in tokens]).decode()


def resumed(given: SequenceInput, tokens: list[int]) -> SequenceInput:
    return replace(given, tokens=(*given.tokens, *tokens))


@backends
@SAMPLINGS
def test_the_answer_is_what_the_schema_says(backend: Backend, sampling: Sampling) -> None:
    for seed in range(2):
        given = backend.text("a", backend.tokens(seed, 20), sampling=replace(sampling, seed=seed))
        said = json.loads(text_of(backend, alone(backend, given)))
        assert list(said) == ["k", "n", "l", "s"]
        assert said["k"] in ("a", "bc")
        assert 0 <= said["n"] <= 999
        assert 1 <= len(said["l"]) <= 3
        assert len(said["s"]) <= 8


@backends
@SAMPLINGS
@pytest.mark.parametrize("at", [1, 9])
def test_wherever_it_goes_on_it_goes_on_the_same_way(backend: Backend, sampling: Sampling, at: int) -> None:
    """Replayed from its tokens, with its KV elsewhere, evicted and restored, removed and moved back."""
    given = backend.text("a", backend.tokens(1, 40), sampling=sampling)
    expected = alone(backend, given)
    replayed = backend.make()
    replayed.add(resumed(given, expected[:at]))
    assert to_the_end(replayed, given, expected[:at]) == expected
    one, other = backend.make(), backend.make()
    one.add(given)
    tokens = advance(one, given.key, at)
    one.evict(given.key)
    one.restore(given.key)
    tokens += advance(one, given.key, 1)
    for source, target in ((one, other), (other, one)):
        manifest, buffer = export(source, given.key)
        source.remove(given.key)
        target.import_kv(resumed(given, tokens), manifest, memoryview(buffer))
        tokens += advance(target, given.key, 1)
    assert to_the_end(one, given, tokens) == expected


@backends
def test_free_rows_beside_it_are_as_ever(backend: Backend) -> None:
    """And it is as it is alone."""
    names = ["long", "drawn", "one chunk"]
    free = [sequences(backend)[name] for name in names]
    bound = [backend.text(f"bound {n}", backend.tokens(n, 20), sampling=replace(CUT, seed=n)) for n in range(3)]
    counts = {given.key: COUNT for given in free} | {given.key: len(alone(backend, given)) for given in bound}
    engine = backend.make()
    for given in [*free, *bound]:
        engine.add(given)
    out = run(engine, counts)
    assert {name: out[given.key] for name, given in zip(names, free, strict=True)} == {
        name: undisturbed(backend)[name] for name in names
    }
    assert [out[given.key] for given in bound] == [alone(backend, given) for given in bound]


@backends
def test_who_cannot_go_on_is_named_and_the_others_do(backend: Backend) -> None:
    """Its tokens do not fit its grammar: a peer of another version, or a schema that the parser gives up on."""
    engine = backend.make()
    bad = backend.text("bad", backend.tokens(2, 20), sampling=GREEDY)
    good = backend.text("good", backend.tokens(1, 20), sampling=GREEDY)
    engine.add(resumed(bad, backend.tokens(3, 2)))
    engine.add(good)
    failed, tokens = list[str](), list[int]()
    while not failed:
        result = engine.step()
        failed += [key.request_id for key, _ in result.failed]
        tokens += [token.token for token in result.emitted if token.key == good.key]
    assert failed == ["bad"]
    engine.remove(bad.key)
    assert to_the_end(engine, good, tokens) == alone(backend, good)
    assert (engine.slots_used(), engine.blocks_used()) == (0, 0)


@backends
def test_logprobs_are_those_of_the_free_model(backend: Backend) -> None:
    """But for the profile engine, which has no model: there all that may follow is as likely."""
    given = backend.text("a", backend.tokens(1, 20), sampling=CUT)
    engine = backend.make()
    engine.add(given)
    emitted = [one for _ in range(4) for one in engine.step().emitted]
    assert emitted
    assert all(one.logprobs is not None and one.logprobs.logprob <= 0.0 for one in emitted)


def draws(random: np.random.Generator, rows: int, vocab: int) -> list[Draw]:
    samplings = [GREEDY, WARM, CUT, replace(WARM, top_k=3), replace(WARM, temperature=1e-31), Sampling(9), WARM]
    made = []
    for row in range(rows):
        mask = np.zeros(-(-vocab // 32), np.uint32)
        for token in random.choice(vocab, size=1 + row % 5, replace=False):
            mask[token // 32] |= np.uint32(1 << token % 32)
        sampling = replace(samplings[row % len(samplings)], logprobs=None, seed=row)
        made.append(Draw(sampling, row, (1, 2, 3), None if row % 4 == 3 else mask))
    return made


def test_only_what_may_follow_is_drawn_and_the_rest_of_the_batch_is_the_same() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(56, 3000)).astype(np.float32) * 4
    before, chosen = logits.copy(), draws(random, 56, 3000)
    together = [drawn.token for drawn in sample(logits, chosen)]
    assert (logits == before).all()
    for row, draw in enumerate(chosen):
        assert sample(logits[row : row + 1], [draw])[0].token == together[row]
        if draw.mask is not None:
            assert draw.mask[together[row] // 32] >> np.uint32(together[row] % 32) & 1
        else:
            assert (
                sample(logits[row : row + 1], [replace(draw, mask=np.full(94, 2**32 - 1, np.uint32))])[0].token
                == together[row]
            )


def test_where_the_logits_are_the_same_is_drawn() -> None:
    """draw_on_device is what runs on a GPU; here its tensors are on the CPU."""
    torch = pytest.importorskip("torch")
    from headrace.engines.torch_drawing import draw_on_device

    random = np.random.default_rng(1)
    logits = random.normal(size=(40, 1030)).astype(np.float32)
    chosen = draws(random, 40, 1000)  # columns beyond the mask belong to no token
    chosen = [draw if draw.mask is not None else replace(draw, sampling=GREEDY) for draw in chosen]
    before = torch.from_numpy(logits.copy())
    on_device = draw_on_device(torch.from_numpy(logits), chosen)
    assert [one.token for one in on_device] == [one.token for one in sample(logits, chosen)]
    assert torch.equal(before, torch.from_numpy(logits))
