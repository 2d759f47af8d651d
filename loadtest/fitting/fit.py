"""From composed iteration times to the few numbers of a StepCost, and how far those are off."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from headrace.core.cost import Curve, StepCost, StepWork
from loadtest.fitting.compose import Composer

KNOTS = (1, 16, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192)  # tokens
BETWEEN = (8, 32, 48, 80, 160, 320, 640, 1536, 3072, 6144)  # held out
ROOM = 16384  # tokens of one prefill iteration
MEDIA_ROWS = (1601, 3202, 6404, 12808, 16010)
Shape = tuple[int, int]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    step: StepCost
    errors: dict[str, tuple[float, float, float, float]]  # by phase: median and largest, fitted; the same, held out


def fit(composer: Composer, sequence_s: float, kv_tokens: int) -> Fit:
    """Non-negative least squares of relative errors of whole iterations, over all but every third point."""
    prompts = _shapes((1, 2, 3, 4, 8, 16, 32), (64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 6144, 8192), ROOM)
    batches = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    contexts = (128, 256, 512, 768, 1024, 2048, 3072, 4096, 8192, 16384)
    decodes = _shapes(batches, contexts, min(kv_tokens, 4_000_000))
    fixed, token, pair = _attention(composer, _kept(prompts))
    dense = [composer.dense_s(tokens, 1) + fixed + token * tokens for tokens in KNOTS]
    tokens_s = Curve(tuple(map(float, KNOTS)), tuple(float(value) for value in np.maximum.accumulate(dense)))
    sequence, context = _decoding(composer, tokens_s, _kept(decodes), sequence_s)
    cross = composer.llm.cross / composer.llm.self_layers
    media = float(np.mean([composer.media_s(rows) / rows for rows in MEDIA_ROWS])) if composer.llm.cross else 0.0
    step = StepCost(tokens_s, pair, sequence, context, media, pair * cross, context * cross)

    def prefill_off(shape: Shape) -> float:
        return step.step_s(prefill_work(*shape)) / composer.prefill_s(*shape) - 1

    def decode_off(shape: Shape) -> float:
        return step.step_s(decode_work(*shape)) / (composer.decode_s(*shape) + shape[0] * sequence_s) - 1

    def token_off(shape: Shape) -> float:
        return tokens_s(shape[0]) / (composer.dense_s(shape[0], 1) + fixed + token * shape[0]) - 1

    return Fit(
        step,
        {
            "tokens": _off(token_off, [(n, 1) for n in KNOTS], [(n, 1) for n in BETWEEN]),
            "prefill": _off(prefill_off, _kept(prompts), _held_out(prompts)),
            "decode": _off(decode_off, _kept(decodes), _held_out(decodes)),
        },
    )


def prefill_work(batch: int, tokens: int) -> StepWork:
    return StepWork(prefill_tokens=batch * tokens, prefill_pairs=batch * tokens * (tokens + 1) // 2)


def decode_work(batch: int, context: int) -> StepWork:
    return StepWork(decode_sequences=batch, decode_context_tokens=batch * context)


def _attention(composer: Composer, prompts: list[Shape]) -> tuple[float, float, float]:
    """Prefill attention as fixed + token x tokens + pair x pairs."""
    work = [prefill_work(*shape) for shape in prompts]
    terms = np.array([[1.0, item.prefill_tokens, item.prefill_pairs] for item in work])
    seconds = np.array([composer.context_s(*shape) for shape in prompts])
    whole = np.array([composer.prefill_s(*shape) for shape in prompts])
    fixed, token, pair = _nnls(terms, seconds, whole)
    return fixed, token, pair


def _decoding(composer: Composer, tokens_s: Curve, decodes: list[Shape], sequence_s: float) -> tuple[float, float]:
    """What decoding adds to its tokens, by sequences and by the context that they look back at."""
    terms = np.array([[batch, batch * context] for batch, context in decodes], float)
    whole = np.array([composer.decode_s(*shape) + shape[0] * sequence_s for shape in decodes])
    rest = whole - np.array([tokens_s(batch) for batch, _ in decodes])
    sequence, context = _nnls(terms, rest, whole)
    return sequence, context


def _nnls(terms: Floats, seconds: Floats, whole: Floats) -> list[float]:
    scale = terms.max(axis=0)  # pairs and ones in one system
    found, _ = nnls(terms / scale / whole[:, None], seconds / whole)
    return [float(value) for value in found / scale]


def _shapes(batches: Iterable[int], lengths: Iterable[int], room: int) -> list[Shape]:
    lengths = tuple(lengths)
    return [(batch, length) for batch in batches for length in lengths if batch * length <= room]


def _kept(shapes: list[Shape]) -> list[Shape]:
    return [shape for at, shape in enumerate(shapes) if at % 3 != 1]


def _held_out(shapes: list[Shape]) -> list[Shape]:
    return shapes[1::3]


def _off(error: Callable[[Shape], float], fitted: list[Shape], held: list[Shape]) -> tuple[float, float, float, float]:
    inside, outside = (np.abs([error(shape) for shape in shapes]) for shapes in (fitted, held))
    return float(np.median(inside)), float(inside.max()), float(np.median(outside)), float(outside.max())
