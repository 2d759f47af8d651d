"""Trains the probe on the default model's hidden states: `python -m headrace.training.lengths_probe --states FILE`.

The states are those that lengths_collect wrote beside the outputs, one for each of their rows.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headrace.core.lengths import LEVELS
from headrace.engines.families.smollm2 import SPEC
from headrace.predictor.heads import Said
from headrace.predictor.model import Proxy
from headrace.predictor.probe import PROBE_FILE, Probe
from headrace.training.lengths import SEED, log
from headrace.training.lengths_figures import ask, figures, offsets_of
from headrace.training.lengths_rows import ASSETS, OUTPUTS_FILE, SOURCES, Row, digest_of, read_all, read_texts

_MEMBERS, _HIDDEN, _EPOCHS, _BATCH, _RATE, _DECAY, _DROPOUT = 4, 64, 30, 64, 1e-3, 0.1, 0.4
_CENTRE = 4.5
_SHARES = tuple(i / 20 for i in range(21))

Floats = NDArray[np.float32]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    prompts = [row.prompt for row in read_texts(options.data)] if options.data else []
    rows, states = with_states(options.outputs, options.states, prompts)
    probe, figures_found = train(rows, states, Proxy(options.threads, options.out))
    np.savez(options.out / PROBE_FILE, **probe)
    about = {"what": f"probe of {SPEC.name} after prefill", "date": time.strftime("%Y-%m-%d", time.gmtime())}
    (options.out / "probe.json").write_text(json.dumps(about | {"test": figures_found}, indent=1) + "\n")
    if options.kept:
        keep(options.kept, rows, states)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m headrace.training.lengths_probe", description=__doc__)
    parser.add_argument("--outputs", type=Path, default=ASSETS / OUTPUTS_FILE)
    parser.add_argument("--states", type=Path, required=True)
    parser.add_argument("--kept", type=Path, help="a .npz for the held-out prompts' states, which the bench reads")
    parser.add_argument("--data", type=Path, help="the folder with text_*.jsonl.gz: prompts that are not stored here")
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def with_states(outputs: Path, states: Path, prompts: list[str]) -> tuple[list[Row], Floats]:
    """The rows whose prompts are known, and their states [n, width]."""
    rows = read_all(outputs, SPEC.name, prompts)
    with np.load(states) as arrays:
        found = arrays["states"].astype(np.float32)
    assert len(rows) == len(found), f"{len(found)} states for {len(rows)} rows: they are of different runs"
    known = [i for i, row in enumerate(rows) if row is not None]
    return [row for row in rows if row is not None], found[known]


def keep(path: Path, rows: list[Row], states: Floats) -> None:
    """States of the test split, with what finds them."""
    held_out = [i for i, row in enumerate(rows) if row.split == "test"]
    places = np.array([place_of(rows[i]) for i in held_out])
    np.savez_compressed(path, places=places, states=states[held_out].astype(np.float16))


def place_of(row: Row) -> str:
    """What a row's state is found by; the same question about other images is another row."""
    return f"{digest_of(row.prompt)[:16]} {row.media_tokens} {row.prompt_tokens} {row.output_tokens}"


def train(rows: list[Row], states: Floats, proxy: Proxy) -> tuple[dict[str, Any], dict[str, Any]]:
    """The probe's arrays, and its figures on the test split: alone, mixed, and the proxy's beside them."""
    split = np.array([row.split for row in rows])
    free = np.array([SOURCES[row.source].shippable for row in rows])
    learn = np.flatnonzero((split == "train") & free)
    members = [_member(rows, states, learn, SEED + i) for i in range(_MEMBERS)]
    arrays: dict[str, Any] = {
        name: np.stack([member[name] for member in members]) for name in ("into", "into_bias", "out", "out_bias")
    }
    arrays |= {"mean": members[0]["mean"], "deviation": members[0]["deviation"]}
    arrays |= {"share": np.float32(1.0), "offsets": np.zeros(len(LEVELS), np.float32)}
    kept = np.flatnonzero((split == "validation") & free)
    said, held_out = ask(proxy, [rows[i] for i in kept]), [rows[i] for i in kept]
    losses = {}
    for share in _SHARES:
        mixed = Probe.of(arrays | {"share": np.float32(share)}).mixed(states[kept], said.quantiles)
        losses[share] = pinball(mixed, held_out)
    best = min(losses, key=losses.__getitem__)
    arrays["share"] = np.float32(best)
    arrays["offsets"] = np.array(offsets_of(Probe.of(arrays).mixed(states[kept], said.quantiles), held_out), np.float32)
    log("mixed", share=best, loss=round(losses[best], 4), alone=round(losses[1.0], 4), proxy=round(losses[0.0], 4))
    return arrays, judged(
        Probe.of(arrays), proxy, [rows[i] for i in np.flatnonzero(split == "test")], states[split == "test"]
    )


def judged(probe: Probe, proxy: Proxy, rows: list[Row], states: Floats) -> dict[str, Any]:
    said = ask(proxy, rows)
    kinds = {"proxy": said.quantiles, "probe": probe.alone(states), "mixed": probe.mixed(states, said.quantiles)}
    found = {}
    for name, quantiles in kinds.items():
        full = figures(Said(quantiles, said.regression, said.classes3, said.classes5, said.ordinal), rows)
        kept = ("mae_tokens", "kendall_tau", "spearman", "by_source", "mae_by_source", "coverage90", "rows")
        found[name] = {key: full[key] for key in kept}
        log("tested", of=name, **found[name])
    return found


def pinball(quantiles: Floats, rows: list[Row]) -> float:
    """The mean over rows and levels; see lengths_net.loss for what was cut off."""
    error = np.log([row.output_tokens for row in rows])[:, None] - quantiles
    levels = np.array(LEVELS)
    value = np.maximum(levels * error, (levels - 1) * error)
    cut = np.array([not row.stopped for row in rows])[:, None]
    return float(np.where(cut & (error <= 0), 0.0, value).mean())


def _member(rows: list[Row], states: Floats, learn: NDArray[np.int64], seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    mean, deviation = states[learn].mean(0), states[learn].std(0) + 1e-3
    scaled = torch.from_numpy(np.clip((states - mean) / deviation, -5.0, 5.0))
    lengths = torch.log(torch.tensor([float(row.output_tokens) for row in rows]))
    stopped = torch.tensor([row.stopped for row in rows])
    first, second = nn.Linear(states.shape[1], _HIDDEN), nn.Linear(_HIDDEN, len(LEVELS))
    nn.init.constant_(second.bias, _CENTRE)
    parameters = [*first.parameters(), *second.parameters()]
    optimiser = torch.optim.AdamW(parameters, _RATE, weight_decay=_DECAY)
    levels = torch.tensor(LEVELS)
    for _ in range(_EPOCHS):
        for at in np.array_split(rng.permutation(learn), max(1, len(learn) // _BATCH)):
            dropped = nn.functional.dropout(torch.relu(first(scaled[at])), _DROPOUT)
            error = lengths[at][:, None] - second(dropped)
            value = torch.maximum(levels * error, (levels - 1) * error)
            value = torch.where(stopped[at][:, None] | (error > 0), value, torch.zeros_like(value)).mean()
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    with torch.no_grad():
        weights = {"into": first.weight.T, "into_bias": first.bias[None], "out": second.weight.T}
        found = {name: value.numpy().copy() for name, value in (weights | {"out_bias": second.bias[None]}).items()}
    return found | {"mean": mean, "deviation": deviation}


if __name__ == "__main__":
    main()
