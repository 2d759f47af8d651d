"""How well output lengths are predicted, and how fast: on held-out prompts, overall and within each source.

The top-level figures are of heads trained here and now on every source of ../shared/data (some may not be passed on, so
these heads are not shipped; without the folder they are left out). `default_model` is what ships: the packaged heads on
the default model's own answers. Baselines learn from the same rows.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from headrace.core.lengths import Features
from headrace.engines.families.smollm2 import SPEC
from headrace.predictor.model import Asked, Proxy
from headrace.predictor.probe import PROBE_FILE, Probe
from headrace.training.lengths import SEED, judged, train
from headrace.training.lengths_figures import ask, figures
from headrace.training.lengths_fit import Recipe
from headrace.training.lengths_probe import judged as probe_judged
from headrace.training.lengths_probe import place_of
from headrace.training.lengths_rows import (
    ASSETS,
    OUTPUTS_FILE,
    TEXTS,
    Row,
    read_outputs,
    read_texts,
    shipped_rows,
)
from loadtest.benches.predictor_baselines import baselines
from loadtest.benches.report import finish, percentile, say

DATA = Path(__file__).parents[3] / "shared" / "data"
# Hidden states of the test split's prompts after prefill, as lengths_probe kept them.
STATES = Path(__file__).with_name("predictor_states.npz")
BATCH = 16
_QUICK_ROWS, _QUICK_TIMED, _TIMED = 900, 40, 200


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench predictor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, one epoch: shows that it runs")
    parser.add_argument("--threads", type=int, default=2, help="of training; predictions are timed on one")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    found = held_out_sources(args.quick, args.threads) | {"default_model": default_model(args.quick, args.threads)}
    found |= timed(_QUICK_TIMED if args.quick else _TIMED)
    tell(found)
    if args.json:
        finish("predictor", argv, [SEED], found)


def held_out_sources(quick: bool, threads: int) -> dict[str, Any]:
    """Heads on all sources of the data folder, beside the baselines; nothing without the folder."""
    if not (DATA / TEXTS).exists():
        say(f"{DATA.name} is missing beside the checkout: only the shipped heads are measured")
        return {}
    rows = read_texts(DATA)
    recipe = Recipe()
    if quick:
        rows, recipe = _some(rows, _QUICK_ROWS), replace(recipe, epochs=1, members=1)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as directory:
        ours = train(rows, recipe, Path(directory), threads)
    return ours | {"baselines": _baselines(rows, threads)}


def default_model(quick: bool, threads: int) -> dict[str, Any]:
    """The shipped heads, and the probe where the states are there, on the default model's held-out answers."""
    prompts = [row.prompt for row in read_texts(DATA)] if (DATA / TEXTS).exists() else []
    rows = [row for row in read_outputs(ASSETS / OUTPUTS_FILE, SPEC.name, prompts) if row.split == "test"]
    proxy = Proxy(threads)
    found = figures(ask(proxy, rows), rows) | {"baselines": _against(shipped_rows(), rows, threads, quick)}
    if STATES.exists() and (ASSETS / PROBE_FILE).exists():
        with np.load(STATES) as arrays:
            states = dict(zip(arrays["places"].tolist(), arrays["states"].astype(np.float32), strict=True))
        kept = [row for row in rows if place_of(row) in states]
        found_states = np.stack([states[place_of(row)] for row in kept])
        after = probe_judged(Probe.load(ASSETS / PROBE_FILE), proxy, kept, found_states)
        found |= {"kendall_tau_after_prefill": after["mixed"]["kendall_tau"], "after_prefill": after}
    return found


def _baselines(rows: Sequence[Row], threads: int) -> dict[str, Any]:
    learnt, asked = (judged([row for row in rows if row.split == split]) for split in ("train", "test"))
    return baselines(learnt, asked, threads)


def _against(rows: Sequence[Row], asked: list[Row], threads: int, quick: bool) -> dict[str, Any]:
    """Baselines that learn from the default model's answers alone: other models' would only mislead them."""
    learnt = [row for row in rows if row.split == "train" and row.model == SPEC.name]
    return baselines(_some(learnt, _QUICK_ROWS) if quick else learnt, asked, threads)


def _some(rows: Sequence[Row], count: int) -> list[Row]:
    return list(rows[:: max(1, len(rows) // count)])


def timed(count: int) -> dict[str, float]:
    """Milliseconds a prompt on one thread: alone, and in batches as the predictor's thread makes them."""
    own = [row for row in shipped_rows() if row.model == SPEC.name and row.split == "test"]
    asked = [Asked(row.prompt, Features(row.prompt_tokens, 512, row.model)) for row in own[:count]]
    proxy = Proxy(threads=1)
    proxy.predict(asked[:BATCH])
    alone = [_seconds(proxy, [one]) for one in asked]
    batches = [asked[at : at + BATCH] for at in range(0, len(asked) - BATCH + 1, BATCH)]
    together = [_seconds(proxy, batch) / BATCH for batch in batches]
    return {
        "p50_ms": round(1e3 * percentile(alone, 0.5), 2),
        "p99_ms": round(1e3 * percentile(alone, 0.99), 2),
        "batched_ms": round(1e3 * percentile(together, 0.5), 2),
    }


def _seconds(proxy: Proxy, asked: list[Asked]) -> float:
    started = perf_counter()
    proxy.predict(asked)
    return perf_counter() - started


def tell(found: dict[str, Any]) -> None:
    """The tables: tau of ours and of each baseline, overall and by source."""
    for title, table in (("all sources, trained here", found), ("the default model's answers", found["default_model"])):
        if "baselines" not in table:
            continue
        say(f"{title}: Kendall's tau")
        columns = {"headrace": table, **table["baselines"]}
        say(f"  {'':24}" + "".join(f"{name:>24}" for name in columns))
        for source in ("", *table["by_source"]):
            values = [one["by_source"][source] if source else one["kendall_tau"] for one in columns.values()]
            say(f"  {source or 'overall':24}" + "".join(f"{value:24.3f}" for value in values))
        say(f"  MAE {table['mae_tokens']} tokens, 90 % bound holds for {table['coverage90']:.1%}")
    say(f"{found['p50_ms']} ms alone, {found['batched_ms']} ms a prompt in batches of {BATCH}")


if __name__ == "__main__":
    main()
