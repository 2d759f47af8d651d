"""Everything together, the systems of the papers alone, and everything but one thing; and one run of any of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.sim.result import Result
from headrace.sim.run import simulate
from headrace.workload.arrival import Arrival
from loadtest.benches import queue_runs
from loadtest.benches.queue_runs import PREDICTOR
from loadtest.reproduce.together_scene import ENCODER_MEMORY_TOKENS, Load, scenario

Mask = NDArray[np.bool_]

# The queue bench's short search, asked more often: a plan takes wall time here. Live: one a second, with the solver.
PLANNING = {**queue_runs.PLANNING, "replan_s": 2.0}
REPLAYS = 3  # of the search with hindsight
_BACK = 0.5  # of those who were let down are let in again, each time half as many


@dataclass(frozen=True, slots=True)
class System:
    policy: str  # the simulator's name of it
    apart: bool = False  # encoders in a pool of their own
    order: str = ""  # before the encoders, under a planner; empty: its own, least slack
    cache: bool = False  # embeddings are kept for who asks about the same
    scaled: str = ""  # by which autoscaler
    room: bool = False  # an encoder keeps more embeddings for prefill than it has parts in line

    def settings(self) -> dict[str, Any]:
        told: dict[str, Any] = dict(PLANNING) if self.policy.startswith("headrace") else {}
        told |= {"order": self.order} if self.order else {}
        told |= {} if self.cache else {"encoder_cache": "off"}
        return told | ({"encoder_memory_tokens": ENCODER_MEMORY_TOKENS} if self.room else {})


# Frozen before ours met this load. Of its two or four shapes, a system has the one that keeps most on other seeds, at
# each rate by itself; ours has the same one everywhere.
SINGLE: Mapping[str, tuple[System, ...]] = {
    "fcfs": tuple(System("fcfs", room=room) for room in (False, True)),
    "ssjf": tuple(System(f"ssjf+{PREDICTOR}", room=room) for room in (False, True)),
    "qlm": tuple(System("headrace-reject-fair-move", room=room) for room in (False, True)),
    "modserve": tuple(
        System("least-slack", apart=True, scaled=scaled, room=room)
        for scaled in ("", "published")
        for room in (False, True)
    ),
}
OURS = System(f"headrace+{PREDICTOR}", apart=True, cache=True, scaled="headrace", room=True)
TRUE_LENGTHS = replace(OURS, policy="headrace+oracle")
WITHOUT: Mapping[str, System] = {
    # Where one process does all, what is encoded ahead delays those that could be answered: no room for it there.
    "stages apart": replace(OURS, apart=False, room=False),
    "the planner": replace(OURS, policy="least-slack"),
    "predicted lengths": replace(OURS, policy="headrace"),
    "slack order at encoders": replace(OURS, order="fcfs"),
    "the autoscaler": replace(OURS, scaled=""),
    "the encoder cache": replace(OURS, cache=False),
    "early rejection": replace(OURS, policy=f"headrace-reject+{PREDICTOR}"),
    "eviction": replace(OURS, policy=f"headrace-evict+{PREDICTOR}"),
    "room for embeddings": replace(OURS, room=False),
}


@dataclass(frozen=True, slots=True)
class Trial:
    system: System
    load: Load
    seed: int

    def __str__(self) -> str:
        return f"{self.system.policy}, {self.load}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Hindsight:
    """The best that was found for a seed with true lengths, and with those turned away who were let down before."""

    load: Load
    seed: int
    replays: int = REPLAYS

    def __str__(self) -> str:
        return f"with hindsight, {self.load}, seed {self.seed}"


def carry_out(trial: Trial) -> dict[str, Any]:
    return row_of(_simulated(trial.system, trial.load, trial.seed, None), trial.load)


def look_back(search: Hindsight) -> dict[str, Any]:
    """The row of the best replay; its shares are of all requests, those turned away among them."""
    load, seed = search.load, search.seed
    everybody = list(_scene(TRUE_LENGTHS, load).arrivals(seed))
    let_in = np.ones(len(everybody), np.bool_)
    best, best_kept, best_row = -1, np.zeros(len(everybody), np.bool_), dict[str, Any]()
    for turn in range(search.replays):
        chosen = [each for each, wanted in zip(everybody, let_in, strict=True) if wanted]
        result = _simulated(TRUE_LENGTHS, load, seed, chosen)
        kept = np.zeros(len(everybody), np.bool_)
        kept[np.flatnonzero(let_in)] = result.met()
        if int(kept.sum()) > best:
            best, best_kept = int(kept.sum()), kept
            best_row = row_of(result, load) | _of_all(everybody, kept)
        let_in = _again(everybody, best_kept, _BACK ** (turn + 1))
    return best_row


def _of_all(everybody: Sequence[Arrival], kept: Mask) -> dict[str, Any]:
    """Shares of those who asked, not of those who were let in."""
    pictured = np.array([bool(each.parts) for each in everybody])
    classes = np.array([each.slo_class for each in everybody])
    return {
        "requests": len(everybody),
        "attainment": _share(kept),
        "by_class": {str(name): _share(kept[classes == name]) for name in np.unique(classes)},
        "with_images": _share(kept[pictured]),
        "text_alone": _share(kept[~pictured]),
    }


def _again(everybody: Sequence[Arrival], kept: Mask, share: float) -> Mask:
    """Those who were kept, and the cheapest of the others: few pictures, few tokens."""
    let_in = kept.copy()
    work = np.array([2_000 * len(each.parts) + each.input_tokens + 10 * each.output_tokens for each in everybody])
    out = np.flatnonzero(~kept)
    let_in[out[np.argsort(work[out], kind="stable")[: int(share * len(out))]]] = True
    return let_in


def _scene(system: System, load: Load) -> Any:
    return scenario(load, apart=system.apart, cache=system.cache, scaled=system.scaled)


def _simulated(system: System, load: Load, seed: int, arrivals: Sequence[Arrival] | None) -> Result:
    return simulate(_scene(system, load), system.policy, seed, arrivals=arrivals, settings=system.settings())


def row_of(result: Result, load: Load) -> dict[str, Any]:
    """Goodput: promises kept, a second of the time in which requests come."""
    requests, met = result.requests, result.met()
    pictured = requests.media_parts > 0
    return {
        "requests": len(requests),
        "attainment": float(met.mean()),
        "goodput_rps": float(met.sum()) / load.duration_s,
        "by_class": {slo.name: _share(met[requests.slo_class == at]) for at, slo in enumerate(result.classes)},
        "with_images": _share(met[pictured]),
        "text_alone": _share(met[~pictured]),
        "gpu_hours": result.gpu_hours,
        "joules": result.joules,
        "ttft_p50_s": result.summary()["ttft_p50_s"],
        "ttft_p99_s": result.summary()["ttft_p99_s"],
        "encoders_busy": _busy(result, "encode", load),
        "evictions": result.counters.get("evictions", 0.0),
        "scalings": result.counters.get("scalings", 0.0),
        "wall_s": result.wall_s,
    }


def _share(met: Any) -> float:
    return float(met.mean()) if len(met) else float("nan")


def _busy(result: Result, name: str, load: Load) -> float:
    """Of a pool's time while requests come; nan where there is no such pool."""
    coming = result.t_s <= load.duration_s
    for pool in result.pools:
        if pool.name == name:
            there = float(pool.instances[coming].sum())
            return float((pool.busy_share * pool.instances)[coming].sum()) / there if there else float("nan")
    return float("nan")
