"""Small drivers that the engine tests share: run sequences to an end, hand one over, read what came out."""

from collections.abc import Mapping

from headrace.core.stages.batch import Prefilled
from headrace.core.types import Key
from headrace.engines.base import Engine, KvManifest


def run(engine: Engine, wanted: Mapping[Key, int], out: dict[Key, list[int]] | None = None) -> dict[Key, list[int]]:
    """Step until every sequence has its wanted count of tokens, those that `out` brings included; then remove it."""
    out = out if out is not None else {}
    left = {key for key, count in wanted.items() if len(out.setdefault(key, [])) < count}
    while left:
        for token in engine.step().emitted:
            assert token.index == len(out[token.key]), "indexes are consecutive"
            out[token.key].append(token.token)
            if len(out[token.key]) == wanted[token.key]:
                engine.remove(token.key)
                left.remove(token.key)
    return out


def advance(engine: Engine, key: Key, count: int) -> list[int]:
    """The next `count` tokens of one sequence; the sequence stays."""
    tokens: list[int] = []
    while len(tokens) < count:
        tokens += [token.token for token in engine.step().emitted if token.key == key]
    return tokens


def prefill(engine: Engine, key: Key) -> Prefilled:
    """Step until the sequence's prefill has ended."""
    while True:
        for ended in engine.step().prefilled:
            if ended.key == key:
                return ended


def export(engine: Engine, key: Key) -> tuple[KvManifest, bytearray]:
    manifest = engine.kv_manifest(key)
    buffer = bytearray(manifest.size_bytes)
    engine.export_kv(key, memoryview(buffer))
    return manifest, buffer
