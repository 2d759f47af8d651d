"""Who shares a row in the budget bench: three tenants with unlike promises, or the three stage pools of one model.

A tenant's worth of watts is measured by the request simulator, twice with different requests: what it learns from is
not what it is judged by. Loads are epochs of ten seconds; half of a seed's series is learnt from, the rest played.
"""

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.budgets import stages
from headrace.budgets.loads import LOAD_MOST, decode_s, normalised, prefill_s, stage_work
from headrace.budgets.tenants import DRAWS, WATTS, Tenant, lengths, measured
from headrace.control.constants import H100
from headrace.control.power import decode_rate, speed_under
from headrace.core.budget.facts import Together, Utility
from headrace.core.power.law import drawn_w
from headrace.profiles import EncoderProfile, InstanceProfile, encoder, instance
from headrace.workload import fitted
from headrace.workload.processes import Bursts, Gamma, Process, Switching
from headrace.workload.rates import constant
from headrace.workload.scenario import parse

Floats = NDArray[np.float64]
EPOCH_S, EPOCHS = 10.0, 180  # half an hour: as long as the public traces at hand
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TRACES = {"conversation": "azure2023_conv.csv.gz", "code": "azure2023_code.csv.gz"}
LOADS = {"conversation": 0.6, "code": 0.6, "batch": 0.8}  # mean, of what each tenant's instances can do
TENANTS = (
    Tenant("conversation", fitted.CONV_INPUT, fitted.CONV_OUTPUT, 1.0, 0.05),
    Tenant("code", fitted.CODE_INPUT, fitted.CODE_OUTPUT, 0.6, 0.1),
    Tenant("batch", fitted.LMM_CONTEXT_TEXT, fitted.LMM_OUTPUT_TEXT, 20.0, 0.2),
)
MIXED = {"kind": "generated", "generator": "multimodal", "rate_rps": 6.0, "image_share": 0.3}
POOLS = {"encode": 2, "prefill": 2, "decode": 3}
POOL_LOAD = 0.7


@dataclass(frozen=True, slots=True)
class World:
    """What is true, and what players learn from."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    truth: tuple[Utility, ...]
    known: tuple[Utility, ...]
    prefill: tuple[float, ...]  # share of each player's work that is bound by computing
    together: Together
    carry: bool

    def done(self, loads: Floats, watts: Floats) -> Floats:
        """[..., player] shares of work done well."""
        return np.stack([each.of(loads[..., at], watts[..., at]) for at, each in enumerate(self.truth)], axis=-1)

    def goodput(self, loads: Floats, done: Floats) -> Floats:
        """[...]: of all work."""
        if self.together == "least":
            narrowest: Floats = done.min(axis=-1)
            return narrowest
        asked = loads * np.array(self.weights)
        found: Floats = (asked * done).sum(axis=-1) / np.maximum(asked.sum(axis=-1), 1e-9)
        return found

    def drawn(self, loads: Floats, watts: Floats) -> Floats:
        """[..., player] watts really drawn beside the player's own at full speed: what caps allow is not all used."""
        found = []
        for at, share in enumerate(self.prefill):
            found.append(_drawn(loads[..., at], watts[..., at], share))
        return np.stack(found, axis=-1)


def _drawn(load: Floats, watts: Floats, prefill: float) -> Floats:
    cap_w = watts * H100.prefill_w
    fast, slow = speed_under(H100, cap_w, H100.prefill_w), speed_under(H100, cap_w, H100.decode_w)
    times = prefill / fast, (1.0 - prefill) / decode_rate(H100, slow)
    whole = times[0] + times[1]
    power = sum(
        time * drawn_w(full, speed, context_w=H100.context_w, exponent=H100.speed_exponent)
        for time, full, speed in zip(times, (H100.prefill_w, H100.decode_w), (fast, slow), strict=True)
    )
    busy = np.minimum(1.0, load * whole)
    found: Floats = ((1.0 - busy) * H100.context_w + busy * power / whole) / H100.prefill_w
    return found


def tenants(simulated_s: float) -> World:
    known = tuple(measured(each, 1, simulated_s) for each in TENANTS)
    truth = tuple(measured(each, 2, simulated_s) for each in TENANTS)
    names = tuple(each.name for each in TENANTS)
    return World(names, (1 / 3,) * 3, truth, known, tuple(map(mixture, TENANTS)), "mean", carry=False)


def mixture(tenant: Tenant) -> float:
    """The share of its work at full speed that is prefill."""
    step = instance(f"{tenant.gpu}/{tenant.model}/tp1").step
    pairs = zip(*(each.tolist() for each in lengths(tenant, np.random.default_rng(0), DRAWS)), strict=True)
    work = np.array([(prefill_s(step, prompt), decode_s(step, prompt, output)) for prompt, output in pairs])
    return float(work[:, 0].sum() / work.sum())


def pools() -> World:
    gpus = sum(POOLS.values())
    utilities = tuple(stages.utility(H100, name) for name in POOLS)
    weights = tuple(count / gpus for count in POOLS.values())
    prefill = tuple(0.0 if name == "decode" else 1.0 for name in POOLS)
    return World(tuple(POOLS), weights, utilities, utilities, prefill, "least", carry=True)


def guess(world: World) -> tuple[Utility, ...]:
    """Of somebody who knows tenants' utilities only all together: their mean, for each of them."""
    watts = np.array(sorted({*WATTS, *stages.WATTS}))
    points = np.array(stages.LOADS)
    mean = np.mean([each.of(points[:, None], watts[None, :]) for each in world.known], axis=0)
    one = Utility(tuple(points.tolist()), tuple(watts.tolist()), tuple(tuple(row) for row in mean.tolist()))
    return (one,) * len(world.names)


# --- loads ---


def tenant_loads(seed: int) -> Floats:
    """[epoch, tenant]. Recorded arrivals begin at a random moment and go round; what is not recorded is generated."""
    rng = np.random.default_rng([seed, 53])
    columns = []
    for each in TENANTS:
        times = _recorded(each.name)
        if times is None:
            times = np.array(list(_process(each.name).times(rng, EPOCHS * EPOCH_S)))
        counts = np.bincount((times // EPOCH_S).astype(np.int64), minlength=EPOCHS)[:EPOCHS]
        turned = np.roll(counts, int(rng.integers(EPOCHS))).astype(np.float64)
        columns.append(np.minimum(turned / turned.mean() * LOADS[each.name], LOAD_MOST))
    return np.stack(columns, axis=1)


def recorded() -> bool:
    return all((DATA / name).is_file() for name in TRACES.values())


def _recorded(name: str) -> Floats | None:
    path = DATA / TRACES.get(name, "")
    if name not in TRACES or not path.is_file():
        return None
    with gzip.open(path, "rt") as text:
        return np.array([float(row["arrival_s"]) for row in csv.DictReader(text)])


def _process(name: str) -> Process:
    """Conversations come evenly, code in bursts (fitted.CODE_CV), batches in waves of some minutes [I]."""
    if name == "conversation":
        return Gamma(fitted.CONV_RPS, fitted.CONV_CV)
    if name == "code":
        return Bursts(constant(fitted.CODE_RPS), Switching(60.0, 20.0, 4.0))
    return Bursts(constant(2.0), Switching(120.0, 60.0, 3.0))


def pool_loads(seed: int) -> Floats:
    """[epoch, pool], of the Azure multimodal mix with its own restlessness."""
    model = "llama-3.2-11b-vision"
    raw = {"about": "", "model": model, "duration_s": EPOCHS * EPOCH_S, "workload": MIXED | {"profile": "flat"}}
    work = stage_work(parse(raw, Path("mixed.toml")).arrivals(seed), *_profiles(model), EPOCH_S)
    filled = np.vstack([work, np.zeros((max(0, EPOCHS - len(work)), work.shape[1]))])[:EPOCHS]
    return normalised(filled, POOL_LOAD)


def _profiles(model: str) -> tuple[InstanceProfile, EncoderProfile]:
    return instance(f"h100/{model}/tp1"), encoder(f"h100/{model}/tp1")
