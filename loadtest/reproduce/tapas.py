"""TAPAS (ASPLOS 2025) on the simulated plant: placement, routing and configuration, alone, in pairs and together, on a
row that is sold to more servers than its power was bought for; emergencies, oversubscription, and simple rivals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from headrace.characterize import drawing
from headrace.characterize.document import Document, Section, Table, number, percent
from headrace.report.assumptions import Assumption
from headrace.report.compare import Estimate, estimate
from loadtest.reproduce.running import Found, Options, run
from loadtest.reproduce.tapas_load import Case, load
from loadtest.reproduce.tapas_world import Rival, Variant, World
from loadtest.rows import Rows

PAPER = {
    "max_temperature": -0.17,
    "peak_row_power": -0.23,
    "thermal_throttling_events": -0.97,
    "power_throttling_events": -0.99,
    "oversubscription": 0.40,
    "capped_share_at_it": 0.007,
    "source": "two independent notes [S]; the oversubscription's 0.7 % recalled [R]; its setting is not ours",
}
OVER = 0.20  # of the comparison: frozen before anything was tuned, the baseline throttles hundreds of times a week
OVERS, QUICK_OVERS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (0.2, 0.4)
CAPPED_MOST = 0.007
EMERGENCY_MINUTES, EMERGENCY_AT = 30, 15 * 60  # in the afternoon
VARIANTS = tuple(Variant(*on) for on in product((False, True), (False, True), (False, True)))
RIVALS: tuple[Rival, ...] = ("static", "row", "slack")
WARM_K = 7.0  # [I] of a hall that saves on cooling: inlets up to 34 C on a summer afternoon
LARGE = {"rows": 20, "servers_of_row": 42}  # with OVER 1,000 servers


@dataclass(frozen=True, slots=True)
class Job:
    part: str
    case: Case
    variant: Variant
    data: str
    lost: str = ""  # in an emergency

    def __str__(self) -> str:
        return f"{self.part}, {self.variant.name} {self.lost}, over {self.case.over:.0%}, seed {self.case.seed}"


def work(job: Job) -> dict[str, Any]:
    events: dict[int, set[Any]] = {}
    if job.lost:
        events = {EMERGENCY_AT: {job.lost}, EMERGENCY_AT + EMERGENCY_MINUTES: set()}
    return World(job.case, load(job.case, Path(job.data)), job.variant, events).run()


@dataclass(frozen=True, slots=True)
class Plan:
    days: int
    overs: tuple[float, ...]
    large: bool

    def jobs(self, seeds: Sequence[int], data: Path) -> list[Job]:
        out = []
        for seed in seeds:
            case = Case(seed=seed, days=self.days, over=OVER)
            out += [Job("ablation", case, variant, str(data)) for variant in VARIANTS]
            out += [Job("rivals", case, Variant(place=True, rival=rival), str(data)) for rival in RIVALS]
            warm = replace(case, warm_k=WARM_K)
            out += [Job("warm", warm, variant, str(data)) for variant in (VARIANTS[0], VARIANTS[-1])]
            day = replace(case, days=1)
            for over in self.overs:
                out += [Job("over", replace(day, over=over), each, str(data)) for each in (VARIANTS[0], VARIANTS[-1])]
            for lost in ("", "ups", "ahu"):
                out += [Job("emergency", day, each, str(data), lost) for each in (VARIANTS[0], VARIANTS[-1])]
            if self.large:
                large = replace(case, days=7, **LARGE)  # type: ignore[arg-type]
                out += [Job("large", large, variant, str(data)) for variant in (VARIANTS[0], VARIANTS[-1])]
        return out


Figures = Mapping[str, Estimate]


def measure(options: Options) -> Found:
    plan = Plan(1, QUICK_OVERS, large=False) if options.quick else Plan(7, OVERS, large=True)
    rows: Rows[Job] = Rows(options.rows, work)
    found = rows.of(plan.jobs(options.seeds, options.data), options.processes)
    grouped: dict[tuple[str, str, str, float], list[dict[str, Any]]] = {}
    for job, row in found:
        grouped.setdefault((job.part, job.variant.name, job.lost, job.case.over), []).append(row)
    told = {key: _estimates(each) for key, each in grouped.items()}
    return Found(_document(told, plan, options), rows.failed)


def _estimates(rows: Sequence[Mapping[str, Any]]) -> Figures:
    return {name: estimate([float(row[name]) for row in rows]) for name in rows[0] if name != "cpu_s"}


# --- the report ---


def _document(told: Mapping[tuple[str, str, str, float], Figures], plan: Plan, options: Options) -> Document:
    ablation = {name: each for (part, name, _, _), each in told.items() if part == "ablation"}
    over = _oversubscription(told)
    data: dict[str, Any] = {name: _plain(each) for name, each in ablation.items()}
    for part in ("rivals", "warm", "large"):
        data[part] = {name: _plain(each) for (at, name, _, _), each in told.items() if at == part}
    data["oversubscription"] = {name: {str(o): share for o, share in points} for name, points in over.items()}
    data["oversubscription_max"] = {name: _most(points) for name, points in over.items()}
    data["emergencies"] = {
        f"{name} {lost or 'calm'}": _plain(each) for (part, name, lost, _), each in told.items() if part == "emergency"
    }
    data["paper"] = PAPER
    sections = [_ablation(ablation, plan), _rivals(told, ablation), _oversubscribed(over), _emergencies(told)]
    return Document("TAPAS on the simulated plant", ABOUT, tuple(sections), _assumed(options), data)


ABOUT = (
    "TAPAS keeps rows, aisles and GPUs within their limits by where it places, routes and configures. Its ablation"
    " again, on our plant: half of the instances opaque tenants, half serving recorded traffic. Read ratios between"
    " variants; the paper's own setting is not public."
)


def _plain(figures: Figures) -> dict[str, Any]:
    return {name: each.mean for name, each in figures.items()} | {
        "ci95": {name: each.half for name, each in figures.items()}
    }


def _ablation(by_name: Mapping[str, Figures], plan: Plan) -> Section:
    none, full = by_name["none"], by_name["all"]
    findings = (
        f"Peak row power {_change(none, full, 'row_power_peak_w')} (paper -23 %), power throttling"
        f" {_change(none, full, 'power_events')} (paper -99 %).",
        f"Highest GPU temperature {_change(none, full, 't_max_c')} in C, {_change(none, full, 't_max_above_inlet_c')}"
        " above the inlet (paper -17 %, base not said).",
        f"Goodput {percent(full['goodput'].mean, 2)} of what was asked, against {percent(none['goodput'].mean, 2)};"
        f" opaque tenants {percent(full['opaque_goodput'].mean, 2)} against {percent(none['opaque_goodput'].mean, 2)};"
        f" mean quality {number(full['quality'].mean, 4)}.",
    )
    title = f"Placement, routing, configuration: 96 servers, {plan.days} day{'s' if plan.days > 1 else ''}"
    return Section("ablation", title, "simulated", findings, (), (_table("Variants", by_name),))


def _rivals(told: Mapping[tuple[str, str, str, float], Figures], ablation: Mapping[str, Figures]) -> Section:
    beside = {f"place, then {name}": each for (part, name, _, _), each in told.items() if part == "rivals"}
    beside["all (ours)"] = ablation["all"]
    warm = {f"{name}, warm hall": each for (part, name, _, _), each in told.items() if part == "warm"}
    large = {f"{name}, 1,000 servers": each for (part, name, _, _), each in told.items() if part == "large"}
    notes = (
        "static: every serving instance at 0.75 of its speed for ever. row: a step slower for a row above 95 % of its"
        " limit, a step faster below 80 %. slack: the slowest speed at which an instance stays 85 % busy. All of them"
        " with our placement; none changes models.",
        f"Warm hall: inlets {WARM_K:.0f} K warmer, where the baseline throttles by heat as well.",
    )
    tables = [_table("Rivals", beside), _table("Where heat binds too", warm)]
    if large:
        tables.append(_table("A week of 1,000 servers", large))
    return Section("rivals", "Beside simpler ways, in a warm hall, and larger", "simulated", (), notes, tuple(tables))


def _oversubscription(told: Mapping[tuple[str, str, str, float], Figures]) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for (part, name, _, over), each in told.items():
        if part == "over":
            found.setdefault(name, []).append((over, each["capped_share"].mean))
    return {name: sorted(points) for name, points in found.items()}


def _most(points: Sequence[tuple[float, float]]) -> float:
    """The largest oversubscription up to which capped time stays below the bound at every step."""
    best = float("nan")
    for over, share in points:
        if share >= CAPPED_MOST:
            break
        best = over
    return best


def _oversubscribed(over: Mapping[str, Sequence[tuple[float, float]]]) -> Section:
    lines = {name: [(100 * at, 100 * share) for at, share in points] for name, points in over.items()}
    chart = drawing.lines(
        "Capped time by oversubscription",
        lines,
        drawing.linear("servers beyond those that power was bought for, %"),
        drawing.linear("row-minutes capped, %"),
    )
    findings = tuple(
        f"{name}: below {percent(CAPPED_MOST, 1)} capped time up to {percent(_most(points))} more servers."
        for name, points in over.items()
    )
    notes = ("Paper: up to 40 % with capped time below about 0.7 % [R].",)
    return Section("oversubscription", "How many more servers", "simulated", findings, notes, (), (chart,))


def _emergencies(told: Mapping[tuple[str, str, str, float], Figures]) -> Section:
    by_name = {
        f"{name}, {lost or 'nothing'} lost": each for (part, name, lost, _), each in told.items() if part == "emergency"
    }
    notes = (f"For {EMERGENCY_MINUTES} minutes of an afternoon: a UPS leaves 75 % of the power, an air handler 90 %.",)
    return Section("emergencies", "A UPS or an air handler lost", "simulated", (), notes, (_table("A day", by_name),))


COLUMNS = (
    "power events",
    "peak row, kW",
    "over row",
    "heat events",
    "max C",
    "goodput",
    "opaque",
    "quality",
    "MJ/unit",
)


def _table(title: str, by_name: Mapping[str, Figures]) -> Table:
    rows = []
    for name, of in by_name.items():
        cells = (
            _with(of["power_events"], 1.0),
            _with(of["row_power_peak_w"], 1e-3),
            percent(of["over_row_share"].mean, 2),
            _with(of["thermal_events"], 1.0),
            _with(of["t_max_c"], 1.0),
            percent(of["goodput"].mean, 2),
            percent(of["opaque_goodput"].mean, 2),
            number(of["quality"].mean, 4),
            number(of["joules_per_unit"].mean * 1e-6, 3),
        )
        rows.append((name, *cells))
    return Table(title, ("variant", *COLUMNS), tuple(rows), "MJ/unit: of all servers, for an instance-minute of work.")


def _with(each: Estimate, scale: float) -> str:
    return (
        f"{number(each.mean * scale)} ± {number(each.half * scale, 2)}" if each.half == each.half else number(each.mean)
    )


def _change(none: Figures, full: Figures, name: str) -> str:
    before, after = none[name].mean, full[name].mean
    return "0 in both" if not before else f"{100 * (after / before - 1):+.1f} %"


def _assumed(options: Options) -> tuple[Assumption, ...]:
    case = Case(over=OVER)
    return (
        Assumption(
            "Frozen before ours was tuned",
            (
                "The baseline (next free place, traffic spread with 10 % of unevenness, full speed) and its setting:"
                f" {asdict(case)}. Rows get 80 % of their servers' measured full power [I].",
                "Thresholds of ours (95 % and 80 % of a limit, a calm minute, ten minutes between reloads, 93 % as the"
                " target) are inferred [I] and were not searched.",
            ),
        ),
        Assumption(
            "What the paper does not give",
            (
                "Layout, limits, traffic, weather, thermal constants, quality and its table of configurations [?]."
                " Ours: libs/headrace/control/constants.py, loadtest/reproduce/tapas_*.py, each number with its tag.",
                "Opaque tenants are synthetic; placement knows their week before. Serving traffic is the Azure traces'"
                f" digitised rate envelopes; weather is TMY3 of Greensboro in July. Traces from {options.data.name}.",
                "An instance has a server of eight GPUs. A capped row slows all in it alike; a GPU at 83 C slows its"
                " server to half speed for a minute.",
            ),
        ),
        Assumption(
            "Not yet here",
            ("Request latencies under the week's caps: the request simulator has no speed that changes yet.",),
        ),
    )


def main(argv: list[str]) -> int:
    return run("tapas", argv, measure)
