"""What constrained decoding costs: iterations of sixteen sequences of which none, half or all keep to a JSON schema;
and what a mask, a replay and a compilation take alone.

The default model on ONNX Runtime, one thread, CPU time: the machine may have other work. The three take turns, so that
all see the same machine; medians of an iteration, and of the rounds' ratios to the free batch.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from headrace.core.types import Key, Sampling
from headrace.engines import grammar
from headrace.engines.base import Engine, SequenceInput
from headrace.engines.constrain import Grammars
from headrace.engines.families import ChatMessage, TextPart, family
from headrace.engines.registry import load_engine
from loadtest.benches.report import finish, percentile, say

MODEL = "smollm2-135m"
SLOTS = 16
ITEM = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 30}, "legs": {"type": "integer"}},
    "required": ["name", "legs"],
    "additionalProperties": False,
}
# It does not end within the bench: each constrained row has a mask at every iteration.
ENDLESS = {"type": "array", "items": ITEM, "minItems": 100}
WIDE = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1500)}}
SAID = json.dumps([{"name": f"animal {n} 🐟", "legs": n} for n in range(12)])


def batch(engine: Engine, prompt: tuple[int, ...], bound: int, warm: bool, iterations: int) -> float:
    """Seconds of CPU of the median iteration with `bound` of SLOTS rows constrained."""
    rules = grammar.json_schema(ENDLESS)
    keys = [Key(f"{n:032x}", 1) for n in range(SLOTS)]
    for n, key in enumerate(keys):
        free = n >= bound
        sampling = Sampling(
            iterations + 32,
            temperature=0.8 if warm else 0.0,
            seed=n,
            ignore_eos=free,
            grammar=b"" if free else rules,
        )
        engine.add(SequenceInput(key, prompt, len(prompt), (), (), "", sampling))
    while engine.step().decode_tokens < SLOTS:
        continue
    took_s = [cpu_s(engine.step) for _ in range(iterations)]
    for key in keys:
        engine.remove(key)
    return median(took_s)


def cpu_s(call: Callable[[], object]) -> float:
    started_s = time.process_time()
    call()
    return time.process_time() - started_s


def batches(rounds: int, iterations: int) -> dict[str, Any]:
    kind = family(MODEL)
    prompt = kind.render([ChatMessage("user", (TextPart("List animals as JSON."),))], ()).tokens
    engine = load_engine("onnx", MODEL, threads=1, slots=SLOTS, blocks=SLOTS * 16, prefix_cache_mb=0)
    found: dict[str, Any] = {}
    for warm in (False, True):
        name = "drawn" if warm else "greedy"
        took_s: dict[int, list[float]] = {0: [], SLOTS // 2: [], SLOTS: []}
        for _ in range(rounds):
            for bound, times in took_s.items():
                times.append(batch(engine, prompt, bound, warm, iterations))
        for bound, times in took_s.items():
            ratio = median(mine / free for mine, free in zip(times, took_s[0], strict=True))
            found[f"{name}_{bound}_of_{SLOTS}_ms"] = round(median(times) * 1e3, 2)
            found[f"{name}_{bound}_of_{SLOTS}_ratio"] = round(ratio, 3)
        say(f"{name}: {found}")
    return found


def alone() -> dict[str, float]:
    """Milliseconds of CPU of one mask in the middle of an answer, of a replay, of compilations."""
    kind = family(MODEL)
    grammars, tokens = Grammars(kind), kind.encode(SAID)
    small, wide = grammar.json_schema(ENDLESS), grammar.json_schema(WIDE)
    grammars.matcher(grammar.json_object())  # the vocabulary's trie is built once
    small_s, wide_s = (cpu_s(partial(grammars.matcher, rules)) for rules in (small, wide))
    matcher, masks_s = grammars.matcher(small), []
    for token in tokens:
        masks_s.append(cpu_s(matcher.compute_bitmask))
        matcher.consume_token(token)
    replay_s = cpu_s(lambda: grammars.matcher(small).consume_tokens(tokens))
    return {
        "compile_ms": round(small_s * 1e3, 2),
        f"compile_{len(wide) >> 10}_kib_ms": round(wide_s * 1e3, 1),
        "mask_p50_ms": round(median(masks_s) * 1e3, 3),
        "mask_p99_ms": round(percentile(masks_s, 0.99) * 1e3, 3),
        f"replay_{len(tokens)}_tokens_ms": round(replay_s * 1e3, 2),
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="headrace bench constrained", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="one round of few iterations")
    args = parser.parse_args(argv)
    figures = alone() | batches(rounds=1 if args.quick else 5, iterations=8 if args.quick else 20)
    for name, value in figures.items():
        say(f"{name}: {value}")
    if args.json:
        finish("constrained", argv, list(range(SLOTS)), figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
