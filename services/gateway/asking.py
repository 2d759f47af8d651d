"""From a body to an Ask: what all endpoints that answer have in common, and what stands between body and reply."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from headrace.core.errors import InvalidInput
from headrace.core.types import Sampling
from services.gateway import bodies, formats, targets
from services.gateway.ask import Ask
from services.gateway.front import Front
from services.gateway.live import Live
from services.gateway.readings import Shape
from services.gateway.several import CHOICES_MAX

Headers = Mapping[bytes, bytes]
B = TypeVar("B", bound=bodies.Asked)
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")

# Fields whose every value but these cannot be honoured; None and an absent field are always fine.
OFF: dict[str, tuple[Any, ...]] = {"service_tier": ("auto", "default", "flex", "priority")}


@dataclass(frozen=True, slots=True)
class Question:
    """What a body asks for: one answer for each of asks, and the shape of the response."""

    asks: Sequence[Ask]
    stream: bool
    shape: Callable[[Front, Sequence[Live]], Shape]
    answers: int = 1  # of asks, how many that stand side by side are the same


@dataclass(frozen=True, slots=True)
class Drawing:
    """What endpoints name in their own ways, of how tokens are drawn. max_tokens 0: as many as there is room for."""

    max_tokens: int
    stop: str | list[str] | None
    logprobs: int | None
    rules: formats.Asked


def decode(
    body: bytes,
    decoder: msgspec.json.Decoder[B],
    locate: Callable[[bytes, msgspec.ValidationError], InvalidInput] | None = None,
) -> B:
    """locate finds the field that is at fault. Raises InvalidInput: naming it."""
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            raise (locate(body, error) if locate is not None else located(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error


def located(error: msgspec.ValidationError, where: str = "") -> InvalidInput:
    """where: of the value that does not fit."""
    text = str(error)
    path = _PATH.search(text)
    names = [where, path.group(1) if path else ""]
    for pattern in (_UNKNOWN, _MISSING):
        if found := pattern.search(text):
            names.append(found.group(1))
    field = ".".join(name for name in names if name).replace(".[", "[")
    return InvalidInput(_PATH.sub("", text), field=field)


def check_off(body: bodies.Asked, off: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises InvalidInput: a field has a value that cannot be honoured."""
    for name, allowed in off.items():
        value = getattr(body, name)
        if value is None or value is msgspec.UNSET:
            continue
        if isinstance(value, msgspec.Raw):
            value = bytes(value)
        if value not in allowed:
            raise InvalidInput(f"{name} is not supported by this server", field=name)


def check_count(name: str, count: int | None) -> None:
    if count is not None and not 1 <= count <= CHOICES_MAX:
        raise InvalidInput(f"{name} is {count}; it must be between 1 and {CHOICES_MAX}", field=name)


def at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise InvalidInput(f"{name} is {value}; it must be at least 1", field=name)
    return value


def common(body: bodies.Asked, drawing: Drawing, headers: Headers, key: str) -> dict[str, Any]:
    """The fields of an Ask that do not depend on the endpoint. Raises InvalidInput: naming the field."""
    rules, rules_field = drawing.rules
    return {
        "model": body.model,
        "sampling": _sampling(body, drawing, rules),
        "seeded": body.seed is not None or not body.temperature,
        "grammar_field": rules_field,
        "slo_class": body.slo_class or headers.get(b"x-headrace-slo-class", b"").decode("latin-1"),
        "timeout_s": _timeout_s(body, headers),
        "targets": targets.of_http(body, headers),
        "idempotency_key": key,
        "keep_on_disconnect": bool(body.keep_on_disconnect),
    }


def _sampling(body: bodies.Asked, drawing: Drawing, rules: bytes) -> Sampling:
    stop = drawing.stop
    return Sampling(
        max_tokens=drawing.max_tokens,
        temperature=0.0 if body.temperature is None else body.temperature,  # greedy unless asked otherwise
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
        seed=body.seed or 0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        ignore_eos=bool(body.ignore_eos),
        logprobs=drawing.logprobs,
        grammar=rules,
    )


def _timeout_s(body: bodies.Asked, headers: Headers) -> float:
    """The body's own; else how long the SDK says that it will wait."""
    if body.timeout_s is not None:
        if not body.timeout_s > 0:
            raise InvalidInput(f"timeout_s is {body.timeout_s}; it must be above 0", field="timeout_s")
        return body.timeout_s
    try:
        waits_s = float(headers.get(b"x-stainless-read-timeout", b"0"))
    except ValueError:
        return 0.0
    return waits_s if 0.0 < waits_s < 86_400.0 else 0.0
