"""Trains the length predictor's heads: `python -m headrace.training.lengths [--data DIR] [--outputs FILE]`.

Shipped heads learn from the default model's own answers and from sources that may be passed on, all of which lie in
the assets; --data renews the latter. --research trains on every source of --data, for figures: those heads stay here.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headrace.core.lengths import LEVELS
from headrace.engines.families.smollm2 import SPEC
from headrace.predictor.encoder import PACKAGE, WIDTH, Encoder, encoder_path
from headrace.predictor.heads import ADAPTER_FILE, HEADS_FILE, MANIFEST_FILE
from headrace.predictor.model import Proxy
from headrace.predictor.numbers import NUMBERS
from headrace.predictor.reading import Reader
from headrace.training.lengths_encoder import Upper, lower_graph
from headrace.training.lengths_figures import ask, figures, offsets_of
from headrace.training.lengths_fit import Recipe, fit, training_rows
from headrace.training.lengths_net import CUTS3, CUTS5, Ensemble
from headrace.training.lengths_rows import (
    ASSETS,
    OUTPUTS_FILE,
    SOURCES,
    TEXTS_FILE,
    Row,
    medians,
    read_texts,
    shipped_rows,
    write_rows,
)
from headrace.training.lengths_table import model_names, tabled

SEED = 0
_OPSET = 17


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    if options.data and not options.research:
        write_rows(options.out / TEXTS_FILE, [row for row in read_texts(options.data) if SOURCES[row.source].shippable])
    rows = research_rows(options.data) if options.research else shipped_rows(options.out, options.outputs)
    recipe = replace(Recipe(), epochs=options.epochs, members=options.members)
    train(rows, recipe, options.out, options.threads)


def _options() -> argparse.Namespace:
    recipe = Recipe()
    parser = argparse.ArgumentParser(prog="python -m headrace.training.lengths", description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder with text_*.jsonl.gz")
    parser.add_argument("--outputs", type=Path, default=ASSETS / OUTPUTS_FILE, help="of lengths_collect")
    parser.add_argument("--research", action="store_true", help="all sources of --data; needs an --out of its own")
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--epochs", type=int, default=recipe.epochs)
    parser.add_argument("--members", type=int, default=recipe.members)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.research and (options.data is None or options.out == ASSETS):
        parser.error("--research needs --data, and --out: these heads are not to be shipped")
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def log(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), file=sys.stderr, flush=True)


def research_rows(folder: Path) -> list[Row]:
    return read_texts(folder)


def train(rows: list[Row], recipe: Recipe, out: Path, threads: int) -> dict[str, Any]:
    """Train on the rows' training split, write all to `out`, and look at the test split; its figures.

    What is written is what is judged: calibration and figures come from the files, through serving's own code.
    """
    started, models, path = time.monotonic(), model_names(rows), encoder_path()
    learnt = training_rows([row for row in rows if row.split == "train"], SEED)
    reader = Reader(recipe.head_tokens, recipe.tail_tokens)
    table = tabled(learnt, models, Encoder(threads, lower_graph(path, recipe.lower)), reader)
    log("encoded", rows=len(learnt), elapsed_s=round(time.monotonic() - started))
    upper, ensemble = fit(table, path, len(models) + 1, recipe, SEED, log)
    manifest = {
        "what": "the length predictor: corrections of the packaged all-MiniLM-L6-v2, and heads on its states",
        "encoder": PACKAGE,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": " ".join(["python -m headrace.training.lengths", *sys.argv[1:]]),
        "seed": SEED,
        "recipe": asdict(recipe),
        "rows": {name: sum(row.source == name for row in rows) for name in sorted({row.source for row in rows})},
        "licences": {name: SOURCES[name].licence for name in sorted({row.source for row in rows})},
        "classes3": CUTS3,
        "classes5": CUTS5,
        "levels": LEVELS,
        "offsets": [0.0] * len(LEVELS),
        "models": models,
        "numbers": NUMBERS,
    }
    export(upper, ensemble, out)
    _write(manifest, out)
    kept = judged([row for row in rows if row.split == "validation"])
    manifest["offsets"] = offsets_of(ask(Proxy(threads, out), kept).quantiles, kept)
    _write(manifest, out)
    kept = judged([row for row in rows if row.split == "test"])
    test = figures(ask(Proxy(threads, out), kept), kept)
    log("tested", elapsed_s=round(time.monotonic() - started), **test)
    _write(manifest | {"test": test}, out)
    return test


def judged(rows: list[Row]) -> list[Row]:
    """The default model's answers as they are; of other models that share a prompt the median."""
    return [
        *medians([row for row in rows if row.model != SPEC.name]),
        *(row for row in rows if row.model == SPEC.name),
    ]


def export(upper: Upper, ensemble: Ensemble, out: Path) -> None:
    """Write the corrections, and the heads as ONNX."""
    arrays: dict[str, Any] = dict(upper.deltas())
    np.savez_compressed(out / ADAPTER_FILE, **arrays)
    count = len(NUMBERS)
    example = torch.zeros(2, 3, WIDTH), torch.ones(2, 3), torch.zeros(2, count), torch.zeros(2, dtype=torch.long)
    names = ["states", "mask", "numbers", "model"]
    outputs = ["quantiles", "regression", "classes3", "classes5", "ordinal"]
    axes = {name: {0: "n"} for name in (*names, *outputs)} | {name: {0: "n", 1: "tokens"} for name in names[:2]}
    torch.onnx.export(
        ensemble.eval(),
        example,
        str(out / HEADS_FILE),
        input_names=names,
        output_names=outputs,
        dynamic_axes=axes,
        opset_version=_OPSET,
        dynamo=False,
    )


def _write(manifest: dict[str, Any], out: Path) -> None:
    (out / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
