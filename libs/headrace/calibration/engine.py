"""What an engine's iterations cost, from lone prompts, prompts in a row, and batches that decode.

A lone prompt takes its way to the worker and its iterations; of prompts that were sent together the later ones take
their iterations alone; a steady batch takes an iteration a token. One fit over all three tells them apart.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from headrace.calibration.fits import Fit, HeldOut, Missed, Row, fit, held_out, held_out_errors
from headrace.core.cost import Curve, StepCost, StepWork

WAY = "way"  # from the queue manager's word to the engine: no part of any iteration
EXPORT = "export"  # a byte of a KV cache that is written out before the first token is told
PAIRS, SEQUENCES, CONTEXT = "prefill_pairs", "decode_sequences", "decode_context_tokens"
# Between two bends of the curve over tokens, at least: many bends follow a real curve, few of them no noise. What
# foresees best what is held out is taken; a straight line is the last.
KNOT_RATIOS = (1.5, 3.0, 8.0, math.inf)


@dataclass(frozen=True, slots=True)
class Observed:
    """Seconds that certain iterations took, one after the other; `way`: with the command's way before them."""

    name: str  # "prefill 512", "in a row 512", "decode 4 x 128"
    seconds: float
    works: tuple[StepWork, ...]
    way: bool = False
    exported_bytes: float = 0.0

    @property
    def tokens(self) -> int:
        """Of its largest iteration."""
        return max(work.prefill_tokens + work.decode_sequences for work in self.works)


@dataclass(frozen=True, slots=True)
class EngineFit:
    step: StepCost
    way_s: float
    export_byte_s: float
    median_error: float
    worst_error: float
    held_out: HeldOut
    errors: Mapping[str, float]  # relative, by observation


def fit_engine(observed: Sequence[Observed], way_max_s: float = math.inf) -> EngineFit:
    """way_max_s: a way that is known to be longer; a lone prompt that takes still more is slower in the engine."""
    missed, ratio = min(((held_out_errors_of(observed, ratio), ratio) for ratio in KNOT_RATIOS), key=_missed_by)
    knots = knots_of(observed, ratio)
    found = _fit_within([row_of(each, knots) for each in observed], way_max_s)
    return EngineFit(
        step=step_of(found, knots),
        way_s=found.values.get(WAY, 0.0),
        export_byte_s=found.values.get(EXPORT, 0.0),
        median_error=found.median_error,
        worst_error=found.worst_error,
        held_out=held_out(missed),
        errors={each.name: float(error) for each, error in zip(observed, found.errors, strict=True)},
    )


def _fit_within(rows: Sequence[Row], way_max_s: float) -> Fit:
    found = fit(rows)
    if found.values.get(WAY, 0.0) <= way_max_s:
        return found
    lessened = [
        Row(
            row.group,
            max(row.seconds - way_max_s * row.terms.get(WAY, 0.0), 1e-6),
            {name: amount for name, amount in row.terms.items() if name != WAY},
        )
        for row in rows
    ]
    found = fit(lessened)
    return Fit({**found.values, WAY: way_max_s}, found.errors)


def _missed_by(tried: tuple[list[Missed], float]) -> tuple[float, float]:
    """Mean relative error of what was held out; among equals the fewest bends."""
    missed, ratio = tried
    error = sum(abs(each.error) for each in missed) / len(missed) if missed else 0.0
    return round(error, 3), -ratio


def knots_of(observed: Sequence[Observed], ratio: float) -> tuple[int, ...]:
    """Where the curve over tokens may bend: from one token, at what iterations were measured to have without a way
    before them, to the largest. Elsewhere a bend could not be told from a longer way.
    """
    largest = max((work.prefill_tokens for each in observed for work in each.works), default=0)
    alone = {work.prefill_tokens for each in observed if not each.way for work in each.works}
    sizes = sorted({size for size in (*alone, largest) if size > 1})
    knots = [1]
    for size in sizes[:-1]:
        if size >= ratio * knots[-1] and sizes[-1] >= ratio * size:
            knots.append(size)
    return (*knots, *sizes[-1:])


def row_of(observed: Observed, knots: Sequence[int]) -> Row:
    terms: dict[str, float] = {WAY: 1.0} if observed.way else {}
    if observed.exported_bytes:
        terms[EXPORT] = observed.exported_bytes
    for work in observed.works:
        for name, amount in _terms(work, knots).items():
            terms[name] = terms.get(name, 0.0) + amount
    return Row(observed.name, observed.seconds, terms)


def _terms(work: StepWork, knots: Sequence[int]) -> dict[str, float]:
    """The curve as a floor and the rise of each piece, none of which can be negative: more work never takes less."""
    tokens = work.prefill_tokens + work.decode_sequences
    terms = {"rise 1": 1.0}
    last = len(knots) - 1
    for at, (low, high) in enumerate(pairwise(knots), 1):
        share = max(0.0, (tokens - low) / (high - low))
        terms[f"rise {high}"] = share if at == last else min(1.0, share)
    decoding = {PAIRS: work.prefill_pairs, SEQUENCES: work.decode_sequences, CONTEXT: work.decode_context_tokens}
    return terms | {name: float(amount) for name, amount in decoding.items() if amount}


def step_of(found: Fit, knots: Sequence[int]) -> StepCost:
    seconds, heights = 0.0, list[float]()
    for knot in knots:
        seconds += found.values.get(f"rise {knot}", 0.0)
        heights.append(seconds)
    return StepCost(
        tokens_s=Curve(tuple(float(knot) for knot in knots), tuple(heights)),
        prefill_pair_s=found.values.get(PAIRS, 0.0),
        decode_sequence_s=found.values.get(SEQUENCES, 0.0),
        decode_context_token_s=found.values.get(CONTEXT, 0.0),
    )


def held_out_errors_of(observed: Sequence[Observed], ratio: float) -> list[Missed]:
    """Each observation between others of its kind is foreseen by a fit without it; the ends would be guesses."""
    errors = list[Missed]()
    for name in _inner(observed):
        kept = [each for each in observed if each.name != name]
        knots = knots_of(kept, ratio)
        rows = [row_of(each, knots) for each in (*kept, *(each for each in observed if each.name == name))]
        errors += held_out_errors(rows, [name])
    return errors


def _inner(observed: Sequence[Observed]) -> list[str]:
    kinds: dict[str, list[Observed]] = {}
    for each in observed:
        kinds.setdefault(each.name.partition(" ")[0], []).append(each)
    inner = list[str]()
    for members in kinds.values():
        ordered = sorted(members, key=lambda each: (each.tokens, each.seconds))
        inner += [each.name for each in ordered[1:-1]]
    return inner
