"""Reading a profile's TOML: typed fields, nothing unknown, no group of numbers without a source and evidence tag.

Every complaint names the file, the table and the field.
"""

import itertools
import re
import tomllib
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from headrace.core.cost import Curve

ROOT = resources.files("headrace.profiles")
# A source opens with how far it can be trusted: [P] the paper's text, [A] abstract or official page, [C] released code
# or data, [V] read in a primary source, [M] measured, [S] and [T] a third party's notes, [R] recalled, [I] inferred.
EVIDENCE = re.compile(r"\[[PACVMSTRI?](/[PACVMSTRI?])*\] \S")
_SEGMENT = re.compile(r"[a-z0-9][a-z0-9.-]*")


class ProfileError(ValueError):
    """A profile that cannot be used: which file, table and field, and what is expected there."""


@dataclass(slots=True)
class Table:
    """A TOML table that remembers where it stands and which of its fields were asked for."""

    file: str
    name: str  # "" is the file's top
    values: dict[str, Any]
    _read: set[str] = field(default_factory=set)

    def wrong(self, entry: str, why: str) -> ProfileError:
        where = f"table [{self.name}], " if self.name else ""
        return ProfileError(f"profile {self.file}: {where}field {entry}: {why}")

    def __contains__(self, entry: str) -> bool:
        return entry in self.values

    def _value(self, entry: str) -> Any:
        self._read.add(entry)
        if entry not in self.values:
            raise self.wrong(entry, "is missing")
        return self.values[entry]

    def text(self, entry: str) -> str:
        value = self._value(entry)
        if not isinstance(value, str) or not value:
            raise self.wrong(entry, "must be a text")
        return value

    def choice(self, entry: str, known: tuple[str, ...]) -> str:
        value = self.text(entry)
        if value not in known:
            raise self.wrong(entry, f"{value!r} is not one of {', '.join(known)}")
        return value

    def source(self, entry: str = "source") -> str:
        value = self.text(entry)
        if not EVIDENCE.match(value):
            raise self.wrong(entry, "must open with an evidence tag such as [P], [M] or [I], then say the source")
        return value

    def number(self, entry: str, default: float | None = None) -> float:
        """Finite and not negative."""
        if default is not None and entry not in self.values:
            return default
        return self._number(entry, self._value(entry))

    def _number(self, entry: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise self.wrong(entry, f"must be a number, not negative; got {value!r}")
        return float(value)

    def whole(self, entry: str, default: int | None = None, *, least: int = 0) -> int:
        if default is not None and entry not in self.values:
            return default
        value = self._value(entry)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(entry, f"must be a whole number, at least {least}; got {value!r}")
        return value

    def numbers(self, entry: str) -> tuple[float, ...]:
        values = self._value(entry)
        if not isinstance(values, list) or not values:
            raise self.wrong(entry, "must be a list of numbers")
        return tuple(self._number(entry, value) for value in values)

    def curve(self, xs_entry: str, ys_entry: str) -> Curve:
        xs, ys = self.numbers(xs_entry), self.numbers(ys_entry)
        if len(xs) != len(ys):
            raise self.wrong(ys_entry, f"has {len(ys)} numbers, {xs_entry} has {len(xs)}")
        if any(a >= b for a, b in itertools.pairwise(xs)):
            raise self.wrong(xs_entry, "must grow")
        if any(a > b for a, b in itertools.pairwise(ys)):
            raise self.wrong(ys_entry, "must not fall: more work never takes less time")
        return Curve(xs, ys)

    def table(self, entry: str) -> "Table":
        value = self._value(entry)
        if not isinstance(value, dict):
            raise self.wrong(entry, "must be a table")
        return Table(self.file, f"{self.name}.{entry}" if self.name else entry, value)

    def pass_over(self, *entries: str) -> None:
        """Fields that others read: not unknown."""
        self._read.update(entries)

    def end(self) -> None:
        """Whatever was not asked for is a mistake."""
        if unknown := sorted(self.values.keys() - self._read):
            raise self.wrong(unknown[0], f"is unknown; known: {', '.join(sorted(self._read))}")


def read_packaged(folder: str, stem: str, what: str) -> Table:
    """profiles/<folder>/<stem>.toml.

    Raises:
        ProfileError: there is none; the message lists those there are.
    """
    file = ROOT / folder / f"{stem}.toml"
    if not _SEGMENT.fullmatch(folder) or not _SEGMENT.fullmatch(stem) or not file.is_file():
        raise ProfileError(f"no {what} {stem!r} in {folder!r}; packaged: {', '.join(packaged(folder)) or 'none'}")
    return read(file, f"{folder}/{stem}.toml")


def read(file: Traversable | Path, name: str) -> Table:
    try:
        return Table(name, "", tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ProfileError(f"profile {name}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # bad TOML, or not UTF-8
        raise ProfileError(f"profile {name}: is not TOML: {error}") from error


def is_packaged(folder: str, stem: str) -> bool:
    return bool(_SEGMENT.fullmatch(folder) and _SEGMENT.fullmatch(stem)) and (ROOT / folder / f"{stem}.toml").is_file()


def packaged(folder: str) -> list[str]:
    """Stems of the packaged files of a folder: gpus, models, engine, or a GPU's name."""
    if not _SEGMENT.fullmatch(folder) or not (ROOT / folder).is_dir():
        return []
    names = (entry.name for entry in (ROOT / folder).iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def split_name(name: str, what: str) -> tuple[Table, str, str]:
    """The table of "a100/<file>/tp4" or "path/to/own.toml/tp4": (file's top, its stem, "tp4").

    A path may leave the table out where the file has one alone.
    """
    if ".toml" in name:
        path, _, at = name.rpartition(".toml")
        top = read(Path(f"{path}.toml"), f"{path}.toml")
        tables = [entry for entry, value in top.values.items() if re.fullmatch(r"tp\d+", entry) and value]
        if not (at := at.lstrip("/")) and len(tables) != 1:
            raise ProfileError(f"profile {name}: say which of {', '.join(tables) or 'no table'}: {path}.toml/tp1")
        return top, Path(path).name, at or tables[0]
    parts = name.split("/")
    if len(parts) != 3:
        raise ProfileError(f"{what} {name!r} must be <gpu>/<model>/tp<gpus>, or the path of a .toml file")
    folder, stem, at = parts
    return read_packaged(folder, stem, what), stem, at


def parallel(top: Table, at: str) -> Table:
    """The table of one degree of tensor parallelism, with `gpus` read and known to agree with its name."""
    tables = [entry for entry in top.values if re.fullmatch(r"tp\d+", entry)]
    top.pass_over(*tables)
    if at not in tables:
        raise ProfileError(f"profile {top.file}: no table [{at}]; it has {', '.join(tables) or 'none'}")
    return top.table(at)
