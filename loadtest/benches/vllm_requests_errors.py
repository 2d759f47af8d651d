"""Simulated times held against measured ones: percentiles, errors by request, order, throughput."""

from typing import Any

import numpy as np
from scipy.stats import kendalltau

from loadtest.benches.vllm_requests_data import Floats, MeasuredRun, Times

SHARES = (0.50, 0.90, 0.99)


def compared(run: MeasuredRun, simulated: Times, rows: slice) -> dict[str, Any]:
    """Relative errors are simulated / measured - 1: more than 0 where the simulator is slower."""
    seen, made = run.times.part(rows), simulated.part(rows)
    tokens, begun_s = int(run.output_tokens[rows].sum()), float(run.arrival_s[rows].min())
    return {
        "requests": len(seen.ttft_s),
        "ttft": errors(seen.ttft_s, made.ttft_s),
        "tbt": errors(seen.tbt_s, made.tbt_s),
        "jct": errors(seen.jct_s, made.jct_s),
        "ttft_kendall_tau": order(seen.ttft_s, made.ttft_s),
        "output_tokens_per_s": _pair(
            tokens / (float(seen.end_s.max()) - begun_s), tokens / (float(made.end_s.max()) - begun_s)
        ),
    }


def errors(measured: Floats, simulated: Floats) -> dict[str, Any]:
    by_request = np.abs(simulated / measured - 1)
    found: dict[str, Any] = {
        f"p{round(100 * share)}_s": _pair(float(np.quantile(measured, share)), float(np.quantile(simulated, share)))
        for share in SHARES
    }
    return found | {"mape": _round(float(by_request.mean())), "median_ape": _round(float(np.median(by_request)))}


def order(measured: Floats, simulated: Floats) -> float | None:
    """Kendall's tau-b of two columns; None where one of them is constant."""
    if min(np.ptp(measured), np.ptp(simulated)) == 0:
        return None
    return _round(float(kendalltau(measured, simulated).statistic))


def _pair(measured: float, simulated: float) -> dict[str, float]:
    return {
        "measured": _round(measured),
        "simulated": _round(simulated),
        "error": _round(simulated / measured - 1),
    }


def _round(value: float) -> float:
    """To four digits: what stays is beyond what a run repeats."""
    return float(f"{value:.4g}")


def mean_of(run: MeasuredRun, seen: slice) -> Times:
    """The naive prediction: every request takes what those that were seen took on average."""
    times, here = run.times.part(seen), np.ones(len(run))
    jct_s = here * times.jct_s.mean()
    return Times(here * times.ttft_s.mean(), here * times.tbt_s.mean(), jct_s, run.arrival_s + jct_s)


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table: relative errors in percent, p50 / p90 / p99, then by request."""

    def percents(of: dict[str, Any]) -> str:
        return " ".join(f"{100 * of[f'p{round(100 * share)}_s']['error']:+6.1f}" for share in SHARES)

    tau = found["ttft_kendall_tau"]
    cells = [f"{percents(found[key])} ({100 * found[key]['mape']:5.1f})" for key in ("ttft", "tbt", "jct")]
    throughput = 100 * found["output_tokens_per_s"]["error"]
    return f"{name:46} | {' | '.join(cells)} | {'  -  ' if tau is None else f'{tau:5.3f}'} | {throughput:+6.1f}"


HEAD = f"{'errors in %: p50 p90 p99 (MAPE)':46} | {'TTFT':28} | {'TBT':28} | {'JCT':28} | tau   | tok/s"
