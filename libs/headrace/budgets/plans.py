"""From a plan to the facts of a budget game: traces are read, loads counted, utilities worked out or simulated."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from headrace.budgets import stages
from headrace.budgets.loads import STAGES, Floats, normalised, pools_of, stage_work
from headrace.budgets.plan import POOLS, Plan
from headrace.budgets.tenants import Tenant, measured, request_s
from headrace.control.constants import GPUS
from headrace.core.budget.facts import Facts, Player, Utility
from headrace.core.budget.loads import estimate
from headrace.core.errors import InvalidInput
from headrace.profiles import encoder, instance
from headrace.workload import scenario, traces
from headrace.workload.arrival import Arrival
from headrace.workload.quantiles import Quantiles

SIMULATED_S = 40.0  # for each point of a tenant's table
QUANTILES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def facts_of(plan: Plan) -> Facts:
    """Raises HeadraceError, ProfileError, ScenarioError, TraceError or OSError: what was said cannot be."""
    if plan.gpu not in GPUS:
        raise InvalidInput(f"gpu {plan.gpu!r}: must be one of {', '.join(GPUS)}", field="gpu")
    return _of_tenants(plan) if plan.tenants else _of_stages(plan)


def _of_stages(plan: Plan) -> Facts:
    pools = read_pools(plan.pools)
    name = f"{plan.gpu}/{plan.model}/tp1"
    tower = encoder(name) if "encode" in pools else None
    work = stage_work(_arrivals(plan), instance(name), tower, plan.epoch_s)
    each = normalised(pools_of(tuple(pools), work), plan.load)
    return stages.facts(pools, each, GPUS[plan.gpu], plan.budget, kappa=plan.kappa, price=plan.price)


def _arrivals(plan: Plan) -> Iterable[Arrival]:
    if bool(plan.scenario) == (plan.trace is not None):
        raise InvalidInput("say either a scenario or a trace", field="trace")
    if plan.trace is not None:
        return _read(plan.trace, plan.format)
    return scenario.read(plan.scenario).arrivals(plan.seed)


def _read(path: Path, name: str) -> Iterable[Arrival]:
    return traces.load(path, name, {"skip_bad": True} if name == "azure-llm" else {})


def read_pools(text: str) -> dict[str, int]:
    """GPUs of each stage, in the order of STAGES. Raises InvalidInput."""
    found = {}
    for part in text.split(","):
        name, _, count = part.partition("=")
        if name not in STAGES or not count.isdigit() or int(count) < 1:
            raise InvalidInput(f"pools {text!r}: must be such as {POOLS}", field="pools")
        found[name] = int(count)
    if len(found) < 2:
        raise InvalidInput(f"pools {text!r}: a game needs two players", field="pools")
    return {name: found[name] for name in STAGES if name in found}


def _of_tenants(plan: Plan) -> Facts:
    told = [read_tenant(plan, text) for text in plan.tenants]
    columns = [_work(request_s(tenant), arrivals, plan.epoch_s) for tenant, arrivals in told]
    epochs = min(map(len, columns))
    if epochs < 2:
        raise InvalidInput("a tenant's trace is too short to learn how its load changes", field="tenant")
    each = normalised(np.array([column[:epochs] for column in columns]).T, plan.load)
    utilities = [measured(tenant, plan.seed, SIMULATED_S) for tenant, _ in told]
    return of_tenants([tenant.name for tenant, _ in told], each, utilities, plan)


def of_tenants(names: list[str], loads: Floats, utilities: list[Utility], plan: Plan) -> Facts:
    """loads: [epoch, tenant]. A request that was late is not asked again: nothing is carried over."""
    headroom, following = stages.headroom(plan.budget)
    made = tuple(
        Player(name, 1.0 / len(names), estimate(loads[:, at], stages.CLASSES), utility)
        for at, (name, utility) in enumerate(zip(names, utilities, strict=True))
    )
    return Facts(made, stages.LEVELS, headroom, following, plan.kappa, plan.price, "mean", carry=False)


def read_tenant(plan: Plan, text: str) -> tuple[Tenant, list[Arrival]]:
    """Raises InvalidInput, TraceError."""
    name, _, rest = text.partition("=")
    path, *promises = rest.split(",")
    try:
        ttft_s, tbt_s = map(float, promises)
    except ValueError:
        raise InvalidInput(f"tenant {text!r}: must be IDS=TRACE,TTFT_S,TBT_S", field="tenant") from None
    arrivals = list(_read(Path(path), plan.format))
    if not arrivals:
        raise InvalidInput(f"tenant {text!r}: its trace has no requests", field="tenant")
    prompts = _quantiles(arrivals, lambda one: one.input_tokens)
    outputs = _quantiles(arrivals, lambda one: one.output_tokens)
    return Tenant(name, prompts, outputs, ttft_s, tbt_s, plan.model, plan.gpu), arrivals


def _quantiles(arrivals: list[Arrival], of: Callable[[Arrival], int]) -> Quantiles:
    values = np.quantile([max(1, of(one)) for one in arrivals], QUANTILES)
    return Quantiles(QUANTILES, tuple(float(value) for value in values))


def _work(each_s: float, arrivals: list[Arrival], epoch_s: float) -> Floats:
    """[epoch] seconds of work, by the number of requests."""
    counts = np.bincount(np.array([int(one.at_s // epoch_s) for one in arrivals]))
    found: Floats = counts.astype(np.float64) * each_s
    return found
