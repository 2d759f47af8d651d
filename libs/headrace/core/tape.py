"""Tapes: every event of a live queue manager with its time and its effects, as JSON lines, to be replayed against
QueueCore elsewhere. The first line is the configuration. Pure: text in, nouns out.

A noun is {"$": its class, then its fields}; tuples are lists, bytes are {"$": "bytes", "hex": ...}. A range, which in
a simulated world stands for a prompt's tokens, is the list of its numbers.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

from headrace.core import commands, effects, events, governing, instance, slo, types
from headrace.core.effects import Effect
from headrace.core.events import Event
from headrace.core.planning import problem
from headrace.core.queue.config import QueueConfig

_NOUNS: dict[str, type] = {
    name: noun
    for module in (types, commands, events, effects, governing, instance, problem, slo)
    for name, noun in vars(module).items()
    if isinstance(noun, type) and is_dataclass(noun)
} | {"QueueConfig": QueueConfig}


@dataclass(frozen=True, slots=True)
class Frame:
    """One call of QueueCore.handle."""

    now_s: float
    event: Event
    effects: tuple[Effect, ...]


def header_line(config: QueueConfig) -> str:
    return json.dumps(_plain(config))


def frame_line(now_s: float, event: Event, effects: Iterable[Effect]) -> str:
    return json.dumps([now_s, _plain(event), [_plain(effect) for effect in effects]])


def read_tape(lines: Iterable[str]) -> tuple[QueueConfig, Iterator[Frame]]:
    """Raises ValueError when a line is not a tape's."""
    rest = iter(lines)
    config = _noun(json.loads(next(rest)))
    if not isinstance(config, QueueConfig):
        raise ValueError("a tape begins with its QueueConfig")
    return config, map(_frame, rest)


def _frame(line: str) -> Frame:
    now_s, event, done = json.loads(line)
    return Frame(now_s, cast(Event, _noun(event)), cast(tuple[Effect, ...], _noun(done)))


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        plain = {"$": type(value).__name__}
        return plain | {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | range):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return {"$": "bytes", "hex": value.hex()}
    if isinstance(value, dict):
        return {"$": "dict", "items": [[key, _plain(item)] for key, item in value.items()]}
    return value


def _noun(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple([_noun(item) for item in plain])
    if not isinstance(plain, dict):
        return plain
    name = plain["$"]
    if name == "bytes":
        return bytes.fromhex(plain["hex"])
    if name == "dict":
        return {key: _noun(item) for key, item in plain["items"]}
    if name not in _NOUNS:
        raise ValueError(f"a tape knows no {name!r}")
    return _NOUNS[name](**{key: _noun(item) for key, item in plain.items() if key != "$"})
