"""What int8 KV on the wire costs: time, bytes, and tokens of the default model that come out otherwise."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headrace.core.types import Key, Sampling
from headrace.engines.base import Engine, SequenceInput
from headrace.engines.families import ChatMessage, TextPart, family
from headrace.engines.kvcodec import RowFormat
from headrace.engines.registry import load_engine
from loadtest.benches.report import percentile

MODEL = "smollm2-135m"
REFERENCE = Path(__file__).parents[2] / "tests" / "model" / "text_reference.json"
_MIB = 64


def packing() -> dict[str, float]:
    rows = RowFormat.of("float32", (1, 64))
    raw = memoryview(np.random.default_rng(1).standard_normal(_MIB << 18).astype(np.float32).data.cast("B"))
    packed, back = (memoryview(bytearray(size)) for size in (rows.packed_bytes(len(raw)), len(raw)))
    packing_s, unpacking_s = [], []
    for _ in range(5):
        began_s = time.perf_counter()
        rows.pack(raw, packed)
        packed_s = time.perf_counter()
        rows.unpack(packed, back)
        packing_s.append(packed_s - began_s)
        unpacking_s.append(time.perf_counter() - packed_s)
    return {
        "ratio": round(len(raw) / len(packed), 3),
        "pack_ms_per_mib": round(1e3 * percentile(packing_s, 0.5) / _MIB, 3),
        "unpack_ms_per_mib": round(1e3 * percentile(unpacking_s, 0.5) / _MIB, 3),
    }


def agreement(prompts: int, tokens: int) -> dict[str, Any]:
    """Greedy answers to the first prompts of the text reference, decoded from a raw and from a packed cache."""
    known = json.loads(REFERENCE.read_text())["answers"][:prompts]
    engine = load_engine("onnx", MODEL, threads=len(os.sched_getaffinity(0)), slots=2 * prompts, blocks=32 * prompts)
    pair = _Pairs(engine, [_sequence(number, item["prompt"], tokens) for number, item in enumerate(known)])
    pairs = pair.run()
    same = sum(one == other for raw, packed in pairs for one, other in zip(raw, packed, strict=True))
    return {
        "prompts": prompts,
        "tokens_each": tokens,
        "answers_equal": round(sum(raw == packed for raw, packed in pairs) / prompts, 4),
        "tokens_equal": round(same / (prompts * (tokens - 1)), 4),
        "until_first_difference": round(sum(_common(*pair) for pair in pairs) / prompts, 1),
    }


def _sequence(number: int, text: str, tokens: int) -> SequenceInput:
    prompt = family(MODEL).render([ChatMessage("user", (TextPart(text),))], [])
    sampling = Sampling(tokens, ignore_eos=True)
    return SequenceInput(Key(f"{number}", 1), prompt.tokens, len(prompt.tokens), (), (), prompt.prefix, sampling)


class _Pairs:
    """Each sequence, and as attempt 2 its twin that goes on from a packed cache; all decode together."""

    def __init__(self, engine: Engine, sequences: list[SequenceInput]) -> None:
        self._engine = engine
        self._sequences = {sequence.key: sequence for sequence in sequences}
        self._told: dict[Key, list[int]] = {}

    def run(self) -> list[tuple[list[int], list[int]]]:
        """Their tokens from the second on: the first never saw a packed cache."""
        for sequence in self._sequences.values():
            self._engine.add(sequence)
        while self._engine.has_work():
            result = self._engine.step()
            for emitted in result.emitted:
                self._told.setdefault(emitted.key, []).append(emitted.token)
            for ended in result.prefilled:
                self._travel(ended.key)
            for emitted in result.emitted:
                if emitted.index == self._sequences[replace(emitted.key, attempt=1)].sampling.max_tokens - 1:
                    self._engine.remove(emitted.key)
        return [(self._told[key][1:], self._told[replace(key, attempt=2)]) for key in self._sequences]

    def _travel(self, key: Key) -> None:
        """As to a decode worker."""
        manifest, sequence = self._engine.kv_manifest(key), self._sequences[key]
        raw = memoryview(bytearray(manifest.size_bytes))
        self._engine.export_kv(key, raw)
        rows = RowFormat.of(manifest.dtype, manifest.shape)
        packed = memoryview(bytearray(rows.packed_bytes(len(raw))))
        rows.pack(raw, packed)
        rows.unpack(packed, raw)
        twin = replace(sequence, key=replace(key, attempt=2), tokens=(*sequence.tokens, *self._told[key]))
        self._engine.import_kv(twin, manifest, raw)


def _common(one: list[int], other: list[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
