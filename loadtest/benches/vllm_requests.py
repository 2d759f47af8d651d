"""The simulator against 600 requests that vLLM served: costs calibrated on one part, predictions of another.

A: coefficients fitted on the first half of a run (by arrival), the second half predicted; KV room from memory and
lengths, or fitted too (A_kv_fitted) where memory limits how many run at once. B: a few shares of the data
sheets fitted on one run, the other GPU and model predicted from them. C: controls: the bare data sheets, the packaged
profile, the mean of the first half. Policy: what of A's errors is vLLM's admission, by its scheduler over the same
costs. Data: LLMServingSim's bench/examples (MIT): ShareGPT, 300 requests at 10/s, vLLM 0.19, overloaded.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.profiles import ProfileError, instance
from loadtest.benches.report import finish, say
from loadtest.benches.vllm_requests_data import MeasuredError, MeasuredRun, find, load
from loadtest.benches.vllm_requests_errors import HEAD, compared, mean_of, row
from loadtest.benches.vllm_requests_fit import Fitted, fit_costs, fit_efficiency, held_tokens, memory_binds
from loadtest.benches.vllm_requests_policy import preemptions, vllm_like
from loadtest.benches.vllm_requests_run import Setting, simulated
from loadtest.benches.vllm_requests_subjects import SUBJECTS, Efficiency, Subject, roofline

EVALUATIONS, QUICK_EVALUATIONS = 12, 6  # of a fit: each is one simulation for each number that is fitted, and one more
WHOLE = slice(None)


def described(subject: Subject, run: MeasuredRun) -> dict[str, Any]:
    """The run as the data show it."""
    return {
        "gpu": subject.gpu,
        "gpus": subject.gpus,
        "model": subject.model,
        "requests": len(run),
        "arrivals_s": round(float(run.arrival_s[-1]), 1),
        "duration_s": round(float(run.end_s.max()), 1),
        "most_at_once": run.concurrent,
        "slots": subject.slots,
        "kv_tokens": subject.kv_tokens,
        "memory_binds": memory_binds(subject, run),
    }


def within(subject: Subject, run: MeasuredRun, evaluations: int, *, kv_too: bool = False) -> dict[str, Any]:
    """A: the second half of a run from its first."""
    seen, unseen = run.halves
    tokens = held_tokens(subject, run, seen)
    fitted = fit_costs(subject, run, seen, simulated, kv_tokens=tokens, kv_too=kv_too, evaluations=evaluations)
    times = simulated(subject, run, fitted.setting)
    return {
        "fit": _told(fitted),
        "second_half": compared(run, times, unseen),
        "first_half": compared(run, times, seen),
    }


def across(runs: Mapping[str, MeasuredRun], source: Subject, target: Subject, evaluations: int) -> dict[str, Any]:
    """B: one run from what was reached of the data sheets in the other."""
    run, other = runs[source.run], runs[target.run]
    fitted = fit_efficiency(source, run, WHOLE, simulated, evaluations=evaluations)
    carried = Setting(roofline(target, Efficiency(**fitted.values)), held_tokens(target, other, WHOLE))
    return {
        "fit": _told(fitted),
        "target": compared(other, simulated(target, other, carried), WHOLE),
        "source": compared(run, simulated(source, run, fitted.setting), WHOLE),
    }


def controls(subject: Subject, run: MeasuredRun) -> dict[str, Any]:
    """C: what no calibration gives, on the second half as A is, and on the whole run as B is."""
    seen, unseen = run.halves
    tokens = held_tokens(subject, run, WHOLE)
    bare = simulated(subject, run, Setting(roofline(subject, Efficiency()), tokens))
    found = {
        "data_sheet": compared(run, bare, WHOLE),
        "data_sheet_second_half": compared(run, bare, unseen),
        "mean_of_first_half": compared(run, mean_of(run, seen), unseen),
    }
    try:
        step = instance(f"{subject.gpu}/{subject.model}/tp{subject.gpus}").step
    except ProfileError as error:
        say(f"  no packaged profile of {subject.key}: {error}")
        return found
    return found | {"packaged_profile": compared(run, simulated(subject, run, Setting(step, tokens)), WHOLE)}


def policy(subject: Subject, run: MeasuredRun, evaluations: int) -> dict[str, Any]:
    """Costs fitted under vLLM's own scheduler, then the same costs under both: their difference is the policies'."""
    seen, unseen = run.halves
    fitted = fit_costs(subject, run, seen, vllm_like, kv_tokens=subject.kv_tokens, evaluations=evaluations)
    ours = replace(fitted.setting, kv_tokens=held_tokens(subject, run, seen))
    return {
        "fit": _told(fitted),
        "preemptions": preemptions(subject, run, fitted.setting),
        "vllm_like_second_half": compared(run, vllm_like(subject, run, fitted.setting), unseen),
        "simulator_second_half": compared(run, simulated(subject, run, ours), unseen),
    }


def _told(fitted: Fitted) -> dict[str, Any]:
    values = {name: float(f"{value:.4g}") for name, value in fitted.values.items()}
    return {"values": values, "at_bounds": list(fitted.at_bounds), "loss": round(fitted.loss, 3), "runs": fitted.runs}


def measure(runs: Mapping[str, MeasuredRun], *, quick: bool) -> dict[str, Any]:
    evaluations = QUICK_EVALUATIONS if quick else EVALUATIONS
    found: dict[str, Any] = {"runs": {}, "A": {}, "A_kv_fitted": {}, "B": {}, "C": {}, "policy": {}}
    subjects = [subject for subject in SUBJECTS if subject.run in runs]
    for subject in subjects:
        run = runs[subject.run]
        say(f"{subject.run}: A, C{'' if quick else ', policy'} ...")
        found["runs"][subject.key] = described(subject, run)
        found["A"][subject.key] = within(subject, run, evaluations)
        found["C"][subject.key] = controls(subject, run)
        if memory_binds(subject, run) and not quick:
            found["A_kv_fitted"][subject.key] = within(subject, run, evaluations, kv_too=True)
        if not quick:
            found["policy"][subject.key] = policy(subject, run, evaluations)
    for source, target in zip(subjects, reversed(subjects), strict=True):
        if source is not target:
            say(f"{source.run} to {target.run}: B ...")
            found["B"][f"{source.key} to {target.key}"] = across(runs, source, target, evaluations)
    return found


def table(found: dict[str, Any]) -> list[str]:
    lines = [HEAD]
    for part, by_key in found.items():
        for key, entry in by_key.items() if part != "runs" else ():
            lines += [row(f"{part} {key} {name}", of) for name, of in entry.items() if "ttft" in _dict(of)]
    return lines


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench vllm-requests", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="short fits, and nothing of policies: under 60 s")
    parser.add_argument("--data", type=Path, default=find(), help="the measured requests (JSON lines, .gz or plain)")
    args = parser.parse_args(argv)
    if not args.data.is_file():
        say(f"no measured requests at {args.data}: give the file by --data; nothing was measured")
        return 1
    try:
        runs = load(args.data)
    except MeasuredError as error:
        say(str(error))
        return 1
    if not any(subject.run in runs for subject in SUBJECTS):
        say(f"{args.data} has the runs {', '.join(runs) or 'none'}; known: {', '.join(s.run for s in SUBJECTS)}")
        return 1
    found = measure(runs, quick=args.quick)
    for line in table(found):
        say(line)
    if args.json:
        finish("vllm-requests", argv, [], found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
