"""What a simulation rests on, for a reader to check: the scenario as it was run, and each profile's source."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.profiles import model, packaged
from headrace.sim.fleet import instance_of, tower_of
from headrace.workload.fleet import PoolSpec
from headrace.workload.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Assumption:
    """Something the figures rest on, and where it comes from."""

    name: str
    source: tuple[str, ...]  # a line each
    text: str = ""  # as it is written


def assumptions(scenario: Scenario, text: str, overrides: Mapping[str, Any]) -> tuple[Assumption, ...]:
    """Raises ProfileError: a pool names a profile that there is not."""
    said = f"{text.rstrip()}\n{_set(overrides)}"
    first = Assumption(f"Scenario {scenario.name}", ("As it was run.",), said)
    found: dict[str, Assumption] = {}
    for pool in scenario.fleet.pools if scenario.fleet is not None else ():
        own = pool.model or scenario.model or next(iter(pool.models), "")
        for name in dict.fromkeys((own, *pool.models)):
            for each in _profiles(pool, name):
                found.setdefault(each.name, each)
    return (first, *found.values())


def _profiles(pool: PoolSpec, name: str) -> Iterator[Assumption]:
    if "encode" in pool.stages and (tower := tower_of(pool, name)) is not None:
        yield Assumption(f"Encoder profile {tower.name}", source_lines(tower.source))
        if name in packaged("models"):
            yield Assumption(f"Model {name}", source_lines(model(name).source))
    if {"prefill", "decode"} & set(pool.stages):
        llm = instance_of(pool, name)
        yield Assumption(f"Instance profile {llm.name}", source_lines(llm.source))


def source_lines(source: str) -> tuple[str, ...]:
    """A profile joins the sources of its groups of numbers by `; <group>: [tag]`."""
    parts = source.split("; ")
    joined: list[str] = []
    for part in parts:
        if joined and ": [" not in part:
            joined[-1] += f"; {part}"
        else:
            joined.append(part)
    return tuple(joined)


def _set(overrides: Mapping[str, Any]) -> str:
    if not overrides:
        return ""
    return "\n# set on the command line\n" + "".join(f"{key} = {_value(value)}\n" for key, value in overrides.items())


def flat(tables: Mapping[str, Any], under: str = "") -> Iterator[str]:
    """`fleet.pools.llm.count = 4`: tables that no file holds, in the words of --set."""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{under}{key}.")
        elif isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
            for at, entry in enumerate(value):
                yield from flat(entry, f"{under}{key}.{entry.get('name', at)}.")
        else:
            yield f"{under}{key} = {_value(value)}"


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
