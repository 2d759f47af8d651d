"""`headrace governor learn-policy`: a budget policy learnt offline from a trace or a scenario, as a file to publish."""

import argparse
import json
import sys
import time
from pathlib import Path

from headrace.budgets.plan import MODEL, POOLS, Plan
from headrace.workload.traces import FORMATS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the policy's file: HEADRACE_BUDGET_POLICY_FILE")
    parser.add_argument("--scenario", default="", help="whose traffic: a TOML file, or a name of loadtest/scenarios")
    parser.add_argument("--trace", type=Path, help="or a recorded trace")
    parser.add_argument("--format", choices=tuple(FORMATS), default="azure-llm", help="of traces")
    parser.add_argument("--pools", default=POOLS, help=f"GPUs of each stage of a row: {POOLS}")
    parser.add_argument(
        "--tenant",
        action="append",
        default=[],
        metavar="IDS=TRACE,TTFT_S,TBT_S",
        help="a player of its own instead of stages, once for each: its workers' ids with *, its trace, its promises",
    )
    parser.add_argument("--model", default=MODEL, help=f"whose profile says what a request costs: {MODEL}")
    parser.add_argument("--gpu", default="h100")
    parser.add_argument("--budget", type=float, default=0.67, help="of the row, beside all its devices' own limits")
    parser.add_argument("--load", type=float, default=0.7, help="mean load that pools are sized for")
    parser.add_argument("--kappa", type=float, default=0.5, help="of a reward: what all do together")
    parser.add_argument("--price", type=float, default=0.1, help="of a player's own watts at full speed")
    parser.add_argument("--epoch-s", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1, help="that all players share")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    from headrace.budgets.plans import facts_of
    from headrace.core.budget.learning import learn
    from headrace.core.budget.monitor import gains
    from headrace.core.errors import HeadraceError
    from headrace.profiles import ProfileError
    from headrace.workload.scenario import ScenarioError
    from headrace.workload.traces import TraceError

    began = time.perf_counter()
    try:
        facts = facts_of(_plan(args))
        policy = learn(facts, args.seed, epoch_s=args.epoch_s)
        args.out.write_bytes(policy.to_bytes())
    except (HeadraceError, ProfileError, ScenarioError, TraceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = gains(policy, facts)
    by_player = dict(zip(facts.names, found.by_player, strict=True))
    told = {
        "out": str(args.out),
        "states": facts.states,
        "gap": found.gap,
        "gains": by_player,
        "seed": args.seed,
        "seconds": time.perf_counter() - began,
    }
    print(
        f"{args.out}: {len(facts.players)} players, {facts.states} states, horizon {facts.horizon}; "
        f"nobody gains more than {found.gap:.4f} of its work over it by leaving",
        file=sys.stderr if args.json else sys.stdout,
    )
    if args.json:
        print(json.dumps(told), flush=True)
    return 0


def _plan(args: argparse.Namespace) -> Plan:
    return Plan(
        pools=args.pools,
        tenants=tuple(args.tenant),
        scenario=args.scenario,
        trace=args.trace,
        format=args.format,
        model=args.model,
        gpu=args.gpu,
        budget=args.budget,
        load=args.load,
        kappa=args.kappa,
        price=args.price,
        epoch_s=args.epoch_s,
        seed=args.seed,
    )
