"""A scenario: who asks what, of which fleet, and what goes wrong. The simulator and the load test read the same files.

One TOML file is one scenario; loadtest/scenarios/burst.toml explains every key as it goes.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from headrace.core.slo import CLASSES, SloClass
from headrace.workload.arrival import Arrival
from headrace.workload.autoscale import Autoscale
from headrace.workload.drill import Drill
from headrace.workload.fleet import Fleet, Incident, PoolSpec
from headrace.workload.open import SOURCES, Generated, Streams, Traced, open_arrivals, read_streams
from headrace.workload.queueing import Queueing
from headrace.workload.tables import Count, NotNegative, Positive, ScenarioError, build, build_kind, only_known
from headrace.workload.users import User, Users

__all__ = [
    "Autoscale",
    "Drill",
    "Fleet",
    "Generated",
    "Incident",
    "PoolSpec",
    "Scenario",
    "ScenarioError",
    "Streams",
    "Traced",
    "Users",
    "read",
]

# Those of a checkout; an installed package has files of its user's alone.
FOLDER = Path(__file__).parents[3] / "loadtest" / "scenarios"
Workload = Generated | Traced | Streams | Users
KINDS: Mapping[str, Callable[[Mapping[str, Any], str], Workload]] = {
    **SOURCES,
    "streams": read_streams,
    "users": partial(build, Users),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    about: str
    seed: int
    duration_s: float  # of arrivals
    drain_s: float  # after the last arrival, for what still runs
    model: str
    workload: Workload
    classes: tuple[SloClass, ...]
    shares: tuple[float, ...]  # of the requests that say no class themselves: one a class, their sum is 1
    fleet: Fleet | None = None  # none: for a live mesh alone
    incidents: tuple[Incident, ...] = ()  # in order of time
    mesh: Mapping[str, float] = field(default_factory=dict)  # seconds: what the simulated mesh takes for its own work
    autoscale: Autoscale | None = None  # none: the fleet stays as it is
    queue: Queueing = field(default_factory=Queueing)
    drill: Drill | None = None  # what a live mesh is put through; none: it is asked, no more

    @property
    def weights(self) -> dict[str, float]:
        return {slo.name: share for slo, share in zip(self.classes, self.shares, strict=True)}

    def class_index(self, name: str) -> int:
        """Into `classes`. Raises ScenarioError: a trace named a class that the scenario does not have."""
        for at, slo in enumerate(self.classes):
            if slo.name == name:
                return at
        raise ScenarioError(f"{self.name}: no class {name!r}; there are {', '.join(c.name for c in self.classes)}")

    def arrivals(self, seed: int | None = None) -> Iterator[Arrival]:
        """In order of time, before duration_s; the same seed gives the same ones. Class and model are filled in."""
        assert not isinstance(self.workload, Users), "users ask when their last answer has come: see user()"
        chosen = self.seed if seed is None else seed
        return open_arrivals(self.workload, self.duration_s, self.weights, self.model, chosen)

    def user(self, number: int, seed: int | None = None) -> User:
        """The number-th of the users in a closed loop, from 0."""
        assert isinstance(self.workload, Users), "arrivals() has the requests of an open loop"
        return User(self.workload, self.weights, self.seed if seed is None else seed, number)

    def changed(self, *, duration_s: float = 0.0, scale: float = 1.0, seed: int | None = None) -> "Scenario":
        """Another length, another load (rate or users times scale), another seed; zeros leave the scenario's."""
        return replace(
            self,
            duration_s=duration_s or self.duration_s,
            workload=self.workload.scaled(scale),
            seed=self.seed if seed is None else seed,
        )


@dataclass(frozen=True, slots=True)
class _Class:
    """A table [classes.NAME]; what is not said is headrace.core.slo's."""

    share: NotNegative = 1.0
    ttft_s: Positive | None = None
    timeout_s: Positive | None = None
    queue_limit: Count | None = None
    tbt_s: NotNegative | None = None  # between two tokens; 0: nothing is promised
    ttl_s: NotNegative | None = None  # who has waited so long for its first token is given back; 0: never


@dataclass(frozen=True, slots=True)
class _File:
    """The tables of a file; those that need more than their types are left raw."""

    about: str
    duration_s: Positive
    workload: Mapping[str, Any]
    model: str = ""
    seed: int = 1
    drain_s: NotNegative = 60.0
    classes: Mapping[str, Any] = field(default_factory=lambda: {"interactive": {}})
    fleet: Mapping[str, Any] | None = None
    incidents: tuple[Any, ...] = ()
    mesh: Mapping[str, NotNegative] = field(default_factory=dict)
    autoscale: Mapping[str, Any] | None = None
    queue: Queueing = field(default_factory=Queueing)
    drill: Drill | None = None


def names(folder: Path | None = None) -> list[str]:
    return sorted(path.stem for path in (folder or FOLDER).glob("*.toml"))


def find(path_or_name: str | Path, folder: Path | None = None) -> Path:
    """A file, or the file of that name in the folder (a checkout's loadtest/scenarios).

    Raises:
        ScenarioError: there is none; the message lists the names there are.
    """
    packaged = (folder or FOLDER) / f"{path_or_name}.toml"
    path = packaged if packaged.is_file() else Path(path_or_name)
    if not path.is_file():
        known = ", ".join(names(folder)) or "none here"
        raise ScenarioError(f"no scenario {str(path_or_name)!r}: neither a file nor one of {known}")
    return path


def read(path_or_name: str | Path, folder: Path | None = None) -> Scenario:
    """A scenario by its name, or any TOML file.

    Raises:
        ScenarioError: there is no such file, or it cannot be run; the message names file, table and key.
    """
    path = find(path_or_name, folder)
    try:
        raw = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path.name}: not TOML: {error}") from error
    return parse(raw, path)


def parse(raw: Mapping[str, Any], path: Path) -> Scenario:
    """A scenario from the tables of a file; path names it, and a trace's file is looked for beside it."""
    file = build(_File, raw, path.name)
    workload = build_kind(file.workload, KINDS, f"{path.name} [workload]")
    if isinstance(workload, Traced | Streams):
        workload = workload.beside(path.parent, f"{path.name} [workload] file")
    classes, shares = _classes(file.classes, path.name)
    _known_classes(workload, classes, path.name)
    fleet = None if file.fleet is None else _fleet(file.fleet, path.name)
    return Scenario(
        name=path.stem,
        about=file.about,
        seed=file.seed,
        duration_s=file.duration_s,
        drain_s=file.drain_s,
        model=file.model,
        workload=workload,
        classes=classes,
        shares=shares,
        fleet=fleet,
        incidents=_incidents(file.incidents, fleet, path.name),
        mesh=file.mesh,
        queue=file.queue,
        drill=file.drill,
        autoscale=None if file.autoscale is None else _autoscale(file.autoscale, fleet, path.name),
    )


def _classes(tables: Mapping[str, Any], name: str) -> tuple[tuple[SloClass, ...], tuple[float, ...]]:
    where = f"{name} [classes"
    said = {key: build(_Class, table, f"{where}.{key}]") for key, table in tables.items()}
    total = sum(each.share for each in said.values())
    if not total:
        raise ScenarioError(f"{where}]: at least one class needs a share above 0")
    return (
        tuple(_class(key, each, f"{where}.{key}]") for key, each in said.items()),
        tuple(each.share / total for each in said.values()),
    )


def _known_classes(workload: Workload, classes: tuple[SloClass, ...], name: str) -> None:
    known = ["", *(slo.name for slo in classes)]
    for stream in workload.streams if isinstance(workload, Streams) else ():
        if stream.slo_class not in known:
            why = f"there is no class {stream.slo_class!r}; there are {', '.join(known[1:])}"
            raise ScenarioError(f"{name} [workload] streams {stream.name} slo_class: {why}")


def _class(name: str, said: _Class, where: str) -> SloClass:
    known = CLASSES.get(name)
    needed = ("ttft_s", "timeout_s", "queue_limit")
    changes = {key: getattr(said, key) for key in (*needed, "tbt_s", "ttl_s")}
    given = {key: value for key, value in changes.items() if value is not None}
    if known is not None:
        return replace(known, **given)
    if missing := [key for key in needed if key not in given]:
        raise ScenarioError(f"{where} {missing[0]}: is missing; a class other than {', '.join(CLASSES)} says all three")
    return SloClass(name, **given)


def _fleet(raw: Mapping[str, Any], name: str) -> Fleet:
    """As build() would, but for the name of a pool's table in its errors."""
    pools = raw.get("pools", [])
    only_known(raw, ("link", "pools", "roles"), f"{name} [fleet]")
    if not isinstance(pools, list) or not pools:
        raise ScenarioError(f"{name} [fleet] pools: is missing; write one [[fleet.pools]] for each pool")
    for at, pool in enumerate(pools):
        label = pool.get("name", at) if isinstance(pool, Mapping) else at
        build(PoolSpec, pool, f"{name} [[fleet.pools]] {label}")
    return build(Fleet, raw, f"{name} [fleet]")


def _autoscale(raw: Mapping[str, Any], fleet: Fleet | None, name: str) -> Autoscale:
    where = f"{name} [autoscale]"
    if fleet is None:
        raise ScenarioError(f"{where}: needs a [fleet] whose pools it scales")
    asked = build(Autoscale, raw, where)
    try:
        asked.check(fleet)
    except ValueError as error:
        raise ScenarioError(f"{where} {error}") from error
    return asked


def _incidents(raw: tuple[Any, ...], fleet: Fleet | None, name: str) -> tuple[Incident, ...]:
    out = [build(Incident, table, f"{name} [[incidents]] {at}") for at, table in enumerate(raw)]
    for at, incident in enumerate(out):
        _known_worker(incident, out, fleet, f"{name} [[incidents]] {at} worker")
    return tuple(sorted(out, key=lambda incident: incident.at_s))


def _known_worker(incident: Incident, all_of_them: list[Incident], fleet: Fleet | None, where: str) -> None:
    if not incident.worker:
        return
    pool = fleet.pool(incident.pool) if fleet is not None else None
    if fleet is None or pool is None:
        known = ", ".join(pool.name for pool in fleet.pools) if fleet is not None else "none: there is no [fleet]"
        raise ScenarioError(f"{where}: {incident.worker!r} is of no pool; pools: {known}")
    number = incident.worker.partition("-")[2]
    started = sum(other.kind == "start" and other.pool == pool.name for other in all_of_them)
    last = pool.count + started - 1
    if "-" in incident.worker and not (number.isdecimal() and int(number) <= last):
        raise ScenarioError(f"{where}: {incident.worker!r}; the workers are {pool.name}-0 to {pool.name}-{last}")
