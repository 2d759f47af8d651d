"""The sections of SSJF's report, from the figures of `headrace bench ssjf`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.characterize import drawing
from headrace.characterize.document import Figure, Section, Table, number
from headrace.report.compare import Estimate
from loadtest.reproduce.bars import bars

Found = Mapping[str, Any]

MODES = {
    "none": "no batching",
    "dynamic": "dynamic batches of 4",
    "continuous": "continuous, 4 ideal slots",
    "continuous_engine": "continuous, a modelled A100",
}
POLICIES = {
    "ssjf": "SSJF, three classes",
    "ssjf_multi_cls": "SSJF, five classes",
    "oracle": "true lengths",
    "random": "random lengths",
}
BIASES = {
    "fcfs_waits_alone": "FCFS alone waits 10 s for a full batch",
    "guard_knows_true": "the ageing guard reads true lengths",
    "waits_credited_whole": "late comers are credited a whole interval",
    "gaps_sorted": "gamma gaps are sorted: the burst comes first",
    "whole_seconds": "Poisson arrivals fall on full seconds",
    "last_job_dropped": "the last job may be dropped",
    "all_of_these": "all of the above",
    "fifty_jobs": "runs of 50 jobs (400 instead)",
}
NOTABLE = 0.1  # of a gain, that a bias takes along
LOADS = {"fair_07": "fair, utilisation 0.7", "fair_09": "fair, utilisation 0.9"}


def all_of(found: Found) -> tuple[Section, ...]:
    return (_beside(found), _published(found), _fair(found), _biases(found), _survives(found), _rests(found))


# --- beside the paper ---


_BESIDE = (
    "mode, policy",
    "the paper: JCT",
    "published setting",
    "fair, 0.7",
    "fair, 0.9",
    "the paper: jobs/s",
    "published, at 25 %",
    "published, whole run",
    "fair, 0.9: jobs/s",
)


def _beside(found: Found) -> Section:
    paper = found["paper"]
    rows = [_beside_row(found, mode, policy) for mode in found["published"] for policy in _policies(found, mode)]
    low, high = (change(value) for value in paper["jct_change"])
    factors = "{} to {} x".format(*paper["throughput_ratio"])
    best = [found["sweep"][mode].get("ssjf_multi_cls", found["sweep"][mode]["ssjf"]) for mode in found["sweep"]]
    reached = min(each["jct_change"][0] for each in best)
    fastest = max(each["throughput_ratio"][1] for each in best)
    return Section(
        "beside",
        "Beside the paper",
        "simulated",
        findings=(
            f"The paper: mean job completion time {high} to {low}, throughput {factors} of FCFS, over all batching"
            f" modes [A]. Here, over the same rates, the best of the published predictors comes to {change(reached)}"
            f" and {fastest:.2f} x.",
            "In a steady state, with every policy treated alike, throughput is that of FCFS, and the mean changes by"
            f" {_span(found, 'fair_07', 'ssjf')} at utilisation 0.7 and {_span(found, 'fair_09', 'ssjf')} at 0.9.",
        ),
        notes=(
            "Published: the released simulator rebuilt from its description, 50 jobs at 3/s, batches of four,"
            " throughput when a quarter of the jobs have ended. [A] the paper's abstract; which settings its range"
            " comes from is not told there.",
            f"Lengths: {found['predictors']['source']} of Vicuna-13B; the three-class predictor's Kendall tau is"
            f" {found['predictors']['kendall_tau']['ssjf']:.3f}.",
        ),
        tables=(
            Table(
                "Against FCFS: mean JCT, and throughput",
                _BESIDE,
                tuple(rows),
                "Fair: changes in pairs of the same seed, with 95 % intervals.",
            ),
        ),
        figures=(_gains_chart(found),),
    )


def _beside_row(found: Found, mode: str, policy: str) -> tuple[str, ...]:
    of, base = found["published"][mode][policy], found["published"][mode]["fcfs"]
    told = policy.startswith("ssjf")
    low, high = found["paper"]["jct_change"]
    factors = found["paper"]["throughput_ratio"]
    return (
        f"{MODES[mode]}: {POLICIES[policy]}",
        f"{change(high)} to {change(low)}" if told else "–",
        change(of["jct_mean_s"] / base["jct_mean_s"] - 1),
        *(interval(found["gains"][load][mode][policy]["jct_mean_s"]) for load in LOADS),
        f"{factors[0]} to {factors[1]} x" if told else "–",
        f"{of['throughput_rps'] / base['throughput_rps']:.2f} x",
        f"{of['throughput_all_rps'] / base['throughput_all_rps']:.2f} x",
        f"{1 + found['gains']['fair_09'][mode][policy]['throughput_rps'][0]:.3f} x",
    )


def _gains_chart(found: Found) -> Figure:
    groups: dict[str, list[tuple[str, Estimate]]] = {}
    for mode in found["fair_09"]:
        rows = []
        if mode in found["published"]:
            each = found["published"][mode]
            rows.append(("as published", Estimate(each["ssjf"]["jct_mean_s"] / each["fcfs"]["jct_mean_s"] - 1)))
        rows += [(told, Estimate(*found["gains"][load][mode]["ssjf"]["jct_mean_s"])) for load, told in LOADS.items()]
        groups[MODES[mode]] = rows
    return bars("Mean JCT of SSJF against FCFS", groups, "%", 100.0)


# --- as published ---


def _published(found: Found) -> Section:
    rates = sorted({float(rate) for rate in found["sweep"]["none"]["ssjf"]["by_rate"]})
    return Section(
        "published",
        "As published",
        "simulated",
        findings=tuple(_rerun_finding(found["reruns"])),
        notes=(
            f"Rates of {number(rates[0])} to {number(rates[-1])} jobs/s; a job takes 0.1 s and 20 ms a token, a batch"
            " no more than its longest [C].",
        ),
        tables=(_jct_table(found, "published", "Job completion times in the published setting"), _reruns(found)),
        figures=tuple(_sweep_chart(found, mode, key) for key in _SWEPT for mode in found["sweep"]),
    )


_SWEPT = {"jct_change": ("Mean JCT of FCFS's", 1.0), "throughput_ratio": ("Throughput at 25 % of the jobs", 0.0)}


def _sweep_chart(found: Found, mode: str, key: str) -> Figure:
    title, plus = _SWEPT[key]
    series = {
        POLICIES[policy]: [(float(rate), plus + each[key]) for rate, each in by_policy["by_rate"].items()]
        for policy, by_policy in found["sweep"][mode].items()
        if policy in POLICIES
    }
    label = "of FCFS's mean JCT" if key == "jct_change" else "of FCFS's throughput"
    return drawing.lines(f"{title}, {MODES[mode]}", series, drawing.linear("jobs/s"), drawing.linear(label))


def _reruns(found: Found) -> Table:
    policies = ("oracle", "ssjf_multi_cls", "ssjf", "random")
    rows = []
    for setting, both in found["reruns"].items():
        cells = []
        for policy in policies:
            here, there = both["here"].get(policy), both["released_code"].get(policy)
            cells.append(f"{change(here['jct_change'])} ({change(there['jct_change'])})" if here and there else "–")
        rows.append((setting, *cells))
    return Table(
        "Mean JCT against FCFS here, and in a run of the released code [M]",
        ("setting", *(POLICIES[policy] for policy in policies)),
        tuple(rows),
        "The released code was run once for each setting; five-class predictions here are drawn from a table of the"
        " released ones.",
    )


def _rerun_finding(reruns: Found) -> list[str]:
    apart = [
        abs(both["here"][policy]["jct_change"] - of["jct_change"])
        for both in reruns.values()
        for policy, of in both["released_code"].items()
        if policy in both["here"]
    ]
    return [
        f"The rebuilt simulator stays within {100 * max(apart):.0f} points of the released code's own changes in"
        f" {len(reruns)} settings; {100 * sum(apart) / len(apart):.1f} points on average."
    ]


# --- fairly ---


def _fair(found: Found) -> Section:
    worst = max(each["ssjf"]["jct_p99_s"][0] for each in found["gains"]["fair_09"].values())
    return Section(
        "fair",
        "Fairly, in a steady state",
        "simulated",
        findings=(
            f"The tail pays: p99 of SSJF is up to {change(worst)} at utilisation 0.9.",
            f"Random lengths save nothing ({_span(found, 'fair_09', 'random')} of the mean at 0.9): what SSJF saves"
            " comes from its predictions.",
        ),
        notes=(
            "500 jobs to warm up and 2,000 measured, renewal arrivals, equal batch waits; the order is the live"
            " queue's `ssjf`, which lets 100 predicted tokens be overtaken for 10 s and no longer.",
            "The modelled A100: Vicuna-13B with the KV memory that 40 GB leave ({} sequences), {:.2f} requests/s at"
            " most under FCFS.".format(found["engine"]["kv_sequences"], found["engine"]["capacity_rps"]),
        ),
        tables=tuple(_jct_table(found, load, f"Job completion times: {told}") for load, told in LOADS.items()),
        figures=tuple(_fair_chart(found, load, told) for load, told in LOADS.items()),
    )


def _fair_chart(found: Found, load: str, told: str) -> Figure:
    groups = {
        MODES[mode]: [(POLICIES[name], Estimate(*gains[name]["jct_mean_s"])) for name in POLICIES if name in gains]
        for mode, gains in found["gains"][load].items()
    }
    return bars(f"Mean JCT against FCFS: {told}", groups, "%", 100.0)


def _jct_table(found: Found, section: str, title: str) -> Table:
    rows = []
    for mode, by_policy in found[section].items():
        for policy in ("fcfs", *POLICIES):
            if (of := by_policy.get(policy)) is not None:
                half = found["ci95"][section][mode][policy]["jct_mean_s"]
                mean = f"{of['jct_mean_s']:.2f}" + (f" ± {half:.2f}" if math.isfinite(half) else "")
                cells = (f"{of[name]:.2f}" for name in ("jct_p50_s", "jct_p99_s", "wait_max_s", "slowdown_mean"))
                name = f"{MODES[mode]}: {POLICIES.get(policy, 'FCFS')}"
                rows.append((name, mean, *cells, f"{of['throughput_rps']:.3f}"))
    columns = ("mode, policy", "JCT mean, s", "p50, s", "p99, s", "longest wait, s", "slowdown", "jobs/s")
    return Table(title, columns, tuple(rows))


# --- biases ---


def _biases(found: Found) -> Section:
    notable = []
    for setting, each in found["biases"].items():
        shares = {name: of["ssjf"]["jct_share"] for name, of in each["without"].items()}
        known = {name: share for name, share in shares.items() if math.isfinite(share) and name != "all_of_these"}
        if known:
            name = max(known, key=lambda key: known[key])
            told = f"most goes with “{BIASES[name]}”, {100 * known[name]:.0f} % of the JCT gain"
            notable.append(f"{setting}: {told if known[name] > NOTABLE else 'no bias alone carries the JCT gain'}.")
    return Section(
        "biases",
        "What favours SSJF in the released simulator, one at a time",
        "simulated",
        findings=tuple(notable),
        notes=(
            "Each bias is taken away alone, all else as released. The throughput's bias is its definition: completions"
            " a second when a quarter of the jobs have ended, and serving short jobs first is what raises that.",
        ),
        tables=tuple(_bias_table(setting, each) for setting, each in found["biases"].items()),
    )


def _bias_table(setting: str, each: Found) -> Table:
    rows = [_bias_row("as released", each["as_released"])]
    rows += [_bias_row(BIASES[name], of) for name, of in each["without"].items()]
    columns = ("without", "SSJF: JCT", "share of the gain", "jobs/s at 25 %", "whole run", "true lengths", "random")
    return Table(setting, columns, tuple(rows))


def _bias_row(name: str, of: Found) -> tuple[str, ...]:
    ours, share = of["ssjf"], of["ssjf"].get("jct_share", math.nan)
    return (
        name,
        change(ours["jct_change"]),
        f"{100 * share:+.0f} %" if math.isfinite(share) else "–",
        f"{ours['throughput_ratio']:.2f} x",
        f"{ours['throughput_all_ratio']:.2f} x",
        change(of["oracle"]["jct_change"]),
        change(of["random"]["jct_change"]),
    )


# --- what is left ---


def _survives(found: Found) -> Section:
    rows = []
    for mode, told in found["survives"].items():
        published = told.get("published_jct_mean_s", math.nan)
        kept = told["fair_09_jct_mean_s"][0] / published if math.isfinite(published) and published else math.nan
        rows.append(
            (
                MODES[mode],
                change(published) if math.isfinite(published) else "–",
                *(interval(told[f"{load}_jct_mean_s"]) for load in LOADS),
                f"{100 * kept:.0f} %" if math.isfinite(kept) else "–",
                interval(told["fair_09_jct_p99_s"]),
                f"{told['fair_09_throughput_ratio']:.3f} x",
            )
        )
    ageing = found["gains"]["ageing"]["none"]
    columns = ("mode", "published", "fair, 0.7", "fair, 0.9", "left at 0.9", "p99 at 0.9", "jobs/s at 0.9")
    return Section(
        "survives",
        "What survives, and why",
        "simulated",
        findings=(
            "Short jobs first moves waiting from many short answers to few long ones: the mean falls while there is a"
            " line to reorder, throughput cannot, and somebody pays at the tail.",
            "On an engine that batches well there is hardly a line: "
            + _reading(found, "continuous_engine")
            + "; with room for all sequences, nothing is left to order.",
            "Ageing decides who pays. No batching at 0.9: without ageing "
            + _pair(ageing["0"])
            + "; at 10 a second, the live default, "
            + _pair(ageing["10"])
            + ".",
        ),
        tables=(
            Table("SSJF with the released three-class predictions, against FCFS", columns, tuple(rows)),
            _elsewhere(found),
        ),
    )


def _elsewhere(found: Found) -> Table:
    places = {"bursts_09": "bursts, 0.9", "overload": "twice what FCFS serves", "no_help": "nothing to gain"}
    rows = []
    for section, told in places.items():
        for case, gains in found["gains"][section].items():
            name = MODES.get(case, case.replace("_", " "))
            mine = gains["ssjf"]
            oracle = interval(gains["oracle"]["jct_mean_s"]) if "oracle" in gains else "–"
            rows.append((f"{told}: {name}", *(interval(mine[key]) for key in ("jct_mean_s", "jct_p99_s")), oracle))
    return Table("Elsewhere, against FCFS", ("case", "SSJF: mean JCT", "p99", "true lengths: mean JCT"), tuple(rows))


def _reading(found: Found, mode: str) -> str:
    return f"{interval(found['gains']['fair_09'][mode]['ssjf']['jct_mean_s'])} of the mean at 0.9"


def _pair(gain: Mapping[str, Sequence[float]]) -> str:
    return f"{change(gain['jct_mean_s'][0])} of the mean and {change(gain['jct_p99_s'][0])} at p99"


# --- what it rests on ---


def _rests(found: Found) -> Section:
    engine = found["engine"]
    return Section(
        "rests",
        "Not in the paper, and set here",
        "simulated",
        notes=(
            "- The paper's figures per setting, its real-engine section and its tables of accuracy are not known here:"
            " the abstract's ranges alone are compared [A].",
            "- Durations, batch size, guard (100 s, ten times the duration), 50 jobs and 20 runs are the released"
            " code's [C]; the share in which the five classes are said is ours [I].",
            "- The fair setting (500 + 2,000 jobs, utilisation 0.7 and 0.9, ageing of the live order) is ours [I].",
            f"- The modelled A100: profile {engine['profile']}, prompts of {engine['prompt_tokens']} tokens, clients"
            f" allow {engine['max_tokens']} tokens, which a sequence reserves [I]; {engine['seeds']} seeds at 0.9,"
            f" {engine['seeds_but_at_09']} elsewhere. Nothing was fitted to the paper's results.",
        ),
    )


# --- words ---


def _policies(found: Found, mode: str) -> list[str]:
    return [name for name in POLICIES if name in found["published"][mode]]


def change(value: float) -> str:
    return f"{100 * value:+.1f} %" if value else "0 %"


def interval(pair: Sequence[float]) -> str:
    middle, half = pair
    return f"{100 * middle:+.1f}" + (f" ± {100 * half:.1f}" if math.isfinite(half) else "") + " %"


def _span(found: Found, load: str, policy: str) -> str:
    """Least and most over the modes, of the mean."""
    values = sorted(each[policy]["jct_mean_s"][0] for each in found["gains"][load].values())
    return f"{change(values[-1])} to {change(values[0])}"
