"""TOML tables into frozen dataclasses, strictly: a key too many, a wrong type or an impossible value is told by name.

The dataclass is the schema: its annotations are the types, Annotated bounds the values, its defaults the defaults.
"""

import difflib
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class ScenarioError(ValueError):
    """A scenario that cannot be run; the message names file, table and key, and says what is allowed."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a number must keep to; `above` excludes its value, the others include theirs."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf

    def complaint(self, value: float) -> str:
        """Empty where the value is allowed."""
        if value <= self.above:
            return f"must be above {self.above:g}"
        if value < self.least:
            return f"must be at least {self.least:g}"
        return f"must be at most {self.most:g}" if value > self.most else ""


Positive = Annotated[float, Bound(above=0)]
NotNegative = Annotated[float, Bound(least=0)]
Share = Annotated[float, Bound(least=0, most=1)]
Count = Annotated[int, Bound(least=1)]
CountOrNone = Annotated[int, Bound(least=0)]  # 0 stands for "not said"

_PLAIN = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def build(cls: type[T], raw: Any, where: str, base: Any = None, **given: Any) -> T:
    """The dataclass that a table describes; what it leaves out is `base`'s, if there is one. `given` is not read.

    Raises:
        ScenarioError: for an unknown or missing key, a wrong type, an impossible value, or a ValueError of the class.
    """
    if not isinstance(raw, Mapping):
        raise ScenarioError(f"{where}: must be a table, is {_shown(raw)}")
    hints = get_type_hints(cls, include_extras=True)
    known = {entry.name: entry for entry in fields(cls) if entry.init and entry.name not in given}  # type: ignore[arg-type]
    only_known(raw, known, where)
    values = dict(given)
    for name, entry in known.items():
        if name in raw:
            values[name] = value(hints[name], raw[name], f"{where} {name}", _default(entry))
        elif base is not None:
            values[name] = getattr(base, name)
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise ScenarioError(f"{where}: {name} is missing ({expected(hints[name])})")
    try:
        return cls(**values)
    except ScenarioError:
        raise
    except ValueError as error:
        raise ScenarioError(f"{where}: {error}") from error


def _default(entry: "Field[Any]") -> Any:
    return entry.default_factory() if entry.default_factory is not MISSING else entry.default


def only_known(raw: Mapping[str, Any], known: Any, where: str) -> None:
    """Raises ScenarioError for the first key that is none of the known ones."""
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ScenarioError(f"{where}: there is no key {key!r}{hint}; allowed: {', '.join(known)}")


def build_kind(raw: Any, kinds: Mapping[str, Callable[[Mapping[str, Any], str], Any]], where: str) -> Any:
    """What the reader that a table's `kind` names makes of the table's other keys."""
    if not isinstance(raw, Mapping):
        raise ScenarioError(f"{where}: must be a table, is {_shown(raw)}")
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        said = "is missing" if kind is None else f"cannot be {_shown(kind)}"
        raise ScenarioError(f"{where} kind: {said}; allowed: {', '.join(kinds)}")
    return kinds[kind]({key: entry for key, entry in raw.items() if key != "kind"}, where)


def value(hint: Any, raw: Any, where: str, base: Any = None) -> Any:
    """One value of the annotated type; lists become tuples, tables dataclasses or dicts. Raises ScenarioError."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _bounded(value(args[0], raw, where, base), args[1:], where)
    if origin in (Union, types.UnionType):
        return value(_arm(args, raw, hint, where), raw, where, base)
    if origin is Literal:
        if raw not in args:
            raise ScenarioError(f"{where}: cannot be {_shown(raw)}; allowed: {expected(hint)}")
        return raw
    if origin is tuple:
        return _items(args, raw, hint, where)
    if origin in (dict, Mapping):
        return _entries(args, raw, where)
    if isinstance(hint, type) and is_dataclass(hint):
        return build(hint, raw, where, base if isinstance(base, hint) else None)
    return raw if hint is Any else _plain(hint, raw, where)


def _plain(hint: Any, raw: Any, where: str) -> Any:
    number = isinstance(raw, int | float) and not isinstance(raw, bool)
    if hint is float and number and math.isfinite(raw):
        return float(raw)
    if hint is not float and type(raw) is hint:
        return raw
    raise ScenarioError(f"{where}: must be {expected(hint)}, is {_shown(raw)}")


def _bounded(got: Any, bounds: tuple[Any, ...], where: str) -> Any:
    for bound in bounds:
        if isinstance(bound, Bound) and (complaint := bound.complaint(got)):
            raise ScenarioError(f"{where}: {complaint}, is {got:g}")
    return got


def _arm(arms: tuple[Any, ...], raw: Any, hint: Any, where: str) -> Any:
    """The one of several types that a value is written as: a table, a list, a text or a number."""
    for arm in arms:
        inner = get_args(arm)[0] if get_origin(arm) is Annotated else arm
        origin = get_origin(inner)
        wanted: Any
        if origin in (dict, Mapping) or (isinstance(inner, type) and is_dataclass(inner)):
            wanted = Mapping
        elif origin is tuple:
            wanted = list
        elif origin is Literal:
            wanted = str
        else:
            wanted = int | float if inner is float else inner
        if inner is not types.NoneType and isinstance(raw, wanted):
            return arm
    raise ScenarioError(f"{where}: must be {expected(hint)}, is {_shown(raw)}")


def _items(args: tuple[Any, ...], raw: Any, hint: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise ScenarioError(f"{where}: must be {expected(hint)}, is {_shown(raw)}")
    if args[-1] is Ellipsis:
        return tuple(value(args[0], item, f"{where}[{at}]") for at, item in enumerate(raw))
    if len(raw) != len(args):
        raise ScenarioError(f"{where}: must be {expected(hint)}, is {_shown(raw)}")
    return tuple(value(arg, item, f"{where}[{at}]") for at, (arg, item) in enumerate(zip(args, raw, strict=True)))


def _entries(args: tuple[Any, ...], raw: Any, where: str) -> dict[Any, Any]:
    if not isinstance(raw, Mapping):
        raise ScenarioError(f"{where}: must be a table, is {_shown(raw)}")
    kind = args[0] if args else str
    if kind is int and (bad := next((key for key in raw if not key.isdecimal()), None)) is not None:
        raise ScenarioError(f"{where}: its keys must be whole numbers, one is {bad!r}")
    return {kind(key): value(args[1], item, f"{where}.{key}") for key, item in raw.items()}


def expected(hint: Any) -> str:
    """A type in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return expected(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join(expected(arm) for arm in args if arm is not types.NoneType)
    if origin is Literal:
        return ", ".join(map(str, args))
    if origin is tuple:
        return f"a list of {len(args)} values" if args[-1] is not Ellipsis else f"a list, each {expected(args[0])}"
    return _PLAIN.get(hint, "a table")


def _shown(raw: Any) -> str:
    """As TOML would have it, cut where it is long."""
    text = {True: "true", False: "false"}[raw] if isinstance(raw, bool) else repr(raw)
    return text if len(text) <= 60 else text[:57] + "..."
