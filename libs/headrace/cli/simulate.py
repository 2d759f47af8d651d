"""`headrace simulate`: policies on a scenario or a recorded trace, in simulated time; a table and one HTML page."""

import argparse
import json
import math
import shutil
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from headrace.core.errors import HeadraceError
from headrace.profiles import ProfileError
from headrace.report import compare, page, table
from headrace.report.assumptions import Assumption, assumptions, flat
from headrace.report.chart import Mark
from headrace.report.digest import Digest, digest
from headrace.report.progress import Bar
from headrace.report.provenance import Provenance, plain, provenance
from headrace.sim.sweep import Job, Outcome, Simulating, changed, grid, prepare, sweep
from headrace.workload import scenario as scenarios
from headrace.workload.autoscale import Autoscale
from headrace.workload.scenario import Scenario, ScenarioError
from headrace.workload.traces import FORMATS, TraceError

QUICK_S = 120.0  # of traffic
TRACE_S = 30 * 86_400.0  # of a trace at most, unless --set duration_s says more
# Where a trace is run that comes without a fleet: one node's worth of LLMs and the encoders that keep them fed.
MODEL = "llama-3.2-11b-vision"
POOLS = ("name=encoder,stages=encode,gpu=a100,count=4", "name=llm,stages=prefill+decode,gpu=a100,tp=4,count=4")
_WIDTH_UNKNOWN = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", nargs="?", help="a TOML file, or a name of loadtest/scenarios")
    parser.add_argument("--trace", type=Path, help="instead of a scenario: a recorded trace")
    parser.add_argument("--format", choices=tuple(FORMATS), help="of the trace")
    parser.add_argument(
        "--pool", action="append", default=[], metavar="KEY=VALUE,...", help=f"of the trace's fleet, such as {POOLS[1]}"
    )
    parser.add_argument("--model", default=MODEL, help="that the trace's requests are for")
    parser.add_argument("--policy", action="append", default=[], help="once for each that is to be compared")
    parser.add_argument(
        "--autoscale",
        action="append",
        default=[],
        metavar="NAME",
        help="scale the fleet by this policy (published, headrace), or off; once for each that is to be compared",
    )
    parser.add_argument("--seed", action="extend", nargs="+", type=int, default=[], help="several give intervals")
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="change the scenario"
    )
    parser.add_argument("--jobs", type=int, default=0, help="processes; as many as there are cores, unless said")
    parser.add_argument("--report", type=Path, help="the HTML page; <scenario>.html, unless said")
    parser.add_argument("--no-report", action="store_true", help="the table alone")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line; all else to stderr")
    parser.add_argument("--quick", action="store_true", help=f"one seed, the first {QUICK_S:.0f} s of traffic")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What was asked for, read and checked."""

    scenario: Scenario
    assumptions: tuple[Assumption, ...]
    jobs: tuple[Job, ...]
    provenance: Provenance


def run(args: argparse.Namespace) -> int:
    out = sys.stderr if args.json else sys.stdout
    try:
        plan = _plan(args)
    except (ScenarioError, ProfileError, TraceError, HeadraceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{plan.scenario.name}: {plan.scenario.about}", file=sys.stderr)
    with Bar(len(plan.jobs)) as bar:
        outcomes = sweep(plan.jobs, Simulating(digest), processes=args.jobs, seen=bar.seen, going=bar.going)
    failures = tuple(f"{outcome.job}: {outcome.error}" for outcome in outcomes if outcome.error)
    compared = compare.compare([outcome.value for outcome in outcomes if outcome.value is not None])
    if compared:
        print("", *table.lines(compared, _width(out)), sep="\n", file=out)
        if not args.no_report:
            _write_page(args.report or Path(f"{plan.scenario.name}.html"), plan, compared, failures, out)
    _tell(outcomes)
    if args.json:
        print(json.dumps(_object(plan, compared, failures)), flush=True)
    return 1 if failures else 0


def _plan(args: argparse.Namespace) -> _Plan:
    overrides = dict(_pair(word, "--set") for word in args.set)
    if args.trace is not None:
        scenario, text = _traced(args, overrides)
    elif args.scenario:
        scenario, text = prepare(args.scenario, overrides), scenarios.find(args.scenario).read_text()
    else:
        raise ScenarioError("name a scenario (a TOML file), or a trace: --trace FILE --format FORMAT")
    if scenario.fleet is None:
        raise ScenarioError(f"{scenario.name} [fleet]: is missing: it is for a live mesh; a simulation needs pools")
    if args.quick:
        scenario = scenario.changed(duration_s=min(scenario.duration_s, QUICK_S))
    seeds = args.seed or [scenario.seed]
    jobs = grid(_scaled(scenario, args.autoscale), _policies(args.policy), seeds[:1] if args.quick else seeds)
    told = provenance(["headrace", *sys.argv[1:]], list(dict.fromkeys(job.seed for job in jobs)))
    return _Plan(scenario, assumptions(scenario, text, overrides), tuple(jobs), told)


def _traced(args: argparse.Namespace, overrides: dict[str, Any]) -> tuple[Scenario, str]:
    """The scenario that a trace and a fleet make, and its text."""
    if args.scenario:
        raise ScenarioError(f"a scenario ({args.scenario}) or a trace, not both")
    if args.format is None:
        raise ScenarioError(f"--format is missing: which of {', '.join(FORMATS)} is {args.trace.name}?")
    raw = {
        "about": f"{args.trace.name}, a trace in the format of {args.format}",
        "duration_s": TRACE_S,
        "model": args.model,
        "workload": {"kind": "trace", "file": str(args.trace), "format": args.format},
        "fleet": {"pools": [_pool(words) for words in args.pool or POOLS]},
    }
    name = args.trace.name.partition(".")[0]
    scenario = scenarios.parse(changed(raw, overrides), Path(f"{name}.toml"))
    if "duration_s" not in overrides:
        last_s = max((arrival.at_s for arrival in scenario.arrivals()), default=0.0)
        scenario = scenario.changed(duration_s=float(math.floor(last_s) + 1))
        raw["duration_s"] = scenario.duration_s
    return scenario, "\n".join(flat(raw))


def _policies(asked: list[str]) -> list[str]:
    from headrace.sim.policy import POLICIES, Policy, PolicyError  # the core: not needed for --help

    for name in asked:
        try:
            Policy.of(name)
        except PolicyError as error:
            raise ScenarioError(f"--policy: {error}") from error
    return list(dict.fromkeys(asked)) or [POLICIES[0]]


def _scaled(scenario: Scenario, asked: list[str]) -> list[Scenario]:
    """The scenario with each autoscaling policy that is asked for; with its own, if none is."""
    table = scenario.autoscale or Autoscale()
    try:
        tables = {name: None if name == "off" else replace(table, policy=name) for name in asked}
        for each in tables.values():
            if each is not None and scenario.fleet is not None:
                each.check(scenario.fleet)
    except ValueError as error:
        raise ScenarioError(f"--autoscale: {error}; or off") from error
    return [replace(scenario, autoscale=each) for each in tables.values()] or [scenario]


def _pool(words: str) -> dict[str, Any]:
    pool = dict(_pair(word, "--pool") for word in words.split(","))
    if isinstance(pool.get("stages"), str):
        pool["stages"] = pool["stages"].split("+")
    return pool


def _pair(word: str, option: str) -> tuple[str, Any]:
    """`key=value`; what is no TOML value is a text, so that names need no quotes."""
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise ScenarioError(f"{option} {word}: write key=value, such as fleet.pools.llm.count=4")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _write_page(
    path: Path, plan: _Plan, compared: tuple[compare.Compared, ...], failures: tuple[str, ...], out: TextIO
) -> None:
    marks = tuple(Mark(each.at_s, f"{each.kind} {each.worker}".strip()) for each in plan.scenario.incidents)
    report = page.Report(
        plan.scenario.name, plan.scenario.about, plan.provenance, compared, plan.assumptions, marks, failures
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.html(report), encoding="utf-8")
    print(f"\nreport: {path}", file=out)


def _tell(outcomes: Sequence[Outcome[Job, Digest]]) -> None:
    """Every failure once, and where in the code it happened unless it says all itself."""
    for outcome in outcomes:
        if outcome.error:
            print(f"{outcome.trace}error: {outcome.job}: {outcome.error}", file=sys.stderr)


def _object(plan: _Plan, compared: tuple[compare.Compared, ...], failures: tuple[str, ...]) -> dict[str, Any]:
    policies = {each.policy: plain(compare.figures(each)) for each in compared}
    return {"scenario": plan.scenario.name, **plan.provenance.head(), "policies": policies, "failures": list(failures)}


def _width(out: TextIO) -> int:
    return shutil.get_terminal_size((_WIDTH_UNKNOWN, 24)).columns if out.isatty() else _WIDTH_UNKNOWN
