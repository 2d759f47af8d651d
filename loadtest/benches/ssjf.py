"""What SSJF (arXiv 2404.08509) gains: as published, without what favours it there, and in a steady state.

published: the paper's simulator rebuilt, 50 jobs at 3/s; biases, reruns and sweep: its gains bias by bias, beside the
released code's, and over its rates. fair_07, fair_09: steady load, the queue manager's own orders, equal waits;
mode continuous_engine: the mesh's simulator, with a cost for batches and limited KV. Then: bursts, overload, where it
does not help, ageing. The policy `ssjf` has the released three-class predictions, `ssjf_multi_cls` the paper's best;
in the section `ours` it has this project's own predictor's, of real answers that it has not learnt from.
"""

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from headrace.predictor.model import lacking
from headrace.report.provenance import plain
from loadtest.benches import ssjf_biases, ssjf_fair, ssjf_ours
from loadtest.benches.report import finish, say
from loadtest.benches.ssjf_engine import engine
from loadtest.benches.ssjf_lengths import CLS, MULTI_CLS, Lengths, PairsError, find, released, tabled
from loadtest.benches.ssjf_paper import PAPER

SEEDS, QUICK_SEEDS = 20, 3
ENGINE_SEEDS, QUICK_ENGINE_SEEDS = 20, 2  # a run of the simulator takes a second
QUICK_BIAS_RUNS = 5
QUICK_SIDE_SEEDS = 2
QUICK_EVERY = 8  # held-out answers to one that is asked about
QUICK_SWEEP_RPS = (1, 3, 10)
BURSTS_CV = 2.0  # of the gaps, as the paper's gamma arrivals [C]


def measure(lengths: Lengths, *, quick: bool) -> dict[str, Any]:
    seeds = range(QUICK_SEEDS if quick else SEEDS)
    say("as published ...")
    means, around = ssjf_biases.published(lengths)
    found: dict[str, Any] = {"published": means, "ci95": {"published": around}, "gains": {}}
    found["sweep"] = ssjf_biases.sweep(lengths, QUICK_SWEEP_RPS if quick else ssjf_biases.SWEEP_RPS)
    found["reruns"] = ssjf_biases.reruns(lengths, QUICK_BIAS_RUNS if quick else ssjf_biases.RUNS)
    say("bias by bias ...")
    found["biases"] = ssjf_biases.biases(lengths, QUICK_BIAS_RUNS if quick else ssjf_biases.RUNS)
    say("steady loads ...")
    found |= {"overload": {}, "no_help": {}, "ageing": {}}
    ssjf_fair.put(found, "fair_07", ssjf_fair.loaded(lengths, seeds, 0.7))
    ssjf_fair.put(found, "fair_09", ssjf_fair.loaded(lengths, seeds, 0.9))
    ssjf_fair.put(found, "bursts_09", ssjf_fair.loaded(lengths, seeds, 0.9, BURSTS_CV))
    side_seeds = seeds[:QUICK_SIDE_SEEDS] if quick else seeds
    ssjf_fair.put(found, "overload", ssjf_fair.overloaded(lengths, side_seeds))
    ssjf_fair.put(found, "no_help", ssjf_fair.no_help(lengths, side_seeds))
    ssjf_fair.put(found, "ageing", {"none": ssjf_fair.ageing(lengths, side_seeds)})
    say("the mesh's simulator ...")
    engine_seeds = range(QUICK_ENGINE_SEEDS if quick else ENGINE_SEEDS)
    more_seeds = engine_seeds[:1] if quick else engine_seeds
    served = engine(lengths, engine_seeds, more_seeds, bursts=not quick)
    places = {"07": "fair_07", "09": "fair_09", "09_bursts": "bursts_09", "09_room": "no_help"}
    for load, summary in served["loads"].items():
        ssjf_fair.put(found, places[load], {"engine_room" if load == "09_room" else "continuous_engine": summary})
    if missing := lacking():
        say(f"without this project's own predictor: {missing}")
    else:
        say("with this project's own predictor ...")
        found["ours"] = ssjf_ours.measure(seeds, QUICK_EVERY if quick else 1)
    found["engine"] = served["settings"] | {"seeds": len(engine_seeds), "seeds_but_at_09": len(more_seeds)}
    return found | {"predictors": predictors(lengths), "survives": survives(found), "paper": PAPER}


def predictors(lengths: Lengths) -> dict[str, Any]:
    """How good the predictions are with which jobs were drawn, beside the released ones [M]."""
    drawn = lengths.draw(np.random.default_rng(0), 20_000)
    tau = {policy: float(kendalltau(drawn.tokens, said)[0]) for policy, said in drawn.classes.items()}
    names = {"ssjf": CLS if lengths.said is not None else MULTI_CLS, "ssjf_multi_cls": MULTI_CLS}
    return {
        "source": lengths.source,
        "kendall_tau": tau,
        "released_kendall_tau": {policy: names[policy]["kendall_tau"] for policy in tau},
    }


def survives(found: Mapping[str, Any]) -> dict[str, Any]:
    """By mode, of `ssjf` against `fcfs`: changes as published, and with what interval in a steady state."""
    out: dict[str, Any] = {}
    for mode in found["fair_09"]:
        each = {name: found["gains"][name][mode]["ssjf"] for name in ("fair_07", "fair_09")}
        told = {f"{name}_{figure}": of[figure] for name, of in each.items() for figure in ("jct_mean_s", "jct_p99_s")}
        told["fair_09_throughput_ratio"] = 1 + each["fair_09"]["throughput_rps"][0]
        if mode in found["published"]:
            ours, base = found["published"][mode]["ssjf"], found["published"][mode]["fcfs"]
            told["published_jct_mean_s"] = ours["jct_mean_s"] / base["jct_mean_s"] - 1
            told["published_throughput_ratio"] = ours["throughput_rps"] / base["throughput_rps"]
        out[mode] = told
    return out


HEAD = f"{'':48}{'mean s':>9}{'p50 s':>8}{'p99 s':>8}{'wait':>8}{'slow-':>7}{'jobs/s':>8}   against fcfs: mean, p99"
SECTIONS = ("published", "fair_07", "fair_09", "bursts_09", "overload", "no_help", "ageing")


def table(found: Mapping[str, Any]) -> list[str]:
    lines = [f"{'':48}{'JCT':>9}{'JCT':>8}{'JCT':>8}{'max':>8}{'down':>7}", HEAD]
    for section in SECTIONS:
        lines += _section_lines(section, section, found)
    for name, each in found.get("ours", {}).items():
        lines.append(f"\n{each['answers']} answers ({name}), this project's predictor: tau {each['kendall_tau']:.3f}")
        for section in ("published", *ssjf_ours.LOADS):
            lines += _section_lines(f"ours {section}", section, each)
    return [*lines, "", *_bias_lines(found["biases"]), "", *_rerun_lines(found["reruns"])]


def _section_lines(label: str, section: str, found: Mapping[str, Any]) -> list[str]:
    lines = []
    for mode, by_policy in found[section].items():
        gains = found["gains"].get(section, {}).get(mode, {})
        lines += [_row(f"{label} {mode} {name}", of, gains.get(name), by_policy) for name, of in by_policy.items()]
    return lines


def _row(label: str, of: Mapping[str, float], gain: Mapping[str, list[float]] | None, beside: Mapping[str, Any]) -> str:
    names = ("jct_mean_s", "jct_p50_s", "jct_p99_s", "wait_max_s", "slowdown_mean")
    cells = f"{of[names[0]]:9.2f}" + "".join(f"{of[name]:8.2f}" for name in names[1:4])
    cells += f"{of[names[4]]:7.1f}{of['throughput_rps']:8.3f}"
    if gain is not None:
        changes = ", ".join(_interval(*gain[name]) for name in ("jct_mean_s", "jct_p99_s"))
        return f"{label:48}{cells}   {changes}"
    base = beside["fcfs"]
    if of is base:
        return f"{label:48}{cells}"
    changes = ", ".join(f"{of[name] / base[name] - 1:+.1%}" for name in ("jct_mean_s", "jct_p99_s"))
    return f"{label:48}{cells}   {changes}, {of['throughput_rps'] / base['throughput_rps']:.2f}x"


def _interval(middle: float, half: float) -> str:
    return f"{middle:+.1%}" + (f" ± {half:.1%}" if math.isfinite(half) else "")


def _bias_lines(biases: Mapping[str, Any]) -> list[str]:
    lines = ["mean JCT against fcfs, and throughput at a quarter of the jobs, without each bias alone"]
    for setting, each in biases.items():
        for name, of in {"as released": each["as_released"], **each["without"]}.items():
            cells = "".join(
                f"  {policy} {of[policy]['jct_change']:+6.1%} {of[policy]['throughput_ratio']:5.2f}x"
                for policy in ("ssjf", "oracle", "random")
            )
            lines.append(f"{setting:28}{name:22}{cells}")
    return lines


def _rerun_lines(reruns: Mapping[str, Any]) -> list[str]:
    lines = ["mean JCT against fcfs: here (the released code run again)"]
    for setting, both in reruns.items():
        cells = "".join(
            f"  {policy} {both['here'][policy]['jct_change']:+6.1%} ({of['jct_change']:+6.1%})"
            for policy, of in both["released_code"].items()
            if policy in both["here"]
        )
        lines.append(f"{setting:40}{cells}")
    return lines


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench ssjf", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds instead of {SEEDS}: under 60 s")
    parser.add_argument("--data", type=Path, default=None, help="the released predictions (CSV, .gz or plain)")
    args = parser.parse_args(argv)
    path = args.data or find()
    if args.data is None and not path.is_file():
        say(f"no released predictions at {path}: drawing from the table of the five-class predictor instead")
        lengths = tabled()
    else:
        try:
            lengths = released(path)
        except PairsError as error:
            say(str(error))
            return 1
    found = measure(lengths, quick=args.quick)
    for line in table(found):
        say(line)
    if args.json:
        finish("ssjf", argv, list(range(QUICK_SEEDS if args.quick else SEEDS)), plain(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
