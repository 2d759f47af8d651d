"""The section of SSJF's report on this project's own predictor, beside the published one's."""

from collections.abc import Mapping
from typing import Any

from headrace.characterize.document import Section, Table
from loadtest.reproduce.ssjf_sections import LOADS, MODES, POLICIES, change, interval

POPULATIONS = {
    "held_out": "all held-out prompts, answers of several models",
    "default_model": "the default model's own answers",
}
NAMES = POLICIES | {"ssjf": "SSJF, Headrace's predictor"}
_COLUMNS = ("mode, policy", "published setting", *LOADS.values(), "p99 at 0.9")


def section(ours: Mapping[str, Any], published: Mapping[str, Any]) -> Section:
    """ours: by population. published: the whole bench's figures, with the released predictions."""
    return Section(
        "ours",
        "With Headrace's own predictor",
        "simulated",
        findings=tuple([_finding(name, each) for name, each in ours.items()]),
        notes=(
            "The packaged predictor, asked about prompts that it has not learnt from; jobs are drawn from the pairs of"
            " true and predicted length, and nothing is recalibrated on the way. Orders, loads and modes as above. Taus"
            " of different answers do not compare: the released three-class predictor has"
            f" {published['predictors']['kendall_tau']['ssjf']:.3f} on Vicuna-13B's.",
            "More than a third of the default model's answers are cut off at 512 tokens: among those there is nothing"
            " to order.",
        ),
        tables=tuple([_table(name, each) for name, each in ours.items()]),
    )


def _finding(name: str, each: Mapping[str, Any]) -> str:
    shares = []
    for mode, gains in each["gains"]["fair_09"].items():
        ours, most = (gains[policy]["jct_mean_s"][0] for policy in ("ssjf", "oracle"))
        shares.append(f"{100 * ours / most:.0f} % ({MODES[mode]})")
    return (
        f"{POPULATIONS[name].capitalize()} ({each['answers']}, {each['tokens_mean']:.0f} tokens on average; Kendall's"
        f" tau {each['kendall_tau']:.3f}): of what true lengths gain at 0.9, {', '.join(shares)}."
    )


def _table(name: str, each: Mapping[str, Any]) -> Table:
    rows = []
    for mode, by_policy in each["published"].items():
        for policy in (policy for policy in NAMES if policy in by_policy):
            of, gains = by_policy[policy], {load: each["gains"][load][mode][policy] for load in LOADS}
            rows.append(
                (
                    f"{MODES[mode]}: {NAMES[policy]}",
                    change(of["jct_mean_s"] / by_policy["fcfs"]["jct_mean_s"] - 1),
                    *(interval(gain["jct_mean_s"]) for gain in gains.values()),
                    interval(gains["fair_09"]["jct_p99_s"]),
                )
            )
    return Table(f"Mean JCT against FCFS: {POPULATIONS[name]}", _COLUMNS, tuple(rows))
