"""The ONNX engine on the tiny Llama: every way to reach a token gives the reference's token."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.core.errors import StageError
from headrace.core.types import MediaSpan, Sampling
from headrace.engines.base import KvManifest, KvMismatch, SequenceInput
from headrace.engines.kvcache import Kv
from headrace.engines.onnx import OnnxEngine
from headrace.engines.onnx_model import LayersDone, Llama, graph_folder
from headrace.engines.sampling import Logits
from tests.engines import tiny_llama
from tests.engines.driving import advance, export, prefill, run
from tests.engines.tiny_llama import PREFIX_TOKENS, SHAPE, VOCAB, Array, reference_greedy, reference_logits, sequence

WEIGHTS = tiny_llama.weights()
EMBED = WEIGHTS["model.embed_tokens.weight"]
COUNT = 12


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def prompt(name: str, length: int) -> list[int]:
    random = np.random.default_rng(list(name.encode()))
    return [int(token) for token in random.integers(2, VOCAB, length)]


def soft(part: int, rows: int) -> Array:
    return np.random.default_rng(100 + part).normal(size=(rows, SHAPE.width)).astype(np.float32)


def with_media(name: str) -> SequenceInput:
    """40 tokens; parts of 4 and 6 rows, the second across a chunk's border (32)."""
    spans = (MediaSpan(0, 3, 4), MediaSpan(1, 29, 6))
    return sequence(name, prompt(name, 40), spans=spans, embeddings=(soft(0, 4), soft(1, 6)), prefix_name="image")


def expected(given: SequenceInput, count: int = COUNT) -> list[int]:
    x = EMBED[list(given.tokens[: given.prompt_len])]
    for span in given.spans:
        x[span.offset : span.offset + span.length] = given.embeddings[span.part]
    return reference_greedy(WEIGHTS, x, count, tiny_llama.prefix("image") if given.prefix else None)


SEQUENCES = [
    sequence("one token", prompt("a", 1)),
    sequence("one chunk", prompt("b", 32)),
    sequence("three chunks", prompt("c", 70)),
    sequence("on a prefix", prompt("d", 20), prefix_name="image"),
    with_media("with media"),
]


@pytest.mark.parametrize("given", SEQUENCES, ids=lambda given: given.key.request_id)
def test_greedy_equals_the_reference(cache: Path, given: SequenceInput) -> None:
    engine = tiny_llama.engine(cache)
    engine.add(given)
    assert run(engine, {given.key: COUNT})[given.key] == expected(given)
    assert (engine.slots_used(), engine.blocks_used(), engine.has_work()) == (0, 0, False)


def test_together_equals_alone(cache: Path) -> None:
    engine = tiny_llama.engine(cache)
    for given in SEQUENCES:
        engine.add(given)
    out = run(engine, {given.key: COUNT for given in SEQUENCES})
    assert out == {given.key: expected(given) for given in SEQUENCES}
    engine.check_integrity()


def test_a_replayed_sequence_goes_on(cache: Path) -> None:
    engine, whole = tiny_llama.engine(cache), with_media("replayed")
    tokens = expected(whole)
    engine.add(replace(whole, tokens=(*whole.tokens, *tokens[:5])))
    out = run(engine, {whole.key: COUNT}, {whole.key: tokens[:5]})
    assert out[whole.key] == tokens


@pytest.mark.parametrize("decoded", [0, 4])
def test_hand_over_goes_on_bit_exact(cache: Path, decoded: int) -> None:
    first, second, given = tiny_llama.engine(cache), tiny_llama.engine(cache), with_media("handed over")
    first.add(given)
    tokens = advance(first, given.key, 1 + decoded)
    first.pause(given.key)
    assert not first.has_work()
    manifest, buffer = export(first, given.key)
    assert manifest.length == PREFIX_TOKENS + 40 + decoded
    moved = replace(given, tokens=(*given.tokens, *tokens), embeddings=())  # the KV holds them
    second.import_kv(moved, manifest, memoryview(buffer))
    assert export(second, given.key) == (manifest, buffer)
    assert run(second, {given.key: COUNT}, {given.key: tokens})[given.key] == expected(given)


def test_export_while_it_runs_equals_export_when_paused(cache: Path) -> None:
    engine, given = tiny_llama.engine(cache), with_media("running")
    engine.add(given)
    advance(engine, given.key, 3)
    running = export(engine, given.key)
    engine.pause(given.key)
    assert export(engine, given.key) == running


def test_a_prefill_does_not_depend_on_the_load(cache: Path) -> None:
    alone, busy, given = tiny_llama.engine(cache), tiny_llama.engine(cache), sequence("probe", prompt("p", 70))
    for other in range(4):
        busy.add(sequence(f"other{other}", prompt(f"o{other}", 11 + 13 * other)))
        busy.step()
    exports = []
    for engine in (alone, busy):
        engine.add(given)
        prefill(engine, given.key)
        exports.append(export(engine, given.key))
    assert exports[0] == exports[1]


class Watched:
    """A model that remembers how many prompts and tokens each prefill call had, and behind how long a past."""

    def __init__(self, model: Llama) -> None:
        self.shape, self.embed, self.decode = model.shape, model.embed, model.decode
        self.model = model
        self.calls: list[tuple[list[int], int]] = []

    def prefill(self, rows: Array, kv: Kv, start: int, layers_done: LayersDone | None = None) -> Logits:
        self.calls.append(([len(rows)], start))
        return self.model.prefill(rows, kv, start, layers_done)

    def prefill_packed(self, prompts: Sequence[Array], past: Kv) -> tuple[Logits, Kv]:
        self.calls.append(([len(prompt) for prompt in prompts], past.shape[2]))
        return self.model.prefill_packed(prompts, past)


def test_prompts_behind_the_same_past_are_prefilled_in_one_call(cache: Path) -> None:
    """Text behind nothing, questions behind the image prefix; what follows a prompt's first chunk runs alone."""
    engine = tiny_llama.engine(cache, chunk_tokens=64)
    watched = Watched(engine._model)
    engine._model = watched  # type: ignore[assignment]
    lengths = {"a": 9, "b": 11, "image c": 12, "d": 13, "image e": 10, "f": 70, "g": 5}
    made = [
        sequence(name, prompt(name, length), prefix_name="image" if name.startswith("image") else "")
        for name, length in lengths.items()
    ]
    for given in made:
        engine.add(given)
    kv = dict[str, Array]()
    for given in made:
        if given.key.request_id not in kv:
            for ended in engine.step().prefilled:
                kv[ended.key.request_id] = values_of(export(engine, ended.key))
    assert watched.calls == [([9, 11, 13], 0), ([12, 10], PREFIX_TOKENS), ([64], 0), ([6], 64), ([5], 0)]
    for given in made:
        alone = tiny_llama.engine(cache, chunk_tokens=64)
        alone.add(given)
        prefill(alone, given.key)
        np.testing.assert_allclose(kv[given.key.request_id], values_of(export(alone, given.key)), atol=1e-4)


def test_layers_are_poured_while_later_ones_compute(cache: Path) -> None:
    """Of a prompt's last chunk, one segment of the graph after another."""
    model = Llama(graph_folder(tiny_llama.CHECKPOINT, cache), SHAPE, threads=1, segments=SHAPE.layers)
    engine = OnnxEngine(tiny_llama.SPEC, tiny_llama.CHECKPOINT, model, slots=1, blocks=64, chunk_tokens=32)
    given, sizes = sequence("poured", prompt("p", 70)), list[int]()
    told = engine.prefilled_manifest(given)

    class Sink:
        buffer = memoryview(bytearray(told.size_bytes))

        def ready(self, size_bytes: int) -> None:
            sizes.append(size_bytes)

    engine.add(given, Sink())
    prefill(engine, given.key)
    assert sizes == [told.size_bytes * layer // SHAPE.layers for layer in range(1, SHAPE.layers + 1)]
    assert export(engine, given.key) == (told, bytearray(Sink.buffer))


def values_of(exported: tuple[KvManifest, bytearray]) -> Array:
    manifest, raw = exported
    return np.frombuffer(raw, np.float32).reshape(manifest.shape)


def test_a_sequence_that_grows_into_the_next_group(cache: Path) -> None:
    engine = tiny_llama.engine(cache, chunk_tokens=512)
    long = sequence("long", prompt("l", 508))
    short = sequence("short", prompt("s", 3))
    engine.add(long)
    engine.add(short)
    out = run(engine, {long.key: 8, short.key: 8})
    assert out[short.key] == expected(short, 8)
    read = EMBED[[*long.tokens, *out[long.key][:-1]]]
    assert out[long.key] == reference_logits(WEIGHTS, read)[-8:].argmax(1).tolist()


def test_a_hand_over_between_processes(cache: Path, tmp_path: Path) -> None:
    """The other process has its own session; KV bytes and tokens are the same."""
    given = sequence("here and there", prompt("x", 50))
    engine = tiny_llama.engine(cache)
    engine.add(given)
    tokens = advance(engine, given.key, 6)
    _, buffer = export(engine, given.key)
    script = (
        "import sys; from pathlib import Path; from tests.engines import tiny_llama, driving\n"
        "engine, prompt = tiny_llama.engine(Path(sys.argv[1])), [int(word) for word in sys.argv[3:]]\n"
        "given = tiny_llama.sequence('here and there', prompt); engine.add(given)\n"
        "print(*driving.advance(engine, given.key, 6))\n"
        "Path(sys.argv[2]).write_bytes(driving.export(engine, given.key)[1])\n"
    )
    command = [sys.executable, "-c", script, str(cache), str(tmp_path / "kv"), *map(str, given.tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert [int(word) for word in done.stdout.split()] == tokens
    assert (tmp_path / "kv").read_bytes() == bytes(buffer)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"layout": "another checkpoint"}, "this engine continues"),
        ({"dtype": "float16"}, "this engine continues"),
        ({"length": 19, "next_position": 19}, "this engine continues"),
        ({"length": 21, "next_position": 21}, "21 positions does not fit"),
        ({"next_position": 21}, "this engine continues"),
        ({"shape": (6, 2, 20, 8)}, "this engine continues"),
    ],
)
def test_a_wrong_kv_is_refused(cache: Path, change: dict[str, object], why: str) -> None:
    engine, given = tiny_llama.engine(cache), sequence("wrong", prompt("w", 20))
    engine.add(given)
    tokens = advance(engine, given.key, 1)
    manifest, buffer = export(engine, given.key)
    wrong = replace(manifest, **change)  # type: ignore[arg-type]
    other = tiny_llama.engine(cache)
    with pytest.raises(KvMismatch, match=why):
        other.import_kv(replace(given, tokens=(*given.tokens, *tokens)), wrong, memoryview(buffer))
    assert other.slots_used() == 0


def test_numbers_that_are_not_finite_are_refused(cache: Path) -> None:
    engine, given = tiny_llama.engine(cache), with_media("poison")
    engine.add(given)
    tokens = advance(engine, given.key, 1)
    manifest, buffer = export(engine, given.key)
    np.frombuffer(buffer, np.float32)[100] = np.inf
    other = tiny_llama.engine(cache)
    with pytest.raises(KvMismatch, match="not finite"):
        other.import_kv(replace(given, tokens=(*given.tokens, *tokens)), manifest, memoryview(buffer))
    bad = soft(1, 6)
    bad[2, 3] = np.nan
    with pytest.raises(StageError, match="media part 1"):
        other.add(replace(given, embeddings=(soft(0, 4), bad)))
    assert other.slots_used() == 0


def test_sampled_tokens_survive_a_replay(cache: Path) -> None:
    sampling = Sampling(max_tokens=COUNT, temperature=0.9, top_p=0.9, seed=11, repetition_penalty=1.2)
    given, engine = sequence("sampled", prompt("q", 30), sampling=sampling), tiny_llama.engine(cache)
    engine.add(given)
    tokens = run(engine, {given.key: COUNT})[given.key]
    engine.add(replace(given, tokens=(*given.tokens, *tokens[:7])))
    assert run(engine, {given.key: COUNT}, {given.key: tokens[:7]})[given.key] == tokens
    other = replace(given, sampling=replace(sampling, seed=12))
    engine.add(other)
    assert run(engine, {given.key: COUNT})[given.key] != tokens
