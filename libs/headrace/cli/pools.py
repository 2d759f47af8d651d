"""`headrace pools`: which pools a scenario's traffic needs, and whether separating the stages pays.

Offline profiling: of every stage the most load of an instance within the promises, by tensor parallelism and batch; the
best per GPU is taken, as many instances as the busiest five minutes ask. Short simulations confirm each layout.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from headrace.characterize.parts import Parts, read
from headrace.cli.view import Console
from headrace.profiles import ProfileError
from headrace.sizing import choose, compare, fleet
from headrace.sizing.capacity import Capacity, Stage
from headrace.sizing.traffic import Promise, Traffic, busiest, promise_of, traffic_of
from headrace.workload import scenario as scenarios
from headrace.workload.scenario import Scenario, ScenarioError

GPUS = 64
SIMULATED_S = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", help="a TOML file, or a name of loadtest/scenarios: its traffic and promises")
    parser.add_argument("--model", default="", help="the scenario's, unless said")
    parser.add_argument("--gpu", default="a100", help="a100, h100, a10, ...")
    parser.add_argument("--gpus", type=int, default=GPUS, help=f"at most ({GPUS})")
    parser.add_argument("--link", default="infiniband", choices=("nvlink", "infiniband", "ethernet", "pcie"))
    parser.add_argument(
        "--rate", type=float, default=0.0, help="requests a second on average; the scenario's, unless said"
    )
    parser.add_argument("--ttft", type=float, default=0.0, help="seconds; the strictest class's, unless said")
    parser.add_argument("--tbt", type=float, default=0.0, help="seconds between tokens; the strictest class's")
    parser.add_argument("--llm", default="", metavar="FILE", help="your own instance profile (headrace calibrate)")
    parser.add_argument("--encoder", default="", metavar="FILE", help="your own encoder profile")
    parser.add_argument("--policy", default="fcfs", help="of the queue, in the simulations")
    parser.add_argument(
        "--seconds", type=float, default=SIMULATED_S, help="of traffic that each layout is simulated for"
    )
    parser.add_argument("--no-simulation", action="store_true", help="what profiles say alone")
    parser.add_argument("--sweep", action="store_true", help="every parallelism and batch, not the chosen ones alone")
    parser.add_argument("--out", type=Path, help="the scenario with the cheapest fleet, for headrace simulate")


def run(args: argparse.Namespace) -> int:
    console = Console()
    try:
        return _run(args, console)
    except (ScenarioError, ProfileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace, console: Console) -> int:
    scenario = scenarios.read(args.scenario)
    if args.model:
        scenario = replace(scenario, model=args.model)
    if not scenario.model:
        raise ScenarioError(f"{scenario.name} model: is missing; name one with --model")
    parts = read(scenario.model, args.gpu, link=args.link, llm=args.llm, tower=args.encoder)
    traffic, said = traffic_of(scenario, parts.card, args.rate), promise_of(scenario)
    promise = Promise(args.ttft or said.ttft_s, args.tbt or said.tbt_s)
    between = f"{1e3 * promise.tbt_s:.0f} ms between tokens" if promise.tbt_s else "nothing promised between tokens"
    console.plain(f"{scenario.model} on {args.gpu}: {traffic.words}")
    console.plain(f"promised: first token in {promise.ttft_s:g} s, {between}")
    found = choose.sweep(parts, traffic, promise)
    _show_capacities(console, found, args.sweep)
    layouts = choose.layouts(found, traffic, args.gpus)
    _show_initial(console, traffic, found)
    if args.no_simulation:
        _show_layouts(console, layouts)
        best = min(layouts, key=lambda each: (not each.enough, each.gpus))
    else:
        best = _confirm(args, console, scenario, parts, promise, layouts)
    for number, server in enumerate(choose.servers(best), 1):
        left = choose.SERVER_GPUS - sum(gpus for _, gpus in server)
        held = ", ".join(f"{stage} (TP-{gpus})" for stage, gpus in server)
        console.plain(f"server {number}: {held}" + (f"; {left} GPUs left" if left else ""))
    words = fleet.up_words(best, scenario.model)
    if words:
        console.plain(f"on one machine: {words}")
    if args.out is not None:
        _write(args, scenario, parts, best)
        console.plain(f"written: {args.out}; headrace simulate {args.out}")
    return 0


def _show_capacities(console: Console, found: dict[Stage, list[Capacity]], everything: bool) -> None:
    rows = []
    for stage, all_of_them in found.items():
        chosen = choose.best(all_of_them)
        for each in all_of_them if everything else [chosen] if chosen else []:
            rows.append(
                [
                    stage,
                    f"TP-{each.tp}",
                    str(each.batch) if each.batch else "-",
                    f"{each.requests_per_s:.2f}",
                    f"{each.per_gpu:.3f}",
                    f"{1e3 * each.alone_s:.0f}",
                    f"{1e3 * each.tbt_s:.1f}" if each.tbt_s else "-",
                    "chosen" if each is chosen else "",
                ]
            )
        if chosen is None:
            rows.append([stage, "-", "-", "0", "0", "-", "-", "keeps no promise"])
    columns = ("stage", "", "batch", "requests/s", "per GPU", "alone, ms P99", "between tokens, ms", "")
    console.table("most load of an instance within the promises, from profiles", columns, rows)


def _show_initial(console: Console, traffic: Traffic, found: dict[Stage, list[Capacity]]) -> None:
    """ModServe's rule beside ours."""
    encoder = choose.best(found.get("encode", ()))
    if encoder is not None:
        encoders, texts = choose.initial(traffic, encoder.alone_s / encoder.batch)
        console.note(f"ModServe's initial sizing would begin with {encoders} encoders and {texts} LLM instances")


def _show_layouts(console: Console, layouts: list[choose.Layout]) -> None:
    rows = [[each.name, _pools(each), str(each.gpus), "" if each.enough else "too few GPUs"] for each in layouts]
    console.table("layouts, from profiles", ("", "pools", "GPUs", ""), rows)


def _pools(layout: choose.Layout) -> str:
    return " + ".join(f"{pool.count} x {pool.chosen.stage} TP-{pool.chosen.tp}" for pool in layout.pools)


def _confirm(
    args: argparse.Namespace,
    console: Console,
    scenario: Scenario,
    parts: Parts,
    promise: Promise,
    layouts: list[choose.Layout],
) -> choose.Layout:
    times = busiest(scenario, parts.card, args.seconds, args.rate)
    measure = compare.measuring(scenario, times, parts, promise, args.link, args.policy, scenario.seed)
    found = [compare.settle(layout, measure, args.gpus) for layout in layouts]
    best = compare.cheapest(found)
    rows = [
        [
            each.layout.name,
            _pools(each.layout),
            str(each.layout.gpus),
            f"{100 * each.kept:.1f} %",
            f"{each.ttft_p99_s:.2f}",
            f"{1e3 * each.tbt_p99_s:.1f}",
            f"{each.gpu_s_per_good:.2f}",
            "cheapest" if each is best else "" if each.keeps else "does not keep them",
        ]
        for each in found
    ]
    columns = ("", "pools", "GPUs", "kept", "TTFT P99, s", "tokens P99, ms", "GPU s a good one", "")
    requests = " and ".join(str(len(each)) for each in times)
    console.table(f"layouts, simulated for {args.seconds:.0f} s at the busiest ({requests} requests)", columns, rows)
    return best.layout


def _write(args: argparse.Namespace, scenario: Scenario, parts: Parts, best: choose.Layout) -> None:
    text = scenarios.find(args.scenario).read_text(encoding="utf-8")
    about = f"By `headrace pools {args.scenario}`: {best.name}, {best.gpus} GPUs."
    args.out.write_text(fleet.with_fleet(text, fleet.fleet_of(best, parts, args.link), about), encoding="utf-8")
